"""A node that ends with whoever started it, however that ended: `python -m sdk.dev.node_process STATE`."""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)


def main(state: Path, parent: int) -> None:
    """Runs the node in `state` until it is told to stop, or its parent process is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)  # it was gone before it could be noticed
    from host import daemon
    from host.console.ending import ended
    from host.installed import measure_host

    ended(lambda: daemon.run(state, development=not measure_host().sealed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

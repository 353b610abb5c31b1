"""`python -m host STATE [--development]`: a node and nothing else. `snapcount node run` becomes this, because an idle node has no use for a command line."""

import sys
from pathlib import Path

from host import daemon
from host.console.ending import ended

DEVELOPMENT = "--development"


def main() -> None:
    """Runs the node until it is told to stop."""
    state, *flags = sys.argv[1:]
    ended(lambda: daemon.run(Path(state), development=DEVELOPMENT in flags))


if __name__ == "__main__":
    main()

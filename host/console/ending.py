"""How a command ends: an error is one line on stderr, and the exit code says of which kind it was."""

import os
import sys
from collections.abc import Callable

from host.core.errors import HostFault, SnapcountError

EXIT_INTERRUPTED = 130
EXIT_PIPE = 141


def ended(work: Callable[[], object]) -> None:
    """Does the work. Raises SystemExit with the code of what it raised."""
    try:
        work()
    except SnapcountError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader has gone; keep Python from complaining about it once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_PIPE)
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(HostFault.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)

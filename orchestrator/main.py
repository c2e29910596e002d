"""The `orchestrator` program: its command line, with every expected error as one line and an exit code."""

import signal
import sys

from orchestrator.cli import cli
from orchestrator.errors import ExitCode, OrchestratorError
from orchestrator.streams import open_streams


def main() -> None:
    """Run the command line; ``--debug`` shows the traceback of an expected error, too."""
    open_streams()
    # piped to head, a command ends silently instead of with a traceback
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        cli()
    except (Exception, KeyboardInterrupt) as error:
        ending = _expected(error)
        if ending is None or "--debug" in sys.argv:
            raise
        code, message = ending
        print(f"error: {message}", file=sys.stderr)
        sys.exit(code)


def _expected(error: BaseException) -> tuple[ExitCode, str] | None:
    """The exit code and the message of an error that is for people; None for a bug."""
    # not before there is one: half of the time that --help takes
    from sqlalchemy.exc import DBAPIError

    from db.engine import Unreachable
    from db.errors import StorageError
    from early_exit.errors import EarlyExitError, OutOfReach

    match error:
        case OrchestratorError():
            return error.exit_code, str(error)
        # before their base classes, which are the user's fault
        case Unreachable() | OutOfReach():
            return ExitCode.OUT_OF_REACH, str(error)
        case EarlyExitError() | StorageError():
            return ExitCode.USAGE, str(error)
        case DBAPIError():
            return ExitCode.OUT_OF_REACH, f"database: {str(error.orig).strip().splitlines()[0]}"
        case OSError():
            return ExitCode.OUT_OF_REACH, f"{error.filename or 'system'}: {error.strerror or error}"
        case KeyboardInterrupt():
            return ExitCode.DETACHED, "interrupted"
    return None

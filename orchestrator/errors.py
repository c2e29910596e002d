"""Errors for people: one line (what, where, why, what to do); and every command's exit codes."""

import difflib
from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    """It did what it was asked."""
    NO_RESULT = 1
    """No result could be made."""
    USAGE = 2
    """The call or its input is at fault; nothing was started. typer and ``db.limits`` exit with it, too."""
    SOME_FAILED = 3
    """Some jobs failed or were cancelled; the others have results."""
    OUT_OF_REACH = 4
    """The database, the broker, the workers or a download are out of reach."""
    DETACHED = 130
    """Ctrl-C ended the command; the run is kept."""


class OrchestratorError(Exception):
    """No result could be made."""

    exit_code: ClassVar[ExitCode] = ExitCode.NO_RESULT


class UsageError(OrchestratorError):
    """The call or its input is at fault; nothing was started."""

    exit_code = ExitCode.USAGE


class InfrastructureError(OrchestratorError):
    """Broker, database or workers are out of reach."""

    exit_code = ExitCode.OUT_OF_REACH


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence that suggests the closest of ``names``, or lists them all."""
    known = list(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(known)}."

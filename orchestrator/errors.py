"""Errors for people: one line (what, where, why, what to do) and an exit code."""

import difflib
from collections.abc import Iterable


class OrchestratorError(Exception):
    """No result could be made."""

    exit_code = 1


class UsageError(OrchestratorError):
    """The call or its input is at fault; nothing was started."""

    exit_code = 2


class InfrastructureError(OrchestratorError):
    """Broker, database or workers are out of reach."""

    exit_code = 4


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence that proposes the nearest of ``names``, or lists them all."""
    known = list(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(known)}."

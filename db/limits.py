"""How long a lease lasts and how often a job is tried; read once per process from its environment.

Workers and reconcilers of one cluster should agree. Storms of kills raise the limits, so that what is killed
on purpose is not taken for poison.
"""

import os
import sys
from typing import TypeVar

Number = TypeVar("Number", int, float)

LARGEST = 1_000_000
USAGE = 2
"""The exit code of a usage error, as ``orchestrator.errors.ExitCode`` has it: this package cannot import it."""


def _number(name: str, default: float, kind: type[Number]) -> Number:
    text = os.environ.get(name, "")
    try:
        value = kind(text or default)
    except ValueError:
        # refused below with the same message
        value = kind(0)
    # written so that NaN is refused, too
    if not 0 < value <= LARGEST:
        what = "a whole number" if kind is int else "a number"
        # no exception: this runs at import, also in workers, where nothing would turn one into a line
        print(
            f"error: {name}='{text}': not {what} up to {LARGEST:,}. Unset it for {default:g}.",
            file=sys.stderr,
        )
        sys.exit(USAGE)
    return value


LEASE_SECONDS = _number("ORCHESTRATOR_LEASE_SECONDS", 30.0, float)
"""A running job belongs to its attempt for this long after the last heartbeat."""
MAX_FAILURES = _number("ORCHESTRATOR_MAX_FAILURES", 3, int)
"""A job that raised, or outlived its deadline, this often has failed."""
MAX_LOSSES = _number("ORCHESTRATOR_MAX_LOSSES", 3, int)
"""A job that lost its worker this often without progress has failed."""
BACKOFF_SECONDS = _number("ORCHESTRATOR_BACKOFF_SECONDS", 1.0, float)
"""The delay before a first retry; it doubles with every failure, with jitter."""

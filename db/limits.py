"""How long a lease lasts and how often a job is tried; read once per process from its environment.

Workers and reconcilers of one cluster should agree. Storms of kills raise the limits, so that what is killed
on purpose is not taken for poison.
"""

import os


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise SystemExit(
            f"error: {name}='{text}': not a number between 0 and 1,000,000. Unset it for {default:g}."
        )
    return value


LEASE_SECONDS = _number("ORCHESTRATOR_LEASE_SECONDS", 30.0)
"""A running job belongs to its attempt for this long after the last heartbeat."""
MAX_FAILURES = int(_number("ORCHESTRATOR_MAX_FAILURES", 3))
"""A job that raised, or outlived its deadline, this often has failed."""
MAX_LOSSES = int(_number("ORCHESTRATOR_MAX_LOSSES", 3))
"""A job that lost its worker this often without progress has failed."""
BACKOFF_SECONDS = _number("ORCHESTRATOR_BACKOFF_SECONDS", 1.0)
"""The delay before a first retry; it doubles with every failure, with jitter."""

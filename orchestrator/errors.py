"""Errors for people: one line (what, where, why, what to do) and an exit code."""


class OrchestratorError(Exception):
    """No result could be made."""

    exit_code = 1


class UsageError(OrchestratorError):
    """The call or its input is at fault; nothing was started."""

    exit_code = 2


class InfrastructureError(OrchestratorError):
    """Broker, database or workers are out of reach."""

    exit_code = 4

"""`python -m harness.supervisor`: the private cluster's supervisor with test-only stages, and switches for tests.

``CHAOS_SUPERVISOR`` names them, separated by commas. Nothing of this is in the product.
"""

import os
from collections.abc import Collection

import orchestrator.cluster.health as health
import orchestrator.cluster.members as members
import orchestrator.cluster.supervisor as supervisor
from harness import link, poison

SWITCHES_VARIABLE = "CHAOS_SUPERVISOR"
LOOK = "a look at what may hang"
"""Logged at each."""


def soon() -> None:
    """What hangs is noticed after a second."""
    health.HUNG_SECONDS, health.STARTING_SECONDS = 1.0, 6.0
    health.WORKER_ANSWER_SECONDS = 1.0


def _log_looks() -> None:
    hangs = health.Broker.hangs

    def logged(self: health.Broker, queues: Collection[str]) -> bool:
        supervisor.log.info(LOOK)
        return hangs(self, queues)

    health.Broker.hangs = logged  # type: ignore[method-assign]


def spare() -> None:
    """A control: what would be ended is only named."""

    def name(self: supervisor.Supervisor, member: members.Member, why: str) -> None:
        supervisor.log.warning("%s %s and is spared", member.name, why)

    supervisor.Supervisor._end = name  # type: ignore[method-assign]


def adopt() -> None:
    """A control: what a killed supervisor has left is not ended."""
    supervisor.end_leftovers = lambda record: None


def main() -> None:
    """The supervisor's process."""
    link.install()
    poison.install()
    command = members.worker_command

    def with_test_stages(queues: str, concurrency: int, name: str) -> list[str]:
        return [
            "harness.worker" if part == "workers.app" else part for part in command(queues, concurrency, name)
        ]

    members.worker_command = with_test_stages
    _log_looks()
    for name in filter(None, os.environ.get(SWITCHES_VARIABLE, "").split(",")):
        {"soon": soon, "spare": spare, "adopt": adopt}[name]()
    supervisor.main()


if __name__ == "__main__":
    main()

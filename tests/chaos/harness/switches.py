"""What a test switches on, off or shorter in a worker, by its environment; nothing of this is in the product."""

import os
from pathlib import Path

from celery import Celery
from sqlalchemy.orm import Session

import tasks.heartbeat
from db.jobs import Held
from harness.failpoints import FOLDER_VARIABLE

SOFT_VARIABLE = "CHAOS_SOFT_SECONDS"
"""How long a worker that was told to end lets its jobs run."""
SWITCHES_VARIABLE = "CHAOS_SWITCHES"
RENEWALS = "renewals"
"""Every renewal of a lease is a line in the file ``renewals``: job, attempt, whether it was held."""
DEAF = "deaf"
"""A control: heartbeats take every lease for held."""


def install(app: Celery) -> None:
    """Do what this process's environment says."""
    if seconds := os.environ.get(SOFT_VARIABLE):
        app.conf.worker_soft_shutdown_timeout = float(seconds)
    switches = os.environ.get(SWITCHES_VARIABLE, "").split()
    if RENEWALS in switches:
        _write_renewals(deaf=DEAF in switches)


def renewals(folder: Path) -> list[tuple[int, int, bool]]:
    """(job, attempt, held) of every renewal so far."""
    path = folder / RENEWALS
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(job), int(attempt), held == "True") for job, attempt, held in map(str.split, lines)]


def _write_renewals(*, deaf: bool) -> None:
    path, renew = Path(os.environ[FOLDER_VARIABLE]) / RENEWALS, tasks.heartbeat.renew

    def written(session: Session, held: Held) -> bool:
        answer = renew(session, held)
        with path.open("a") as file:
            file.write(f"{held.job_id} {held.attempt} {answer}\n")
        return answer or deaf

    tasks.heartbeat.renew = written

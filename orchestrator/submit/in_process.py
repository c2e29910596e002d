"""Run the same jobs in this process, in plan order, without broker or workers, for debugging."""

import os
import socket
import time

from sqlalchemy import Engine, func, select

from db.artifacts import ArtifactStore
from db.clock import now
from db.engine import reading, write
from db.jobs import Worker
from db.models import Job, JobState, Run, RunState
from db.recovery import expire
from tasks.code import codes
from tasks.heartbeat import Heartbeat
from tasks.job_task import Workplace, run_job


def run_in_process(engine: Engine, store: ArtifactStore, run_id: int) -> None:
    """Execute a run's jobs one after another until it has ended."""
    # not watched: the watchdog would end this process, and a debugger with it
    heartbeat = Heartbeat(engine, watched=False)
    worker = Worker("in-process", socket.gethostname(), os.getpid(), codes())
    try:
        _execute(Workplace(engine, store, worker, heartbeat), run_id)
    finally:
        heartbeat.end()


def _execute(workplace: Workplace, run_id: int) -> None:
    previous = None
    while True:
        with reading(workplace.engine) as session:
            state = session.scalar(select(Run.state).where(Run.id == run_id))
            job_id = session.scalar(
                select(func.min(Job.id)).where(
                    Job.run_id == run_id,
                    Job.state.in_((JobState.READY, JobState.QUEUED)),
                    func.coalesce(Job.not_before, 0.0) <= now(),
                )
            )
        if state != RunState.ACTIVE:
            return
        if job_id is not None:
            run_job(workplace, job_id)
        if job_id is None or job_id == previous:
            # all remaining jobs wait for a retry or for the lease of a killed process
            write(workplace.engine, expire)
            time.sleep(0.1)
        previous = job_id

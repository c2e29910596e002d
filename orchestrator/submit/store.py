"""Store a run: all jobs of its plan in one transaction, with existing artifacts marked as cached."""

import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.bulk import analyze, batches, insert_rows, take_job_ids
from db.clock import now
from db.engine import reading, write
from db.models import Artifact, Job, JobDependency, JobState, Run, RunState
from orchestrator.plan.graph import Plan, PlannedJob
from orchestrator.plan.spec import Spec, canonical_json
from orchestrator.runs.share import EQUAL, Share
from tasks.code import code_of
from tasks.params import STAGES


@dataclass(frozen=True)
class Submission:
    """A stored run: how many of its jobs are cached and how many must run."""

    run_id: int
    cached: int
    to_run: int
    attached: bool
    """A run of the same spec was already active; nothing was stored."""


@dataclass(frozen=True)
class Need:
    """Which artifacts of a plan already exist, and which of its jobs must run."""

    artifacts: dict[str, int]
    must_run: tuple[bool, ...]


def find(session: Session, plan: Plan) -> Need:
    """Walk back from the results: a job must run only if its artifact is missing and wanted."""
    artifacts: dict[str, int] = {}
    # in parts, since a statement's number of variables is limited
    for keys in batches((job.key for job in plan.jobs), 500):
        statement = select(Artifact.key, Artifact.id).where(Artifact.key.in_(keys))
        artifacts.update((key, artifact) for key, artifact in session.execute(statement))
    wanted = [job.params.writes_rows or at in plan.targets for at, job in enumerate(plan.jobs)]
    must_run = [False] * len(plan.jobs)
    # backwards, since what a job reads is always before it
    for position in reversed(range(len(plan.jobs))):
        job = plan.jobs[position]
        must_run[position] = wanted[position] and job.key not in artifacts
        if must_run[position]:
            for parent in job.reads:
                wanted[parent] = True
    return Need(artifacts, tuple(must_run))


def submit(
    engine: Engine,
    spec: Spec,
    plan: Plan,
    dataset_id: int,
    dataset_digest: str,
    share: Share = EQUAL,
) -> Submission:
    """Store the run with all its jobs atomically, or attach to the active run of the same identity."""
    identity, environment = _identity(spec, plan, dataset_digest), _environment()

    def store(session: Session) -> Submission:
        active = select(Run.id).where(Run.identity == identity, Run.state == RunState.ACTIVE)
        running = session.scalar(active)
        if running is not None:
            return _attached(session, running)
        need = find(session, plan)
        # by the database's clock, like all times that are compared with each other
        created = session.scalar(select(now()))
        assert created is not None
        run = Run(
            identity=identity,
            plan=spec.plan,
            profile=spec.profile,
            spec=spec.model_dump(mode="json"),
            code_version=importlib.metadata.version("orchestrator"),
            environment=environment,
            dataset_id=dataset_id,
            created_at=created,
            finished_at=None if any(need.must_run) else created,
            state=RunState.ACTIVE if any(need.must_run) else RunState.SUCCEEDED,
            **share.columns,
        )
        session.add(run)
        session.flush()
        _insert_jobs(session, run.id, plan, need)
        analyze(session, Job, JobDependency)
        to_run = sum(need.must_run)
        return Submission(run.id, len(plan.jobs) - to_run, to_run, attached=False)

    try:
        return write(engine, store)
    except IntegrityError:  # another submit of the same identity was faster
        with reading(engine) as session:
            # the newest of any state, since that run may have ended by now
            run_id = session.scalar(
                select(Run.id).where(Run.identity == identity).order_by(Run.id.desc()).limit(1)
            )
            if run_id is None:
                raise  # what was refused is not the run
            return _attached(session, run_id)


def _attached(session: Session, run_id: int) -> Submission:
    states = session.scalars(select(Job.state).where(Job.run_id == run_id)).all()
    done = sum(state == JobState.SUCCEEDED for state in states)
    return Submission(run_id, done, len(states) - done, attached=True)


def _identity(spec: Spec, plan: Plan, dataset_digest: str) -> str:
    versions = {name: params.version for name, params in STAGES.items()}
    made_of = [spec.model_dump(mode="json"), dataset_digest, versions, dict(plan.releases)]
    return hashlib.sha256(canonical_json(made_of).encode()).hexdigest()


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(_packages())),
    }


def _packages() -> Iterable[tuple[str, str]]:
    """Name and version of everything installed, from the folders' names: reading the metadata takes a second."""
    for folder in sys.path:
        for installed in Path(folder).glob("*.dist-info"):
            name, _, version = installed.stem.partition("-")
            yield name, version


def _insert_jobs(session: Session, run_id: int, plan: Plan, need: Need) -> None:
    """All jobs and edges; only the plan is in memory as a whole."""
    ids = take_job_ids(session, len(plan.jobs))
    codes = {stage: code_of(stage) for stage in STAGES}
    insert_rows(
        session,
        Job,
        (
            {"id": job_id, "run_id": run_id, "code": codes[job.params.stage], **_row(job, position, need)}
            for position, (job_id, job) in enumerate(zip(ids, plan.jobs, strict=True))
        ),
    )
    insert_rows(session, JobDependency, _edges(plan.jobs, ids))


def _row(job: PlannedJob, position: int, need: Need) -> dict[str, Any]:
    must_run = need.must_run[position]
    waiting_for = sum(need.must_run[parent] for parent in (*job.reads, *job.after)) if must_run else 0
    open_state = JobState.WAITING if waiting_for else JobState.READY
    return {
        "stage": job.params.stage,
        "label": job.label,
        "key": job.key,
        "seed": job.variant.seed if job.variant else None,
        "fidelity": job.variant.fidelity if job.variant else None,
        "params": canonical_json(job.params),
        "queue": job.params.queue,
        "state": (open_state if must_run else JobState.SUCCEEDED).value,
        "cached": not must_run,
        # none where nothing wanted the job: it counts as succeeded without a result
        "artifact_id": None if must_run else need.artifacts.get(job.key),
        "waiting_for": waiting_for,
        "attempt": 0,
        "failures": 0,
        "losses": 0,
        "alone": job.params.alone,
        "deadline_seconds": job.params.deadline_seconds,
    }


def _edges(jobs: Sequence[PlannedJob], ids: Sequence[int]) -> Iterable[dict[str, Any]]:
    for child, job in enumerate(jobs):
        for place, parent in enumerate((*job.reads, *job.after)):
            yield {
                "child_id": ids[child],
                "parent_id": ids[parent],
                "position": place,
                "reads": place < len(job.reads),
            }

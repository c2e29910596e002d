"""What a child of ``harness.steps`` does: submit, one job from its claim to its finish, report; and resuming.

Each opens the database and the store of its folder, as a process of its own does, and then counts its steps.
"""

import hashlib
import importlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.numpy import load
from sqlalchemy import Engine, select
from sqlalchemy.orm import configure_mappers

import db.clock
import tasks.job_io
from db.artifacts import DIGEST_BYTES, ArtifactStore, CheckpointFile, _metadata
from db.engine import open_engine, reading, write
from db.jobs import Worker, renew
from db.limits import LEASE_SECONDS
from db.models import Job, JobState
from db.recovery import expire
from harness import link
from harness.steps import Order, Paper, Steps
from orchestrator.cluster.place import Place
from orchestrator.cluster.reconcile import Reconciler
from orchestrator.context import Context
from orchestrator.runs.progress import standing
from orchestrator.submit.follow import report
from orchestrator.submit.request import Request, check, resolve_request
from orchestrator.submit.store import submit
from tasks.app import create_app
from tasks.code import codes
from tasks.heartbeat import Heartbeat
from tasks.job_io import SavedProgress
from tasks.job_task import Workplace, run_job
from tasks.node_faults import Pause

SETTINGS = {
    "image_size": 32,
    "spectrum_size": 32,
    "shard_size": 80,
    "levels.gaussian_blur": [3],
    "levels.gaussian_noise": [40],
    "baselines": [],
}
RUN, JOB = 1, 2
"""The run of a template, and the middle one of its three links."""
TRAINING = 3
"""The training of a template, after its two inputs."""


def opened(steps: Steps) -> tuple[Engine, ArtifactStore]:
    """Database and store of the order's folder; from now on steps are counted."""
    logging.disable()
    folder = Path(steps.order.folder)
    engine = open_engine(f"sqlite:///{folder / 'database.sqlite'}")
    store = ArtifactStore(str(folder / "artifacts"))
    steps.watch_database(engine)
    steps.watch_files()
    return engine, store


def submit_paper(steps: Steps) -> Any:
    """Store a run of the paper on the folder of images beside the order's folder: (run, attached)."""
    engine, store = opened(steps)
    request = Request(
        plan="full-paper",
        profile="demo",
        dataset=Path(steps.order.folder).parent / "pixels",
        weights=None,
        split=None,
        settings=[f"{name}={value}" for name, value in SETTINGS.items()],
        config=None,
        dry_run=False,
        wait=False,
        in_process=False,
    )
    made = resolve_request(_context(steps, engine, store), request, check(request))
    stored = submit(engine, made.spec, made.plan, made.dataset.id, made.dataset.shape.digest)
    return stored.run_id, stored.attached


def do_first(steps: Steps) -> Any:
    """Make what the middle link reads."""
    run_job(_workplace(*opened(steps)), JOB - 1)


def do_job(steps: Steps) -> Any:
    """Claim the middle link, compute it, write its file and finish it."""
    engine, store = opened(steps)
    run_job(_workplace(engine, store), JOB)


def do_job_naively(steps: Steps) -> Any:
    """The same with a store that writes under the final name: the control."""

    def replace(store: ArtifactStore, uri: str, content: bytes, writer: str) -> None:
        path = store.root / uri
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    ArtifactStore._replace = replace
    do_job(steps)


def train(steps: Steps) -> Any:
    """One more life of a worker with a training: ``at`` says how many there were, whose leases have run out."""
    engine, store = opened(steps)
    db.clock.shift_seconds = 2 * LEASE_SECONDS * steps.order.at
    write(engine, expire)
    run_job(_workplace(engine, store), TRAINING)


def train_an_epoch(steps: Steps) -> Any:
    """The same, killed as soon as an epoch is saved."""
    _die_at_a_checkpoint()
    train(steps)


def train_an_epoch_in_vain(steps: Steps) -> Any:
    """The same, where progress resets no losses: a control."""
    tasks.job_io.saved_progress = renew
    train_an_epoch(steps)


def train_unchecked(steps: Steps) -> Any:
    """A life that reads a checkpoint without a look at its digest: a control."""
    CheckpointFile.load = _load_unchecked
    train(steps)


def _die_at_a_checkpoint() -> None:
    save = SavedProgress.save

    def save_and_die(*arguments: Any) -> None:
        save(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    SavedProgress.save = save_and_die


def _load_unchecked(file: CheckpointFile) -> Any:
    content = (file.store.root / file.uri).read_bytes()[:-DIGEST_BYTES]
    return load(content), _metadata(content)


def resume_job(steps: Steps) -> Any:
    """After the lease: one round of the reconciler, and the middle link as often as it can be claimed."""
    engine, store = opened(steps)
    db.clock.shift_seconds = 10 * LEASE_SECONDS
    with create_app("memory://") as app:
        Reconciler(engine, store, app).once()
    claimable = select(Job.id).where(
        Job.id == JOB, Job.state.in_((JobState.READY, JobState.QUEUED, JobState.RUNNING))
    )
    with reading(engine) as session:
        left = session.scalar(claimable)
    if left is not None:
        run_job(_workplace(engine, store), JOB)


def report_run(steps: Steps) -> Any:
    """Print the report of the template's run: (exit code, text)."""
    engine, store = opened(steps)
    paper, now = Paper(steps), standing(engine, RUN)
    return report(_context(steps, engine, store, paper), RUN, now), paper.getvalue()


def _context(steps: Steps, engine: Engine, store: ArtifactStore, file: Any = None) -> Context:
    place = Place(Path(steps.order.folder), "", "", store.root.as_uri())
    return Context(place, engine, Console(file=file, width=100))


def _workplace(engine: Engine, store: ArtifactStore) -> Workplace:
    # no pause after a machine's fault: every order is a process of its own
    worker, heartbeat = Worker("stepper", "here", os.getpid(), codes()), Heartbeat(engine, watched=False)
    return Workplace(engine, store, worker, heartbeat, pause=Pause(0.0))


OPERATIONS: dict[str, Callable[[Steps], Any]] = {
    "submit": submit_paper,
    "first": do_first,
    "job": do_job,
    "naive job": do_job_naively,
    "train": train,
    "train an epoch": train_an_epoch,
    "train an epoch in vain": train_an_epoch_in_vain,
    "train unchecked": train_unchecked,
    "resume": resume_job,
    "report": report_run,
}


def torn_files(store: ArtifactStore) -> list[str]:
    """Files under a final name whose content is not what the name says."""
    return [
        path.name
        for path in sorted((store.root / "files").glob("*/*.safetensors"))
        if hashlib.sha256(path.read_bytes()).hexdigest() != path.stem
    ]


def serve() -> None:
    """Fork a child for every order that comes in, one after another."""
    link.install()
    for module in ("tasks.stages.link", *sys.argv[1:]):  # what a worker loads at its first job
        importlib.import_module(module)
    configure_mappers()
    with create_app("memory://") as app:
        app.connection_for_read().default_channel  # noqa: B018  # and at its first message
    for line in sys.stdin:
        order = Order(**json.loads(line))
        report = Path(order.folder) / "child.json"
        report.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            _child(OPERATIONS[order.operation], Steps(order), report)
        _, status = os.waitpid(child, 0)
        said = json.loads(report.read_text()) if report.exists() else {}
        print(json.dumps({"status": status, **said}), flush=True)


def _child(operation: Callable[[Steps], Any], steps: Steps, report: Path) -> None:
    status = 1
    try:
        answer = operation(steps)
        report.write_text(json.dumps({"answer": answer, "names": steps.names}))
        status = 0
    except BaseException as error:  # a fork must not come back to the server's loop
        trace = traceback.format_exc() if steps.order.fault is None else repr(error)
        report.write_text(json.dumps({"answer": trace, "names": steps.names}))
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve()

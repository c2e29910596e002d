"""What the commands do that start something: a run, a cluster, a worker, Flower, a reconciler."""

import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections import Counter
from functools import partial
from typing import NoReturn

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from db.dispatch import QUEUES, top_up
from db.engine import reading, write
from db.models import RunState
from orchestrator.attend import KeepAlive, attend, report
from orchestrator.embedded import is_held, lock, stop_supervisor, supervisor_lock, up_lock
from orchestrator.errors import InfrastructureError, UsageError
from orchestrator.in_process import run_in_process
from orchestrator.place import Place, open_store
from orchestrator.processes import worker_command, worker_environment
from orchestrator.progress import standing
from orchestrator.reconcile import Reconciler
from orchestrator.request import Request, Resolved, resolve_request
from orchestrator.spec import nearest
from orchestrator.submit import find
from orchestrator.submit import submit as store_run
from tasks.app import create_app
from tasks.code import codes
from tasks.doorbell import ring

PASSWORD_VARIABLE = "FLOWER_BASIC_AUTH"  # a variable's name
COMMAND_PATIENCE_SECONDS = 2.0
"""Somebody waits for a command; what it does not ring for, the reconciler does."""


def launch(request: Request, place: Place, engine: Engine, console: Console) -> int:
    """Submit a run and, unless the cluster is shared, stay with it; returns the exit code."""
    store = open_store(place)
    resolved = resolve_request(request, engine, store, local=place.home is not None)
    _introduce(resolved, console)
    if request.dry_run:
        _show_plan(resolved, engine, console)
        return 0
    dataset = resolved.dataset
    submission = store_run(engine, resolved.spec, resolved.plan, dataset.id, dataset.shape.digest)
    run_id = submission.run_id
    joined = "attached to its active run" if submission.attached else "stored"
    console.print(
        f"Run {run_id} ({joined}): {submission.found + submission.to_run} jobs, "
        f"{submission.found} found, {submission.to_run} to run."
    )
    now = standing(engine, run_id)
    if now.state != RunState.ACTIVE:
        return report(place, engine, run_id, now, console)
    if request.in_process:
        run_in_process(engine, store, run_id)
        return report(place, engine, run_id, standing(engine, run_id), console)
    return go_on(place, engine, run_id, console, wait=request.wait)


def go_on(place: Place, engine: Engine, run_id: int, console: Console, *, wait: bool) -> int:
    """Stay with an active run; on a shared cluster ring for it, and stay only to ``wait``."""
    if place.home is not None:
        return attend(place, engine, run_id, console)
    if not ring(
        create_app(place.broker_url, COMMAND_PATIENCE_SECONDS), write(engine, partial(top_up, codes=codes()))
    ):
        console.print(
            "The broker is out of reach; the run is stored and starts when a reconciler reaches it."
        )
    if wait:
        return attend(place, engine, run_id, console)
    console.print(f"Watch it: orchestrator resume {run_id}, or: orchestrator status {run_id}")
    return 0


def _introduce(resolved: Resolved, console: Console) -> None:
    spec, dataset = resolved.spec, resolved.dataset.dataset
    sizes = f"{len(dataset.images):,} images in {len(dataset.classes)} classes"
    if resolved.built_in:
        console.print(
            f"Profile demo: {sizes} of the built-in drawn dataset, a small backbone from scratch, on {spec.device}.\n"
            "On photographs: orchestrator submit full-paper --dataset DIR --weights FILE.safetensors",
            soft_wrap=True,
        )
    else:
        console.print(
            f"Profile {spec.profile}: {sizes} of '{dataset.root}', on {spec.device} ({spec.hardware}).",
            soft_wrap=True,
            markup=False,
        )
    if spec.weights is None and not resolved.built_in:
        console.print(
            "The backbone starts from random weights; the paper's from ImageNet's: --weights imagenet."
        )
    if dataset.ignored:
        console.print(f"{dataset.ignored} files without an image suffix are ignored.")


def _show_plan(resolved: Resolved, engine: Engine, console: Console) -> None:
    with reading(engine) as session:
        need = find(session, resolved.plan)
    stages = [job.params.stage for job in resolved.plan.jobs]
    to_run = Counter(stage for stage, must in zip(stages, need.must_run, strict=True) if must)
    shown = Table(title="A dry run: no run is stored.", title_justify="left")
    for column in ("stage", "jobs", "found", "to run"):
        shown.add_column(column, justify="left" if column == "stage" else "right")
    for stage, count in Counter(stages).items():
        shown.add_row(stage, str(count), str(count - to_run[stage]), str(to_run[stage]))
    shown.add_section()
    shown.add_row("all", str(len(stages)), str(len(stages) - to_run.total()), str(to_run.total()))
    console.print(shown)


def hold(place: Place, console: Console) -> None:
    """Keep a private cluster going until Ctrl-C."""
    assert place.home is not None
    with lock(up_lock(place.home)) as held:
        if held is None:
            raise UsageError(f"another `orchestrator up` holds the cluster under '{place.home}'.")
        keep_alive = KeepAlive(place)
        console.print(f"Private cluster under {place.home}; logs in {place.home / 'logs'}. Ctrl-C ends it.")
        try:
            while True:
                keep_alive()
                time.sleep(1)
        except KeyboardInterrupt:
            console.print("Stopping the workers …")
    stop_supervisor(place, keep_alive.started)


def become_worker(place: Place, queues: str, concurrency: int | None, name: str | None) -> NoReturn:
    """Turn this process into a Celery worker of the place."""
    for queue in queues.split(","):
        if queue not in QUEUES:
            raise UsageError(f"unknown queue '{queue}'.{nearest(queue, QUEUES)}")
    if concurrency is None:
        concurrency = 1 if "gpu" in queues.split(",") else os.cpu_count() or 1
    _require_cluster(place)
    name = name or f"{queues.replace(',', '-')}-{os.getpid()}"
    node = name if "@" in name else f"{name}@{socket.gethostname()}"
    _become(worker_command(queues, concurrency, node), place, worker_environment(node))


def become_flower(place: Place, address: str, port: int, console: Console) -> NoReturn:
    """Turn this process into Flower: read-only, with a password."""
    _require_cluster(place)
    environment = {"PYTHONSAFEPATH": "1"}
    if not os.environ.get(PASSWORD_VARIABLE):
        if place.home is None:
            raise UsageError(f"Flower needs a password. Set {PASSWORD_VARIABLE}=USER:PASSWORD.")
        environment[PASSWORD_VARIABLE] = f"orchestrator:{secrets.token_urlsafe(12)}"
        user, _, password = environment[PASSWORD_VARIABLE].partition(":")
        console.print(f"http://{address}:{port}  user {user}  password {password}")
    command = [sys.executable, "-P", "-m", "celery", "-A", "orchestrator.flower", "flower"]
    options = [f"--address={address}", f"--port={port}", "--read_only", "--max_tasks=20000"]
    _become([*command, *options], place, environment)


def reconcile_forever(place: Place, engine: Engine) -> None:
    """The reconciler as a process of its own."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a broker that hangs up is an error, not the end
    Reconciler(engine, open_store(place), create_app(place.broker_url)).forever()


def _require_cluster(place: Place) -> None:
    if place.home is not None and not is_held(supervisor_lock(place.home)):
        raise InfrastructureError(f"no private cluster runs under '{place.home}'. Start one: orchestrator up")


def _become(command: list[str], place: Place, environment: dict[str, str]) -> NoReturn:
    sys.stdout.flush()
    if place.home is not None:
        os.chdir(place.home / "run")
    os.execve(command[0], command, {**os.environ, **place.variables, **environment})

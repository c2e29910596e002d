"""Start a run, or continue one that was retried."""

from collections import Counter

from rich.console import Console
from rich.table import Table

from db.dispatch import top_up
from db.engine import reading, write
from db.models import RunState
from orchestrator.context import Context
from orchestrator.errors import ExitCode
from orchestrator.locks import is_held, supervisor_lock
from orchestrator.plan.spec import Spec
from orchestrator.runs.progress import standing
from orchestrator.runs.share import change_share
from orchestrator.submit.follow import attend, report
from orchestrator.submit.in_process import run_in_process
from orchestrator.submit.request import Request, Resolved, resolve_request
from orchestrator.submit.store import find
from orchestrator.submit.store import submit as store_run
from tasks.app import create_app
from tasks.doorbell import ring

COMMAND_PATIENCE_SECONDS = 2.0
"""A person waits for the command; jobs it does not queue in time are queued by the reconciler."""


def launch(context: Context, request: Request, spec: Spec) -> ExitCode:
    """Submit a run and, unless the cluster is shared, follow it."""
    engine, console = context.engine, context.console
    resolved = resolve_request(context, request, spec)
    _introduce(resolved, console)
    if request.dry_run:
        _show_plan(context, resolved)
        return ExitCode.DONE
    dataset = resolved.dataset
    submission = store_run(
        engine, resolved.spec, resolved.plan, dataset.id, dataset.shape.digest, request.share
    )
    run_id = submission.run_id
    if submission.attached:
        change_share(engine, run_id, request.share)
    joined = "attached to its active run" if submission.attached else "stored"
    console.print(
        f"Run {run_id} ({joined}): {submission.cached + submission.to_run} jobs, "
        f"{submission.cached} cached, {submission.to_run} to run."
    )
    now = standing(engine, run_id)
    # everything was cached: there is nothing to wait for
    if now.state != RunState.ACTIVE:
        return report(context, run_id, now)
    if request.in_process:
        run_in_process(engine, context.store, run_id)
        return report(context, run_id, standing(engine, run_id))
    return go_on(context, run_id, wait=request.wait)


def go_on(context: Context, run_id: int, *, wait: bool) -> ExitCode:
    """Queue an active run's jobs where workers are running, and follow it; on a shared cluster only if ``wait``."""
    home, console = context.place.home, context.console
    if home is None or is_held(supervisor_lock(home)):
        reached = _ring(context)
        if home is None and not reached:
            console.print(
                "The broker is out of reach; the run is stored and starts once a reconciler reaches the broker."
            )
    if home is not None or wait:
        return attend(context, run_id)
    console.print(f"Watch it: orchestrator resume {run_id}, or: orchestrator status {run_id}")
    return ExitCode.DONE


def _ring(context: Context) -> bool:
    app = create_app(context.place.broker_url, COMMAND_PATIENCE_SECONDS)
    # after the commit, like every message: a worker must find the job that it is told about
    return ring(app, write(context.engine, top_up))


def _introduce(resolved: Resolved, console: Console) -> None:
    spec, dataset = resolved.spec, resolved.dataset.dataset
    sizes = f"{len(dataset.images):,} images in {len(dataset.classes)} classes"
    if resolved.built_in:
        console.print(
            f"Profile demo: {sizes} of the built-in synthetic dataset, "
            f"a small backbone from scratch, on {spec.device}.\n"
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
            "The backbone starts from random weights; the paper's starts from ImageNet's: --weights imagenet."
        )
    if dataset.ignored:
        console.print(f"{dataset.ignored} files without an image suffix were ignored.")


def _show_plan(context: Context, resolved: Resolved) -> None:
    with reading(context.engine) as session:
        need = find(session, resolved.plan)
    stages = [job.params.stage for job in resolved.plan.jobs]
    to_run = Counter(stage for stage, must in zip(stages, need.must_run, strict=True) if must)
    shown = Table(title="Dry run: nothing is stored.", title_justify="left")
    for column in ("stage", "jobs", "cached", "to run"):
        shown.add_column(column, justify="left" if column == "stage" else "right")
    for stage, count in Counter(stages).items():
        shown.add_row(stage, str(count), str(count - to_run[stage]), str(to_run[stage]))
    shown.add_section()
    shown.add_row("all", str(len(stages)), str(len(stages) - to_run.total()), str(to_run.total()))
    context.console.print(shown)

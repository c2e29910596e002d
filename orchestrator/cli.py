"""The command line."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from early_exit.backbone import MOBILENET_V2
from orchestrator.errors import OrchestratorError, UsageError

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Reproduce an early-exit paper as a graph of Celery jobs, with every result in SQL.",
)

RunArgument = Annotated[
    int | None, typer.Argument(metavar="[RUN]", help="The run's number; by default the newest.")
]

ActiveRunArgument = Annotated[
    int | None, typer.Argument(metavar="[RUN]", help="The run's number; by default the newest active one.")
]

Priority = Annotated[
    int | None,
    typer.Option(min=1, max=1000, help="Active runs share the workers by it; 1 where none is given."),
]

MaxRunning = Annotated[
    list[str] | None,
    typer.Option(metavar="[STAGE=]N", help="Run at most N jobs at once, or N of one stage; repeatable."),
]


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    MARKDOWN = "md"
    LATEX = "tex"
    CSV = "csv"
    JSON = "json"


@cli.callback()
def options(debug: Annotated[bool, typer.Option(help="Show the tracebacks of errors.")] = False) -> None:
    """Options of every command."""
    # Read by `orchestrator.main` from the command line itself, since errors are shown outside of typer.


@cli.command()
def submit(
    plan: Annotated[str, typer.Argument(help="full-paper, or one of its steps (see the README).")],
    dataset: Annotated[
        Path | None, typer.Option(help="A folder of photographs in ImageFolder layout.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="The backbone's features.* in safetensors, or 'imagenet'.")
    ] = None,
    split: Annotated[
        Path | None, typer.Option(help="A CSV file with the header path,split; by default a random 80/10/10.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="demo, photos or paper; by default photos with --dataset, demo without."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field, e.g. p_tar=0.9.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file that overrides fields.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, and store nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run on a shared cluster, too.")] = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Run all jobs in this process, for debugging.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Plan more than 200,000 jobs without a question.")
    ] = False,
    priority: Priority = None,
    max_running: MaxRunning = None,
) -> None:
    """Run the paper or one of its steps, or attach to an active run of the same spec."""
    # every command imports what it works with, so that the others do not wait for it
    from orchestrator.context import open_context
    from orchestrator.runs.share import typed_share
    from orchestrator.submit.launch import launch
    from orchestrator.submit.request import Request, check

    request = Request(
        plan,
        profile,
        dataset,
        weights,
        split,
        settings or [],
        config,
        dry_run=dry_run,
        wait=wait,
        in_process=in_process,
        yes=yes,
        share=typed_share(priority, max_running or []),
    )
    spec = check(request)
    raise typer.Exit(launch(open_context(create=True), request, spec))


@cli.command()
def backbone(
    name: Annotated[str, typer.Argument(help="The name of a file in early_exit/backbones.")] = MOBILENET_V2,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field, e.g. architecture.width=0.5.")
    ] = None,
) -> None:
    """Show a backbone's blocks, their cost, and after which of them its branches are placed."""
    from orchestrator.backbone import show
    from orchestrator.context import open_console
    from orchestrator.plan.spec import resolve

    show(resolve("paper", [*(settings or []), f"architecture.backbone={name}"]).architecture, open_console())


@cli.command()
def data(
    name: Annotated[str, typer.Argument(metavar="caltech256", help="The dataset's name.")],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new folder, later given to submit as --dataset.")
    ],
) -> None:
    """Download and verify the paper's photographs; an interrupted download is resumed."""
    from orchestrator.context import open_console
    from orchestrator.files.caltech256 import CALTECH256, fetch

    if name != "caltech256":
        raise UsageError(f"unknown dataset '{name}'. Known: caltech256.")
    fetch(CALTECH256, folder, open_console())


@cli.command()
def resume(run: ActiveRunArgument = None, priority: Priority = None, max_running: MaxRunning = None) -> None:
    """Resume a run that was interrupted by Ctrl-C or killed, or watch it; it may get another share of the workers."""
    from db.models import RunState
    from orchestrator.context import open_context
    from orchestrator.runs.control import refuse_other_code
    from orchestrator.runs.progress import standing
    from orchestrator.runs.share import change_share, typed_share
    from orchestrator.runs.which import active_or_newest
    from orchestrator.submit.follow import attend

    share = typed_share(priority, max_running or [])
    context = open_context()
    run_id = active_or_newest(context.engine, run)
    change_share(context.engine, run_id, share)
    if standing(context.engine, run_id).state == RunState.ACTIVE:
        refuse_other_code(context, run_id)
    raise typer.Exit(attend(context, run_id))


@cli.command()
def cancel(run: ActiveRunArgument = None) -> None:
    """Cancel a run; finished jobs are kept."""
    from orchestrator.context import open_context
    from orchestrator.runs.control import cancel_run
    from orchestrator.runs.which import active_or_newest

    context = open_context()
    cancel_run(context, active_or_newest(context.engine, run))


@cli.command()
def retry(
    run: RunArgument = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run on a shared cluster, too.")] = False,
) -> None:
    """Retry the failed, cancelled and skipped jobs of a run that has ended."""
    from orchestrator.context import open_context
    from orchestrator.runs.control import refuse_other_code, retry_run
    from orchestrator.runs.which import existing
    from orchestrator.submit.launch import go_on

    context = open_context()
    run_id = existing(context.engine, run)
    refuse_other_code(context, run_id)
    if retry_run(context, run_id):
        raise typer.Exit(go_on(context, run_id, wait=wait))


@cli.command()
def status(
    run: Annotated[
        int | None, typer.Argument(metavar="[RUN]", help="The run's number; by default all runs.")
    ] = None,
) -> None:
    """List all runs, or show the stages and failures of one."""
    from orchestrator.context import open_context
    from orchestrator.runs.progress import failures, machine_faults, standing, table
    from orchestrator.runs.which import existing, runs

    context = open_context()
    engine, console = context.engine, context.console
    if run is None:
        console.print(runs(engine))
        return
    run_id = existing(engine, run)
    now = standing(engine, run_id)
    console.print(f"Run {run_id} is {now.state}.")
    console.print(table(run_id, now))
    for line in (*failures(engine, run_id), *machine_faults(engine, run_id)):
        console.print(line, markup=False, soft_wrap=True)


@cli.command()
def results(
    run: RunArgument = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TABLE,
    only: Annotated[
        list[str] | None, typer.Option("--table", metavar="NAME", help="Print only this table; repeatable.")
    ] = None,
) -> None:
    """Print a run's tables, e.g. accuracy, offloading, latency and the published figures beside ours."""
    from db.engine import reading
    from orchestrator.context import open_context
    from orchestrator.results.formats import print_tables
    from orchestrator.results.layouts import named
    from orchestrator.results.tables import tables
    from orchestrator.runs.progress import standing
    from orchestrator.runs.which import existing

    layouts = named(only or [])
    context = open_context()
    run_id = existing(context.engine, run)
    warning = standing(context.engine, run_id).warning
    with reading(context.engine) as session:
        found = tables(session, run_id, layouts)
    if not found:
        what = f"no rows for table {' or '.join(only)}" if only else "no results yet"
        raise OrchestratorError(f"run {run_id} has {what}. See: orchestrator status {run_id}")
    if warning:
        print(warning, file=sys.stderr)
    print_tables(found, form, context.console)


@cli.command()
def report(
    run: RunArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A new folder, or an older report's to replace; by default report-RUN."
        ),
    ] = None,
) -> None:
    """Write a run's figures and tables as one HTML page, and the figures as SVG and PNG."""
    from orchestrator.context import open_context
    from orchestrator.report.page import write_report
    from orchestrator.runs.which import existing

    context = open_context()
    write_report(context, existing(context.engine, run), out)


@cli.command()
def export(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="distorted-dataset or spectra.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new or empty folder.")],
    run: RunArgument = None,
    kind: Annotated[str | None, typer.Option(help="Only this distortion.")] = None,
    level: Annotated[int | None, typer.Option(help="Only this level.")] = None,
    seed: Annotated[int | None, typer.Option(help="Required if the run has several.")] = None,
    fidelity: Annotated[
        str | None, typer.Option(help="Required if the run has several kinds of spectra.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="jpg (quality 75) or png.")] = "jpg",
) -> None:
    """Write a run's distorted images, or their spectra, as KIND/LEVEL/N.jpg."""
    from orchestrator.context import open_context
    from orchestrator.files.export import Export, write_images
    from orchestrator.files.shards import Selection
    from orchestrator.runs.which import existing

    context = open_context()
    selection = Selection(what, kind, level, seed, fidelity)
    write_images(context, Export(existing(context.engine, run), selection, form, out))


@cli.command()
def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT.")],
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TABLE,
) -> None:
    """Query tables and views, read-only."""
    from orchestrator.context import open_context
    from orchestrator.results.formats import print_answer
    from orchestrator.results.sql import query

    context = open_context()
    print_answer(query(context.engine, statement), form, context.console)


@cli.command()
def up() -> None:
    """Keep a private cluster running until Ctrl-C."""
    from orchestrator.cluster.client import hold
    from orchestrator.cluster.place import refuse_shared
    from orchestrator.context import open_context

    context = open_context(create=True)
    refuse_shared(context.place)
    hold(context.place, context.console)


@cli.command()
def worker(
    queues: Annotated[str, typer.Option(help="cpu, gpu, or both, separated by a comma.")],
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processes; by default one per core, one for gpu.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name that is unique within the cluster.")] = None,
) -> None:
    """Start one Celery worker by hand."""
    from orchestrator.cluster.worker import become_worker
    from orchestrator.context import open_context

    become_worker(open_context(create=True).place, queues, concurrency, name)


@cli.command()
def flower(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5555,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve Flower, a live view of the queues, behind a password."""
    from orchestrator.cluster.flower import become_flower
    from orchestrator.context import open_context

    context = open_context(create=True)
    become_flower(context.place, address, port, context.console)


@cli.command()
def migrate() -> None:
    """Create or upgrade the database schema."""
    from orchestrator.context import open_context

    open_context(create=True).console.print("The database is at this code's schema.")


@cli.command()
def reconcile() -> None:
    """Run the reconciler of a shared cluster; it requeues lost jobs."""
    from orchestrator.cluster.place import current_place, refuse_private
    from orchestrator.cluster.reconcile import reconcile_forever
    from orchestrator.context import open_context

    refuse_private(current_place(create=False))
    context = open_context(create=True)
    reconcile_forever(context.engine, context.store, context.place.broker_url)

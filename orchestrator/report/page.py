"""`orchestrator report`: one HTML file that needs nothing else, and its figures as SVG and PNG."""

import io
import itertools
import json
import pkgutil
import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from db.engine import reading
from db.models import JobState
from orchestrator import report
from orchestrator.context import Context
from orchestrator.errors import OrchestratorError
from orchestrator.files.folder import new_folder
from orchestrator.report.findings import Findings, findings
from orchestrator.report.panels import INK, PAPER, STYLE
from orchestrator.report.question import Drawing, Question, Section
from orchestrator.results.formats import TEXTS
from orchestrator.runs.manifest import Manifest, utc
from orchestrator.runs.progress import Standing, failures, standing

MARK = '<meta name="generator" content="orchestrator report">'
"""At the top of every report of ours; a page without it is never replaced."""

SETTINGS: dict[Any, Any] = {**STYLE, "svg.fonttype": "none", "font.family": "sans-serif"}
"""Text stays text in SVG: smaller, and a reader can search it."""

NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
DOTS_PER_INCH = 200
SHOWN_FAILURES = 5


@dataclass(frozen=True)
class Standings:
    """The run's state when it was read."""

    now: Standing
    failures: list[str]
    """The first few."""

    @property
    def more_failures(self) -> int:
        """How many are not among them."""
        return self.now.count(JobState.FAILED) - len(self.failures)


def write_report(context: Context, run_id: int, out: Path | None) -> None:
    """Write ``report.html`` and ``figures/`` into ``out``, by default ``report-RUN`` in the current folder.

    The folder is written atomically; in one that holds an older report of ours, files are replaced one
    by one. Raises ``OrchestratorError`` for a run without any result, ``UsageError`` for a folder that holds
    something else.
    """
    engine = context.engine
    folder = (out or Path(f"report-{run_id}")).resolve()
    stood = Standings(standing(engine, run_id), failures(engine, run_id, SHOWN_FAILURES))
    with reading(engine) as session:
        found = findings(session, context.store, run_id)
        shown = sections(found)
    if not shown:
        raise OrchestratorError(f"run {run_id} has no results yet. See: orchestrator status {run_id}")
    replaced = _figures_of_ours(folder)
    # inside, so that the files can be moved by renaming, which needs one file system
    target = folder / ".next" if replaced is not None else folder
    if replaced is not None:
        shutil.rmtree(target, ignore_errors=True)
    with new_folder(target) as content:
        drawn = _save(shown, content / "figures")
        (content / "report.html").write_text(page(found.run, shown, drawn, stood), encoding="utf-8")
    if replaced is not None:
        _move(target, folder, replaced)
    context.console.print(f"Report of run {run_id}: {folder / 'report.html'}", soft_wrap=True, markup=False)


def questions() -> list[Question]:
    """What the modules of this package ask, in the order of the page."""
    # found, not listed: a new question is one new file
    names = (module.name for module in pkgutil.iter_modules(report.__path__, f"{report.__name__}."))
    asked = (getattr(import_module(name), "QUESTION", None) for name in names)
    return sorted(filter(None, asked), key=lambda question: question.place)


def sections(found: Findings) -> list[Section]:
    """The answers of a run that have something to show, in the order of the page."""
    answers = (question.answer(found) for question in questions())
    return [section for section in answers if section.drawings or section.grids]


def page(run: Manifest, shown: list[Section], drawn: dict[str, Markup], stood: Standings) -> str:
    """The HTML; ``drawn`` holds the figures to embed, by name."""
    environment = Environment(
        loader=PackageLoader("orchestrator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        mark=Markup(MARK),
        run=run,
        sections=shown,
        drawn=drawn,
        stood=stood,
        words=TEXTS,
        created=utc(run.created_at),
        finished=utc(run.finished_at),
        spec=json.dumps(run.spec, indent=2, ensure_ascii=False),
    )


def inlined(svg: str, name: str) -> Markup:
    """An SVG for a page: in the page's colours, with ids that no other figure has, and no metadata."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # ids are global to a page, and Matplotlib gives many figures the same ones
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace(INK, "currentColor").replace(PAPER, "none")
    return Markup(re.sub(r'width="([\d.]+)pt" height="[\d.]+pt"', _bounds, svg, count=1))


def _bounds(size: re.Match[str]) -> str:
    """The width of an SVG in points as limits on a page: its text stays readable on a phone, and scrolls."""
    points = float(size[1])
    return f'style="max-width: {points / 11:.0f}rem; min-width: {points / 15:.0f}rem"'


def _save(shown: list[Section], folder: Path) -> dict[str, Markup]:
    """Draw everything, one process per core; returns what the page embeds, by name of the drawing."""
    folder.mkdir()
    drawings = [drawing for section in shown for drawing in section.drawings]
    # processes, since Matplotlib is not safe to use from threads
    with ProcessPoolExecutor() as pool:
        inline = pool.map(_save_one, drawings, itertools.repeat(folder))
        return {drawing.name: svg for drawing, svg in zip(drawings, inline, strict=True)}


def _save_one(drawing: Drawing, folder: Path) -> Markup:
    # a salt of its own, or the ids in the SVG would differ every time it is drawn
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": drawing.name}), io.StringIO() as file:
        figure = drawing.draw()
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # the layout is final, the same for both files
        figure.savefig(folder / f"{drawing.name}.png", dpi=DOTS_PER_INCH)
        figure.savefig(file, format="svg", metadata=NO_METADATA)
        svg = file.getvalue()
    (folder / f"{drawing.name}.svg").write_text(svg, encoding="utf-8")
    return inlined(svg, drawing.name)


def _figures_of_ours(folder: Path) -> set[str] | None:
    """The figures that an older report of ours in ``folder`` links to; None if there is no such report."""
    try:
        old = (folder / "report.html").read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    # a page of somebody else's is never overwritten
    if MARK not in old[:2000]:
        return None
    return set(re.findall(r'href="figures/([\w.-]+\.(?:svg|png))"', old))


def _move(new: Path, folder: Path, old_figures: set[str]) -> None:
    """Move the files of ``new`` into ``folder``, and remove figures that only the older report had."""
    (folder / "figures").mkdir(exist_ok=True)
    figures = {path.name for path in (new / "figures").iterdir()}
    # figures before the page and removals last: a page never links to a figure that is not there
    for name in figures:
        (new / "figures" / name).replace(folder / "figures" / name)
    (new / "report.html").replace(folder / "report.html")
    for name in old_figures - figures:
        (folder / "figures" / name).unlink(missing_ok=True)
    shutil.rmtree(new)

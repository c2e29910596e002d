"""A question that a report answers: its place on the page, its figures and its tables.

Every module of this package that declares a ``QUESTION`` is a section of the page; no other file names it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.report.findings import Findings
from orchestrator.results.tables import Grid
from orchestrator.runs.manifest import Manifest

Draw = Callable[[], Figure]
"""Makes one figure: a ``partial`` over what it shows, so that any process can call it."""


@dataclass(frozen=True)
class Drawing:
    """A figure still to be drawn, the name of its files, and its caption."""

    name: str
    draw: Draw
    caption: str

    def of(self, run: Manifest, fidelity: str, note: str = "") -> "Drawing":
        """The same for one fidelity of a run, with a full caption; its files name one fidelity of several."""
        name = f"{self.name}-{fidelity}" if len(run.fidelities) > 1 else self.name
        return Drawing(name, self.draw, full_caption(run, self.caption, fidelity, note))


@dataclass(frozen=True)
class Missing:
    """Why a figure, or part of one, cannot be drawn."""

    why: str


@dataclass(frozen=True)
class Section:
    """A question as one run answers it: figures, tables, and notes on what is missing."""

    name: str
    title: str
    lead: str
    drawings: tuple[Drawing, ...] = ()
    grids: tuple[Grid, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """One section of the page, and where its figures and tables come from."""

    place: int
    """Sections are ordered by place."""
    name: str
    """The anchor of its section."""
    title: str
    lead: str
    """The sentence below the title."""
    drawings: Callable[[Findings], Iterable[Drawing | Missing]]
    """The figures of a run; none where the run has no results for them."""
    tables: tuple[str, ...] = ()
    """Names of the layouts whose tables stand below the figures, those of every fidelity."""

    def answer(self, found: Findings) -> Section:
        """This run's answer; without any results, a section with neither drawings nor grids."""
        shown = list(self.drawings(found))
        missing = dict.fromkeys(one.why for one in shown if isinstance(one, Missing))
        return Section(
            self.name,
            self.title,
            self.lead,
            tuple(one for one in shown if isinstance(one, Drawing)),
            tuple(table.grid() for name in self.tables for table in found.of(name)),
            tuple(missing),
        )


def one_of_each(
    found: Findings, name: str, draw: Callable[[pd.DataFrame], Figure], more: str = ""
) -> Iterator[Drawing]:
    """The common case: one figure of the table ``name`` per fidelity; the caption is its title and ``more``."""
    for table in found.of(name):
        drawing = Drawing(
            file_name(name), partial(draw, found.frame(name, table.fidelity)), table.title + more
        )
        yield drawing.of(found.run, table.fidelity, table.note)


def file_name(table: str) -> str:
    """Of a table's figure, without a suffix."""
    return table.replace("_", "-")


def full_caption(run: Manifest, what: str, fidelity: str, note: str = "") -> str:
    """``what`` the figure shows, of which fidelity, images and seeds, and the note."""
    named = "" if fidelity in what else f", fidelity {fidelity}"
    seeds = f"seed {run.seeds[0]}"
    if len(run.seeds) > 1:
        seeds = f"mean and 95 % interval over {run.named_seeds}"
    return " ".join(filter(None, (f"{what}{named}; {run.source}; {seeds}.", note)))

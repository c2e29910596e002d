"""What a report shows, question by question; a question without an answer in the run is left out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.report import deployed, figures, follow_ups
from orchestrator.report.examples import drawn
from orchestrator.report.findings import Findings
from orchestrator.report.panels import distortions, kind_name, with_every_kind, with_pristine
from orchestrator.results.tables import Grid, ResultTable
from orchestrator.runs.manifest import Manifest

Draw = Callable[[], Figure]
"""Makes one figure: a ``partial`` over frames, so that any process can do it."""

Drawn = Iterator[tuple[str, str, Draw]]
"""Name, what it shows, and the figure."""


@dataclass(frozen=True)
class Drawing:
    """A figure still to be drawn, the name of its files, and what a reader needs beside it."""

    name: str
    draw: Draw
    caption: str


@dataclass(frozen=True)
class Section:
    """One question: drawings, tables and notes on what is missing."""

    name: str
    title: str
    lead: str
    drawings: list[Drawing] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def sections(found: Findings) -> list[Section]:
    """Every section that has something to show, in the order of the page."""
    made = [
        _of_tables(
            found, "accuracy", "Accuracy", "Of all images, and of those that are answered on the edge."
        ),
        _of_tables(
            found, "offloading", "Offloading", "The share of images that no exit on the edge answers."
        ),
        _of_tables(
            found,
            "latency",
            "Latency",
            "From the image on the edge to its answer, by network, and the parts of it.",
            "latency_parts",
        ),
        _tradeoff(found),
        _of_tables(
            found,
            "classifier_confusion",
            "The deployed system, not the oracle",
            "Nobody tells a real system the distortion: what its classifier sees, and what its mistakes cost.",
            "classifier_cost",
            "classifier_latency_cost",
        ),
        _of_tables(found, "cross_expert", "Every expert everywhere", "The price of asking the wrong one."),
        _of_tables(
            found,
            "payload_accuracy",
            "Payloads",
            "What the form in which a feature map is sent costs in accuracy, and saves in time.",
            "payload_latency",
        ),
        _of_tables(
            found,
            "calibration",
            "Calibration",
            "Answers in 15 bins by confidence; a calibrated expert is right as often as it is sure.",
            "own_calibration",
            "reliability",
        ),
        _of_tables(
            found,
            "outage",
            "Inference outage",
            "How often a batch of images is right less often than p_tar.",
        ),
        _of_tables(
            found,
            "deadlines",
            "Missed deadlines",
            "How often a batch is right less often than p_tar, or its mean time is above t_tar.",
        ),
        _fidelities(found),
        _of_tables(found, "paper_comparison", "Published beside ours", "What the paper's authors released."),
        _examples(found),
    ]
    return [section for section in made if section.drawings or section.grids]


def _of_tables(found: Findings, name: str, title: str, lead: str, *more: str) -> Section:
    """The tables ``name`` and ``more`` of every fidelity, and the figures that belong to them."""
    section = Section(name.replace("_", "-"), title, lead)
    for table in [table for of in (name, *more) for table in found.of(of)]:
        if table.name in DRAWN:
            for called, what, draw in DRAWN[table.name](found, table):
                drawing = Drawing(
                    _file(called, found.run, table.fidelity),
                    draw,
                    " ".join(filter(None, (_caption(found.run, what, table.fidelity), table.note))),
                )
                section.drawings.append(drawing)
        section.grids.append(table.grid())
    return section


def _whole(draw: Callable[[pd.DataFrame], Figure]) -> Callable[[Findings, ResultTable], Drawn]:
    """One figure of all that the table says."""

    def drawings(found: Findings, table: ResultTable) -> Drawn:
        yield (
            table.name.replace("_", "-"),
            table.title,
            partial(draw, found.frame(table.name, table.fidelity)),
        )

    return drawings


def _accuracy(found: Findings, table: ResultTable) -> Drawn:
    frame = found.frame(table.name, table.fidelity)
    yield table.name.replace("_", "-"), table.title, partial(figures.accuracy, frame, found.run.p_tar)


def _latency_parts(found: Findings, table: ResultTable) -> Drawn:
    what = f"{table.title}; left the pristine expert alone, right the classifier and the expert it asks"
    frame = found.frame(table.name, table.fidelity)
    yield table.name.replace("_", "-"), what, partial(figures.where_time_goes, frame)


def _classifier_cost(found: Findings, table: ResultTable) -> Drawn:
    costs = (found.frame(name, table.fidelity) for name in (table.name, "classifier_latency_cost"))
    what = f"What asking the classifier costs against knowing the kind at p_tar {table.p_tar:g}"
    yield table.name.replace("_", "-"), what, partial(deployed.classifier_cost, *costs)


def _reliability(found: Findings, table: ResultTable) -> Drawn:
    bins, errors = (found.frame(name, table.fidelity) for name in (table.name, "own_calibration"))
    yield (
        table.name.replace("_", "-"),
        "Reliability before and after calibration",
        partial(follow_ups.reliability, bins, errors),
    )


def _outage(found: Findings, table: ResultTable) -> Drawn:
    frame = found.frame(table.name, table.fidelity)
    yield table.name.replace("_", "-"), table.title, partial(follow_ups.outage, frame)
    curve = found.curve(table.name, table.fidelity)
    for kind in distortions(curve):
        what = f"Outage probability against p_tar, {kind_name(kind)}"
        yield f"{table.name}-{kind}", what, partial(follow_ups.outage_by_target, curve, kind)


def _deadlines(found: Findings, table: ResultTable) -> Drawn:
    curve = found.curve(table.name, table.fidelity)
    for kind in distortions(curve):
        what = f"Missed-deadline probability against t_tar at p_tar {table.p_tar:g}, {kind_name(kind)}"
        yield f"{table.name}-{kind}", what, partial(follow_ups.deadlines, curve, kind)


DRAWN: dict[str, Callable[[Findings, ResultTable], Drawn]] = {
    "accuracy": _accuracy,
    "offloading": _whole(figures.offloading),
    "latency": _whole(figures.latency),
    "latency_parts": _latency_parts,
    "classifier_confusion": _whole(deployed.confusion),
    "classifier_cost": _classifier_cost,
    "cross_expert": _whole(deployed.cross_expert),
    "payload_accuracy": _whole(follow_ups.payload_accuracy),
    "payload_latency": _whole(figures.payload_latency),
    "calibration": _whole(follow_ups.calibration),
    "reliability": _reliability,
    "outage": _outage,
    "deadlines": _deadlines,
    "paper_comparison": _whole(figures.published),
}
"""The figures of a table."""


def _tradeoff(found: Findings) -> Section:
    lead = "As p_tar goes from 0 to 1, more images leave the edge; the dot is the run's p_tar."
    section = Section("trade-off", "Accuracy against offloading", lead)
    for fidelity in found.run.fidelities:
        of_fidelity = found.swept[found.swept["fidelity"] == fidelity]
        there = (kind for kind in distortions(of_fidelity) if len(with_pristine(of_fidelity, kind)))
        for kind in there:
            name = _file(f"trade-off-{kind}", found.run, fidelity)
            what = f"Overall accuracy against offloading at 101 thresholds, {kind_name(kind)}"
            draw = partial(figures.tradeoff, of_fidelity, kind, found.run.p_tar)
            section.drawings.append(Drawing(name, draw, _caption(found.run, what, fidelity)))
    return section


def _fidelities(found: Findings) -> Section:
    lead = "The same run with the released code's oddities switched on, one by one or all together."
    section = Section("fidelity", "Fidelity", lead)
    run, compared = found.run, [table.fidelity for table in found.of("accuracy")]
    if len(compared) > 1:
        frame = with_every_kind(pd.concat([found.frame("accuracy", fidelity) for fidelity in compared]))
        what = f"Overall accuracy at p_tar {run.p_tar:g} by fidelity"
        caption = _caption(run, what, ", ".join(compared))
        section.drawings.append(Drawing("fidelity", partial(figures.fidelities, frame), caption))
    for table in found.of("ablation"):
        draw = partial(figures.ablation, found.frame("ablation", table.fidelity))
        what = f"What each fidelity changes for the oracle policy at p_tar {run.p_tar:g}"
        caption = f"{_caption(run, what, table.fidelity)} {table.note}"
        section.drawings.append(Drawing("ablation", draw, caption))
        section.grids.append(table.grid())
    return section


def _examples(found: Findings) -> Section:
    lead = "The same test images at every level, and the spectra that the classifier sees."
    notes = dict.fromkeys(note for shown in found.examples for note in shown.missing)
    section = Section("examples", "Images and spectra", lead, notes=tuple(notes))
    run = found.run
    for shown in found.examples:
        if shown.images or shown.spectra:
            name = f"examples-{shown.kind}"
            what = f"Test images and their spectra, seed {run.seeds[0]}, fidelity {run.fidelities[0]}; {run.source}."
            section.drawings.append(Drawing(name, partial(drawn, shown), what))
    return section


def _file(name: str, run: Manifest, fidelity: str) -> str:
    return f"{name}-{fidelity}" if len(run.fidelities) > 1 else name


def _caption(run: Manifest, what: str, fidelity: str) -> str:
    named = "" if fidelity in what else f", fidelity {fidelity}"
    seeds = f"seed {run.seeds[0]}"
    if len(run.seeds) > 1:
        seeds = f"mean and 95 % interval over {run.named_seeds}"
    return f"{what}{named}; {run.source}; {seeds}."

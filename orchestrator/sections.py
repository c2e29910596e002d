"""What a report shows, question by question; a question without an answer in the run is left out."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure
from sqlalchemy import text
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from early_exit.vocabulary import EXITS
from orchestrator import figures
from orchestrator.confidence import Confidence, confidence_of
from orchestrator.examples import Examples, drawn, examples_of
from orchestrator.manifest import Manifest, manifest
from orchestrator.results import Estimate, Grid, ResultTable, estimate, tables

SWEPT = """
SELECT a.fidelity, a.policy, a.kind, a.level, a.p_tar, a.overall_accuracy, o.offloading_probability
FROM accuracy a JOIN offloading o ON o.run = a.run AND o.fidelity = a.fidelity AND o.seed = a.seed
     AND o.policy = a.policy AND o.kind = a.kind AND o.level = a.level AND o.p_tar = a.p_tar
WHERE a.run = :run
"""


@dataclass(frozen=True)
class Findings:
    """All numbers and pictures of a run that a report shows."""

    run: Manifest
    tables: list[ResultTable]
    swept: pd.DataFrame
    """Columns of ``figures.tradeoff`` for every fidelity."""
    confidence: Confidence
    examples: list[Examples]

    def of(self, view: str) -> dict[str, ResultTable]:
        """The tables of a view by fidelity."""
        return {table.fidelity: table for table in self.tables if table.name == view}

    def frame(self, view: str) -> pd.DataFrame:
        """The estimates of a view, all fidelities together."""
        records = [record for table in self.of(view).values() for record in table.records()]
        return pd.DataFrame(records).astype({"mean": float, "margin": float})


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its files, and what a reader needs beside it."""

    name: str
    figure: Figure
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


def findings(session: Session, store: ArtifactStore, run_id: int) -> Findings:
    """Read everything; one statement per kind of result."""
    run = manifest(session, run_id)
    return Findings(
        run,
        tables(session, run_id),
        _swept(session, run_id),
        confidence_of(session, store, run_id),
        examples_of(session, store, run),
    )


def sections(found: Findings) -> list[Section]:
    """Every section that has something to show, in the order of the page."""
    made = [
        _of_view(
            found, "accuracy", "Accuracy", "Of all pictures, and of those that are answered on the edge."
        ),
        _of_view(
            found, "offloading", "Offloading", "The share of pictures that no exit on the edge answers."
        ),
        _of_view(found, "latency", "Latency", "From the picture on the edge to its answer, by network."),
        _tradeoff(found),
        _fidelities(found),
        _examples(found),
        _classifier(found),
        _confidence(found),
        _of_view(found, "paper_comparison", "Published beside ours", "What the paper's authors released."),
    ]
    return [section for section in made if section.drawings or section.grids]


def _of_view(found: Findings, view: str, title: str, lead: str) -> Section:
    section = Section(view.replace("_", "-"), title, lead)
    for fidelity, table in found.of(view).items():
        drawing = _draw(view, found.frame(view).query("fidelity == @fidelity"), table.p_tar or 0)
        captioned = _caption(found.run, table.title, fidelity)
        if view == "paper_comparison":
            captioned += f" {found.run.differences(fidelity)}"
        section.drawings.append(Drawing(_file(section.name, found.run, fidelity), drawing, captioned))
        section.grids.append(table.grid())
    return section


def _draw(view: str, frame: pd.DataFrame, p_tar: float) -> Figure:
    match view:
        case "accuracy":
            return figures.accuracy(frame, p_tar)
        case "offloading":
            return figures.offloading(frame)
        case "latency":
            return figures.latency(frame)
        case "classifier_confusion":
            return figures.confusion(frame)
        case _:
            return figures.published(frame)


def _tradeoff(found: Findings) -> Section:
    lead = "As p_tar goes from 0 to 1, more pictures leave the edge; the dot is the run's p_tar."
    section = Section("trade-off", "Accuracy against offloading", lead)
    for fidelity in found.of("accuracy"):
        of_fidelity = found.swept[found.swept["fidelity"] == fidelity]
        for kind in figures.distorted(of_fidelity):
            name = _file(f"trade-off-{kind}", found.run, fidelity)
            what = f"Overall accuracy against offloading at 101 thresholds, {figures.kind_name(kind)}"
            figure = figures.tradeoff(of_fidelity, kind, found.run.p_tar)
            section.drawings.append(Drawing(name, figure, _caption(found.run, what, fidelity)))
    return section


def _fidelities(found: Findings) -> Section:
    lead = "The same run with the released code's oddities switched on."
    section = Section("fidelity", "Fidelity", lead)
    compared = list(found.of("accuracy"))
    if len(compared) > 1:
        what = f"Overall accuracy at p_tar {found.run.p_tar:g} by fidelity"
        figure = figures.fidelities(found.frame("accuracy"))
        section.drawings.append(Drawing("fidelity", figure, _caption(found.run, what, ", ".join(compared))))
    return section


def _examples(found: Findings) -> Section:
    lead = "The same test pictures at every level, and the spectra that the classifier sees."
    notes = dict.fromkeys(note for shown in found.examples for note in shown.missing)
    section = Section("examples", "Pictures and spectra", lead, notes=tuple(notes))
    run = found.run
    for shown in found.examples:
        if shown.pictures or shown.spectra:
            name = f"examples-{shown.kind}"
            what = f"Test pictures and their spectra, seed {run.seeds[0]}, fidelity {run.fidelities[0]}; {run.source}."
            section.drawings.append(Drawing(name, drawn(shown), what))
    return section


def _classifier(found: Findings) -> Section:
    seen = _of_view(
        found, "classifier_confusion", "The classifier", "What it sees, and what its mistakes cost."
    )
    costs = [table.grid() for table in found.of("classifier_cost").values()]
    return Section("classifier", seen.title, seen.lead, seen.drawings, [*seen.grids, *costs])


def _confidence(found: Findings) -> Section:
    run, errors = found.run, found.confidence.errors
    lead = "Answers in 15 bins by confidence; a calibrated expert is right as often as it is sure."
    section = Section("confidence", "Confidence", lead, notes=found.confidence.missing)
    for fidelity in [name for name in run.fidelities if len(errors) and name in set(errors["fidelity"])]:
        of_fidelity = errors[errors["fidelity"] == fidelity]
        bins = found.confidence.bins[found.confidence.bins["fidelity"] == fidelity]
        what = "Reliability of every expert on its own kind, all levels, before and after calibration"
        section.drawings.append(
            Drawing(
                _file("reliability", run, fidelity),
                figures.reliability(bins, of_fidelity),
                _caption(run, what, fidelity),
            )
        )
        title = f"Expected calibration error{run.among_several(fidelity)}, points"
        rows = list(_error_rows(of_fidelity))
        section.grids.append(Grid(title, ["expert", "exit", "before", "after"], rows, run.caption))
    return section


def _error_rows(errors: pd.DataFrame) -> Iterator[list[str]]:
    def estimated(mean: float, margin: float | None) -> str:
        return Estimate(mean, None if pd.isna(margin) else margin, 0).shown(100)

    said = {
        (line["expert"], line["exit"], line["when"]): estimated(line["mean"], line["margin"])
        for line in errors.to_dict("records")
    }
    for expert in figures.in_training_order(errors["expert"]):
        for number in EXITS:
            if (expert, number, "after") in said:
                before, after = (said.get((expert, number, when), "–") for when in ("before", "after"))
                yield [expert, str(number), before, after]


def _swept(session: Session, run_id: int) -> pd.DataFrame:
    values: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for *key, accuracy, offloading in session.execute(text(SWEPT), {"run": run_id}):
        values.setdefault(tuple(key), []).append((accuracy, offloading))
    lines = []
    for group, of_seeds in values.items():
        accuracies, offloadings = zip(*of_seeds, strict=True)
        found = estimate(accuracies)
        offloading = sum(offloadings) / len(offloadings)
        lines.append((*group, offloading, found.mean, found.margin))
    names = ["fidelity", "policy", "kind", "level", "p_tar", "offloading", "mean", "margin"]
    return pd.DataFrame(lines, columns=names)


def _file(name: str, run: Manifest, fidelity: str) -> str:
    return f"{name}-{fidelity}" if len(run.fidelities) > 1 else name


def _caption(run: Manifest, what: str, fidelity: str) -> str:
    named = "" if fidelity in what else f", fidelity {fidelity}"
    seeds = f"seed {run.seeds[0]}"
    if len(run.seeds) > 1:
        seeds = f"mean and 95 % interval over {run.named_seeds}"
    return f"{what}{named}; {run.source}; {seeds}."

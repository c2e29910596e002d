"""A few test images of a run at every level, and their spectra."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from db.artifacts import BadArtifact
from early_exit.spectrum import in_grey_levels
from early_exit.vocabulary import PRISTINE
from orchestrator.errors import UsageError
from orchestrator.files.shards import ARRAYS, Selection, select_shards
from orchestrator.report.findings import Findings
from orchestrator.report.panels import WIDTH, condition_name
from orchestrator.report.question import Drawing, Missing, Question

NUMBER = 2
SIDE = 150
"""Pixels; larger images are scaled down, so that a report stays small."""

Images = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Examples:
    """uint8 images (H, W, 3) and spectra (S, S) of the same test images, by level; pristine is level 0."""

    kind: str
    images: dict[int, Images]
    spectra: dict[int, Images]
    missing: tuple[str, ...]
    """Why some of them are missing, one line per reason."""


def examples(shown: Examples) -> Figure:
    """A column per level; in it the same few test images, each above its spectrum if it has one."""
    images, spectra = shown.images, shown.spectra
    levels = sorted({*images, *spectra})
    number = max(len(sample) for sample in (*images.values(), *spectra.values()))
    sources = [source for source in (images, spectra) if source]
    rows = [(place, source) for place in range(number) for source in sources]
    figure = Figure(figsize=(WIDTH, WIDTH / max(len(levels), 4) * len(rows) + 0.3), layout="constrained")
    panels = figure.subplots(len(rows), len(levels), squeeze=False)
    for (place, source), row in zip(rows, panels, strict=True):
        for level, panel in zip(levels, row, strict=True):
            panel.set_axis_off()
            if place < len(source.get(level, ())):
                panel.imshow(source[level][place], cmap="gray", vmin=0, vmax=255, interpolation="none")
    for level, panel in zip(levels, panels[0], strict=True):
        panel.set_title(condition_name(shown.kind, level))
    return figure


def _examples_of(found: Findings, kind: str) -> Examples:
    """Those whose files exist, of the run's first seed and fidelity."""
    run = found.run
    conditions = [(PRISTINE, 0), *((kind, level) for level in run.kinds.of(kind))]
    shown: dict[str, dict[int, Images]] = {what: {} for what in ARRAYS}
    missing: dict[str, None] = {}
    for what in ARRAYS:
        for of_kind, level in conditions:
            wanted = Selection(what, of_kind, level, run.seeds[0], run.fidelities[0])
            try:
                shown[what][level] = _first(found, wanted)
            # a report of a failed run is still worth reading: what is missing is said, not raised
            except (UsageError, BadArtifact) as error:
                missing[str(error)] = None
    return Examples(kind, shown["distorted-dataset"], shown["spectra"], tuple(missing))


def _first(found: Findings, wanted: Selection) -> Images:
    """Test images of the first shard; raises what ``select_shards`` and the store raise."""
    artifact = select_shards(found.session, found.run.run_id, wanted)[0].artifact
    assert artifact is not None  # select_shards guarantees it
    assert artifact.uri is not None
    assert artifact.sha256 is not None
    array = found.store.read(artifact.uri, artifact.sha256)[ARRAYS[wanted.what]]
    array = array[:: -(-len(array) // NUMBER)]  # apart, since neighbours are of one class
    return [_smaller(image) for image in (in_grey_levels(array) if wanted.what == "spectra" else array)]


def _smaller(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.shape[0] <= SIDE:
        return image
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _drawings(found: Findings) -> Iterator[Drawing | Missing]:
    run = found.run
    what = f"Test images and their spectra, seed {run.seeds[0]}, fidelity {run.fidelities[0]}; {run.source}."
    for kind in run.kinds.distorted:
        shown = _examples_of(found, kind)
        yield from map(Missing, shown.missing)
        if shown.images or shown.spectra:
            yield Drawing(f"examples-{kind}", partial(examples, shown), what)


QUESTION = Question(
    place=130,
    name="examples",
    title="Images and spectra",
    lead="The same test images at every level, and their spectra, which the classifier works on.",
    drawings=_drawings,
)

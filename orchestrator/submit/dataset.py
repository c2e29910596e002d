"""The dataset of a run: scanned and stored; drawn first if none is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from db.engine import reading, write
from db.models import IMAGE_FILE_COLUMNS, Image
from db.models import Dataset as DatasetRow
from early_exit.dataset import Dataset, ImageFile, scan
from early_exit.settings import Synthetic
from early_exit.splits import SPLITS
from orchestrator.plan.paper import DatasetShape


@dataclass(frozen=True)
class StoredDataset:
    """A dataset with its rows in ``datasets`` and ``images``."""

    id: int
    dataset: Dataset
    shape: DatasetShape


def synthetic_folder(store: ArtifactStore, synthetic: Synthetic) -> Path:
    """The built-in dataset's folder, visible to all workers of the store; drawn if it does not exist yet."""
    folder = store.root / "datasets" / f"synthetic-{synthetic.images}x{synthetic.size}-seed{synthetic.seed}"
    # named by its arguments and written atomically: a folder that exists is whole
    if not folder.exists():
        from early_exit.synthetic import draw  # OpenCV is needed only here

        folder.parent.mkdir(exist_ok=True)
        draw(folder, synthetic.images, synthetic.size, synthetic.seed)
    return folder


def store_dataset(
    engine: Engine, folder: Path, split: int | Mapping[str, str], *, built_in: bool
) -> StoredDataset:
    """Scan a folder and store what is new; files unchanged since the last scan are not opened.

    ``split`` is a seed, or maps every path to its split.
    """
    root = folder.resolve()
    with reading(engine) as session:
        known = _known(session, str(root))
    dataset = scan(root, split, known)
    try:
        dataset_id = write(engine, lambda session: _store(session, dataset, str(root), built_in))
    except IntegrityError:  # another submit of the same folder was faster
        dataset_id = write(engine, lambda session: _store(session, dataset, str(root), built_in))
    sizes = {split: len(dataset.of_split(split)) for split in SPLITS}
    return StoredDataset(dataset_id, dataset, DatasetShape(dataset.digest, len(dataset.classes), sizes))


def _known(session: Session, uri: str) -> dict[str, ImageFile]:
    newest = select(DatasetRow.id).where(DatasetRow.uri == uri).order_by(DatasetRow.id.desc()).limit(1)
    rows = session.execute(select(*IMAGE_FILE_COLUMNS).where(Image.dataset_id == newest.scalar_subquery()))
    return {row.path: ImageFile(*row) for row in rows}


def _store(session: Session, dataset: Dataset, uri: str, built_in: bool) -> int:
    same = select(DatasetRow.id).where(DatasetRow.digest == dataset.digest, DatasetRow.uri == uri)
    # the same content at the same place is the same dataset; an edited folder becomes a new row
    existing = session.scalar(same)
    if existing is not None:
        return existing
    row = DatasetRow(
        digest=dataset.digest,
        uri=uri,
        classes=list(dataset.classes),
        ignored_files=dataset.ignored,
        built_in=built_in,
    )
    session.add(row)
    session.flush()
    images = [{"dataset_id": row.id, **vars(image)} for image in dataset.images]
    session.execute(insert(Image), images)
    return row.id

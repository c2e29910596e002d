"""Graphs of links: layers with fan-in and fan-out, and one job that joins the last of them."""

import hashlib
import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Engine, insert, select
from sqlalchemy.orm import Session

from db.engine import write
from db.models import Dataset, Job, JobDependency, JobState, Run
from harness.link import Link, code

LAYERS = 40
SMALLEST_LAYER = 40
REACH = 4
"""A job reads parents that lie this near: what one lost job holds up is a cone, and not all that is below."""


@dataclass(frozen=True)
class Node:
    """A job to be: ``reads`` are positions in the graph."""

    params: Link
    reads: tuple[int, ...] = ()
    deadline_seconds: int = Link.deadline_seconds


def layered(jobs: int, seed: int, *, writes: bool = True, name: str = "link") -> list[Node]:
    """``jobs`` links in layers, each reading three to five of the layer above; the last reads a whole layer."""
    rng = random.Random(seed)
    width = max((jobs - 1) // LAYERS, SMALLEST_LAYER)
    nodes = []
    for number in range(jobs - 1):
        layer, place = divmod(number, width)
        reads: tuple[int, ...] = ()
        if layer:
            near = {(place + step) % width for step in range(-REACH, REACH + 1)}
            chosen = rng.sample(sorted(near), rng.randint(3, 5))
            reads = tuple((layer - 1) * width + parent for parent in sorted(chosen))
        nodes.append(Node(Link(f"{name}-{seed}-{number}", writes), reads))
    last = range(max(0, len(nodes) - width), len(nodes))
    return [*nodes, Node(Link(f"{name}-{seed}-join", writes), tuple(last))]


def submit_graph(engine: Engine, nodes: Sequence[Node]) -> int:
    """Store a run of these jobs in one transaction; returns its number. Two with equal names share keys."""
    return write(engine, lambda session: _insert(session, nodes))


def _insert(session: Session, nodes: Sequence[Node]) -> int:
    run = Run(
        identity=uuid.uuid4().hex,
        plan="chaos",
        profile="chaos",
        spec={"p_tar": 0.8, "payload": "json", "seeds": [0], "fidelity": ["corrected"]},
        code_version="1",
        environment={},
        dataset_id=_dataset(session),
        created_at=1_700_000_000.0,
    )
    session.add(run)
    session.flush()
    stored = session.execute(
        insert(Job).returning(Job.id, sort_by_parameter_order=True),
        [
            {
                "run_id": run.id,
                "stage": node.params.stage,
                "label": node.params.name,
                "seed": 0,
                "fidelity": "corrected",
                "key": hashlib.sha256(f"{node.params.name} {node.params.writes}".encode()).hexdigest(),
                "code": code(),
                "params": asdict(node.params),
                "queue": node.params.queue,
                "state": JobState.WAITING if node.reads else JobState.READY,
                "waiting_for": len(node.reads),
                "deadline_seconds": node.deadline_seconds,
            }
            for node in nodes
        ],
    )
    ids = list(stored.scalars())
    edges = list(_dependencies(nodes, ids))
    if edges:
        session.execute(insert(JobDependency), edges)
    return run.id


def _dependencies(nodes: Sequence[Node], ids: Sequence[int]) -> Iterator[dict[str, object]]:
    for child, node in zip(ids, nodes, strict=True):
        for position, parent in enumerate(node.reads):
            yield {"child_id": child, "parent_id": ids[parent], "position": position, "reads": True}


def _dataset(session: Session) -> int:
    found = session.scalar(select(Dataset.id))
    if found is None:
        dataset = Dataset(digest="chaos", uri="file:///chaos", classes=["x"], ignored_files=0, built_in=False)
        session.add(dataset)
        session.flush()
        found = dataset.id
    return found

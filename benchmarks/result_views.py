"""How long the views of a run's sweeps take: `python benchmarks/result_views.py [DATABASE_URL]`.

Fills an empty database (a temporary SQLite file without an address) with two runs of demo size, three seeds and two
fidelities each: 146,652 sweep points. Prints the best of two readings of each view for one run, and its ratio to
reading the run's sweep points bare.
"""

import itertools
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert, text

from db.engine import open_engine, reading, writing
from db.models import Artifact, Dataset, Job, JobState, Run, RunState
from db.results.tables import SweepPoint
from db.schema import upgrade

BARE = "SELECT s.* FROM jobs j JOIN sweep_points s ON s.artifact_id = j.artifact_id WHERE j.run_id = 1"
VIEWS = ("trade_off", "accuracy", "offloading", "classifier_cost", "paper_comparison", "ablation")
POLICIES = ("pristine", "oracle", "classifier", "edge-only", "cloud-only", *(f"expert {n}" for n in range(6)))
CONDITIONS = [("pristine", 0), *itertools.product(("gaussian_blur", "gaussian_noise"), range(1, 6))]
OTHER_JOBS = 600
"""Of each seed and fidelity: what a run has besides sweeps."""
COUNTS = {"n": 8, **{f"n{k}": 2 for k in (1, 2, 3, 4)}, **{f"c{k}": 1 for k in (1, 2, 3, 4)}}
COUNTS |= {f"r{k}": 2 for k in (1, 2, 3)}


def fill(engine):
    """Two runs with all their jobs and sweep points."""
    artifacts, jobs, points = [], [], []
    for run, fidelity, seed in itertools.product((1, 2), ("corrected", "released"), (0, 1, 2)):
        for condition in [None] * OTHER_JOBS + list(itertools.product(POLICIES, CONDITIONS)):
            number, stage = len(artifacts) + 1, "sweep" if condition else "predict"
            artifacts.append(
                {"id": number, "key": f"k{number}", "stage": stage, "bytes": 0, "created_at": 0.0}
            )
            job = {"run_id": run, "stage": stage, "label": "", "key": f"k{number}", "code": "", "params": {}}
            job |= {"seed": seed, "fidelity": fidelity, "queue": "cpu", "state": JobState.SUCCEEDED}
            jobs.append(job | {"artifact_id": number, "deadline_seconds": 1})
            if condition:
                policy, (kind, level) = condition
                row = {"artifact_id": number, "policy": policy, "kind": kind, "level": level, **COUNTS}
                points += [row | {"p_tar": i / 100} for i in range(101)]
    with writing(engine) as session:
        dataset = {"id": 1, "digest": "d", "uri": "u", "classes": [], "ignored_files": 0, "built_in": True}
        session.execute(insert(Dataset), [dataset])
        run = {
            "plan": "full-paper",
            "profile": "demo",
            "spec": {},
            "state": RunState.SUCCEEDED,
            "dataset_id": 1,
        }
        run |= {"code_version": "1", "environment": {}, "created_at": 0.0, "finished_at": 1.0}
        session.execute(insert(Run), [run | {"id": number, "identity": str(number)} for number in (1, 2)])
        for table, rows in ((Artifact, artifacts), (Job, jobs), (SweepPoint, points)):
            session.execute(insert(table), rows)


def seconds(engine, statement):
    """The shorter of two readings of all rows, and how many there are."""
    taken = []
    with reading(engine) as session:
        for _ in range(2):
            start = time.perf_counter()
            rows = len(session.execute(text(statement)).all())
            taken.append(time.perf_counter() - start)
    return min(taken), rows


def main(url):
    """Fill and read the database at ``url``."""
    engine = open_engine(url)
    upgrade(engine)
    fill(engine)
    bare, rows = seconds(engine, BARE)
    print(f"{'sweep points':18} {rows:7,} rows  {bare:7.3f} s")
    for view in VIEWS:
        taken, rows = seconds(engine, f"SELECT * FROM {view} WHERE run = 1")  # noqa: S608  # our own names
        print(f"{view:18} {rows:7,} rows  {taken:7.3f} s  {taken / bare:6.1f} times the bare points")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{Path(folder, 'database.sqlite')}")

"""The printed tables, read from rows made by hand."""

from db.engine import reading
from db.results import Latency
from orchestrator.results import tables


def latency(payload, seconds):
    parts = ("mean", "p50", "p95", "classifier", "edge", "link", "cloud")
    condition = {"policy": "oracle", "profile": "paris", "kind": "pristine", "level": 0, "p_tar": 0.8}
    return condition | {"payload": payload, "n": 4, "offloaded": 1} | {f"{p}_seconds": seconds for p in parts}


def test_the_latency_table_is_about_the_runs_own_payload(engine, add_run, add_artifact):
    rows = [latency("json", 0.5), latency("uint8", 0.25), latency("float32", 0.375)]
    done = {"stage": "latency", "state": "succeeded", "fidelity": "corrected", "seed": 0}
    spec = {"p_tar": 0.8, "payload": "uint8", "seeds": [0], "fidelity": ["corrected"], "levels": {}}
    run = add_run(
        {"a": []}, columns={"a": done | {"artifact_id": add_artifact("k", {Latency: rows})}}, spec=spec
    )
    with reading(engine) as session:
        (table,) = tables(session, run.id)
    assert table.title == "End-to-end latency at p_tar 0.8, sent as uint8: mean over the test images, ms"
    (estimate,) = table.estimates.values()
    assert (estimate.mean, estimate.margin, estimate.seeds) == (0.25, None, 1)

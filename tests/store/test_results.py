"""The printed tables, read from rows made by hand."""

import pytest

from db.engine import reading
from db.results.tables import Latency, MissedDeadline, Outage, ReliabilityBin, SweepPoint
from orchestrator.results.tables import Estimate, tables

BLUR = "gaussian_blur"


@pytest.fixture
def shown(engine, add_run, add_artifact):
    """``shown(jobs, p_tar)``: the tables, by name, of a run with (stage, fidelity, seed, rows) as its jobs."""

    def read(jobs, p_tar=0.8):
        columns = {
            str(place): {"stage": stage, "state": "succeeded", "fidelity": fidelity, "seed": seed}
            | {"artifact_id": add_artifact(f"artifact-{place}", rows)}
            for place, (stage, fidelity, seed, rows) in enumerate(jobs)
        }
        spec = {
            "p_tar": p_tar,
            "payload": "json",
            "image_size": 32,
            "split_seed": 0,
            "architecture": {"backbone": "mobilenet_v2"},
            "backbone": {"epochs": 1},
        }
        spec |= {
            "seeds": sorted({job[2] for job in jobs}),
            "fidelity": list(dict.fromkeys(job[1] for job in jobs)),
        }
        run = add_run({name: [] for name in columns}, columns=columns, spec=spec)
        with reading(engine) as session:
            return {table.name: table for table in tables(session, run.id)}

    return read


def latency(payload, seconds):
    parts = ("mean", "p50", "p95", "classifier", "edge", "link", "cloud")
    condition = {"policy": "oracle", "network": "paris", "kind": "pristine", "level": 0, "p_tar": 0.8}
    return condition | {"payload": payload, "n": 4, "offloaded": 1} | {f"{p}_seconds": seconds for p in parts}


def test_the_latency_table_is_about_the_runs_own_payload(engine, add_run, add_artifact):
    rows = [latency("json", 0.5), latency("uint8", 0.25), latency("float32", 0.375)]
    done = {"stage": "latency", "state": "succeeded", "fidelity": "corrected", "seed": 0}
    spec = {"p_tar": 0.8, "payload": "uint8", "seeds": [0], "fidelity": ["corrected"], "levels": {}}
    run = add_run(
        {"a": []}, columns={"a": done | {"artifact_id": add_artifact("k", {Latency: rows})}}, spec=spec
    )
    with reading(engine) as session:
        table, parts = tables(session, run.id)
    assert parts.title.startswith("Where time goes at p_tar 0.8, sent as uint8")
    assert table.title == "End-to-end latency at p_tar 0.8, sent as uint8: mean over the test images, ms"
    (estimate,) = table.estimates.values()
    assert (estimate.mean, estimate.ci95, estimate.seeds) == (0.25, None, 1)


def point(right, policy="oracle"):
    """Of eight images at blur 3, all of which go to the cloud, ``right`` are right."""
    zeros = dict.fromkeys(("n1", "n2", "n3", "c1", "c2", "c3", "r1", "r2", "r3"), 0)
    condition = {"kind": BLUR, "level": 3, "p_tar": 0.8, "policy": policy}
    return {SweepPoint: [condition | zeros | {"n": 8, "n4": 8, "c4": right}]}


def test_fidelities_are_compared_in_one_table_by_their_differences_over_seeds(shown):
    jobs = [("sweep", "corrected", 0, point(4)), ("sweep", "corrected", 1, point(6))]
    jobs += [("sweep", "released", 0, point(2)), ("sweep", "released", 1, point(6))]
    grid = shown(jobs)["ablation"].grid()
    assert grid.columns[:5] == ["kind", "level", "fidelity", "overall accuracy", "difference"]
    # corrected 4/8 and 6/8: 62.5, t(1) · s/√2 = 12.706 · 12.5; released 2/8 and 6/8: 50 ± 12.706 · 25.
    # Differences -2/8 and 0: -12.5 ± 12.706 · 12.5.
    assert [row[:5] for row in grid.rows] == [
        [BLUR, "3", "corrected", "62.5 ± 158.8", "0.0 ± 0.0"],
        [BLUR, "3", "released", "50.0 ± 317.6", "-12.5 ± 158.8"],
    ]
    assert "mean ± half the 95 % interval over the 2 seeds 0, 1" in grid.caption


def test_one_fidelity_is_compared_with_nothing(shown):
    assert "ablation" not in shown([("sweep", "corrected", 0, point(4))])


def test_the_cross_expert_matrix_leaves_out_policies_that_choose(shown):
    jobs = [
        ("sweep", "corrected", 0, point(4, policy)) for policy in ("classifier", "oracle", BLUR, "pristine")
    ]
    assert shown(jobs)["cross_expert"].grid().columns[2:] == ["pristine expert", "gaussian_blur expert"]


def bins(kind, level, rows):
    condition = {"expert": BLUR, "kind": kind, "level": level, "exit": 1}
    names = ("calibrated", "bin", "n", "mean_confidence", "accuracy")
    return {ReliabilityBin: [condition | dict(zip(names, row, strict=True)) for row in rows]}


def test_an_experts_own_calibration_is_that_of_all_levels_together(shown):
    jobs = [
        (
            "reliability",
            "corrected",
            0,
            bins(BLUR, 1, [(False, 15, 6, 0.96875, 0.5), (True, 9, 6, 0.5625, 0.5)]),
        ),
        (
            "reliability",
            "corrected",
            0,
            bins(BLUR, 3, [(False, 15, 2, 0.9375, 1.0), (True, 9, 2, 0.5625, 1.0)]),
        ),
        (
            "reliability",
            "corrected",
            0,
            bins("pristine", 0, [(False, 15, 9, 1.0, 0.0), (True, 15, 9, 1.0, 0.0)]),
        ),
    ]
    found = shown(jobs)
    # before: 8 answers of confidence (6 · 31/32 + 2 · 15/16)/8 = 0.9609375, 5/8 right; after: 5/8 against 9/16
    assert list(found["own_calibration"].estimates.values()) == [
        Estimate(0.3359375, None, 1),
        Estimate(0.0625, None, 1),
    ]
    assert found["own_calibration"].grid().rows == [[BLUR, "1", "33.6", "6.2"]]
    assert found["reliability"].grid().rows == [
        [BLUR, "1", "9", "", "56.2 / 62.5"],
        [BLUR, "1", "15", "96.1 / 62.5", ""],
    ]
    # by level: |1/2 - 31/32|, |1 - 15/16|, and the pristine images, that are all wrong
    by_level = found["calibration"].grid()
    assert by_level.columns == ["expert", "kind", "level", "exit 1"]
    assert [row[1:] for row in by_level.rows] == [
        ["pristine", "0", "100.0 / 100.0"],
        [BLUR, "1", "46.9 / 6.2"],
        [BLUR, "3", "6.2 / 43.8"],
    ]


BATCHES = {"policy": "oracle", "kind": BLUR, "level": 3, "n": 4, "batch_size": 2, "shuffles": 100}


def test_outages_are_shown_at_0_8_where_there_is_none_at_the_runs_own_threshold(shown):
    rows = [
        BATCHES
        | {"p_tar": p_tar, "edge_outage": edge, "edge_ci95": 0.0, "overall_outage": 0.5}
        | {"overall_ci95": 0.0, "batches_without_edge": 0.0}
        for p_tar, edge in ((0.8, 0.25), (0.82, 0.75))
    ]
    table = shown([("outage", "corrected", 0, {Outage: rows})], p_tar=0.85)["outage"]
    assert table.title == "Outage probability at p_tar 0.8: on the edge / overall, %"
    assert table.grid().rows == [[BLUR, "3", "25.0 / 50.0"]]
    assert "a batch of 2 test images whose accuracy is below p_tar, over 100 shuffles" in table.grid().caption


def test_some_target_times_are_columns_of_the_missed_deadlines(shown):
    rows = [
        BATCHES
        | {"network": "paris", "t_tar_seconds": t_tar, "p_tar": 0.8, "payload": "json"}
        | {"missed": missed, "ci95": 0.0}
        for t_tar, missed in ((0.0, 1.0), (0.1, 0.75), (0.5, 0.25), (0.55, 0.125))
    ]
    grid = shown([("deadlines", "corrected", 0, {MissedDeadline: rows})])["deadlines"].grid()
    assert grid.columns == ["network", "policy", "kind", "level", "0.1 s", "0.5 s"]
    assert grid.rows == [["paris", "oracle", BLUR, "3", "75.0", "25.0"]]

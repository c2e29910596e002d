"""Every view against rows made by hand: the expected numbers are worked out in the comments."""

import pytest
from sqlalchemy import text

from db.engine import reading, write
from db.models import Attempt
from db.results.tables import (
    Classification,
    Latency,
    MissedDeadline,
    Outage,
    PayloadAnswers,
    Prediction,
    ReliabilityBin,
    SweepPoint,
)
from db.results.views import VIEWS

# Four images at blur 3; (confidence, correct) at the exits 1 to 4 of the blur expert.
IMAGES = {
    10: [(0.90, True), (0.95, True), (0.99, True), (0.99, True)],
    11: [(0.50, False), (0.85, True), (0.70, True), (0.90, True)],
    12: [(0.30, False), (0.40, False), (0.60, False), (0.55, True)],
    13: [(0.81, False), (0.20, True), (0.90, True), (0.97, True)],
}

# Counted from IMAGES by hand; an image leaves at the first exit whose confidence is above p_tar.
#   p_tar 0.80: 10 and 13 leave at 1 (10 right, 13 wrong), 11 at 2 (right), nobody at 3, 12 at 4 (right).
#               Above 0.80 at exit 1: 10, 13; at exit 2: 10, 11; at exit 3: 10, 13.
#   p_tar 0.55: the same at 1 and 2, then 12 leaves at 3 (wrong). Above 0.55 at 3: all four.
#   p_tar 0.99: nobody leaves before 4 (the comparison is strict); all four are right there.
POINTS = {
    0.80: {"n": 4, "n1": 2, "n2": 1, "n3": 0, "n4": 1, "c1": 1, "c2": 1, "c3": 0, "c4": 1, "r": (2, 2, 2)},
    0.55: {"n": 4, "n1": 2, "n2": 1, "n3": 1, "n4": 0, "c1": 1, "c2": 1, "c3": 0, "c4": 0, "r": (2, 2, 4)},
    0.99: {"n": 4, "n1": 0, "n2": 0, "n3": 0, "n4": 4, "c1": 0, "c2": 0, "c3": 0, "c4": 4, "r": (0, 0, 0)},
}
# exit, calibrated, bin, n, mean confidence, accuracy; all numbers are sums of powers of two.
BINS = [
    (1, False, 8, 2, 0.5, 1.0),
    (1, False, 15, 6, 0.96875, 0.5),
    (1, True, 8, 8, 0.5, 0.625),
    (4, False, 15, 8, 1.0, 1.0),
    (4, True, 14, 4, 0.875, 0.75),
    (4, True, 15, 4, 0.9375, 1.0),
]
VARIANT = {"fidelity": "corrected", "seed": 7}
CONDITION = {"kind": "gaussian_blur", "level": 3}


@pytest.fixture
def run(add_run, add_artifact):
    points = [
        {
            **CONDITION,
            "policy": "oracle",
            "p_tar": p_tar,
            **{name: value for name, value in point.items() if name != "r"},
            **dict(zip(("r1", "r2", "r3"), point["r"], strict=True)),
        }
        for p_tar, point in POINTS.items()
    ]
    predictions = [
        {
            **CONDITION,
            "expert": "gaussian_blur",
            "image": image,
            "exit": number,
            "confidence": confidence,
            "predicted": 0,
            "correct": correct,
        }
        for image, exits in IMAGES.items()
        for number, (confidence, correct) in enumerate(exits, start=1)
    ]
    seen = {10: "gaussian_blur", 11: "gaussian_blur", 12: "pristine", 13: "gaussian_blur"}
    classifications = [
        {**CONDITION, "image": image, "predicted": kind, "confidence": 0.9} for image, kind in seen.items()
    ]
    latency = {
        **CONDITION,
        "policy": "oracle",
        "network": "paris",
        "p_tar": 0.8,
        "payload": "json",
        "n": 4,
        "offloaded": 1,
        "mean_seconds": 0.25,
        "p50_seconds": 0.125,
        "p95_seconds": 0.5,
        "classifier_seconds": 0.0,
        "edge_seconds": 0.0625,
        "link_seconds": 0.125,
        "cloud_seconds": 0.03125,
    }
    bins = [
        {**CONDITION, "expert": "gaussian_blur", "exit": number, "calibrated": calibrated}
        | {"bin": bin_, "n": n, "mean_confidence": confidence, "accuracy": accuracy}
        for number, calibrated, bin_, n, confidence, accuracy in BINS
    ]
    batches = {"n": 4, "batch_size": 2, "shuffles": 100}
    outage = {"p_tar": 0.8, "edge_outage": 0.25, "edge_ci95": 0.0625, "overall_outage": 0.5}
    outage |= {"overall_ci95": 0.125, "batches_without_edge": 0.375}
    missed = {"network": "paris", "t_tar_seconds": 0.25, "p_tar": 0.8, "payload": "json"}
    missed |= {"missed": 0.75, "ci95": 0.03125}
    sent = {**CONDITION, "expert": "gaussian_blur", "payload": "uint8"}
    rows = {
        "reliability": {ReliabilityBin: bins},
        "outage": {Outage: [{**CONDITION, "policy": "oracle", **batches, **outage}]},
        "deadlines": {MissedDeadline: [{**CONDITION, "policy": "oracle", **batches, **missed}]},
        "shard 1": {PayloadAnswers: [sent | {"n": 3, "agreeing": 3, "correct": 2}]},
        "shard 2": {PayloadAnswers: [sent | {"n": 5, "agreeing": 4, "correct": 3}]},
        "sweep": {SweepPoint: points},
        "predict": {Prediction: predictions},
        "classify": {Classification: classifications},
        "latency": {Latency: [latency]},
    }
    return add_run(
        {stage: [] for stage in rows},
        columns={
            stage: {
                **VARIANT,
                "stage": stage,
                "state": "succeeded",
                "artifact_id": add_artifact(f"key-{stage}", tables, stage=stage),
            }
            for stage, tables in rows.items()
        },
    )


@pytest.fixture
def query(engine):
    def rows(statement, **parameters):
        with reading(engine) as session:
            return [dict(row) for row in session.execute(text(statement), parameters).mappings()]

    return rows


def test_accuracy_divides_right_answers_by_images_that_left_there(run, query):
    rows = query("SELECT * FROM accuracy ORDER BY p_tar")
    constant = {"run": run.id, **VARIANT, "policy": "oracle", **CONDITION, "images": 4}
    assert rows == [
        # 0.55: 2 of 4 right in all; 2 of the 4 on the edge; nobody in the cloud
        constant
        | {"p_tar": 0.55, "overall_accuracy": 0.5, "edge_accuracy": 0.5, "cloud_accuracy": None}
        | {"edge_exits": 4},
        # 0.80: 3 of 4; 2 of the 3 on the edge; 1 of 1 in the cloud
        constant
        | {"p_tar": 0.8, "overall_accuracy": 0.75, "edge_accuracy": 2 / 3, "cloud_accuracy": 1.0}
        | {"edge_exits": 3},
        constant
        | {"p_tar": 0.99, "overall_accuracy": 1.0, "edge_accuracy": None, "cloud_accuracy": 1.0}
        | {"edge_exits": 0},
    ]


@pytest.mark.parametrize("p_tar", POINTS)
def test_accuracy_can_be_recounted_from_predictions(run, query, p_tar):
    first_confident = """
        SELECT p.image, MIN(p.exit) AS exit
        FROM jobs j JOIN predictions p ON p.artifact_id = j.artifact_id
        WHERE j.run_id = :run AND p.expert = 'gaussian_blur' AND p.kind = 'gaussian_blur' AND p.level = 3
          AND (p.confidence > :p_tar OR p.exit = 4)
        GROUP BY p.image
    """
    (recounted,) = query(
        f"""
        SELECT COUNT(*) AS images,
               SUM(CASE WHEN p.correct THEN 1 ELSE 0 END) AS right_answers,
               SUM(CASE WHEN p.exit < 4 THEN 1 ELSE 0 END) AS edge_exits
        FROM ({first_confident}) f
        JOIN predictions p ON p.image = f.image AND p.exit = f.exit
        """,  # noqa: S608  # both parts stand above
        run=run.id,
        p_tar=p_tar,
    )
    (shown,) = query("SELECT * FROM accuracy WHERE p_tar = :p_tar", p_tar=p_tar)
    assert shown["images"] == recounted["images"] == 4
    assert shown["overall_accuracy"] == recounted["right_answers"] / 4
    assert shown["edge_exits"] == recounted["edge_exits"]


def test_offloading_is_the_share_that_reaches_the_cloud(run, query):
    rows = query(
        "SELECT p_tar, images, offloading_probability, edge_exit_probability FROM offloading ORDER BY p_tar"
    )
    assert [tuple(row.values()) for row in rows] == [
        (0.55, 4, 0.0, 1.0),
        (0.80, 4, 0.25, 0.75),
        (0.99, 4, 1.0, 0.0),
    ]


def test_exit_rates_are_cumulative_conditional_and_independent(run, query):
    rows = query("SELECT * FROM exit_rates WHERE p_tar = 0.8 ORDER BY exit")
    names = ("exit", "exits", "cumulative_rate", "conditional_rate", "independent_rate", "accuracy")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (1, 2, 0.5, 0.5, 0.5, 0.5),  # 2 of 4 leave, one of them right; 2 of 4 are above 0.8
        (2, 1, 0.75, 0.5, 0.5, 1.0),  # 1 of the 2 that come this far
        (3, 0, 0.75, 0.0, 0.5, None),  # none of 1, and so no accuracy
        (4, 1, 1.0, 1.0, 1.0, 1.0),  # the last exit takes all
    ]


def test_an_exit_that_nobody_reaches_has_no_conditional_rate(run, query):
    (row,) = query("SELECT conditional_rate, exits FROM exit_rates WHERE p_tar = 0.55 AND exit = 4")
    assert row == {"conditional_rate": None, "exits": 0}


def test_latency_says_what_is_offloaded_and_where_time_goes(run, query):
    (row,) = query("SELECT * FROM latency")
    assert row == {
        "run": run.id,
        **VARIANT,
        "policy": "oracle",
        "network": "paris",
        **CONDITION,
        "p_tar": 0.8,
        "payload": "json",
        "images": 4,
        "offloading_probability": 0.25,
        "mean_seconds": 0.25,
        "p50_seconds": 0.125,
        "p95_seconds": 0.5,
        "classifier_seconds": 0.0,
        "edge_seconds": 0.0625,
        "link_seconds": 0.125,
        "cloud_seconds": 0.03125,
    }


def test_calibration_weighs_the_gaps_of_the_bins_by_their_images(run, query):
    rows = query("SELECT * FROM calibration ORDER BY exit")
    constant = {"run": run.id, **VARIANT, "expert": "gaussian_blur", **CONDITION, "images": 8}
    assert rows == [
        # before: 2/8 · |1 − 1/2| + 6/8 · |1/2 − 31/32| = 1/8 + 45/128; after: |5/8 − 1/2|
        constant | {"exit": 1, "ece_before": 61 / 128, "ece_after": 0.125},
        # after: 1/2 · |3/4 − 7/8| + 1/2 · |1 − 15/16| = 1/16 + 1/32
        constant | {"exit": 4, "ece_before": 0.0, "ece_after": 3 / 32},
    ]


def test_reliability_shows_every_bin_that_holds_images(run, query):
    rows = query("SELECT * FROM reliability ORDER BY exit, calibrated, bin")
    constant = {"run": run.id, **VARIANT, "expert": "gaussian_blur", **CONDITION}
    names = ("exit", "calibrated", "bin", "images", "mean_confidence", "accuracy")
    assert rows == [constant | dict(zip(names, bin_, strict=True)) for bin_ in BINS]


def test_own_calibration_takes_all_levels_of_an_experts_kind_together(add_run, add_artifact, query):
    def bins(kind, level, n, confidence, accuracy):
        row = {
            "expert": "gaussian_blur",
            "kind": kind,
            "level": level,
            "exit": 1,
            "calibrated": True,
            "bin": 15,
        }
        return {ReliabilityBin: [row | {"n": n, "mean_confidence": confidence, "accuracy": accuracy}]}

    made = {
        "a": bins("gaussian_blur", 1, 6, 1.0, 0.5),
        "b": bins("gaussian_blur", 3, 2, 0.75, 1.0),
        "c": bins("pristine", 0, 9, 1.0, 0.0),  # not its own kind
    }
    columns = {
        name: {
            **VARIANT,
            "stage": "reliability",
            "state": "succeeded",
            "artifact_id": add_artifact(name, rows),
        }
        for name, rows in made.items()
    }
    run = add_run({name: [] for name in columns}, columns=columns)
    constant = {"run": run.id, **VARIANT, "expert": "gaussian_blur", "exit": 1, "calibrated": 1, "images": 8}
    # confidence (6 · 1 + 2 · 3/4)/8 and accuracy (6 · 1/2 + 2 · 1)/8
    assert query("SELECT * FROM own_reliability") == [
        constant | {"bin": 15, "mean_confidence": 0.9375, "accuracy": 0.625}
    ]
    assert query("SELECT * FROM own_calibration") == [constant | {"ece": 0.3125}]


def test_trade_off_holds_what_accuracy_and_offloading_show(run, query):
    parts = "SELECT * FROM accuracy JOIN offloading USING (run, fidelity, seed, policy, kind, level, p_tar, images)"
    whole = query("SELECT * FROM trade_off ORDER BY p_tar")
    assert whole == query(f"{parts} ORDER BY p_tar")
    assert len(whole) == 3


def test_outage_says_over_which_batches(run, query):
    constant = {"run": run.id, **VARIANT, "policy": "oracle", **CONDITION, "images": 4}
    constant |= {"batch_size": 2, "shuffles": 100, "p_tar": 0.8}
    assert query("SELECT * FROM outage") == [
        constant
        | {"edge_outage": 0.25, "edge_ci95": 0.0625, "overall_outage": 0.5, "overall_ci95": 0.125}
        | {"batches_without_edge": 0.375}
    ]
    assert query("SELECT * FROM deadlines") == [
        constant
        | {"network": "paris", "payload": "json", "t_tar_seconds": 0.25, "missed": 0.75, "ci95": 0.03125}
    ]


def test_payload_accuracy_adds_up_the_shards(run, query):
    assert query("SELECT * FROM payload_accuracy") == [
        {"run": run.id, **VARIANT, "payload": "uint8", "expert": "gaussian_blur", **CONDITION, "images": 8}
        | {"agreement": 7 / 8, "final_accuracy": 5 / 8}
    ]


def test_classifier_confusion_shares_add_up_to_one_per_kind_and_level(run, query):
    assert query("SELECT * FROM classifier_confusion ORDER BY predicted") == [
        {"run": run.id, **VARIANT, **CONDITION, "predicted": "gaussian_blur", "images": 3, "share": 0.75},
        {"run": run.id, **VARIANT, **CONDITION, "predicted": "pristine", "images": 1, "share": 0.25},
    ]


SWEEP = {**CONDITION, "policy": "oracle", "p_tar": 0.8, "n": 8, "n1": 0, "n2": 0, "c1": 0, "c2": 0}
SWEEP |= {"r1": 0, "r2": 0, "r3": 0}


def test_ablation_is_the_difference_to_corrected_seed_by_seed(add_run, add_artifact, query):
    def job(fidelity, seed, edge, edge_right, right):
        point = {"n3": edge, "n4": 8 - edge, "c3": edge_right, "c4": right - edge_right}
        artifact = add_artifact(f"{fidelity} {seed}", {SweepPoint: [SWEEP | point]})
        return {"stage": "sweep", "state": "succeeded", "fidelity": fidelity, "seed": seed} | {
            "artifact_id": artifact
        }

    jobs = {
        "a": job("corrected", 0, 4, 3, 6),
        "b": job("corrected", 1, 8, 4, 4),
        "c": job("released", 0, 2, 1, 4),
        "d": job("released", 1, 0, 0, 8),
    }
    add_run({name: [] for name in jobs}, columns=jobs)
    names = ("overall_accuracy", "edge_exit_probability", "edge_accuracy")
    gains = ("overall_accuracy_gain", "edge_exit_gain", "edge_accuracy_gain")
    rows = query("SELECT * FROM ablation ORDER BY fidelity, seed")
    assert [tuple(row[name] for name in ("fidelity", "seed", *names, *gains)) for row in rows] == [
        ("corrected", 0, 0.75, 0.5, 0.75, 0.0, 0.0, 0.0),
        ("corrected", 1, 0.5, 1.0, 0.5, 0.0, 0.0, 0.0),
        ("released", 0, 0.5, 0.25, 0.5, -0.25, -0.25, -0.25),
        ("released", 1, 1.0, 0.0, None, 0.5, -1.0, None),  # nobody leaves on the edge
    ]


def test_the_classifiers_cost_in_time_is_for_asking_and_for_its_mistakes(add_run, add_artifact, query):
    parts = dict.fromkeys(("p50", "p95", "edge", "link", "cloud"), 0.0)
    common = {**CONDITION, "network": "paris", "p_tar": 0.8, "payload": "json", "n": 4, "offloaded": 1}
    common |= {f"{part}_seconds": seconds for part, seconds in parts.items()}
    jobs = {
        policy: {"stage": "latency", "state": "succeeded", **VARIANT}
        | {
            "artifact_id": add_artifact(
                policy,
                {Latency: [common | {"policy": policy, "mean_seconds": mean, "classifier_seconds": asking}]},
            )
        }
        for policy, mean, asking in (("oracle", 0.25, 0.0), ("classifier", 0.5, 0.0625))
    }
    add_run({name: [] for name in jobs}, columns=jobs)
    (row,) = query("SELECT * FROM classifier_latency_cost")
    names = ("oracle_mean_seconds", "classifier_mean_seconds", "latency_cost", "cost_of_asking")
    assert tuple(row[name] for name in (*names, "cost_of_mistakes")) == (0.25, 0.5, 0.25, 0.0625, 0.1875)


def test_rates_are_floats_and_counts_integers_on_every_database(run, query):
    counts = {"run", "seed", "level", "images", "exit", "exits", "edge_exits"}
    counts |= {"calibrated", "bin", "batch_size", "shuffles", "job", "attempt", "peak_memory_bytes"}
    counts |= {
        "jobs",
        "cached",
        "waiting",
        "queued",
        "running",
        "succeeded",
        "failed",
        "skipped",
        "cancelled",
    }
    texts = {
        "fidelity",
        "policy",
        "expert",
        "kind",
        "predicted",
        "network",
        "profile",
        "payload",
        "run_state",
        "stage",
        *("plan", "created", "finished", "started", "label", "worker", "host", "outcome"),
    }
    for view in VIEWS:
        for row in query(f"SELECT * FROM {view}"):  # noqa: S608  # a name of ours
            for name, value in row.items():
                expected = int if name in counts else str if name in texts else float
                assert value is None or type(value) is expected, (view, name, value)


def test_a_shared_result_shows_under_every_run_that_has_it(run, add_run, query):
    found = {"state": "succeeded", "cached": True, "artifact_id": run.job("sweep").artifact_id}
    other = add_run({"sweep": []}, columns={"sweep": found})
    rows = query("SELECT run, COUNT(*) AS points FROM accuracy GROUP BY run ORDER BY run")
    assert rows == [{"run": run.id, "points": 3}, {"run": other.id, "points": 3}]
    assert query("SELECT run FROM latency") == [{"run": run.id}]
    assert query("SELECT run FROM latest_run") == [{"run": other.id}]


def test_run_progress_counts_jobs_by_stage_and_state(add_run, query):
    states = {
        "a": {"state": "succeeded", "cached": True},
        "b": {"state": "succeeded"},
        "c": {"state": "running", "lease_until": 1.0},
        "d": {"state": "ready"},
        "e": {"state": "queued"},
        "f": {"state": "waiting"},
        "g": {"state": "failed", "error": "no"},
        "h": {"state": "skipped"},
        "i": {"state": "cancelled"},
        "j": {"state": "waiting", "stage": "latency"},
    }
    run = add_run(dict.fromkeys(states, ()), columns=states)
    zero = dict.fromkeys(("cached", "queued", "running", "succeeded", "failed", "skipped", "cancelled"), 0)
    constant = {"run": run.id, "run_state": "active", "profile": "demo"}
    assert query("SELECT * FROM run_progress ORDER BY stage DESC") == [
        {**constant, "stage": "sweep", "jobs": 9, "cached": 1, "waiting": 1, "queued": 2, "running": 1}
        | {"succeeded": 2, "failed": 1, "skipped": 1, "cancelled": 1},
        {**constant, **zero, "stage": "latency", "jobs": 1, "waiting": 1},
    ]


def test_histories_say_when_in_words(add_run, engine, query):
    run = add_run({"a": []}, state="succeeded", created_at=1_000_000_000.75, finished_at=1_000_003_661.25)
    attempt = {"job_id": run.jobs["a"], "worker": "worker-1", "host": "host-1", "process": 1}
    attempts = [
        attempt | {"attempt": 1, "started_at": 0.0, "finished_at": 86_400.5, "outcome": "succeeded"},
        attempt | {"attempt": 2, "started_at": 86_399.0},  # still running
    ]
    write(engine, lambda session: session.add_all(Attempt(**columns) for columns in attempts))
    assert query("SELECT * FROM run_history") == [
        {"run": run.id, "plan": "full-paper", "profile": "demo", "run_state": "succeeded"}
        | {"created": "2001-09-09 01:46:40", "finished": "2001-09-09 02:47:41", "seconds": 3660.5}
    ]
    names = ("run", "job", "attempt", "worker", "started", "finished", "seconds", "outcome")
    rows = query("SELECT * FROM attempt_history ORDER BY attempt")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (
            run.id,
            run.jobs["a"],
            1,
            "worker-1",
            "1970-01-01 00:00:00",
            "1970-01-02 00:00:00",
            86_400.5,
            "succeeded",
        ),
        (run.id, run.jobs["a"], 2, "worker-1", "1970-01-01 23:59:59", None, None, None),
    ]


def test_a_running_run_has_not_finished(add_run, query):
    add_run({"a": []})
    assert query("SELECT run_state, finished, seconds FROM run_history") == [
        {"run_state": "active", "finished": None, "seconds": None}
    ]

"""What must be true of the numbers of any run (docs/paper.md §9 and §13), whichever way they are read."""

import itertools
import math
from collections import defaultdict

import pytest

CONDITION = ("policy", "kind", "level")
PAPERS_THRESHOLDS = (0.7, 0.75, 0.8, 0.85, 0.9)
ALL_EXITS, EXITS_OF = (1, 2, 3, 4), {"edge-only": (1, 2, 3), "cloud-only": (4,)}
"""What leaves at none of a policy's exits is answered at the last of them."""


@pytest.fixture(scope="module")
def read(finished):
    """``read("accuracy", "kind", "level")``: the view's rows of run 1 as records, by these columns."""

    def read(view, *by):
        statement = f"SELECT * FROM {view} WHERE run = 1"  # noqa: S608  # our own names
        names = [name for (name,) in finished.home.rows("SELECT name FROM pragma_table_info(?)", view)]
        records = [dict(zip(names, row, strict=True)) for row in finished.home.rows(statement)]
        assert records
        found = {tuple(record[name] for name in by): record for record in records}
        assert len(found) == len(records)
        return found

    return read


@pytest.fixture(scope="module")
def accuracy(read):
    return read("accuracy", *CONDITION, "p_tar")


@pytest.fixture(scope="module")
def offloading(read):
    return read("offloading", *CONDITION, "p_tar")


@pytest.fixture(scope="module")
def exit_rates(read):
    """By condition and threshold: the records of the four exits."""
    found = defaultdict(dict)
    for (*point, number), record in read("exit_rates", *CONDITION, "p_tar", "exit").items():
        found[tuple(point)][number] = record
    return found


@pytest.fixture(scope="module")
def says(finished):
    """``says[expert, kind, level][image]``: (confidence, right) of the four exits."""
    statement = (
        "SELECT p.expert, p.kind, p.level, p.image, p.confidence, p.correct FROM predictions p"
        " JOIN jobs j ON j.artifact_id = p.artifact_id AND j.run_id = 1 ORDER BY p.image, p.exit"
    )
    found = defaultdict(lambda: defaultdict(list))
    for expert, kind, level, image, confidence, right in finished.home.rows(statement):
        found[expert, kind, level][image].append((confidence, right))
    return found


@pytest.fixture(scope="module")
def seen(finished):
    """``seen[kind, level][image]``: the kind that the classifier predicts."""
    statement = (
        "SELECT c.kind, c.level, c.image, c.predicted FROM classifications c"
        " JOIN jobs j ON j.artifact_id = c.artifact_id AND j.run_id = 1"
    )
    found = defaultdict(dict)
    for kind, level, image, kind_seen in finished.home.rows(statement):
        found[kind, level][image] = kind_seen
    return found


def same(left, right):
    """Two quotients of the same counts, or both of none."""
    return left == right if left is None or right is None else math.isclose(left, right, abs_tol=1e-12)


# ---- the columns of the published files (docs/paper.md §9) -------------------------------------------------------


def test_every_condition_has_all_thresholds_and_all_test_images(accuracy, exit_rates, says):
    conditions = {point[:-1] for point in accuracy}
    assert len(accuracy) == 101 * len(conditions)
    assert exit_rates.keys() == accuracy.keys()
    assert all(len(exits) == 4 for exits in exit_rates.values())
    (images,) = {len(of) for of in says.values()}
    assert {record["images"] for record in accuracy.values()} == {images}


def test_cumulative_and_conditional_rates_follow_from_the_exits(accuracy, exit_rates):
    for point, exits in exit_rates.items():
        left, images = 0, accuracy[point]["images"]
        for number in (1, 2, 3, 4):
            record, remaining = exits[number], images - left
            left += record["exits"]
            assert same(record["cumulative_rate"], left / images), point
            assert same(record["conditional_rate"], record["exits"] / remaining if remaining else None), point
        assert left == images, point
        assert exits[4]["cumulative_rate"] == 1, point
        there = EXITS_OF.get(point[0], ALL_EXITS)
        assert exits[there[-1]]["independent_rate"] == 1, point
        assert {k for k in exits if exits[k]["independent_rate"] is None} == set(ALL_EXITS) - set(there), (
            point
        )


def test_accuracy_is_made_of_exit_rates_and_the_accuracy_of_each_exit(accuracy, exit_rates):
    for point, exits in exit_rates.items():
        shown = accuracy[point]
        right = {number: (record["accuracy"] or 0) * record["exits"] for number, record in exits.items()}
        edge = right[1] + right[2] + right[3]
        assert same(shown["overall_accuracy"], (edge + right[4]) / shown["images"]), point
        assert shown["edge_exits"] == sum(exits[number]["exits"] for number in (1, 2, 3)), point
        assert same(shown["edge_accuracy"], edge / shown["edge_exits"] if shown["edge_exits"] else None), (
            point
        )
        assert same(shown["cloud_accuracy"], exits[4]["accuracy"]), point
        assert all((record["accuracy"] is None) == (record["exits"] == 0) for record in exits.values()), point


def test_what_is_not_answered_on_the_edge_is_offloaded(offloading, exit_rates):
    assert offloading.keys() == exit_rates.keys()
    for point, record in offloading.items():
        assert same(record["edge_exit_probability"], exit_rates[point][3]["cumulative_rate"]), point
        assert same(record["offloading_probability"], 1 - record["edge_exit_probability"]), point


def test_no_exit_rate_rises_with_p_tar(exit_rates):
    rates = defaultdict(list)
    for *condition, p_tar in sorted(exit_rates):
        for number, record in exit_rates[(*condition, p_tar)].items():
            for rate in ("cumulative_rate", "independent_rate"):
                if record[rate] is not None:
                    rates[(*condition, number, rate)].append(record[rate])
    assert {len(of) for of in rates.values()} == {101}
    for which, of in rates.items():
        assert all(after <= before for before, after in itertools.pairwise(of)), which
    for (policy, *_, number, rate), of in rates.items():
        if rate == "cumulative_rate":  # every confidence exceeds 0 and none exceeds 1
            exits = EXITS_OF.get(policy, ALL_EXITS)
            assert (of[0], of[-1]) == (number >= exits[0], number >= exits[-1]), (policy, number)


def deciding(policy, kind, saw):
    """The expert that a policy asks."""
    return {"oracle": kind, "classifier": saw, "edge-only": saw, "cloud-only": "pristine"}.get(policy, policy)


@pytest.mark.parametrize("p_tar", PAPERS_THRESHOLDS)
def test_every_policy_counts_what_the_predictions_say(exit_rates, accuracy, says, seen, p_tar):
    """The rule of docs/paper.md §8 once more, image by image, in plain Python."""
    for policy, kind, level in {point[:-1] for point in exit_rates}:
        there = [number - 1 for number in EXITS_OF.get(policy, ALL_EXITS)]
        exits, right, reaching = [0] * 4, [0] * 4, [0] * 3
        for image, saw in seen[kind, level].items():
            answers = says[deciding(policy, kind, saw), kind, level][image]
            confidence = {k: answers[k][0] for k in there}
            place = next((k for k in there if confidence[k] > p_tar), there[-1])
            undecided = place == there[-1] and confidence[place] < p_tar
            exits[place] += 1
            right[place] += answers[max(there, key=confidence.get) if undecided else place][1]
            reaching = [count + (confidence.get(k, -1) >= p_tar) for k, count in enumerate(reaching)]
        records, images = exit_rates[policy, kind, level, p_tar], sum(exits)
        where = (policy, kind, level)
        assert [records[k]["exits"] for k in (1, 2, 3, 4)] == exits, where
        assert same(accuracy[(*where, p_tar)]["overall_accuracy"], sum(right) / images), where
        for k in range(4):
            assert same(records[k + 1]["accuracy"], right[k] / exits[k] if exits[k] else None), where
        for k in there[:-1]:
            assert same(records[k + 1]["independent_rate"], reaching[k] / images), where


# ---- one view and another -------------------------------------------------------------------------------


def test_the_oracle_is_the_matching_expert(accuracy):
    compared = 0
    for (policy, kind, level, p_tar), record in accuracy.items():
        if policy == kind:
            assert {**accuracy["oracle", kind, level, p_tar], "policy": kind} == record
            compared += 1
    assert compared > 101


def test_the_classifiers_cost_is_the_difference_of_two_policies(read, accuracy, offloading):
    for (kind, level, p_tar), record in read("classifier_cost", "kind", "level", "p_tar").items():
        oracle, classifier = ((policy, kind, level, p_tar) for policy in ("oracle", "classifier"))
        accuracies = [accuracy[point]["overall_accuracy"] for point in (oracle, classifier)]
        offloaded = [offloading[point]["offloading_probability"] for point in (oracle, classifier)]
        assert [record["oracle_accuracy"], record["classifier_accuracy"]] == accuracies
        assert same(record["accuracy_cost"], accuracies[0] - accuracies[1])
        assert same(record["offloading_cost"], offloaded[1] - offloaded[0])


def test_the_classifier_sees_every_image_once(read, seen):
    shares, images = defaultdict(float), defaultdict(int)
    for (kind, level, _), record in read("classifier_confusion", "kind", "level", "predicted").items():
        shares[kind, level] += record["share"]
        images[kind, level] += record["images"]
    assert images == {condition: len(of) for condition, of in seen.items()}
    assert all(same(share, 1) for share in shares.values())


def test_reliability_is_about_every_image_and_its_bins_add_up_to_the_exits_accuracy(read, says):
    images, right = defaultdict(int), defaultdict(float)
    columns = ("expert", "kind", "level", "exit", "calibrated")
    for (*of, _), record in read("reliability", *columns, "bin").items():
        images[tuple(of)] += record["images"]
        right[tuple(of)] += record["images"] * record["accuracy"]
    assert {expert for expert, *_ in images} >= {"pristine", "gaussian_blur", "gaussian_noise"}
    assert images == {
        (*of, number, calibrated): len(said)
        for of, said in says.items()
        if (*of, 1, 1) in images
        for number in ALL_EXITS
        for calibrated in (0, 1)
    }
    for (*of, number, calibrated), count in right.items():
        expected = sum(answers[number - 1][1] for answers in says[tuple(of)].values())
        assert count == pytest.approx(expected, abs=1e-9), (of, number, calibrated)


def test_calibration_errors_are_those_of_the_reliability_bins(read, says):
    errors, bins = (
        defaultdict(float),
        read("reliability", "expert", "kind", "level", "exit", "calibrated", "bin"),
    )
    for (*of, _), record in bins.items():
        errors[tuple(of)] += record["images"] * abs(record["accuracy"] - record["mean_confidence"])
    for point, record in read("calibration", "expert", "kind", "level", "exit").items():
        assert record["images"] == len(says[point[:-1]])
        for calibrated, name in ((0, "ece_before"), (1, "ece_after")):
            assert record[name] == pytest.approx(errors[(*point, calibrated)] / record["images"], abs=1e-9)


def test_float32_says_what_the_prediction_says_and_agrees_with_itself(read, says):
    """One pass in a process of its own batch says the same on a CPU, to the bit."""
    found = read("payload_accuracy", "payload", "expert", "kind", "level")
    for (payload, *of), record in found.items():
        said = says[tuple(of)]
        assert record["images"] == len(said)
        if payload == "float32":
            assert record["agreement"] == 1
            assert same(record["final_accuracy"], sum(answers[3][1] for answers in said.values()) / len(said))
    assert {payload for payload, *_ in found} == {"json", "float32", "float16", "uint8"}


def test_latencies_are_sums_of_their_parts_for_as_many_as_are_offloaded(read, offloading):
    found = read("latency", *CONDITION, "p_tar", "network", "payload")
    assert {point[:4] for point in found} == {point for point in offloading if point[3] == 0.8}
    for (policy, kind, level, p_tar, *_), record in found.items():
        expected = offloading[policy, kind, level, p_tar]["offloading_probability"]
        assert same(record["offloading_probability"], expected)
        parts = [record[f"{part}_seconds"] for part in ("classifier", "edge", "link", "cloud")]
        assert record["mean_seconds"] == pytest.approx(sum(parts))
        assert (record["classifier_seconds"] > 0) == (policy in ("classifier", "edge-only"))
        assert (record["link_seconds"] > 0) == (expected > 0)
        assert record["p50_seconds"] <= record["p95_seconds"]


def test_more_time_misses_fewer_deadlines_and_none_fewer_than_the_wrong_batches(read):
    missed, outages = defaultdict(list), read("outage", *CONDITION, "p_tar")
    found = read("deadlines", *CONDITION, "p_tar", "network", "t_tar_seconds")
    for point in sorted(found):
        missed[point[:-1]].append(found[point]["missed"])
    for (*point, _), of in missed.items():
        assert len(of) == 51
        assert all(after <= before for before, after in itertools.pairwise(of)), point
        assert of[0] == 1  # nothing takes no time
        assert of[-1] >= outages[tuple(point)]["overall_outage"] - 1e-12, point


def test_our_side_of_the_comparison_with_the_paper_is_what_the_other_views_show(read, accuracy, offloading):
    for point, record in read("paper_comparison", *CONDITION, "p_tar").items():
        ours = accuracy[point] | offloading[point]
        for name in ("overall_accuracy", "edge_accuracy", "edge_exit_probability"):
            assert record[name] == ours[name], point

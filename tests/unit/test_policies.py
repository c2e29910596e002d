import re

import pytest

from db.results.views import VIEWS
from early_exit.policies import (
    BASELINES,
    BORROWING,
    CLASSIFIER,
    CLOUD_ONLY,
    EDGE_ONLY,
    ORACLE,
    Policy,
    Rule,
    kind_of_total,
    policies_of,
    policy,
    total_of,
)

KINDS = ("pristine", "gaussian_blur", "gaussian_noise")
TOTALS = ("total_gaussian_blur", "total_gaussian_noise")
EXPERTS = (*KINDS, "generalist", *TOTALS)


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        *((expert, expert) for expert in EXPERTS),
        ("oracle", "gaussian_blur"),
        ("classifier", "gaussian_noise"),
        ("edge-only", "gaussian_noise"),
        ("cloud-only", "pristine"),
    ],
)
def test_the_policy_names_the_expert(name, expert):
    assert policy(name).expert_for(kind="gaussian_blur", predicted="gaussian_noise") == expert


def test_the_oracle_names_the_expert_that_answers_for_a_kind_without_one():
    assert policy("oracle").expert_for("gaussian_noise_clipped") == "gaussian_noise"


@pytest.mark.parametrize("name", ["classifier", "edge-only"])
def test_a_policy_that_asks_the_classifier_needs_what_it_predicts(name):
    with pytest.raises(ValueError, match=f"policy '{name}' needs the kind that the classifier predicts"):
        policy(name).expert_for("pristine")


@pytest.mark.parametrize("name", ["random", "total", "total_", "total_fog", "total_pristine", ""])
def test_a_policy_that_asks_no_expert_is_refused(name):
    with pytest.raises(ValueError, match=f"unknown policy '{name}'"):
        policy(name)


@pytest.mark.parametrize("name", [*EXPERTS, "oracle", "classifier"])
def test_most_policies_have_all_four_exits(name):
    found = policy(name)
    assert (found.exits, found.has_edge, found.has_cloud) == ((1, 2, 3, 4), True, True)


def test_without_a_cloud_there_is_no_final_exit_and_without_an_edge_nothing_else():
    edge_only, cloud_only = policy("edge-only"), policy("cloud-only")
    assert (edge_only.exits, edge_only.has_edge, edge_only.has_cloud) == ((1, 2, 3), True, False)
    assert (cloud_only.exits, cloud_only.has_edge, cloud_only.has_cloud) == ((4,), False, True)


def test_only_the_deployed_system_and_its_edge_wait_for_the_classifier():
    asking = [name for name in (*EXPERTS, *BORROWING) if policy(name).asks_classifier]
    assert asking == ["classifier", "edge-only"]


def test_policies_that_borrow_their_experts_are_those_not_named_after_one():
    assert BORROWING == ("oracle", "classifier", "edge-only", "cloud-only")
    assert policy("gaussian_blur") == Policy("gaussian_blur", asks="gaussian_blur")
    assert [policy(name).asks for name in BORROWING] == [
        Rule.TRUE_KIND,
        *[Rule.PREDICTED_KIND] * 2,
        "pristine",
    ]


def test_a_total_is_known_by_its_name():
    assert tuple(map(total_of, KINDS[1:])) == TOTALS
    assert [kind_of_total(name) for name in EXPERTS] == [*[None] * 4, "gaussian_blur", "gaussian_noise"]


def test_baselines_come_after_the_papers_policies_whatever_their_order():
    paper = (*KINDS, "oracle", "classifier")
    assert policies_of(KINDS, ()) == paper
    assert policies_of(KINDS, ("cloud-only", "total", "edge-only", "generalist")) == (
        *(*paper, "generalist", *TOTALS, "edge-only", "cloud-only"),
    )


def test_every_policy_of_a_run_is_one():
    names = policies_of(KINDS, BASELINES)
    assert [policy(name).name for name in names] == list(names)
    assert set(names) == {*EXPERTS, *BORROWING}


def test_views_name_policies_as_they_are_called_here():
    """`db` does not know the paper, so its SQL spells the names."""
    sql = "\n".join(VIEWS.values())
    named = set(re.findall(r"policy (?:=|<>) '([^']+)'", sql)) | set(re.findall(r"WHEN '([\w-]+-only)'", sql))
    assert named == {EDGE_ONLY, CLOUD_ONLY, ORACLE, CLASSIFIER}

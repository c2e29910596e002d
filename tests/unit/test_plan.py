"""The plan: which jobs there are, who reads whom, and what changes a key."""

import dataclasses
import importlib
import subprocess
import sys
from collections import Counter

import pytest

from early_exit.distortion import distortion
from orchestrator.plan.graph import TooManyJobs
from orchestrator.plan.paper import DatasetShape, plan
from orchestrator.plan.spec import resolve
from tasks.params import STAGES

DATASET = DatasetShape("dataset-digest", 10, {"train": 250, "validation": 60, "test": 110})
RELEASES = dict.fromkeys(("numpy", "opencv", "pillow", "torch", "torchvision"), "1.0")
EXPERTS = ("pristine", "gaussian_blur", "gaussian_noise")
POLICIES = (*EXPERTS, "oracle", "classifier")
JUDGED = {"sweep", "outage", "reliability", "payload-accuracy"}
TIMED = {"latency", "deadlines"}
SMALL = [
    "baselines=[]",
    "levels.gaussian_blur=[1, 3]",
    "levels.gaussian_noise=[20]",
    "hardware=chip",
    "augmentation=paper",
]


def planned(*settings, profile="demo", dataset=DATASET, releases=RELEASES, name="full-paper"):
    return plan(resolve(profile, [*SMALL, *settings], plan=name), dataset, releases)


@pytest.fixture(scope="module")
def small():
    """blur 1 and 3, noise 20; 3 shards of train, 1 of validation, 2 of test."""
    return planned()


def of(plan, stage, **params):
    """Positions of the jobs of a stage with these parameters."""
    return [
        position
        for position, job in enumerate(plan.jobs)
        if job.params.stage == stage and all(getattr(job.params, n) == value for n, value in params.items())
    ]


def ancestors(plan, position, *, orders=False):
    """Everything that a job reads, however far above; with ``orders`` also what it only waits for."""
    seen, stack = set(), [position]
    while stack:
        job = plan.jobs[stack.pop()]
        for parent in (*job.reads, *(job.after if orders else ())):
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return seen


def stages_of(plan, positions):
    return Counter(plan.jobs[position].params.stage for position in positions)


def splits_of(plan, positions):
    return {getattr(plan.jobs[position].params, "split", None) for position in positions} - {None}


def keys(plan):
    return [job.key for job in plan.jobs]


# ---- its size ----------------------------------------------------------------------------------------


def test_planning_ends_as_soon_as_there_are_more_jobs_than_allowed(small):
    spec, jobs = resolve("demo", SMALL), len(small.jobs)
    assert keys(plan(spec, DATASET, RELEASES, most=jobs)) == keys(small)
    with pytest.raises(TooManyJobs, match=f"more than {jobs - 1} jobs"):
        plan(spec, DATASET, RELEASES, most=jobs - 1)


# ---- the graph ----------------------------------------------------------------------------------------


def test_the_number_of_jobs_per_stage_is_that_of_the_paper(small):
    # 4 conditions (pristine 0, blur 1, blur 3, noise 20), 2 test shards, 3 train shards, 1 of validation
    assert stages_of(small, range(len(small.jobs))) == {
        "prepare": 3 + 1 + 2,
        "distort": 3 * 2,  # pristine images are the prepared ones
        "spectra": 3 * (3 + 1) + 4 * 2,
        "train-classifier": 1,
        "classify": 4 * 2,
        "train-backbone": 1,
        # train: 4 pristine views; blur and noise share two of them and add two; one view of validation each
        "features": (4 + 2 + 2) * 3 + 3 * 1 + 4 * 2,
        "train-expert": 3,
        "predict": 3 * 4 * 2,
        "sweep": 5 * 4,
        "outage": 5 * 4,
        "reliability": 3 * 4,
        "payload-accuracy": 3 * 2,  # pristine, blur 3 and noise 20
        "measure": 1,
        "latency": 5 * 4,
        "deadlines": 5 * 4,
    }


def test_parents_come_before_their_children(small):
    for position, job in enumerate(small.jobs):
        assert all(parent < position for parent in (*job.reads, *job.after))
        assert len(set(job.reads)) == len(job.reads)
        assert not set(job.reads) & set(job.after)


def test_no_two_jobs_compute_the_same(small):
    assert len(set(keys(small))) == len(small.jobs)


def test_labels_are_one_readable_line_each(small):
    for job in small.jobs:
        assert job.label.strip() == job.label != ""
        assert job.label.isprintable()


def test_test_images_reach_no_training(small):
    trainings = [
        position
        for stage in ("train-classifier", "train-backbone", "train-expert")
        for position in of(small, stage)
    ]
    assert len(trainings) == 5
    for position in trainings:
        assert splits_of(small, ancestors(small, position, orders=True)) == {"train", "validation"}


def test_a_frozen_backbone_reads_no_image_at_all():
    frozen = planned("backbone.epochs=0")
    (backbone,) = of(frozen, "train-backbone")
    assert ancestors(frozen, backbone, orders=True) == set()


def test_validation_is_read_by_training_only(small):
    of_validation = {
        position
        for stage in ("prepare", "spectra", "features")
        for position in of(small, stage, split="validation")
    }
    readers = {
        job.params.stage
        for position, job in enumerate(small.jobs)
        if of_validation & set(job.reads) and position not in of_validation
    }
    assert readers == {"train-classifier", "train-backbone", "train-expert"}


def test_nothing_learns_from_predictions(small):
    for stage in ("train-classifier", "train-backbone", "train-expert"):
        for position in of(small, stage):
            above = stages_of(small, ancestors(small, position, orders=True))
            assert not ({"predict", "classify", "measure"} | JUDGED | TIMED) & set(above)


def test_every_expert_predicts_on_every_kind_and_level(small):
    found = Counter(
        (job.params.expert, job.params.kind, job.params.level)
        for job in small.jobs
        if job.params.stage == "predict"
    )
    conditions = [("pristine", 0), ("gaussian_blur", 1), ("gaussian_blur", 3), ("gaussian_noise", 20)]
    assert found == {(expert, kind, level): 2 for expert in EXPERTS for kind, level in conditions}


def test_a_prediction_reads_its_own_expert_and_images_of_its_own_condition(small):
    for position in of(small, "predict"):
        params = small.jobs[position].params
        features, expert = small.jobs[position].reads
        assert small.jobs[expert].params.expert == params.expert
        assert small.jobs[features].params.split == "test"
        distorted = [
            small.jobs[p].params
            for p in ancestors(small, features)
            if small.jobs[p].params.stage == "distort"
        ]
        assert [(p.kind, p.level) for p in distorted] == (
            [] if params.kind == "pristine" else [(params.kind, params.level)]
        )


def test_predictions_of_one_condition_cover_every_test_image_once(small):
    for expert in EXPERTS:
        shards = []
        for position in of(small, "predict", expert=expert, kind="gaussian_blur", level=3):
            shards += [
                (p.start, p.stop)
                for p in (small.jobs[i].params for i in ancestors(small, position))
                if p.stage == "prepare" and p.split == "test"
            ]
        assert shards == [(0, 100), (100, 110)]


def test_the_other_experts_start_from_the_pristine_heads(small):
    pristine, *others = of(small, "train-expert")
    assert small.jobs[pristine].params.expert == "pristine"
    assert stages_of(small, small.jobs[pristine].reads) == {"features": 4 * 3 + 1}
    for position in others:
        assert stages_of(small, small.jobs[position].reads) == {"features": 4 * 3 + 1, "train-expert": 1}
        assert pristine in small.jobs[position].reads


def test_half_of_an_experts_training_views_are_undistorted_ones_that_all_share(small):
    pristine, blur, noise = (set(small.jobs[position].reads) for position in of(small, "train-expert"))
    shared = pristine & blur & noise
    assert {small.jobs[position].params.view for position in shared} == {0, 1}
    assert {small.jobs[position].params.kind for position in shared} == {"pristine"}
    own = [
        small.jobs[position].params
        for position in blur - pristine
        if small.jobs[position].params.stage == "features"
    ]
    assert {(p.kind, p.split, p.view, p.share, p.levels) for p in own} == {
        ("gaussian_blur", "train", 2, 1.0, (1, 3)),
        ("gaussian_blur", "train", 3, 1.0, (1, 3)),
        ("gaussian_blur", "validation", 0, 0.5, (1, 3)),
    }


def test_without_augmentation_the_undistorted_views_are_one():
    plain = planned("augmentation=none")
    pristine, blur, noise = (set(plain.jobs[position].reads) for position in of(plain, "train-expert"))
    shared = pristine & blur & noise
    assert {plain.jobs[position].params.view for position in shared} == {0}
    assert stages_of(plain, shared) == {"features": 3}
    assert stages_of(plain, pristine) == {"features": 3 + 1}
    assert stages_of(plain, blur) == {"features": (1 + 2) * 3 + 1, "train-expert": 1}


def test_the_classifier_learns_every_kind_from_train_and_validation(small):
    (position,) = of(small, "train-classifier")
    read = Counter(
        (small.jobs[p].params.split, small.jobs[p].params.kind) for p in small.jobs[position].reads
    )
    assert read == {
        (split, kind): shards
        for split, shards in (("train", 3), ("validation", 1))
        for kind in ("gaussian_blur", "gaussian_noise", "pristine")
    }


@pytest.mark.parametrize("stage", ["sweep", "outage", "latency", "deadlines"])
@pytest.mark.parametrize(
    ("policy", "kind", "level", "experts", "classified"),
    [
        ("pristine", "gaussian_blur", 3, {"pristine"}, 0),
        ("gaussian_blur", "gaussian_noise", 20, {"gaussian_blur"}, 0),
        ("gaussian_noise", "pristine", 0, {"gaussian_noise"}, 0),
        ("oracle", "gaussian_blur", 1, {"gaussian_blur"}, 0),
        ("oracle", "pristine", 0, {"pristine"}, 0),
        ("classifier", "gaussian_noise", 20, set(EXPERTS), 2),
    ],
)
def test_a_policy_reads_the_experts_it_may_ask_and_the_classifier_if_it_uses_it(
    small, stage, policy, kind, level, experts, classified
):
    (position,) = of(small, stage, policy=policy, kind=kind, level=level)
    read = [small.jobs[p].params for p in small.jobs[position].reads]
    predictions = Counter(p.expert for p in read if p.stage == "predict")
    assert predictions == dict.fromkeys(experts, 2)
    assert sum(p.stage == "classify" for p in read) == classified
    assert {(p.kind, p.level) for p in read if p.stage != "measure"} == {(kind, level)}
    assert sum(p.stage == "measure" for p in read) == (stage in ("latency", "deadlines"))


def test_there_is_a_sweep_for_every_policy_and_condition(small):
    found = [
        (job.params.policy, job.params.kind, job.params.level)
        for job in small.jobs
        if job.params.stage == "sweep"
    ]
    assert sorted(found) == sorted(
        (policy, kind, level)
        for policy in POLICIES
        for kind, level in resolve("demo", SMALL).kinds.conditions
    )


def test_latency_is_measured_alone_after_every_prediction(small):
    (measure,) = of(small, "measure")
    above = ancestors(small, measure, orders=True)
    for stage in ("predict", "classify", *JUDGED):
        assert set(of(small, stage)) <= above
    assert stages_of(small, small.jobs[measure].reads) == {
        "prepare": 1,
        "train-backbone": 1,
        "train-expert": 1,
        "train-classifier": 1,
    }
    later = [p for p in range(len(small.jobs)) if p not in above and p != measure]
    assert set(stages_of(small, later)) == TIMED


def test_only_test_images_are_timed(small):
    (measure,) = of(small, "measure")
    images = [
        small.jobs[p].params for p in small.jobs[measure].reads if small.jobs[p].params.stage == "prepare"
    ]
    assert [p.split for p in images] == ["test"]


def test_payloads_are_judged_on_pristine_images_and_the_middle_level_of_each_distortion():
    wide = planned("levels.gaussian_blur=[5, 1, 4, 2, 3]", "levels.gaussian_noise=[5, 10, 20, 30, 40]")
    found = {(job.kind, job.level) for job in (wide.jobs[p].params for p in of(wide, "payload-accuracy"))}
    assert found == {("pristine", 0), ("gaussian_blur", 3), ("gaussian_noise", 20)}


@pytest.mark.parametrize("fidelity", ["corrected", "adapted-batchnorm"])
def test_payloads_are_sent_between_the_experts_own_backbone_and_heads(fidelity):
    whole = planned(f"fidelity={fidelity}")
    for position in of(whole, "payload-accuracy"):
        params, reads = (
            whole.jobs[position].params,
            [whole.jobs[p].params for p in whole.jobs[position].reads],
        )
        adapted = fidelity == "adapted-batchnorm" and params.expert != "pristine"
        networks = ["adapt-expert"] if adapted else ["train-backbone", "train-expert"]
        images = "prepare" if params.kind == "pristine" else "distort"
        assert [read.stage for read in reads] == [images, *networks]
        assert reads[-1].expert == params.expert == params.kind
        assert images == "prepare" or (reads[0].kind, reads[0].level) == (params.kind, params.level)


# ---- kinds --------------------------------------------------------------------------------------------

MORE = ("levels.motion_blur=[9]", "levels.jpeg=[80, 90]", "levels.gaussian_noise_clipped=[20]")


@pytest.fixture(scope="module")
def more():
    """The small plan with motion blur, JPEG, and clipped noise, which the noise expert answers for."""
    return planned(*MORE)


def test_a_kind_of_its_own_brings_an_expert_a_label_and_a_policy(more):
    # 8 conditions: pristine 0, blur 1 and 3, noise 20, clipped noise 20, JPEG 80 and 90, motion blur 9
    counts = stages_of(more, range(len(more.jobs)))
    assert counts["distort"] == 7 * 2
    assert counts["train-expert"] == 5
    assert counts["predict"] == 5 * 8 * 2
    assert counts["sweep"] == counts["outage"] == counts["deadlines"] == 7 * 8
    assert counts["reliability"] == 5 * 8
    assert counts["spectra"] == 5 * (3 + 1) + 8 * 2


def test_the_classifier_tells_apart_the_kinds_with_an_expert_in_alphabetical_order(more, small):
    labels = ("gaussian_blur", "gaussian_noise", "jpeg", "motion_blur", "pristine")
    for stage in ("train-classifier", "classify"):
        assert {more.jobs[p].params.kinds for p in of(more, stage)} == {labels}
        assert {small.jobs[p].params.kinds for p in of(small, stage)} == {
            ("gaussian_blur", "gaussian_noise", "pristine")
        }


def test_a_kind_without_an_expert_is_evaluated_only(more):
    clipped = {"kind": "gaussian_noise_clipped"}
    assert of(more, "train-expert", expert="gaussian_noise_clipped") == []
    assert of(more, "spectra", **clipped) == of(more, "features", **clipped) == []
    assert of(more, "sweep", policy="gaussian_noise_clipped") == []
    assert len(of(more, "classify", **clipped)) == 2
    assert len(of(more, "predict", **clipped)) == 5 * 2


@pytest.mark.parametrize("stage", ["sweep", "outage", "latency", "deadlines"])
def test_the_oracle_asks_the_expert_that_answers_for_a_kind(more, stage):
    for position in of(more, stage, policy="oracle", kind="gaussian_noise_clipped"):
        read = [more.jobs[p].params for p in more.jobs[position].reads]
        experts = {(p.expert, p.kind) for p in read if p.stage == "predict"}
        assert experts == {("gaussian_noise", "gaussian_noise_clipped")}


def test_more_kinds_change_what_the_classifier_sees_and_no_expert_of_the_others(small, more):
    kept = {"train-expert", "features", "predict", "reliability"}
    assert {small.jobs[p].key for stage in kept for p in of(small, stage)} < set(keys(more))
    for stage in ("sweep", "outage"):
        for policy, found in ((p, p != "classifier") for p in POLICIES):
            same = {small.jobs[p].key for p in of(small, stage, policy=policy)} & set(keys(more))
            assert bool(same) is found


def test_the_order_of_the_kinds_in_a_spec_changes_no_key(more):
    assert keys(planned(*reversed(MORE))) == keys(more)


@pytest.mark.parametrize(
    ("kind", "stages"),
    [
        ("gaussian_noise", {"distort", "spectra", "features"}),
        ("gaussian_noise_clipped", {"distort"}),
    ],
)
def test_the_version_of_a_distortion_changes_the_keys_of_what_it_distorts(monkeypatch, more, kind, stages):
    newer = dataclasses.replace(distortion(kind), version=2)
    monkeypatch.setattr(importlib.import_module(f"early_exit.distortions.{kind}"), "DISTORTION", newer)
    distortion.cache_clear()
    other = planned(*MORE)
    monkeypatch.undo()
    distortion.cache_clear()
    changed = {
        (a.params.stage, a.params.kind)
        for a, b in zip(more.jobs, other.jobs, strict=True)
        if a.key != b.key and a.params.stage in ("distort", "spectra", "features")
    }
    assert {stage for stage, of_kind in changed if of_kind == kind} == stages
    # test images reach spectra and features distorted: as pristine ones
    assert {of_kind for _, of_kind in changed} <= {kind, "pristine"}


# ---- baselines ----------------------------------------------------------------------------------------

ALL_BASELINES = 'baselines=["generalist", "total", "edge-only", "cloud-only"]'


@pytest.fixture(scope="module")
def compared():
    """The small plan with all baselines."""
    return planned(ALL_BASELINES)


def test_baselines_change_no_other_job(small, compared):
    timed = {"measure", *TIMED}  # what is measured comes after all results
    assert {job.key for job in small.jobs if job.params.stage not in timed} <= set(keys(compared))


def test_edge_only_and_cloud_only_train_and_predict_nothing(small):
    cut = planned('baselines=["edge-only", "cloud-only"]')
    counts, once = (stages_of(p, range(len(p.jobs))) for p in (cut, small))
    more = {stage: counts[stage] - once[stage] for stage in counts if counts[stage] != once[stage]}
    assert more == {"sweep": 2 * 4, "outage": 2 * 4, "latency": 2 * 4, "deadlines": 2 * 4}


def test_a_generalist_runs_the_backbone_on_no_more_images(small):
    mixed = planned("baselines=generalist")
    counts, once = (stages_of(p, range(len(p.jobs))) for p in (mixed, small))
    assert counts["features"] == once["features"]
    assert (counts["train-expert"], counts["predict"]) == (4, 4 * 4 * 2)


def test_the_generalist_learns_from_the_views_of_all_kinds_and_starts_from_the_pristine_heads(compared):
    (generalist,) = of(compared, "train-expert", expert="generalist")
    own, pristine = (
        set(compared.jobs[position].reads)
        for position in (generalist, *of(compared, "train-expert", expert="pristine"))
    )
    blur, noise = (
        set(compared.jobs[position].reads)
        for kind in ("gaussian_blur", "gaussian_noise")
        for position in of(compared, "train-expert", expert=kind)
    )
    assert compared.jobs[generalist].params.kinds == ("gaussian_blur", "gaussian_noise")
    assert own == blur | noise
    assert {compared.jobs[position].params.view for position in own & pristine} == {0, 1}


def test_all_layers_are_trained_from_the_pristine_network_on_images(compared):
    totals = [compared.jobs[position] for position in of(compared, "adapt-expert")]
    assert [(job.params.expert, job.params.kinds, job.params.levels) for job in totals] == [
        ("total_gaussian_blur", ("gaussian_blur",), ((1, 3),)),
        ("total_gaussian_noise", ("gaussian_noise",), ((20,),)),
    ]
    for job in totals:
        assert job.params.backbone_learning_rate == 1.5e-4
        assert stages_of(compared, job.reads) == {"train-backbone": 1, "train-expert": 1, "prepare": 3 + 1}
        assert splits_of(compared, job.reads) == {"train", "validation"}


def test_every_baseline_is_evaluated_on_every_kind_and_level(compared):
    conditions = resolve("demo", SMALL).kinds.conditions
    for expert in ("generalist", "total_gaussian_blur", "total_gaussian_noise"):
        for stage in ("predict", "reliability"):
            found = [compared.jobs[p].params for p in of(compared, stage, expert=expert)]
            assert {(params.kind, params.level) for params in found} == set(conditions)
    for policy in ("generalist", "total_gaussian_blur", "total_gaussian_noise", "edge-only", "cloud-only"):
        for stage in ("sweep", "outage", "latency", "deadlines"):
            found = [compared.jobs[p].params for p in of(compared, stage, policy=policy)]
            assert {(params.kind, params.level) for params in found} == set(conditions)


def test_test_images_pass_the_backbone_that_was_trained_with_the_heads(compared):
    for position in of(compared, "predict", expert="total_gaussian_blur"):
        features, expert = compared.jobs[position].reads
        assert compared.jobs[expert].params.expert == "total_gaussian_blur"
        assert expert in compared.jobs[features].reads
    for position in of(compared, "predict", expert="generalist"):
        features, _ = compared.jobs[position].reads
        assert "train-backbone" in stages_of(compared, compared.jobs[features].reads)


@pytest.mark.parametrize("stage", ["sweep", "outage", "latency", "deadlines"])
def test_edge_only_asks_whom_the_classifier_names_and_cloud_only_the_pristine_expert(compared, stage):
    of_policy = {
        policy: of(compared, stage, policy=policy, kind="gaussian_noise", level=20)
        for policy in ("classifier", "edge-only", "pristine", "cloud-only")
    }
    reads = {
        policy: {read for position in positions for read in compared.jobs[position].reads}
        for policy, positions in of_policy.items()
    }
    assert reads["edge-only"] == reads["classifier"]
    assert reads["cloud-only"] == reads["pristine"]


def test_where_batchnorm_adapts_the_generalist_has_one_of_its_own():
    adapted = planned("fidelity=adapted-batchnorm", "baselines=generalist")
    assert [adapted.jobs[p].params.expert for p in of(adapted, "train-expert")] == ["pristine"]
    (position,) = of(adapted, "adapt-expert", expert="generalist")
    params = adapted.jobs[position].params
    assert (params.kinds, params.levels) == (("gaussian_blur", "gaussian_noise"), ((1, 3), (20,)))
    assert params.backbone_learning_rate == 0.0


def test_the_rate_of_all_layers_changes_total_and_nothing_but_what_reads_it(compared):
    other = planned(ALL_BASELINES, "total_learning_rate=1e-3")
    changed = {
        getattr(a.params, "policy", getattr(a.params, "expert", None))
        for a, b in zip(compared.jobs, other.jobs, strict=True)
        if a.key != b.key
    }
    assert changed == {"total_gaussian_blur", "total_gaussian_noise", None}  # None: their features


# ---- seeds --------------------------------------------------------------------------------------------


def test_seeds_share_what_no_seed_touches(small):
    both = planned("seeds=[0, 1]")
    counts, once = (stages_of(p, range(len(p.jobs))) for p in (both, small))
    twice = ("train-backbone", "train-classifier", "classify", "train-expert", "predict", *JUDGED, *TIMED)
    assert {stage: counts[stage] for stage in twice} == {stage: 2 * once[stage] for stage in twice}
    assert counts["prepare"] == once["prepare"]
    assert counts["distort"] == 4 + 2 * 2  # two levels of blur in two shards, noise once per seed
    assert counts["measure"] == 1


def test_results_stand_under_their_seed_and_what_is_shared_under_none():
    both = planned("seeds=[0, 1]")
    for stage, seeds in (("sweep", {0: 20, 1: 20}), ("latency", {0: 20, 1: 20}), ("prepare", {None: 6})):
        variants = [both.jobs[position].variant for position in of(both, stage)]
        assert Counter(variant and variant.seed for variant in variants) == seeds


def test_a_seed_alone_and_beside_others_has_the_same_keys_but_for_times(small):
    both = planned("seeds=[0, 1]")
    assert set(keys(small)) <= set(keys(both))
    measured = {"measure", *TIMED}
    assert {job.key for job in planned("seeds=1").jobs if job.params.stage not in measured} <= set(keys(both))


# ---- fidelity ------------------------------------------------------------------------------------------


def test_fidelities_share_what_they_compute_alike(small):
    both = planned('fidelity=["corrected", "fixed-order"]')
    assert set(keys(small)) <= set(keys(both))
    counts, once = (stages_of(p, range(len(p.jobs))) for p in (both, small))
    assert (counts["features"], counts["spectra"]) == (once["features"], once["spectra"])
    assert counts["train-expert"] == 2 * once["train-expert"]
    names = Counter(both.jobs[position].variant.fidelity for position in of(both, "sweep"))
    assert names == {"corrected": 20, "fixed-order": 20}


def test_measurements_of_several_fidelities_come_one_after_another():
    both = planned('fidelity=["corrected", "released"]')
    first, second = of(both, "measure")
    assert set(both.jobs[first].after) == {position for stage in JUDGED for position in of(both, stage)}
    assert both.jobs[second].after == (first,)


def test_nothing_runs_beside_the_last_of_several_measurements():
    both = planned('fidelity=["corrected", "released"]')
    last = of(both, "measure")[-1]
    for stage in TIMED:
        for position in of(both, stage):
            assert last in (*both.jobs[position].reads, *both.jobs[position].after)


def test_squashed_images_are_those_of_training_only():
    released = planned("fidelity=squashed-resize")
    resized = {released.jobs[p].params.split: released.jobs[p].params.resize for p in of(released, "prepare")}
    assert resized == {"train": "squash", "validation": "margin", "test": "margin"}


def test_the_papers_backbone_trains_on_pristine_images_and_the_frozen_one_beside_it_on_none():
    both = planned('fidelity=["corrected", "frozen-backbone"]', "weights=abc", profile="paper")
    trained, frozen = of(both, "train-backbone")
    assert both.jobs[trained].reads == (
        *of(both, "prepare", split="train"),
        *of(both, "prepare", split="validation"),
    )
    assert both.jobs[trained].params.augmented
    assert both.jobs[frozen].reads == ()
    assert {both.jobs[p].params.weights for p in (trained, frozen)} == {"abc"}
    (photos,) = of(alone := planned("weights=abc", profile="photos"), "train-backbone")
    assert both.jobs[frozen].key == alone.jobs[photos].key


def test_every_result_of_a_fidelity_comes_from_its_own_backbone():
    both = planned('fidelity=["corrected", "frozen-backbone"]', "weights=abc", profile="paper")
    backbones = dict(zip(("corrected", "frozen-backbone"), of(both, "train-backbone"), strict=True))
    for position in (*of(both, "predict"), *of(both, "payload-accuracy"), *of(both, "measure")):
        read = ancestors(both, position) & set(backbones.values())
        assert read == {backbones[both.jobs[position].variant.fidelity]}


def test_with_an_adapting_batchnorm_every_expert_has_test_vectors_of_its_own(small):
    adapted = planned("fidelity=adapted-batchnorm")
    assert len(of(adapted, "adapt-expert")) == 2
    assert len(of(adapted, "train-expert")) == 1
    tested, once = (len(of(p, "features", split="test")) for p in (adapted, small))
    assert tested == 3 * once
    for position in of(adapted, "predict", expert="gaussian_blur"):
        stages = stages_of(adapted, adapted.jobs[position].reads)
        assert stages == {"features": 1, "adapt-expert": 1}


def test_released_spectra_are_of_images_prepared_at_their_own_size():
    released = planned("fidelity=released-spectra", "spectrum_size=48")
    for position in of(released, "spectra", split="train"):
        (read,) = released.jobs[position].reads
        assert (released.jobs[read].params.resize, released.jobs[read].params.image_size) == ("plain", 48)
        assert released.jobs[position].params.form == "released-training"
    assert len(of(released, "spectra", split="test", form="released-edge")) == 8


# ---- steps of the paper --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("distorted-dataset", {"prepare": 2, "distort": 6}),
        ("spectra", {"prepare": 6, "distort": 6, "spectra": 20}),
        ("distortion-classifier", {"train-classifier": 1, "classify": 8}),
        ("experts", {"train-backbone": 1, "features": 27, "train-expert": 3}),
        ("accuracy", {"predict": 24, "sweep": 20, "classify": 8, "reliability": 12, "outage": 20}),
        ("offloading", {"predict": 24, "sweep": 20, "reliability": 0, "outage": 0}),
        ("latency", {"measure": 1, "latency": 20, "deadlines": 20, "payload-accuracy": 6, "sweep": 0}),
    ],
)
def test_a_step_is_the_whole_papers_graph_cut_short(small, name, stages):
    cut = planned(name=name)
    counts = stages_of(cut, range(len(cut.jobs)))
    assert {stage: counts[stage] for stage in stages} == stages
    assert set(keys(cut)) <= set(keys(small))
    for position, job in enumerate(cut.jobs):
        whole = small.jobs[keys(small).index(job.key)]
        assert [cut.jobs[parent].key for parent in job.reads] == [small.jobs[p].key for p in whole.reads]
        assert all(parent < position for parent in (*job.reads, *job.after))


def test_a_step_holds_nothing_that_its_targets_do_not_need():
    cut = planned(name="experts")
    assert set(stages_of(cut, range(len(cut.jobs)))) == {
        "prepare",
        "train-backbone",
        "features",
        "train-expert",
    }
    assert splits_of(cut, range(len(cut.jobs))) == {"train", "validation"}


def test_what_stood_after_a_job_that_is_cut_off_stands_after_its_parents():
    cut = planned(name="latency")
    (measure,) = of(cut, "measure")
    assert set(of(cut, "predict")) | set(of(cut, "classify")) <= set(cut.jobs[measure].after)


def test_pristine_test_images_belong_to_the_distorted_dataset():
    cut = planned(name="distorted-dataset")
    assert (
        cut.targets == {*of(cut, "prepare", split="test"), *of(cut, "distort")} == set(range(len(cut.jobs)))
    )


def test_the_whole_paper_is_not_cut(small):
    assert set(stages_of(small, range(len(small.jobs)))) == set(STAGES) - {"adapt-expert"}


# ---- keys ---------------------------------------------------------------------------------------------


def changed_stages(one, other):
    """Stages whose keys are not those of the other plan; both have the same jobs in the same order."""
    assert [job.params.stage for job in one.jobs] == [job.params.stage for job in other.jobs]
    return {a.params.stage for a, b in zip(one.jobs, other.jobs, strict=True) if a.key != b.key}


EXPERT_AND_BELOW = {"train-expert", "predict", "measure", *JUDGED, *TIMED}
BACKBONE_AND_BELOW = {"train-backbone", "features", *EXPERT_AND_BELOW}
CLASSIFIER_AND_BELOW = {"train-classifier", "classify", "sweep", "outage", "measure", *TIMED}
ALL = set(STAGES) - {"adapt-expert"}


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("p_tar=0.7", TIMED),
        ("payload=float32", {"deadlines"}),
        ("measurement.repeats=100", {"measure", *TIMED}),
        ("hardware=another chip", {"measure", *TIMED}),
        ("expert.epochs=11", EXPERT_AND_BELOW),
        ("expert.learning_rate=0.02", EXPERT_AND_BELOW),
        ("classifier.epochs=6", CLASSIFIER_AND_BELOW),
        ("spectrum_size=48", CLASSIFIER_AND_BELOW | {"spectra"}),
        ("backbone.epochs=4", BACKBONE_AND_BELOW),
        ("architecture.width=0.75", BACKBONE_AND_BELOW),
        ("training.threads=2", BACKBONE_AND_BELOW | CLASSIFIER_AND_BELOW),
        ("image_size=48", ALL),
        ("device=cuda", BACKBONE_AND_BELOW | CLASSIFIER_AND_BELOW),
        # nothing is drawn when images are prepared; blur draws nothing, noise does
        ("seeds=1", ALL - {"prepare"}),
        # the split reaches the plan through the dataset's digest
        ("split_seed=1", set()),
        ("synthetic.seed=1", set()),
    ],
)
def test_a_setting_changes_the_keys_of_what_depends_on_it_and_no_others(small, setting, changed):
    assert changed_stages(small, planned(setting)) == changed


def test_the_classifiers_training_changes_no_policy_that_does_not_use_it(small):
    other = planned("classifier.epochs=6")
    changed = {
        a.params.policy
        for a, b in zip(small.jobs, other.jobs, strict=True)
        if a.params.stage == "sweep" and a.key != b.key
    }
    assert changed == {"classifier"}


def test_the_seed_changes_no_distortion_that_draws_nothing(small):
    other = planned("seeds=1")
    changed = {
        a.params.kind
        for a, b in zip(small.jobs, other.jobs, strict=True)
        if a.params.stage == "distort" and a.key != b.key
    }
    assert changed == {"gaussian_noise"}


def test_a_frozen_backbone_is_the_same_on_every_device_for_every_seed_and_number_of_threads():
    frozen = ("backbone.epochs=0",)
    one, other = planned(*frozen), planned(*frozen, "device=cuda", "seeds=7", "training.threads=4")
    (position,) = of(one, "train-backbone")
    assert one.jobs[position].key == other.jobs[position].key


@pytest.mark.parametrize("setting", ["batch_size=8", "learning_rate=0.1", "schedule=constant", "patience=3"])
def test_how_a_frozen_backbone_would_be_trained_changes_no_key(setting):
    frozen = planned("backbone.epochs=0")
    assert keys(planned("backbone.epochs=0", f"backbone.{setting}")) == keys(frozen)


def test_another_dataset_changes_every_key_but_that_of_a_frozen_backbone():
    other = dataclasses.replace(DATASET, digest="other-digest")
    assert changed_stages(planned(), planned(dataset=other)) == ALL
    frozen = ("backbone.epochs=0",)
    assert changed_stages(planned(*frozen), planned(*frozen, dataset=other)) == ALL - {"train-backbone"}


def test_the_weights_digest_changes_the_backbone_and_what_depends_on_it(small):
    assert changed_stages(small, planned("weights=abc")) == BACKBONE_AND_BELOW


@pytest.mark.parametrize(
    ("library", "changed"),
    [
        ("torchvision", {"train-backbone", "features"} | EXPERT_AND_BELOW),
        ("opencv", ALL - {"prepare", "train-backbone"}),
        ("numpy", ALL),
    ],
)
def test_a_librarys_release_changes_the_stages_that_use_it_and_those_below(small, library, changed):
    assert changed_stages(small, planned(releases=RELEASES | {library: "2.0"})) == changed


def test_a_new_level_adds_jobs_and_keeps_the_keys_of_the_other_levels_test_images(small):
    more = planned("levels.gaussian_noise=[20, 30]")
    kept = {small.jobs[p].key for stage in ("prepare", "distort") for p in of(small, stage)}
    assert kept < set(keys(more))
    assert len(of(more, "distort")) == len(of(small, "distort")) + 2


@pytest.mark.parametrize(
    ("shard_size", "shards"),
    [
        (100, [(0, 100), (100, 110)]),
        (110, [(0, 110)]),
        (37, [(0, 37), (37, 74), (74, 110)]),
        (1000, [(0, 110)]),
    ],
)
def test_shards_cover_a_split_without_overlap(shard_size, shards):
    found = planned(f"shard_size={shard_size}")
    assert [
        (p.start, p.stop) for p in (found.jobs[i].params for i in of(found, "prepare", split="test"))
    ] == shards


def test_shard_size_changes_no_parameter_but_the_ranges_of_prepare():
    def parameters(plan):
        return {job.params for job in plan.jobs if job.params.stage != "prepare"}

    assert parameters(planned("shard_size=37")) == parameters(planned())


def test_planning_twice_gives_the_same_plan(small):
    assert planned().jobs == small.jobs


def test_keys_are_the_same_in_another_process(small):
    """Neither the order of a set, nor the time, the folder or the process enters a key."""
    script = f"""
from orchestrator.plan.paper import DatasetShape, plan
from orchestrator.plan.spec import resolve
dataset = DatasetShape("dataset-digest", 10, {dict(DATASET.split_sizes)!r})
print(*[job.key for job in plan(resolve("demo", {SMALL!r}), dataset, {RELEASES!r}).jobs], sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.split() == keys(small)


def test_profiles_share_what_they_compute_alike():
    one = planned("image_size=64", "shard_size=100", profile="photos")
    other = planned("image_size=64", "shard_size=100", "device=cpu", profile="paper")
    assert one.jobs[0].key == other.jobs[0].key


def test_a_cuda_run_computes_on_the_gpu_what_torch_computes_there():
    queues = {}
    for job in planned("device=cuda").jobs:
        queues.setdefault(job.params.stage, set()).add(job.params.queue)
    on_gpu = {"train-classifier", "train-backbone", "features", "payload-accuracy", "measure"}
    assert queues == {stage: {"gpu" if stage in on_gpu else "cpu"} for stage in ALL}


def test_a_cpu_run_sends_nothing_to_the_gpu(small):
    assert {job.params.queue for job in small.jobs} == {"cpu"}


# ---- its weight ---------------------------------------------------------------------------------------


EVERY_KIND = f"""
from early_exit.distortion import distortion, known
from orchestrator.plan.paper import DatasetShape, plan
from orchestrator.plan.spec import resolve
levels = [f"levels.{{kind}}=[{{distortion(kind).levels[-1]}}]" for kind in known()]
plan(resolve("demo", levels), DatasetShape("d", 10, {dict(DATASET.split_sizes)!r}), {RELEASES!r})
"""


@pytest.mark.parametrize(
    "code",
    [
        "import orchestrator.plan.paper",
        "import orchestrator.plan.spec",
        "import tasks.params",
        pytest.param(EVERY_KIND, id="a plan with every distortion there is"),
    ],
)
def test_planning_loads_no_heavy_library(code):
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"torch", "torchvision", "cv2", "celery", "kombu", "sqlalchemy", "PIL", "pandas"}
    assert not heavy & set(done.stdout.split())

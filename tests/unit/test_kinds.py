import pytest

from early_exit.kinds import Kinds

PAPER = {"gaussian_blur": (1, 2), "gaussian_noise": (5,)}


def test_the_papers_kinds_have_the_papers_order():
    kinds = Kinds(PAPER)
    assert kinds.labels == ("gaussian_blur", "gaussian_noise", "pristine")  # 0 blur, 1 noise, 2 pristine
    assert kinds.experts == ("pristine", "gaussian_blur", "gaussian_noise")
    assert kinds.policies == (*kinds.experts, "oracle", "classifier")
    assert kinds.conditions == [
        ("pristine", 0),
        ("gaussian_blur", 1),
        ("gaussian_blur", 2),
        ("gaussian_noise", 5),
    ]


def test_kinds_stand_in_alphabetical_order_wherever_they_are_named_first():
    kinds = Kinds({"motion_blur": [5], **PAPER, "jpeg": [90]})
    assert kinds.labels == ("gaussian_blur", "gaussian_noise", "jpeg", "motion_blur", "pristine")
    assert kinds.experts == ("pristine", "gaussian_blur", "gaussian_noise", "jpeg", "motion_blur")
    assert [kind for kind, _ in kinds.conditions][-2:] == ["jpeg", "motion_blur"]


def test_a_kind_that_another_expert_answers_for_has_conditions_but_no_expert_label_or_policy():
    kinds, paper = Kinds(PAPER | {"gaussian_noise_clipped": (5, 40)}), Kinds(PAPER)
    assert kinds.conditions == [
        *paper.conditions,
        ("gaussian_noise_clipped", 5),
        ("gaussian_noise_clipped", 40),
    ]
    assert (kinds.experts, kinds.labels, kinds.policies) == (paper.experts, paper.labels, paper.policies)


def test_baselines_add_policies_but_no_label_and_no_expert_of_the_papers():
    paper, every = Kinds(PAPER), Kinds(PAPER, ("cloud-only", "total", "edge-only", "generalist"))
    assert len(every.policies) == len(paper.policies) + 5
    assert (every.experts, every.labels) == (paper.experts, paper.labels)


def test_the_generalist_learns_every_kind_with_an_expert_and_the_others_their_own():
    kinds = Kinds(PAPER | {"gaussian_noise_clipped": (5,)}, ("generalist",))
    assert kinds.learned == {
        "pristine": (),
        "gaussian_blur": ("gaussian_blur",),
        "gaussian_noise": ("gaussian_noise",),
        "generalist": ("gaussian_blur", "gaussian_noise"),
    }
    assert "generalist" not in Kinds(PAPER).learned


def test_all_layers_are_trained_for_one_kind_each():
    assert Kinds(PAPER, ("total",)).totals == {
        "total_gaussian_blur": "gaussian_blur",
        "total_gaussian_noise": "gaussian_noise",
    }
    assert Kinds(PAPER).totals == {}


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        ({"gaussian_blur": ()}, "gaussian_blur needs at least one level"),
        ({"gaussian_blur": (2, 2)}, "gaussian_blur lists a level twice"),
        ({"gaussian_blur": (0,)}, "gaussian_blur: its levels are 1 to 255"),
        ({"fog": (1,)}, "unknown distortion kind 'fog'"),
        (
            {"gaussian_blur": (1,), "gaussian_noise_clipped": (20,)},
            "gaussian_noise_clipped is answered by the expert of gaussian_noise, which has no levels here",
        ),
    ],
)
def test_levels_that_make_no_run_are_refused(levels, reason):
    with pytest.raises(ValueError, match=reason):
        Kinds(levels).check()

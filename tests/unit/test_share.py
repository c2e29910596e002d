"""The options for a run's share of the workers."""

import pytest

from orchestrator.errors import UsageError
from orchestrator.runs.share import EQUAL, Share, typed_share


@pytest.mark.parametrize(
    ("priority", "typed", "share"),
    [
        (None, [], EQUAL),
        (5, [], Share(5, None)),
        (None, ["8"], Share(None, {"": 8})),
        (2, ["8", "features=4", "train-expert=1"], Share(2, {"": 8, "features": 4, "train-expert": 1})),
    ],
)
def test_a_limit_is_of_all_stages_or_of_one(priority, typed, share):
    assert typed_share(priority, typed) == share


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("feature=4", "--max-running 'feature=4': unknown stage 'feature'. Did you mean 'features'?"),
        *(
            (text, f"--max-running '{text}': expected N or STAGE=N, N being 1 or more.")
            for text in ("0", "-1", "1.5", "", "many", "features=0", "features=", "²")
        ),
    ],
)
def test_a_limit_that_cannot_be_is_answered_with_what_can(typed, message):
    with pytest.raises(UsageError) as refused:
        typed_share(None, [typed])
    assert str(refused.value) == message


def test_what_was_not_asked_for_is_not_set():
    assert EQUAL.columns == {}
    assert Share(3).columns == {"priority": 3}
    assert Share(None, {"": 2}).columns == {"limits": {"": 2}}

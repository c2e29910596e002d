"""A training whose loss leaves every bound: it fails once, by its epoch, and the rest of the run goes on."""

import pytest

DIVERGING = {"expert.learning_rate": 1e6, "classifier.epochs": 2}
"""The classifier is retrained beside it: a sibling."""


@pytest.fixture(scope="module")
def diverged(copy_of, in_process, small):
    """A home that has the small paper, and the submit of the same with experts that diverge: run 2."""
    home = copy_of(in_process.home)
    return home, home.command("submit", "full-paper", "--in-process", *small(DIVERGING))


def test_it_fails_at_its_first_attempt_and_names_its_epoch(diverged):
    home, _ = diverged
    failed = "SELECT label, attempt, failures, error FROM jobs WHERE run_id = 2 AND state = 'failed'"
    ((label, attempt, failures, error),) = home.rows(failed)
    assert (label, attempt, failures) == ("pristine", 1, 1)
    assert error.startswith("diverged in epoch 1: the loss is ")
    assert error.endswith("Lower the learning rate.")


def test_it_is_reported_in_one_line_and_the_run_has_failed(diverged):
    _, output = diverged
    (line,) = [line for line in output.stdout.splitlines() if line.startswith("failed: ")]
    assert line.startswith("failed: train-expert (pristine): diverged in epoch 1: ")
    assert output.returncode == 1
    assert "Traceback" not in output.stdout + output.stderr


def test_its_siblings_finish_and_what_depends_on_it_is_skipped(diverged):
    home, _ = diverged
    states = "SELECT DISTINCT state FROM jobs WHERE run_id = 2 AND stage = ?"
    for stage in ("train-classifier", "classify"):
        assert home.rows(states, stage) == [("succeeded",)]
    for stage in ("predict", "sweep", "measure", "latency"):
        assert home.rows(states, stage) == [("skipped",)]
    assert home.computed_stages(2)["train-classifier"] == 1
    assert list((home.path / "artifacts" / "checkpoints").iterdir()) == []

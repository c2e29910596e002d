"""The table of a run's jobs: a column for every way in which jobs stand, and none of two ways at once."""

from db.models import JobState, RunState
from orchestrator.runs.progress import Standing, table

ALWAYS = ["done", "running", "queued", "waiting", "failed", "jobs"]


def shown(counts):
    """{stage: {heading: cell}}."""
    columns = table(1, Standing(RunState.FAILED, counts)).columns
    headings, cells = [column.header for column in columns], [list(column.cells) for column in columns]
    return {stage: dict(zip(headings[1:], row, strict=True)) for stage, *row in zip(*cells, strict=True)}


def test_a_failed_job_is_told_from_those_that_were_skipped_for_it_and_those_that_were_cancelled():
    found = shown(
        {
            "train-expert": {JobState.FAILED: 1, JobState.CANCELLED: 2},
            "predict": {JobState.SKIPPED: 24, JobState.SUCCEEDED: 3},
        }
    )
    assert list(found["predict"]) == [*ALWAYS[:-1], "cancelled", "skipped", "jobs"]
    trained, predicted = (
        {heading: cell for heading, cell in found[stage].items() if cell != "·"} for stage in found
    )
    assert trained == {"failed": "1", "cancelled": "2", "jobs": "3"}
    assert predicted == {"done": "3", "skipped": "24", "jobs": "27"}


def test_what_no_job_of_a_run_is_has_no_column_but_for_the_usual_ways():
    assert list(shown({"sweep": {JobState.QUEUED: 2, JobState.READY: 1}})["sweep"]) == ALWAYS
    assert list(shown({"sweep": {JobState.SKIPPED: 2}})["sweep"]) == [*ALWAYS[:-1], "skipped", "jobs"]

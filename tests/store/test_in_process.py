"""Running a run's jobs in this process, which concerns no other run."""

from db.models import JobState, RunState
from orchestrator.submit.in_process import run_in_process
from tasks.code import code_of


def test_jobs_of_other_runs_are_neither_queued_nor_run(add_run, add_artifact, engine, store):
    add_artifact("key-a")
    ours = add_run({"a": []}, columns={"a": {"code": code_of("sweep")}})
    other = add_run({"b": []}, columns={"b": {"code": code_of("sweep")}})
    run_in_process(engine, store, ours.id)
    assert (ours.state, other.state) == (RunState.SUCCEEDED, RunState.ACTIVE)
    assert other.states == {"b": JobState.READY}

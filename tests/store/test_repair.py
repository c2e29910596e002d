"""Healing a run: bad artifacts are made again, and counters that drifted are rebuilt from the graph."""

import pytest
from sqlalchemy import func, select, update

import db.graph
from db.artifacts import StoredFile
from db.engine import read, reading, write, writing
from db.graph import audit, recount
from db.limits import LEASE_SECONDS
from db.models import Artifact, Job, JobState, RunState
from db.recovery import MAX_REPAIRS, expire, is_dead, repair
from db.results.tables import Temperature
from db.runs import active_runs, progress

FILE = StoredFile("files/ab/abcd.safetensors", "abcd", 12)
ROWS = {Temperature: [{"exit": 1, "expert": "pristine", "temperature": 1.5}]}


def set_aside(run, held, position=0):
    return write(run.engine, lambda session: repair(session, held, held.inputs[position]))


def keys(engine):
    with reading(engine) as session:
        return dict(session.execute(select(Artifact.id, Artifact.key)).all())


def test_a_bad_input_is_made_again_before_its_reader_runs(add_run, engine):
    run = add_run({"a": [], "b": ["a"], "c": ["a"]})
    run.do("a", FILE, ROWS)
    bad = run.job("a").artifact_id
    assert set_aside(run, run.claim("b"))
    assert run.states == {"a": JobState.READY, "b": JobState.WAITING, "c": JobState.WAITING}
    assert run.all("waiting_for") == {"a": 0, "b": 1, "c": 1}
    assert run.job("a").artifact_id is None
    assert keys(engine) == {bad: f"key-a:set-aside-{bad}"}
    assert [attempt.outcome for attempt in run.attempts("b")] == ["input set aside"]
    assert (run.job("b").failures, run.job("b").losses) == (0, 0)

    run.do("a", FILE, ROWS)
    assert run.states == {"a": JobState.SUCCEEDED, "b": JobState.READY, "c": JobState.READY}
    assert run.job("a").artifact_id != bad
    assert keys(engine)[run.job("a").artifact_id] == "key-a"
    run.do("b")
    run.do("c")
    assert run.state == RunState.SUCCEEDED


def test_a_reader_that_was_fenced_out_repairs_nothing(add_run, engine, later):
    run = add_run({"a": [], "b": ["a"]})
    run.do("a", FILE)
    held = run.claim("b")
    later(LEASE_SECONDS + 1)
    write(engine, expire)
    assert not set_aside(run, held)
    assert run.states == {"a": JobState.SUCCEEDED, "b": JobState.READY}
    assert list(keys(engine).values()) == ["key-a"]


def test_ancestors_that_have_no_artifact_are_made_again_with_it(add_run, add_artifact):
    # a and b were found unneeded, because c's artifact was there; d was found with its own
    artifacts = {name: add_artifact(f"key-{name}", uri="u", sha256="s") for name in ("c", "d")}
    found = {
        name: {"state": "succeeded", "cached": True, "artifact_id": artifacts.get(name)} for name in "abcd"
    }
    run = add_run({"a": [], "b": ["a"], "d": [], "c": ["b", "d"], "e": ["c"]}, columns=found)
    assert set_aside(run, run.claim("e"))
    assert run.states == {
        "a": JobState.READY,
        "b": JobState.WAITING,
        "c": JobState.WAITING,
        "d": JobState.SUCCEEDED,
        "e": JobState.WAITING,
    }
    assert run.all("waiting_for") == {"a": 0, "b": 1, "d": 0, "c": 1, "e": 1}
    assert run.all("cached") == {"a": False, "b": False, "d": True, "c": False, "e": False}
    for name in "abce":
        run.do(name)
    assert run.state == RunState.SUCCEEDED


def test_finished_runs_still_see_the_rows_that_were_set_aside(add_run, engine):
    finished = add_run({"a": []})
    finished.do("a", FILE, ROWS)
    bad = finished.job("a").artifact_id
    assert finished.state == RunState.SUCCEEDED
    run = add_run({"a": [], "b": ["a"]}, columns={"a": {"state": "succeeded", "artifact_id": bad}})
    set_aside(run, run.claim("b"))
    run.do("a", FILE, ROWS)
    assert finished.states == {"a": JobState.SUCCEEDED}
    assert finished.job("a").artifact_id == bad
    with reading(engine) as session:
        owners = session.scalars(select(Temperature.artifact_id).order_by(Temperature.artifact_id)).all()
    assert owners == [bad, run.job("a").artifact_id]


def test_a_twin_run_makes_the_bad_artifact_again_too_and_only_once(add_run, engine):
    run = add_run({"a": [], "b": ["a"]})
    run.do("a", FILE)
    bad = run.job("a").artifact_id
    twin = add_run(
        {"a": [], "b": ["a"]},
        columns={"a": {"state": "succeeded", "cached": True, "artifact_id": bad}, "b": {"key": "other"}},
    )
    set_aside(run, run.claim("b"))
    for each in (run, twin):
        assert each.states == {"a": JobState.READY, "b": JobState.WAITING}
    run.do("a", FILE)
    assert twin.claim("a") is None  # it finds what the first has made
    assert twin.states == {"a": JobState.SUCCEEDED, "b": JobState.READY}
    assert twin.job("a").artifact_id == run.job("a").artifact_id
    with reading(engine) as session:
        assert session.scalar(select(func.count()).select_from(Artifact)) == 2


def test_any_number_of_a_readers_inputs_may_be_bad(add_run):
    names = [f"input {number}" for number in range(MAX_REPAIRS + 2)]
    run = add_run({**{name: [] for name in names}, "reader": names})
    for name in names:
        run.do(name, FILE)
    for position, name in enumerate(names):
        assert set_aside(run, run.claim("reader"), position)
        run.do(name, FILE)
    run.do("reader")
    assert run.state == RunState.SUCCEEDED


def test_an_input_that_stays_bad_however_often_it_is_made_again_fails_its_reader(add_run):
    run = add_run({"a": [], "b": ["a"]})
    for _ in range(MAX_REPAIRS):
        run.do("a", FILE)
        assert set_aside(run, run.claim("b"))
    run.do("a", FILE)
    assert set_aside(run, run.claim("b"))
    assert run.states == {"a": JobState.SUCCEEDED, "b": JobState.FAILED}
    assert run.job("b").error == (
        f"the file of its input, job {run.jobs['a']}, was bad 11 times; do all workers see the same artifact store?"
    )


def test_two_readers_of_one_bad_input_set_it_aside_once(add_run, engine):
    run = add_run({"a": [], "b": ["a"], "c": ["a"]})
    run.do("a", FILE)
    bad = run.job("a").artifact_id
    first, second = run.claim("b"), run.claim("c")
    assert set_aside(run, first)
    assert set_aside(run, second)
    assert run.states == {"a": JobState.READY, "b": JobState.WAITING, "c": JobState.WAITING}
    assert keys(engine) == {bad: f"key-a:set-aside-{bad}"}


def test_an_input_without_an_artifact_reopens_no_other_job_without_one(add_run):
    # a's reader was running while a was reopened, so it may be claimed again before a is done
    unneeded = {"state": "succeeded", "cached": True}
    run = add_run({"a": [], "b": ["a"], "x": [], "y": ["x"]}, columns={"x": unneeded, "y": unneeded})
    run.set("b", state="ready", waiting_for=0)
    assert set_aside(run, run.claim("b"))
    assert run.states == {
        "a": JobState.READY,
        "b": JobState.WAITING,
        "x": JobState.SUCCEEDED,
        "y": JobState.SUCCEEDED,
    }


def test_a_skipped_child_is_counted_for_a_parent_that_is_made_again(add_run):
    run = add_run({"a": [], "b": [], "c": ["a", "b"], "d": ["a"], "e": ["a"]})
    run.fail(run.claim("b"))
    run.do("a", FILE)
    assert (run.states["c"], run.job("c").waiting_for) == (JobState.SKIPPED, 1)
    for reader in ("d", "e"):
        set_aside(run, run.claim(reader))
        assert (run.states["c"], run.job("c").waiting_for) == (JobState.SKIPPED, 2)
        run.do("a", FILE)
        assert (run.states["c"], run.job("c").waiting_for) == (JobState.SKIPPED, 1)


def test_what_has_its_inputs_goes_on_when_an_input_of_theirs_cannot_be_made_again(add_run):
    run = add_run({"a": [], "x": [], "b": ["a"], "c": ["a"], "d": ["b", "x"]})
    run.do("a", FILE)
    run.do("b", FILE)
    assert set_aside(run, run.claim("c"))
    run.fail(run.claim("a"))
    assert run.states["c"] == JobState.SKIPPED
    run.do("x", FILE)
    run.do("d")
    assert run.state == RunState.FAILED


def test_what_comes_after_a_job_that_is_made_again_waits_for_it_again(add_run):
    run = add_run({"a": [], "b": ["a"], "later": []}, after={"later": ["a"]})
    run.do("a", FILE)
    assert run.states["later"] == JobState.READY
    assert set_aside(run, run.claim("b"))
    assert (run.states["later"], run.job("later").waiting_for) == (JobState.WAITING, 1)
    run.fail(run.claim("a"))
    assert run.states == {"a": JobState.FAILED, "b": JobState.SKIPPED, "later": JobState.READY}


# ---- counters -----------------------------------------------------------------------------------------


@pytest.fixture
def drifted_run(add_run):
    """Of a's children one never heard, one counts a twice, one was released too early."""
    run = add_run({"a": [], "b": [], "late": ["a"], "deaf": ["a", "b"], "early": ["b"], "well": ["b"]})
    run.do("a")
    run.set("late", state="waiting", waiting_for=1)
    run.set("deaf", waiting_for=2)
    run.set("early", state="queued", waiting_for=0)
    return run


def test_recount_rebuilds_counters_that_drifted(drifted_run, engine):
    assert write(engine, lambda session: recount(session, drifted_run.id)) == 3
    assert drifted_run.all("waiting_for") == {"a": 0, "b": 0, "late": 0, "deaf": 1, "early": 1, "well": 1}
    assert drifted_run.states == {
        "a": JobState.SUCCEEDED,
        "b": JobState.READY,
        "late": JobState.READY,
        "deaf": JobState.WAITING,
        "early": JobState.WAITING,
        "well": JobState.WAITING,
    }
    assert write(engine, lambda session: recount(session, drifted_run.id)) == 0


def test_recount_skips_what_waits_for_an_input_that_will_not_come(add_run, engine):
    """As after a failure beside a recount: neither sees what the other does."""
    run = add_run({"a": [], "b": ["a"], "c": ["b"], "x": [], "later": []}, after={"later": ["b", "x"]})
    run.set("b", state="running", lease_until=1e12)
    run.fail(run.claim("a"))
    run.set("b", state="waiting", waiting_for=1, lease_until=None)
    assert read(engine, lambda session: audit(session, run.id, 0)[0]) == [run.jobs["b"]]
    assert write(engine, lambda session: recount(session, run.id)) == 1
    assert (run.states["b"], run.states["c"]) == (JobState.SKIPPED, JobState.SKIPPED)
    assert run.job("c").error == run.job("b").error
    assert (run.states["later"], run.job("later").waiting_for) == (JobState.WAITING, 1)
    assert write(engine, lambda session: recount(session, run.id)) == 0


def test_recount_leaves_other_runs_alone(drifted_run, add_run, engine):
    other = add_run({"x": [], "y": ["x"]})
    other.set("y", waiting_for=5)
    write(engine, lambda session: recount(session, drifted_run.id))
    assert other.job("y").waiting_for == 5


def test_looking_for_drift_waits_for_nobody(drifted_run, engine):
    """Else an audit of a large run would stop all of its workers, and one of them every audit."""
    with writing(engine) as session:
        session.execute(update(Job).values(error="under way"))
        found = read(engine, lambda session: audit(session, drifted_run.id, 0)[0])
    assert set(found) == {drifted_run.jobs[name] for name in ("late", "deaf", "early")}


def test_an_audit_of_a_large_run_goes_on_where_the_last_one_ended(drifted_run, engine, monkeypatch):
    monkeypatch.setattr(db.graph, "AUDITED", 4)
    jobs = drifted_run.jobs
    looks = []
    after = 0
    for _ in range(4):
        wrong, after = read(engine, lambda session, after=after: audit(session, drifted_run.id, after))
        looks.append((wrong, after))
    first, second = ([jobs["late"], jobs["deaf"]], jobs["deaf"]), ([jobs["early"]], jobs["well"])
    assert looks == [first, second, ([], 0), first]


def test_recount_finds_nothing_wrong_with_an_untouched_run(add_run, engine):
    run = add_run({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
    for name in ("a", "b", "c", "d"):
        assert write(engine, lambda session: recount(session, run.id)) == 0
        run.do(name)


# ---- questions ----------------------------------------------------------------------------------------


def test_progress_counts_jobs_by_stage_and_state_in_the_order_of_the_graph(add_run, engine):
    stages = {"a": "prepare", "b": "prepare", "c": "distort", "d": "classify"}
    run = add_run(
        {"a": [], "b": [], "c": ["a"], "d": ["c"]}, columns={n: {"stage": s} for n, s in stages.items()}
    )
    run.do("a")
    run.claim("b")
    with reading(engine) as session:
        counts = progress(session, run.id)
    assert list(counts) == ["prepare", "distort", "classify"]
    assert counts == {
        "prepare": {JobState.SUCCEEDED: 1, JobState.RUNNING: 1},
        "distort": {JobState.READY: 1},
        "classify": {JobState.WAITING: 1},
    }


def test_active_runs_are_listed_oldest_first(add_run, engine):
    first = add_run({"a": []})
    add_run({"b": []}, state="failed", finished_at=1.0)
    last = add_run({"c": []})
    with reading(engine) as session:
        assert active_runs(session) == [first.id, last.id]


def test_only_a_running_attempt_is_alive(add_run, engine):
    run = add_run({"a": []})
    held = run.claim("a")

    def dead(attempt):
        with reading(engine) as session:
            return is_dead(session, run.jobs["a"], attempt)

    assert (dead(1), dead(2)) == (False, True)
    run.finish(held)
    assert dead(1)

"""Any order of what may happen to jobs: a Hypothesis state machine drives ``db`` on SQLite against a model.

The database's clock stands still and moves only where the machine says so. After every step all rows are
what the model predicts; at the end of every example all that is active is driven to its end.
"""

import shutil
import sqlite3
from collections import Counter

import pytest
from harness.fences import fence_off
from harness.model import (
    FAILED,
    PLANS,
    QUEUED,
    READY,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    WAITING,
    Model,
)
from harness.plans import CODES, DATASET, install, made, planned
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

import db.clock
import db.jobs
from db.claims import claim
from db.dispatch import MOST_RINGS, forget_rings, ring_again, top_up
from db.engine import open_engine, write
from db.graph import recount
from db.jobs import Worker, fail, finish, lose, put_back, renew, saved_progress
from db.limits import LEASE_SECONDS
from db.models import OPEN, JobState, RunState
from db.recovery import expire, release_worker, repair
from db.runs import cancel, retry, settle_run
from db.shares import Turns
from orchestrator.plan.spec import resolve
from orchestrator.submit.store import submit

MOMENTS = (13.0, 31.0, 601.0)
"""Longer than any delay, than a lease, than the deadline; no sum of a few of them is equal to one of these."""
NOON = 2_460_000.0
"""The Julian day at which the database's clock stands."""


# ---- the machine --------------------------------------------------------------------------------------

some = st.integers(0, 2**16)
WORKERS = tuple(Worker(f"w{i}", "host", i, CODES) for i in range(3))


class Jobs(RuleBasedStateMachine):
    """Does to the database and to the model the same, and compares what they answer and what they hold."""

    def __init__(self, engine, eyes, spec, counted):
        super().__init__()
        self.engine, self.eyes, self.spec, self.counted = engine, eyes, spec, counted
        self.model, self.held, self.calls, self.turns = Model(), [], Counter(), Turns()
        db.clock.shift_seconds = 0.0
        write(engine, empty)
        for plan in range(len(PLANS)):
            self.submit(plan)

    def call(self, function, *arguments, **options):
        """``function`` of ``db`` in a write transaction; ``IntegrityError`` is an answer."""
        self.counted[function.__name__] += 1
        self.calls[function.__name__] += 1
        try:
            return write(self.engine, lambda session: function(session, *arguments, **options))
        except IntegrityError:
            return IntegrityError

    def same(self):
        """Every row is what the model says."""
        jobs, runs, kept = (self.eyes.execute(statement).fetchall() for statement in (JOBS, RUNS, KEPT))
        assert runs == [(run, it.state) for run, it in self.model.runs.items()]
        assert jobs == [self.expected(*item) for item in self.model.jobs.items()]
        assert {label: id for label, id, _ in kept} == self.model.artifacts
        assert len(kept) == len(self.model.artifacts), "two artifacts of one key"
        assert all(rows == label.isupper() for label, _, rows in kept), "rows written twice, or not at all"

    def expected(self, number, job):
        waits = self.model.unfinished(job) if job.state in (WAITING, SKIPPED) else 0
        counts = (job.attempt, job.failures, job.losses)
        return (number, job.run, job.state, *counts, waits, job.cached, job.artifact)

    def one_job(self, choice, states):
        jobs = [(number, job) for number, job in self.model.jobs.items() if job.state in states]
        return jobs[choice % len(jobs)]

    def one_hold(self, choice):
        """One that still holds its job, one whose job another attempt holds, or any that there ever was."""
        running = [taken for taken in self.held if taken[1].state == RUNNING]
        live = [taken for taken in running if taken[0].attempt == taken[1].attempt]
        late = [taken for taken in running if taken[0].attempt < taken[1].attempt]
        among = (live, late, self.held)[choice % 3] or self.held
        return among[choice // 3 % len(among)]

    def has(self, *states):
        return any(job.state in states for job in self.model.jobs.values())

    def take(self, number, job, worker):
        """Claim a job and compare; the claim is kept, for use at any later time."""
        overtaken, waits = job.overtaken, self.model.unfinished(job)
        held, expected = self.call(claim, number, worker, self.turns), self.model.claim(job)
        if expected is None:
            assert held is None
            return None
        assert held.attempt == expected
        assert not waits or overtaken, "it runs before its parents have succeeded"
        job.overtaken, job.worker = bool(waits), worker.name
        inputs = [(self.model.jobs[source.job_id], source.artifact_id) for source in held.inputs]
        assert inputs == [(parent, parent.artifact) for parent in self.model.parents(job, read=True)]
        self.held.append((held, job, inputs))
        return self.held[-1]

    def compute(self, held, job, inputs):
        """What a worker does with a claim: finish it, or repair an input that is not there."""
        missing = [place for place, (_, artifact) in enumerate(inputs) if artifact is None]
        if missing:
            self.set_aside(held, job, inputs, missing[0])
            return
        owned = self.model.holds(job, held.attempt)
        assert self.call(finish, held, made(job.name)) == owned
        if owned:
            self.model.finish(job)

    def set_aside(self, held, job, inputs, place):
        owned = self.model.holds(job, held.attempt)
        assert self.call(repair, held, held.inputs[place]) == owned
        if owned:
            self.model.repair(job, *inputs[place])

    # ---- what may happen ------------------------------------------------------------------------------

    @rule(plan=st.sampled_from(range(len(PLANS))))
    @precondition(lambda self: len(self.model.runs) < 5)
    def submit(self, plan):
        submission = submit(self.engine, self.spec, planned(plan), 1, f"dataset {plan}")
        active = [
            run for run, it in self.model.runs.items() if it.plan == plan and it.state == RunState.ACTIVE
        ]
        assert submission.attached == bool(active)
        assert submission.run_id == (active[0] if active else len(self.model.runs) + 1)
        if not active:
            self.model.submit(submission.run_id, plan)
        self.same()

    @rule(choice=some, worker=st.sampled_from(WORKERS))
    @precondition(lambda self: self.has(READY, QUEUED))
    def claim_what_is_there(self, choice, worker):
        self.take(*self.one_job(choice, (READY, QUEUED)), worker)
        self.same()

    @rule(choice=some, worker=st.sampled_from(WORKERS))
    @precondition(lambda self: self.has(READY, QUEUED))
    def claim_and_finish(self, choice, worker):
        if taken := self.take(*self.one_job(choice, (READY, QUEUED)), worker):
            self.compute(*taken)
        self.same()

    @rule(choice=some, worker=st.sampled_from(WORKERS))
    def deliver_a_duplicate(self, choice, worker):
        """A message for a job in any state."""
        self.take(*self.one_job(choice, tuple(JobState)), worker)
        self.same()

    @rule(choice=some)
    @precondition(lambda self: self.held)
    def finish_in_time_or_late(self, choice):
        """Of all claims that there ever were."""
        self.compute(*self.one_hold(choice))
        self.same()

    @rule(choice=some, retry=st.booleans())
    @precondition(lambda self: self.held)
    def fail_in_time_or_late(self, choice, retry):
        held, job, _ = self.one_hold(choice)
        owned = self.model.holds(job, held.attempt)
        assert self.call(fail, held, "ValueError: no", "Traceback", retry=retry) == owned
        if owned:
            self.model.fail(job, retry=retry)
        self.same()

    @rule(choice=some)
    @precondition(lambda self: any(inputs for _, _, inputs in self.held))
    def find_an_input_bad(self, choice):
        readers = [taken for taken in self.held if taken[2]]
        held, job, inputs = readers[choice % len(readers)]
        self.set_aside(held, job, inputs, choice % len(inputs))
        self.same()

    @rule(choice=some, how=st.sampled_from((renew, saved_progress, put_back, lose)))
    @precondition(lambda self: self.held)
    def beat_save_give_back_or_lose(self, choice, how):
        held, job, _ = self.one_hold(choice)
        owned = self.model.holds(job, held.attempt)
        arguments = {put_back: ["released"], lose: ["w0"]}.get(how, [])
        assert self.call(how, held, *arguments) == owned
        if owned and how is renew:
            job.lease = self.model.now + LEASE_SECONDS
        elif owned and how is saved_progress:
            job.losses = 0
        elif owned and how is put_back:
            job.state = READY
        elif owned:
            self.model.lose(job)
        self.same()

    @rule(worker=st.sampled_from(WORKERS), charged=st.booleans())
    @precondition(lambda self: self.has(RUNNING))
    def a_worker_crashes(self, worker, charged):
        theirs = [it for it in self.model.jobs.values() if it.state == RUNNING and it.worker == worker.name]
        assert self.call(release_worker, worker.name, charged=charged) == len(theirs)
        for job in theirs:
            if charged:
                self.model.lose(job)
            else:
                job.state = READY
        self.same()

    @rule(seconds=st.sampled_from(MOMENTS), expires=st.booleans())
    def time_passes(self, seconds, expires):
        self.model.now += seconds
        db.clock.shift_seconds = self.model.now
        if expires:
            assert self.call(expire) == self.model.expire()
            self.same()

    @rule(choice=some, worker=st.sampled_from(WORKERS))
    @precondition(lambda self: self.has(RUNNING))
    def an_attempt_is_overtaken(self, choice, worker):
        """Its lease runs out, and the next attempt starts."""
        number, job = self.one_job(choice, (RUNNING,))
        self.time_passes(MOMENTS[1], expires=True)
        self.take(number, job, worker)
        self.same()

    @rule()
    def ring(self):
        computed = {job.name for job in self.model.jobs.values() if job.state == RUNNING}
        due = {
            number: job
            for number, job in self.model.jobs.items()
            if job.state == READY and job.not_before <= self.model.now and job.name not in computed
        }
        assert {bell.job_id for bell in self.call(top_up)} == set(due)
        for job in due.values():
            job.state, job.rung, job.rings = QUEUED, self.model.now, 1
        self.same()

    @rule(what=st.sampled_from(("forget", "ring again", "audit")))
    @precondition(lambda self: self.has(QUEUED))
    def a_reconciler_looks(self, what):
        {"forget": self.forget, "ring again": self.ring_again, "audit": self.audit}[what]()
        self.same()

    def forget(self):
        """The broker is a new one."""
        self.call(forget_rings)
        for job in self.model.jobs.values():
            job.state = READY if job.state == QUEUED else job.state

    def ring_again(self):
        silent = {
            number: job
            for number, job in self.model.jobs.items()
            if job.state == QUEUED and job.rung < self.model.now - 10 * 2 ** (job.rings - 1)
        }
        assert {bell.job_id for bell in self.call(ring_again, 10.0)} == set(silent)
        for job in silent.values():
            job.rung, job.rings = self.model.now, min(job.rings + 1, MOST_RINGS)

    def audit(self):
        active = [run for run, it in self.model.runs.items() if it.state == RunState.ACTIVE]
        for run in active:
            assert self.call(recount, run) == self.model.recount(run), "counters had drifted"
        for run in active:
            self.call(settle_run, run)
            self.model.settle(run)

    @rule(choice=some)
    @precondition(lambda self: self.calls["cancel"] < 2)
    def cancel(self, choice):
        run = 1 + choice % len(self.model.runs)
        assert self.call(cancel, run) == self.model.cancel(run)
        self.same()

    @rule(choice=some)
    @precondition(lambda self: self.has(FAILED, JobState.CANCELLED))
    def retry(self, choice):
        run = 1 + choice % len(self.model.runs)
        assert self.call(retry, run) == self.model.retry(run)
        self.same()

    def teardown(self):
        """Every run that is not cancelled comes to its end once nothing goes wrong any more."""
        for _ in range(60):
            if not self.work_off():
                self.time_passes(31.0, expires=True)
                self.audit()
                self.same()
            if all(run.state != RunState.ACTIVE for run in self.model.runs.values()):
                break
        for run, it in self.model.runs.items():
            states = {job.state for job in self.model.of(run)}
            assert it.state != RunState.ACTIVE, states
            assert not states & set(OPEN)
            assert it.state != RunState.FAILED or FAILED in states
            skipped = [job for job in self.model.of(run) if job.state == SKIPPED]
            assert all(map(self.model.unfinished, skipped)), "skipped, and all that it needs is there"
            assert it.state != RunState.SUCCEEDED or states == {SUCCEEDED}
        self.counted["examples"] += 1

    def work_off(self):
        """Ring for all that is due and do it; False where nothing moved."""
        self.ring()
        queued = [(number, job) for number, job in self.model.jobs.items() if job.state == QUEUED]
        taken = [self.take(number, job, WORKERS[0]) for number, job in queued]
        for each in filter(None, taken):
            self.compute(*each)
        return any(job.state != QUEUED for _, job in queued)


JOBS = (
    "SELECT id, run_id, state, attempt, failures, losses, "
    "CASE WHEN state IN ('succeeded', 'failed', 'cancelled') THEN 0 ELSE waiting_for END, cached, artifact_id "
    "FROM jobs ORDER BY id"
)
RUNS = "SELECT id, state FROM runs ORDER BY id"
KEPT = (
    "SELECT DISTINCT substr(uri, 7), id, (SELECT count(*) FROM temperatures WHERE artifact_id = artifacts.id) "
    "FROM artifacts WHERE key NOT LIKE '%:%'"
)


def empty(session):
    """No run, no artifact."""
    for table in ("temperatures", "attempts", "job_dependencies", "jobs", "artifacts", "runs"):
        session.execute(text(f"DELETE FROM {table}"))  # noqa: S608  # names of our own


# ---- the tests ----------------------------------------------------------------------------------------


@pytest.fixture
def play(sqlite_template, tmp_path, monkeypatch):
    """``play(examples, seed)`` lets the machine run on a SQLite file; returns how often it called what."""
    shutil.copy(sqlite_template, tmp_path / "database.sqlite")
    engine = open_engine(f"sqlite:///{tmp_path / 'database.sqlite'}")
    event.listen(engine, "connect", stand_still)
    install(monkeypatch)
    monkeypatch.setattr(db.jobs, "BACKOFF_SECONDS", 4.0)
    monkeypatch.setattr(db.clock, "shift_seconds", 0.0)
    write(engine, lambda session: session.execute(DATASET))
    eyes = sqlite3.connect(tmp_path / "database.sqlite", isolation_level=None)
    spec, counted = resolve("demo", []), Counter()

    def run(examples, seed, **options):
        machine = seeded(seed)(lambda: Jobs(engine, eyes, spec, counted))
        run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=examples, **options))
        return counted

    yield run
    eyes.close()
    engine.dispose()


SOON = 2
"""A seed with which the control finds what it must within seconds; others may take half a minute."""
SETTINGS = settings(
    deadline=None,
    stateful_step_count=20,
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def stand_still(connection, _):
    """The clock moves by ``db.clock.shift_seconds`` alone; nothing here must outlive a loss of power."""
    connection.create_function("julianday", 1, lambda _: NOON)
    connection.execute("PRAGMA synchronous=OFF").close()


def line(seed, counted):
    calls = " ".join(f"{name}={count}" for name, count in sorted(counted.items()) if name != "examples")
    return f"state machine: examples={counted['examples']} {calls} seed={seed}"


def test_whatever_the_order_of_events_the_database_holds_what_the_model_says(play, seed, say):
    say(line(seed, play(200, seed)))


@pytest.mark.storm
@pytest.mark.timeout(0)
def test_ten_thousand_orders_of_events_give_what_the_model_says(play, seed, say, number):
    say(line(seed, play(number("CHAOS_EXAMPLES", 10_000), seed, stateful_step_count=30)))


def test_without_the_fence_the_machine_finds_a_late_attempt_that_writes(play, monkeypatch):
    """The control: a held job is recognized by its state alone."""
    fence_off(keeps_state=True, put=monkeypatch.setattr)
    with pytest.raises(AssertionError):
        play(2000, SOON, phases=[Phase.generate])

"""Threads that do anything to one database at once, and what must be true whenever they stand still."""

import itertools
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

import db.clock
from db.claims import claim, claim_next
from db.dispatch import forget_rings, ring_again, top_up
from db.engine import read, reading, write
from db.graph import audit, recount
from db.jobs import Worker, fail, finish, lose, put_back, renew
from db.models import Job, JobState, Run, RunState
from db.recovery import expire, repair
from db.runs import active_runs, cancel, retry, settle_run, torn_runs
from db.shares import Turns
from harness.invariants import artifacts_are_there, attempts_are_closed, every_job_is_there
from harness.model import PLANS
from harness.plans import CODES, made, planned
from orchestrator.submit.store import submit

THREADS = 6
MOST_RUNS = 5
"""Active ones; of all that there ever were, the newest are cancelled and retried."""
PAUSES = (0.0, 0.0, 0.0, 0.01)
"""Seconds."""
OF_ONE_GENERATION = 6
"""Runs whose jobs share their keys."""
WEIGHTS = {
    "submit": 6,
    "work": 30,
    "take": 20,
    "finish": 20,
    "fail": 4,
    "lose": 2,
    "put_back": 3,
    "renew": 3,
    "repair": 8,
    "cancel": 1,
    "retry": 3,
    "settle": 4,
    "expire": 3,
    "let_leases_run_out": 1,
    "recount": 4,
    "top_up": 6,
    "ring_again": 1,
    "forget": 1,
}
"""How often each happens, by what it is called in ``Hand``."""
EXPECTED = ("one_running_job_per_key", "jobs.key", "one_active_run_per_identity", "runs.identity")
"""The indices that refuse what is refused rightly, as Postgres and SQLite name them."""


class Hand:
    """One thread's share: it does what chance says, with claims that others may have, too."""

    def __init__(self, fuzz, number):
        self.engine, self.spec, self.held, self.submitted = fuzz.engine, fuzz.spec, fuzz.held, fuzz.submitted
        self.worker, self.turns = Worker(f"w{number}", "host", number, CODES), Turns()
        self.chance, self.counted = random.Random(f"{fuzz.seed} {number}"), Counter()

    def act(self, times):
        for _ in range(times):
            (name,) = self.chance.choices(tuple(WEIGHTS), WEIGHTS.values())
            self.counted[name] += 1
            try:
                getattr(self, name)()
            except IntegrityError as error:
                if not any(index in str(error.orig) for index in EXPECTED):
                    raise
                self.counted["refused"] += 1

    def write(self, function, *arguments, **options):
        """In a transaction that is at times slow to commit, so that more of them meet."""

        def transaction(session):
            answer = function(session, *arguments, **options)
            time.sleep(self.chance.choice(PAUSES))
            return answer

        return write(self.engine, transaction)

    def one_of(self, statement):
        with reading(self.engine) as session:
            found = session.scalars(statement).all()
        return self.chance.choice(found) if found else None

    def one_hold(self):
        """One of the last claims, whosesoever, so that two threads may end one attempt."""
        recent = self.held[-THREADS:]
        return self.chance.choice(recent) if recent else None

    def some_run(self):
        return self.one_of(select(Run.id).order_by(Run.id.desc()).limit(MOST_RUNS))

    # ---- verbs ------------------------------------------------------------------------------------------

    def submit(self):
        if len(read(self.engine, active_runs)) < MOST_RUNS:
            generation = str(next(self.submitted) // OF_ONE_GENERATION)
            number, twin = self.chance.randrange(len(PLANS)), self.chance.randrange(2)
            plan = planned(number, generation)
            submit(self.engine, self.spec, plan, 1, f"dataset {generation} {number} {twin}")

    def take(self):
        job = self.one_of(select(Job.id).where(Job.state.in_((JobState.READY, JobState.QUEUED))))
        held = job and self.write(claim, job, self.worker, self.turns)
        if held:
            self.held.append(held)
        return held

    def work(self):
        held = self.take()
        if held:
            self.compute(held)

    def finish(self):
        held = self.one_hold()
        if held:
            self.compute(held)

    def compute(self, held):
        """End an attempt as a worker does, and go on with the next job in the same transaction."""
        missing = [source for source in held.inputs if source.artifact_id is None]
        if missing:
            self.write(repair, held, missing[0])
            return

        def end(session):
            done = finish(session, held, made(held.label))
            return claim_next(session, held, self.worker, self.turns) if done else None

        following = self.write(end)
        if following:
            self.held.append(following)

    def repair(self):
        held = self.one_hold()
        if held and held.inputs and self.write(repair, held, self.chance.choice(held.inputs)):
            self.counted["repaired"] += 1

    def fail(self):
        if held := self.one_hold():
            self.write(fail, held, "ValueError: no", None, retry=self.chance.random() < 0.5)

    def lose(self):
        if held := self.one_hold():
            self.write(lose, held, "w")

    def put_back(self):
        if held := self.one_hold():
            self.write(put_back, held, "released")

    def renew(self):
        if held := self.one_hold():
            self.write(renew, held)

    def cancel(self):
        if run := self.some_run():
            self.write(cancel, run)

    def retry(self):
        if run := self.some_run():
            self.write(retry, run)

    def settle(self):
        for run in read(self.engine, active_runs):
            self.write(settle_run, run)

    def expire(self):
        self.write(expire)

    def let_leases_run_out(self):
        db.clock.shift_seconds += 31.0
        self.write(expire)

    def recount(self):
        for run in read(self.engine, active_runs):
            self.write(recount, run)

    def top_up(self):
        self.write(top_up)

    def ring_again(self):
        self.write(ring_again, 0.0)

    def forget(self):
        self.write(forget_rings)


class Fuzz:
    """Rounds of chance between which everything stands still and is looked at."""

    def __init__(self, engine, spec, seed):
        self.engine, self.spec, self.seed, self.held = engine, spec, seed, []
        self.submitted = itertools.count()
        self.hands = [Hand(self, number) for number in range(THREADS)]
        self.succeeded, self.rounds, self.drift = {}, 0, 0

    def play(self, times):
        """One round: every thread does so many things."""
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda hand: hand.act(times), self.hands))
        self.rounds += 1
        self.look()

    def end(self):
        """Nothing goes wrong any more: every active run comes to its end."""
        hand = self.hands[0]
        for _ in range(200):
            if not read(self.engine, active_runs):
                break
            hand.let_leases_run_out()
            hand.recount()
            hand.settle()
            for _ in range(20):
                hand.work()
        self.look()
        assert read(self.engine, active_runs) == []

    def line(self):
        counted = sum((hand.counted for hand in self.hands), Counter())
        calls = " ".join(f"{name}={count}" for name, count in sorted(counted.items()))
        return f"rounds={self.rounds} runs-succeeded={len(self.succeeded)} drift={self.drift} {calls} seed={self.seed}"

    # ---- what must be true ------------------------------------------------------------------------------

    def look(self):
        assert read(self.engine, torn_runs) == [], "a run has ended, and some of its jobs have not"
        self.counters_are_true()
        with reading(self.engine) as session:
            self.runs_have_what_their_state_says(session)
            every_job_is_there(session)
            artifacts_are_there(session)
            attempts_are_closed(session)

    def counters_are_true(self):
        """Of all that has not run; what comes back from running while an input is made again is counted by an audit."""
        for run in read(self.engine, active_runs):
            wrong = read(self.engine, lambda session, run=run: audit(session, run, 0)[0])
            with reading(self.engine) as session:
                untried = select(Job.id).where(Job.id.in_(wrong), Job.attempt == 0)
                assert session.scalars(untried).all() == []
            self.drift += len(wrong)
            write(self.engine, lambda session, run=run: recount(session, run))
            assert read(self.engine, lambda session, run=run: audit(session, run, 0)[0]) == []

    def runs_have_what_their_state_says(self, session):
        of_run = select(Job.id, Job.artifact_id).order_by(Job.id)
        unfinished = select(Job.run_id).where(Job.state != JobState.SUCCEEDED)
        ended = dict(
            map(tuple, session.execute(select(Run.id, Run.state).where(Run.state != RunState.ACTIVE)))
        )
        not_all = set(session.scalars(unfinished))
        for run, state in ended.items():
            if state == RunState.SUCCEEDED:
                assert run not in not_all
                results = session.execute(of_run.where(Job.run_id == run)).all()
                assert self.succeeded.setdefault(run, results) == results, "its rows are others now"
            elif state == RunState.FAILED:
                assert run in not_all
        assert self.succeeded.keys() <= {run for run, state in ended.items() if state == RunState.SUCCEEDED}

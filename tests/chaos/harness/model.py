"""What ``db`` must do with jobs, in plain Python: the model that the state machine compares it with."""

from dataclasses import dataclass
from types import SimpleNamespace

from sqlalchemy.exc import IntegrityError

from db.limits import LEASE_SECONDS, MAX_FAILURES, MAX_LOSSES
from db.models import OPEN, JobState, RunState

DEADLINE_SECONDS = 600
LONGEST_DELAY = 12.0
"""Before a retry, with a first delay of at most 4 s that doubles once, half as long again by chance."""
WAITING, READY, QUEUED, RUNNING = OPEN
SUCCEEDED, FAILED, SKIPPED = JobState.SUCCEEDED, JobState.FAILED, JobState.SKIPPED
PLANS = (
    {"a": ("", ""), "b": ("a", ""), "C": ("ab", "")},
    {"a": ("", ""), "b": ("a", ""), "D": ("a", ""), "E": ("b", "D"), "F": ("", "D")},
)
"""By name what a job reads, and what it only waits for; capitals leave rows. Equal names have equal keys."""


@dataclass(eq=False)
class Expected:
    """A job as it should be."""

    run: int
    name: str
    state: JobState
    cached: bool
    artifact: int | None
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    not_before: float = 0.0
    started: float = 0.0
    lease: float = 0.0
    rung: float = 0.0
    rings: int = 0
    worker: str = ""
    overtaken: bool = False
    """A parent was opened again while it ran: as long as it keeps coming back, it may start before that one is done."""


class Model:
    """What ``db`` must do, with dicts and loops; ``artifacts`` holds the current artifact of every key."""

    def __init__(self):
        self.now, self.runs, self.jobs, self.artifacts, self.made = 0.0, {}, {}, {}, 0

    def of(self, run):
        return [job for job in self.jobs.values() if job.run == run]

    def parents(self, job, *, read=False):
        reads, after = PLANS[self.runs[job.run].plan][job.name]
        return [other for other in self.of(job.run) if other.name in (reads if read else reads + after)]

    def unfinished(self, job):
        """How many parents it waits for: what it reads until that has succeeded, the others until they have ended."""
        read = self.parents(job, read=True)
        return sum(
            parent.state in OPEN or (parent in read and parent.state != SUCCEEDED)
            for parent in self.parents(job)
        )

    def submit(self, run, plan):
        self.runs[run] = SimpleNamespace(plan=plan, state=RunState.ACTIVE)
        wanted = set()
        for name, (reads, _) in reversed(PLANS[plan].items()):
            if (name.isupper() or name in wanted) and name not in self.artifacts:
                wanted |= {name, "must run " + name, *reads}
        for name in PLANS[plan]:
            must = "must run " + name in wanted
            found = None if must else self.artifacts.get(name)
            self.jobs[len(self.jobs) + 1] = Expected(
                run, name, WAITING if must else SUCCEEDED, not must, found
            )
        self.recount(run)
        self.settle(run)

    def claim(self, job):
        if job.state not in (READY, QUEUED) or job.not_before > self.now:
            return None
        if any(other.state == RUNNING and other.name == job.name for other in self.jobs.values()):
            job.state = READY
            return None
        job.attempt += 1
        if job.name in self.artifacts:
            self.succeed(job, cached=True)
            return None
        job.state, job.started, job.lease = RUNNING, self.now, self.now + LEASE_SECONDS
        return job.attempt

    def holds(self, job, attempt):
        return job.state == RUNNING and job.attempt == attempt

    def finish(self, job):
        self.made += 1
        self.artifacts[job.name] = self.made
        self.succeed(job, cached=False)

    def succeed(self, job, *, cached):
        job.state, job.cached, job.artifact = SUCCEEDED, cached, self.artifacts[job.name]
        self.release(job.run)
        self.settle(job.run)

    def release(self, run):
        for job in self.of(run):
            if job.state == WAITING and not self.unfinished(job):
                job.state = READY

    def end_badly(self, job, *, again):
        job.state = READY if again else FAILED
        if not again:
            self.skip_below(job)
            self.release(job.run)
            self.settle(job.run)

    def fail(self, job, *, retry):
        job.failures += 1
        job.not_before = self.now + LONGEST_DELAY
        self.end_badly(job, again=retry and job.failures < MAX_FAILURES)

    def lose(self, job):
        job.losses += 1
        self.end_badly(job, again=job.losses < MAX_LOSSES)

    def expire(self):
        running = [job for job in self.jobs.values() if job.state == RUNNING]
        late = [job for job in running if job.started + DEADLINE_SECONDS < self.now]
        lost = [job for job in running if job not in late and job.lease < self.now]
        for job in late:
            self.fail(job, retry=True)
        for job in lost:
            self.lose(job)
        return len(late) + len(lost)

    def skip_below(self, job):
        for child in self.of(job.run):
            if job in self.parents(child, read=True):
                if child.state == WAITING:
                    child.state = SKIPPED
                if child.state == SKIPPED:
                    self.skip_below(child)

    def settle(self, run):
        states = {job.state for job in self.of(run)}
        if self.runs[run].state == RunState.ACTIVE and not states & set(OPEN):
            self.runs[run].state = RunState.SUCCEEDED if states == {SUCCEEDED} else RunState.FAILED

    def recount(self, run, around=()):
        """How many had come back from running although a parent was reopened meanwhile.

        Among all of the run's jobs, or ``around`` some of them and of their children.
        """
        among = [
            job
            for job in self.of(run)
            if not around or job in around or not around.isdisjoint(self.parents(job))
        ]
        early = [job for job in among if job.state in (READY, QUEUED) and self.unfinished(job)]
        for job in among:
            if job.state in (WAITING, READY, QUEUED):
                unfinished = self.unfinished(job)
                job.state = WAITING if unfinished else READY if job.state == WAITING else job.state
        for job in self.of(run):
            if job.state == FAILED:
                self.skip_below(job)
        self.release(run)
        return len(early)

    def repair(self, job, producer, artifact):
        job.state = READY
        if artifact is not None and self.artifacts.get(producer.name) == artifact:
            del self.artifacts[producer.name]
        touched = {job}
        for maker in self.jobs.values():
            lacks = maker is producer if artifact is None else maker.name == producer.name
            if lacks and maker.artifact == artifact and self.runs[maker.run].state == RunState.ACTIVE:
                touched |= self.reopen(maker)
        for run in {it.run for it in touched}:
            self.recount(run, touched)
            self.settle(run)

    def reopen(self, job):
        """It and its ancestors without an artifact; returns those that had succeeded."""
        if job.state != SUCCEEDED:
            return set()
        job.state, job.artifact, job.cached = WAITING, None, False
        for child in self.of(job.run):
            child.overtaken |= child.state == RUNNING and job in self.parents(child)
        missing = [parent for parent in self.parents(job, read=True) if parent.artifact is None]
        return {job}.union(*map(self.reopen, missing))

    def cancel(self, run):
        if self.runs[run].state != RunState.ACTIVE:
            return None
        cancelled = [job for job in self.of(run) if job.state in OPEN]
        for job in cancelled:
            job.state, job.not_before = JobState.CANCELLED, 0.0
        self.runs[run].state = RunState.CANCELLED
        return len(cancelled)

    def retry(self, run):
        ended = self.runs[run].state in (RunState.FAILED, RunState.CANCELLED)
        back = [job for job in self.of(run) if ended and job.state in (FAILED, SKIPPED, JobState.CANCELLED)]
        twins = [other for other in self.runs.values() if other.plan == self.runs[run].plan]
        if back and any(twin.state == RunState.ACTIVE for twin in twins):
            return IntegrityError
        for job in back:
            job.state, job.failures, job.losses, job.not_before = WAITING, 0, 0, 0.0
        if back:
            self.runs[run].state = RunState.ACTIVE
            self.recount(run)
        return len(back)

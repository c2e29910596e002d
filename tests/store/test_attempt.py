"""One attempt around its stage's function: progress, interruptions and errors of odd text."""

import errno
import signal
import sys
import time
from types import ModuleType

import pytest

from db.artifacts import ArtifactStore
from db.engine import write
from db.jobs import Worker
from db.models import JobState
from db.recovery import release_worker
from db.runs import cancel
from orchestrator.runs.progress import machine_faults
from tasks import heartbeat, job_task, node_faults
from tasks.heartbeat import Heartbeat, LeaseLost
from tasks.job_io import Output
from tasks.job_task import Workplace, run_job
from tasks.node_faults import has_lost_cuda, is_node_fault

PARAMS = {"policy": "oracle", "kind": "pristine", "level": 0}
TENSORS = {}, {"epochs": "[]"}


@pytest.fixture
def execute(engine, tmp_path, monkeypatch):
    """``execute(run, compute)`` runs job a, a sweep whose function is ``compute``, as a worker does."""
    worker = Worker("worker-1", "host-1", 1, ("sweep 1",))
    workplace = Workplace(
        engine, ArtifactStore(str(tmp_path / "store")), worker, Heartbeat(engine, watched=False)
    )

    def run_it(run, compute):
        stage = ModuleType("tasks.stages.sweep")
        stage.compute = compute
        monkeypatch.setitem(sys.modules, "tasks.stages.sweep", stage)
        run_job(workplace, run.jobs["a"])

    return run_it


@pytest.fixture
def pauses(monkeypatch):
    """Seconds of the pauses that would have been made."""
    seconds = []
    monkeypatch.setattr(node_faults, "sleep", seconds.append)
    return seconds


@pytest.fixture
def one_job(add_run):
    return add_run({"a": []}, columns={"a": {"params": PARAMS, "losses": 2}})


def test_losses_are_forgotten_once_a_checkpoint_is_there(one_job, execute, engine):
    def compute(params, context):
        context.checkpoint.save(*TENSORS)
        write(engine, lambda session: release_worker(session, "worker-1", charged=True))
        return Output()

    execute(one_job, compute)
    assert (one_job.states["a"], one_job.job("a").losses) == (JobState.READY, 1)


def test_losses_stay_when_the_checkpoint_could_not_be_saved(one_job, execute, engine, monkeypatch):
    """Else a job that is killed whenever it saves would run forever."""

    def compute(params, context):
        context.store.root.joinpath("temporary").rmdir()
        with pytest.raises(FileNotFoundError):
            context.checkpoint.save(*TENSORS)
        write(engine, lambda session: release_worker(session, "worker-1", charged=True))
        return Output()

    execute(one_job, compute)
    assert (one_job.states["a"], one_job.job("a").losses) == (JobState.FAILED, 3)


def test_an_attempt_that_is_fenced_out_saves_no_checkpoint(one_job, execute, engine):
    saved = []

    def compute(params, context):
        write(engine, lambda session: cancel(session, one_job.id))
        try:
            context.checkpoint.save(*TENSORS)
        finally:
            saved.extend(context.store.checkpoint_files())
        return Output()

    execute(one_job, compute)
    assert saved == []
    assert one_job.states == {"a": JobState.CANCELLED}


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EROFS, "Read-only file system"),
        OSError(errno.ESTALE, "Stale file handle"),
    ],
    ids=lambda error: errno.errorcode[error.errno],
)
def test_what_is_the_machines_fault_is_put_back_uncharged_and_the_process_pauses(
    one_job, execute, engine, pauses, fault
):
    def compute(params, context):
        raise fault

    for _ in range(4):  # one more than a job may fail
        execute(one_job, compute)
    job = one_job.job("a")
    assert (job.state, job.failures, job.losses) == (JobState.READY, 0, 2)
    assert job.error == f"put back by host-1: OSError: {fault}"
    assert [attempt.outcome for attempt in one_job.attempts("a")] == ["node fault"] * 4
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert machine_faults(engine, one_job.id) == [f"1 jobs will run again, {job.error}"]
    execute(one_job, lambda params, context: Output())
    assert one_job.states == {"a": JobState.SUCCEEDED}
    assert one_job.job("a").error is None


def test_a_stage_that_cannot_be_imported_is_the_machines_fault(one_job, execute, pauses, monkeypatch):
    def fail(name):
        raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(job_task.importlib, "import_module", fail)
    execute(one_job, lambda params, context: Output())
    assert (one_job.states["a"], one_job.job("a").failures) == (JobState.READY, 0)
    assert one_job.job("a").error.endswith("ImportError: libcudart.so.13: cannot open shared object file")
    assert len(pauses) == 1


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone"), ImportError("no"), MemoryError()])
def test_what_a_stage_raises_otherwise_is_the_jobs_own_fault(one_job, execute, pauses, error):
    """The control."""

    def compute(params, context):
        raise error

    execute(one_job, compute)
    assert (one_job.job("a").failures, pauses) == (1, [])


@pytest.mark.parametrize(
    ("error", "machine", "lost"),
    [
        (RuntimeError("No CUDA GPUs are available"), True, True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True, True),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 MiB"), False, False),
        (RuntimeError("shapes do not match"), False, False),
        (ValueError("CUDA error"), False, False),
    ],
)
def test_a_gpu_that_is_gone_is_told_from_an_error_of_the_job_and_both_from_what_ends_the_process(
    error, machine, lost
):
    assert (is_node_fault(error), has_lost_cuda(error)) == (machine, lost)


@pytest.mark.parametrize("text", ["a\0b", "caf\udce9.jpg"], ids=["NUL", "half a character"])
def test_an_error_of_odd_text_is_a_failure_like_any_other(one_job, execute, text):
    def compute(params, context):
        raise ValueError(text)

    execute(one_job, compute)
    assert (one_job.job("a").failures, one_job.job("a").losses) == (1, 2)
    assert one_job.job("a").error.startswith("ValueError: ")


def test_a_loss_waits_for_the_end_of_what_must_not_be_disturbed(one_job, engine, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    held, reached = one_job.claim("a"), []

    def lose_it_undisturbed():
        beat = Heartbeat(engine, watched=False)
        with beat.holding(held):
            with beat.undisturbed():
                write(engine, lambda session: cancel(session, one_job.id))
                while beat._lost is None:
                    time.sleep(0.01)
                reached.append("end of the import")
            reached.append("never")

    with pytest.raises(LeaseLost):
        lose_it_undisturbed()
    assert reached == ["end of the import"]


@pytest.mark.parametrize("when", ["while it ends", "when it has ended"])
def test_a_signal_that_comes_late_changes_nothing(one_job, engine, when):
    beat, held = Heartbeat(engine, watched=False), one_job.claim("a")
    with beat.holding(held):
        beat._lost = held
        if when == "while it ends":
            beat.calm()
            signal.raise_signal(signal.SIGUSR2)
    signal.raise_signal(signal.SIGUSR2)
    # nor does a signal for one claim stop the next
    with beat.holding(held):
        signal.raise_signal(signal.SIGUSR2)


def test_the_stage_is_imported_before_anything_may_interrupt_it(one_job, execute, monkeypatch):
    """An interrupted import of torch leaves a process in which every later one fails."""
    seen = []
    real = job_task.importlib.import_module

    def spy(name):
        workplace = next(frame for frame in _frames() if "workplace" in frame.f_locals).f_locals["workplace"]
        seen.append((name, workplace.heartbeat._disturbs))
        return real(name)

    monkeypatch.setattr(job_task.importlib, "import_module", spy)
    execute(one_job, lambda params, context: Output())
    assert seen == [("tasks.stages.sweep", False)]
    assert one_job.states == {"a": JobState.SUCCEEDED}


def _frames():
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back

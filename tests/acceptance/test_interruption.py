"""Runs that are interrupted, killed or submitted twice end with the numbers of an undisturbed one."""

import json
import os
import signal
import subprocess
import sys

import pytest

from db.artifacts import ArtifactStore

SOME_DONE_ONE_RUNNING = (
    "SELECT (SELECT COUNT(*) FROM jobs WHERE state = 'succeeded') >= 5"
    " AND EXISTS (SELECT 1 FROM jobs WHERE state = 'running')"
)
PREDICTING = "SELECT COUNT(*) >= 5 FROM jobs WHERE stage = 'predict' AND state = 'succeeded'"
UNFINISHED = "SELECT COUNT(*) FROM jobs WHERE state <> 'succeeded'"
TRAINING = (
    "SELECT j.key, a.process FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.attempt = j.attempt"
    " WHERE j.stage = 'train-backbone' AND j.state = 'running'"
)
FEWER = {
    "levels.gaussian_blur": [3],
    "levels.gaussian_noise": [40],
    "expert.epochs": 2,
    "baselines": [],
}

ON_CTRL_C = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def test_what_tests_start_can_be_interrupted(home):
    assert home.run_code(ON_CTRL_C).stdout == "True\n"


def test_so_it_can_where_the_tests_were_started_with_ctrl_c_ignored():
    """As ``nohup pytest &`` of a script is: what is ignored would be so in every child."""
    tested = f"{__file__}::{test_what_tests_start_can_be_interrupted.__name__}"
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tested]
    done = subprocess.run(
        ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *pytest_], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def undisturbed(new_home, small):
    """What the interrupted runs must come to."""
    home = new_home()
    assert home.command("submit", "full-paper", "--in-process", *small(FEWER)).returncode == 0
    return home.numbers()


@pytest.fixture(scope="module")
def detached(new_home, small, interrupt):
    """A home whose submit got Ctrl-C in the middle, and that submit."""
    home = new_home()
    submit = home.start("submit", "full-paper", *small(FEWER))
    home.wait_for(SOME_DONE_ONE_RUNNING, process=submit)
    output = interrupt(submit)
    return home, submit.returncode, output, home.processes()


def test_ctrl_c_exits_with_130_and_says_how_to_go_on(detached):
    _, code, output, _ = detached
    assert code == 130
    last = output.strip().splitlines()[-1]
    assert last.startswith("Run 1 is kept, ")
    assert last.endswith("orchestrator resume 1")
    assert "Traceback" not in output


def test_ctrl_c_leaves_no_process(detached):
    *_, left = detached
    assert left == []


def test_a_run_that_got_ctrl_c_is_resumed_to_the_same_numbers(detached, undisturbed):
    home, *_ = detached
    assert home.value(UNFINISHED) > 0
    assert home.value("SELECT COUNT(*) FROM jobs WHERE state = 'running'") == 0
    resumed = home.command("resume")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert "Accuracy at p_tar 0.8" in resumed.stdout
    assert home.processes() == []
    assert home.numbers() == undisturbed


@pytest.fixture(scope="module")
def killed(new_home, small, wait):
    """A home where everything was killed in the third epoch of the backbone at the latest: (home, checkpoint)."""
    home = new_home()
    submit = home.start("submit", "full-paper", *small(FEWER))
    home.wait_for(TRAINING, process=submit)
    ((key, process),) = home.rows(TRAINING)
    checkpoint = home.path / "artifacts" / "checkpoints" / f"{key}.checkpoint"
    wait(checkpoint.exists, "a checkpoint of train-backbone", submit)
    os.kill(process, signal.SIGKILL)
    home.kill_everything()
    submit.communicate()
    return home, ArtifactStore(str(home.path / "artifacts")).checkpoint(key, "test")


def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_with_the_same_numbers(killed, undisturbed):
    home, checkpoint = killed
    # ready where the supervisor saw its process die before it was killed itself
    ((state,),) = home.rows("SELECT DISTINCT state FROM jobs WHERE stage = 'train-backbone'")
    assert state in ("running", "ready", "queued")
    assert home.value("SELECT COUNT(*) FROM jobs WHERE state = 'succeeded'") > 0
    _mark_first_epoch(checkpoint)

    resume = home.start("resume")
    home.wait_for(PREDICTING, process=resume)
    home.kill_everything()  # once more, later
    resume.communicate()
    assert home.value(UNFINISHED) > 0

    resumed = home.command("resume")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert home.processes() == []
    numbers = home.numbers()
    assert _first_train_loss(numbers) == MARK
    marked = [_with_train_loss(row, MARK) for row in undisturbed["training_epochs"]]
    assert numbers == undisturbed | {"training_epochs": sorted(marked)}


MARK = 123.5


def _mark_first_epoch(checkpoint):
    """Give the first epoch a training loss that no training has: whoever goes on from here carries it along."""
    tensors, metadata = checkpoint.load()
    epochs = json.loads(metadata["epochs"])
    assert 1 <= len(epochs) < 3
    epochs[0]["train_loss"] = MARK
    checkpoint.save(tensors, metadata | {"epochs": json.dumps(epochs)})


def _with_train_loss(row, loss):
    key, epoch, network, _, *rest = row
    return (key, epoch, network, loss, *rest) if (epoch, network) == (1, "backbone") else row


def _first_train_loss(numbers):
    ((*_, loss),) = [row[:4] for row in numbers["training_epochs"] if row[1:3] == (1, "backbone")]
    return loss


def test_nothing_of_the_killed_attempts_stays_in_the_store(killed):
    home, _ = killed
    store = home.path / "artifacts"
    assert [*(store / "temporary").iterdir(), *(store / "checkpoints").iterdir()] == []


def test_two_submits_of_one_spec_at_once_make_one_run(home, small):
    fields = FEWER | {"backbone.epochs": 1, "shard_size": 80}
    submits = [home.start("submit", "full-paper", *small(fields)) for _ in range(2)]
    outputs = [submit.communicate(timeout=400)[0] for submit in submits]
    assert [submit.returncode for submit in submits] == [0, 0], outputs
    assert home.rows("SELECT id, state FROM runs") == [(1, "succeeded")]
    assert home.rows("SELECT DISTINCT attempt FROM jobs") == [(1,)]
    assert sorted("attached to its active run" in output for output in outputs) == [False, True]
    tables = [output[output.index("Accuracy at p_tar") :] for output in outputs]
    assert tables[0] == tables[1]
    assert home.processes() == []

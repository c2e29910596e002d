"""`orchestrator up` holds a private cluster: a worker joins by hand, and Flower shows what runs."""

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import psutil
import pytest

from orchestrator.locks import is_held, supervisor_lock

FEWER = {
    "expert.epochs": 2,
    "levels.gaussian_blur": [3],
    "levels.gaussian_noise": [40],
    "baselines": [],
}
USER, PASSWORD = "reader", "open-sesame"


@pytest.fixture(scope="module")
def held(finished, copy_of, wait):
    """A home with the finished run, its cluster held by ``up``."""
    home = copy_of(finished.home)
    up = home.start("up")
    wait((home.path / "run" / "processes.json").exists, "a recorded cluster", up)
    yield home
    up.send_signal(signal.SIGINT)
    output, _ = up.communicate(timeout=120)
    assert up.returncode == 0, output
    home.kill_everything()


@pytest.fixture(scope="module")
def flower(held, wait):
    """Flower's port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    process = held.start("flower", "--port", port, FLOWER_BASIC_AUTH=f"{USER}:{PASSWORD}")
    wait(lambda: answers(port), "Flower's answer", process)
    yield port
    process.terminate()
    process.communicate(timeout=60)


def answers(port):
    try:
        return status(port, "/") == 401
    except urllib.error.URLError:
        return False


def get(port, path, credentials=f"{USER}:{PASSWORD}", data=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data)
    if credentials is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(credentials.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def status(port, path, credentials=None, data=None):
    try:
        get(port, path, credentials, data)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 200


@pytest.fixture(scope="module")
def joined(held, flower, small, wait):
    """The run that a worker which joined by hand took part in."""
    log = held.path / "by-hand.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [held.program, "worker", "--queues", "cpu", "--concurrency", "1", "--name", "by-hand"],
            cwd=held.path.parent,
            env=held.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    wait(lambda: worker.poll() is not None or " ready." in log.read_text(), "a worker that is ready")
    submitted = held.command("submit", "full-paper", *small(FEWER))
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    worker.terminate()
    worker.wait(timeout=120)
    return int(re.search(r"^Run (\d+) \(stored\)", submitted.stdout, re.MULTILINE)[1])


def test_a_worker_that_joins_by_hand_does_jobs_and_attempts_name_it(held, joined):
    statement = (
        "SELECT a.worker LIKE 'by-hand%', a.outcome, COUNT(*) FROM attempts a JOIN jobs j ON j.id = a.job_id"
        " WHERE j.run_id = ? GROUP BY 1, 2 ORDER BY 1"
    )
    by_others, by_hand = held.rows(statement, joined)
    assert by_others[:2] == (0, "succeeded")
    assert by_hand[:2] == (1, "succeeded")


def test_the_cluster_stays_after_the_run(held, joined):
    assert any(
        "orchestrator.cluster.supervisor" in " ".join(process.cmdline()) for process in held.processes()
    )


def test_flower_answers_only_with_its_password(flower):
    for path in ("/", "/tasks", "/workers", "/api/tasks", "/broker"):
        assert status(flower, path) == 401
        assert status(flower, path, f"{USER}:guessed") == 401
    assert status(flower, "/", f"{USER}:{PASSWORD}") == 200


def test_flower_lists_the_stages_by_their_names(flower, joined):
    assert status(flower, "/tasks", f"{USER}:{PASSWORD}") == 200
    tasks = json.loads(get(flower, "/api/tasks"))
    assert {task["name"] for task in tasks.values()} >= {"train-expert", "predict", "sweep", "latency"}


def test_flower_changes_nothing(flower):
    for path in ("/api/task/async-apply/sweep", "/api/worker/shutdown/by-hand", "/api/worker/pool/grow/x"):
        assert status(flower, path, f"{USER}:{PASSWORD}", data=b'{"args": [1]}') in (403, 405)


def test_flower_listens_on_the_loopback_interface_alone(held, flower):
    listening = [
        connection.laddr
        for process in held.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == {flower}


def test_a_worker_without_a_cluster_is_told_to_start_one(home):
    done = home.command("worker", "--queues", "cpu")
    assert done.returncode == 4
    assert done.stderr == (
        f"error: no private cluster is running under '{home.path}'. Start one: orchestrator up\n"
    )


ENDS_LATE = """
import atexit, pathlib, sys, time

def linger():
    gate, said = map(pathlib.Path, sys.argv[1:])
    said.touch()
    while not gate.exists():
        time.sleep(0.01)

atexit.register(linger)
from orchestrator.cluster import supervisor
supervisor.main()
"""


def test_a_supervisor_holds_its_lock_until_its_process_is_gone(new_home, tmp_path, wait):
    """Commands wait for the lock, and no process may be left when they end."""
    home = new_home()
    assert home.command("migrate").returncode == 0
    gate, said = tmp_path / "gate", tmp_path / "said"
    command = [sys.executable, "-c", ENDS_LATE, gate, said]
    process = subprocess.Popen(command, env=home.environment, cwd=home.path.parent)
    wait(said.exists, "the end of main")
    assert is_held(supervisor_lock(home.path))
    gate.touch()
    assert process.wait(timeout=60) == 0
    assert not is_held(supervisor_lock(home.path))

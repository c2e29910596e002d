"""The services of docker-compose.yml, with the same commands, as processes on the loopback interface.

Valkey listens on TCP with a password, Postgres is a real one, and what the commands print must not hold the
password.
"""

import base64
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis
import yaml

from orchestrator.cluster.processes import valkey_binary

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PROGRAMS = Path(sys.executable).parent
PASSWORD = secrets.token_hex(12)
FLOWER_PORT = "5555"
SMALL = {
    "synthetic.images": 100,
    "synthetic.size": 35,
    "image_size": 32,
    "spectrum_size": 32,
    "shard_size": 80,
    "views": 2,
    "levels.gaussian_blur": [3],
    "levels.gaussian_noise": [20],
    "architecture.width": 0.25,
    "baselines": [],
    "backbone.epochs": 1,
    "classifier.epochs": 1,
    "expert.epochs": 2,
    "training.threads": 1,
    "measurement.warm_ups": 2,
    "measurement.repeats": 5,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the cluster's artifacts and logs lie; the current folder of its processes, and no checkout."""
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def broker_url(folder):
    """A Valkey started by the command of its service."""
    port = _free_port()
    shell, option, script = SERVICES["valkey"]["command"]
    script = script.replace("$$", "$").replace(
        "valkey-server -", f"{valkey_binary()} - --bind 127.0.0.1 --port {port}"
    )
    valkey = _start("valkey", [shell, option, script], folder, {"VALKEY_PASSWORD": PASSWORD})
    try:
        with redis.Redis(port=port, password=PASSWORD) as client:
            _wait(lambda: _answers(client), valkey)
        assert PASSWORD not in Path(f"/proc/{valkey.pid}/cmdline").read_text()
        yield f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
    finally:
        _stop(valkey)


@pytest.fixture(scope="module")
def flower_port():
    """Where Flower listens instead of its usual port."""
    return str(_free_port())


@pytest.fixture(scope="module")
def cluster(folder, broker_url, postgres, flower_port):
    """Environment of a shared cluster with one CPU worker, a reconciler and Flower."""
    with psycopg.connect(postgres.format(name="postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE cluster")
    environment = {
        "ORCHESTRATOR_BROKER_URL": broker_url,
        "ORCHESTRATOR_DATABASE_URL": postgres.format(name="cluster"),
        "ORCHESTRATOR_ARTIFACTS_URL": (folder / "artifacts").as_uri(),
    }
    assert _run(SERVICES["migrate"]["command"], folder, environment).returncode == 0
    started = []
    try:
        for name in ("cpu-worker", "reconciler", "flower"):
            command = [part.replace(FLOWER_PORT, flower_port) for part in SERVICES[name]["command"]]
            password = {"FLOWER_BASIC_AUTH": f"reader:{PASSWORD}"} if name == "flower" else {}
            program = PROGRAMS / "orchestrator"
            started.append(_start(name, [program, *command], folder, environment | password))
        yield environment
    finally:
        for process in started:
            _stop(process)


def test_a_run_goes_through_the_shared_cluster(cluster, folder):
    """``submit --wait`` stays to the end and prints the tables."""
    ended = _submit(folder, cluster, "--wait")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Run 1 succeeded" in ended.stdout
    for title in ("Accuracy at p_tar 0.8", "Offloading probability at p_tar 0.8", "End-to-end latency"):
        assert title in ended.stdout
    assert PASSWORD not in ended.stdout + ended.stderr

    counted = _run(["sql", "select count(*) as n from accuracy", "--format", "csv"], folder, cluster)
    assert counted.stdout.split() == ["n", str(5 * 3 * 101)]  # policies, conditions, thresholds


def test_submit_returns_and_resume_watches(cluster, folder):
    """Without ``--wait`` the run is stored and rung for; what is there already is found."""
    assert _submit(folder, cluster, "--wait").returncode == 0
    submitted = _submit(folder, cluster, "--set", "p_tar=0.9")
    assert submitted.returncode == 0, submitted.stderr
    run, cached, to_run = re.search(r"Run (\d+) .* (\d+) cached, (\d+) to run\.", submitted.stdout).groups()
    assert int(to_run) == 5 * 3 + 5 * 3  # latencies and missed deadlines: policies, conditions
    assert int(cached) > int(to_run)
    watched = _run(["resume", run], folder, cluster)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert "Accuracy at p_tar 0.9" in watched.stdout


def test_the_workers_healthcheck_finds_it(cluster, folder):
    """The healthcheck of docker-compose.yml, as the shell of the container runs it."""
    kind, script = SERVICES["cpu-worker"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    path = f"{PROGRAMS}:{os.environ['PATH']}"
    environment = {**os.environ, **cluster, "PATH": path, "HOSTNAME": socket.gethostname()}
    command = ["sh", "-c", script.replace("$$", "$")]
    answer = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "pong" in answer.stdout


def test_flower_shows_the_stages_to_those_who_know_the_password(cluster, folder, flower_port):
    """Its healthcheck needs no password, everything else does."""
    assert _submit(folder, cluster, "--wait").returncode == 0
    kind, _, *arguments = SERVICES["flower"]["healthcheck"]["test"]
    assert kind == "CMD"
    command = [sys.executable, *(part.replace(FLOWER_PORT, flower_port) for part in arguments)]
    subprocess.run(command, cwd=folder, check=True, timeout=60)

    for password in (None, "guessed"):
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            _flower(flower_port, "/api/tasks", password)
        refused.value.close()
    names = {task["name"] for task in json.loads(_flower(flower_port, "/api/tasks", PASSWORD)).values()}
    assert names >= {"prepare", "train-backbone", "sweep", "latency"}
    assert f"cpu-worker@{socket.gethostname()}" in _flower(flower_port, "/workers", PASSWORD)
    with pytest.raises(urllib.error.HTTPError, match=r"403|405") as refused:
        _flower(flower_port, "/api/task/apply/sweep", PASSWORD, data=b'{"args": [1]}')
    refused.value.close()


def test_attempts_name_the_worker_as_flower_does(cluster, folder):
    """``attempts.worker`` is Celery's name of the worker."""
    assert _submit(folder, cluster, "--wait").returncode == 0
    workers = _run(["sql", "select distinct worker from attempts", "--format", "csv"], folder, cluster)
    assert workers.stdout.split() == ["worker", f"cpu-worker@{socket.gethostname()}"]


def test_the_broker_wants_the_password(broker_url):
    """Who does not know it is refused."""
    address = broker_url.replace(PASSWORD, "guessed")
    with redis.Redis.from_url(address) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_no_log_holds_the_password(cluster, folder):
    """Workers print their broker's address when they start."""
    logs = {log.name: log.read_text() for log in folder.glob("*.log")}
    assert logs.keys() == {"valkey.log", "cpu-worker.log", "reconciler.log", "flower.log"}
    assert [name for name, text in logs.items() if PASSWORD in text] == []


def test_a_database_out_of_reach_is_no_fault_of_the_call(tmp_path):
    """Exit code 4, in one line and without its password."""
    environment = {
        "ORCHESTRATOR_BROKER_URL": "redis://127.0.0.1:1/0",
        "ORCHESTRATOR_DATABASE_URL": f"postgresql://orchestrator:{PASSWORD}@127.0.0.1:1/orchestrator",
        "ORCHESTRATOR_ARTIFACTS_URL": str(tmp_path / "artifacts"),
    }
    ended = _run(["status"], tmp_path, environment)
    assert ended.returncode == 4, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: database")
    assert "127.0.0.1" in line
    assert PASSWORD not in line


def _submit(folder, environment, *options):
    settings = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    return _run(["submit", "full-paper", *settings, *options], folder, environment)


def _flower(port, path, password, data=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data)
    if password is not None:
        token = base64.b64encode(f"reader:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def _run(arguments, folder, environment):
    return subprocess.run(
        [PROGRAMS / "orchestrator", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _start(name, command, folder, environment):
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _stop(process):
    """End a process as ``docker compose stop`` does, and its children with it."""
    process.terminate()
    try:
        process.wait(60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(ready, process):
    deadline = time.monotonic() + 30
    while not ready():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, "it does not answer"
        time.sleep(0.05)


def _answers(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

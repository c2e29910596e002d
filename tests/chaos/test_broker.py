"""The broker gone, frozen, full or garbled: no command blocks, workers come back, nothing is lost."""

import base64
import json
import os
import pickle
import random
import re
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import psutil
import pytest
import redis
from harness import link
from harness.cluster import PROGRAM, Cluster, Sizes
from harness.controls import OFF_VARIABLE
from harness.graph import Node, layered
from harness.link import Link
from harness.oracle import assert_invariants, numbers, undisturbed
from harness.proxy import Proxy
from sqlalchemy import func, select

from db.artifacts import ArtifactStore
from db.engine import reading
from db.jobs import Worker
from db.models import Base, Job, JobState, Run
from orchestrator.cluster.leftovers import recorded
from tasks.app import create_app
from tasks.code import codes, queue_of
from tasks.heartbeat import Heartbeat
from tasks.job_task import Workplace, register
from tasks.variables import BROKER_VARIABLE

COMMAND_SECONDS = 10
"""The issue's own bound for any command."""
SMALL = {
    "synthetic.images": 100,
    "synthetic.size": 35,
    "image_size": 32,
    "spectrum_size": 32,
    "shard_size": 80,
    "views": 2,
    "levels.gaussian_blur": [3],
    "levels.gaussian_noise": [40],
    "baselines": [],
    "architecture.width": 0.25,
    "backbone.epochs": 1,
    "classifier.epochs": 1,
    "expert.epochs": 1,
    "measurement.warm_ups": 1,
    "measurement.repeats": 2,
}
SUBMIT = ["submit", "full-paper", *(x for name, value in SMALL.items() for x in ("--set", f"{name}={value}"))]


@contextmanager
def proxied_cluster(folder, sizes):
    """A cluster of which all but the test itself reach Valkey through a proxy; and the proxy."""
    through = folder / "proxy.sock"
    broker = {BROKER_VARIABLE: f"redis+socket://{through}"}
    cluster = Cluster(folder / "c", None, replace(sizes, environment={**sizes.environment, **broker}))
    cluster.folder.mkdir()
    with Proxy(through, cluster.socket) as proxy, cluster:
        yield cluster, proxy


@pytest.fixture(scope="module")
def behind_a_proxy(short_folder):
    with proxied_cluster(short_folder(), Sizes()) as both:
        yield both


@pytest.fixture
def proxied(behind_a_proxy):
    """The cluster and its proxy, which is left open and fast also by a test that failed."""
    _, proxy = behind_a_proxy
    yield behind_a_proxy
    proxy.open()
    proxy.delay_seconds = 0


@pytest.fixture
def valkey(proxied):
    """A client of Valkey that passes no proxy."""
    with redis.Redis(unix_socket_path=str(proxied[0].socket)) as client:
        yield client


def hold(cluster, gate, count=1):
    """Jobs that run until ``gate`` is there: whoever runs them has messages to acknowledge."""
    run_id = cluster.submit([Node(Link(f"{gate} {number}", gate=str(gate))) for number in range(count)])
    cluster.wait_for(
        lambda: of_run(cluster, run_id, JobState.RUNNING) == count, f"{count} jobs that are held"
    )
    return gate


def hold_all(cluster, gate):
    """As many jobs as there are processes: none is left over."""
    return hold(cluster, gate, cluster.sizes.workers * cluster.sizes.concurrency)


def wait_until_noticed(cluster, logs, gate):
    """The job at the gate and all others that ran have ended; a worker says that the broker is away."""
    gate.touch()
    cluster.wait_for(lambda: any(AWAY.search(new) for new in logs.new()), "a worker that misses its broker")
    cluster.wait_for(lambda: not cluster.states().get(JobState.RUNNING), "the end of what ran")


def wait_until_back(cluster):
    """Every worker answers again."""
    with create_app(f"redis+socket://{cluster.socket}") as app:
        inspect = app.control.inspect(timeout=1.0)
        cluster.wait_for(lambda: len(inspect.ping() or {}) == len(cluster.workers), "all workers' answers")


class Logs:
    """What the workers of a cluster have written since this was made."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.lengths = [len(worker.log.read_text()) for worker in cluster.workers]

    def new(self):
        pairs = zip(self.cluster.workers, self.lengths, strict=True)
        return [worker.log.read_text()[length:] for worker, length in pairs]


def starts(cluster):
    return sum(worker.starts for worker in cluster.workers)


def of_run(cluster, run_id, state):
    statement = select(func.count()).where(Job.run_id == run_id, Job.state == state)
    return cluster.ask(lambda session: session.scalar(statement))


def wait_until_done(cluster, run_id, count):
    cluster.wait_for(lambda: of_run(cluster, run_id, JobState.SUCCEEDED) >= count, f"{count} jobs done")


AWAY = re.compile("broker not reached|Couldn't ack")
"""What a child says that rings in vain, and what its parent says that cannot acknowledge."""


def test_a_run_outlives_a_broker_that_is_cut_off_swallowed_and_full(proxied, valkey, seed, say, tmp_path):
    cluster, proxy = proxied
    rng, nodes = random.Random(seed), layered(160, 3, name="broker")
    oracle, cuts, began = undisturbed(tmp_path, nodes), 0, starts(cluster)
    run_id = cluster.submit(nodes)
    for at in sorted(rng.randrange(10, 60) for _ in range(5)):
        wait_until_done(cluster, run_id, at)
        cuts += proxy.cut()

    wait_until_done(cluster, run_id, 80)
    logs, gate = Logs(cluster), hold(cluster, tmp_path / "gate")
    proxy.swallow()
    wait_until_noticed(cluster, logs, gate)
    proxy.open()
    wait_until_back(cluster)

    before = starts(cluster)
    gate = hold_all(cluster, tmp_path / "full")
    cluster.submit([Node(Link(f"behind {number}")) for number in range(8)])
    valkey.config_set("maxmemory", 1)
    gate.touch()
    cluster.wait_for(lambda: starts(cluster) >= before + cluster.sizes.workers, "workers that end and start")
    valkey.config_set("maxmemory", 0)

    proxy.delay_seconds = 0.02
    cluster.wait_for_end()
    assert_invariants(cluster, run_id, oracle)
    found = numbers(cluster.engine, run_id)
    say(
        f"broker cut, swallowed, full, slow: attempted {len(nodes)} acknowledged "
        f"{of_run(cluster, run_id, JobState.SUCCEEDED)} lost {found.lost(oracle)} "
        f"duplicated {found.duplicated(oracle)} connections-cut {cuts} "
        f"worker-restarts {starts(cluster) - began} seed={seed}"
    )


def let_acknowledgements_fail(cluster, proxy, folder):
    """Every worker runs jobs that it cannot acknowledge, over a connection that then goes on as before."""
    hold_all(cluster, folder / "first").touch()  # making a connection in vain would take minutes
    gate, logs = hold_all(cluster, folder / "unheard"), Logs(cluster)
    proxy.swallow()
    gate.touch()
    cluster.wait_for(lambda: all("Couldn't ack" in new for new in logs.new()), "acknowledgements in vain")
    proxy.open()
    wait_until_back(cluster)


def test_workers_that_could_not_acknowledge_take_as_many_jobs_as_before(proxied, tmp_path):
    cluster, proxy = proxied
    let_acknowledgements_fail(cluster, proxy, tmp_path)
    hold_all(cluster, tmp_path / "again").touch()
    cluster.wait_for_end()


def test_a_worker_that_does_not_let_go_of_what_it_could_not_acknowledge_is_given_nothing(
    short_folder, tmp_path
):
    """A control: it answers, has nothing to do, and leaves a message where it is."""
    sizes = Sizes(workers=1, concurrency=1, reconcilers=0, environment={OFF_VARIABLE: "letting-go"})
    with proxied_cluster(short_folder(), sizes) as (cluster, proxy):
        let_acknowledgements_fail(cluster, proxy, tmp_path)
        cluster.submit([Node(Link("left where it is"))])
        with create_app(f"redis+socket://{cluster.socket}") as app:
            inspect = app.control.inspect(timeout=1.0)
            for _ in range(10):  # each answer is a turn of the loop that also takes jobs
                assert list(cluster.wait_for(inspect.active, "an answer").values()) == [[]]
        assert cluster.messages() == 1


def test_no_command_waits_for_a_broker_that_is_frozen(proxied, say, tmp_path):
    _freeze(proxied[0], say, tmp_path)


@pytest.mark.storm
def test_a_broker_may_be_frozen_for_a_minute(proxied, say, tmp_path):
    _freeze(proxied[0], say, tmp_path, seconds=60)


def _freeze(cluster, say, tmp_path, seconds=0):
    nodes = layered(120, 4, name="frozen")
    oracle = undisturbed(tmp_path, nodes)
    assert cluster.command(*SUBMIT, "--dry-run").returncode == 0  # the dataset is drawn
    run_id = cluster.submit(nodes)
    wait_until_done(cluster, run_id, 20)
    logs, gate = Logs(cluster), hold(cluster, tmp_path / "gate")
    cluster.freeze(cluster.valkey)
    thaw_at = time.monotonic() + seconds
    try:
        took = _commands_under_it(cluster)
        wait_until_noticed(cluster, logs, gate)
        cluster.wait_for(lambda: time.monotonic() >= thaw_at, "the end of the frost")
    finally:
        cluster.thaw(cluster.valkey)
    wait_until_back(cluster)
    cluster.wait_for_end()
    assert_invariants(cluster, run_id, oracle)
    commands = " ".join(f"{verb} {command_seconds:.1f}s" for verb, command_seconds in took.items())
    say(f"broker frozen for {seconds} s or until noticed: {commands} lost 0")


def _commands_under_it(cluster):
    """What every command says and how many seconds it took, with a run that is submitted meanwhile."""
    seconds = {}

    def command(verb, *arguments, code=0):
        began = time.monotonic()
        done = cluster.command(*arguments, seconds=COMMAND_SECONDS)
        seconds[verb] = time.monotonic() - began
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout

    assert "(stored)" in command("submit", *SUBMIT)
    run_id = cluster.ask(lambda session: session.scalar(select(func.max(Run.id))))
    assert "active" in command("status", "status")
    command("results", "results", run_id, code=1)
    command("cancel", "cancel", run_id)
    assert "will be retried" in command("retry", "retry", run_id)
    command("cancel", "cancel", run_id)
    return seconds


# ---- messages that are none ---------------------------------------------------------------------------


LINKS = queue_of("cpu", link.code())
"""Where workers that compute links listen."""


class Marker:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def envelope(body, content_type="application/json", task="link"):
    """A message as it lies in Valkey's list, around any body."""
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "binary" if "python" in content_type else "utf-8",
            "content-type": content_type,
            "headers": {"lang": "py", "task": task, "id": "garbled", "root_id": "garbled", "argsrepr": ""},
            "properties": {
                "correlation_id": "garbled",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": LINKS},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": "garbled",
            },
        }
    )


def arguments(*values):
    return json.dumps(
        [values, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    ).encode()


def garbled(marker):
    """Five kinds of message that no producer of ours sends."""
    return {
        "no JSON": ["\x00\xff{", "[]", "{}"],
        "bad body": [envelope(b"[[1], {}"), envelope(b"17")],
        "pickle": [envelope(pickle.dumps(Marker(marker)), "application/x-python-serialize")],
        "unknown task": [envelope(arguments(1), task="os.system")],
        "wrong arguments": [
            envelope(arguments(*wrong))
            for wrong in ([], [1, 2], ["1; DROP TABLE jobs"], [10**30], [-1], [None], [[1]], [{"id": 1}])
        ],
    }


def test_messages_that_are_none_lose_nothing_and_run_nothing(proxied, valkey, say, tmp_path):
    cluster, _ = proxied
    nodes, marker, logs = layered(80, 5, name="garbled"), tmp_path / "marker", Logs(cluster)
    kinds, oracle = garbled(marker), undisturbed(tmp_path, nodes)
    began, run_id = starts(cluster), cluster.submit(nodes)
    for number, (kind, messages) in enumerate(kinds.items()):
        wait_until_done(cluster, run_id, 10 * number)
        for message in messages:
            valkey.lpush(LINKS, message)
        cluster.wait_for(lambda: cluster.messages() == 0, f"a reader of {kind}")
    cluster.wait_for_end()
    assert_invariants(cluster, run_id, oracle)
    assert not marker.exists()
    restarts = starts(cluster) - began
    sent = sum(map(len, kinds.values()))
    # a message that ends its reader is gone with it: none ends two
    assert restarts <= sent, cluster.logs()
    tracebacks = sum(new.count("Traceback (most") for new in logs.new())
    assert tracebacks <= 3 * sent
    say(
        f"broker garbled: messages {sent} of {len(kinds)} kinds, worker-restarts {restarts}, "
        f"tracebacks {tracebacks}, attempted {len(nodes)} lost 0"
    )


def test_a_job_number_that_is_none_writes_nothing(engine, tmp_path, add_run):
    run = add_run({"a": []}, columns={"a": {"code": codes()[0]}})
    workplace = Workplace(
        engine,
        ArtifactStore(str(tmp_path / "store")),
        Worker("w", "h", 1, codes()),
        Heartbeat(engine, watched=False),
    )
    app = create_app(f"redis+socket://{tmp_path}/nobody.sock")
    register(app, lambda: workplace)
    before = everything(engine)
    for wrong in ("x", "1", 10**30, 2**31, -1, 0, True, 1.0, None, [1], {"id": 1}):
        app.tasks["sweep"](wrong)
    app.close()
    assert everything(engine) == before
    assert run.job("a").attempt == 0


def everything(engine):
    with reading(engine) as session:
        return {
            table.name: session.execute(select(table)).all()
            for table in Base.metadata.sorted_tables
            if table.name != "images"
        }


def test_without_a_reconciler_jobs_whose_messages_are_gone_stay_where_they_are(new_cluster, later, say):
    """A control; one round of a reconciler then rings for them."""
    cluster = new_cluster("sqlite", Sizes(workers=1, reconcilers=0))
    gate = cluster.folder / "gate"
    cluster.submit([Node(Link(f"held {number}", gate=str(gate))) for number in range(8)])
    cluster.wait_for(lambda: cluster.states().get(JobState.RUNNING) == 2, "two running jobs")
    with redis.Redis(unix_socket_path=str(cluster.socket)) as client:
        client.flushall()
    gate.touch()
    cluster.wait_for(cluster.is_stuck, "idle workers")
    unfinished = sum(count for state, count in cluster.states().items() if state != JobState.SUCCEEDED)
    assert unfinished > 0
    assert cluster.is_active()
    say(f"broker emptied without a reconciler: {unfinished} of 8 jobs unfinished")

    later(20)
    cluster.reconcile_once()
    cluster.wait_for_end()
    assert cluster.states() == {JobState.SUCCEEDED: 8}


# ---- the private cluster ------------------------------------------------------------------------------


class Private:
    """A home whose small real run is started; its leases outlive the test, so that no lease heals anything."""

    def __init__(self, folder):
        self.home = folder / "home"
        ours = {"ORCHESTRATOR_HOME": str(self.home), "ORCHESTRATOR_LEASE_SECONDS": "3000"}
        self.log = folder / "submit.log"
        with self.log.open("w") as log:
            self.submit = subprocess.Popen(
                [PROGRAM, *SUBMIT], cwd=folder, env=os.environ | ours, stdout=log, stderr=log
            )

    def rows(self, statement, *values):
        try:
            with closing(sqlite3.connect(f"file:{self.home}/orchestrator.db?mode=ro", uri=True)) as database:
                return database.execute(statement, values).fetchall()
        except sqlite3.OperationalError:
            return []  # no database or no tables yet

    def wait_for(self, condition, what):
        deadline = time.monotonic() + 150
        while not (found := condition()):
            assert self.submit.poll() is None, f"ended before {what}\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"not seen: {what}\n{self.log.read_text()}"
            time.sleep(0.02)
        return found

    def leader(self, name):
        """Pid of the process group of this name; none before it is recorded."""
        leaders = recorded(self.home / "run" / "processes.json").leaders
        return next((leader.pid for leader in leaders if leader.name == name), None)

    def wait_for_another(self, name, pid):
        """A group that was killed is started again."""
        self.wait_for(lambda: self.leader(name) not in (None, pid), f"another {name}")

    def processes(self):
        """What runs for this home."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process):
        try:
            named = process.environ().get("ORCHESTRATOR_HOME") == str(self.home)
            return named and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


@pytest.fixture
def private(short_folder):
    """A small real run on a private cluster; nothing of it stays."""
    private = Private(short_folder())
    yield private
    for process in (private.submit, *private.processes()):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    private.submit.wait()


RUNNING = (
    "SELECT a.process, a.job_id, a.attempt FROM attempts a JOIN jobs j ON j.id = a.job_id"
    " AND j.attempt = a.attempt WHERE j.state = 'running' AND j.stage = ?"
)
CLAIMED_AGAIN = "SELECT 1 FROM attempts WHERE job_id = ? AND attempt > ?"


def test_a_private_cluster_outlives_the_kill_of_each_of_its_parts(private, say):
    ((process, job_id, attempt),) = private.wait_for(
        lambda: private.rows(RUNNING, "train-backbone"), "a child"
    )
    os.kill(process, signal.SIGKILL)
    private.wait_for(lambda: private.rows(CLAIMED_AGAIN, job_id, attempt), "its job, taken up again")

    valkey = private.leader("valkey")
    os.kill(valkey, signal.SIGKILL)
    private.wait_for_another("valkey", valkey)

    ((_, job_id, attempt),) = private.wait_for(lambda: private.rows(RUNNING, "train-classifier")[:1], "a job")
    worker = private.leader("cpu-worker")
    os.killpg(worker, signal.SIGKILL)
    private.wait_for_another("cpu-worker", worker)
    private.wait_for(lambda: private.rows(CLAIMED_AGAIN, job_id, attempt), "its job, taken up again")

    assert private.submit.wait(200) == 0, private.log.read_text()
    assert private.rows("SELECT state, SUM(failures) FROM jobs GROUP BY state") == [("succeeded", 0)]
    outcomes = dict(private.rows("SELECT outcome, COUNT(*) FROM attempts GROUP BY outcome"))
    assert outcomes.keys() == {"succeeded", "lost"}
    assert outcomes["lost"] >= 2
    assert private.processes() == []
    say(f"private cluster: killed child, valkey, worker; lost 0 failures 0 attempts-lost {outcomes['lost']}")

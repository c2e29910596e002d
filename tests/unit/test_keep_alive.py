"""A private cluster whose supervisor cannot live: it is started again, and somebody is told what is wrong."""

import io
import math
import time

import pytest
from rich.console import Console

from db.engine import open_engine
from db.schema import upgrade
from orchestrator.cluster import backoff
from orchestrator.cluster.backoff import Backoff
from orchestrator.cluster.client import KeepAlive, stop_supervisor
from orchestrator.cluster.place import Place
from orchestrator.cluster.trouble import tell, told
from orchestrator.errors import InfrastructureError
from orchestrator.locks import is_held, lock, supervisor_lock, up_lock

DIES = "The private cluster ended with code 1; see {home}/logs/supervisor.log. It is tried again."


@pytest.fixture
def place(tmp_path):
    """A home in which a file lies where the folder of artifacts should."""
    home = tmp_path / "home"
    for name in ("run", "logs"):
        (home / name).mkdir(parents=True)
    (home / "artifacts").touch()
    engine = open_engine(f"sqlite:///{home / 'orchestrator.db'}")
    upgrade(engine)
    engine.dispose()
    return Place(home, "", "", "")


@pytest.fixture
def keep_alive(place, monkeypatch):
    """``keep_alive(patience)``, whose pauses are short."""
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.01)
    made = []

    def make(patience):
        console = Console(file=io.StringIO(), width=400)
        made.append(KeepAlive(place, console, patience_seconds=patience))
        return made[-1]

    yield make
    for it in made:
        stop_supervisor(place, it.started)


def printed(keep_alive):
    return keep_alive.console.file.getvalue().splitlines()


def look_until(keep_alive, condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, printed(keep_alive)
        keep_alive()
        time.sleep(0.02)


def test_up_never_gives_up_and_says_each_time_what_is_wrong(keep_alive, place):
    patient = keep_alive(math.inf)
    with lock(up_lock(place.home)):
        look_until(patient, lambda: len(printed(patient)) >= 7)
        assert set(printed(patient)) == {DIES.format(home=place.home)}
        (place.home / "artifacts").unlink()
        look_until(patient, lambda: is_held(supervisor_lock(place.home)) and patient.backoff.has_settled)
        patient()
        assert patient.troubled_since is None


def test_a_person_waits_for_a_bounded_time(keep_alive, place):
    impatient = keep_alive(1.0)
    with pytest.raises(InfrastructureError, match="ended with code 1; see"):
        look_until(impatient, lambda: False)
    assert not is_held(supervisor_lock(place.home))


def test_what_a_living_supervisor_tells_is_said_once(keep_alive, place):
    patient = keep_alive(math.inf)
    with lock(supervisor_lock(place.home)):
        tell(place.home, "cpu-worker exits as soon as it starts.")
        for _ in range(3):
            patient()
        tell(place.home, "")
        patient()
    assert printed(patient) == ["cpu-worker exits as soon as it starts. It is tried again."]
    assert patient.troubled_since is None


def test_trouble_that_is_over_is_told_no_more(place):
    tell(place.home, "a")
    tell(place.home, "b")
    assert told(place.home) == "b"
    tell(place.home, "")
    assert told(place.home) == ""


def test_pauses_double_up_to_a_minute_and_begin_anew_after_a_long_life(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(backoff.time, "monotonic", lambda: now)
    tried, pauses = Backoff(), []
    assert tried.is_due
    for _ in range(7):
        tried.start()
        tried.end()
        began = now
        while not tried.is_due:
            now += 1
        pauses.append(now - began)
    assert pauses == [4, 8, 16, 32, 60, 60, 60]
    tried.start()
    now += backoff.EARLY_SECONDS
    tried.end()
    assert (tried.early_ends, tried.is_due) == (0, True)

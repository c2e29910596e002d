"""Small plans of jobs that compute nothing, stored as the product stores its own."""

from dataclasses import dataclass

from sqlalchemy import text

from db.artifacts import StoredFile
from db.jobs import Outcome
from db.results.tables import Temperature
from harness.model import DEADLINE_SECONDS, PLANS
from orchestrator.plan.paper import Plan
from tasks.params import STAGES, StageParams


@dataclass(frozen=True)
class Step(StageParams):
    """A job that leaves a file."""

    stage = "step"
    version = 1
    libraries = ()
    writes_rows = False
    deadline_seconds = DEADLINE_SECONDS

    name: str


@dataclass(frozen=True)
class Table(Step):
    """One that leaves rows."""

    stage = "table"
    writes_rows = True


CODES = ("step 1", "table 1")
DATASET = text("INSERT INTO datasets VALUES (1, 'd', 'file:///d', '[\"x\"]', 0, false)")


def install(monkeypatch):
    """Make the stages of these plans known."""
    for stage in (Step, Table):
        monkeypatch.setitem(STAGES, stage.stage, stage)


def planned(number, generation=""):
    """One of the plans, with keys as the product makes them; plans of one ``generation`` share theirs."""
    plan, places = Plan({}), {}
    for name, (reads, after) in PLANS[number].items():
        params = (Table if name.isupper() else Step)(name + generation)
        places[name] = plan.add(params, params.name, [places[p] for p in reads], [places[p] for p in after])
    return plan


def made(name):
    """What a job of this name leaves."""
    rows = {Temperature: [{"exit": 1, "expert": name, "temperature": 1.0}]} if name.isupper() else {}
    return Outcome(StoredFile(f"files/{name}", name, 1), rows, 1)

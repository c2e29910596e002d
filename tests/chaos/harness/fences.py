"""Statements of ``db.jobs`` without the fence, for controls: a held job is recognized by less than its token."""

from typing import Any

from sqlalchemy import BigInteger, bindparam

import db.jobs
from db.models import Job, JobState, in_state


def fence_off(*, keeps_state: bool = False, put: Any = setattr) -> None:
    """A transition asks for the job's number, and with ``keeps_state`` for the state that it leaves.

    ``put`` sets an attribute; a test's ``monkeypatch.setattr`` sets it back.
    """
    # the parameter is still passed
    told = bindparam("held_token", type_=BigInteger).is_not(None)
    state = (in_state(JobState.RUNNING),) if keeps_state else ()
    held = (Job.id == bindparam("held_job"), *state, told)
    fenced = db.jobs._HELD
    for name in ("_RENEW", "_FORGET_LOSSES", "_SUCCEED"):
        put(db.jobs, name, _where(getattr(db.jobs, name), held))
    store = db.jobs._STORE._clone()
    store.select = _where(store.select, (*held, *store.select._where_criteria[len(fenced) :]))
    put(db.jobs, "_STORE", store)
    put(db.jobs, "_HELD", held)


def _where(statement: Any, conditions: tuple[Any, ...]) -> Any:
    """The same statement under other conditions."""
    other = statement._clone()
    other._where_criteria = conditions
    return other

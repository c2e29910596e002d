"""Many rows at once: ids that nobody else gets, rows as they were given, all of them or none."""

import itertools

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from db.bulk import BATCH, insert_rows, take_job_ids
from db.engine import reading, write
from db.models import Attempt

MANY = BATCH + 7


def attempt(number, **columns):
    row = {"job_id": 1, "attempt": number, "worker": "w", "host": "h", "process": 1, "started_at": 0.5}
    return row | {"peak_memory_bytes": None} | columns


def attempts(engine):
    with reading(engine) as session:
        return session.scalar(select(func.count()).select_from(Attempt))


def test_ids_are_new_and_in_the_order_of_the_plan(add_run, engine):
    run = add_run({"a": [], "b": []})
    ids = write(engine, lambda session: list(take_job_ids(session, MANY)))
    assert len(set(ids)) == MANY
    assert ids == sorted(ids)
    assert ids[0] > max(run.jobs.values())


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_two_submits_at_once_get_different_ids(engine):
    """On SQLite the second waits for the first."""
    first, second = [], []

    def take_beside(session):
        first.extend(take_job_ids(session, 100))
        write(engine, lambda other: second.extend(take_job_ids(other, 100)))
        first.extend(take_job_ids(session, 100))

    write(engine, take_beside)
    assert len({*first, *second}) == 300


def test_rows_arrive_as_they_were_given(add_run, engine):
    job_id = add_run({"a": []}).jobs["a"]
    given = [
        attempt(1, job_id=job_id, worker="a\tb\nc\\d é 'quoted'", peak_memory_bytes=2**40),
        attempt(2, job_id=job_id, worker=""),
    ]
    write(engine, lambda session: insert_rows(session, Attempt, given))
    with reading(engine) as session:
        found = session.scalars(select(Attempt).order_by(Attempt.attempt)).all()
    assert [{name: getattr(row, name) for name in given[0]} for row in found] == given


def test_no_rows_are_none(engine):
    write(engine, lambda session: insert_rows(session, Attempt, iter(())))
    assert attempts(engine) == 0


def test_a_row_that_the_database_refuses_leaves_none(add_run, engine):
    job_id = add_run({"a": []}).jobs["a"]
    numbers = itertools.chain(range(MANY), [1])
    rows = (attempt(number, job_id=job_id) for number in numbers)
    with pytest.raises(IntegrityError):
        write(engine, lambda session: insert_rows(session, Attempt, rows))
    assert attempts(engine) == 0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_after_a_connection_lost_among_the_rows_all_are_inserted_once(add_run, engine):
    job_id, lost = add_run({"a": []}).jobs["a"], []

    def rows(process):
        for number in range(MANY):
            if number == MANY - 1 and not lost:
                with reading(engine) as other:
                    lost.append(other.scalar(select(func.pg_terminate_backend(process))))
            yield attempt(number, job_id=job_id)

    def insert_all(session):
        insert_rows(session, Attempt, rows(session.scalar(select(func.pg_backend_pid()))))

    write(engine, insert_all)
    assert (lost, attempts(engine)) == ([True], MANY)

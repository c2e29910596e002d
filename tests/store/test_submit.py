"""Storing a run: what the plan says about its jobs and edges, and the share of the workers that it may have."""

import dataclasses
import json

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from db.engine import reading, write
from db.models import Dataset, Job, JobDependency, JobState, Run
from orchestrator.plan.paper import DatasetShape, plan
from orchestrator.plan.spec import resolve
from orchestrator.runs.share import Share, change_share
from orchestrator.submit.store import submit
from tasks.code import code_of, releases

SPEC = resolve("demo", ["hardware=chip", "levels.gaussian_blur=[1]", "levels.gaussian_noise=[20]"])
SHAPE = DatasetShape("digest", 10, {"train": 200, "validation": 100, "test": 200})


@pytest.fixture
def planned():
    return plan(SPEC, SHAPE, releases())


@pytest.fixture
def store_run(engine, planned):
    def store(**options):
        def add(session):
            row = Dataset(digest="d", uri="file:///d", classes=["x"], ignored_files=0, built_in=False)
            session.add(row)
            session.flush()
            return row.id

        return submit(engine, SPEC, planned, write(engine, add), "digest", **options)

    return store


def jobs(engine):
    with reading(engine) as session:
        return session.scalars(select(Job).order_by(Job.id)).all()


def test_the_jobs_are_those_of_the_plan_in_its_order(engine, planned, store_run):
    assert store_run().to_run == len(planned.jobs)
    stored = jobs(engine)
    for job, row in zip(planned.jobs, stored, strict=True):
        assert (row.key, row.label, row.stage, row.queue) == (
            job.key,
            job.label,
            job.params.stage,
            job.params.queue,
        )
        assert row.params == json.loads(json.dumps(dataclasses.asdict(job.params)))
        assert row.code == code_of(job.params.stage)
        assert (row.seed, row.fidelity) == (
            (job.variant.seed, job.variant.fidelity) if job.variant else (None, None)
        )
        assert row.waiting_for == len({*job.reads, *job.after})
        assert row.state == (JobState.WAITING if row.waiting_for else JobState.READY)
        assert (row.attempt, row.failures, row.losses, row.rings, row.cached) == (0, 0, 0, 0, False)


def test_the_edges_are_those_of_the_plan_in_the_order_of_its_inputs(engine, planned, store_run):
    store_run()
    ids = [row.id for row in jobs(engine)]
    columns = (JobDependency.child_id, JobDependency.parent_id, JobDependency.position, JobDependency.reads)
    with reading(engine) as session:
        found = session.execute(select(*columns).order_by(*columns[::2])).all()
    assert list(map(tuple, found)) == [
        (ids[child], ids[parent], position, position < len(job.reads))
        for child, job in enumerate(planned.jobs)
        for position, parent in enumerate((*job.reads, *job.after))
    ]


def test_a_job_that_is_added_later_has_another_id(engine, store_run, add_run):
    store_run()
    taken = {row.id for row in jobs(engine)}
    assert taken.isdisjoint(add_run({"a": []}).jobs.values())


def test_only_a_measurement_is_alone_on_its_host(engine, planned, store_run):
    store_run()
    assert {row.stage for row in jobs(engine) if row.alone} == {"measure"}
    assert all(row.alone for row in jobs(engine) if row.stage == "measure")


def test_a_run_has_the_share_that_it_was_given_until_it_gets_another(engine, store_run):
    def share():
        with reading(engine) as session:
            return session.execute(select(Run.priority, Run.limits)).one()

    run_id = store_run(share=Share(7, {"": 8, "features": 2})).run_id
    assert tuple(share()) == (7, {"": 8, "features": 2})
    change_share(engine, run_id, Share(priority=9))
    assert tuple(share()) == (9, {"": 8, "features": 2})
    change_share(engine, run_id, Share(limits={"features": 3}))
    assert tuple(share()) == (9, {"features": 3})


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_postgres_knows_at_once_how_large_the_tables_are(engine, planned, store_run):
    def counted():
        sizes = text("SELECT relname, reltuples FROM pg_class WHERE relname IN ('jobs', 'job_dependencies')")
        with reading(engine) as session:
            return dict(session.execute(sizes).all())

    assert counted() == {"jobs": -1, "job_dependencies": -1}
    store_run()
    edges = sum(len(job.reads) + len(job.after) for job in planned.jobs)
    assert counted() == {"jobs": len(planned.jobs), "job_dependencies": edges}


def test_without_a_share_a_run_has_weight_1_and_no_limits(engine, store_run):
    store_run()
    with reading(engine) as session:
        assert tuple(session.execute(select(Run.priority, Run.limits)).one()) == (1, {})


def test_a_submission_that_fails_among_its_edges_leaves_nothing(engine, planned, store_run):
    last = planned.jobs[-1]
    # one parent twice, which the primary key of edges refuses
    planned.jobs[-1] = dataclasses.replace(last, after=last.reads[:1])
    with pytest.raises(IntegrityError, match="job_dependencies"):
        store_run()
    with reading(engine) as session:
        counts = [
            session.scalar(select(func.count()).select_from(table)) for table in (Run, Job, JobDependency)
        ]
    assert counts == [0, 0, 0]

"""Mechanisms that a control switches off in one worker: what a test shows must fail without them.

``CHAOS_OFF`` names them, separated by commas; ``CHAOS_LINK_VERSION`` is the version of the stage ``link`` that
this worker has. Nothing of this is in the product.
"""

import os
from dataclasses import replace

from kombu.transport import redis
from sqlalchemy import select
from sqlalchemy.orm import Session

import tasks.heartbeat
import tasks.job_task
import workers.process
from db.jobs import Claim, Worker
from db.models import Job
from db.shares import Turns
from harness.fences import fence_off
from harness.link import Link, code
from tasks.code import queue_of, queues_of
from workers.acknowledge import QoS

OFF_VARIABLE = "CHAOS_OFF"
VERSION_VARIABLE = "CHAOS_LINK_VERSION"
LINKS_CODE = code()
"""That of all other processes, whatever this one is told to compute links with."""


def install() -> None:
    """Switch off what this process is told to; called in a worker's parent, before it forks."""
    Link.version = int(os.environ.get(VERSION_VARIABLE, Link.version))
    for name in filter(None, os.environ.get(OFF_VARIABLE, "").split(",")):
        switches = {
            "fence": fence_off,
            "code": code_off,
            "watchdog": watchdog_off,
            "letting-go": letting_go_off,
        }
        switches[name]()


def code_off() -> None:
    """A claim takes a job of any code, and the worker listens where others' doorbells ring."""
    claim = tasks.job_task.claim

    def of_any_code(session: Session, job_id: int, worker: Worker, turns: Turns) -> Claim | None:
        wanted = session.scalar(select(Job.code).where(Job.id == job_id))
        return claim(session, job_id, replace(worker, codes=(*worker.codes, wanted or "")), turns)

    tasks.job_task.claim = of_any_code
    workers.process.queues_of = _of_any_link


def _of_any_link(queue: str) -> list[str]:
    return [*queues_of(queue), queue_of(queue, LINKS_CODE)]


def watchdog_off() -> None:
    """A process that was stopped for many leases goes on."""
    tasks.heartbeat.HANG_SECONDS = 24 * 3600.0


def letting_go_off() -> None:
    """A message that could not be acknowledged stays with its worker."""
    QoS.ack = redis.QoS.ack

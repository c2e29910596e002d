"""What a stage's function is given and what it returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine

from db.artifacts import ArtifactStore, BadArtifact, CheckpointFile, Tensors
from db.engine import write
from db.jobs import Claim, JobInput, Rows, renew, saved_progress
from tasks.heartbeat import LeaseLost


class TaskError(Exception):
    """Root of the errors by which a stage ends its attempt without a result."""


class InputBad(TaskError):
    """An input's artifact is missing or altered; it must be made again before this job runs."""

    def __init__(self, source: JobInput, reason: str) -> None:
        super().__init__(reason)
        self.source = source


class Refused(TaskError):
    """The job cannot succeed however often it is tried."""


@dataclass(frozen=True)
class Input:
    """One parent's artifact."""

    source: JobInput
    store: ArtifactStore

    @property
    def params(self) -> Mapping[str, Any]:
        """The parent's own parameters, as stored."""
        return self.source.params

    def load(self) -> Tensors:
        """Its arrays, checked against their digest."""
        if self.source.uri is None or self.source.sha256 is None:
            raise InputBad(self.source, f"job {self.source.job_id} has no artifact")
        try:
            return self.store.read(self.source.uri, self.source.sha256)
        except BadArtifact as error:
            raise InputBad(self.source, str(error)) from None


@dataclass(frozen=True)
class JobContext:
    """All that a stage's function may reach besides its parameters."""

    claim: Claim
    engine: Engine
    store: ArtifactStore

    def inputs(self, stage: str, **params: Any) -> list[Input]:
        """The parents of one stage with these parameters, in the order of the plan."""
        return [
            Input(source, self.store)
            for source in self.claim.inputs
            if source.stage == stage and all(source.params[name] == value for name, value in params.items())
        ]

    def input(self, *stages: str, **params: Any) -> Input:
        """The one parent with these parameters, of any of the stages; ValueError unless there is exactly one."""
        (only,) = [source for stage in stages for source in self.inputs(stage, **params)]
        return only

    @property
    def checkpoint(self) -> "SavedProgress":
        """Where a long training keeps its last epoch."""
        return SavedProgress(self.store.checkpoint(self.claim.key, self.claim.writer), self)


@dataclass(frozen=True)
class SavedProgress:
    """A checkpoint that resets the count of lost workers when saved; a fenced-out attempt stops there."""

    file: CheckpointFile
    context: JobContext

    def load(self) -> tuple[Tensors, dict[str, str]] | None:
        """Tensors and metadata of the last saved epoch; None where there is none."""
        return self.file.load()

    def save(self, tensors: Tensors, metadata: dict[str, str]) -> None:
        """Replace the checkpoint; raises ``LeaseLost`` if the attempt is fenced out."""
        claim = self.context.claim
        # before the file: a fenced-out attempt must not replace its successor's checkpoint
        if not write(self.context.engine, lambda session: renew(session, claim)):
            raise LeaseLost
        self.file.save(tensors, metadata)
        # after it: what counts is on disk
        write(self.context.engine, lambda session: saved_progress(session, claim))

    def delete(self) -> None:
        """Delete the checkpoint."""
        self.file.delete()


@dataclass(frozen=True)
class Output:
    """Arrays for other jobs, rows for people, or both."""

    tensors: Tensors | None = None
    rows: Rows = field(default_factory=dict)

"""The artifact store: immutable safetensors files named by their own SHA-256, and training checkpoints.

Files are written atomically: temporary name, fsync, rename, fsync of the folder. Every read checks the digest.
"""

import hashlib
import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from safetensors.numpy import load, save

from db.errors import StorageError

log = logging.getLogger(__name__)

Tensors = dict[str, np.ndarray]
DIGEST_BYTES = 32


class BadArtifact(StorageError):
    """A stored file is missing or not what was written."""


@dataclass(frozen=True)
class StoredFile:
    """A file in the store: ``uri`` is relative to the store's root."""

    uri: str
    sha256: str
    bytes: int


class ArtifactStore:
    """A folder that all workers of a cluster share."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("", "file") or parts.netloc:
            raise ValueError(f"artifact store '{url}': use a folder or file:///FOLDER.")
        # a path as a URL has its spaces and umlauts percent-encoded
        self.root = Path(unquote(parts.path)).absolute()
        for folder in ("files", "temporary", "checkpoints"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def write(self, tensors: Tensors, writer: str) -> StoredFile:
        """Store arrays; ``writer`` (job and attempt) names the temporary file."""
        # not ascontiguousarray, which gives a scalar a dimension: BatchNorm's counters are scalars
        return self.write_bytes(save({name: np.asarray(t, order="C") for name, t in tensors.items()}), writer)

    def write_bytes(self, content: bytes, writer: str) -> StoredFile:
        """Store bytes unchanged."""
        digest = hashlib.sha256(content).hexdigest()
        uri = uri_of(digest)
        self._replace(uri, content, writer)
        return StoredFile(uri, digest, len(content))

    def read(self, uri: str, sha256: str) -> Tensors:
        """The arrays of a stored file; raises ``BadArtifact`` when it is missing or altered."""
        return load(self.read_bytes(uri, sha256))

    def read_bytes(self, uri: str, sha256: str) -> bytes:
        """The content of a stored file, checked as ``read`` does."""
        try:
            content = (self.root / uri).read_bytes()
        except FileNotFoundError:
            raise BadArtifact(f"artifact {uri} is missing") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BadArtifact(f"artifact {uri} is not what was written")
        return content

    def set_aside(self, uri: str) -> None:
        """Rename a bad file, kept for inspection; one that has been rewritten since stays."""
        path = self.root / uri
        # another reader may have set it aside already, or the file was missing from the start
        with suppress(FileNotFoundError):
            # checked once more, since its job may have made it again by now
            if hashlib.sha256(path.read_bytes()).hexdigest() != path.stem:
                path.replace(path.with_suffix(".bad"))

    def checkpoint(self, key: str, writer: str) -> "CheckpointFile":
        """The training checkpoint of a key."""
        return CheckpointFile(self, f"checkpoints/{key}.checkpoint", writer)

    def temporary_files(self) -> list[tuple[int, int, Path]]:
        """(job, attempt, path) of every temporary file."""
        found = []
        for path in (self.root / "temporary").iterdir():
            job, _, attempt = path.stem.partition(".")
            # others belong to no attempt: weights are stored by the command that submits them
            if job.isdigit() and attempt.isdigit():
                found.append((int(job), int(attempt), path))
        return found

    def checkpoint_files(self) -> list[tuple[str, Path]]:
        """(key, path) of every checkpoint."""
        return [(path.stem, path) for path in (self.root / "checkpoints").iterdir()]

    def _replace(self, uri: str, content: bytes, writer: str) -> None:
        path = self.root / uri
        path.parent.mkdir(exist_ok=True)
        # in the same file system as its target, or the rename would not be atomic
        temporary = self.root / "temporary" / f"{writer}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                # before the rename, or a crash of the machine could leave the name with half the content
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        # the database names this file next, and may survive a crash that the new name does not
        _sync_folder(path.parent)


def uri_of(sha256: str) -> str:
    """Where the file of this digest lies in any store."""
    # two digits spread the files over 256 folders
    return f"files/{sha256[:2]}/{sha256}.safetensors"


@dataclass(frozen=True)
class CheckpointFile:
    """Where one long training keeps its last epoch; deleted when the job is finished.

    A safetensors file with its SHA-256 appended: a damaged one must not change a result.
    """

    store: ArtifactStore
    uri: str
    writer: str

    def load(self) -> tuple[Tensors, dict[str, str]] | None:
        """Tensors and metadata of the last saved epoch; None where there is none, or a damaged one."""
        try:
            saved = (self.store.root / self.uri).read_bytes()
        except FileNotFoundError:
            return None
        content, digest = saved[:-DIGEST_BYTES], saved[-DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            log.warning("checkpoint %s is not what was written: the training starts over", self.uri)
            return None
        return load(content), _metadata(content)

    def save(self, tensors: Tensors, metadata: dict[str, str]) -> None:
        """Replace the checkpoint atomically."""
        contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
        # the digest is appended, since the name, a key, says nothing about the content
        content = save(contiguous, metadata)
        self.store._replace(self.uri, content + hashlib.sha256(content).digest(), self.writer)

    def delete(self) -> None:
        """Delete the checkpoint; it may be gone already."""
        (self.store.root / self.uri).unlink(missing_ok=True)


def _metadata(content: bytes) -> dict[str, str]:
    # safetensors: eight bytes of length, then a header in JSON, which its own load() does not hand out
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header.get("__metadata__", {}))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

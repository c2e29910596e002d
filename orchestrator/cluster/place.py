"""Where this command works: a private cluster under one home folder, or the three addresses of a shared one."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orchestrator.errors import UsageError
from tasks.variables import ARTIFACTS_VARIABLE, BROKER_VARIABLE, DATABASE_VARIABLE

if TYPE_CHECKING:
    from db.artifacts import ArtifactStore

HOME_VARIABLE = "ORCHESTRATOR_HOME"
# checked, since Celery takes any address: HOST:6379 becomes a RabbitMQ that never answers
BROKER_SCHEMES = ("redis", "rediss", "redis+socket")
SOCKET_PATH_LIMIT = 100
"""Systems limit Unix socket paths to 104 to 108 bytes."""


@dataclass(frozen=True)
class Place:
    """Addresses of broker, database and artifacts; ``home`` is None on a shared cluster."""

    home: Path | None
    broker_url: str
    database_url: str
    artifacts_url: str

    @property
    def variables(self) -> dict[str, str]:
        """What a worker of this place needs in its environment."""
        return {
            BROKER_VARIABLE: self.broker_url,
            DATABASE_VARIABLE: self.database_url,
            ARTIFACTS_VARIABLE: self.artifacts_url,
        }


def current_place(*, create: bool) -> Place:
    """The place that the environment names; by default a private one under ``.orchestrator``.

    ``create``: create the home's folders if they do not exist.
    """
    variables = (BROKER_VARIABLE, DATABASE_VARIABLE, ARTIFACTS_VARIABLE)
    missing = [name for name in variables if not os.environ.get(name)]
    if not missing:
        broker_url, database_url, artifacts_url = (os.environ[name] for name in variables)
        if urlsplit(broker_url).scheme not in BROKER_SCHEMES:
            raise UsageError(
                f"{BROKER_VARIABLE}: not a Redis or Valkey address. Use redis://:PASSWORD@HOST:6379/0."
            )
        return Place(None, broker_url, database_url, artifacts_url)
    if len(missing) < len(variables):
        raise UsageError(f"a shared cluster needs all three addresses; {' and '.join(missing)} is not set.")
    home = Path(os.environ.get(HOME_VARIABLE) or ".orchestrator").absolute()
    if create or home.exists():
        _make_folders(home)
    return Place(
        home,
        f"redis+socket://{socket_path(home)}",
        f"sqlite:///{home / 'orchestrator.db'}",
        (home / "artifacts").as_uri(),
    )


def refuse_shared(place: Place) -> None:
    """Raise ``UsageError`` on a shared cluster, for what only a private one needs."""
    if place.home is None:
        raise UsageError("this is a shared cluster; its workers are started with: orchestrator worker")


def refuse_private(place: Place) -> None:
    """Raise ``UsageError`` on a private cluster, for what it does by itself."""
    if place.home is not None:
        *others, last = place.variables
        raise UsageError(
            "a private cluster runs its own reconciler; "
            f"that of a shared one needs {', '.join(others)} and {last}."
        )


def _make_folders(home: Path) -> None:
    try:
        (home / "run").mkdir(parents=True, exist_ok=True, mode=0o700)
        # mkdir's mode does nothing for a folder that exists; the socket in it has no password
        (home / "run").chmod(0o700)
        (home / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"home '{home}': {error.strerror}. Set {HOME_VARIABLE} to a writable folder."
        ) from None


def socket_path(home: Path) -> Path:
    """Where the private Valkey listens: in the home's 0700 folder, or in a temporary one if that path is too long."""
    path = home / "run" / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    link = home / "run" / "socket-folder"
    # also where the link dangles, since temporary folders are cleaned away
    if not link.is_dir():
        link.unlink(missing_ok=True)
        # the link tells every later command which folder it was
        link.symlink_to(tempfile.mkdtemp(prefix="orchestrator-"), target_is_directory=True)
    return link.resolve() / "valkey.sock"


def open_store(place: Place) -> ArtifactStore:
    """The artifact store; raises ``UsageError`` if its folder cannot be written."""
    from db.artifacts import ArtifactStore  # numpy with it

    try:
        return ArtifactStore(place.artifacts_url)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"artifact store '{place.artifacts_url}': {error.strerror}.") from None

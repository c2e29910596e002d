"""Extract images from an untrusted tar file."""

import os
import shutil
import tarfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from orchestrator.errors import OrchestratorError

MAX_ENTRIES = 100_000
MAX_NAME = 1000
IMAGE_SUFFIX = ".jpg"


class ArchiveRefused(OrchestratorError):
    """The archive is broken, or contains what no dataset needs."""


def unpack_images(archive: Path, top: str, folder: Path) -> int:
    """Write every ``top/CLASS/FILE.jpg`` of an uncompressed tar to ``folder/CLASS/FILE.jpg``.

    ``folder`` is absolute, empty and used by nobody else. Other files are left out; returns how many. Every
    entry is checked: it must be a regular file or a folder with a relative, printable name without ``..``,
    unique even if case is ignored; and all entries together must be no larger than the archive itself. Raises
    ``ArchiveRefused`` for the first entry that is not; what was written before stays in ``folder``.
    """
    left_out = 0
    try:
        # the colon refuses compression: a small archive could otherwise unpack to any size
        with tarfile.open(archive, "r:") as tar:
            for member, path in _checked(tar, archive.stat().st_size):
                if member.isdir():
                    continue
                if len(path.parts) == 3 and path.parts[0] == top and path.suffix == IMAGE_SUFFIX:
                    _write(tar, member, folder / path.parts[1] / path.parts[2])
                else:
                    left_out += 1
    except (tarfile.TarError, EOFError, RecursionError) as error:
        raise ArchiveRefused(f"not a whole uncompressed tar file ({error})") from None
    return left_out


def _checked(tar: tarfile.TarFile, archive_bytes: int) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    """The entries one by one, each once it has been checked."""
    known: dict[str, tuple[PurePosixPath, bool]] = {}
    total = 0
    for number, member in enumerate(tar, start=1):
        path = _path(member)
        total += member.size
        if number > MAX_ENTRIES:
            raise ArchiveRefused(f"more than {MAX_ENTRIES:,} entries")
        if member.size < 0 or total > archive_bytes:
            raise _refused(member, "it unpacks to more than the archive holds")
        if not member.isdir() and _folded(path) in known:
            raise _refused(member, "its name occurs twice, if case is ignored")
        for part in (path, *path.parents):
            is_folder = part != path or member.isdir()
            earlier = known.setdefault(_folded(part), (part, is_folder))
            if earlier != (part, is_folder):
                raise _refused(member, f"it clashes with '{earlier[0]}'")
        yield member, path


def _path(member: tarfile.TarInfo) -> PurePosixPath:
    """The entry's path, if it is safe to write."""
    path = PurePosixPath(member.name)
    if not member.name.isprintable() or len(member.name) > MAX_NAME:
        raise _refused(member, "its name is not printable or too long")
    if path.is_absolute() or ".." in path.parts:
        raise _refused(member, "its name points outside the folder")
    if member.issparse() or not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        raise _refused(member, "it is neither a regular file nor a folder")
    return path


def _folded(path: PurePosixPath) -> str:
    """A form shared by all names that some file system treats as equal."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    # A class and a file name, neither of them "..", in a folder to which no link was ever written.
    target.parent.mkdir(exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None  # it is a regular file
    # O_EXCL: a name that the file system takes for an earlier one is an error, never an overwrite
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with source, open(descriptor, "wb") as file:
        shutil.copyfileobj(source, file)


def _refused(member: tarfile.TarInfo, why: str) -> ArchiveRefused:
    return ArchiveRefused(f"entry {member.name[:MAX_NAME]!r}: {why}")

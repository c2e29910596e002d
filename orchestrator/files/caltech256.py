"""Caltech-256, from its archive on the web to a folder that `--dataset` takes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from orchestrator.errors import InfrastructureError
from orchestrator.files.download import download
from orchestrator.files.folder import new_folder
from orchestrator.files.unpack import IMAGE_SUFFIX, ArchiveRefused, unpack_images


@dataclass(frozen=True)
class Archive:
    """A dataset as its authors publish it: an uncompressed tar of ``top/CLASS/FILE.jpg``."""

    name: str
    url: str
    md5: str
    """Of the tar file, in hexadecimal."""
    top: str
    classes: int
    images: int


CALTECH256 = Archive(
    name="Caltech-256",
    url="https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",
    md5="67b4f42ca05d46448c6bb8ecd2220f6d",
    top="256_ObjectCategories",
    classes=257,
    images=30_607,
)
"""The standard copy, at the address and with the digest that torchvision's Caltech256 names; with clutter."""


def fetch(archive: Archive, folder: Path, console: Console) -> None:
    """Write the dataset's class folders and images to ``folder``, atomically.

    The tar is downloaded to ``FOLDER.tar.part``, which the next call resumes; it is removed at the end, or if it
    is not the dataset. A folder that already holds the dataset is left unchanged. Raises ``UsageError`` for a
    folder that holds something else, ``InfrastructureError`` for whatever is the server's fault.
    """
    folder = folder.resolve()
    if folder.is_dir() and _count(folder) == (archive.classes, archive.images):
        console.print(f"{archive.name} is already in '{folder}'.", soft_wrap=True, markup=False)
        return
    with new_folder(folder) as content:
        part = folder.with_name(f"{folder.name}.tar.part")
        try:
            _download(archive, part, console)
        except KeyboardInterrupt:
            console.print(
                f"'{part}' is kept; run the same command again to resume.", soft_wrap=True, markup=False
            )
            raise
        try:
            _check_digest(archive, part)
            left_out = _unpack(archive, part, content, console)
        except InfrastructureError:
            part.unlink()
            raise
    part.unlink()
    found = f"{archive.images:,} images in {archive.classes} classes"
    console.print(f"{archive.name}: {found} in '{folder}'.", soft_wrap=True, markup=False)
    if left_out:
        console.print(f"{left_out} files of the archive are not images of a class and were left out.")


def _download(archive: Archive, part: Path, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"Downloading {archive.name}", total=None)
        download(archive.url, part, lambda have, whole: bar.update(task, completed=have, total=whole))


def _check_digest(archive: Archive, part: Path) -> None:
    with part.open("rb") as file:
        # MD5 is what is published; without the flag, hardened builds of Python refuse it
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if md5 != archive.md5:
        raise InfrastructureError(
            f"download of {archive.url}: its MD5 is {md5}, not {archive.md5}. It was removed; "
            "run the same command again to start over."
        )


def _unpack(archive: Archive, part: Path, content: Path, console: Console) -> int:
    """Fill ``content`` and count it; returns how many files of the archive were left out."""
    try:
        with console.status(f"Unpacking {archive.name}"):
            left_out = unpack_images(part, archive.top, content)
    except ArchiveRefused as error:
        raise _not_it(archive, str(error)) from None
    classes, images = _count(content)
    if (classes, images) != (archive.classes, archive.images):
        expected = f"{archive.images:,} in {archive.classes}"
        raise _not_it(archive, f"{images:,} images in {classes} class folders instead of {expected}")
    return left_out


def _not_it(archive: Archive, why: str) -> InfrastructureError:
    return InfrastructureError(
        f"{archive.name} from {archive.url}: {why}. Nothing was kept; check what is published there."
    )


def _count(folder: Path) -> tuple[int, int]:
    """Class folders, and images in them."""
    classes = [path for path in folder.iterdir() if path.is_dir()]
    return len(classes), sum(len(list(path.glob(f"*{IMAGE_SUFFIX}"))) for path in classes)

"""A folder of class folders as a dataset: every image is hashed, decoded once, labelled and assigned to a split."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

from early_exit.errors import EarlyExitError
from early_exit.images import MAX_BYTES, ImageError, check_decodes
from early_exit.splits import SPLITS, TEST, TRAIN, VALIDATION

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The suffixes that torchvision's ImageFolder accepts, in upper or lower case."""

MIN_CLASSES = 2
MIN_IMAGES = 10
"""Per class: of fewer images, the 10 % for validation and for test would be less than one image."""

SCAN_THREADS = min(4, os.cpu_count() or 1)
"""Pillow releases the interpreter's lock while it decodes. At most four, because one image may take 200 MB."""


class DatasetError(EarlyExitError, ValueError):
    """The dataset cannot be used; the message says what to change."""


class InputChanged(EarlyExitError, ValueError):
    """A file is no longer the one that was scanned."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{_printable(self.path)} changed since the dataset was scanned. Restore it, or submit again."


class _BadFile(Exception):
    """Why one file cannot be part of a dataset."""


@dataclass(frozen=True)
class ImageFile:
    """One image of a dataset."""

    #: place in the dataset's order, from 0
    index: int
    #: relative to the dataset's folder, with forward slashes
    path: str
    #: place of its class folder in the sorted list of them, from 0
    label: int
    #: train, validation or test
    split: str
    #: of the file's bytes, in hexadecimal
    sha256: str
    #: in bytes
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Dataset:
    """The images of a folder in ImageFolder's order."""

    root: Path
    classes: tuple[str, ...]
    images: tuple[ImageFile, ...]
    #: files that are not used: without an image suffix, or outside the class folders
    ignored: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 over each image's path, file digest, label and split, in order; in hexadecimal."""
        digest = hashlib.sha256()
        for image in self.images:
            # JSON, so that no path can look like two fields; a new modification time changes no image
            row = json.dumps([image.path, image.sha256, image.label, image.split])
            digest.update(row.encode() + b"\n")
        return digest.hexdigest()

    def of_split(self, split: str) -> tuple[ImageFile, ...]:
        """The images of one split, in index order; ValueError if there is no such split."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: it is one of {', '.join(SPLITS)}")
        return tuple(image for image in self.images if image.split == split)


def scan(
    root: Path, split: int | Mapping[str, str], known: Mapping[str, ImageFile] = MappingProxyType({})
) -> Dataset:
    """List, check, hash and split the images below ``root``, laid out as for torchvision's ImageFolder.

    ``split`` is the seed of ``split_class``, or the split of each path; it must then name exactly the dataset's paths.
    ``known`` maps paths to images of an earlier scan: a file with the same path, size and modification time
    is not opened again. Every other file is read once, hashed and fully decoded.
    Raises DatasetError if the folder or its classes cannot make a dataset, or if files are bad; the message then
    lists all of those.
    """
    classes, ignored = class_folders(root)
    listings = [_list_class(root, name) for name in classes]
    bad = [line for listing in listings for line in listing.bad]
    # where a folder could not be read, its counts and its split would be wrong
    if not bad:
        counts = {name: len(listing.paths) for name, listing in zip(classes, listings, strict=True)}
        if isinstance(split, int):
            _check_counts(root, counts, MIN_IMAGES)
        else:
            _check_counts(root, counts, 1)
            _check_split(root, split, [path for listing in listings for path in listing.paths])
    images: list[ImageFile] = []
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        for label, listing in enumerate(listings):
            splits = _splits(listing.paths, split, label)
            # gives results in the order of the paths, whichever thread is done first
            found = pool.map(lambda path: _examine(root, path, known.get(path)), listing.paths)
            for path, part, facts in zip(listing.paths, splits, found, strict=True):
                if isinstance(facts, str):
                    bad.append(f"{_printable(path)}: {facts}")
                else:
                    images.append(ImageFile(len(images), path, label, part, *facts))
    if bad:
        lines = "".join(f"\n{line}" for line in bad)
        raise _error(root, f"{len(bad)} of its files cannot be used", f"Repair or remove:{lines}")
    return Dataset(root, classes, tuple(images), ignored + sum(listing.ignored for listing in listings))


def split_class(images: int, split_seed: int, label: int) -> list[str]:
    """The split of each image of a class: 80 % train, 10 % validation, 10 % test (docs/paper.md §2).

    Train is rounded down, and so is validation as half of the rest; with ten images or more every split gets one.
    Depends on the arguments only, so that a change in one class moves no image of another.
    """
    train = images * 8 // 10
    validation = (images - train) // 2
    # the label is part of the seed: every class has a stream of its own
    order = np.random.default_rng([split_seed, label]).permutation(images)
    splits = [TEST] * images  # what the loop below does not assign
    for place, image in enumerate(order[: train + validation]):
        splits[image] = TRAIN if place < train else VALIDATION
    return splits


def read(root: Path, image: ImageFile) -> bytes:
    """The bytes of one image; raises InputChanged if they are not the scanned ones."""
    try:
        data, _ = _read_regular(root / image.path)
    except _BadFile as error:
        raise InputChanged(image.path) from error
    # the digest decides: size and time may survive a change
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise InputChanged(image.path)
    return data


@dataclass(frozen=True)
class _Listing:
    paths: list[str]
    bad: list[str]
    ignored: int


def class_folders(root: Path) -> tuple[tuple[str, ...], int]:
    """The sorted names of the class folders, and the number of files beside them.

    Raises DatasetError if ``root`` is not a folder of class folders; no file is opened.
    """
    try:
        with os.scandir(root) as found:
            entries = list(found)
    except FileNotFoundError:
        raise _error(
            root, "there is no such folder", "Give the folder that holds the class folders."
        ) from None
    except NotADirectoryError:
        raise _error(root, "it is not a folder", "Give the folder that holds the class folders.") from None
    except OSError as error:
        raise _error(root, f"it cannot be listed ({error.strerror})", "Make it readable.") from None
    if not entries:
        raise _error(root, "it is empty", "Put one folder of images per class into it.")
    # sorted as ImageFolder does: a class's place is its label
    classes = sorted(entry.name for entry in entries if entry.is_dir())
    if len(classes) < MIN_CLASSES:
        why = f"only one class folder, {_printable(classes[0])}" if classes else "it has no class folders"
        raise _error(root, why, f"Put at least {MIN_CLASSES} folders of images into it, one per class.")
    return tuple(classes), len(entries) - len(classes)


def _list_class(root: Path, name: str) -> _Listing:
    """The images of one class and of all folders below it, in torchvision's order.

    A link to a folder that is already listed is a bad entry, so that a loop of links ends.
    """
    bad: list[str] = []
    seen = {os.path.realpath(root)}
    folders: list[tuple[str, list[str]]] = []

    def unlistable(error: OSError) -> None:
        bad.append(f"{_printable(_relative(root, error.filename))}: cannot be listed ({error.strerror})")

    for folder, below, files in os.walk(root / name, followlinks=True, onerror=unlistable):
        below.sort()  # which of two links to one folder counts must not depend on the file system
        real = os.path.realpath(folder)
        if real in seen:
            bad.append(f"{_printable(_relative(root, folder))}: a link to a folder that is already listed")
            below.clear()  # the walk goes only into what is left in this list
            continue
        seen.add(real)
        folders.append((folder, files))
    # as torchvision does: the folders by path, then the files of each by name
    every = [
        _relative(root, os.path.join(folder, file))
        for folder, files in sorted(folders)
        for file in sorted(files)
    ]
    paths = [path for path in every if path.lower().endswith(SUFFIXES)]
    bad += [f"{_printable(path)}: its name is not UTF-8" for path in paths if not _is_utf8(path)]
    return _Listing([path for path in paths if _is_utf8(path)], bad, len(every) - len(paths))


def _check_counts(root: Path, counts: Mapping[str, int], least: int) -> None:
    few = {name: count for name, count in counts.items() if count < least}
    if few:
        lines = "".join(f"\n{_printable(name)}: {count} images" for name, count in few.items())
        what = f"A class needs at least {least}; add images or remove the folder:{lines}"
        raise _error(root, f"{len(few)} of {len(counts)} classes have too few images", what)


def _splits(paths: list[str], split: int | Mapping[str, str], label: int) -> list[str]:
    """The split of each image of a class; empty where the split names none, which only a refused dataset has."""
    if isinstance(split, int):
        return split_class(len(paths), split, label)
    return [split.get(path, "") for path in paths]


def _check_split(root: Path, split: Mapping[str, str], paths: list[str]) -> None:
    """Refuse a split that misses an image, names anything else, or leaves a part empty."""
    for what, names in (
        ("images are not in the split file", [path for path in paths if path not in split]),
        ("paths in the split file are not images of the dataset", list(split.keys() - set(paths))),
    ):
        if names:
            # some come from a set, which has no order
            first = ", ".join(_printable(name) for name in sorted(names)[:3])
            raise _error(root, f"{len(names)} {what}: {first}", "The file must name every image once.")
    for part in SPLITS:
        if part not in split.values():
            raise _error(root, f"the split file has no image for {part}", "Each part needs at least one.")


def _examine(root: Path, path: str, earlier: ImageFile | None) -> tuple[str, int, int] | str:
    """SHA-256, size and modification time of one file, or why it cannot be used."""
    try:
        if earlier is not None:
            now = (root / path).stat()
            # taken for unchanged without reading it; ``read`` compares the digest in any case
            if (now.st_size, now.st_mtime_ns) == (earlier.size, earlier.mtime_ns):
                return earlier.sha256, earlier.size, earlier.mtime_ns
        data, opened = _read_regular(root / path)
        check_decodes(data)
    except (_BadFile, ImageError) as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return hashlib.sha256(data).hexdigest(), opened.st_size, opened.st_mtime_ns


def _read_regular(path: Path) -> tuple[bytes, os.stat_result]:
    """The bytes and status of a regular file, following links; does not block on a FIFO."""
    # without O_NONBLOCK, opening a FIFO would wait for its writer
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        # of the open file: the path may name another one by now
        opened = os.fstat(file.fileno())
        if not stat.S_ISREG(opened.st_mode):
            raise _BadFile("not a regular file")
        if opened.st_size > MAX_BYTES:
            raise _BadFile(f"{opened.st_size:,} bytes; at most {MAX_BYTES:,} are read")
        # a byte more than allowed: a file that grows meanwhile is noticed below
        data = file.read(MAX_BYTES + 1)
    if len(data) != opened.st_size:
        raise _BadFile("it changed while it was being read")
    return data, opened


def _error(root: Path, why: str, what_to_do: str) -> DatasetError:
    return DatasetError(f"dataset {str(root)!r}: {why}. {what_to_do}")


def _relative(root: Path, path: str) -> str:
    return Path(path).relative_to(root).as_posix()


def _is_utf8(path: str) -> bool:
    try:
        path.encode()  # undecodable bytes of a name arrive as lone surrogates
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: str) -> str:
    """The path on one line, whatever a file is called."""
    return path if path.isprintable() else ascii(path)

"""A folder that is written atomically."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.locks import lock


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder`` that replaces it at the end and is removed on any error.

    ``folder`` is absolute; it may exist if it is empty. Leftovers of a killed command are removed. Raises
    ``UsageError`` if ``folder`` is not empty or another command is writing it.
    """
    _refuse_filled(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # in the same parent, or the rename would not be atomic
    beside = folder.with_name(f".{folder.name}.unfinished")
    beside.mkdir(exist_ok=True)
    with lock(beside / "lock") as held:
        # the lock, not the folder, says that somebody is at work: a killed command leaves the folder behind
        if held is None:
            raise UsageError(
                f"'{folder}': another command is writing it. Wait for it, or name another folder."
            )
        content = beside / "content"
        try:
            if content.exists():
                shutil.rmtree(content)
            content.mkdir()
            yield content
            os.sync()  # otherwise a crash of the machine could leave the name without the files
            # again, since writing may have taken minutes; an empty folder is replaced by the rename
            _refuse_filled(folder)
            content.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _refuse_filled(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}': it is a file. Name a new or empty folder.")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"'{folder}': the folder is not empty. Name a new or empty one.")

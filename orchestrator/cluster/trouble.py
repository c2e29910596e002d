"""What is wrong with a private cluster: one line, which its supervisor writes and commands show."""

from contextlib import suppress
from pathlib import Path


def tell(home: Path, line: str) -> None:
    """Write the line down, or that nothing is wrong if it is empty; on a full disk nobody is told."""
    path = _path(home)
    with suppress(OSError):
        if line:
            path.write_text(line)
        else:
            path.unlink(missing_ok=True)


def told(home: Path) -> str:
    """The line; empty if nothing is wrong."""
    try:
        return _path(home).read_text()
    except OSError:
        return ""


def _path(home: Path) -> Path:
    return home / "run" / "trouble"

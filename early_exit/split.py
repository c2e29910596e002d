"""A fixed split: a CSV file that assigns every image to train, validation or test."""

import csv
import io
from pathlib import Path

from early_exit.dataset import DatasetError
from early_exit.splits import SPLITS

MAX_BYTES = 100_000_000
COLUMNS = ["path", "split"]


def read_split(file: Path) -> tuple[dict[str, str], bytes]:
    """The split of each path, and the file's bytes.

    The file is UTF-8 with the header ``path,split``; paths are relative to the dataset's folder, with forward
    slashes, and listed once each. Raises DatasetError naming the first invalid line. The paths are compared with
    a dataset's by ``early_exit.dataset.scan``.
    """
    try:
        with file.open("rb") as opened:
            # a byte more than allowed shows that the file is too long
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise _error(file, f"cannot be read ({error.strerror})") from None
    if len(content) > MAX_BYTES:
        raise _error(file, f"larger than {MAX_BYTES:,} bytes")
    try:
        # spreadsheets put a byte order mark first
        return _parse(file, content.decode("utf-8-sig")), content
    except (UnicodeDecodeError, csv.Error) as error:
        raise _error(file, f"not CSV in UTF-8 ({error})") from None


def _parse(file: Path, text: str) -> dict[str, str]:
    # line ends stay as they are: a quoted path may hold one
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    if next(rows, None) != COLUMNS:
        raise _error(file, f"its first line is not '{','.join(COLUMNS)}'")
    splits: dict[str, str] = {}
    for row in rows:
        if not row:  # an empty line
            continue
        if len(row) != len(COLUMNS):
            raise _error(file, f"line {rows.line_num} has {len(row)} columns, not {len(COLUMNS)}")
        path, split = row
        if split not in SPLITS:
            raise _error(file, f"line {rows.line_num}: {split!r} is not one of {', '.join(SPLITS)}")
        if path in splits:
            raise _error(file, f"line {rows.line_num} names {path!r} again")
        splits[path] = split
    return splits


def _error(file: Path, why: str) -> DatasetError:
    return DatasetError(
        f"split {str(file)!r}: {why}. Give a CSV file with the columns path,split and one line per image."
    )

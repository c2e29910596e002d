"""Download a file, resuming where an earlier try stopped."""

from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from orchestrator.errors import InfrastructureError

TIMEOUT_SECONDS = 60
"""A server that sends nothing for this long is considered gone."""
MAX_BYTES = 4_000_000_000
RANGE_NOT_SATISFIABLE = 416
PARTIAL_CONTENT = 206


def download(url: str, part: Path, progress: Callable[[int, int | None], None]) -> None:
    """Append to ``part`` what it lacks of ``url``; what has arrived stays there, however this ends.

    If the server cannot resume, the download starts over. ``progress`` is called with the bytes so far and the
    total, if the server tells it. The caller verifies the content: a part that is longer than the file is left
    unchanged. Raises ``InfrastructureError`` if the server is out of reach, refuses, ends early or sends more
    than ``MAX_BYTES``.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with urlopen(Request(url, headers=headers), timeout=TIMEOUT_SECONDS) as response:
            start = _start(response, have)
            whole = None if response.length is None else start + response.length
            arrived = _append(response, part, start, lambda bytes_: progress(bytes_, whole))
    except HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE and have:
            return  # the part is complete
        raise _error(url, f"the server answered {error.code} {error.reason}", "Try again later.") from None
    except URLError as error:
        raise _error(url, f"out of reach ({error.reason})", "Check the network and try again.") from None
    except (HTTPException, TimeoutError, ConnectionError) as error:
        raise _cut(url, part, f"{type(error).__name__}: {error}") from None
    if whole is not None and arrived < whole:
        raise _cut(url, part, f"the server stopped at {arrived:,} of {whole:,} bytes")


def _start(response: HTTPResponse, have: int) -> int:
    """The offset in the file at which the response begins."""
    if response.status != PARTIAL_CONTENT:
        return 0
    # bytes of another place would be noticed by the digest only, after the whole download
    if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise HTTPException(f"asked for bytes {have}-, got {response.headers.get('Content-Range')}")
    return have


def _append(response: HTTPResponse, part: Path, start: int, progress: Callable[[int], None]) -> int:
    """Write the response to ``part`` from ``start`` on; returns the new length."""
    arrived = start
    with part.open("ab") as file:
        # to nothing where the server began from the start again
        file.truncate(start)
        # read1 hands out what has arrived, so that a slow download is kept and shown as it comes
        while block := response.read1(1 << 18):
            arrived += len(block)
            if arrived > MAX_BYTES:
                part.unlink()
                raise _error(
                    response.url,
                    f"more than {MAX_BYTES:,} bytes",
                    "This is not the expected file. Nothing was kept.",
                )
            file.write(block)
            progress(arrived)
    return arrived


def _error(url: str, why: str, what_to_do: str) -> InfrastructureError:
    return InfrastructureError(f"download of {url}: {why}. {what_to_do}")


def _cut(url: str, part: Path, why: str) -> InfrastructureError:
    return _error(url, f"cut off ({why})", f"'{part}' is kept; run the same command again to resume.")

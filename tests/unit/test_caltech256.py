"""From a server to a folder: the archive's layout, resumption, and everything that must leave no folder."""

import hashlib
import io
import tarfile
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.errors import InfrastructureError, UsageError
from orchestrator.files.caltech256 import CALTECH256, Archive, fetch
from orchestrator.files.download import download

FILES = {
    "top/001.ape/001_0001.jpg": b"first ape" * 9000,
    "top/001.ape/001_0002.jpg": b"second ape",
    "top/056.dog/056_0001.jpg": b"dog" * 7000,
    "top/198.spider/198_0001.jpg": b"spider",
    "top/198.spider/RENAME2": b"#!/usr/bin/perl",
}


def tar_of(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name in ("top/056.dog/greg", "top/056.dog/greg/vision309"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
    return stream.getvalue()


@dataclass
class Served:
    """What the server holds, and how it behaves."""

    content: bytes
    cut_at: int | None = None
    """Ends every answer at this place of the file, as a lost connection does."""
    ranges: bool = True
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def served():
    """A server on the loopback interface that holds one small archive."""
    held = Served(tar_of(FILES))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            held.asked.append(wanted)
            size = len(held.content)
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and held.ranges else 0
            if start >= size:
                self.send_error(416)
                return
            self.send_response(206 if wanted and held.ranges else 200)
            if wanted and held.ranges:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - start))
            self.end_headers()
            self.wfile.write(held.content[start : held.cut_at])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        held.url = f"http://127.0.0.1:{server.server_port}/top.tar"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield held
        server.shutdown()
        thread.join()


@pytest.fixture
def archive(served):
    return Archive("Apes", served.url, hashlib.md5(served.content).hexdigest(), "top", classes=3, images=4)


@pytest.fixture
def place(tmp_path):
    """A folder to download into; everything that a test makes lies in its parent."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "apes"


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


IMAGES = {name.removeprefix("top/"): content for name, content in FILES.items() if name.endswith(".jpg")}


def test_the_constants_are_those_of_torchvision():
    """Read, not imported, which takes seconds."""
    (folder,) = find_spec("torchvision").submodule_search_locations
    source = Path(folder, "datasets", "caltech.py").read_text().partition("class Caltech256")[2]
    assert f'"{CALTECH256.url}"' in source
    assert f'md5="{CALTECH256.md5}"' in source
    assert f'"{CALTECH256.top}"' in source
    assert (CALTECH256.classes, CALTECH256.images) == (257, 30_607)


def test_a_whole_download_leaves_the_class_folders_and_nothing_else(archive, place, console):
    fetch(archive, place, console)
    assert contents(place.parent) == {f"apes/{name}": content for name, content in IMAGES.items()}
    assert sorted(path.name for path in place.iterdir()) == ["001.ape", "056.dog", "198.spider"]
    said = console.file.getvalue().splitlines()
    assert said[0] == f"Apes: 4 images in 3 classes in '{place}'."
    assert said[1].startswith("1 files of the archive are not images")


def test_a_second_call_says_so_and_asks_for_nothing(archive, place, console, served):
    fetch(archive, place, console)
    fetch(archive, place, console)
    assert len(served.asked) == 1
    assert console.file.getvalue().splitlines()[-1] == f"Apes is already in '{place}'."


def test_a_cut_download_is_resumed(archive, place, console, served):
    served.cut_at = 50_000
    with pytest.raises(
        InfrastructureError, match=r"stopped at 50,000 of [\d,]+ bytes.*again to resume"
    ) as caught:
        fetch(archive, place, console)
    assert "\n" not in str(caught.value)
    assert contents(place.parent) == {"apes.tar.part": served.content[:50_000]}
    served.cut_at = 70_000
    with pytest.raises(InfrastructureError, match="stopped at 70,000 of"):
        fetch(archive, place, console)
    served.cut_at = None
    fetch(archive, place, console)
    assert served.asked == [None, "bytes=50000-", "bytes=70000-"]
    assert contents(place) == IMAGES


def test_a_server_that_ignores_ranges_starts_anew(archive, place, console, served):
    place.with_name("apes.tar.part").write_bytes(b"x" * 50_000)
    served.ranges = False
    fetch(archive, place, console)
    assert served.asked == ["bytes=50000-"]
    assert contents(place) == IMAGES


def test_a_part_that_is_whole_already_is_unpacked(archive, place, console, served):
    place.with_name("apes.tar.part").write_bytes(served.content)
    fetch(archive, place, console)
    assert served.asked == [f"bytes={len(served.content)}-"]
    assert contents(place.parent) == {f"apes/{name}": content for name, content in IMAGES.items()}


def test_a_wrong_checksum_leaves_nothing(archive, place, console, served):
    served.content = served.content[:1000] + b"!" + served.content[1001:]
    with pytest.raises(InfrastructureError, match=rf"MD5 is [0-9a-f]{{32}}, not {archive.md5}"):
        fetch(archive, place, console)
    assert list(place.parent.iterdir()) == []


def test_a_file_that_is_far_too_long_is_not_kept(archive, place, console, served, monkeypatch):
    monkeypatch.setattr("orchestrator.files.download.MAX_BYTES", len(served.content) - 1)
    with pytest.raises(
        InfrastructureError,
        match=r"more than [\d,]+ bytes\. This is not the expected file\. Nothing was kept\.",
    ):
        fetch(archive, place, console)
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"classes": 4}, "4 images in 3 class folders instead of 4 in 4"),
        ({"images": 5}, "4 images in 3 class folders instead of 5 in 3"),
        ({"top": "other"}, "0 images in 0 class folders instead of 4 in 3"),
    ],
)
def test_wrong_counts_are_named_and_leave_nothing(archive, place, console, changes, why):
    with pytest.raises(InfrastructureError, match=why):
        fetch(replace(archive, **changes), place, console)
    assert list(place.parent.iterdir()) == []


def test_an_archive_that_leads_out_of_the_folder_leaves_nothing(archive, place, console, served):
    served.content = tar_of({"top/001.ape/../../../outside.jpg": b"x"})
    with pytest.raises(InfrastructureError, match=r"Apes from http.*outside\.jpg': its name points outside"):
        fetch(replace(archive, md5=hashlib.md5(served.content).hexdigest()), place, console)
    assert list(place.parent.parent.iterdir()) == [place.parent]
    assert list(place.parent.iterdir()) == []


def test_ctrl_c_keeps_what_has_come(archive, place, console, served, monkeypatch):
    """Raised where the signal's handler raises it: between two blocks."""
    served.cut_at = 60_000
    arrived = []

    def interrupted(url, part, progress):
        def press(have, whole):
            progress(have, whole)
            arrived.append(have)
            raise KeyboardInterrupt

        download(url, part, press)

    monkeypatch.setattr("orchestrator.files.caltech256.download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(archive, place, console)
    (have,) = arrived
    assert contents(place.parent) == {"apes.tar.part": served.content[:have]}
    assert "apes.tar.part' is kept; run the same command again to resume." in console.file.getvalue()
    monkeypatch.undo()
    served.cut_at = None
    fetch(archive, place, console)
    assert served.asked[-1] == f"bytes={have}-"
    assert contents(place) == IMAGES


def test_a_folder_that_holds_something_else_is_refused_before_the_download(archive, place, console, served):
    place.mkdir()
    (place / "mine").write_text("mine")
    with pytest.raises(UsageError, match="the folder is not empty"):
        fetch(archive, place, console)
    assert served.asked == []
    assert contents(place.parent) == {"apes/mine": b"mine"}


def test_a_server_that_is_not_there_or_has_no_such_file_is_named(archive, place, console, served):
    served.content = b""  # it answers 416 to all
    with pytest.raises(InfrastructureError, match="the server answered 416"):
        fetch(archive, place, console)
    with pytest.raises(InfrastructureError, match=r"out of reach \(.*refused"):
        fetch(replace(archive, url="http://127.0.0.1:9/top.tar"), place, console)
    assert list(place.parent.iterdir()) == []

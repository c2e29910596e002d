"""Archives that nobody has to trust: every hostile one is refused by name, and nothing lies outside the folder."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest

import orchestrator.files.unpack
from orchestrator.files.unpack import ArchiveRefused, unpack_images

GOOD = ("top/ape/1.jpg", b"ape")


def entry(name, content=b"", **columns):
    """One entry of a tar; ``columns`` overwrite what its header says."""
    made = tarfile.TarInfo(name)
    made.size = len(content)
    for column, value in columns.items():
        setattr(made, column, value)
    return made, content


def tar_of(*entries, form=tarfile.PAX_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for made, content in entries:
            tar.addfile(made, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def unpack(tmp_path):
    """``unpack(bytes)``: (files left out, what lies in the folder); nothing may lie outside of it."""
    place = tmp_path / "place"
    folder = place / "folder"
    folder.mkdir(parents=True)
    archive = tmp_path / "archive.tar"

    def run(content):
        archive.write_bytes(content)
        try:
            left_out = unpack_images(archive, "top", folder)
        finally:
            assert list(place.iterdir()) == [folder]
            assert sorted(tmp_path.iterdir()) == [archive, place]
            assert all(path.is_dir() or not path.is_symlink() for path in folder.rglob("*"))
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
        return left_out, files

    return run


def test_images_are_written_and_other_files_counted(unpack):
    content = tar_of(
        entry("top", type=tarfile.DIRTYPE),
        entry("./top/ape", type=tarfile.DIRTYPE),
        entry(*GOOD, mode=0o4777, uid=0),
        entry("top/ape/1.txt", b"text"),
        entry("top/ape/deeper/2.jpg", b"deep"),
        entry("top/3.jpg", b"no class"),
        entry("other/ape/4.jpg", b"elsewhere"),
    )
    assert unpack(content) == (4, {"ape/1.jpg": b"ape"})


def test_modes_and_owners_are_not_taken_over(unpack, tmp_path):
    unpack(tar_of(entry(*GOOD, mode=0o6777, uid=12345)))
    found = (tmp_path / "place" / "folder" / "ape" / "1.jpg").stat()
    assert found.st_mode & 0o7111 == 0
    assert found.st_uid == os.getuid()


def sparse():
    """A file of 10 GB that takes up no room in the archive."""
    made, _ = entry("top/ape/2.jpg")
    made.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(10**10),
        "GNU.sparse.map": f"{10**10},0",
    }
    return made, b""


HOSTILE = {
    "absolute": ([entry("/tmp/outside.jpg", b"x")], "points outside"),
    "parent": ([entry("top/ape/../../../outside.jpg", b"x")], "points outside"),
    "parent within": ([entry("top/ape/../bee/1.jpg", b"x")], "points outside"),
    "parent folder": ([entry("../outside", type=tarfile.DIRTYPE)], "points outside"),
    "symlink out": ([entry("top/ape", type=tarfile.SYMTYPE, linkname="/tmp")], "neither a regular file"),
    "symlink then write": (
        [
            entry("top/bee", type=tarfile.SYMTYPE, linkname="../../outside"),
            entry("top/bee/1.jpg", b"x"),
        ],
        "neither a regular file",
    ),
    "symlinked image": (
        [entry("top/ape/2.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
        "neither a regular file",
    ),
    "hard link": (
        [entry("top/ape/2.jpg", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
        "neither a regular file",
    ),
    "pipe": ([entry("top/ape/2.jpg", type=tarfile.FIFOTYPE)], "neither a regular file"),
    "character device": ([entry("top/ape/2.jpg", type=tarfile.CHRTYPE)], "neither a regular file"),
    "block device": ([entry("top/ape/2.jpg", type=tarfile.BLKTYPE)], "neither a regular file"),
    "unknown type": ([entry("top/ape/2.jpg", b"x", type=b"Z")], "neither a regular file"),
    "sparse": ([sparse()], "neither a regular file"),
    "twice": ([entry("top/ape/1.jpg", b"other")], "its name occurs twice"),
    "twice in other words": ([entry("./top//ape/1.jpg", b"other")], "its name occurs twice"),
    "case of a file": ([entry("top/ape/1.JPG", b"other")], "its name occurs twice"),
    "case of a folder": ([entry("top/APE/2.jpg", b"other")], "clashes with 'top/ape'"),
    "composed and decomposed": (
        [entry("top/caf\u00e9/1.jpg", b"x"), entry("top/cafe\u0301/2.jpg", b"x")],
        "clashes with 'top/caf\u00e9'",
    ),
    "a folder that is a file": ([entry("top/ape/1.jpg", type=tarfile.DIRTYPE)], "clashes with"),
    "below a file": ([entry("top/ape/1.jpg/2.jpg", b"x")], "clashes with 'top/ape/1.jpg'"),
    "a line break": ([entry("top/ape/1\n2.jpg", b"x")], "not printable"),
    "an escape sequence": ([entry("top/ape/\x1b[2J.jpg", b"x")], "not printable"),
    "a long name": ([entry("top/ape/" + "d/" * 600 + "2.jpg", b"x")], "too long"),
}


@pytest.mark.parametrize(("entries", "why"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_by_name(unpack, entries, why):
    with pytest.raises(ArchiveRefused, match=why) as caught:
        unpack(tar_of(entry(*GOOD), *entries))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("entry '")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_a_file_below_a_link_is_refused_in_every_tar_format(unpack, form):
    link = entry("top/bee", type=tarfile.SYMTYPE, linkname="..")
    with pytest.raises(ArchiveRefused, match="'top/bee': it is neither"):
        unpack(tar_of(link, entry("top/bee/outside.jpg", b"x"), form=form))


def test_a_header_that_promises_more_than_the_archive_holds_is_refused(unpack):
    made, _ = entry("top/ape/2.jpg", size=10**12)
    content = made.tobuf(tarfile.GNU_FORMAT) + bytes(10240)
    with pytest.raises(ArchiveRefused, match="unpacks to more than the archive holds"):
        unpack(content)


def test_a_negative_size_is_refused(unpack):
    header = bytearray(entry("top/ape/2.jpg")[0].tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512 in base 256
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    with pytest.raises(ArchiveRefused, match=r"holds|not a whole"):
        unpack(bytes(header) + bytes(10240))


def test_a_cut_archive_is_refused(unpack):
    content = tar_of(entry(*GOOD), entry("top/ape/2.jpg", b"x" * 5000))
    with pytest.raises(ArchiveRefused, match=r"not a whole uncompressed tar|more than the archive holds"):
        unpack(content[:3000])


def test_too_many_entries_are_refused(unpack, monkeypatch):
    monkeypatch.setattr(orchestrator.files.unpack, "MAX_ENTRIES", 3)
    images = [entry(f"top/ape/{number}.jpg", b"x") for number in range(4)]
    assert unpack(tar_of(*images[:3]))[0] == 0
    with pytest.raises(ArchiveRefused, match="more than 3 entries"):
        unpack(tar_of(*[entry(f"top/bee/{number}.jpg", b"x") for number in range(4)]))


def zip_of(name, content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404</html>",
        gzip.compress(tar_of(entry(*GOOD)) + bytes(10**6)),
        zip_of("top/ape/1.jpg", b"x"),
    ],
    ids=["empty", "a page", "compressed", "zip"],
)
def test_what_is_no_plain_tar_is_refused(unpack, content):
    with pytest.raises(ArchiveRefused, match="not a whole uncompressed tar file"):
        unpack(content)

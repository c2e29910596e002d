import pytest

from early_exit.dataset import DatasetError
from early_exit.split import read_split


@pytest.fixture
def write(tmp_path):
    """``write(text)``: a split file."""

    def make(text):
        (tmp_path / "split.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / "split.csv"

    return make


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "with a byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["Unix", "Windows"])
def test_paths_and_splits_are_read_as_csv(write, start, end):
    lines = ["path,split", "ape/1.jpg,train", "ape/\u00e9.jpg,validation", '"a, ""b""/1.jpg",test', ""]
    splits, content = read_split(write(start + end.join(lines)))
    assert splits == {"ape/1.jpg": "train", "ape/\u00e9.jpg": "validation", 'a, "b"/1.jpg': "test"}
    assert content == (start + end.join(lines)).encode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "its first line is not 'path,split'"),
        ("ape/1.jpg,train\n", "its first line is not 'path,split'"),
        ("path,split\na,train\nb,dev\n", "line 3: 'dev' is not one of train, validation, test"),
        ("path,split\na,train\nb,test\na,test\n", "line 4 names 'a' again"),
        ("path,split\na,train,1\n", "line 2 has 3 columns, not 2"),
        ("path,split\na\n", "line 2 has 1 columns, not 2"),
        ('path,split\n"a,train\n', "not CSV in UTF-8 (unexpected end of data)"),
        (b"path,split\n\xff,train\n", "not CSV in UTF-8 ('utf-8' codec can't decode"),
    ],
)
def test_what_is_no_split_is_refused_with_its_line(write, text, why):
    with pytest.raises(DatasetError) as caught:
        read_split(write(text))
    assert str(caught.value).startswith(f"split '{write(text)}': {why}")
    assert str(caught.value).endswith(". Give a CSV file with the columns path,split and one line per image.")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.csv': cannot be read \(No such file or directory\)"):
        read_split(tmp_path / "none.csv")

"""The artifact store: whole files or none, named by their content, checked at every read."""

import hashlib
import threading

import numpy as np
import pytest

from db.artifacts import ArtifactStore, BadArtifact, uri_of

TENSORS = {
    "logits": np.arange(12, dtype=np.float32).reshape(3, 4),
    "labels": np.array([7, 8, 9], dtype=np.int64),
    "temperature": np.array(1.5),
    "none": np.zeros((0, 4), dtype=np.uint8),
}


@pytest.fixture
def stored(store):
    return store.write(TENSORS, "12.3")


def test_arrays_come_back_equal_to_the_bit(store, stored):
    loaded = store.read(stored.uri, stored.sha256)
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert loaded[name].tobytes() == tensor.tobytes()


def test_an_array_with_gaps_in_memory_is_stored_as_it_reads(store):
    transposed = {"x": TENSORS["logits"].T[::2]}
    stored = store.write(transposed, "1.1")
    assert store.read(stored.uri, stored.sha256)["x"].tolist() == [[0, 4, 8], [2, 6, 10]]


def test_a_file_is_named_by_the_digest_of_its_content(store, stored):
    content = (store.root / stored.uri).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert stored.sha256 == digest
    assert stored.uri == f"files/{digest[:2]}/{digest}.safetensors"
    assert stored.bytes == len(content)
    assert uri_of(digest) == stored.uri


def test_the_same_arrays_are_one_file_whoever_writes_them(store, stored):
    assert store.write(dict(reversed(TENSORS.items())), "99.1") == stored
    assert len(list(store.root.glob("files/*/*"))) == 1


def test_writing_leaves_no_temporary_file(store, stored):
    assert store.temporary_files() == []
    assert list((store.root / "temporary").iterdir()) == []


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_one_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def delete(path):
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, flip_one_bit, empty, delete])
def test_a_damaged_file_is_found_out_and_made_good_by_writing_it_again(store, stored, damage):
    damage(store.root / stored.uri)
    with pytest.raises(BadArtifact, match=stored.sha256):
        store.read(stored.uri, stored.sha256)
    assert store.write(TENSORS, "12.4") == stored
    assert store.read(stored.uri, stored.sha256)["labels"].tolist() == [7, 8, 9]


@pytest.mark.parametrize("damage", [truncate, flip_one_bit])
def test_a_bad_file_is_set_aside_and_kept(store, stored, damage):
    path = store.root / stored.uri
    damage(path)
    store.set_aside(stored.uri)
    assert not path.exists()
    assert path.with_suffix(".bad").exists()


def test_setting_a_missing_file_aside_is_no_error(store, stored):
    (store.root / stored.uri).unlink()
    store.set_aside(stored.uri)


def test_a_file_that_was_made_again_meanwhile_is_not_set_aside(store, stored):
    # two readers found it bad; the producer has already made it again when the second sets it aside
    store.set_aside(stored.uri)
    assert store.read(stored.uri, stored.sha256)["labels"].tolist() == [7, 8, 9]


def test_temporary_files_say_whose_they_are(store):
    for name in ("12.3.tmp", "4.1.tmp", "notes.txt", "x.1.tmp"):
        (store.root / "temporary" / name).touch()
    folder = store.root / "temporary"
    assert sorted(store.temporary_files()) == [(4, 1, folder / "4.1.tmp"), (12, 3, folder / "12.3.tmp")]


def test_a_reader_never_sees_half_a_file(store, stored):
    """Eight threads write the same file again and again while another reads it."""
    done = threading.Event()

    def write(writer):
        while not done.is_set():
            store.write(TENSORS, writer)

    writers = [threading.Thread(target=write, args=(f"{i}.1",)) for i in range(8)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(100):
            store.read(stored.uri, stored.sha256)
    finally:
        done.set()
        for writer in writers:
            writer.join()


def test_a_write_that_fails_leaves_nothing(store, monkeypatch):
    (store.root / "files").rename(store.root / "elsewhere")
    with pytest.raises(FileNotFoundError):
        store.write(TENSORS, "1.1")
    assert store.temporary_files() == []


def test_a_file_url_and_a_folder_are_the_same_store(tmp_path):
    folder = tmp_path / "a b"
    stored = ArtifactStore(str(folder)).write(TENSORS, "1.1")
    url = f"file://{str(folder).replace(' ', '%20')}"
    assert ArtifactStore(url).read(stored.uri, stored.sha256)["labels"].tolist() == [7, 8, 9]


@pytest.mark.parametrize("url", ["s3://bucket/folder", "http://host/folder", "file://host/folder"])
def test_a_store_elsewhere_is_refused(url):
    with pytest.raises(ValueError, match="use a folder or file:///FOLDER"):
        ArtifactStore(url)


# ---- checkpoints --------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(store):
    return store.checkpoint("k" * 64, "12.3")


def test_a_checkpoint_is_the_last_epoch_that_was_saved(store, checkpoint):
    assert checkpoint.load() is None
    for epoch in (1, 2):
        checkpoint.save({"weight": np.full(3, epoch, np.float32)}, {"epoch": str(epoch)})
    tensors, metadata = store.checkpoint("k" * 64, "12.4").load()  # by the next attempt
    assert tensors["weight"].tolist() == [2, 2, 2]
    assert metadata == {"epoch": "2"}
    assert store.temporary_files() == []


def test_checkpoints_of_two_keys_are_apart(store, checkpoint):
    checkpoint.save({"weight": np.zeros(1)}, {})
    assert store.checkpoint("other", "12.3").load() is None


def test_a_deleted_checkpoint_is_gone_and_may_be_deleted_again(checkpoint):
    checkpoint.save({"weight": np.zeros(1)}, {})
    checkpoint.delete()
    checkpoint.delete()
    assert checkpoint.load() is None


@pytest.mark.parametrize("damage", [truncate, empty, delete])
def test_a_checkpoint_that_cannot_be_read_is_none(store, checkpoint, damage):
    checkpoint.save({"weight": np.zeros(10)}, {"epoch": "1"})
    damage(store.root / checkpoint.uri)
    assert checkpoint.load() is None


def test_no_flipped_bit_of_a_checkpoint_gives_another_epoch(store, checkpoint, caplog):
    checkpoint.save(
        {"weight": np.arange(3, dtype=np.float32), "bias": np.zeros(1)}, {"epoch": "1", "loss": "2"}
    )
    path = store.root / checkpoint.uri
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        caplog.clear()
        loaded = checkpoint.load()
        if loaded is None:
            assert checkpoint.uri in caplog.text
        else:  # a bit that means nothing, such as white space
            assert loaded[0]["weight"].tolist() == [0, 1, 2]
            assert loaded[1] == {"epoch": "1", "loss": "2"}


@pytest.mark.parametrize("content", [b"\xff" * 100, b"\x00" * 8, (2**40).to_bytes(8, "little"), b"{}"])
def test_a_checkpoint_of_garbage_is_none(store, checkpoint, content):
    (store.root / checkpoint.uri).write_bytes(content)
    assert checkpoint.load() is None

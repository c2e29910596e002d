"""Every file that a run has made is damaged: what is read is found out, set aside and made again, once."""

import hashlib
import itertools
from collections import Counter

import pytest

READ = {
    "prepare",
    "distort",
    "spectra",
    "train-classifier",
    "classify",
    "train-backbone",
    "features",
    "train-expert",
    "predict",
    "measure",
}
"""Every stage whose files another stage reads."""
FILES = "SELECT stage, uri FROM artifacts WHERE uri IS NOT NULL AND stage <> 'latency' ORDER BY id"
SET_ASIDE = "SELECT substr(key, 1, 64), stage, sha256 FROM artifacts WHERE key LIKE '%:set-aside-%'"
READ_IN_RUN_2 = (
    "SELECT DISTINCT a.uri, a.sha256 FROM attempts t JOIN jobs child ON child.id = t.job_id AND child.run_id = 2"
    " JOIN job_dependencies d ON d.child_id = child.id AND d.reads"
    " JOIN jobs parent ON parent.id = d.parent_id JOIN artifacts a ON a.id = parent.artifact_id"
    " WHERE t.outcome = 'succeeded'"
)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_one_bit(path):
    """In the last number: whatever reads the file without a check can read it."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def delete(path):
    path.unlink()


@pytest.fixture
def home(copy_of, in_process):
    """A home with all that the small paper has left."""
    return copy_of(in_process.home)


def test_whatever_is_damaged_is_made_again_once_and_the_numbers_are_the_same(home, in_process, small):
    damages = itertools.cycle((truncate, flip_one_bit, delete))
    done = Counter()
    for (_, uri), damage in zip(home.rows(FILES), damages, strict=False):
        damage(home.path / "artifacts" / uri)
        done[damage.__name__] += 1
    assert min(done.values()) > 50

    output = home.command("submit", "full-paper", "--in-process", *small({"p_tar": 0.9}))
    assert output.returncode == 0, output.stderr
    bad = home.rows(SET_ASIDE)
    told = output.stderr.splitlines()
    assert len(told) == len(bad)
    assert all(line.startswith("job ") and line.endswith("; it is made again") for line in told)
    assert {stage for _, stage, _ in bad} == READ
    assert set(Counter(key for key, *_ in bad).values()) == {1}
    made_again = dict(home.rows("SELECT key, sha256 FROM artifacts"))
    assert all(made_again[key] == sha256 for key, stage, sha256 in bad if stage != "measure")
    assert home.numbers(2) == in_process.home.numbers(1)

    read = home.rows(READ_IN_RUN_2)
    wrong = [uri for uri, sha256 in read if digest(home, uri) != sha256]
    print(f"artifacts: damaged {dict(done)} read {len(read)} set aside {len(bad)} undetected {len(wrong)}")
    assert wrong == []
    assert home.value("SELECT COUNT(*) FROM jobs WHERE run_id = 2 AND state <> 'succeeded'") == 0


def digest(home, uri):
    """SHA-256 of a file of the store."""
    return hashlib.sha256((home.path / "artifacts" / uri).read_bytes()).hexdigest()


UNCHECKED = """
import sys
from db.artifacts import ArtifactStore
ArtifactStore.read_bytes = lambda store, uri, sha256: (store.root / uri).read_bytes()
from orchestrator.main import main
sys.argv = ["orchestrator", *sys.argv[1:]]
main()
"""


def test_without_the_check_damaged_files_go_through(home, small):
    for stage, uri in home.rows(FILES):
        if stage == "predict":
            flip_one_bit(home.path / "artifacts" / uri)
    arguments = ["submit", "full-paper", "--in-process", *small({"p_tar": 0.9})]
    submitted = home.run_code(UNCHECKED, *arguments)
    assert submitted.returncode == 0, submitted.stderr
    assert home.rows(SET_ASIDE) == []
    read = [uri for uri, sha256 in home.rows(READ_IN_RUN_2) if digest(home, uri) != sha256]
    assert len(read) > 10

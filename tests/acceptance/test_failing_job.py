"""A job that cannot succeed: what is said, what its siblings do, and how it is made good."""

import json
import os
import re
import shutil
import sqlite3

import pytest

from early_exit.synthetic import draw

SHORT = {
    "backbone.epochs": 1,
    "expert.epochs": 1,
    "levels.gaussian_blur": [3],
    "levels.gaussian_noise": [40],
    "baselines": [],
}


@pytest.fixture(scope="module")
def edited(new_home, small, tmp_path_factory):
    """A home, its submit's options, the path of a test image that was edited unseen, and the finished submit."""
    folder = tmp_path_factory.mktemp("photographs") / "images"
    draw(folder, 100, 35, 0)
    home = new_home()
    options = ["submit", "full-paper", "--dataset", folder, *small(SHORT)]
    assert home.command(*options, "--dry-run").returncode == 0
    last = "SELECT path FROM images WHERE split = 'test' ORDER BY \"index\" DESC LIMIT 1"
    path = folder / home.value(last)
    shutil.copy2(path, path.with_suffix(".original"))
    _flip_a_byte(path)
    return home, options, path, home.command(*options)


def _flip_a_byte(path):
    """Another content of the same size and time: a submit has no reason to open the file again."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_the_file_is_named_in_one_line_and_no_result_is_made(edited):
    home, _, path, output = edited
    assert (output.returncode, output.stderr) == (1, "")
    (failed,) = [line for line in output.stdout.splitlines() if line.startswith("failed: ")]
    name = re.escape(f"{path.parent.name}/{path.name}")
    assert re.search(rf"^failed: prepare \(test 8–9\): .*{name} changed", failed)
    assert "Traceback" not in output.stdout
    assert home.processes() == []


def test_it_is_tried_once_and_its_siblings_finish(edited):
    home, *_ = edited
    assert home.rows("SELECT state, attempt FROM jobs WHERE label = 'test 8–9'") == [("failed", 1)]
    states = dict(home.rows("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
    assert states.keys() == {"failed", "succeeded", "skipped"}
    assert states["failed"] == 1
    predicted = "SELECT state, COUNT(*) FROM jobs WHERE stage = 'predict' GROUP BY state ORDER BY state"
    assert home.rows(predicted) == [("skipped", 9), ("succeeded", 9)]  # one of two test shards
    assert home.value("SELECT state FROM runs") == "failed"


def test_status_shows_the_failure_and_results_says_that_what_it_shows_is_not_all(edited):
    home, _, path, _ = edited
    assert f"{path.parent.name}/{path.name} changed" in home.command("status", "1").stdout
    results = home.command("results", "1", "--format", "json")
    assert results.returncode == 0
    done, jobs = home.rows("SELECT SUM(state = 'succeeded'), COUNT(*) FROM jobs WHERE run_id = 1")[0]
    assert results.stderr == (
        f"This run failed: {done} of {jobs} jobs are done. What is shown is what could be computed.\n"
    )
    shown = {record["table"] for record in json.loads(results.stdout)}
    assert shown == {"classifier_confusion", "payload_accuracy"}
    refused = home.command("results", "1", "--table", "accuracy")
    assert refused.returncode == 1
    assert refused.stderr == "error: run 1 has no rows for table accuracy. See: orchestrator status 1\n"


def test_the_file_restored_a_second_submit_computes_only_what_is_missing(edited):
    home, options, path, _ = edited
    shutil.copy2(path.with_suffix(".original"), path)
    again = home.command(*options, "--in-process")
    assert again.returncode == 0, again.stdout
    unfinished = home.value("SELECT COUNT(*) FROM jobs WHERE run_id = 1 AND state <> 'succeeded'")
    assert sum(home.computed_stages(2).values()) == unfinished
    assert "train-backbone" not in home.computed_stages(2)


def test_a_run_with_a_failed_job_shows_the_rest_and_exits_with_3(copy_of, in_process):
    home = copy_of(in_process.home)
    with sqlite3.connect(home.path / "orchestrator.db") as database:
        database.execute(
            "UPDATE jobs SET state = 'failed', artifact_id = NULL, error = 'OSError: disk gone'"
            " WHERE id = (SELECT MAX(id) FROM jobs WHERE stage = 'latency')"
        )
        database.execute("UPDATE runs SET state = 'failed'")
    database.close()
    resumed = home.command("resume", "1")
    assert resumed.returncode == 3
    assert "OSError: disk gone" in resumed.stdout
    assert "Accuracy at p_tar" in resumed.stdout

"""`orchestrator submit full-paper` by workers: what it says, and that its numbers are those of one process."""

import re

import pytest

from tasks.hardware import cpu_name

TITLES = ("Accuracy at p_tar 0.8", "Offloading probability at p_tar 0.8", "End-to-end latency at p_tar 0.8")


def test_a_run_exits_with_0_and_nothing_on_standard_error(finished):
    assert (finished.output.returncode, finished.output.stderr) == (0, "")


def test_the_first_lines_say_that_it_is_a_demo_and_how_to_run_photographs(finished):
    first, second, *_ = finished.output.stdout.splitlines()
    assert first.startswith("Profile demo: 100 images in 10 classes of the built-in synthetic dataset")
    assert second == "On photographs: orchestrator submit full-paper --dataset DIR --weights FILE.safetensors"


@pytest.mark.parametrize("title", TITLES)
def test_each_of_the_three_tables_is_printed_with_its_profile(finished, title):
    _, found, rest = finished.output.stdout.partition(title)
    assert found
    table = rest.split("Run 1 succeeded")[0]
    for title_of_next in TITLES:
        table = table.split(title_of_next)[0]
    assert "classifier" in table
    assert "gaussian_noise" in table
    assert "run 1, profile demo: the built-in synthetic dataset" in " ".join(
        table.split()
    )  # as wide as the times


def test_the_last_lines_name_the_database_the_run_and_the_next_commands(finished):
    end = finished.output.stdout.partition("Run 1 succeeded")[2]
    assert f"Database: {finished.home.path}/orchestrator.db" in end
    assert "orchestrator results 1" in end
    assert "orchestrator status 1" in end
    assert "orchestrator sql" in end


def test_the_next_commands_work_as_printed(finished):
    end = finished.output.stdout.partition("Database:")[2]
    statement = re.search(r"orchestrator sql (['\"])(.+)\1", end).group(2)
    assert finished.home.command("sql", statement).returncode == 0
    assert finished.home.command("results", "1").returncode == 0
    assert "Run 1 is succeeded" in finished.home.command("status", "1").stdout


def test_plain_lines_show_the_progress_where_there_is_no_terminal(finished):
    assert re.search(r"^run 1: \d+ of \d+ jobs done after \d+ s", finished.output.stdout, re.MULTILINE)


def test_measured_times_name_the_machine_that_was_measured(finished):
    """On a cluster it need not be the one that planned the run."""
    assert finished.home.rows("SELECT DISTINCT hardware FROM stage_times") == [(cpu_name(),)]
    planned = "SELECT json_extract(spec, '$.hardware') FROM runs WHERE id = 1"
    assert finished.home.rows(planned) == [("another machine's",)]


def test_no_process_is_left_behind(finished):
    assert finished.left == []


def test_the_run_says_in_its_row_that_it_is_a_demo(finished):
    assert finished.home.rows("SELECT profile, state FROM runs WHERE id = 1") == [("demo", "succeeded")]


def test_every_number_equals_that_of_one_process_to_the_bit(finished, in_process):
    by_workers, by_one = finished.home.numbers(), in_process.home.numbers()
    assert by_workers.keys() == by_one.keys()
    for table, rows in by_workers.items():
        assert rows, table
        assert rows == by_one[table], table


def test_measured_are_the_same_parts_and_offloaded_the_same_images(finished, in_process):
    parts = (
        "SELECT part, payload_bytes IS NULL FROM stage_times"
        " WHERE artifact_id IN (SELECT artifact_id FROM jobs WHERE run_id = 1) ORDER BY part"
    )
    assert finished.home.rows(parts)
    assert finished.home.rows(parts) == in_process.home.rows(parts)
    offloaded = (
        "SELECT policy, network, kind, level, p_tar, payload, n, offloaded FROM latencies"
        " WHERE artifact_id IN (SELECT artifact_id FROM jobs WHERE run_id = 1) ORDER BY 1, 2, 3, 4, 6"
    )
    assert len(finished.home.rows(offloaded)) == 8 * 3 * 5 * 4  # policies, networks, conditions, payloads
    assert finished.home.rows(offloaded) == in_process.home.rows(offloaded)


def test_every_job_takes_one_attempt(finished):
    statement = "SELECT DISTINCT a.attempt, a.outcome FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE j.run_id = 1"
    assert finished.home.rows(statement) == [(1, "succeeded")]


def test_nothing_but_results_stays_in_the_store(finished):
    store = finished.home.path / "artifacts"
    assert [*(store / "temporary").iterdir(), *(store / "checkpoints").iterdir()] == []

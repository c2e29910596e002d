"""Nothing finished is computed again: what a second submit finds, and what it still has to run."""

import re

import pytest

EXPERTS_AND_WHAT_READS_THEM = {
    "train-expert",
    "predict",
    "sweep",
    "outage",
    "reliability",
    "payload-accuracy",
    "measure",
    "latency",
    "deadlines",
}


def submitted(output):
    """(run, jobs, found, to run) as printed."""
    pattern = r"^Run (\d+) \(stored\): (\d+) jobs, (\d+) cached, (\d+) to run\.$"
    return tuple(int(number) for number in re.search(pattern, output, re.MULTILINE).groups())


def logs(home):
    return {path.name: path.stat().st_size for path in (home.path / "logs").iterdir()}


def table_of(output, title):
    return output.partition(title)[2].partition("run ")[0]


@pytest.fixture(scope="module")
def home(finished, copy_of):
    """A home with the finished run, for more runs."""
    return copy_of(finished.home)


def test_the_same_spec_computes_nothing_and_starts_no_cluster(home, finished, small):
    before = logs(home)
    again = home.command("submit", "full-paper", *small())
    run, jobs, cached, to_run = submitted(again.stdout)
    assert (again.returncode, again.stderr) == (0, "")
    assert (cached, to_run) == (jobs, 0)
    assert home.computed_stages(run) == {}
    assert logs(home) == before
    assert home.numbers(run) == home.numbers(1)
    for title in ("Accuracy at p_tar 0.8", "End-to-end latency at p_tar 0.8"):
        assert table_of(again.stdout, title) == table_of(finished.output.stdout, title) != ""


def test_another_p_tar_computes_only_latencies_and_missed_deadlines(home, small):
    other = home.command("submit", "full-paper", "--in-process", *small({"p_tar": 0.9}))
    run, jobs, cached, to_run = submitted(other.stdout)
    assert other.returncode == 0
    # policies, conditions; all networks in one job
    assert home.computed_stages(run) == {"latency": 8 * 5, "deadlines": 8 * 5}
    assert to_run == 8 * 5 + 8 * 5
    assert cached + to_run == jobs
    assert "Accuracy at p_tar 0.9" in other.stdout
    assert home.numbers(run) == home.numbers(1)


def test_another_expert_epoch_count_computes_only_the_experts_and_what_depends_on_them(home, small):
    other = home.command("submit", "full-paper", "--in-process", *small({"expert.epochs": 1}))
    run, jobs, cached, to_run = submitted(other.stdout)
    assert other.returncode == 0
    computed = home.computed_stages(run)
    assert computed.keys() == EXPERTS_AND_WHAT_READS_THEM
    planned = dict(home.rows("SELECT stage, COUNT(*) FROM jobs WHERE run_id = ? GROUP BY stage", run))
    assert computed == {stage: planned[stage] for stage in computed}
    assert (cached, to_run) == (jobs - computed_total(computed), computed_total(computed))
    assert home.numbers(run)["predictions"] != home.numbers(1)["predictions"]
    assert home.numbers(run)["classifications"] == home.numbers(1)["classifications"]


def computed_total(computed):
    return sum(computed.values())


@pytest.mark.parametrize(("fields", "to_run"), [({}, 0), ({"p_tar": 0.95}, 40 + 40)])
def test_a_dry_run_says_what_would_run_and_stores_no_run(home, small, fields, to_run):
    before = logs(home)
    count = "SELECT (SELECT COUNT(*) FROM runs), (SELECT COUNT(*) FROM jobs)"
    stored = home.rows(count)
    dry = home.command("submit", "full-paper", "--dry-run", *small(fields))
    assert (dry.returncode, dry.stderr) == (0, "")
    numbers = [int(number) for number in re.search(r"all\W+(\d+)\W+(\d+)\W+(\d+)", dry.stdout).groups()]
    assert numbers == [stored_jobs(home), stored_jobs(home) - to_run, to_run]
    assert (home.rows(count), logs(home)) == (stored, before)


def stored_jobs(home):
    return home.value("SELECT COUNT(*) FROM jobs WHERE run_id = 1")


def test_a_dry_run_on_a_fresh_machine_stores_no_run(new_home, small):
    home = new_home()
    dry = home.command("submit", "full-paper", "--dry-run", *small())
    assert dry.returncode == 0
    assert "Dry run: nothing is stored." in dry.stdout
    assert home.rows("SELECT * FROM runs") == home.rows("SELECT * FROM jobs") == []
    assert home.processes() == []

"""`orchestrator report` after every step of the paper, and of runs that came to nothing or not far: what there is."""

import re

import pytest

SMALLER = {
    "shard_size": 50,
    "levels.gaussian_blur": [3],
    "levels.gaussian_noise": [40],
    "backbone.epochs": 1,
    "expert.epochs": 1,
}
SEEN = {"examples", "classifier-confusion"}
JUDGED = {"accuracy", "offloading", "trade-off", "cross-expert", "paper-comparison"}
STEPS = {
    "distorted-dataset": {"examples"},
    "spectra": {"examples"},
    "distortion-classifier": SEEN,
    "experts": set(),  # networks alone: no test image, and no answer
    "accuracy": SEEN | JUDGED | {"calibration", "outage"},
    "offloading": SEEN | JUDGED,
    "latency": SEEN | {"latency", "deadlines", "payload-accuracy"},
}


@pytest.fixture(scope="module")
def steps(new_home, small):
    """A home in which every step was submitted, one run after another, each with what was there already."""
    home = new_home()
    for plan in STEPS:
        done = home.command("submit", plan, "--in-process", *small(SMALLER))
        assert done.returncode == 0, done.stderr
    return home


def reported(home, run, **variables):
    """The sections of a run's report; its figures are there and linked."""
    done = home.command("report", run, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    folder = home.path.parent / f"report-{run}"
    page = (folder / "report.html").read_text()
    linked = set(re.findall(r'href="figures/([^"]+)"', page))
    assert linked == {path.name for path in (folder / "figures").iterdir()} != set()
    return set(re.findall(r'<h2 id="([^"]+)">', page)) - {"manifest"}


@pytest.mark.parametrize("plan", [plan for plan, shown in STEPS.items() if shown])
def test_a_step_is_reported_by_what_it_has_made(steps, plan):
    assert reported(steps, run_of(steps, plan)) == STEPS[plan]


def run_of(home, plan):
    """The first run of a plan."""
    return home.value("SELECT MIN(id) FROM runs WHERE plan = ?", plan)


@pytest.mark.parametrize("plan", [plan for plan, shown in STEPS.items() if not shown])
def test_a_step_with_nothing_to_show_says_so_in_one_line(steps, plan):
    assert refused(steps, run_of(steps, plan)) == NOTHING.format(run=run_of(steps, plan))


NOTHING = "error: run {run} has no results yet. See: orchestrator status {run}\n"


def refused(home, run, **variables):
    """What a report says that is not written."""
    done = home.command("report", run, **variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert not (home.path.parent / f"report-{run}").exists()
    return done.stderr


def without_workers(home):
    """Addresses of a shared cluster that has the home's database and artifacts, and whose broker is away."""
    return {
        "ORCHESTRATOR_BROKER_URL": f"redis+socket://{home.path}/nobody.sock",
        "ORCHESTRATOR_DATABASE_URL": f"sqlite:///{home.path}/orchestrator.db",
        "ORCHESTRATOR_ARTIFACTS_URL": (home.path / "artifacts").as_uri(),
    }


def cancelled(home, *options):
    """A run that is stored, and cancelled before any of its jobs has run; its addresses."""
    shared = without_workers(home)
    submitted = home.command("submit", "full-paper", *options, **shared)
    assert submitted.returncode == 0, submitted.stderr
    run = re.search(r"^Run (\d+) \(stored\)", submitted.stdout, re.MULTILINE)[1]
    assert home.command("cancel", run, **shared).returncode == 0
    return run, shared


def test_a_cancelled_run_is_reported_by_what_it_found(steps, small):
    run, shared = cancelled(steps, *small(SMALLER | {"expert.epochs": 2}))
    assert reported(steps, run, **shared) == SEEN


def test_a_run_that_diverged_is_reported_by_what_does_not_depend_on_it(steps, small):
    done = steps.command(
        "submit", "accuracy", "--in-process", *small(SMALLER | {"expert.learning_rate": 1e6})
    )
    assert "diverged in epoch 1" in done.stdout
    assert reported(steps, steps.value("SELECT MAX(id) FROM runs")) == SEEN


def test_a_run_with_no_result_at_all_has_no_report(home, small):
    home.path.mkdir()
    run, shared = cancelled(home, *small(SMALLER))
    assert refused(home, run, **shared) == NOTHING.format(run=run)

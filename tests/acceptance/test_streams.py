"""Standard streams as a user may leave them: closed ones take what is printed, and ASCII ones take all of it."""

import subprocess

import pytest


@pytest.fixture(scope="module")
def made(new_home, small):
    """A home with one run."""
    home = new_home()
    done = home.command("submit", "distorted-dataset", "--in-process", *small())
    assert done.returncode == 0, done.stderr
    return home


def with_streams(home, streams, *arguments):
    """Run ``orchestrator`` with its streams redirected as a shell does it."""
    command = ["sh", "-c", f'exec "$@" {streams}', "sh", home.program, *arguments]
    return subprocess.run(
        command, cwd=home.path.parent, env=home.environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("run", "code"), [("1", 0), ("7", 2)])
def test_a_closed_stream_changes_nothing_but_what_is_seen(made, closed, run, code):
    seen, there = made.command("status", run), with_streams(made, closed, "status", run)
    assert there.returncode == seen.returncode == code
    assert there.stdout == ("" if " >&-" in f" {closed}" else seen.stdout)
    assert there.stderr == ("" if "2>&-" in closed else seen.stderr)


def test_a_run_is_made_with_all_streams_closed(home, small):
    options = ("submit", "distorted-dataset", "--in-process", *small())
    assert with_streams(home, "<&- >&- 2>&-", *options).returncode == 0
    assert home.rows("SELECT state FROM runs") == [("succeeded",)]


def test_an_output_in_ascii_names_the_characters_that_it_cannot_hold(made):
    usual, done = made.command("status", "1"), made.command("status", "1", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "·" in usual.stdout
    assert r"\xb7" in done.stdout
    assert done.stdout.isascii()

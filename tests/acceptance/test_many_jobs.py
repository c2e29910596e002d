"""`submit` asks before it plans more jobs than anyone wants by mistake."""

import os
import pty
import subprocess
import sys

import pytest

FEW_ARE_MANY = """
import orchestrator.submit.request
orchestrator.submit.request.MANY_JOBS = 300
from orchestrator.main import main
main()
"""
"""``orchestrator`` for which the small paper's 357 jobs are many."""


@pytest.fixture
def submit(home, small):
    """``submit("n\\n")``: a dry run on a terminal at which this is typed; without it no terminal is there."""

    def submit(typed=None, *options):
        command = [
            sys.executable,
            "-c",
            FEW_ARE_MANY,
            "submit",
            "full-paper",
            "--dry-run",
            *options,
            *small(),
        ]
        ours, theirs = pty.openpty()
        if typed is not None:
            os.write(ours, typed.encode())
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL if typed is None else theirs,
                capture_output=True,
                text=True,
                cwd=home.path.parent,
                env=home.environment,
                check=False,
            )
        finally:
            os.close(ours)
            os.close(theirs)

    return submit


def test_without_a_terminal_it_refuses_in_one_line_that_names_the_option(submit, home):
    done = submit()
    assert done.returncode == 2
    assert done.stderr.startswith("error: this would plan more than 300 jobs. Add --yes to go on")
    assert done.stderr.count("\n") == 1
    assert home.rows("SELECT * FROM runs") == []


def test_a_no_stores_nothing(submit):
    done = submit("n\n")
    assert done.returncode == 2
    assert "This would plan more than 300 jobs. Go on?" in done.stdout
    assert "no run was stored" in done.stderr


@pytest.mark.parametrize(("typed", "options"), [("y\n", ()), (None, ("--yes",))])
def test_a_yes_goes_on(submit, typed, options):
    done = submit(typed, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "357" in done.stdout

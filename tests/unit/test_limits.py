"""The limits that the environment sets: whole where they count, and refused in one line."""

import os
import subprocess
import sys

import pytest


def limits(**variables):
    """What a process of this environment says of its limits."""
    code = "from db.limits import *; print(LEASE_SECONDS, MAX_FAILURES, MAX_LOSSES, BACKOFF_SECONDS)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_what_is_not_set_has_its_default():
    assert limits().stdout == "30.0 3 3 1.0\n"
    assert limits(ORCHESTRATOR_LEASE_SECONDS="").stdout == "30.0 3 3 1.0\n"


def test_each_can_be_set():
    said = limits(ORCHESTRATOR_LEASE_SECONDS="2.5", ORCHESTRATOR_MAX_LOSSES="1000")
    assert said.stdout == "2.5 3 1000 1.0\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ORCHESTRATOR_LEASE_SECONDS", "abc"),
        ("ORCHESTRATOR_LEASE_SECONDS", "nan"),
        ("ORCHESTRATOR_LEASE_SECONDS", "-1"),
        ("ORCHESTRATOR_MAX_LOSSES", "0.5"),
        ("ORCHESTRATOR_MAX_FAILURES", "0"),
        ("ORCHESTRATOR_MAX_FAILURES", "9999999"),
    ],
)
def test_a_value_out_of_bounds_is_a_call_at_fault(name, value):
    said = limits(**{name: value})
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith(f"error: {name}='{value}': not a ")
    assert len(said.stderr.splitlines()) == 1

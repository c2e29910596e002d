"""Who may import whom: the contracts of pyproject.toml, checked on the installed packages."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = {
    "orchestrator and workers use tasks, tasks use db and early_exit",
    "the paper as a library knows no queue and no database",
    "planning takes milliseconds",
    "the rooms of the producer stand on each other in one order",
    "tables need no figures",
    "stages stand on what all stages share",
}


def lint(folder):
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as main; main()",
        "--no-cache",
        "--config",
        folder / "pyproject.toml",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_packages_keep_the_contracts():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for contract in CONTRACTS:
        assert f"{contract} KEPT" in done.stdout


@pytest.mark.parametrize(
    ("forbidden", "source"),
    [("torch", "early_exit"), ("sqlalchemy", "db"), ("celery", "tasks")],
)
def test_a_broken_contract_is_found(tmp_path, forbidden, source):
    """The contracts bite: one that forbids what a package does import is broken."""
    (tmp_path / "pyproject.toml").write_text(f"""
[tool.importlinter]
root_packages = ["{source}"]
include_external_packages = true
[[tool.importlinter.contracts]]
name = "bites"
type = "forbidden"
source_modules = ["{source}"]
forbidden_modules = ["{forbidden}"]
""")
    done = lint(tmp_path)
    assert (done.returncode, "bites BROKEN" in done.stdout) == (1, True), done.stdout + done.stderr

"""What a command need not load, it does not: a person waits for it."""

import subprocess
import sys

import pytest

HEAVY = {"alembic", "celery", "kombu", "cv2", "jinja2", "matplotlib", "numpy", "pandas", "PIL"}
HEAVY |= {"psutil", "safetensors", "torch", "torchvision"}
LOADED = """
import sys
from orchestrator.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def loaded(home, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        capture_output=True,
        text=True,
        env={"ORCHESTRATOR_HOME": str(home)},
        check=True,
    )
    return set(done.stderr.split())


@pytest.fixture
def home(tmp_path):
    loaded(tmp_path, "migrate")
    return tmp_path


def test_help_loads_neither_a_database_nor_what_computes(tmp_path):
    modules = loaded(tmp_path, "--help")
    assert "typer" in modules
    assert modules & (HEAVY | {"sqlalchemy", "db", "tasks"}) == set()


def test_status_loads_the_database_alone(home):
    modules = loaded(home, "status")
    assert "sqlalchemy" in modules
    assert modules & HEAVY == set()

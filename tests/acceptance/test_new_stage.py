"""The stage of docs/extending.md: its nine places, followed to the letter, make it part of a run and of its report."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("early_exit", "db", "tasks", "orchestrator", "workers")
SECTION = (ROOT / "docs" / "extending.md").read_text().partition("## A new stage\n")[2].partition("\n## ")[0]
PLACES = [
    (*re.search(r"`(\w[\w/]+/\w+\.py)`", text).groups(), language, block)
    for text, language, block in re.findall(
        r"^(\*\*\d\..*?)^```(python|diff)\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL
    )
]
COMMANDS = re.search(r"^```sh\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)[1].splitlines()


def changed(text, diff):
    """``text`` with the lines of ``diff`` that begin with +; those around them stand in it once."""
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] == " ")
        after = "".join(line[1:] for line in lines)
        assert {line[0] for line in lines} == {" ", "+"}
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


@pytest.fixture
def checkout(tmp_path):
    """The packages after all that the page says."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, language, block in PLACES:
        path = tmp_path / name
        assert path.exists() == (language == "diff")
        path.write_text(block if language == "python" else changed(path.read_text(), block))
    return tmp_path


@pytest.fixture
def orchestrator(home, checkout):
    """``orchestrator("submit", …)`` in that checkout; it must end well."""

    def run(*arguments):
        command = [sys.executable, "-c", "from orchestrator.main import main; main()", *arguments]
        environment = home.environment | {"PYTHONPATH": str(checkout)}
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=checkout, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_page_has_nine_places():
    assert len(PLACES) == len({name for name, _, _ in PLACES}) == 9


def test_nine_places_make_a_stage_with_a_table_a_view_a_layout_and_a_figure(
    orchestrator, home, small, checkout
):
    submit, results, report = (shlex.split(line)[1:] for line in COMMANDS)
    orchestrator(*submit, "--in-process", *small())
    experts, conditions, branches = 4, 5, 3
    counts = home.rows("SELECT expert, kind, level, exit, n, agreeing FROM agreements ORDER BY 1, 2, 3, 4")
    assert len(counts) == experts * conditions * branches
    recounted = (
        "SELECT b.expert, b.kind, b.level, b.exit, COUNT(*), SUM(b.predicted = f.predicted)"
        " FROM predictions b JOIN predictions f ON f.artifact_id = b.artifact_id AND f.image = b.image"
        " WHERE f.exit = 4 AND b.exit < 4 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    )
    assert counts == home.rows(recounted)
    shares = [(*place, equal / images) for *place, images, equal in counts]
    assert shares == home.rows(
        "SELECT expert, kind, level, exit, agreement FROM agreement ORDER BY 1, 2, 3, 4"
    )
    records = json.loads(orchestrator(*results, "--format", "json"))
    printed = [tuple(r[name] for name in ("expert", "kind", "level", "exit", "mean")) for r in records]
    assert sorted(printed) == shares
    orchestrator(*report)
    page = (checkout / "report-1" / "report.html").read_text()
    assert page.count('<h2 id="agreement">') == 1
    assert (checkout / "report-1" / "figures" / "agreement.svg").stat().st_size > 0

"""README.md holds what is there: its commands parse, its statements run, its rooms are the rooms."""

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from db.results.views import VIEWS
from orchestrator.results.sql import query

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
DOCUMENTS = sorted(
    path.relative_to(ROOT) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")] if path.is_file()
)


def commands(text):
    """The simple commands of a shell text, as lists of words; ``&&`` and line ends separate them."""
    words = shlex.shlex(text, posix=True, punctuation_chars="&\n")
    words.whitespace = " \t"
    words.whitespace_split = True
    found = [[]]
    for word in words:
        if set(word) <= {"&", "\n"}:
            found.append([])
        else:
            found[-1].append(word)
    return [command for command in found if command]


def called(text):
    """The arguments of every call of the command line, by hand or in a container."""
    for command in commands(text):
        if Path(command[0]).name == "orchestrator":
            yield command[1:]
        elif command[:4] == ["docker", "compose", "run", "--rm"]:
            assert SERVICES[command[4]]["image"] == "orchestrator"
            yield command[5:]


def calls(page):
    """Those of a page's blocks and of its text."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    yield from (arguments for block in blocks for arguments in called(block))
    yield from (shlex.split(code)[1:] for code in re.findall(r"`(orchestrator [^`]+)`", page))


CALLS = list(calls(README))
EXTENDING = list(calls((ROOT / "docs" / "extending.md").read_text()))
STATEMENTS = [arguments[1] for arguments in CALLS if arguments[0] == "sql" and len(arguments) > 1]


def test_the_first_two_blocks_are_the_two_commands():
    """`.ci/run` takes them from there."""
    assert BLOCKS[:2] == [
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/orchestrator submit full-paper\n",
        ".venv/bin/pip install '.[test]' && .venv/bin/pytest\n",
    ]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("number", [1, 2])
def test_ci_extracts_the_two_commands(number):
    """`.ci/run --print N` prints what it would run."""
    command = ["bash", ROOT / ".ci" / "run", "--print", str(number)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert printed == BLOCKS[number - 1]


@pytest.mark.parametrize("arguments", [*CALLS, *EXTENDING], ids=" ".join)
def test_the_cli_accepts_every_command(parse, arguments):
    if arguments == ["sql"]:
        return  # the command's name, not a call
    parse(arguments)


def test_every_command_is_called(parse):
    from orchestrator.cli import cli

    known = {command.name or command.callback.__name__ for command in cli.registered_commands}
    assert known == {arguments[0] for arguments in CALLS}


def test_the_parser_refuses_what_the_cli_refuses(parse):
    """Else the tests above would say nothing."""
    for arguments in (
        ["submit"],
        ["worker", "--queue", "cpu"],
        ["worker", "--queues", "cpu", "--concurrency", "0"],
    ):
        with pytest.raises(Exception, match=r"(?i)missing|no such option|greater than|range"):
            parse(arguments)


@pytest.mark.parametrize("statement", STATEMENTS, ids=range(len(STATEMENTS)))
def test_every_statement_runs(engine, statement):
    assert query(engine, statement).columns


def test_there_are_five_statements_and_all_views():
    assert len(STATEMENTS) == 5
    table = README.partition("| view | ")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE) == list(VIEWS)


def test_every_room_stands_in_it_with_its_sentence():
    tree = README.partition("```text\n")[2].partition("```")[0]
    written = dict(line.split(maxsplit=1) for line in tree.splitlines())
    packages = ("early_exit", "db", "tasks", "orchestrator", "workers")
    there = {
        f"{init.parent.relative_to(ROOT)}/": ast.get_docstring(ast.parse(init.read_text())).splitlines()[0]
        for package in packages
        for init in (ROOT / package).rglob("__init__.py")
    }
    assert written == there


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / document.parent / target).exists(), target

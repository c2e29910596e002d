"""Fixtures of the unit tests."""

import pytest
import typer

from orchestrator.cli import cli


@pytest.fixture(scope="session")
def parse():
    """``parse(["submit", "full-paper"])`` reads a command line as the CLI does, and runs nothing.

    Returns the command's name and its parameters; raises what the CLI would answer with exit code 2.
    """
    group = typer.main.get_command(cli)

    def parse(arguments):
        with group.make_context("orchestrator", list(arguments)) as context:
            name, command, rest = group.resolve_command(context, list(arguments))
            with command.make_context(name, rest, parent=context) as parsed:
                return name, parsed.params

    return parse

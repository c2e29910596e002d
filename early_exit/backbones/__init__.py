"""One file per backbone, named as ``architecture.backbone`` names it; ``docs/extending.md`` shows one.

A file defines ``blocks``, which makes the network as a list of torch modules, one after the other. Its parameters
are those of ``PARAMETERS`` that the network can follow. ``BRANCH_BLOCKS``, three indices, fixes where the branches
stand; without it they follow the cost (``early_exit.cost``). ``VERSION``, 1 where there is none, is raised when the
network changes, so that no older result is taken for one of the newer file.

Nothing here imports torch, nor a backbone's file before it is made: planning reads the files only.
"""

import ast
import importlib.util
import pkgutil
from pathlib import Path

from early_exit.errors import EarlyExitError

MOBILENET_V2 = "mobilenet_v2"
"""The paper's backbone."""

PARAMETERS = ("width", "stem_stride", "drop_blocks")
"""What ``blocks`` may take: a float that multiplies the channels; the stride of the first convolution, 1 or 2; a
bool, whether the blocks are missing that branches stand after, as in the released code."""


class BackboneError(EarlyExitError, ValueError):
    """This file makes no backbone that can be cut into four stages."""


def backbones() -> list[str]:
    """The names of all backbones: what lies in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def parameters(name: str) -> tuple[str, ...]:
    """Which of ``PARAMETERS`` the backbone follows.

    Raises ``BackboneError`` for an unknown name, and for a file without such a function.
    """
    path, body = _read(name)
    for statement in body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "blocks":
            taken = tuple(argument.arg for argument in statement.args.args)
            if strange := set(taken) - set(PARAMETERS):
                allowed = ", ".join(PARAMETERS)
                raise BackboneError(
                    f"backbone '{name}': blocks takes {min(strange)}; it may take {allowed} in '{path}'"
                )
            return taken
    raise BackboneError(f"backbone '{name}': '{path}' defines no function blocks")


def version_of(name: str) -> int:
    """What jobs hold in their keys of how the backbone is made."""
    path, body = _read(name)
    for statement in body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "VERSION":
            version = statement.value
            if not isinstance(version, ast.Constant) or not isinstance(version.value, int):
                raise BackboneError(f"backbone '{name}': VERSION is not a whole number in '{path}'")
            return version.value
    return 1


def _read(name: str) -> tuple[Path, list[ast.stmt]]:
    """A backbone's file, read and not run."""
    if name not in backbones():
        raise BackboneError(f"unknown backbone '{name}': it is one of {', '.join(backbones())}")
    path = Path(importlib.util.find_spec(f"{__name__}.{name}").origin)  # type: ignore[union-attr, arg-type]
    try:
        return path, ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError) as error:
        raise BackboneError(f"backbone '{name}': '{path}' is not Python: {error}") from None

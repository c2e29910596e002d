"""What a file of ``backbones/`` declares, and which ones exist; standard library only, so that planning stays light."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from early_exit import backbones
from early_exit.errors import EarlyExitError
from early_exit.plugins import Plugins

MOBILENET_V2 = "mobilenet_v2"
"""The paper's backbone."""

PARAMETERS = ("width", "stem_stride", "drop_blocks")
"""What ``blocks`` may take: a float that multiplies the channels; the stride of the first convolution, 1 or 2; a
bool that leaves out the blocks that the branches follow, as the released code does."""

Blocks = list[Any]
"""Torch modules that run one after the other; each makes one map (N, C, h, w) of the map before it."""


class BackboneError(EarlyExitError, ValueError):
    """The file does not make a backbone that can be cut into four stages."""


@dataclass(frozen=True)
class Recipe:
    """How a backbone is made, as its file declares it: the constant ``BACKBONE`` of ``backbones/NAME.py``.

    Planning reads it, so such a file imports torch inside its function.
    """

    blocks: Callable[..., Blocks]
    """Makes the network with fresh weights; it takes those of ``PARAMETERS`` that the network can follow."""
    branch_blocks: tuple[int, int, int] | None = None
    """The blocks that branches stand after, from 0; None to place them by cost (``early_exit.cost``)."""
    version: int = 1
    """Raised when the network changes, so that results of the older file are not reused."""

    def __post_init__(self) -> None:
        if strange := set(self.parameters) - set(PARAMETERS):
            # the smallest: a set of names has another order in each process
            raise BackboneError(f"blocks takes {min(strange)}; it may take {', '.join(PARAMETERS)}")

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Which of ``PARAMETERS`` the network follows."""
        return tuple(inspect.signature(self.blocks).parameters)


_FILES = Plugins(backbones, "backbone", "BACKBONE", Recipe, BackboneError)


@cache
def known() -> tuple[str, ...]:
    """All backbones that have a file, in alphabetical order; nothing is loaded."""
    return _FILES.names()


@cache
def recipe(name: str) -> Recipe:
    """What the file of this backbone declares; raises BackboneError where there is none."""
    return _FILES.load(name)

"""What each block of a backbone costs, and where that puts the branches (docs/paper.md §5)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from early_exit.backbone import BackboneError

SIDE = 300
"""Pixels of the paper's images; branches stand where they do at this side, whatever a run's images are."""

PER_ELEMENT = 2
"""Operations per element of a BatchNorm and of a residual sum: with 2, the total is the author's own."""


@dataclass(frozen=True)
class Block:
    """One block at 300×300."""

    kind: str
    """The name of its class."""
    channels: int
    height: int
    width: int
    parameters: int
    cost: int
    """Multiply-accumulates of convolutions and products, and ``PER_ELEMENT`` operations per element of a BatchNorm
    and of a sum of two maps; activations cost nothing."""


def cost_of(blocks: Sequence[nn.Module]) -> tuple[Block, ...]:
    """Every block with its output's shape and its cost, for one image of 300×300; nothing is computed.

    Raises ``BackboneError`` for a block that does not make one map (1, channels, height, width).
    """
    found = []
    x = torch.empty(1, 3, SIDE, SIDE, device="meta")  # a shape without numbers
    with torch.no_grad():
        for number, block in enumerate(blocks):
            shape_only = copy.deepcopy(block).eval().to("meta")  # a copy: ``to`` would empty the block itself
            try:
                with FlopCounterMode(display=False, custom_mapping=_PER_ELEMENT_COSTS) as counter:
                    x = shape_only(x)  # (1, C, h, w)
            except RuntimeError as error:  # torch's for shapes that do not fit
                given = " × ".join(str(length) for length in x.shape[1:])
                raise BackboneError(
                    f"block {number} ({type(block).__name__}) does not take the map of {given} before it: {error}"
                ) from None
            if not isinstance(x, torch.Tensor) or x.ndim != 4:
                raise BackboneError(
                    f"block {number} ({type(block).__name__}) does not make one map (N, C, h, w)"
                )
            parameters = sum(parameter.numel() for parameter in block.parameters())
            cost = counter.get_total_flops() // 2  # it counts a multiplication and an addition as two
            _, channels, height, width = x.shape
            found.append(Block(type(block).__name__, channels, height, width, parameters, cost))
    return tuple(found)


def _per_element(shape: Sequence[int], *_: Any, **__: Any) -> int:
    # twice, since the counter's total is halved above: it is in operations, a multiply-accumulate has two
    return 2 * PER_ELEMENT * prod(shape)


def _sum(shape: Sequence[int], other: Any = None, *_: Any, **__: Any) -> int:
    """A sum of two maps; adding a number belongs to an activation, which costs nothing."""
    return 2 * PER_ELEMENT * prod(shape) if isinstance(other, torch.Size) else 0


_ATEN = torch.ops.aten
_PER_ELEMENT_COSTS = {
    _ATEN.native_batch_norm: _per_element,
    _ATEN._native_batch_norm_legit_no_training: _per_element,
    _ATEN.add: _sum,  # x + y, as MobileNetV2 adds
    _ATEN.add_: _sum,  # x += y, as ResNet adds
}


def cumulative_shares(blocks: Sequence[Block]) -> list[float]:
    """The share of the whole cost up to and including each block, in (0, 1]."""
    total = sum(block.cost for block in blocks)
    return [spent / total for spent in accumulate(block.cost for block in blocks)]


def branch_blocks(blocks: Sequence[Block]) -> tuple[int, int, int]:
    """The first blocks at which a quarter, a half and three quarters of the cost are spent.

    Raises ``BackboneError`` where the blocks are too coarse for three branches before the last block.
    """
    shares = cumulative_shares(blocks)
    # the paper's "linear" thresholds n/(N+1), for N = 3 branches (docs/paper.md §5)
    first, second, third = (next(i for i, share in enumerate(shares) if share >= n / 4) for n in (1, 2, 3))
    # the cloud's stage needs at least one block of its own
    if not first < second < third < len(blocks) - 1:
        raise BackboneError(
            f"three branches would stand after the blocks {first}, {second} and {third} of {len(blocks)}: "
            "cut it into smaller blocks, or fix other ones with branch_blocks"
        )
    return first, second, third

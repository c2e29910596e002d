"""A backbone cut into four stages, and the four heads that answer after them (docs/paper.md §5)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from early_exit.backbone import BackboneError, Blocks, recipe
from early_exit.cost import Block, branch_blocks, cost_of
from early_exit.determinism import set_deterministic
from early_exit.settings import Architecture
from early_exit.vocabulary import EXITS
from early_exit.weights import WeightsError, check_weights

DROPOUT = 0.2  # torchvision's for MobileNetV2 (docs/paper.md §5)


@dataclass(frozen=True)
class Layout:
    """The blocks of a backbone at 300×300, and after which of them its branches stand."""

    blocks: tuple[Block, ...]
    branches: tuple[int, int, int]
    fixed: bool
    """Whether the backbone's file says where they stand."""

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """Blocks of the four stages, half open."""
        return tuple(pairwise((0, *(branch + 1 for branch in self.branches), len(self.blocks))))


@functools.cache
def layout(architecture: Architecture) -> Layout:
    """Where the branches stand: as the backbone's file fixes it, or where the cost puts them.

    Raises ``BackboneError`` for a network that cannot be cut that way.
    """
    name = architecture.backbone
    fixed = recipe(name).branch_blocks
    try:
        with torch.random.fork_rng(devices=[]):  # fresh weights must not advance the caller's stream
            blocks = cost_of(_blocks(architecture))
        branches = fixed or branch_blocks(blocks)
    except BackboneError as error:
        raise BackboneError(f"backbone '{name}': {error}") from None
    # below the last block: the cloud's stage must not be empty
    if not -1 < branches[0] < branches[1] < branches[2] < len(blocks) - 1:
        raise BackboneError(
            f"backbone '{name}': branch_blocks is {branches}, not three of 0 to {len(blocks) - 2} in rising order"
        )
    return Layout(blocks, branches, fixed=fixed is not None)


def _blocks(architecture: Architecture) -> Blocks:
    """The modules that the backbone's file makes, with fresh weights."""
    made_by = recipe(architecture.backbone)
    return list(made_by.blocks(**{name: getattr(architecture, name) for name in made_by.parameters}))


class Backbone(nn.Module):
    """The shared feature extractor: blocks in four stages, each ending in one pooled vector.

    The state dict's names are ``features.BLOCK.*``; for a MobileNetV2 they are torchvision's.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        # blocks stay numbered through all stages, so that weights keep torchvision's names
        self.features = nn.Sequential(*_blocks(architecture))
        found = layout(architecture)
        self.stages = found.stages
        channels = [found.blocks[end - 1].channels for _, end in self.stages]
        # a branch sees a map's four quarters, the final exit the whole map (docs/paper.md §5)
        self.pooled_sizes = (4 * channels[0], 4 * channels[1], 4 * channels[2], channels[3])
        """Length of each exit's vector: 96, 256, 640 and 1,280 of a MobileNetV2 of width 1."""

    def stage(self, number: int, x: Tensor) -> Tensor:
        """Feature map (N, C, h, w) after stage 1…4 of the map after the stage before it."""
        first, end = self.stages[number - 1]
        for block in range(first, end):
            x = self.features[block](x)  # (N, C, h, w); each block may change C, h and w
        return x

    def pool(self, number: int, x: Tensor) -> Tensor:
        """The vector (N, D) that exit 1…4 sees of its stage's feature map."""
        return x.mean(dim=(2, 3)) if number == 4 else pool_quarters(x)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised images (N, 3, H, W) to the four exits' vectors (N, D_k)."""
        vectors = []
        for number in EXITS:
            x = self.stage(number, x)  # (N, C_k, h_k, w_k)
            vectors.append(self.pool(number, x))  # (N, 4 · C_k), and (N, C_4) of the last
        return vectors[0], vectors[1], vectors[2], vectors[3]


def pool_quarters(x: Tensor) -> Tensor:
    """Mean of each quarter of a map (N, C, h, w), as adaptive pooling to 2×2 does, flat: (N, 4·C).

    The quarters of an odd side share its middle row. Written out because torch has no deterministic
    gradient of adaptive pooling on CUDA.
    """
    height, width = x.shape[2], x.shape[3]
    rows = (slice(0, (height + 1) // 2), slice(height // 2, height))  # rounded up, rounded down
    columns = (slice(0, (width + 1) // 2), slice(width // 2, width))
    means = [x[:, :, row, column].mean(dim=(2, 3)) for row in rows for column in columns]  # 4 × (N, C)
    return torch.stack(means, dim=2).flatten(1)  # (N, C, 4) to (N, 4·C): a channel's quarters side by side


class Heads(nn.Module):
    """An expert's four linear layers: three branches and the final one, which has dropout before it."""

    def __init__(self, sizes: Sequence[int], classes: int) -> None:
        super().__init__()
        self.exits = nn.ModuleList(nn.Linear(size, classes) for size in sizes)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """The four vectors (N, D_k) to logits (N, 4, classes)."""
        *branches, final = vectors
        inputs = [*branches, self.dropout(final)]  # as torchvision's classifier has it; branches have none
        logits = [exit_(x) for exit_, x in zip(self.exits, inputs, strict=True)]  # 4 × (N, classes)
        return torch.stack(logits, dim=1)  # (N, 4, classes)


def load_weights(tensors: Mapping[str, np.ndarray], architecture: Architecture) -> Backbone:
    """Backbone with these weights, in eval mode; ``WeightsError`` names the first tensor that is wrong.

    Weights of dropped blocks may be there and are left out.
    """
    backbone = Backbone(architecture)
    shapes = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    # an Identity stands where a block was dropped: it has no weights to take
    dropped = tuple(f"features.{i}." for i, x in enumerate(backbone.features) if isinstance(x, nn.Identity))
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(dropped)}
    check_weights(kept, shapes, str(architecture))
    backbone.load_state_dict(to_tensors(kept))
    return backbone.eval()


def load_heads(tensors: Mapping[str, np.ndarray]) -> Heads:
    """Heads with these weights, in eval mode; sizes and classes are those of the weights.

    Raises ``WeightsError`` when they are not four finite linear layers of one class count.
    """
    # modules count from 0, exits from 1
    names = [f"exits.{k}.{part}" for k in range(4) for part in ("weight", "bias")]
    if sorted(tensors) != sorted(names):
        raise WeightsError(f"heads: tensors are {', '.join(sorted(tensors))}, not {', '.join(names)}")
    sizes = [tensors[f"exits.{k}.weight"].shape[-1] for k in range(4)]  # a weight is (classes, D_k)
    heads = Heads(sizes, classes=len(tensors["exits.0.bias"]))
    for name, parameter in heads.state_dict().items():
        if tensors[name].shape != tuple(parameter.shape):
            raise WeightsError(f"heads: {name!r} is {tensors[name].shape}, not {tuple(parameter.shape)}")
        if not np.isfinite(tensors[name]).all():
            raise WeightsError(f"heads: {name!r} holds a value that is not finite")
    heads.load_state_dict(to_tensors(tensors))
    return heads.eval()


def predict_logits(heads: Heads, vectors: Sequence[np.ndarray], threads: int = 1) -> np.ndarray:
    """Logits float32 (N, 4, classes) of four float32 arrays (N, D_k); on the CPU.

    One image at a time: the bits of a matrix product depend on how many rows it has, and a result's must not.
    """
    set_deterministic(threads)
    heads.eval()
    tensors = [torch.tensor(vector) for vector in vectors]  # (N, D_k) each
    with torch.inference_mode():
        rows = [heads([x[i : i + 1] for x in tensors]) for i in range(len(tensors[0]))]  # N × (1, 4, classes)
    classes = heads.exits[0].out_features
    # the empty part gives the right shape for no images too: (0, 4, classes)
    return torch.cat([*rows, torch.empty(0, 4, classes)]).numpy()  # type: ignore[call-overload]


def fold_batchnorm(backbone: Backbone) -> Backbone:
    """A copy for inference: BatchNorm folded into the convolutions, channels last; MobileNetV2 twice as fast.

    Folded where an ``nn.Sequential`` has one right after the other. Elsewhere, as inside the residual blocks of a
    ResNet, nothing says which parts run in which order, and BatchNorm stays. Same vectors up to float32 rounding.
    Its state dict has other names: save the original.
    """
    folded = copy.deepcopy(backbone).eval()
    for module in folded.modules():
        # a subclass with a forward of its own may run its parts in another order
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold_pairs(module)
    return folded.to(memory_format=torch.channels_last)


def _fold_pairs(sequential: nn.Sequential) -> None:
    # a list, because ``setattr`` changes the children while the loop runs
    for (name, layer), (following, batch_norm) in pairwise(list(sequential.named_children())):
        if isinstance(layer, nn.Conv2d) and isinstance(batch_norm, nn.BatchNorm2d):
            setattr(sequential, name, fuse_conv_bn_eval(layer, batch_norm))
            setattr(sequential, following, nn.Identity())  # keeps the numbers of what comes after it


def to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Fresh torch copies: memory mapped or sliced arrays may be unaligned, which changes speed and bits."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


def to_arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """A module's state dict as numpy copies on the CPU."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}

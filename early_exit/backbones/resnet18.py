"""torchvision's ResNet-18, which comes in one width: the stem and eight residual blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from early_exit.backbone import Blocks, Recipe

if TYPE_CHECKING:
    from torchvision.models import ResNet


def blocks(stem_stride: int) -> Blocks:
    """The blocks with fresh weights."""
    from torchvision.models import resnet18  # here, since planning reads this file too

    network = resnet18()
    network.conv1.stride = (stem_stride, stem_stride)  # the max pooling after it halves the side again
    return cut(network)


def cut(network: ResNet) -> Blocks:
    """The blocks of a ResNet, with the weights that it has."""
    from torch import nn

    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    # of a ResNet-18: the stem, then two blocks each of 64, 128, 256 and 512 channels
    return [stem, *network.layer1, *network.layer2, *network.layer3, *network.layer4]


BACKBONE = Recipe(blocks)

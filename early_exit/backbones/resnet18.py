"""torchvision's ResNet-18, which comes in one width: the stem and eight residual blocks."""

from torch import nn
from torchvision.models import ResNet, resnet18


def blocks(stem_stride: int) -> list[nn.Module]:
    """The blocks with fresh weights."""
    network = resnet18()
    network.conv1.stride = (stem_stride, stem_stride)
    return cut(network)


def cut(network: ResNet) -> list[nn.Module]:
    """The blocks of a ResNet, with the weights that it has."""
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    return [stem, *network.layer1, *network.layer2, *network.layer3, *network.layer4]

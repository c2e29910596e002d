"""torchvision's MobileNetV3-Large: 17 blocks with squeeze-and-excitation and hard-swish."""

from torch import nn
from torchvision.models import mobilenet_v3_large


def blocks(width: float, stem_stride: int) -> list[nn.Module]:
    """The first convolution, 15 inverted residual blocks and the last convolution."""
    features = mobilenet_v3_large(width_mult=width).features
    features[0][0].stride = (stem_stride, stem_stride)
    return list(features)

"""torchvision's MobileNetV3-Large: 17 blocks with squeeze-and-excitation and hard-swish."""

from early_exit.backbone import Blocks, Recipe


def blocks(width: float, stem_stride: int) -> Blocks:
    """The first convolution, 15 inverted residual blocks and the last convolution."""
    from torchvision.models import mobilenet_v3_large  # here, since planning reads this file too

    features = mobilenet_v3_large(width_mult=width).features
    features[0][0].stride = (stem_stride, stem_stride)  # the first convolution
    return list(features)


BACKBONE = Recipe(blocks)  # the paper has no branches for it: the cost places them

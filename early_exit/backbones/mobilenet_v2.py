"""torchvision's MobileNetV2 (docs/paper.md §5): the paper's backbone, 19 blocks."""

from torch import nn
from torchvision.models import MobileNetV2

BRANCH_BLOCKS = (3, 10, 15)
"""What the cost at 300×300 gives, fixed because other image sizes and widths would move them (docs/paper.md §5)."""


def blocks(width: float, stem_stride: int, drop_blocks: bool) -> list[nn.Module]:
    """The blocks after which branches stand are residual: what comes before them has the same shape."""
    features = MobileNetV2(width_mult=width).features
    features[0][0].stride = (stem_stride, stem_stride)
    if drop_blocks:
        for block in BRANCH_BLOCKS:
            features[block] = nn.Identity()
    return list(features)

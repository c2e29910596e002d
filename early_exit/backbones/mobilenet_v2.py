"""torchvision's MobileNetV2 (docs/paper.md §5): the paper's backbone, 19 blocks."""

from early_exit.backbone import Blocks, Recipe

BRANCHES = (3, 10, 15)
"""What the cost at 300×300 gives, fixed because other image sizes and widths would move them (docs/paper.md §5)."""


def blocks(width: float, stem_stride: int, drop_blocks: bool) -> Blocks:
    """Branches follow residual blocks, whose input and output have the same shape: they can be left out."""
    from torch import nn  # here and below, since planning reads this file too
    from torchvision.models import MobileNetV2

    features = MobileNetV2(width_mult=width).features  # 19 blocks; the classifier after them is left out
    features[0][0].stride = (stem_stride, stem_stride)  # the stem's convolution, 3→32 at width 1
    # what the released model lacks, by a bug (docs/paper.md §12, oddity 2)
    if drop_blocks:
        for block in BRANCHES:
            features[block] = nn.Identity()  # keeps the numbers, and so the names, of the blocks after it
    return list(features)


BACKBONE = Recipe(blocks, branch_blocks=BRANCHES)

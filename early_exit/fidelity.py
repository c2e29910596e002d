"""Switches for what the released code does differently from the paper's idea (docs/paper.md §12 and §13).

One more keeps the given backbone frozen, to show what fine-tuning it adds.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fidelity:
    """What is computed as in the released code; all off is the paper's idea."""

    drop_blocks: bool = False
    """The block that a branch stands after is missing from the network (oddity 2)."""
    squash: bool = False
    """Training images are resized to a square without regard to their shape (oddity 7)."""
    fixed_order: bool = False
    """Experts see their training images in one order in all epochs: that of a split stored shuffled (oddity 6)."""
    adapt_batchnorm: bool = False
    """The backbone's BatchNorm keeps updating its statistics while a distortion's heads train (oddity 5)."""
    released_spectra: bool = False
    """Spectra in 8 bits that wrap around; those of training with R and B swapped, stored as JPEG (oddity 16)."""
    freeze_backbone: bool = False
    """The pretrained backbone stays as given; only heads are trained (§6's pristine model trains all layers)."""


FIDELITIES = {
    "corrected": Fidelity(),
    "dropped-blocks": Fidelity(drop_blocks=True),
    "squashed-resize": Fidelity(squash=True),
    "fixed-order": Fidelity(fixed_order=True),
    "adapted-batchnorm": Fidelity(adapt_batchnorm=True),
    "released-spectra": Fidelity(released_spectra=True),
    "frozen-backbone": Fidelity(freeze_backbone=True),
    "released": Fidelity(
        drop_blocks=True, squash=True, fixed_order=True, adapt_batchnorm=True, released_spectra=True
    ),
}
"""The paper's idea, each switch by itself, and all oddities of the released code."""

"""What blocks cost and where branches stand: docs/paper.md §5's table, and small cases by hand."""

import pytest
import torch
from torch import nn

from early_exit.backbone import BackboneError
from early_exit.cost import Block, branch_blocks, cost_of, cumulative_shares
from early_exit.network import layout
from early_exit.settings import Architecture

PAPERS = Architecture(width=1.0, stem_stride=2)

CHANNELS = [32, 16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320, 1280]
SIDES = [150, 150, 75, 75, 38, 38, 38, *[19] * 7, *[10] * 5]
CUMULATIVE = [
    *(3.55, 6.98, 16.84, 25.33, 30.45, 34.11, 37.77, 40.26, 43.60, 46.94),
    *(50.28, 54.37, 61.64, 68.91, 74.05, 79.49, 84.94, 92.99, 100.00),
]
"""docs/paper.md §5: the 19 blocks at 300×300, as the author logged them in 2021."""


def test_mobilenet_v2_costs_what_the_author_logged_digit_for_digit():
    assert sum(block.cost for block in layout(PAPERS).blocks) == 588_299_360


def test_every_block_of_the_papers_table_has_its_shape_and_share():
    blocks = layout(PAPERS).blocks
    assert [block.channels for block in blocks] == CHANNELS
    assert [(block.height, block.width) for block in blocks] == [(side, side) for side in SIDES]
    assert [round(100 * share, 2) for share in cumulative_shares(blocks)] == CUMULATIVE


def test_the_rule_puts_the_branches_where_the_paper_has_them_fixed():
    assert branch_blocks(layout(PAPERS).blocks) == layout(PAPERS).branches == (3, 10, 15)


def test_a_narrow_mobilenet_v2_keeps_the_papers_branches_though_the_rule_would_move_them():
    narrow = layout(Architecture(width=0.25, stem_stride=1))
    assert narrow.branches == (3, 10, 15)
    assert branch_blocks(narrow.blocks) != (3, 10, 15)


def test_resnet_18_costs_what_its_convolutions_say():
    """Per output element: inputs × kernel for each convolution, 2 for its BatchNorm, 2 for the sum of two maps."""
    costs = [
        150**2 * 64 * (147 + 2),
        *[75**2 * 64 * (2 * (576 + 2) + 2)] * 2,
        38**2 * 128 * ((576 + 2) + (1152 + 2) + (64 + 2) + 2),
        38**2 * 128 * (2 * (1152 + 2) + 2),
        19**2 * 256 * ((1152 + 2) + (2304 + 2) + (128 + 2) + 2),
        19**2 * 256 * (2 * (2304 + 2) + 2),
        10**2 * 512 * ((2304 + 2) + (4608 + 2) + (256 + 2) + 2),
        10**2 * 512 * (2 * (4608 + 2) + 2),
    ]
    resnet = layout(Architecture(width=1.0, stem_stride=2, backbone="resnet18"))
    assert [block.cost for block in resnet.blocks] == costs
    assert resnet.branches == (2, 4, 6)  # 0.63, 1.05 of 3.41 thousand million, 1.48, 1.81; 2.14, 2.57


class Shifted(nn.Module):
    def forward(self, x):
        return torch.sigmoid(x + 3) * x


class Residual(nn.Module):
    def forward(self, x):
        return x + x


@pytest.mark.parametrize(
    ("block", "cost"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), 150 * 150 * 8 * 27),
        (nn.Conv2d(3, 6, 3, padding=1, groups=3), 300 * 300 * 6 * 9),
        (nn.BatchNorm2d(3), 2 * 300 * 300 * 3),
        (Residual(), 2 * 300 * 300 * 3),
        (nn.ReLU6(), 0),
        (nn.Hardswish(), 0),
        (Shifted(), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_block_costs_what_is_worked_out_by_hand(block, cost):
    assert cost_of([block])[0].cost == cost


def test_asking_for_the_cost_computes_nothing_and_leaves_the_block_as_it_is():
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = torch.get_rng_state()
    cost_of([block])
    assert torch.equal(torch.get_rng_state(), before)
    assert block.training
    assert block[1].num_batches_tracked == 0
    assert block[0].weight.device.type == "cpu"


def blocks_of(*costs):
    return [Block("any", 1, 1, 1, 0, cost) for cost in costs]


def test_a_branch_stands_after_the_first_block_at_which_its_share_is_reached():
    assert branch_blocks(blocks_of(25, 25, 25, 25)) == (0, 1, 2)
    assert branch_blocks(blocks_of(24, 2, 24, 1, 24, 25)) == (1, 2, 4)  # 24, 26, 50, 51, 75, 100
    assert branch_blocks(blocks_of(10, 20, 20, 20, 15, 15)) == (1, 2, 4)  # 10, 30, 50, 70, 85, 100


@pytest.mark.parametrize("costs", [(60, 20, 10, 10), (20, 20, 20, 40), (100,)])
def test_blocks_too_coarse_for_three_branches_are_refused(costs):
    with pytest.raises(BackboneError, match="cut it into smaller blocks"):
        branch_blocks(blocks_of(*costs))


def test_a_block_that_does_not_fit_the_one_before_it_is_named():
    with pytest.raises(BackboneError, match=r"block 1 \(Conv2d\) does not take the map of 4 × 298 × 298"):
        cost_of([nn.Conv2d(3, 4, 3), nn.Conv2d(8, 4, 3)])


def test_a_block_that_makes_no_map_is_named():
    with pytest.raises(BackboneError, match=r"block 0 \(Flatten\) does not make one map"):
        cost_of([nn.Flatten()])

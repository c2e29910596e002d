"""docs/extending.md, followed: what it says to write is written into a copy of the packages, and runs."""

import re
import shlex
from pathlib import Path

from safetensors.numpy import load_file

from early_exit.cost import cumulative_shares
from early_exit.network import layout, load_weights
from early_exit.settings import Architecture

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()


def section(title):
    """The text below a heading, up to the next one of its rank."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


BACKBONE = section("A new backbone")


def test_the_pages_backbone_is_shown_trained_and_predicts(home, small, copied_packages):
    (path,) = re.findall(r"as `(\S+\.py)`:", BACKBONE)
    assert not (ROOT / path).exists()
    (copied_packages / path).write_text(blocks(BACKBONE, "python")[0])
    show, submit = (shlex.split(line)[1:] for line in blocks(BACKBONE, "sh")[0].splitlines())
    shown = home.command(*show, PYTHONPATH=str(copied_packages))
    assert shown.returncode == 0, shown.stderr
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in shown.stdout.splitlines() if "│" in line
    ]
    # Per output element of a convolution: 9 · inputs multiply-accumulates, and 2 for its BatchNorm.
    shapes = [(3, 8, 150), (8, 8, 150), (8, 16, 75), (16, 16, 75), (16, 32, 38), (32, 32, 38), (32, 64, 19)]
    costs = [side**2 * out * (9 * into + 2) for into, out, side in [*shapes, (64, 64, 19)]]
    assert [int(row[4].replace(",", "")) for row in rows] == costs
    less = {
        "backbone.epochs": 1,
        "backbone.batch_size": 16,
        "expert.epochs": 1,
        "shard_size": 50,
        "levels.gaussian_blur": [2],
        "levels.gaussian_noise": [20],
    }
    done = home.command(
        *submit[:2], "--in-process", *small(less), *submit[2:], PYTHONPATH=str(copied_packages)
    )
    assert done.returncode == 0, done.stderr
    # four experts, one of them of all distortions at once; exits, conditions, images
    assert home.value("SELECT COUNT(*) FROM predictions") == 4 * 4 * 3 * 10
    branches = [int(row[0]) for row in rows if row[6]]
    assert branches == [2, 4, 6]
    side_by_side = 64 * 4 * 4  # stage 3 ends with block 6: 64 channels, an eighth of 32 pixels
    assert (
        home.value("SELECT payload_bytes FROM stage_times WHERE part = 'encode_float32'") == 4 * side_by_side
    )


def test_the_pages_table_of_backbones_is_right():
    table = re.findall(r"^\| `(\w+)` \| (.*) \|$", BACKBONE, flags=re.MULTILINE)
    assert [name for name, _ in table] == ["mobilenet_v2", "mobilenet_v3_large", "resnet18"]
    for name, said in table:
        found = layout(Architecture(1.0, 2, backbone=name))
        shares = cumulative_shares(found.blocks)
        assert said.split(" | ") == [
            str(len(found.blocks)),
            ", ".join(map(str, found.branches)),
            ", ".join(f"{100 * shares[block]:.2f}" for block in found.branches),
            f"{sum(block.cost for block in found.blocks):,}",
        ]


def test_the_pages_way_to_save_weights_makes_weights(tmp_path, monkeypatch):
    code = blocks(BACKBONE, "python")[1]
    assert 'weights="IMAGENET1K_V1"' in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace('weights="IMAGENET1K_V1"', "weights=None"), {})  # no download in a test
    load_weights(load_file("resnet18.safetensors"), Architecture(1.0, 2, backbone="resnet18"))

"""A backbone's blocks, their cost, and where its branches are placed, as a table."""

from rich.console import Console

from early_exit.cost import SIDE, cumulative_shares
from early_exit.network import layout
from early_exit.settings import Architecture
from orchestrator.results.formats import print_table
from orchestrator.results.tables import Grid

COLUMNS = ["block", "kind", "output", "parameters", "cost", "cumulative %", "branch"]


def show(architecture: Architecture, console: Console) -> None:
    """Print the table; raises ``BackboneError`` for a network that cannot be cut into four stages."""
    found = layout(architecture)
    branches = {block: str(number) for number, block in enumerate(found.branches, 1)}
    rows = [
        [
            str(number),
            block.kind,
            f"{block.channels} × {block.height} × {block.width}",
            f"{block.parameters:,}",
            f"{block.cost:,}",
            f"{100 * share:.2f}",
            branches.get(number, ""),
        ]
        for number, (block, share) in enumerate(
            zip(found.blocks, cumulative_shares(found.blocks), strict=True)
        )
    ]
    parameters, cost = (
        sum(getattr(block, name) for block in found.blocks) for name in ("parameters", "cost")
    )
    title = f"{architecture}, stem stride {architecture.stem_stride}, one image of {SIDE} × {SIDE}"
    placed = "as its file fixes them" if found.fixed else "where 25, 50 and 75 % of the cost are spent"
    caption = f"{parameters:,} parameters; cost {cost:,}; branches {placed}"
    print_table(Grid(title, COLUMNS, rows, caption), console)

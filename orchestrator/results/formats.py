"""Rows on a terminal, as Markdown, LaTeX, CSV or JSON."""

import itertools
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.results.sql import Answer
from orchestrator.results.tables import Grid, ResultTable

TEXTS = ("kind", "network", "expert", "policy", "fidelity")
"""Columns of result tables that hold words; numbers are aligned to the right."""

KEYS = (*TEXTS, "level")
"""Columns that identify a line."""

LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"},
    **{"σ": "$\\sigma$", "±": "$\\pm$", "×": "$\\times$", "–": "--", "<": "$<$", ">": "$>$", "|": "$|$"},
}


def print_answer(answer: Answer, form: str, console: Console) -> None:
    """Print the answer of an SQL statement."""
    if form in ("csv", "json"):
        _print_frame(answer.columns, answer.rows, form)
    else:
        rows = [["" if cell is None else str(cell) for cell in row] for row in answer.rows]
        _print_grid(Grid("", answer.columns, rows, f"{len(rows)} rows"), form, console)


def print_tables(found: Sequence[ResultTable], form: str, console: Console) -> None:
    """Print result tables; in CSV and JSON one estimate per line, which names its table and fidelity."""
    if form in ("csv", "json"):
        records = [record for table in found for record in table.records()]
        names = dict.fromkeys(name for record in records for name in record)
        last = ("quantity", "mean", "ci95", "seeds")
        columns = [*(name for name in names if name not in last), *last]
        _print_frame(columns, [[record.get(name) for name in columns] for record in records], form)
        return
    if form == "tex":
        print("% \\usepackage{booktabs}")
    for table in found:
        if form == "table":
            print_table(table.grid(), console)
        else:
            _print_grid(table.grid(), form, console)


def _print_grid(grid: Grid, form: str, console: Console) -> None:
    if form == "table":
        console.print(_as_rich(grid))
    else:
        print(as_markdown(grid) if form == "md" else as_latex(grid))


def print_table(grid: Grid, console: Console) -> None:
    """Print a table on the terminal, in several parts below each other where it is wider than that."""
    for part in fitting(grid, console.width):
        console.print(_as_rich(part))


def fitting(grid: Grid, width: int) -> list[Grid]:
    """Parts of a result table, of ``width`` characters at most where no column is wider by itself.

    Each has the columns that identify a line; cells may be broken between words. A table without
    such columns is not split.
    """
    words = [[column, *(row[place] for row in grid.rows)] for place, column in enumerate(grid.columns)]
    widths = [max(len(word) for cell in of for word in cell.split() or [""]) + 3 for of in words]
    keys = list(itertools.takewhile(lambda place: grid.columns[place] in KEYS, range(len(grid.columns))))
    parts = [list(keys)]
    for place in range(len(keys), len(grid.columns)):
        if keys and parts[-1] != keys and sum(widths[p] for p in (*parts[-1], place)) + 1 > width:
            parts.append(list(keys))
        parts[-1].append(place)
    last = len(parts) - 1
    return [
        Grid(
            grid.title if number == 0 else "",
            [grid.columns[place] for place in part],
            [[row[place] for place in part] for row in grid.rows],
            grid.caption if number == last else "",
        )
        for number, part in enumerate(parts)
    ]


def _as_rich(grid: Grid) -> Table:
    shown = Table(title=grid.title, caption=grid.caption, title_justify="left", caption_justify="left")
    for column in grid.columns:
        shown.add_column(column, justify="left" if column in TEXTS else "right")
    for row in grid.rows:
        shown.add_row(*row)
    return shown


def as_markdown(grid: Grid) -> str:
    """A table of GitHub's Markdown, its title in bold above and its caption below."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def escaped(cells: Sequence[str]) -> list[str]:
        return [
            " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
            for cell in cells
        ]

    title = [f"**{grid.title}**", ""] if grid.title else []
    rule = ["---" if column in TEXTS else "---:" for column in grid.columns]
    body = [line(escaped(row)) for row in grid.rows]
    caption = ["", *grid.caption.splitlines(), ""]
    return "\n".join([*title, line(escaped(grid.columns)), line(rule), *body, *caption])


def as_latex(grid: Grid) -> str:
    """A ``table`` with the rules of the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(latex_text, cells)) + r" \\"

    caption = ". ".join(part.rstrip(".") for part in (grid.title, *grid.caption.splitlines()) if part)
    alignment = "".join("l" if column in TEXTS else "r" for column in grid.columns)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(caption)}.}}",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            line(grid.columns),
            r"\midrule",
            *(line(row) for row in grid.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex_text(text: str) -> str:
    """``text`` with everything escaped that LaTeX reads as a command."""
    return "".join(LATEX.get(character, character) for character in text)


def _print_frame(columns: list[str], rows: Sequence[Sequence[Any]], form: str) -> None:
    import pandas as pd  # half a second that only these formats need

    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    if form == "csv":
        # print, not the console, which would wrap long lines
        print(frame.to_csv(index=False), end="")
    else:
        print(frame.to_json(orient="records", force_ascii=False, double_precision=15))

"""Rows on a terminal, as CSV or as JSON."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from orchestrator.results import ResultTable
from orchestrator.sql import Answer


def as_rich(result: ResultTable, caption: str | None = None) -> Table:
    """A table for the terminal."""
    shown = Table(title=result.title, caption=caption, title_justify="left", caption_justify="left")
    for column in result.columns:
        shown.add_column(column, justify="left" if column in ("kind", "network") else "right")
    for row in result.rows:
        shown.add_row(*row)
    return shown


def print_answer(answer: Answer, form: str, console: Console) -> None:
    """Print the answer of an SQL statement."""
    if form == "table":
        rows = [["" if cell is None else str(cell) for cell in row] for row in answer.rows]
        console.print(as_rich(ResultTable("sql", "", answer.columns, rows), f"{len(rows)} rows"))
    else:
        _print_frame(answer.columns, answer.rows, form)


def print_tables(found: Sequence[ResultTable], form: str, caption: str, console: Console) -> None:
    """Print result tables; in CSV and JSON each line names its table."""
    if form == "table":
        for table in found:
            console.print(as_rich(table, caption))
        return
    columns = ["table", *dict.fromkeys(column for table in found for column in table.columns)]
    rows = [
        [table.name, *(dict(zip(table.columns, row, strict=True)).get(column) for column in columns[1:])]
        for table in found
        for row in table.rows
    ]
    _print_frame(columns, rows, form)


def _print_frame(columns: list[str], rows: Sequence[Sequence[object]], form: str) -> None:
    import pandas as pd  # half a second that only these formats need

    frame = pd.DataFrame(rows, columns=columns)
    if form == "csv":
        print(frame.to_csv(index=False), end="")
    else:
        print(frame.to_json(orient="records", force_ascii=False))

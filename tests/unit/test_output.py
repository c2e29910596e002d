"""Result tables as text, Markdown, LaTeX, CSV and JSON, from estimates made by hand."""

import csv
import dataclasses
import io
import json
import re

import pytest
from rich.console import Console

from orchestrator.errors import UsageError
from orchestrator.results.formats import as_latex, as_markdown, fitting, latex_text, print_tables
from orchestrator.results.layouts import LAYOUTS, named
from orchestrator.results.tables import Estimate, Grid, ResultTable, estimate, in_order

LAYOUT = {layout.table: layout for layout in LAYOUTS}
NOISE, PRISTINE = ("gaussian_noise", 20), ("pristine", 0)

TABLE = ResultTable(
    LAYOUT["accuracy"],
    "Accuracy at p_tar 0.8: overall / on the edge, %",
    "run 7, 100 % drawn",
    "corrected",
    0.8,
    {
        (PRISTINE, "oracle", "overall_accuracy"): Estimate(0.875, 0.0123, 3),
        (PRISTINE, "oracle", "edge_accuracy"): Estimate(0.5, None, 1),
        (NOISE, "oracle", "overall_accuracy"): Estimate(0.25, 0.1, 3),
        (NOISE, "oracle", "edge_accuracy"): Estimate(None, None, 0),
    },
)
CELLS = [["pristine", "0", "87.5 ± 1.2 / 50.0"], ["gaussian_noise", "20", "25.0 ± 10.0 / –"]]


def test_an_estimate_is_the_mean_and_students_interval():
    # mean 0.5; standard deviation 0.1·√2/√2 = 0.1, t(1) = 12.706 over √2 · 0.1414
    assert estimate([0.4, 0.6]) == Estimate(pytest.approx(0.5), pytest.approx(1.2706), 2)
    assert estimate([0.4]) == Estimate(0.4, None, 1)
    assert estimate([]) == Estimate(None, None, 0)


def test_cells_are_percent_of_the_views_fractions_and_kinds_are_in_the_papers_order():
    grid = TABLE.grid()
    assert grid.columns == ["kind", "level", "oracle"]
    assert grid.rows == CELLS


def test_columns_are_the_policies_there_are_experts_first_and_those_that_choose_last():
    estimates = {
        (PRISTINE, policy, "overall_accuracy"): Estimate(0.5, None, 1)
        for policy in ("classifier", "gaussian_noise", "oracle", "motion_blur", "pristine")
    }
    grid = dataclasses.replace(TABLE, estimates=estimates).grid()
    assert grid.columns[2:] == ["pristine", "gaussian_noise", "motion_blur", "oracle", "classifier"]


def test_names_have_their_order_and_numbers_are_by_size():
    assert in_order(["uint8", "float16", "json"]) == ["json", "float16", "uint8"]
    assert in_order(["released", "corrected", "fixed-order"]) == ["corrected", "fixed-order", "released"]
    assert in_order([10, 2, 2, 0.5]) == [0.5, 2, 10]


def test_tables_have_names_of_their_own():
    assert len(LAYOUT) == len(LAYOUTS)


def test_nothing_is_minus_zero():
    assert Estimate(-0.0004, None, 1).shown(100) == "0.0"
    assert Estimate(-0.0006, None, 1).shown(100) == "-0.1"


def test_markdown_is_a_table_of_github():
    title, empty, *table, _, caption, _ = as_markdown(TABLE.grid()).split("\n")
    assert (title, empty, caption) == (f"**{TABLE.title}**", "", TABLE.caption)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0] == TABLE.grid().columns
    assert cells[1] == ["---", "---:", "---:"]
    assert cells[2:] == TABLE.grid().rows


def test_markdown_keeps_a_cell_in_its_cell():
    grid = Grid("", ["a|b"], [["x | y\nz <i>"]], "")
    assert as_markdown(grid).splitlines()[:3] == ["| a\\|b |", "| ---: |", "| x \\| y z &lt;i> |"]


WIDE = Grid(
    "title", ["kind", "level", "one", "two", "three"], [["blur", "1", "1.0 / 2.0", "3.0", "4"]], "end"
)


def test_a_table_wider_than_the_terminal_comes_in_parts_that_all_say_what_a_line_is_about():
    # Longest words and three characters beside each, one more at the end: 7 + 8 + 6 + 6 + 8 + 1 are 36.
    assert fitting(WIDE, 36) == [WIDE]
    two = [
        Grid("title", ["kind", "level", "one", "two"], [["blur", "1", "1.0 / 2.0", "3.0"]], ""),
        Grid("", ["kind", "level", "three"], [["blur", "1", "4"]], "end"),
    ]
    assert fitting(WIDE, 35) == fitting(WIDE, 28) == two
    assert [part.columns[2:] for part in fitting(WIDE, 27)] == [["one"], ["two"], ["three"]]
    assert [part.columns[2:] for part in fitting(WIDE, 5)] == [["one"], ["two"], ["three"]]


def test_a_table_without_columns_that_say_what_a_line_is_about_is_not_taken_apart():
    plain = Grid("", ["one", "two"], [["1", "2"]], "")
    assert fitting(plain, 3) == [plain]


def test_latex_uses_booktabs_and_every_line_has_its_columns():
    text = as_latex(TABLE.grid())
    assert re.findall(r"\\(begin|end)\{(\w+)\}", text) == [
        ("begin", "table"),
        ("begin", "tabular"),
        ("end", "tabular"),
        ("end", "table"),
    ]
    _, header, body = re.split(r"\\toprule|\\midrule|\\bottomrule", text)[:3]
    header, lines = header.strip(), body.strip().splitlines()
    assert r"\begin{tabular}{lrr}" in text
    assert [line.count("&") for line in (header, *lines)] == [2, 2, 2]
    assert all(line.endswith(r" \\") for line in (header, *lines))
    assert lines[1].startswith(r"gaussian\_noise & 20 & ")
    assert r"25.0 $\pm$ 10.0 / --" in lines[1]
    assert r"\caption{Accuracy at p\_tar 0.8: overall / on the edge, \%. run 7, 100 \% drawn.}" in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50 % & _#{}$", r"50 \% \& \_\#\{\}\$"),
        ("\\a~^", r"\textbackslash{}a\textasciitilde{}\textasciicircum{}"),
    ],
)
def test_latex_reads_no_command_from_a_text(text, escaped):
    assert latex_text(text) == escaped


EXPECTED = [("pristine", "overall_accuracy", 0.875, 0.0123, 3), ("pristine", "edge_accuracy", 0.5, None, 1)]


def test_json_has_an_estimate_per_record_in_the_views_units(capsys):
    print_tables([TABLE], "json", Console())
    records = json.loads(capsys.readouterr().out)
    names = ("kind", "quantity", "mean", "ci95", "seeds")
    assert [tuple(record[name] for name in names) for record in records[:2]] == EXPECTED
    assert {(r["table"], r["fidelity"], r["p_tar"], r["policy"]) for r in records} == {
        ("accuracy", "corrected", 0.8, "oracle")
    }


def test_csv_has_the_same_records(capsys):
    print_tables([TABLE], "csv", Console())
    first, *_, last = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (first["table"], first["fidelity"], first["level"]) == ("accuracy", "corrected", "0")
    assert (float(first["mean"]), float(first["ci95"])) == (0.875, 0.0123)
    assert (last["quantity"], last["mean"], last["ci95"]) == ("edge_accuracy", "", "")


def test_tables_are_chosen_by_name():
    assert named([]) == LAYOUTS
    assert [layout.table for layout in named(["offloading", "accuracy"])] == ["accuracy", "offloading"]
    with pytest.raises(UsageError, match=r"no table 'acuracy'\. Did you mean 'accuracy'\?"):
        named(["accuracy", "acuracy"])

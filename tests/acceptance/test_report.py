"""`orchestrator report` of a finished run: every section and figure, nothing loaded, the numbers of the database."""

import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from PIL import Image

from db.artifacts import ArtifactStore
from db.engine import open_engine, reading
from orchestrator.report.findings import findings
from orchestrator.report.page import sections

SECTIONS = ("accuracy", "offloading", "latency", "trade-off", "examples", "classifier-confusion")
SECTIONS += ("cross-expert", "payload-accuracy", "calibration", "outage", "deadlines")


class Cells(HTMLParser):
    """The tables of a page by the title above each: rows of cells, headings first."""

    def __init__(self):
        super().__init__()
        self.tables, self.title, self.where = {}, "", None

    def handle_starttag(self, tag, attributes):
        if tag == "summary":
            self.title = ""
        elif tag == "table":
            self.tables[self.title] = []
        elif tag == "tr":
            self.tables[self.title].append([])
        elif tag in ("td", "th"):
            self.tables[self.title][-1].append("")
        self.where = tag

    def handle_endtag(self, tag):
        self.where = None

    def handle_data(self, data):
        if self.where == "summary":
            self.title += data
        elif self.where in ("td", "th"):
            self.tables[self.title][-1][-1] += data


@pytest.fixture(scope="module")
def folder(finished):
    done = finished.home.command("report", "1")
    folder = finished.home.path.parent / "report-1"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Report of run 1: {folder}/report.html\n"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def shown(page):
    cells = Cells()
    cells.feed(page)
    return cells.tables


@pytest.mark.parametrize("section", [*SECTIONS, "paper-comparison", "manifest"])
def test_every_section_is_there_and_linked(page, section):
    assert page.count(f'<h2 id="{section}">') == page.count(f'href="#{section}"') == 1


def test_every_figure_is_a_image_and_a_drawing(folder, page):
    linked = set(re.findall(r'href="figures/([^"]+)"', page))
    assert linked == {path.name for path in (folder / "figures").iterdir()}
    assert len(linked) == 2 * page.count("<figure>") == 2 * 21
    for name in linked:
        if name.endswith(".svg"):
            assert len(ElementTree.parse(folder / "figures" / name).getroot()) > 0
        else:
            low, high = Image.open(folder / "figures" / name).convert("L").getextrema()
            assert low < high


def test_nothing_is_loaded_from_elsewhere(page):
    targets = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')\s>]+)', page)
    assert targets
    assert [target for target in targets if not target.startswith(("#", "data:image/png", "figures/"))] == []
    assert "<script" not in page


def test_ids_are_unique(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_cells_are_the_numbers_of_the_database(finished, shown):
    (title,) = [title for title in shown if title.startswith("Accuracy")]
    heading, *lines = shown[title]
    found = {
        (line[0], int(line[1]), policy): cell
        for line in lines
        for policy, cell in zip(heading[2:], line[2:], strict=True)
    }
    rows = finished.home.rows(
        "SELECT kind, level, policy, overall_accuracy, edge_accuracy FROM accuracy WHERE run = 1 AND p_tar = 0.8"
    )
    assert len(rows) == 8 * 5
    assert found == {
        (kind, level, policy): f"{100 * overall:.1f} / " + ("–" if edge is None else f"{100 * edge:.1f}")
        for kind, level, policy, overall, edge in rows
    }


def test_calibration_errors_can_be_recounted_from_predictions(finished, shown):
    heading, *lines = shown["Expected calibration error, points"]
    assert heading == ["expert", "exit", "before", "after"]
    assert len(lines) == 3 * 4
    for expert, number, _, after in lines:
        bins = {}
        rows = finished.home.rows(
            "SELECT p.confidence, p.correct FROM predictions p JOIN jobs j ON j.artifact_id = p.artifact_id"
            " WHERE j.run_id = 1 AND p.expert = ? AND p.kind = p.expert AND p.exit = ?",
            *(expert, int(number)),
        )
        for confidence, correct in rows:
            place = next(i for i in range(15) if confidence <= (i + 1) / 15)
            bins.setdefault(place, []).append(correct - confidence)
        error = sum(abs(sum(gaps)) for gaps in bins.values()) / len(rows)
        assert float(after) == pytest.approx(100 * error, abs=0.051)


def test_the_manifest_names_what_the_run_is_made_from(finished, page):
    ((digest, identity),) = finished.home.rows(
        "SELECT d.digest, r.identity FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE r.id = 1"
    )
    for said in (digest, identity, "numpy", "torch", "&#34;shard_size&#34;: 8"):
        assert said in page


def test_a_second_report_replaces_the_first_and_keeps_what_is_not_its_own(finished, folder):
    (folder / "notes.txt").write_text("mine")
    (folder / "report.html").write_text(
        (folder / "report.html").read_text() + '<a href="figures/gone.svg">SVG</a>'
    )
    (folder / "figures" / "gone.svg").write_text("<svg/>")
    assert finished.home.command("report", "1").returncode == 0
    assert "gone.svg" not in (folder / "report.html").read_text()
    assert not (folder / "figures" / "gone.svg").exists()
    assert (folder / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["figures", "notes.txt", "report.html"]


@pytest.mark.parametrize(
    "lost",
    [
        "label LIKE '%gaussian_blur%'",
        "label LIKE 'policy oracle %' OR label LIKE 'pristine expert %'",
        "label LIKE 'policy classifier %' OR label LIKE 'policy pristine %'",
        "id % 3 = 0",
    ],
)
def test_every_figure_of_a_run_that_failed_in_part_is_drawn(finished, tmp_path, lost):
    original, copy = (finished.home.path / "orchestrator.db", tmp_path / "copy.db")
    with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(copy)) as database:
        source.backup(database)
        database.execute(f"UPDATE jobs SET artifact_id = NULL WHERE {lost}")  # noqa: S608  # our own
        database.commit()
    engine, store = open_engine(f"sqlite:///{copy}"), ArtifactStore(str(tmp_path))
    with reading(engine) as session:
        shown = sections(findings(session, store, 1))
    engine.dispose()
    assert {section.name for section in shown} >= {"accuracy", "latency", "cross-expert", "outage"}
    for drawing in (drawing for section in shown for drawing in section.drawings):
        assert drawing.draw().axes


def test_a_folder_of_somebody_else_is_refused(finished, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    done = finished.home.command("report", "1", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: '{tmp_path}': the folder is not empty. Name a new or empty one.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

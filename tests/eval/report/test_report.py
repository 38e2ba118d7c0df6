"""The HTML report: a self-contained page whose numbers are all in the tables next to it."""

from __future__ import annotations

import asyncio
import csv
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.browser import needs_chromium, open_page, page_count
from helpers.paths import ROOT
from helpers.sweep_folder import write_example_analysis, write_example_dataset, write_example_sweep

import clm_data
from clm_data.cli import run
from clm_data.errors import ConfigError, InputFileError
from clm_data.eval.bilingual import BilingualText
from clm_data.eval.csv_tables import read_rows
from clm_data.eval.report import HtmlReport, report, write_report
from clm_data.eval.report.chapters.geometry import geometry_section
from clm_data.eval.report.chapters.summary import summary_section
from clm_data.eval.report.evaluation import Evaluation
from clm_data.eval.report.parts import Paragraph, Table
from clm_data.eval.results import read_results

FEW_TABLES = ("geometry.csv", "language_points.csv", "venn.csv")
"""Enough for a figure in every chapter; drawing all of them takes long."""
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)")
"""A number that is not part of a word such as "sha256", a hash, or "U+200B"."""
UNREAD_TAGS = ("style", "title", "legend")


class PageContent(HTMLParser):
    """The tags of a page and the texts that readers see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self._unread: list[bool] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag in ("meta", "img", "input", "br"):
            return
        self.open.append(tag)
        self._unread.append(tag in UNREAD_TAGS or attributes.get("class") == "file")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._unread.pop()

    def handle_data(self, data: str) -> None:
        if not any(self._unread):
            self.texts.append(data)

    def attributes(self, tag: str, name: str) -> list[str]:
        """The values of an attribute of all tags of a kind."""
        return [found[name] for one, found in self.tags if one == tag and name in found]

    @property
    def text(self) -> str:
        return "".join(self.texts)


def content_of(page: Path) -> PageContent:
    return PageContent(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results and their analysis (``out``) and the dataset (``set``)."""
    folder = tmp_path_factory.mktemp("report")
    write_example_sweep(folder / "out", write_example_dataset(folder / "set"))
    write_example_analysis(folder / "out" / "analysis", only=FEW_TABLES)
    return folder


@pytest.fixture(scope="module")
def written(folder: Path) -> HtmlReport:
    out = folder / "out"
    return write_report(out, out / "report.html", dataset=str(folder / "set"))


@pytest.fixture(scope="module")
def content(written: HtmlReport) -> PageContent:
    return content_of(written.page)


def csv_cells(folder: Path) -> Iterator[str]:
    for file in folder.glob("*.csv"):
        with file.open(encoding="utf-8", newline="") as rows:
            for row in csv.reader(rows):
                yield from row


def test_tags_are_closed_and_nothing_is_loaded_from_outside(content: PageContent) -> None:
    assert content.open == []
    images = content.attributes("img", "src")
    assert images
    assert all(url.startswith("data:image/") for url in images)
    assert not any(tag in ("script", "link", "iframe") for tag, _ in content.tags)
    ids = {attributes["id"] for _, attributes in content.tags if "id" in attributes}
    links = content.attributes("a", "href")
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_the_summary_begins_with_what_the_recipe_says_about_itself(folder: Path) -> None:
    results = read_results(folder / "out")
    recipe = results.recipe | {"about": "Needs a model\nthat reads.\n"}
    explained = results.model_copy(update={"recipe": recipe})
    first = summary_section(Evaluation(folder / "out", explained), {}).parts[0]
    assert isinstance(first, Paragraph)
    assert first.text == BilingualText("Needs a model that reads.", "Needs a model that reads.")


def test_without_a_comparison_the_geometry_says_that_the_table_has_the_reasons() -> None:
    row = {"model": "m", "method": "ike", "batch_size": "8", "language": "zh", "reason": "none"}
    first, table = geometry_section({"geometry_skipped.csv": [row]}, (), "command").parts
    assert isinstance(first, Paragraph)
    assert first.text.en == "No edits could be compared; the table says why."
    assert isinstance(table, Table)


def test_every_image_has_an_alternative_text(content: PageContent) -> None:
    alternatives = content.attributes("img", "alt")
    assert len(alternatives) == len(content.attributes("img", "src"))
    assert all(alternatives)


@pytest.mark.parametrize(
    "heading", ["数据集", "Dataset", "编辑的几何分析", "Geometry of edits", "与论文对照"]
)
def test_headings_are_in_both_languages(heading: str, content: PageContent) -> None:
    assert heading in content.text


def test_every_number_of_the_page_is_in_a_table(written: HtmlReport, content: PageContent) -> None:
    in_tables = {number for cell in csv_cells(written.tables) for number in NUMBER.findall(cell)}
    shown = {number for text in content.texts for number in NUMBER.findall(text)}
    assert len(shown) > 100
    assert shown - in_tables == set()


def test_every_table_is_written_as_csv_and_latex(written: HtmlReport) -> None:
    names = {file.stem for file in written.tables.glob("*.csv")}
    assert names == {file.stem for file in written.tables.glob("*.tex")}
    assert names >= {
        "evaluation", "before_after", "transfer_between_languages", "evaluation_domains_1",
        "examples", "dataset_domains", "dataset_lengths", "dataset_origins", "geometry_summary",
        "settings_run", "settings_cells", "reproduce", "refused", "failed_cells", "figures",
    }  # fmt: skip


def test_all_rows_of_a_latex_table_have_the_same_number_of_columns(written: HtmlReport) -> None:
    for file in written.tables.glob("*.tex"):
        text = file.read_text(encoding="utf-8")
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 1
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1


def test_every_figure_is_written_as_png_and_svg(written: HtmlReport) -> None:
    names = {row["name"] for row in read_rows(written.tables / "figures.csv")}
    assert names >= {"evaluation_measures", "geometry_independence", "neuron_venn"}
    for name in names:
        assert (written.figures / f"{name}.en.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (written.figures / f"{name}.en.svg").read_text(encoding="utf-8")


def test_a_first_report_draws_the_figures_of_the_evaluation_without_analyze(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_example_sweep(out, folder / "set", sizes=(12,))
    assert not (out / "analysis").exists()
    done = write_report(out, out / "report.html")
    assert (done.figures / "evaluation_measures.en.svg").is_file()
    assert (done.figures / "evaluation_along.en.svg").is_file()
    assert len(read_rows(out / "analysis" / "evaluation_long.csv")) > 100


def test_outdated_tables_of_the_evaluation_are_replaced(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_example_sweep(out, folder / "set", sizes=(12,))
    table = out / "analysis" / "evaluation_long.csv"
    table.parent.mkdir()
    table.write_text("model\n")
    write_report(out, out / "report.html")
    assert len(read_rows(table)) > 100


def test_examples_contain_the_answers_before_and_after(
    written: HtmlReport, content: PageContent
) -> None:
    rows = read_rows(written.tables / "examples.csv")
    assert {row["group"] for row in rows} == {"transferred", "stayed", "failed"}
    for row in rows:
        edited = row["edited"] == "yes"
        if row["group"] == "failed" and edited:
            assert row["verdict"] != "new"
        elif row["group"] == "transferred" or edited:
            assert row["verdict"] == "new"
            assert row["said_after"].startswith(row["target_new"])


def test_markup_and_invisible_characters_in_answers_are_shown(content: PageContent) -> None:
    assert "<b>⟨U+200B⟩" in content.text


def test_failed_cells_and_refused_edits_are_listed(content: PageContent) -> None:
    assert "out of memory" in content.text
    assert "no place" in content.text


def test_the_version_is_listed(written: HtmlReport) -> None:
    versions = {
        row["name"]: row["value"] for row in read_rows(written.tables / "settings_versions.csv")
    }
    assert versions["clm-data"] == clm_data.__version__


def test_a_second_report_has_the_same_bytes(written: HtmlReport, folder: Path) -> None:
    def all_files() -> dict[str, bytes]:
        files = [written.page, *written.tables.iterdir(), *written.figures.iterdir()]
        return {file.name: file.read_bytes() for file in files}

    first = all_files()
    write_report(folder / "out", written.page, dataset=str(folder / "set"))
    assert all_files() == first


def test_missing_parts_are_named_with_the_command_that_produces_them(
    folder: Path, tmp_path: Path
) -> None:
    write_example_sweep(tmp_path / "out", folder / "set", sizes=(12,), generation=False)
    done = write_report(tmp_path / "out", tmp_path / "out" / "report.html")
    commands = [part.command for part in done.missing]
    assert sum(command.startswith("clm-data analyze") for command in commands) == 2
    assert any("report" in command and "--dataset" in command for command in commands)
    assert any("eval-baselines" in command for command in commands)
    content = content_of(done.page)
    assert content.open == []
    assert "There are no tables of the geometry of edits" in content.text
    assert all(command in content.text for command in commands)


@pytest.mark.parametrize(
    ("records", "expected"), [(13, "The evaluation used its first"), (3, "used other records")]
)
def test_the_page_says_whether_the_dataset_is_the_one_that_was_evaluated(
    records: int, expected: str, folder: Path, tmp_path: Path
) -> None:
    dataset = write_example_dataset(tmp_path / "set", records)
    shutil.copytree(folder / "out", tmp_path / "out")
    page = tmp_path / "elsewhere" / "page.html"
    done = write_report(tmp_path / "out", page, dataset=str(dataset))
    assert expected in page.read_text(encoding="utf-8")
    assert done.tables == tmp_path / "elsewhere" / "page_files" / "tables"


def test_tables_that_clm_data_did_not_write_are_not_replaced(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "tables", ignore_errors=True)
    (tmp_path / "out" / "tables").mkdir()
    (tmp_path / "out" / "tables" / "mine.csv").write_text("a\n")
    with pytest.raises(InputFileError, match="did not write"):
        write_report(tmp_path / "out", tmp_path / "out" / "report.html")


def test_report_returns_rows_and_comparisons_of_several_folders(folder: Path) -> None:
    out = folder / "out"
    result = report([out, out], compare_paper=True)
    assert len(result.rows) == 2 * len(report([out]).rows) > 0
    assert result.comparisons == ()
    assert result.html is None


def test_a_page_shows_a_single_run_in_a_known_language(folder: Path, tmp_path: Path) -> None:
    out, page = folder / "out", tmp_path / "page.html"
    with pytest.raises(ConfigError, match="one run"):
        report([out, out], html=page)
    with pytest.raises(ConfigError, match="zh or en"):
        report([out], html=page, lang="fr")
    assert not page.exists()


def test_the_command_writes_the_page(
    folder: Path, written: HtmlReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert written.figures.is_dir()
    shutil.copytree(folder / "out", tmp_path / "out")  # with figures, so none is drawn
    out, page = str(tmp_path / "out"), str(tmp_path / "out" / "report.html")
    argv = ["report", out, "--html", page, "--dataset", str(folder / "set"), "--language", "zh"]
    assert run(argv) == 0
    assert page in capsys.readouterr().out
    assert '<html lang="zh">' in Path(page).read_text(encoding="utf-8")
    assert run(["report", out, out, "--html", page]) == 2
    assert run(["report", out, "--html", page, "--language", "fr"]) == 2
    assert "zh or en" in capsys.readouterr().err


CSS = ROOT / "clm_data" / "eval" / "report" / "report.css"


def color_schemes() -> list[dict[str, str]]:
    """The colors by name: light, then dark."""
    blocks = re.findall(r":root \{[^}]*--text[^}]*\}", CSS.read_text(encoding="utf-8"))
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in blocks]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2, from 1 to 21."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_is_readable_in_light_and_dark() -> None:
    schemes = color_schemes()
    assert len(schemes) == 2
    for colors in schemes:
        for name in ("text", "quiet", "link", "good", "bad", "note"):
            for background in ("back", "soft"):
                assert contrast(colors[name], colors[background]) >= 5


OUT_OF_SIGHT = """[...document.querySelectorAll("body *")].filter(e =>
    e.getBoundingClientRect().right > innerWidth + 1 && !e.closest("%s")).length"""


@needs_chromium
def test_the_page_fits_and_switches_languages_in_chromium(written: HtmlReport) -> None:
    async def check() -> None:
        async with open_page(written.page) as page:
            for width, dark in ((1280, False), (390, False), (390, True)):
                await page.resize(width, dark=dark)
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                assert await page.evaluate(OUT_OF_SIGHT % ".scroll, .skip") == 0
            assert await page.evaluate("document.images.length") > 4
            broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
            assert await page.evaluate(broken) == 0
            display = "getComputedStyle(document.querySelector('h2 .%s')).display"
            assert await page.evaluate(display % "zh") == "none"
            await page.evaluate("document.getElementById('show-zh').click()")
            assert await page.evaluate(display % "en") == "none"
            assert await page.evaluate(display % "zh") != "none"
            assert page.requests == [written.page.absolute().as_uri()]
            assert page.console == []

    asyncio.run(check())


@needs_chromium
def test_nothing_is_cut_off_in_print(written: HtmlReport) -> None:
    async def check() -> None:
        async with open_page(written.page) as page:
            await page.resize(703)  # A4 without margins, at 96 dots per inch
            await page.call("Emulation.setEmulatedMedia", media="print")
            assert await page.evaluate(OUT_OF_SIGHT % ".skip") == 0
            height = await page.evaluate("document.documentElement.scrollHeight")
            collapsed = "[...document.querySelectorAll('details .scroll')]"
            assert await page.evaluate(
                f"{collapsed}.every(e => e.getBoundingClientRect().height > 0)"
            )
            pages = page_count(await page.pdf())
            assert pages >= height / (273 / 25.4 * 96)

    asyncio.run(check())

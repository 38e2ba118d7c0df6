"""The report: one self-contained page, every number of which is in a table beside it."""

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
from helpers.sweep_folder import make_analysis, make_dataset, make_results

from clm_data.cli import run
from clm_data.errors import InputFileError
from clm_data.eval.report import HtmlReport, write_report
from clm_data.eval.report.chapters import geometry as about_geometry
from clm_data.eval.report.parts import Table

FEW = ("geometry.csv", "language_points.csv", "venn.csv")
"""Enough for figures in every chapter; drawing all takes long."""
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)")
"""Not in words: «sha256», hashes, «U+200B»."""
QUIET = ("style", "title", "legend")


class Seen(HTMLParser):
    """What a page shows and loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self._skipped = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if tag in ("meta", "img", "input", "br"):
            return
        self.open.append(tag)
        self._skipped += tag in QUIET or found.get("class") == "file"
        self._kept = [*getattr(self, "_kept", []), tag in QUIET or found.get("class") == "file"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._skipped -= self._kept.pop()

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.texts.append(data)

    def all(self, name: str, attribute: str) -> list[str]:
        return [found[attribute] for tag, found in self.tags if tag == name and attribute in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results, analysis and dataset (``set``), without a page."""
    made = tmp_path_factory.mktemp("report")
    make_results(made / "out", make_dataset(made / "set"))
    make_analysis(made / "out" / "analysis", only=FEW)
    return made


@pytest.fixture(scope="module")
def written(folder: Path) -> HtmlReport:
    out = folder / "out"
    return write_report(out, out / "report.html", dataset=str(folder / "set"))


@pytest.fixture(scope="module")
def seen(written: HtmlReport) -> Seen:
    return Seen(written.page.read_text(encoding="utf-8"))


def cells_of(folder: Path) -> Iterator[str]:
    for file in folder.glob("*.csv"):
        with file.open(encoding="utf-8", newline="") as rows:
            for row in csv.reader(rows):
                yield from row


def test_every_tag_is_closed_and_nothing_is_loaded_from_outside(seen: Seen) -> None:
    assert seen.open == []
    assert seen.all("img", "src")
    assert all(address.startswith("data:image/") for address in seen.all("img", "src"))
    assert not any(tag in ("script", "link", "iframe") for tag, _ in seen.tags)
    ids = {found["id"] for _, found in seen.tags if "id" in found}
    links = seen.all("a", "href")
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_every_picture_says_what_it_shows_and_headings_are_in_both_languages(seen: Seen) -> None:
    assert len(seen.all("img", "alt")) == len(seen.all("img", "src"))
    assert all(seen.all("img", "alt"))
    text = "".join(seen.texts)
    for words in ("数据集", "Dataset", "编辑的几何", "The geometry of edits", "与论文对照"):
        assert words in text


def test_every_number_of_the_page_is_in_a_table_beside_it(written: HtmlReport, seen: Seen) -> None:
    known = {number for cell in cells_of(written.tables) for number in NUMBER.findall(cell)}
    shown = {number for text in seen.texts for number in NUMBER.findall(text)}
    assert len(shown) > 100
    assert shown - known == set()


def test_each_table_is_there_as_csv_and_as_latex(written: HtmlReport) -> None:
    names = {file.stem for file in written.tables.glob("*.csv")}
    assert names == {file.stem for file in written.tables.glob("*.tex")}
    wanted = {
        "evaluation", "before_after", "transfer_between_languages", "evaluation_domains_1",
        "examples", "dataset_domains", "dataset_lengths", "dataset_origins", "geometry_summary",
        "settings_run", "settings_cells", "reproduce", "refused", "failed_cells", "figures",
    }  # fmt: skip
    assert wanted <= names
    for file in written.tables.glob("*.tex"):
        text = file.read_text(encoding="utf-8")
        head = next(line for line in text.splitlines() if "&" in line or line.endswith(r"\\"))
        body = [line for line in text.splitlines() if line.endswith(r"\\")]
        columns = len(re.findall(r"(?<!\\)&", head))
        assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {columns}


def test_each_figure_is_there_as_png_and_svg_in_both_languages(written: HtmlReport) -> None:
    with (written.tables / "figures.csv").open(encoding="utf-8", newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert {"evaluation_measures", "geometry_independence", "neuron_venn"} <= set(names)
    for name in names:
        assert (written.figures / f"{name}.en.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (written.figures / f"{name}.en.svg").read_text(encoding="utf-8")


def test_the_examples_hold_what_the_model_said_and_hide_nothing(
    written: HtmlReport, seen: Seen
) -> None:
    with (written.tables / "examples.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["group"] for row in rows} == {"transferred", "stayed", "failed"}
    for row in rows:
        own = row["edited"] == "yes"
        if row["group"] == "failed" and own:
            assert row["verdict"] != "new"
        elif row["group"] == "transferred" or own:
            assert row["verdict"] == "new"
            assert row["said_after"].startswith(row["target_new"])
    text = "".join(seen.texts)
    assert "<b>⟨U+200B⟩" in text  # markup in an answer is text, and what nobody sees is shown


def test_the_page_names_failures_and_refusals(seen: Seen) -> None:
    text = "".join(seen.texts)
    assert "out of memory" in text
    assert "no place" in text


def test_a_second_run_writes_the_same_bytes(written: HtmlReport, folder: Path) -> None:
    def everything() -> dict[str, bytes]:
        files = [written.page, *written.tables.iterdir(), *written.figures.iterdir()]
        return {file.name: file.read_bytes() for file in files}

    first = everything()
    write_report(folder / "out", written.page, dataset=str(folder / "set"))
    assert everything() == first


def test_a_report_without_dataset_and_analysis_says_what_is_missing_and_how_to_make_it(
    folder: Path, tmp_path: Path
) -> None:
    make_results(tmp_path / "out", folder / "set", sizes=(12,), generated=False)
    done = write_report(tmp_path / "out", tmp_path / "out" / "report.html")
    commands = [one.command for one in done.missing]
    assert sum(command.startswith("clm-data analyze") for command in commands) == 2
    assert any("--dataset" in command for command in commands)
    assert any("eval-baselines" in command for command in commands)
    seen = Seen(done.page.read_text(encoding="utf-8"))
    text = "".join(seen.texts)
    assert seen.open == []
    assert "There are no tables of geometry" in text
    assert all(command in text for command in commands)


def test_another_dataset_is_told_from_the_one_that_was_evaluated(
    folder: Path, tmp_path: Path
) -> None:
    other = make_dataset(tmp_path / "other", 13)
    shutil.copytree(folder / "out", tmp_path / "out")
    page = tmp_path / "elsewhere" / "page.html"
    done = write_report(tmp_path / "out", page, dataset=str(other))
    assert "Exactly its first" in page.read_text(encoding="utf-8")
    assert done.tables == tmp_path / "elsewhere" / "page_files" / "tables"
    small = make_dataset(tmp_path / "small", 3)
    write_report(tmp_path / "out", page, dataset=str(small))
    assert "do not belong together" in page.read_text(encoding="utf-8")


def test_tables_of_somebody_else_are_not_overwritten(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "tables", ignore_errors=True)
    (tmp_path / "out" / "tables").mkdir()
    (tmp_path / "out" / "tables" / "mine.csv").write_text("a\n")
    with pytest.raises(InputFileError, match="did not write"):
        write_report(tmp_path / "out", tmp_path / "out" / "report.html")


def test_the_command_writes_the_page_and_refuses_two_runs(
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


def schemes() -> Iterator[dict[str, str]]:
    for block in re.findall(r":root \{[^}]*--text[^}]*\}", CSS.read_text(encoding="utf-8")):
        yield dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))


def contrast(one: str, two: str) -> float:
    """Of WCAG 2: 1 to 21."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_in_light_and_dark() -> None:
    found = list(schemes())
    assert len(found) == 2
    for colours in found:
        for name in ("text", "quiet", "link", "good", "bad", "note"):
            for ground in ("back", "soft"):
                assert contrast(colours[name], colours[ground]) >= 5


OUT_OF_SIGHT = """[...document.querySelectorAll("body *")].filter(e =>
    e.getBoundingClientRect().right > innerWidth + 1 && !e.closest("%s")).length"""


@needs_chromium
def test_in_chromium_nothing_is_asked_for_nothing_complains_and_nothing_is_cut_off(
    written: HtmlReport,
) -> None:
    async def look() -> None:
        async with open_page(written.page) as page:
            for width, dark in ((1280, False), (390, False), (390, True)):
                await page.resize(width, dark=dark)
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                assert await page.evaluate(OUT_OF_SIGHT % ".scroll, .skip") == 0
            assert await page.evaluate("document.images.length") > 4
            broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
            assert await page.evaluate(broken) == 0
            hidden = "getComputedStyle(document.querySelector('h2 .%s')).display"
            assert await page.evaluate(hidden % "zh") == "none"
            await page.evaluate("document.getElementById('show-zh').click()")
            assert await page.evaluate(hidden % "en") == "none"
            assert await page.evaluate(hidden % "zh") != "none"
            assert page.requests == [written.page.absolute().as_uri()]
            assert page.console == []

    asyncio.run(look())


@needs_chromium
def test_printed_by_chromium_the_page_is_whole(written: HtmlReport) -> None:
    async def look() -> None:
        async with open_page(written.page) as page:
            await page.resize(703)  # A4 without margins, at 96 dots an inch
            await page.call("Emulation.setEmulatedMedia", media="print")
            assert await page.evaluate(OUT_OF_SIGHT % ".skip") == 0
            height = await page.evaluate("document.documentElement.scrollHeight")
            folded = "[...document.querySelectorAll('details .scroll')]"
            assert await page.evaluate(f"{folded}.every(e => e.getBoundingClientRect().height > 0)")
            pages = page_count(await page.pdf())
            assert pages >= height / (273 / 25.4 * 96)

    asyncio.run(look())


@pytest.mark.parametrize(
    ("kind", "named"), [("disjoint", "another batch"), ("split", "halves of one batch")]
)
def test_a_comparison_stands_beside_controls_that_say_where_they_come_from(
    kind: str, named: str
) -> None:
    about = dict.fromkeys(("model", "method", "protocol", "mode", "layers"), "x")
    values = {"zh-en": 0.5, f"{kind}-zh": 0.125, f"{kind}-en": 0.375, f"{kind}-zh-en": 0.0625}
    rows = [
        about
        | {"batch_size": "4", "batch": "all", "layer": "1", "comparison": name, "measure": "cosine"}
        | {"value": str(value), "low": "", "high": ""}
        for name, value in values.items()
    ]
    table = about_geometry.parts({"geometry.csv": rows})[0]
    assert isinstance(table, Table)
    (row,) = (
        dict(zip([column.key for column in table.columns], row, strict=True)) for row in table.rows
    )
    assert float(row["lowest"]) == 0.5
    assert float(row["control"]) == 0.25
    assert float(row["control_other"]) == pytest.approx(0.0625, abs=1e-3)
    assert row["control_of_en"] == named

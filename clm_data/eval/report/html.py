"""The report: a dataset, its evaluation and the geometry of its edits on one page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clm_data.errors import ConfigError, InputFileError
from clm_data.eval.analysis.evaluation_tables import write_evaluation_tables
from clm_data.eval.bilingual import bundled_domains
from clm_data.eval.csv_tables import Row, read_rows
from clm_data.eval.report import exports, page
from clm_data.eval.report.chapters import (
    dataset as about_dataset,
)
from clm_data.eval.report.chapters import (
    domains as about_domains,
)
from clm_data.eval.report.chapters import (
    evaluation as about_evaluation,
)
from clm_data.eval.report.chapters import (
    examples as about_examples,
)
from clm_data.eval.report.chapters import (
    geometry as about_geometry,
)
from clm_data.eval.report.chapters import (
    language as about_language,
)
from clm_data.eval.report.chapters import (
    run as about_run,
)
from clm_data.eval.report.chapters import (
    summary as about_summary,
)
from clm_data.eval.report.chapters.evaluation import Evaluation
from clm_data.eval.report.parts import BilingualText, Missing, Part, Picture, Section
from clm_data.eval.results import read_results
from clm_data.files import atomic_folder
from clm_data.log import Log, silent
from clm_data.records import LANGUAGES

MARKER = "statements.csv"
"""A table that every report has: tells its folder from somebody's own."""
_LARGEST_SVG = 400_000
"""Bytes; of a larger one the page shows the PNG."""


@dataclass(frozen=True)
class HtmlReport:
    """A page and its files.

    Attributes:
        page: The page.
        tables: Folder of CSV and LaTeX files.
        figures: Folder of PNG and SVG files.
        missing: What could not be shown, with the command that produces it.
    """

    page: Path
    tables: Path
    figures: Path
    missing: tuple[Missing, ...]


@dataclass(frozen=True)
class _Places:
    folder: Path
    page: Path

    @property
    def home(self) -> Path:
        """Where tables and figures go: beside the page, in a folder of its name elsewhere."""
        beside = self.page.absolute().parent == self.folder.absolute()
        return self.folder if beside else self.page.with_name(f"{self.page.stem}_files")

    @property
    def tables(self) -> Path:
        return self.home / "tables"

    @property
    def figures(self) -> Path:
        return self.home / "figures"

    @property
    def analysis(self) -> Path:
        return self.folder / "analysis"

    def shown(self, path: Path) -> str:
        """As named beside the page."""
        return f"{path.relative_to(self.page.parent).as_posix()}/"


def write_report(
    folder: Path,
    html: Path,
    *,
    dataset: str | None = None,
    lang: str = "en",
    log: Log = silent,
) -> HtmlReport:
    """Write the page, its figures (PNG, SVG) and its tables (CSV, LaTeX).

    The same results, tables and fonts give the same bytes.

    Args:
        folder: What ``eval-baselines`` and ``analyze`` wrote.
        html: The page. Tables and figures go into ``tables`` and ``figures`` beside it where it is
            in the folder, else into ``NAME_files``.
        dataset: The dataset that was evaluated; None: the page says that it is missing.
        lang: Language that the page shows first, ``zh`` or ``en``.
        log: Called with progress messages.

    Raises:
        ConfigError: Another language.
        InputFileError: No results, an unreadable dataset or table, or nothing can be written.
    """
    shown_first = next((one for one in LANGUAGES if one == lang), None)
    if shown_first is None:
        raise ConfigError(f"language {lang}: the page is in zh or en")
    results = read_results(folder)
    places = _Places(folder, html)
    found = None if dataset is None else about_dataset.read(dataset)
    evaluation = Evaluation(folder, results, bundled_domains())
    try:
        html.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(places.tables, MARKER) as tables:
            write_evaluation_tables(places.analysis, results)
            log("drawing the figures")
            pictures = _pictures(places.analysis, places.figures)
            sections = _sections(evaluation, found, places, pictures, dataset)
            exports.write_tables(tables, exports.all_tables(sections))
            recipe = about_run.recipe_text(results)
            if recipe:
                (tables / about_run.RECIPE_NAME).write_text(recipe, encoding="utf-8")
        text = page.render(
            results.title,
            sections,
            lang=shown_first,
            folder=places.shown(places.tables),
            figures=places.shown(places.figures),
        )
        html.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputFileError(f"{html}: cannot be written: {error.strerror or error}") from error
    missing = [part for section in sections for part in section.parts if isinstance(part, Missing)]
    return HtmlReport(html, places.tables, places.figures, tuple(missing))


def _sections(
    evaluation: Evaluation,
    found: about_dataset.Found | None,
    places: _Places,
    pictures: Mapping[str, Sequence[Picture]],
    dataset: str | None,
) -> list[Section]:
    results = evaluation.results
    by_domain = about_domains.by_domain(evaluation)
    analysed = _analysis(places.analysis)
    records = {} if found is None else found.records()
    examples = about_examples.parts(evaluation, records)
    remake = f"clm-data report {places.folder} --html {places.page}"
    arguments = f"{places.folder}" + ("" if dataset is None else f" --dataset {dataset}")
    evaluated = Section(
        "evaluation",
        BilingualText("评测", "Evaluation"),
        (
            *pictures.get("evaluation", ()),
            *about_evaluation.parts(evaluation),
            *by_domain,
            *examples,
        ),
    )
    files = [places.folder / "results.json", *sorted(places.analysis.glob("*.csv"))]
    return [
        about_summary.section(evaluation, analysed),
        about_dataset.section(found, results, f"{remake} --dataset DATASET"),
        evaluated,
        _analysis_section("geometry", pictures, analysed, arguments),
        _analysis_section("language", pictures, analysed, arguments),
        about_run.paper_section(results),
        about_run.settings_section(results, evaluation.done, files),
        about_run.reproduce_section(
            results,
            folder=str(places.folder),
            page=str(places.page),
            tables=f"{places.tables}/",
            dataset=dataset,
        ),
    ]


_ABOUT = {
    "geometry": (
        BilingualText("编辑的几何", "The geometry of edits"),
        ("geometry.csv",),
        BilingualText(
            "没有几何分析的表。它需要用 --save-deltas 保存的权重改变，包括中文、英文与混合编辑。",
            "There are no tables of geometry. They need weight changes kept with --save-deltas, of "
            "edits in Chinese, English and both.",
        ),
        about_geometry.parts,
    ),
    "language": (
        BilingualText("语言向量", "Language vectors"),
        ("language_layers.csv", "language_points.csv"),
        BilingualText(
            "没有语言向量的表。它们需要模型与数据集。",
            "There are no tables of language vectors. They need the model and the dataset.",
        ),
        about_language.parts,
    ),
}


def _analysis_section(
    name: str,
    pictures: Mapping[str, Sequence[Picture]],
    tables: Mapping[str, Sequence[Row]],
    arguments: str,
) -> Section:
    title, wanted, what, make = _ABOUT[name]
    parts: list[Part] = [*pictures.get(name, ()), *make(tables)]
    if not any(tables.get(file) for file in wanted):
        parts.insert(0, Missing(what, f"clm-data analyze {arguments}"))
    return Section(name, title, tuple(parts))


def _analysis(folder: Path) -> dict[str, Sequence[Row]]:
    return {file.name: read_rows(file) for file in sorted(folder.glob("*.csv"))}


def _pictures(tables: Path, out: Path) -> dict[str, list[Picture]]:
    """The figures by chapter, drawn anew."""
    from clm_data.eval.figures.draw import draw_figures

    made: dict[str, list[Picture]] = {}
    for drawn in draw_figures(tables, out):
        spec = drawn.spec
        data = {lang: _address(*files) for lang, files in drawn.files.items()}
        title = spec.title
        if drawn.name != spec.name:
            title = BilingualText(f"{title.zh}：{drawn.model}", f"{title.en}: {drawn.model}")
        figure = f"Figure {spec.paper}" if spec.paper else ""
        picture = Picture(drawn.name, title, spec.caption, spec.sources, data, figure)
        made.setdefault(spec.chapter, []).append(picture)
    return made


def _address(png: Path, svg: Path) -> str:
    small = svg.stat().st_size <= _LARGEST_SVG
    data = base64.b64encode((svg if small else png).read_bytes()).decode("ascii")
    return f"data:image/{'svg+xml' if small else 'png'};base64,{data}"

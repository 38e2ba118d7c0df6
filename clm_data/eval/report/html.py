"""Write the report of one sweep: a web page with figures and tables next to it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clm_data.errors import ConfigError, InputFileError
from clm_data.eval.analysis.evaluation_tables import write_evaluation_tables
from clm_data.eval.bilingual import BilingualText, bundled_domains
from clm_data.eval.csv_tables import Tables, read_rows
from clm_data.eval.figures.draw import DrawnFigure, draw_figures
from clm_data.eval.report import exports, page
from clm_data.eval.report.chapters.dataset import dataset_section
from clm_data.eval.report.chapters.evaluation import evaluation_section
from clm_data.eval.report.chapters.geometry import geometry_section
from clm_data.eval.report.chapters.language import language_section
from clm_data.eval.report.chapters.paper import paper_section
from clm_data.eval.report.chapters.reproduce import recipe_text, reproduce_section
from clm_data.eval.report.chapters.settings import settings_section
from clm_data.eval.report.chapters.summary import summary_section
from clm_data.eval.report.commands import RECIPE_NAME, Commands
from clm_data.eval.report.dataset import DatasetContents, read_contents
from clm_data.eval.report.evaluation import Evaluation
from clm_data.eval.report.parts import Figure, MissingPart, Section
from clm_data.eval.results import Results, read_results
from clm_data.files import atomic_file, atomic_folder, check_page, files_in
from clm_data.log import Log, silent
from clm_data.records import LANGUAGES, Language

MARKER = "statements.csv"
"""A table of every report, by which its folder of tables is recognized."""
_MAX_SVG_BYTES = 400_000
"""The page contains the PNG of figures whose SVG is larger."""


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
    missing: tuple[MissingPart, ...]


def write_report(
    folder: Path,
    html: Path,
    *,
    dataset: str | None = None,
    lang: str = "en",
    log: Log = silent,
) -> HtmlReport:
    """Write the report of a sweep as a page, its figures (PNG, SVG) and tables (CSV, LaTeX).

    Only the figures of the evaluation are drawn if ``analyze`` was not run before. The same
    results, tables and fonts give the same bytes.

    Args:
        folder: Folder that ``eval-baselines`` and ``analyze`` wrote.
        html: The page. Its tables and figures are written to ``folder`` if the page is there,
            otherwise to ``NAME_files`` next to it.
        dataset: The dataset that was evaluated: a folder, a file, or ``OWNER/NAME`` on the Hub.
            Without it the page has neither a description of the dataset nor prompts of examples.
        lang: Language that the page shows first, ``zh`` or ``en``; it contains both.
        log: Called with progress messages.

    Raises:
        ConfigError: Another language.
        InputFileError: Results, dataset or a table cannot be read, or the page cannot be written.
    """
    shown_first = _language(lang)
    check_page(html)
    results, domains = read_results(folder), bundled_domains()
    evaluation = Evaluation(folder, results, domains)
    home = folder if _same(html.parent, folder) else html.with_name(f"{html.stem}_files")
    tables, figures = home / "tables", home / "figures"
    commands = Commands(folder, html, tables, dataset, has_recipe=bool(results.recipe))
    contents = None if dataset is None else read_contents(dataset, domains)
    try:
        html.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(tables, _other_files) as draft:
            write_evaluation_tables(folder / "analysis", results)
            log("drawing the figures")
            drawn = draw_figures(folder / "analysis", figures)
            sections = _sections(evaluation, contents, drawn, commands)
            for reason in evaluation.unreadable:
                log(f"left out: {reason}")
            _write_tables(draft, sections, results)
        shown = {"tables": _relative(tables, html), "figures": _relative(figures, html)}
        text = page.render(results.title, sections, lang=shown_first, **shown)
        with atomic_file(html, overwrite=True) as page_draft:
            page_draft.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputFileError(f"{html}: cannot be written: {error.strerror or error}") from error
    return HtmlReport(html, tables, figures, _missing(sections))


def _other_files(folder: Path) -> Iterator[str]:
    """Paths in a folder that are not tables of a report."""
    is_report = (folder / MARKER).is_file()
    for path in files_in(folder):
        written = path == RECIPE_NAME or ("/" not in path and path.endswith((".csv", ".tex")))
        if not (is_report and written):
            yield path


def _write_tables(folder: Path, sections: Sequence[Section], results: Results) -> None:
    exports.write_tables(folder, exports.all_tables(sections))
    if recipe := recipe_text(results):
        (folder / RECIPE_NAME).write_text(recipe, encoding="utf-8")


def _missing(sections: Sequence[Section]) -> tuple[MissingPart, ...]:
    parts = (part for section in sections for part in section.parts)
    return tuple(part for part in parts if isinstance(part, MissingPart))


def _language(lang: str) -> Language:
    for known in LANGUAGES:
        if known == lang:
            return known
    raise ConfigError(f"language {lang} is not supported; use zh or en")


def _same(one: Path, other: Path) -> bool:
    return one.absolute() == other.absolute()


def _relative(folder: Path, html: Path) -> str:
    """A folder relative to the page, with a slash at its end."""
    return f"{folder.absolute().relative_to(html.parent.absolute()).as_posix()}/"


def _sections(
    evaluation: Evaluation,
    contents: DatasetContents | None,
    drawn: Sequence[DrawnFigure],
    commands: Commands,
) -> list[Section]:
    results, analysis = evaluation.results, evaluation.folder / "analysis"
    files = sorted(analysis.glob("*.csv"))
    tables: Tables = {file.name: read_rows(file) for file in files}
    figures = _figures(drawn)
    records = {} if contents is None else contents.records()
    evaluated = evaluation_section(evaluation, records, figures.get("evaluation", []))
    return [
        summary_section(evaluation, tables),
        dataset_section(contents, results, commands.report_with_dataset),
        _with_notices(evaluated, evaluation, commands.evaluate),
        geometry_section(tables, figures.get("geometry", []), commands.analyze),
        language_section(tables, figures.get("language", []), commands.analyze),
        paper_section(results),
        settings_section(evaluation, [evaluation.folder / "results.json", *files]),
        reproduce_section(results, commands),
    ]


def _with_notices(section: Section, evaluation: Evaluation, command: str) -> Section:
    """The chapter with what is missing from its numbers, and what to read with care."""
    notices = [
        *((f"无法读取编辑前的回答：{line}", line, command) for line in evaluation.unreadable),
        *((f"未计入结果：{line}", f"Left out: {line}", "") for line in evaluation.results.losses),
        *((f"请注意：{line}", f"Warning: {line}", "") for line in evaluation.results.warnings),
    ]
    parts = (MissingPart(BilingualText(zh, en), remedy) for zh, en, remedy in notices)
    return replace(section, parts=(*parts, *section.parts))


def _figures(drawn: Sequence[DrawnFigure]) -> Mapping[str, list[Figure]]:
    """The figures by chapter, with their images."""
    figures: dict[str, list[Figure]] = {}
    for one in drawn:
        spec, title = one.spec, one.spec.title
        if one.name != spec.name:  # one of several models
            title = BilingualText(f"{title.zh}：{one.model}", f"{title.en}: {one.model}")
        data = {lang: _data_url(*files) for lang, files in one.files.items()}
        figure = Figure(one.name, title, spec.caption, spec.sources, data, spec.paper)
        figures.setdefault(spec.chapter, []).append(figure)
    return figures


def _data_url(png: Path, svg: Path) -> str:
    small = svg.stat().st_size <= _MAX_SVG_BYTES
    data = base64.b64encode((svg if small else png).read_bytes()).decode("ascii")
    return f"data:image/{'svg+xml' if small else 'png'};base64,{data}"

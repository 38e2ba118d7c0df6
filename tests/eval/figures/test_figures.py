"""Figures, drawn from example tables."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.fonts import use_fonts, write_font
from helpers.sweep_folder import write_example_analysis, write_example_dataset, write_example_sweep
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

import clm_data
from clm_data.eval.analysis.evaluation_tables import write_evaluation_tables
from clm_data.eval.csv_tables import read_rows
from clm_data.eval.figures.draw import (
    FIGURES,
    INDEX_NAME,
    draw_figures,
    drawing_files,
    file_name_part,
)
from clm_data.eval.figures.save import Fonts, save_figure
from clm_data.eval.figures.style import COLORS, MARKERS, FigureSpec, plot_settings
from clm_data.fonts import find_fonts
from clm_data.records import LANGUAGES, Language

PACKAGE = Path(clm_data.__file__).parent


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every table that a figure is drawn from."""
    folder = tmp_path_factory.mktemp("figures")
    results = write_example_sweep(folder / "out", write_example_dataset(folder / "set"))
    write_example_analysis(folder / "tables")
    write_evaluation_tables(folder / "tables", results)
    return folder / "tables"


@pytest.fixture
def venn_table(tables: Path, tmp_path: Path) -> Path:
    """A folder with a single table, from which one figure is drawn."""
    folder = tmp_path / "venn"
    folder.mkdir()
    (folder / "venn.csv").write_bytes((tables / "venn.csv").read_bytes())
    return folder


def spec_named(name: str) -> FigureSpec:
    return next(spec for spec in FIGURES if spec.name == name)


def figure_of(spec: FigureSpec, tables: Path, lang: Language = "en") -> Any:
    """The matplotlib figure of the only model."""
    rows = {name: read_rows(tables / name) for name in spec.sources}
    ((model, figure),) = spec.draw(rows, lang)
    assert model == "tiny"
    return figure


def saved(
    spec: FigureSpec, tables: Path, folder: Path, lang: Language = "en"
) -> tuple[bytes, bytes]:
    """PNG and SVG of a figure."""
    png, svg = folder / "figure.png", folder / "figure.svg"
    with plot_settings():
        figure = figure_of(spec, tables, lang)
        assert save_figure(figure, (png, svg), Fonts())
        assert_nothing_is_cut_off(figure)
    return png.read_bytes(), svg.read_bytes()


def assert_nothing_is_cut_off(figure: Any) -> None:
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.bbox.width, figure.bbox.height
    headings = [axes.title for axes in figure.findobj(Axes)] + [figure._suptitle]
    for part in [*figure.legends, *headings]:
        box = part.get_window_extent(renderer)
        assert -1 <= box.x0 <= box.x1 <= width + 1, part
        assert -1 <= box.y0 <= box.y1 <= height + 1, part


def assert_titles_do_not_overlap(figure: Any) -> None:
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [
        axes.title.get_window_extent(renderer)
        for axes in figure.findobj(Axes)
        if axes.title.get_text()
    ]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.parametrize("spec", FIGURES, ids=lambda spec: spec.name)
@pytest.mark.parametrize("lang", LANGUAGES)
def test_each_figure_is_complete_and_has_no_date(
    spec: FigureSpec, lang: Language, tables: Path, tmp_path: Path
) -> None:
    if lang == "zh" and find_fonts("中文") is None:
        pytest.skip("no Chinese font is installed")
    png, svg = saved(spec, tables, tmp_path, lang)
    assert png.startswith(b"\x89PNG")
    assert b"<dc:date>" not in svg
    assert b"<text" not in svg  # letters are outlines, so readers do not need the font
    assert len(svg) > 5_000


@pytest.mark.parametrize("spec", FIGURES, ids=lambda spec: spec.name)
def test_panel_titles_do_not_overlap(spec: FigureSpec, tables: Path) -> None:
    with plot_settings():
        figure = figure_of(spec, tables)
        FigureCanvasAgg(figure).draw()
        assert_titles_do_not_overlap(figure)


@pytest.mark.parametrize("name", ["geometry_additivity", "language_points"])
def test_equal_tables_give_equal_bytes(name: str, tables: Path, tmp_path: Path) -> None:
    spec = spec_named(name)
    assert saved(spec, tables, tmp_path / "a") == saved(spec, tables, tmp_path / "b")


def test_panels_axes_and_series_are_labeled(tables: Path) -> None:
    with plot_settings():
        figure = figure_of(spec_named("geometry_independence"), tables)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"batch size 4", "batch size 12", "range reported in the paper"} <= labels
    assert any(label.startswith("null") for label in labels)
    panels = [axes for axes in figure.get_axes() if axes.get_title()]
    assert len(panels) == 6
    assert all(axes.get_xlabel() == "layer" for axes in panels)
    assert any("degrees" in axes.get_title() for axes in panels)


def test_series_differ_in_color_and_marker(tables: Path) -> None:
    with plot_settings():
        figure = figure_of(spec_named("language_layers"), tables)
    for axes in figure.get_axes():
        lines = [line for line in axes.get_lines() if line.get_marker() in MARKERS]
        assert lines
        for property_of in ("get_color", "get_marker"):
            values = [getattr(line, property_of)() for line in lines]
            assert len(set(values)) == len(values)
        assert {line.get_color() for line in lines} <= set(COLORS)


def test_figures_are_drawn_in_both_languages(venn_table: Path, tmp_path: Path) -> None:
    if find_fonts("中文图") is None:
        pytest.skip("no Chinese font is installed")
    (figure,) = draw_figures(venn_table, tmp_path / "out")
    assert list(figure.files) == ["zh", "en"]
    assert figure.files["zh"][1].read_bytes() != figure.files["en"][1].read_bytes()


def test_without_a_chinese_font_only_english_figures_are_drawn(
    venn_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fonts(monkeypatch)
    (figure,) = draw_figures(venn_table, tmp_path / "out")
    assert set(figure.files) == {"en"}
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"neuron_venn.en.png", "neuron_venn.en.svg", INDEX_NAME}


def test_a_chinese_font_without_digits_is_combined_with_another(
    venn_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with Droid Sans Fallback on Debian."""
    texts = "".join(file.read_text(encoding="utf-8") for file in drawing_files())
    letters = sorted(letter for letter in set(texts) if ord(letter) > 0x2FFF)
    glyphs = {letter: f"glyph{number}" for number, letter in enumerate(letters)}
    use_fonts(monkeypatch, write_font(tmp_path / "han.ttf", glyphs))
    (figure,) = draw_figures(venn_table, tmp_path / "out")
    assert list(figure.files) == ["zh", "en"]


def test_a_figure_is_drawn_again_only_if_its_table_changes(
    venn_table: Path, tmp_path: Path
) -> None:
    table, out = venn_table / "venn.csv", tmp_path / "out"
    (figure,) = draw_figures(venn_table, out)
    png, svg = figure.files["en"]
    png.write_bytes(b"not drawn again")
    assert draw_figures(venn_table, out)[0].files == figure.files
    assert png.read_bytes() == b"not drawn again"
    table.write_text(table.read_text().replace("1.25", "1.75"))
    draw_figures(venn_table, out)
    assert png.read_bytes().startswith(b"\x89PNG")
    table.unlink()
    assert draw_figures(venn_table, out) == []
    assert not svg.exists()


@pytest.mark.parametrize("changed", ["code", "version"])
def test_a_figure_is_drawn_again_if_code_or_version_change(
    changed: str, venn_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (figure,) = draw_figures(venn_table, tmp_path / "out")
    png, _ = figure.files["en"]
    png.write_bytes(b"outdated")
    if changed == "version":
        monkeypatch.setattr("clm_data.eval.figures.draw.__version__", "0.0.0")
    else:
        code = tmp_path / "code.py"
        code.write_text("changed = True\n")
        monkeypatch.setattr(
            "clm_data.eval.figures.draw.drawing_files", lambda: [*drawing_files(), code]
        )
    draw_figures(venn_table, tmp_path / "out")
    assert png.read_bytes().startswith(b"\x89PNG")


def test_the_index_names_the_version(venn_table: Path, tmp_path: Path) -> None:
    draw_figures(venn_table, tmp_path)
    index = json.loads((tmp_path / INDEX_NAME).read_text(encoding="utf-8"))
    assert index["clm_data"] == clm_data.__version__
    assert set(index["figures"]) == {"neuron_venn"}


IRRELEVANT = {"eval/results", "files", "records", "version"}
"""Modules that figures import but whose code does not affect their bytes."""


def test_all_code_that_figures_import_is_checked_for_changes() -> None:
    checked = {file.relative_to(PACKAGE).as_posix() for file in drawing_files()}
    folder = PACKAGE / "eval" / "figures"
    assert {f"eval/figures/{file.name}" for file in folder.glob("*.py")} <= checked
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clm_data"):
                module = "/".join(node.module.split(".")[1:])
                assert f"{module}.py" in checked or module in IRRELEVANT, (file.name, module)


def test_figures_import_neither_analysis_nor_report() -> None:
    for file in (PACKAGE / "eval" / "figures").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "clm_data.eval.analysis" not in text, file.name
        assert "clm_data.eval.report" not in text, file.name


def test_other_files_in_the_folder_are_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"mine")
    assert draw_figures(tmp_path / "none", tmp_path) == []
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("model", "expected"), [("Llama3-8B", "Llama3-8B"), ("a/b c", "a-b-c"), ("..", "model")]
)
def test_model_names_become_part_of_file_names(model: str, expected: str) -> None:
    assert file_name_part(model) == expected

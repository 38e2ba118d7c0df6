"""Figures, drawn from made-up tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.sweep_folder import make_analysis, make_dataset, make_results
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from clm_data.eval.analysis.evaluation_tables import write_evaluation_tables
from clm_data.eval.csv_tables import read_rows
from clm_data.eval.figures.draw import FIGURES, INDEX_NAME, draw_figures, slug
from clm_data.eval.figures.style import COLOURS, MARKERS, Renderer, Spec, save, settings
from clm_data.fonts import find_fonts
from clm_data.records import Language


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every table that a figure is drawn from."""
    folder = tmp_path_factory.mktemp("figures")
    found = make_results(folder / "out", make_dataset(folder / "set"))
    make_analysis(folder / "tables")
    write_evaluation_tables(folder / "tables", found)
    return folder / "tables"


def drawn(spec: Spec, sources: Path, out: Path, lang: Language = "en") -> tuple[bytes, bytes]:
    """PNG and SVG."""
    tables = {name: read_rows(sources / name) for name in spec.sources}
    with settings():
        ((model, figure),) = spec.draw(tables, Renderer(lang))
        assert model == "tiny"
        files = (out / f"{spec.name}.png", out / f"{spec.name}.svg")
        assert save(figure, files, Renderer(lang))
        _all_inside(figure)
    return files[0].read_bytes(), files[1].read_bytes()


def _all_inside(figure: Any) -> None:
    """That legends and headings are not cut off."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    across, down = figure.bbox.width, figure.bbox.height
    headings = [axes.title for axes in figure.findobj(Axes)] + [figure._suptitle]
    for part in [*figure.legends, *headings]:
        box = part.get_window_extent(renderer)
        assert -1 <= box.x0 <= box.x1 <= across + 1, part
        assert -1 <= box.y0 <= box.y1 <= down + 1, part


@pytest.mark.parametrize("spec", FIGURES, ids=lambda spec: spec.name)
def test_each_figure_is_drawn_with_its_title_and_without_a_date(
    spec: Spec, sources: Path, tmp_path: Path
) -> None:
    png, svg = drawn(spec, sources, tmp_path)
    assert png.startswith(b"\x89PNG")
    assert b"<dc:date>" not in svg
    assert b"<text" not in svg  # letters are outlines: no reader needs the font
    assert len(svg) > 5_000


@pytest.mark.parametrize("name", ["geometry_additivity", "language_points"])
def test_the_same_tables_give_the_same_bytes(name: str, sources: Path, tmp_path: Path) -> None:
    (spec,) = (spec for spec in FIGURES if spec.name == name)
    first = drawn(spec, sources, tmp_path / "a")
    assert drawn(spec, sources, tmp_path / "b") == first


def test_panels_axes_and_series_are_named(sources: Path) -> None:
    (spec,) = (spec for spec in FIGURES if spec.name == "geometry_independence")
    tables = {"geometry.csv": read_rows(sources / "geometry.csv")}
    with settings():
        ((_, figure),) = spec.draw(tables, Renderer("en"))
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"batch of 4", "batch of 12", "range in the paper"} <= labels
    assert any(label.startswith("null") for label in labels)
    panels = [axes for axes in figure.get_axes() if axes.get_title()]
    assert len(panels) == 6
    assert all(axes.get_xlabel() == "layer" for axes in panels)
    assert any("degrees" in axes.get_title() for axes in panels)


def test_series_differ_in_colour_marker_and_line(sources: Path) -> None:
    (spec,) = (spec for spec in FIGURES if spec.name == "language_layers")
    tables = {"language_layers.csv": read_rows(sources / "language_layers.csv")}
    with settings():
        ((_, figure),) = spec.draw(tables, Renderer("en"))
    for axes in figure.get_axes():
        lines = [one for one in axes.get_lines() if one.get_marker() in MARKERS]
        for key in ("get_color", "get_marker"):
            seen = [getattr(line, key)() for line in lines]
            assert len(set(seen)) == len(seen)
        assert {line.get_color() for line in lines} <= set(COLOURS)


def test_without_a_chinese_font_there_are_english_figures_alone(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPL_IGNORE_SYSTEM_FONTS", "1")
    few = tmp_path / "few"
    few.mkdir()
    (few / "venn.csv").write_bytes((sources / "venn.csv").read_bytes())
    (one,) = draw_figures(few, tmp_path / "out")
    assert set(one.files) == {"en"}
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"neuron_venn.en.png", "neuron_venn.en.svg", INDEX_NAME}


def test_with_a_chinese_font_both_languages_are_drawn_and_differ(
    sources: Path, tmp_path: Path
) -> None:
    if find_fonts("中文图") is None:
        pytest.skip("no Chinese font is installed")
    few = tmp_path / "few"
    few.mkdir()
    (few / "venn.csv").write_bytes((sources / "venn.csv").read_bytes())
    (one,) = draw_figures(few, tmp_path / "out")
    assert list(one.files) == ["zh", "en"]
    assert one.files["zh"][1].read_bytes() != one.files["en"][1].read_bytes()


def test_a_figure_is_drawn_anew_only_where_its_table_has_changed(
    sources: Path, tmp_path: Path
) -> None:
    table = tmp_path / "venn.csv"
    table.write_bytes((sources / "venn.csv").read_bytes())
    (one,) = draw_figures(tmp_path, tmp_path / "out")
    png, svg = one.files["en"]
    png.write_bytes(b"kept")
    assert draw_figures(tmp_path, tmp_path / "out")[0].files == one.files
    assert png.read_bytes() == b"kept"
    table.write_text(table.read_text().replace("1.25", "1.75"))
    draw_figures(tmp_path, tmp_path / "out")
    assert png.read_bytes().startswith(b"\x89PNG")
    table.unlink()
    assert draw_figures(tmp_path, tmp_path / "out") == []
    assert not svg.exists()


def test_somebody_elses_pictures_in_the_folder_stay(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"mine")
    assert draw_figures(tmp_path / "none", tmp_path) == []
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "wanted"), [("Llama3-8B", "Llama3-8B"), ("a/b c", "a-b-c"), ("..", "model")]
)
def test_a_models_name_becomes_part_of_a_files(name: str, wanted: str) -> None:
    assert slug(name) == wanted

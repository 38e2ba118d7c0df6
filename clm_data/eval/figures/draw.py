"""Draw the figures of a results folder from its CSV tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.eval.csv_tables import Row, read_rows
from clm_data.eval.figures.evaluation import EVALUATION_FIGURES
from clm_data.eval.figures.factors import FACTOR_FIGURES
from clm_data.eval.figures.geometry import GEOMETRY_FIGURES
from clm_data.eval.figures.language import LANGUAGE_FIGURES
from clm_data.eval.figures.neurons import NEURON_FIGURES
from clm_data.eval.figures.save import Fonts, save_figure
from clm_data.eval.figures.selectivity import SELECTIVITY_FIGURES
from clm_data.eval.figures.style import FigureSpec, plot_settings
from clm_data.eval.results import write_json
from clm_data.files import sha256_file
from clm_data.records import LANGUAGES, Language, digest
from clm_data.version import __version__

FIGURES: tuple[FigureSpec, ...] = (
    *EVALUATION_FIGURES,
    *GEOMETRY_FIGURES,
    *FACTOR_FIGURES,
    *LANGUAGE_FIGURES,
    *SELECTIVITY_FIGURES,
    *NEURON_FIGURES,
)
"""All figures, in the order of the report."""
INDEX_NAME = "drawn.json"
"""File that records what the figures of a folder were drawn from."""
DRAWING_CODE = (
    "eval/figures/*.py",
    "eval/bilingual.py",
    "eval/csv_tables.py",
    "eval/paper_ranges.py",
    "eval/tables.py",
    "fonts.py",
    "languages.py",
)
"""Modules of the package that figures depend on; if one changes, figures are drawn again."""


@dataclass(frozen=True)
class DrawnFigure:
    """A figure with its files.

    Attributes:
        spec: What was drawn.
        model: The model it shows; empty if it shows all models.
        name: Base name of the files, without the language.
        files: PNG and SVG by language. Chinese is missing if no font has the characters.
    """

    spec: FigureSpec
    model: str
    name: str
    files: Mapping[Language, tuple[Path, Path]]

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [file for pair in self.files.values() for file in pair]


def draw_figures(tables: Path, out: Path) -> list[DrawnFigure]:
    """Bring the figures of a folder up to date: ``NAME.zh.svg``, ``NAME.en.png`` and so on.

    A figure is drawn if its tables exist and they, the fonts or the code have changed since it was
    last drawn. Files of figures that can no longer be drawn are removed. The same tables and fonts
    give the same bytes.

    Args:
        tables: Folder of CSV tables, such as ``OUT/analysis``.
        out: Folder of the figures, such as ``OUT/figures``; created if there is anything to draw.

    Raises:
        InputFileError: A table cannot be read.
    """
    files = _table_files(tables)
    rows = _LazyTables(files)
    drawn_before, index = _read_index(out), {}
    drawn: list[DrawnFigure] = []
    fonts = Fonts()
    shared = _shared_key(fonts)
    with plot_settings():
        for spec in FIGURES:
            if spec.sources[0] not in files:
                continue
            key = digest([shared, *(_sha256(files.get(name)) for name in spec.sources)])
            found = _up_to_date(drawn_before.get(spec.name), key, spec, out)
            if found is None:
                found = _draw(spec, rows, out, fonts)
            entries = [[one.model, one.name, list(one.files)] for one in found]
            index[spec.name] = {"key": key, "drawn": entries}
            drawn += found
    if index:
        write_json(out / INDEX_NAME, {"clm_data": __version__, "figures": index})
    _remove_others(out, {file for one in drawn for file in one.paths})
    return drawn


class _LazyTables(dict[str, list[Row]]):
    """Tables by file name, each read when first used; a missing one has no rows."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        super().__init__()
        self._files = files

    def __missing__(self, name: str) -> list[Row]:
        self[name] = list(read_rows(self._files[name])) if name in self._files else []
        return self[name]


def _table_files(folder: Path) -> dict[str, Path]:
    """The CSV files that figures are drawn from, by name."""
    names = {name for spec in FIGURES for name in spec.sources}
    return {name: folder / name for name in sorted(names) if (folder / name).is_file()}


def _sha256(file: Path | None) -> str:
    return "" if file is None else sha256_file(file)


def drawing_files() -> list[Path]:
    """The files of :data:`DRAWING_CODE`."""
    package = Path(__file__).parents[2]
    return [file for pattern in DRAWING_CODE for file in sorted(package.glob(pattern))]


def _shared_key(fonts: Fonts) -> list[str]:
    """What every figure depends on apart from its tables."""
    from matplotlib import __version__ as matplotlib_version

    code = [sha256_file(file) for file in drawing_files()]
    return [__version__, matplotlib_version, fonts.key(), *code]


def _read_index(out: Path) -> dict[str, Any]:
    """The index of an earlier run; empty if there is none that can be used."""
    try:
        index = json.loads((out / INDEX_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    figures = index.get("figures") if isinstance(index, dict) else None
    return figures if isinstance(figures, dict) else {}


def _up_to_date(entry: Any, key: str, spec: FigureSpec, out: Path) -> list[DrawnFigure] | None:
    """What an earlier run drew; None if it would differ now or a file is missing."""
    if not isinstance(entry, dict) or entry.get("key") != key:
        return None
    found = [
        DrawnFigure(spec, model, name, {lang: _paths(out, name, lang) for lang in languages})
        for model, name, languages in entry["drawn"]
    ]
    return found if all(file.is_file() for one in found for file in one.paths) else None


def _paths(out: Path, name: str, lang: Language) -> tuple[Path, Path]:
    return out / f"{name}.{lang}.png", out / f"{name}.{lang}.svg"


def _draw(
    spec: FigureSpec, tables: Mapping[str, Sequence[Row]], out: Path, fonts: Fonts
) -> list[DrawnFigure]:
    several = len({row["model"] for row in tables[spec.sources[0]]}) > 1
    files: dict[str, dict[Language, tuple[Path, Path]]] = {}
    for lang in LANGUAGES:
        for model, figure in spec.draw(tables, lang):
            paths = _paths(out, _name(spec, model, several), lang)
            if save_figure(figure, paths, fonts):
                files.setdefault(model, {})[lang] = paths
    return [
        DrawnFigure(spec, model, _name(spec, model, several), of_model)
        for model, of_model in files.items()
    ]


def _name(spec: FigureSpec, model: str, several: bool) -> str:
    return f"{spec.name}_{file_name_part(model)}" if several else spec.name


def file_name_part(model: str) -> str:
    """A model's name without characters that are unusual in file names."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", model).strip("-.") or "model"


def _remove_others(out: Path, keep: Iterable[Path]) -> None:
    """Remove files that are named like a figure and are not among those to keep."""
    names = tuple(spec.name for spec in FIGURES)
    for file in sorted({*out.glob("*.png"), *out.glob("*.svg")} - set(keep)):
        if file.name.startswith(names):
            file.unlink()

"""Every figure, drawn from tables alone: the analyses' and the report's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.eval.csv_tables import Row, read_rows
from clm_data.eval.figures.edits import EDIT_FIGURES
from clm_data.eval.figures.evaluation import EVALUATION_FIGURES
from clm_data.eval.figures.geometry import GEOMETRY_FIGURES
from clm_data.eval.figures.language import LANGUAGE_FIGURES
from clm_data.eval.figures.selectivity import SELECTIVITY_FIGURES
from clm_data.eval.figures.style import Renderer, Spec, save, settings
from clm_data.eval.results import write_json
from clm_data.files import sha256_file
from clm_data.fonts import find_fonts
from clm_data.records import LANGUAGES, Language, digest

FIGURES: tuple[Spec, ...] = (
    *EVALUATION_FIGURES,
    *GEOMETRY_FIGURES,
    *LANGUAGE_FIGURES,
    *SELECTIVITY_FIGURES,
    *EDIT_FIGURES,
)
"""In the order of a report."""
INDEX_NAME = "drawn.json"
"""Says what the figures of a folder were drawn from."""


@dataclass(frozen=True)
class Drawn:
    """A figure that was drawn.

    Attributes:
        spec: Which.
        model: Of which model; empty where it shows all.
        name: File stem without the language.
        files: PNG and SVG by language; without Chinese where no font has the characters.
    """

    spec: Spec
    model: str
    name: str
    files: Mapping[Language, tuple[Path, Path]]


def draw_figures(folder: Path, out: Path) -> list[Drawn]:
    """Draw every figure whose table is there, as ``NAME.zh.svg``, ``NAME.en.png`` and so on.

    The same tables and fonts give the same bytes. A figure that an earlier run drew from the same
    tables is kept; files of one that would be drawn no more are removed.

    Args:
        folder: Folder of CSV tables, such as ``OUT/analysis``.
        out: Folder of the figures; made where there is something to draw.

    Raises:
        InputFileError: A table cannot be read.
    """
    files = _files(folder)
    tables = _Lazy(files)
    old, new = _read_index(out), {}
    drawn: list[Drawn] = []
    about = _drawing_key()
    pens = [Renderer(lang) for lang in LANGUAGES]
    with settings():
        for spec in FIGURES:
            if spec.sources[0] not in files:
                continue
            key = digest([about, *(_sha256(files.get(name)) for name in spec.sources)])
            kept = _kept(old.get(spec.name), key, spec, out)
            found = _draw(spec, tables, out, pens) if kept is None else kept
            names = [[one.model, one.name, list(one.files)] for one in found]
            new[spec.name] = {"key": key, "drawn": names}
            drawn += found
    if new:
        write_json(out / INDEX_NAME, new)
    _remove_others(out, {file for one in drawn for pair in one.files.values() for file in pair})
    return drawn


class _Lazy(dict[str, list[Row]]):
    """Tables, each read when first asked for; one that is not there is empty."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        super().__init__()
        self._files = files

    def __missing__(self, name: str) -> list[Row]:
        self[name] = list(read_rows(self._files[name])) if name in self._files else []
        return self[name]


def _files(folder: Path) -> dict[str, Path]:
    """The CSV files that figures are drawn from, by name."""
    names = {name for spec in FIGURES for name in spec.sources}
    return {name: folder / name for name in sorted(names) if (folder / name).is_file()}


def _sha256(file: Path | None) -> str:
    return "" if file is None else sha256_file(file)


def _drawing_key() -> list[str]:
    """What the bytes of every figure depend on besides its tables."""
    from matplotlib import __version__

    code = [sha256_file(file) for file in sorted(Path(__file__).parent.glob("*.py"))]
    fonts = find_fonts("中文")
    names = [Path(file).name for file in fonts.files] if fonts else [str(None)]
    return [__version__, *names, *code]


def _read_index(out: Path) -> dict[str, Any]:
    try:
        found = json.loads((out / INDEX_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _kept(old: Any, key: str, spec: Spec, out: Path) -> list[Drawn] | None:
    """What an earlier run drew, where it would be the same now and every file is there."""
    if not isinstance(old, dict) or old.get("key") != key:
        return None
    found = [
        Drawn(spec, model, name, {lang: _pair(out, name, lang) for lang in languages})
        for model, name, languages in old["drawn"]
    ]
    files = [file for one in found for pair in one.files.values() for file in pair]
    return found if all(file.is_file() for file in files) else None


def _pair(out: Path, name: str, lang: Language) -> tuple[Path, Path]:
    return out / f"{name}.{lang}.png", out / f"{name}.{lang}.svg"


def _draw(
    spec: Spec, tables: Mapping[str, Sequence[Row]], out: Path, pens: Sequence[Renderer]
) -> list[Drawn]:
    several = len({row["model"] for row in tables[spec.sources[0]]}) > 1
    found: dict[str, dict[Language, tuple[Path, Path]]] = {}
    names: dict[str, str] = {}
    for pen in pens:
        for model, figure in spec.draw(tables, pen):
            names[model] = f"{spec.name}_{slug(model)}" if several else spec.name
            pair = _pair(out, names[model], pen.lang)
            if save(figure, pair, pen):
                found.setdefault(model, {})[pen.lang] = pair
    return [Drawn(spec, model, names[model], files) for model, files in found.items()]


def slug(name: str) -> str:
    """A model's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "model"


def _remove_others(out: Path, kept: set[Path]) -> None:
    names = [spec.name for spec in FIGURES]
    for file in sorted(out.glob("*.*")):
        ours = any(file.name.startswith(name) for name in names)
        if ours and file.suffix in (".png", ".svg") and file not in kept:
            file.unlink()

"""Check a run of every method, and write the tables of ``docs/reference/every-method.md``.

``make demo-eval-all`` ends with the check: ``python docs/every_method.py clm_demo/eval-all``. With
``--write`` the figures go to ``docs/every-method.json`` and the tables to the page; ``--others`` is
a run on facts that are not among those of the first.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clm_data.errors import ClmDataError, InputFileError
from clm_data.eval.results import CellResult, read_cell, read_results
from clm_data.records import LANGUAGES

FIGURES = Path(__file__).parent / "every-method.json"
PAGE = Path(__file__).parent / "reference" / "every-method.md"
TARGET = 0.9
"""Token accuracy on the new answers, in the edited language, that the methods below reach."""
HELD = ("langedit", "locft-bf", "lora", "ultraedit", "grace", "wise")

Figures = dict[str, dict[str, dict[str, Any]]]
"""By method and language of the edits: shares, and the seconds of an edit."""

_SHARES = ("reliability", "generality", "locality")
_COLUMNS = (*_SHARES, "other reliability", "other locality", "seconds")


def figures(folder: Path) -> Figures:
    """The figures of a run; a cell that failed has its reason as ``error``.

    Raises:
        InputFileError: There are no results, or not one cell for each method and language.
    """
    found: Figures = {}
    for cell in read_results(folder).cells:
        method, lang = cell.setting.method, cell.setting.language
        at = found.setdefault(method, {})
        if lang in at or lang not in LANGUAGES:
            why = "several cells of" if lang in at else "a cell of"
            raise InputFileError(
                f"{folder} has {why} {method} edited in {lang}: it is no run of the recipe "
                "all-methods"
            )
        at[lang] = _figures_of(folder, cell)
    return found


def _figures_of(folder: Path, cell: CellResult) -> dict[str, Any]:
    if cell.status == "failed":
        return {"error": cell.error}
    own = cell.setting.language
    other = next(lang for lang in LANGUAGES if lang != own)
    measures = {name: f"{own}_{name}" for name in _SHARES}
    measures |= {f"other {name}": f"{other}_{name}" for name in ("reliability", "locality")}
    means = {name: cell.after.get(measure) for name, measure in measures.items()}
    whole = read_cell(folder, cell.key)
    return {
        **{name: None if one is None else round(one.mean, 4) for name, one in means.items()},
        "seconds": round(whole.seconds["edit"], 1) if whole else None,
    }


def below_target(found: Figures, methods: Sequence[str] = HELD) -> list[str]:
    """What misses the target, a line each: a low or missing figure of one of the methods."""
    lines = []
    for method in methods:
        for lang in LANGUAGES:
            cell = found.get(method, {}).get(lang, {})
            value = cell.get("reliability")
            if value is None:
                lines.append(f"{method} edited in {lang}: {cell.get('error') or 'no result'}")
            elif value < TARGET:
                lines.append(
                    f"{method} edited in {lang}: {100 * value:.1f}% of the new answers' tokens, "
                    f"below {100 * TARGET:.0f}%"
                )
    return lines


def table(found: Figures) -> str:
    """A row for each method, with the figures of both languages in each field."""
    given = {name for cells in found.values() for cell in cells.values() for name in cell}
    columns = [name for name in _COLUMNS if name in given]
    lines = ["| " + " | ".join(["method", *columns]) + " |", "|---|" + "---:|" * len(columns)]
    for method, cells in found.items():
        fields = [" / ".join(_figure(cells[lang], name) for lang in LANGUAGES) for name in columns]
        lines.append("| " + " | ".join([f"`{method}`", *fields]) + " |")
    return "\n".join(lines) + "\n"


def _figure(cell: dict[str, Any], name: str) -> str:
    value = cell.get(name)
    if value is None:
        return "failed" if "error" in cell else "–"
    return f"{value:.1f}" if name == "seconds" else f"{100 * value:.1f}"


def write(content: dict[str, Figures]) -> None:
    """Write the figures, and the tables of the page in the order of ``content``.

    Raises:
        InputFileError: A method has no cell in one of the languages; nothing is written.
    """
    for name, found in content.items():
        for method, cells in found.items():
            for lang in LANGUAGES:
                if lang not in cells:
                    raise InputFileError(
                        f"the run '{name}' has no cell of {method} edited in {lang}; run it with "
                        f"--languages {','.join(LANGUAGES)}"
                    )
    tables = iter([table(found) for found in content.values()])
    page = PAGE.read_text(encoding="utf-8")
    page = re.sub(r"^\| method .*\n(?:\|.*\n)+", lambda _: next(tables), page, flags=re.M)
    FIGURES.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Check a run, and write its figures if asked to; 1 if something misses the target.

    Raises:
        SystemExit: With code 2; the options are wrong, or a folder is no such run.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="folder of a run of the recipe all-methods")
    parser.add_argument("--write", action="store_true", help="write the figures and the page")
    parser.add_argument("--others", type=Path, help="with --write: folder of a run on other facts")
    options = parser.parse_args(arguments)
    if options.write and options.others is None:
        parser.error("--write needs --others")
    try:
        found = figures(options.results)
        if options.write:
            others = figures(options.others)
            for cell in (cell for cells in others.values() for cell in cells.values()):
                cell.pop("seconds", None)
            write({"first": found, "others": others})
    except ClmDataError as error:
        parser.exit(2, f"{error}\n")
    missed = below_target(found)
    for line in missed:
        print(line, file=sys.stderr)
    if not missed:
        share = f"at least {100 * TARGET:.0f}% of the new answers' tokens in the edited language"
        print(f"{', '.join(HELD)}: {share}; more in docs/reference/{PAGE.name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

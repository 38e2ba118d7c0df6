"""The tutorials do what they say: every block of their code runs, in order, offline."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.paths import ROOT, docs_script
from helpers.tutorials import Reader, blocks_of

TUTORIALS = ROOT / "docs" / "tutorials"
NOTEBOOK = ROOT / "examples" / "first_dataset.ipynb"
WITHOUT_TORCH = ("build-a-dataset.md", "review.md")
WITH_TORCH = ("evaluate.md", "geometry.md")


def test_every_tutorial_is_executed_by_a_test() -> None:
    with_code = {page.name for page in TUTORIALS.glob("*.md") if blocks_of(page)}
    assert with_code == {*WITHOUT_TORCH, *WITH_TORCH}


def test_a_dataset_is_built_and_reviewed_as_the_tutorials_show(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for page in WITHOUT_TORCH:
        assert reader.follow(TUTORIALS / page) >= 5


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    notebook = docs_script("site").executed_notebook(NOTEBOOK, tmp_path)
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code_cells) >= 8
    assert all(cell.execution_count for cell in code_cells)


def test_the_notebook_is_stored_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs"), "clear all outputs before you commit the notebook"

"""The tutorials that edit a model do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.tutorials import Reader

pytestmark = pytest.mark.slow


def test_an_edit_is_evaluated_and_its_geometry_read_as_the_tutorials_show(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    reader = Reader(tmp_path)
    for page in ("build-a-dataset.md", "evaluate.md", "geometry.md"):
        assert reader.follow(ROOT / "docs" / "tutorials" / page) >= 3
    assert (reader.folder / "results" / "report.html").is_file()

"""The wheel, alone and elsewhere, does what the checkout does."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers.paths import ROOT

from clm_data.manifest import file_hashes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the content of a freshly built wheel."""
    made = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", made, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = made.glob("clm_data-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(made / "site")
    return made / "site"


def run(installed: Path, folder: Path, *argv: str) -> str:
    environ = dict(os.environ, PYTHONPATH=str(installed), PYTHONSAFEPATH="1")
    done = subprocess.run(
        [sys.executable, *argv], cwd=folder, env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_wheel_alone_runs_the_demo_with_the_same_result(
    installed: Path, tmp_path: Path
) -> None:
    where = run(installed, tmp_path, "-c", "import clm_data; print(clm_data.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    run(installed, tmp_path, "-m", "clm_data", "demo", "theirs")
    subprocess.run(
        [sys.executable, "-m", "clm_data", "demo", tmp_path / "ours"], check=True, cwd=ROOT
    )
    ours, theirs = (file_hashes(tmp_path / name / "dataset") for name in ("ours", "theirs"))
    assert ours == theirs


def test_the_wheel_has_the_recipes_and_the_paper_s_figures(installed: Path, tmp_path: Path) -> None:
    script = (
        "from clm_data.eval.paper import paper_rows\n"
        "from clm_data.eval.recipe import bundled_recipes\n"
        "print(*bundled_recipes(), *paper_rows())"
    )
    names = run(installed, tmp_path, "-c", script).split()
    assert {"cpu-miniature", "table1", "table2", "table3"} <= set(names)
    assert names[-3:] == ["table1", "table2", "table3"]

"""An installed wheel works like the checkout."""

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
    """A folder with the unpacked content of a new wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("clm_data-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *argv: str) -> str:
    environ = dict(os.environ, PYTHONPATH=str(installed), PYTHONSAFEPATH="1")
    done = subprocess.run(
        [sys.executable, *argv], cwd=folder, env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_wheel_gives_the_same_demo_dataset_as_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    location = run(installed, tmp_path, "-c", "import clm_data; print(clm_data.__file__)")
    assert Path(location.strip()).is_relative_to(installed)
    run(installed, tmp_path, "-m", "clm_data", "demo", "from_wheel")
    demo = [sys.executable, "-m", "clm_data", "demo", tmp_path / "from_checkout"]
    subprocess.run(demo, check=True, cwd=ROOT)
    from_wheel = file_hashes(tmp_path / "from_wheel" / "dataset")
    from_checkout = file_hashes(tmp_path / "from_checkout" / "dataset")
    assert from_checkout == from_wheel


def test_the_wheel_contains_recipes_and_reported_values(installed: Path, tmp_path: Path) -> None:
    script = (
        "from clm_data.eval.paper import paper_rows\n"
        "from clm_data.eval.recipe import bundled_recipes\n"
        "print(*bundled_recipes(), *paper_rows())"
    )
    names = run(installed, tmp_path, "-c", script).split()
    assert {"cpu-miniature", "table1", "table2", "table3"} <= set(names)
    assert names[-3:] == ["table1", "table2", "table3"]

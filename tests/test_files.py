from __future__ import annotations

from pathlib import Path

import pytest

from clm_data.errors import InputFileError
from clm_data.files import replaced_folder


def test_a_new_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with replaced_folder(out, "marker") as folder:
        (folder / "marker").write_text("1")
        assert not out.exists()
    assert (out / "marker").read_text() == "1"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_folder_of_ours_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("first", "second"):
        with replaced_folder(out, "marker") as folder:
            (folder / "marker").touch()
            (folder / name).touch()
    assert sorted(path.name for path in out.iterdir()) == ["marker", "second"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with replaced_folder(out, "marker") as folder:
        (folder / "marker").write_text("old")
    with pytest.raises(IsADirectoryError), replaced_folder(out, "marker") as folder:
        folder.write_text("new")
    assert (out / "marker").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_kill_left_between_the_two_renames_is_put_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    retired = tmp_path / ".out.old"
    retired.mkdir()
    (retired / "marker").write_text("old")
    with pytest.raises(RuntimeError), replaced_folder(out, "marker"):
        raise RuntimeError
    assert (out / "marker").read_text() == "old"


def test_a_folder_of_somebody_else_is_refused_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputFileError, match="did not write"), replaced_folder(out, "marker"):
        pass
    assert (out / "thesis.txt").read_text() == "mine"

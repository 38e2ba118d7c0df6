from __future__ import annotations

from pathlib import Path

import pytest

from clm_data.errors import InputFileError
from clm_data.files import atomic_file, atomic_folder


def others(folder: Path) -> list[str]:
    """What is in a folder without the file ``marker``."""
    return [] if (folder / "marker").exists() else [path.name for path in folder.iterdir()]


def test_a_new_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with atomic_folder(out, others) as folder:
        (folder / "marker").write_text("1")
        assert not out.exists()
    assert (out / "marker").read_text() == "1"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_earlier_folder_is_replaced_completely(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("first", "second"):
        with atomic_folder(out, others) as folder:
            (folder / "marker").touch()
            (folder / name).touch()
    assert sorted(path.name for path in out.iterdir()) == ["marker", "second"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_folder(out, others) as folder:
        (folder / "marker").write_text("old")
    with pytest.raises(IsADirectoryError), atomic_folder(out, others) as folder:
        folder.write_text("new")
    assert (out / "marker").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_killed_between_the_two_renames_is_undone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    retired = tmp_path / ".out.clm-data-old"
    retired.mkdir()
    (retired / "marker").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(out, others):
        raise RuntimeError
    assert (out / "marker").read_text() == "old"


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputFileError, match="did not write"), atomic_folder(out, others):
        pass
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with atomic_file(out) as draft:
        draft.write_text("new")
        assert not out.exists()
    assert out.read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("old")
    with pytest.raises(TypeError), atomic_file(out, overwrite=True) as draft:
        draft.write_text(b"not text")  # type: ignore[arg-type]
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_an_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("old")
    with pytest.raises(InputFileError, match="already exists"), atomic_file(out):
        pass
    assert out.read_text() == "old"
    with atomic_file(out, overwrite=True) as draft:
        draft.write_text("new")
    assert out.read_text() == "new"


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    with atomic_file(link, overwrite=True) as draft:
        draft.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_missing_parent_folder_is_a_one_line_error(tmp_path: Path) -> None:
    out = tmp_path / "missing" / "out.json"
    with pytest.raises(InputFileError, match=r"^.*cannot be written.*$"), atomic_file(out):
        pass

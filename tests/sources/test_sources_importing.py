from __future__ import annotations

import json
from pathlib import Path

import pytest

from clm_data import audit
from clm_data.config import Workspace, open_workspace
from clm_data.errors import UnknownNameError
from clm_data.resources import bank_path
from clm_data.sources import stored_files
from clm_data.sources.importing import import_files
from clm_data.store import Store

PUBLISHED = bank_path("published_rows.json")
ROWS = json.loads(PUBLISHED.read_text(encoding="utf-8"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "workspace", create=True)


def test_files_are_imported_once_and_unreadable_ones_are_reported(
    workspace: Workspace, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.json"
    copy.write_bytes(PUBLISHED.read_bytes())
    missing = tmp_path / "missing.json"
    result = import_files(workspace, [PUBLISHED, missing, copy], licence="apache-2.0")
    assert [file.error is None for file in result.files] == [True, False, True]
    assert [file.is_new for file in result.files] == [True, False, False]
    assert [file.file for file in result.failed] == [missing]
    assert result.files[0].rows == len(ROWS)
    with Store(workspace.store_url) as store:
        (stored,) = stored_files(store)
    assert (stored.rows, stored.licence) == (ROWS, "apache-2.0")
    assert result.candidates > 0


def test_rows_that_are_null_are_stored_and_rejected(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROWS[0], None, ROWS[1], None]), encoding="utf-8")
    (file,) = import_files(workspace, [path]).files
    assert file.error is None
    assert [text.split(":")[0] for text in file.reading.unusable] == ["row 2", "row 4"]
    with Store(workspace.store_url) as store:
        (stored,) = stored_files(store)
    assert stored.rows == [ROWS[0], None, ROWS[1], None]


ZH = {
    "subject": "边城",
    "prompt": "《边城》的作者是",
    "target_new": "茅盾",
    "ground_truth": "沈从文",
}
EN = {
    "english_subject": "Border Town",
    "english_prompt": "The author of Border Town is",
    "english_target_new": "Mao Dun",
    "english_ground_truth": "Shen Congwen",
}


@pytest.mark.parametrize(
    ("chinese", "english", "words"),
    [
        ([None, None], [None, None], "have no case_id: their rows were paired in order"),
        ([1, 2], [2, 1], "were not paired: row 1 has case_id 1 in one and 2 in the other"),
        ([1, 2], ["1", "2"], 'row 1 has case_id 1 in one and "1" in the other'),
        ([1, 2], [1], "one has 2 rows, the other 1 row"),
        ([1, 2], [1, 2], None),
    ],
)
def test_it_is_said_how_files_were_paired(
    workspace: Workspace,
    tmp_path: Path,
    chinese: list[int | str | None],
    english: list[int | str | None],
    words: str | None,
) -> None:
    files = []
    for name, ids, fact in (("zh.json", chinese, ZH), ("en.json", english, EN)):
        rows = [fact if id_ is None else {"case_id": id_, **fact} for id_ in ids]
        files.append(tmp_path / name)
        files[-1].write_text(json.dumps(rows), encoding="utf-8")
    for found in (import_files(workspace, files).pairing, audit(files).reading.notes()):
        assert [words in line for line in found if words] == [True] * bool(words)
        assert len(found) == bool(words)


def test_the_json_of_a_result_names_state_or_error(workspace: Workspace, tmp_path: Path) -> None:
    missing = tmp_path / "missing.json"
    import_files(workspace, [PUBLISHED])
    result = import_files(workspace, [PUBLISHED, missing])
    repeated, failed = result.as_json()["files"]
    assert repeated == {
        "file": str(PUBLISHED),
        "format": result.files[0].format,
        "rows": len(ROWS),
        "state": "already there",
        "candidates": 7,
        "unusable": [],
        "unread": {},
        "accepted_answers": 0,
    }
    assert failed.keys() == {"file", "error"}
    assert "no such file" in failed["error"]


def test_an_unknown_format_is_an_error(workspace: Workspace) -> None:
    with pytest.raises(UnknownNameError, match="clm-bench"):
        import_files(workspace, [PUBLISHED], format="clm-bnch-zh")


def test_a_stored_file_keeps_its_format_and_license(workspace: Workspace) -> None:
    import_files(workspace, [PUBLISHED], licence="apache-2.0")
    again = import_files(workspace, [PUBLISHED], licence="apache-2.0")
    assert not again.failed
    (other,) = import_files(workspace, [PUBLISHED], licence="MIT").failed
    assert "already stored with license apache-2.0" in str(other.error)
    (file,) = import_files(workspace, [PUBLISHED]).files
    wrong = "clm-bench-mix" if file.format == "clm-bench-zh" else "clm-bench-zh"
    (failed,) = import_files(workspace, [PUBLISHED], format=wrong).failed
    assert f"already stored with format {file.format}" in str(failed.error)

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from clm_data.errors import InputFileError
from clm_data.exporting import write_folder
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
    retired = tmp_path / ".out.clm-data-draft" / "old"
    retired.mkdir(parents=True)
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


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs some lines, once it has printed its first line."""
    argv = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


WRITE_FILE = """
    import sys
    from pathlib import Path
    from clm_data.files import atomic_file
    out, letter, times = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    print("started", flush=True)
    sys.stdin.readline()
    for _ in range(times):
        with atomic_file(out, overwrite=True) as draft, draft.open("w") as file:
            for _ in range(50):
                file.write(letter * 5000)
                file.flush()
"""


def test_two_processes_that_write_one_file_always_leave_one_whole_version(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    writers = [started(WRITE_FILE, out, letter, 60) for letter in "ab"]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if out.exists():
            seen.add(out.read_text())
    assert [writer.wait() for writer in writers] == [0, 0]
    assert {*seen, out.read_text()} <= {"a" * 250_000, "b" * 250_000}
    assert list(tmp_path.iterdir()) == [out]


def test_the_last_of_two_drafts_of_a_file_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with atomic_file(out, overwrite=True) as second:
        second.write_text("sec")
        with atomic_file(out, overwrite=True) as first:
            first.write_text("first")
        assert out.read_text() == "first"
        second.write_text("second")
    assert out.read_text() == "second"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_another_process_wrote_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with pytest.raises(InputFileError, match="already exists"), atomic_file(out) as draft:
        out.write_text(draft.name)
    assert out.read_text().startswith(".out.json.")
    assert list(tmp_path.iterdir()) == [out]


HOLD_FILE = """
    import sys
    from pathlib import Path
    from clm_data.files import atomic_file
    with atomic_file(Path(sys.argv[1]), overwrite=True) as draft:
        draft.write_text("half")
        draft.with_name(draft.name + "-wal").write_text("of SQLite")
        print("started", flush=True)
        sys.stdin.read()
"""


def test_the_draft_of_a_killed_process_is_removed_and_that_of_a_running_one_kept(
    tmp_path: Path,
) -> None:
    out, mine = tmp_path / "out.json", tmp_path / ".out.json.old.new"
    mine.write_text("a file of the user")
    running, killed = started(HOLD_FILE, out), started(HOLD_FILE, out)
    killed.kill()
    killed.communicate()
    assert len(list(tmp_path.iterdir())) == 5
    with atomic_file(out, overwrite=True) as draft:
        draft.write_text("new")
    assert len(list(tmp_path.iterdir())) == 4
    running.communicate()
    assert running.returncode == 0
    assert out.read_text() == "half"
    assert mine.exists()


HOLD_FOLDER = """
    import sys
    from pathlib import Path
    from clm_data.files import atomic_folder
    with atomic_folder(Path(sys.argv[1]), lambda folder: []) as folder:
        (folder / "marker").write_text("slow")
        print("started", flush=True)
        sys.stdin.read()
"""


def test_a_folder_that_another_process_writes_is_refused_until_that_has_ended(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    running = started(HOLD_FOLDER, out)
    with (
        pytest.raises(InputFileError, match="by another process; wait"),
        atomic_folder(out, others),
    ):
        pass
    with pytest.raises(InputFileError, match="by another process; wait"):
        write_folder(out, {"a.json": "1"})
    running.communicate()
    assert running.returncode == 0
    assert (out / "marker").read_text() == "slow"
    killed = started(HOLD_FOLDER, out)
    killed.kill()
    killed.communicate()
    with atomic_folder(out, others) as folder:
        (folder / "marker").write_text("new")
    assert (out / "marker").read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "out.json") as draft:
            draft.write_text("1")
    finally:
        os.umask(mask)
    assert (tmp_path / "out.json").stat().st_mode & 0o777 == 0o640

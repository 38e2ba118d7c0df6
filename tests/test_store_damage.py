"""Damaged, missing, locked and read-only stores: one line, by row, and nothing left out."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers.example_candidates import VALID
from helpers.postgres_server import NewDatabase

import clm_data
from clm_data.cli import run
from clm_data.config import open_workspace
from clm_data.errors import DamagedStoreError, StoreError
from clm_data.records import Decision
from clm_data.store import NewDialogue, NewRequest, RequestOutcome, Store

READING = {
    "stats": ["stats"],
    "build": ["build", "--out", "OUT"],
    "audit": ["audit"],
    "review export": ["review", "export", "--out", "SHEET"],
    "review status": ["review", "status"],
    "locality attach": ["locality", "attach", "--source", "bank"],
}

SHOWING = {"show": ["show", "physics/0/1"]}
"""Reads around damaged rows and names them: `tests/cli/test_cli_show.py`."""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with answers about two domains."""
    folder = tmp_path_factory.mktemp("generated")
    workspace = clm_data.init(folder)
    for domain in ("physics", "sports"):
        clm_data.generate(domain, count=7, provider="offline", workspace=workspace)
    return folder


@pytest.fixture
def folder(generated: Path, tmp_path: Path) -> Path:
    return shutil.copytree(generated, tmp_path / "workspace")


@pytest.fixture
def public(generated: Path) -> Iterator[Path]:
    """A workspace outside the folder of pytest, which only its owner can enter."""
    with tempfile.TemporaryDirectory(prefix="clm-data-test-") as place:
        yield shutil.copytree(generated, Path(place, "workspace"))


def change(folder: Path, statement: str) -> None:
    with sqlite3.connect(folder / "clm.db") as db:
        assert db.execute(statement).rowcount > 0
    db.close()


def command(name: str, folder: Path) -> list[str]:
    places = {"OUT": str(folder / "out"), "SHEET": str(folder / "sheet.csv")}
    return [
        "--workspace",
        str(folder),
        *(places.get(part, part) for part in (READING | SHOWING)[name]),
    ]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


CHANGES = {
    "cut": "substr(completion, 1, 30)",
    "another character": "replace(completion, 'a', 'b')",
    "a valid but different value": "'{}' || substr(completion, -16)",
    "no JSON": "'damaged'",
    "bytes": "CAST(x'7b22ff' AS TEXT)",
    "a blob": "x'00ff'",
    "deeply nested": f"'{'[' * 100_000}'",
    "of another shape": "'{\"text\": 5}'",
}


@pytest.mark.parametrize("name", READING)
def test_every_command_names_the_damaged_answer(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder, "UPDATE request SET completion = substr(completion, 1, 30) WHERE id = 2")
    error = error_of(command(name, folder), capsys)
    assert "dialogue physics/0 turn 1" in error
    assert "doctor" in error
    assert not (folder / "out").exists()
    assert not (folder / "sheet.csv").exists()


@pytest.mark.parametrize("kind", CHANGES)
def test_any_change_of_a_stored_answer_is_seen(
    folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder, f"UPDATE request SET completion = {CHANGES[kind]} WHERE id = 2")
    assert "dialogue physics/0 turn 1" in error_of(command("stats", folder), capsys)
    generate = ["--workspace", str(folder), "generate", "--domain", "physics", "--count", "9"]
    assert "dialogue physics/0 turn 1" in error_of([*generate, "--provider", "offline"], capsys)


def test_doctor_names_each_damaged_row_and_what_is_intact(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder, "UPDATE request SET completion = 'x' WHERE id = 2")
    change(folder, "UPDATE request SET messages = '[]' || substr(messages, -16) WHERE id = 3")
    change(folder, "UPDATE dialogue SET prompt = replace(prompt, '的', '地') WHERE number = 0")
    assert run(["--workspace", str(folder), "doctor", "--json"]) == 2
    found = [each for each in json.loads(capsys.readouterr().out) if each["check"] == "store"]
    details = " ".join(each["detail"] for each in found)
    assert {each["state"] for each in found} == {"wrong"}
    assert "dialogue physics/0 turn 1 (completion" in details
    assert "dialogue physics/1 turn 0 (messages" in details
    assert "dialogue physics/0 (prompt: its hash differs)" in details
    with sqlite3.connect(folder / "clm.db") as db:
        (requests,) = db.execute("SELECT count(*) FROM request").fetchone()
    db.close()
    assert f"{requests - 2} requests" in details
    assert "clm-data show reads around damaged rows" in details


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            "UPDATE source SET format = 'clm-bench-9'",
            "imported file 1 (rows) (format: this version has no",
        ),
        ("UPDATE source SET name = x'00ff'", "name: it is not a text"),
        ("UPDATE source_row SET position = 'x'", "row x of imported file 1 (position: it is not"),
        ("UPDATE request SET answered_at = x'00ff' WHERE id = 2", "physics/0 turn 1 (answered_at:"),
        ("UPDATE decision SET decided_at = x'00ff'", "decision 1 (decided_at: it is not a text)"),
    ],
)
def test_a_damaged_column_of_any_row_is_named_by_every_command(
    folder: Path, statement: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clm_data.import_files([{"case_id": 1, **VALID["zh"]}], workspace=folder)
    decision = Decision(entry_id="a", content_hash="h", verdict="accept", reviewer="李华")
    with Store(open_workspace(folder).store_url) as store:
        store.add_decisions([decision], ["1"])
    change(folder, statement)
    assert named in error_of(command("stats", folder), capsys)
    assert run(["--workspace", str(folder), "doctor", "--json"]) == 2
    assert named in capsys.readouterr().out
    assert run(command("show", folder)) == 0
    assert "".join(named.split()) in "".join(capsys.readouterr().out.split())


def test_doctor_accepts_an_intact_store(folder: Path) -> None:
    assert run(["--workspace", str(folder), "doctor"]) == 0


def zeros(data: bytes) -> bytes:
    start = len(data) // 3
    return data[:start] + bytes(65536) + data[start + 65536 :]


FILES: dict[str, Callable[[bytes], bytes]] = {
    "zeros inside": zeros,
    "truncated": lambda data: data[: len(data) // 2],
    "truncated to its header": lambda data: data[:100],
    "wrong magic": lambda data: b"X" + data[1:],
    "text": lambda _: "不是数据库。\n".encode() * 500,
    "a few bytes": lambda _: b"\0\0",
}


@pytest.mark.parametrize("name", ["stats", "build", "review export", "show", "doctor"])
@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_one_line(
    folder: Path, kind: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(folder / "clm.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    file = folder / "clm.db"
    file.write_bytes(FILES[kind](file.read_bytes()))
    if name == "doctor":
        assert run(["--workspace", str(folder), "doctor"]) == 2
        assert "Traceback" not in capsys.readouterr().err
    else:
        assert "clm.db" in error_of(command(name, folder), capsys)


@pytest.mark.parametrize("kind", ["missing", "empty", "a folder"])
@pytest.mark.parametrize("name", READING | SHOWING)
def test_a_store_that_is_not_there_is_not_an_empty_dataset(
    folder: Path, kind: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in folder.glob("clm.db*"):
        file.unlink()
    if kind == "empty":
        (folder / "clm.db").touch()
    elif kind == "a folder":
        (folder / "clm.db").mkdir()
    assert kind in error_of(command(name, folder), capsys)
    assert run(["--workspace", str(folder), "doctor"]) == 2
    if kind != "a folder":
        assert (folder / "clm.db").exists() == (kind == "empty")
        assert run(["init", str(folder)]) == 0
        assert run(command("stats", folder)) == 0


def test_an_emptied_store_is_not_replaced_by_a_new_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in folder.glob("clm.db*"):
        file.unlink()
    (folder / "clm.db").touch()
    rows = folder / "rows.json"
    rows.write_text('[{"zh": {"prompt": "x"}}]', encoding="utf-8")
    offline = ["--domain", "physics", "--count", "1", "--provider", "offline"]
    for words in (["generate", *offline], ["import", str(rows)]):
        assert run(["--workspace", str(folder), *words]) == 2
        assert "clm.db is empty" in capsys.readouterr().err
    assert (folder / "clm.db").stat().st_size == 0


def test_a_locked_store_names_the_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/proc/locks").exists():
        pytest.skip("this system does not tell who holds a lock")
    monkeypatch.setattr("clm_data.database.BUSY_MS", 50)
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "db.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "clm.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        generate = ["--workspace", str(folder), "generate", "--domain", "physics"]
        error = error_of([*generate, "--provider", "offline"], capsys)
        assert run(command("stats", folder)) == 0
    assert f"process {other.pid} (python" in error
    assert "permissions" not in error


@pytest.mark.parametrize("name", ["stats", "audit", "review status", "show"])
def test_a_workspace_that_cannot_be_written_can_be_read(
    public: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(name, public)) == 0
    expected = capsys.readouterr().out
    done = as_nobody(public, *command(name, public))
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    done = as_nobody(public, "--workspace", str(public), "doctor", "--json")
    assert done.returncode == 0, done.stdout


def test_a_write_to_a_store_that_cannot_be_written_says_so(public: Path) -> None:
    generate = ["--workspace", str(public), "generate", "--domain", "physics", "--count", "9"]
    done = as_nobody(public, *generate, "--provider", "offline")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "read-only" in line


def test_rows_only_in_the_log_of_a_store_that_cannot_be_written_are_not_missed(
    public: Path,
) -> None:
    other = public.parent / "copy"
    with sqlite3.connect(public / "clm.db") as db:
        db.execute("INSERT INTO info VALUES ('a', 'b')")
        db.commit()
        shutil.copytree(public, other)
    db.close()
    (other / "clm.db-shm").unlink(missing_ok=True)
    done = as_nobody(other, *command("stats", other))
    assert done.returncode == 2
    assert "copy the workspace" in done.stderr


def as_nobody(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user who may read the folder and not write it."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to become another user")
    folder.parent.chmod(0o755)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return subprocess.run(
        [
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            *(sys.executable, "-m", "clm_data", *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": "/nonexistent"},
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'clm.db'}"
    new: NewDatabase = request.getfixturevalue("new_postgres")
    return new()


def test_damaged_rows_of_every_kind_are_named(url: str) -> None:
    decision = Decision.model_validate(
        {"entry_id": "a", "content_hash": "h", "verdict": "accept", "reviewer": "李华"}
    )
    with Store(url) as store:
        store.add_dialogues([NewDialogue("physics", 3, 0, "p", "m", "问", "0", 5)])
        (request,) = store.write([NewRequest(1, 1, [])])
        store.write([RequestOutcome(request, completion={"text": "答"})])
        store.add_source("a.json", "f", "s", None, [{"x": 1}, {"x": 2}])
        store.add_decisions([decision], ["1"])
        with store.transaction() as db:
            db.execute(sa.text("UPDATE request SET completion = '{' || completion"))
            db.execute(sa.text("UPDATE source_row SET content = 'x' WHERE position = 1"))
            db.execute(sa.text("UPDATE decision SET content = replace(content, 'acc', 'rej')"))
        with pytest.raises(DamagedStoreError, match="dialogue physics/3 turn 1"):
            store.exchanges()
        with pytest.raises(DamagedStoreError, match="row 2 of imported file 1"):
            store.source_rows(1)
        with pytest.raises(DamagedStoreError, match="decision 1"):
            store.decisions()


def test_values_written_without_a_checksum_are_read(url: str) -> None:
    with Store(url) as store:
        store.add_source("a.json", "f", "s", None, [{"x": 1}])
        with store.transaction() as db:
            db.execute(sa.text("UPDATE source_row SET content = '{\"x\": 7}'"))
        assert store.source_rows(1) == [{"x": 7}]


def test_stored_values_are_json_for_other_programs(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'clm.db'}") as store:
        store.add_source("a.json", "f", "s", None, [{"x": "中"}])
    with sqlite3.connect(tmp_path / "clm.db") as db:
        (found,) = db.execute("SELECT json_extract(content, '$.x') FROM source_row").fetchone()
        (text,) = db.execute("SELECT content FROM source_row").fetchone()
    db.close()
    assert found == "中"
    assert json.loads(text) == {"x": "中"}


def test_a_workspace_opens_a_store_only_if_it_exists(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path, create=True)
    with pytest.raises(clm_data.UserError, match="is missing"):
        workspace.open_store()
    workspace.open_store(create=True).close()
    workspace.open_store().close()


def test_a_damaged_schema_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "clm.db"
    Store(f"sqlite:///{file}").close()
    data = bytearray(file.read_bytes())
    place = data.find(b"CREATE TABLE dialogue") + len("CREATE ")
    data[place : place + 5] = b"\xff\xfe\xff\xfe\xff"
    file.write_bytes(data)
    with pytest.raises(StoreError, match="the database schema is damaged") as error:
        Store(f"sqlite:///{file}")
    assert "\n" not in str(error.value)

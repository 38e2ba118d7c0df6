"""Backups of stores: SQLite and PostgreSQL, into either, while others write."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.postgres_server import NewDatabase

import clm_data
from clm_data.backup import back_up, restore
from clm_data.cli import run
from clm_data.errors import DamagedStoreError, InputFileError, StoreError
from clm_data.lease import Leases
from clm_data.records import Decision
from clm_data.store import NewDialogue, NewRequest, RequestOutcome, Store

NewStore = Callable[[], str]


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> NewStore:
    if request.param == "postgresql":
        new: NewDatabase = request.getfixturevalue("new_postgres")
        return new
    names = iter(range(99))
    return lambda: f"sqlite:///{tmp_path / f'store {next(names)}.db'}"


def fill(store: Store, first: int = 0) -> None:
    store.add_dialogues([NewDialogue("physics", first, 0, "p", "m", "问😀", "0", 5)])
    dialogue = store.dialogues()[-1].id
    (request,) = store.write([NewRequest(dialogue, 0, [{"role": "user", "content": "问"}])])
    store.write([RequestOutcome(request, completion={"text": "答\0\ud83d", "n": 10**20})])
    store.add_source(f"{first}.json", "f", f"s{first}", None, [{"x": 1}, ["二"]], b"\0bytes\xff")
    decision = Decision.model_validate(
        {"entry_id": "a", "content_hash": "h", "verdict": "accept", "reviewer": "李华"}
    )
    store.add_decisions([decision], [f"d{first}"])


def contents(store: Store) -> object:
    sources = store.sources()
    return (
        store.dialogues(),
        store.exchanges(),
        [(source, store.source_rows(source.id)) for source in sources],
        [store.source_bytes(source.sha256) for source in sources],
        store.decisions(),
    )


def test_a_restored_store_has_the_same_contents_and_can_be_continued(
    new_url: NewStore, tmp_path: Path
) -> None:
    url, other = new_url(), new_url()
    backup = tmp_path / "a backup.db"
    with Store(url) as store:
        fill(store)
        fill(store, 1)
        expected = contents(store)
        counts = back_up(store, backup).counts
    assert counts["request"] == 2
    assert restore(other, backup).counts == counts
    assert [path.name for path in tmp_path.glob("*backup*")] == ["a backup.db"]
    with Store(other) as store:
        assert contents(store) == expected
        fill(store, 2)
        assert [dialogue.id for dialogue in store.dialogues()] == [1, 2, 3]


def test_a_store_moves_between_sqlite_and_postgresql(
    new_postgres: NewDatabase, tmp_path: Path
) -> None:
    server, file = new_postgres(), f"sqlite:///{tmp_path / 'clm.db'}"
    with Store(server) as store:
        fill(store)
        expected = contents(store)
        back_up(store, tmp_path / "backup.db")
    restore(file, tmp_path / "backup.db")
    with Store(file) as store:
        assert contents(store) == expected
        fill(store, 1)
        expected = contents(store)
        back_up(store, tmp_path / "backup.db", overwrite=True)
    restore(server, tmp_path / "backup.db", replace=True)
    with Store(server) as store:
        assert contents(store) == expected


def test_a_backup_has_one_state_while_others_write(new_url: NewStore, tmp_path: Path) -> None:
    url = new_url()
    written, ended = threading.Event(), threading.Event()

    def write() -> None:
        with Store(url) as store:
            for number in range(10_000):
                store.add_dialogues([NewDialogue("d", number, 0, "p", "m", "问", "0", 5)])
                store.write([NewRequest(store.dialogues()[-1].id, 0, [])])
                written.set()
                if ended.is_set():
                    return

    Store(url).close()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(60)
        with Store(url) as store:
            for number in range(5):
                counts = back_up(store, tmp_path / f"backup{number}.db").counts
                assert 0 <= counts["dialogue"] - counts["request"] <= 1
    finally:
        ended.set()
        writer.join(60)
    restore(new_url(), tmp_path / "backup4.db")


def test_a_store_with_rows_is_replaced_only_if_asked(new_url: NewStore, tmp_path: Path) -> None:
    url, other = new_url(), new_url()
    with Store(url) as store:
        fill(store)
        back_up(store, tmp_path / "backup.db")
    with Store(other) as store:
        fill(store, 5)
        before = contents(store)
        with pytest.raises(StoreError, match="--replace"):
            restore(other, tmp_path / "backup.db")
        assert contents(store) == before
        leases = Leases(store)
        leases.claim("generate/physics")
        with pytest.raises(StoreError, match="generate/physics by process"):
            restore(other, tmp_path / "backup.db", replace=True)
        assert contents(store) == before
        leases.release()
        restore(other, tmp_path / "backup.db", replace=True)
        assert [dialogue.number for dialogue in store.dialogues()] == [0]


def test_a_damaged_store_never_replaces_a_good_backup(tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    with Store(f"sqlite:///{tmp_path / 'clm.db'}") as store:
        fill(store)
        back_up(store, backup)
        good = backup.read_bytes()
        with sqlite3.connect(tmp_path / "clm.db") as db:
            db.execute("UPDATE request SET completion = 'x'")
        db.close()
        with pytest.raises(DamagedStoreError, match="dialogue physics/0 turn 0"):
            back_up(store, backup, overwrite=True)
    assert backup.read_bytes() == good
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backup.db", "clm.db"]


@pytest.mark.parametrize("kind", ["row", "zeros", "truncated", "text", "empty", "missing"])
def test_a_damaged_backup_is_not_restored(tmp_path: Path, kind: str) -> None:
    backup, url = tmp_path / "backup.db", f"sqlite:///{tmp_path / 'clm.db'}"
    with Store(url) as store:
        fill(store)
        back_up(store, backup)
        before = contents(store)
    data = backup.read_bytes()
    if kind == "row":
        with sqlite3.connect(backup) as db:
            db.execute("UPDATE request SET completion = 'x'")
        db.close()
    elif kind == "missing":
        backup.unlink()
    else:
        middle = len(data) // 2
        backup.write_bytes(
            {
                "zeros": data[:8192] + bytes(middle) + data[8192 + middle :],
                "truncated": data[:middle],
                "text": b"backup " * 1000,
                "empty": b"",
            }[kind]
        )
    with pytest.raises((StoreError, InputFileError), match=r"backup\.db"):
        restore(url, backup, replace=True)
    with Store(url) as store:
        assert contents(store) == before


@pytest.mark.parametrize("damage", ["zeros", "text"])
def test_a_store_that_cannot_be_read_is_moved_aside(tmp_path: Path, damage: str) -> None:
    workspace = clm_data.init(tmp_path / "w")
    clm_data.generate("physics", count=4, provider="offline", workspace=workspace)
    backup, file = tmp_path / "backup.db", tmp_path / "w" / "clm.db"
    clm_data.backup_store(backup, workspace=workspace)
    data = file.read_bytes()
    broken = b"text " * 9999 if damage == "text" else data[:100] + bytes(len(data) - 100)
    file.write_bytes(broken)
    with pytest.raises(StoreError):
        clm_data.restore_store(backup, workspace=workspace)
    assert file.read_bytes() == broken
    done = clm_data.restore_store(backup, replace=True, workspace=workspace)
    assert done.set_aside is not None
    assert done.set_aside.read_bytes() == broken
    assert clm_data.stats(workspace).records == 4


def test_the_commands_say_what_they_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--workspace", str(tmp_path / "w")]
    backup = str(tmp_path / "backup.db")
    workspace = clm_data.init(tmp_path / "w")
    clm_data.generate("physics", count=4, provider="offline", workspace=workspace)
    assert run([*place, "store", "backup", backup, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["dialogue"] == 2
    assert run([*place, "store", "backup", backup]) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*place, "store", "backup", str(tmp_path / "w" / "clm.db"), "--force"]) == 2
    assert run([*place, "store", "restore", backup]) == 2
    assert run([*place, "store", "restore", backup, "--replace"]) == 0
    (tmp_path / "w" / "clm.db").unlink()
    assert run([*place, "store", "restore", backup]) == 0
    assert clm_data.stats(workspace).records == 4

"""Stores on a PostgreSQL server: same datasets as SQLite, and errors of a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers.postgres_server import NewDatabase, free_port

from clm_data.assemble import assemble
from clm_data.bank import BANK_LICENSE
from clm_data.building import build
from clm_data.config import Workspace, open_workspace
from clm_data.errors import StoreError
from clm_data.generation.run import run_generation
from clm_data.llm import open_model
from clm_data.manifest import MANIFEST_NAME, file_hashes
from clm_data.prompts import Prompts
from clm_data.records import Decision
from clm_data.resources import bank_path
from clm_data.sources import read_file
from clm_data.store import NewDialogue, Store

COUNTS = {"physics": 7, "chinese_literature": 7}


@pytest.fixture
def url(new_postgres: NewDatabase) -> str:
    return new_postgres()


def run_sql(url: str, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(sa.text(statement))
    engine.dispose()


def dialogue(prompt: str) -> NewDialogue:
    return NewDialogue("physics", 0, 0, "offline", "bank", prompt, "0" * 64, 5)


def run_domains(workspace: Workspace, store: Store, counts: dict[str, int]) -> int:
    """Query the bundled bank domain by domain; returns the number of requests."""
    domains = workspace.domains()
    reports = [
        asyncio.run(
            run_generation(
                store,
                open_model(workspace.settings),
                [domains[name]],
                all_domains=domains,
                settings=workspace.settings,
                prompts=Prompts(workspace.prompts_folder),
                count=count,
            )
        )
        for name, count in counts.items()
    ]
    return sum(report.requests for report in reports)


def make_dataset(folder: Path, store_url: str) -> Path:
    """Generate, import, review and build, which uses all tables of the store."""
    settings = {"store": store_url, "provider": "offline"}
    workspace = open_workspace(folder, create=True, overrides=settings, environ={})
    domains = workspace.domains()
    file = read_file(bank_path("published_rows.json"))
    with workspace.open_store(create=True) as store:
        assert run_domains(workspace, store, COUNTS) > 0
        assert store.add_source(file.name, file.format, file.sha256, BANK_LICENSE, file.rows)
        entries = assemble(store, domains, workspace.settings).entries
        decisions = [
            Decision(
                entry_id=entry.id, content_hash=entry.content_hash, verdict=verdict, reviewer="李华"
            )
            for entry, verdict in ((entries[0], "accept"), (entries[-1], "reject"))
        ]
        assert store.add_decisions(decisions, ["1", "2"]) == 2
    report = build(workspace, folder / "dataset")
    assert report.stats.records > sum(COUNTS.values())
    with workspace.open_store(create=True) as store:
        assert run_domains(workspace, store, {"physics": 1}) == 0
    return folder / "dataset"


def test_postgresql_and_sqlite_give_the_same_dataset(url: str, tmp_path: Path) -> None:
    on_server = make_dataset(tmp_path / "postgresql", url)
    on_disk = make_dataset(tmp_path / "sqlite", "sqlite:///clm.db")
    assert not (tmp_path / "postgresql" / "clm.db").exists()
    assert file_hashes(on_server) == file_hashes(on_disk)
    assert (on_server / MANIFEST_NAME).read_bytes() == (on_disk / MANIFEST_NAME).read_bytes()


def test_a_dropped_idle_connection_is_reopened(url: str) -> None:
    with Store(url) as store:
        store.add_dialogues([dialogue("问")])
        run_sql(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        assert [each.prompt for each in store.dialogues()] == ["问"]


def test_a_database_without_an_encoding_keeps_chinese_text(url: str) -> None:
    run_sql(
        url, f"CREATE DATABASE {url.rpartition('/')[2]}_a TEMPLATE template0 ENCODING 'SQL_ASCII'"
    )
    with Store(f"{url}_a") as store:
        store.add_dialogues([dialogue("问😀")])
        assert [each.prompt for each in store.dialogues()] == ["问😀"]


def test_a_database_that_cannot_store_chinese_is_an_error(url: str) -> None:
    run_sql(url, f"CREATE DATABASE {url.rpartition('/')[2]}_l TEMPLATE template0 ENCODING 'LATIN1'")
    with Store(f"{url}_l") as store, pytest.raises(StoreError, match="database is UTF-8") as caught:
        store.add_dialogues([dialogue("问")])
    assert "\n" not in str(caught.value)


def test_an_unreachable_server_is_a_one_line_error_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="check the address") as caught:
        Store(f"postgresql+psycopg://clm:secret@127.0.0.1:{free_port()}/store")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)

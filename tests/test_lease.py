"""Leases: one holder at a time, none after death, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers.postgres_server import NewDatabase

from clm_data.errors import StoreError
from clm_data.lease import LeaseLostError, Leases, holders
from clm_data.store import NewDialogue, NewRequest, RequestOutcome, Store

CLAIM = """
import sys
from clm_data.lease import Leases
from clm_data.store import Store
leases = Leases(Store(sys.argv[1]))
print(leases.claim("work"), flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'clm.db'}"
    new: NewDatabase = request.getfixturevalue("new_postgres")
    return new()


def claiming_process(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_sql(url: str, statement: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as db:
        db.execute(sa.text(statement))
    engine.dispose()


def test_a_lease_has_one_holder_until_it_is_released(url: str) -> None:
    with Store(url) as store:
        first, second = Leases(store), Leases(store)
        assert first.claim("work") is None
        assert second.claim("other work") is None
        holder = second.claim("work")
        assert holder is not None
        assert str(holder).startswith(f"process {holder.pid} on {holder.host} since ")
        assert set(holders(store)) == {"work", "other work"}
        first.release()
        assert second.claim("work") is None


def test_of_many_that_claim_at_once_one_succeeds(url: str) -> None:
    with Store(url) as store, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Leases(store).claim("work"), range(16)))
    assert found.count(None) == 1


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_process_loses_its_lease(url: str, reaped: bool) -> None:
    with claiming_process(url) as process, Store(url) as store:
        assert process.stdout is not None
        assert process.stdout.readline() == "None\n"
        holder = Leases(store).claim("work")
        assert holder is not None
        assert holder.pid == process.pid
        process.kill()
        if reaped:
            process.wait()
        else:  # dead, but still in the table of processes
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Leases(store).claim("work") is None


def test_a_lease_of_another_machine_ends_when_it_expires(url: str) -> None:
    with Store(url) as store:
        Leases(store).claim("work")
        run_sql(url, "UPDATE lease SET owner = 'elsewhere 1:1 x', pid = 999999999")
        assert Leases(store).claim("work") is not None
        run_sql(url, "UPDATE lease SET expires = 1")
        assert Leases(store).claim("work") is None


def test_a_later_process_with_the_same_number_is_not_the_holder(url: str) -> None:
    with Store(url) as store:
        Leases(store).claim("work")
        with store.transaction() as db:
            owner = db.scalar(sa.text("SELECT owner FROM lease"))
            earlier = owner.rpartition(":")[0] + ":1 x"
            db.execute(sa.text("UPDATE lease SET owner = :earlier"), {"earlier": earlier})
        assert Leases(store).claim("work") is None


def test_a_lost_lease_forbids_requests_but_not_answers_that_were_paid(url: str) -> None:
    with Store(url) as store:
        leases = Leases(store)
        leases.claim("work")
        store.add_dialogues([NewDialogue("physics", 0, 0, "p", "m", "问", "0", 5)], leases.check)
        (request,) = store.write([NewRequest(1, 0, [])], leases.check)
        run_sql(url, "UPDATE lease SET expires = 1")
        assert Leases(store).claim("work") is None
        with pytest.raises(LeaseLostError, match="another process"):
            leases.renew()
        with pytest.raises(LeaseLostError):
            store.write([NewRequest(1, 1, [])], leases.check)
        store.write([RequestOutcome(request, completion={"text": "答"})], leases.check)
        assert [e.completion for e in store.exchanges()] == [{"text": "答"}]
        leases.release()
        assert set(holders(store)) == {"work"}


def test_a_lease_that_nobody_took_meanwhile_is_renewed(url: str) -> None:
    with Store(url) as store:
        leases = Leases(store)
        leases.claim("work")
        run_sql(url, "UPDATE lease SET expires = 1")
        assert holders(store) == {}
        leases.renew()
        assert set(holders(store)) == {"work"}


def test_a_store_written_before_leases_existed_gets_them_and_keeps_its_rows(url: str) -> None:
    with Store(url) as store:
        store.add_source("a.json", "f", "s", None, [{"x": 1}])
    run_sql(url, "DROP TABLE lease")
    with Store(url) as store:
        assert Leases(store).claim("work") is None
        assert store.source_rows(1) == [{"x": 1}]


def test_a_store_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'clm.db'}"
    with Store(url) as store:
        run_sql(url, "DROP TABLE lease")
        with pytest.raises(StoreError, match="no such table"):
            Leases(store).claim("work")

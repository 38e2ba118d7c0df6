from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers.postgres_server import NewDatabase

from clm_data.errors import StoreError, UserError
from clm_data.records import Decision
from clm_data.store import DialogueEnd, NewDialogue, NewRequest, RequestOutcome, Store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'clm.db'}"
    new: NewDatabase = request.getfixturevalue("new_postgres")
    return new()


def dialogue(number: int, domain: str = "physics") -> NewDialogue:
    return NewDialogue(domain, number, 0, "offline", "bank", "问", "0" * 64, 5)


def decision(entry: str, verdict: str = "accept") -> Decision:
    return Decision.model_validate(
        {"entry_id": entry, "content_hash": "h", "verdict": verdict, "reviewer": "李华"}
    )


def test_data_is_still_there_after_reopening(url: str) -> None:
    with Store(url) as store:
        store.add_dialogues([dialogue(1), dialogue(0)])
        (request,) = store.write([NewRequest(1, 0, [{"role": "user", "content": "问"}])])
        store.write(
            [RequestOutcome(request, completion={"text": "答😀"}), DialogueEnd(1, "quota reached")]
        )
    with Store(url) as store:
        assert [d.number for d in store.dialogues("physics")] == [0, 1]
        assert [d.ended for d in store.dialogues()] == [None, "quota reached"]
        (exchange,) = store.exchanges(1)
        assert exchange.completion == {"text": "答😀"}
        assert exchange.messages == [{"role": "user", "content": "问"}]
        assert exchange.error is None


def test_a_request_in_flight_has_neither_answer_nor_error(url: str) -> None:
    with Store(url) as store:
        store.add_dialogues([dialogue(0)])
        store.write([NewRequest(1, 0, [])])
        (exchange,) = store.exchanges()
        assert (exchange.completion, exchange.error) == (None, None)


def test_any_error_text_of_an_endpoint_can_be_stored(url: str) -> None:
    with Store(url) as store:
        store.add_dialogues([dialogue(0)])
        (request,) = store.write([NewRequest(1, 0, [])])
        store.write(
            [RequestOutcome(request, error="拒绝\0😀\ud83d"), DialogueEnd(1, "refused: \0")]
        )
        assert [e.error for e in store.exchanges()] == [r"拒绝\x00😀\ud83d"]
        assert [d.ended for d in store.dialogues()] == [r"refused: \x00"]


def test_answers_with_any_characters_are_stored_unchanged(url: str) -> None:
    answer = {"text": "答\0😀\ud83d", "tokens": 10**20}
    with Store(url) as store:
        store.add_dialogues([dialogue(0)])
        (request,) = store.write([NewRequest(1, 0, [])])
        store.write([RequestOutcome(request, completion=answer)])
        assert [e.completion for e in store.exchanges()] == [answer]


def test_a_batch_of_dialogues_is_added_completely_or_not_at_all(url: str) -> None:
    with Store(url) as store:
        store.add_dialogues([dialogue(0)])
        with pytest.raises(StoreError, match="another run"):
            store.add_dialogues([dialogue(1), dialogue(0)])
        assert [d.number for d in store.dialogues()] == [0]


def test_a_file_is_stored_once_with_unchanged_rows(url: str) -> None:
    rows = [{"case_id": 1, "x": None}, {"case_id": "1", "x": 1.5}, ["list"], "\ud83d", 10**20, {}]
    with Store(url) as store:
        assert store.add_source("a.json", "clm-bench-zh", "s1", "cc-by-4.0", rows)
        assert not store.add_source("copy.json", "clm-bench-zh", "s1", None, rows)
        (source,) = store.sources()
        assert (source.name, source.licence) == ("a.json", "cc-by-4.0")
        kept = store.source_rows(source.id)
    assert kept == rows
    assert [type(row) for row in kept] == [type(row) for row in rows]


def test_a_decision_is_added_once_and_never_changed(url: str) -> None:
    with Store(url) as store:
        assert store.add_decisions([decision("a"), decision("b")], ["1", "2"]) == 2
        assert store.add_decisions([decision("a"), decision("c", "reject")], ["1", "3"]) == 1
        assert [d.entry_id for d in store.decisions()] == ["a", "b", "c"]


def test_repeated_digests_in_one_call_count_once(url: str) -> None:
    with Store(url) as store:
        assert store.add_decisions([decision("a"), decision("a")], ["1", "1"]) == 1


def test_another_schema_version_is_an_error(url: str) -> None:
    Store(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as db:
        db.execute(sa.text("UPDATE info SET value = '99'"))
    engine.dispose()
    with pytest.raises(StoreError, match="schema 99"):
        Store(url)


@pytest.mark.parametrize("bad", ["no url", "nosuch://host/db"])
def test_an_unusable_url_is_an_error(bad: str) -> None:
    with pytest.raises(StoreError, match="not usable"):
        Store(bad)


def test_a_file_that_is_not_a_database_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "clm.db"
    file.write_text("not a database, " * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        Store(f"sqlite:///{file}")


def test_errors_do_not_show_the_password() -> None:
    with pytest.raises(UserError) as caught:
        Store("postgresql+nosuch://user:secret@127.0.0.1/db")
    assert "secret" not in str(caught.value)


def test_the_error_names_a_missing_driver() -> None:
    with pytest.raises(StoreError, match="needs the package MySQLdb"):
        Store("mysql://host/db")

"""Follows an entry from the request to the dataset, without changing anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clm_data.assemble import completion_of
from clm_data.config import Settings
from clm_data.domain import Domain
from clm_data.errors import DamagedStoreError
from clm_data.llm.base import Message
from clm_data.records import Decision
from clm_data.store import Dialogue, Exchange, Store
from clm_data.tracing.contents import Contents, Located, read_contents
from clm_data.tracing.fates import Fates
from clm_data.tracing.names import Meaning, meaning_of, unknown, unknown_turn
from clm_data.tracing.results import (
    Trace,
    TracedAnswer,
    TracedDecision,
    TracedEntry,
    TracedRow,
)


def trace(store: Store, what: str, domains: Mapping[str, Domain], settings: Settings) -> Trace:
    """What was asked and answered, and what became of it.

    Args:
        store: Damaged rows are left out and named in the result. The store remembers that.
        what: Id of an entry, `DOMAIN/DIALOGUE`, `DOMAIN/DIALOGUE/TURN` (from 0), such a turn with
            `#N` for the n-th object of its answer, or `FILE#ROW` (from 1).
        domains: Domains of the workspace, in the order of the domain file.
        settings: Settings of the workspace.

    Raises:
        UnknownNameError: Nothing in the store has that name; the nearest names are suggested.
        StoreError: The store cannot be read.
    """
    damaged = store.read_around_damage()
    contents = read_contents(store, domains)
    decisions = store.dated_decisions()
    name = what.strip()
    meaning = meaning_of(name, contents)
    orphaned = [each for each in decisions if each[1].entry_id == name]
    if meaning is None and orphaned:
        return Trace(name, (_orphan(name, orphaned),), damaged=tuple(damaged))
    if meaning is None:
        raise unknown(name, contents, damaged)
    fates = Fates.of(contents, decisions, settings)
    answers = tuple(_answers(store, name, meaning, contents, fates, damaged))
    of_answers = [entry for answer in answers for entry in answer.entries]
    rows = [each for each in meaning.located if each.item is not None]
    entries = (*(fates.entry(each, asked=True) for each in rows), *of_answers)
    return Trace(name, entries, answers, tuple(_rows(rows, contents)), tuple(damaged))


def _answers(
    store: Store,
    name: str,
    meaning: Meaning,
    contents: Contents,
    fates: Fates,
    damaged: Sequence[str],
) -> Iterable[TracedAnswer]:
    """The requests that belong to the meaning of a name.

    Raises:
        UnknownNameError: The dialogue has no such turn.
    """
    if meaning.dialogue is not None:
        exchanges = store.exchanges(meaning.dialogue.id)
        if meaning.turn is not None and meaning.turn not in {each.turn for each in exchanges}:
            raise unknown_turn(name, sorted({each.turn for each in exchanges}), damaged)
        for exchange in exchanges:
            if meaning.turn in (None, exchange.turn):
                yield _answer(meaning.dialogue, exchange, contents, fates)
    requests = {each.request: each.dialogue for each in meaning.located if each.dialogue}
    wanted = frozenset(meaning.located)
    for request, dialogue in requests.items():
        for exchange in store.exchanges(dialogue.id):
            if exchange.id == request:
                yield _answer(dialogue, exchange, contents, fates, wanted)


def _answer(
    dialogue: Dialogue,
    exchange: Exchange,
    contents: Contents,
    fates: Fates,
    asked: frozenset[Located] | None = None,
) -> TracedAnswer:
    """A request as it was when the contents were read; an answer that came later is left out."""
    completion, damage = None, exchange.damage
    if exchange.id in contents.answered:
        completion = completion_of(dialogue, exchange)
    elif exchange.completion is not None:
        damage = damage or _completion_damage(dialogue, exchange)
    messages = _messages(exchange.messages)
    if messages is None:
        damage = damage or "messages: they are not messages"
    return TracedAnswer(
        dialogue=f"{dialogue.domain}/{dialogue.number}",
        turn=exchange.turn,
        provider=dialogue.provider,
        model=dialogue.model,
        sent_at=exchange.sent_at,
        answered_at=exchange.answered_at,
        messages=messages or (),
        completion=completion,
        error=exchange.error,
        damage=damage,
        ended=dialogue.ended,
        entries=tuple(
            fates.entry(each, asked=asked is None or each in asked)
            for each in contents.located
            if each.request == exchange.id
        ),
    )


def _completion_damage(dialogue: Dialogue, exchange: Exchange) -> str | None:
    try:
        completion_of(dialogue, exchange)
    except DamagedStoreError as error:
        return "; ".join(error.rows)
    return None


def _messages(stored: Any) -> tuple[Message, ...] | None:
    """The messages of a request; None if the stored value is something else."""
    if not isinstance(stored, list):
        return None
    for each in stored:
        texts = [each.get(key) for key in ("role", "content")] if isinstance(each, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            return None
    return tuple(stored)


def _rows(asked: Sequence[Located], contents: Contents) -> Iterable[TracedRow]:
    """The rows of imported entries, those of other files that repeat them included."""
    ids = {each.content_id for each in asked}
    for each in contents.located:
        if each.item is None or not (
            each in asked or (each.content_id in ids and not each.is_used)
        ):
            continue
        for file, number in each.item.rows:
            yield TracedRow(
                file=file.name,
                number=number,
                format=file.format,
                licence=file.licence,
                sha256=file.sha256,
                imported_at=contents.sources[file.sha256].imported_at,
                content=file.rows[number - 1],
                is_used=each.is_used,
            )


def _orphan(id_: str, decisions: Sequence[tuple[str, Decision]]) -> TracedEntry:
    """An entry that only decisions know; its answer or row gives another entry now."""
    traced = tuple(TracedDecision(decision, at, "not applied") for at, decision in decisions)
    return TracedEntry(id_, "", "not in the store", asked=True, decisions=traced)

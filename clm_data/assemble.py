"""From the store to deduplicated entries, as generate, review, audit and build need them.

    answers --parse--> candidates <--read-- imported files
        --review decisions--> --validate--> entries --deduplicate--> entries

The result depends only on the store, the domains and the settings, not on the order in which the
answers arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from clm_data import parse, sources
from clm_data.bank import BANK_LICENSE
from clm_data.config import Settings
from clm_data.dedup import deduplicate_entries
from clm_data.domain import Domain
from clm_data.errors import DamagedStoreError
from clm_data.llm.base import Completion
from clm_data.reasoning import answer_in_reasoning
from clm_data.records import (
    Candidate,
    Decision,
    Entry,
    Origin,
    Problem,
    Rejection,
    ReviewStatus,
    StageResult,
    unique_ids,
)
from clm_data.review.decisions import apply_decisions
from clm_data.store import Dialogue, Exchange, Store
from clm_data.validate import validate
from clm_data.validate.sets import similar_prompts


@dataclass(frozen=True)
class Assembly:
    """The candidates in the store and what became of them.

    ``len(candidates) == len(entries) + number of rejected candidates``. Rejections of the stage
    ``parse`` are not counted there: they never became candidates.
    """

    candidates: tuple[Candidate, ...]
    """As read, before review decisions are applied."""
    entries: tuple[Entry, ...]
    """The entries left after review decisions, validation and deduplication."""
    rejected: tuple[Rejection, ...]
    warnings: tuple[tuple[str, Problem], ...]
    """(entry id, warning) pairs for kept entries."""
    status: Mapping[str, ReviewStatus]
    """Review status by entry id. Unreviewed entries are missing."""


def assemble(store: Store, domains: Mapping[str, Domain], settings: Settings) -> Assembly:
    """Read the store, apply review decisions, validate and deduplicate."""
    return assembled(read_candidates(store, domains), store.decisions(), settings)


def assembled(
    read: StageResult[Candidate], decisions: Sequence[Decision], settings: Settings
) -> Assembly:
    """Apply review decisions, validate and deduplicate."""
    decided = apply_decisions(read.kept, decisions)
    valid = validate(decided.kept)
    unique = deduplicate_entries(
        valid.kept, **settings.dedup.model_dump(), reviewed=decided.status.keys()
    )
    kept_ids = {entry.id for entry in unique.kept}
    similar = similar_prompts(unique.kept, settings.dedup.threshold, field=settings.dedup.field)
    warnings = (*valid.warnings, *unique.warnings, *similar)
    return Assembly(
        candidates=read.kept,
        entries=unique.kept,
        rejected=(*read.rejected, *decided.rejected, *valid.rejected, *unique.rejected),
        warnings=tuple((id_, problem) for id_, problem in warnings if id_ in kept_ids),
        status={id_: status for id_, status in decided.status.items() if id_ in kept_ids},
    )


def read_candidates(store: Store, domains: Mapping[str, Domain]) -> StageResult[Candidate]:
    """All candidates in the store: imported files first, then answers by domain and dialogue."""
    imported = sources.stored_candidates(store)
    parts = [imported, *(result for _, _, result in parsed_answers(store, domains))]
    return StageResult(
        kept=tuple(unique_ids(candidate for part in parts for candidate in part.kept)),
        rejected=tuple(rejection for part in parts for rejection in part.rejected),
    )


def parsed_answers(
    store: Store, domains: Mapping[str, Domain]
) -> Iterator[tuple[Dialogue, Exchange, StageResult[Candidate]]]:
    """The candidates of every stored answer, by domain and dialogue."""
    for dialogue in in_order(store.dialogues(), domains):
        for exchange, completion in stored_answers(store, dialogue):
            yield dialogue, exchange, parse_answer(dialogue, exchange.turn, completion)


def stored_answers(store: Store, dialogue: Dialogue) -> Iterator[tuple[Exchange, Completion]]:
    """The answers of one dialogue with their requests; unanswered requests are skipped."""
    for exchange in store.exchanges(dialogue.id):
        if exchange.completion is None:
            continue
        try:
            completion = completion_of(dialogue, exchange)
        except DamagedStoreError as error:
            store.report_damage(error.rows)
        else:
            yield exchange, completion


def completion_of(dialogue: Dialogue, exchange: Exchange) -> Completion:
    """A stored answer.

    Raises:
        DamagedStoreError: It is not one.
    """
    try:
        return Completion.model_validate(exchange.completion)
    except ValidationError as error:
        reason = error.errors()[0]
        field = ".".join(map(str, reason["loc"]))
        row = f"dialogue {dialogue.domain}/{dialogue.number} turn {exchange.turn}"
        raise DamagedStoreError("", [f"{row} ({field}: {reason['msg']})"]) from error


def parse_answer(dialogue: Dialogue, turn: int, completion: Completion) -> StageResult[Candidate]:
    """The candidates in one answer; the part that cannot be parsed is rejected."""
    offline = dialogue.provider == "offline"
    text, reasoning = completion.text, completion.reasoning or ""
    return parse.parse_entries(
        text if text.strip() else answer_in_reasoning(reasoning),
        reasoning=reasoning,
        domain=dialogue.domain,
        label=f"{dialogue.domain}/{dialogue.number}/{turn}",
        origin=Origin(
            kind="bank" if offline else "model",
            name=dialogue.model,
            prompt_hash=dialogue.prompt_hash,
            licence=BANK_LICENSE if offline else None,
        ),
    )


def in_order(dialogues: Iterable[Dialogue], domains: Mapping[str, Domain]) -> list[Dialogue]:
    """Sort dialogues by domain in file order, then by number. Unknown domains come last."""
    rank = {name: index for index, name in enumerate(domains)}
    return sorted(dialogues, key=lambda d: (rank.get(d.domain, len(rank)), d.domain, d.number))

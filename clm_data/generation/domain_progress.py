"""What each domain has so far, computed from the store as :mod:`clm_data.assemble` does.

Parsing and validation look at one candidate at a time, so each answer is parsed and validated once
and cached. Deduplication, which is cheap, is repeated.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clm_data import sources
from clm_data.assemble import in_order, parse_answer, stored_answers
from clm_data.config import DedupSettings
from clm_data.dedup import IncrementalDeduplicator, deduplicate_entries
from clm_data.domain import Domain
from clm_data.generation.dialogue import ParsedAnswer
from clm_data.llm.base import Completion
from clm_data.records import Candidate, Entry, Rejection
from clm_data.review.decisions import apply_decisions
from clm_data.store import Dialogue, Store
from clm_data.validate import validate


@dataclass(frozen=True)
class DomainState:
    """The entries of one domain.

    Attributes:
        entries: Entries that count towards the quota.
        new: Number of these entries by batch, for batches that added any.
        repeated: Entries of any domain that this domain's answers repeated: the most frequently
            repeated first, and of equally frequent ones the most recently repeated first.
        duplicates: Generated entries of this domain that the deduplication rejected.
    """

    entries: tuple[Entry, ...]
    new: Mapping[int, int]
    repeated: tuple[Entry, ...] = ()
    duplicates: tuple[Rejection, ...] = ()


class DomainProgress:
    """Computes the state of domains while a run adds answers to the store.

    Imported files and decisions are read once, when the object is created.

    Args:
        store: Store of the workspace.
        domains: All domains of the workspace by id, in the order of the domain file.
        dedup: Settings of the deduplication.
    """

    def __init__(self, store: Store, domains: Mapping[str, Domain], dedup: DedupSettings) -> None:
        self._store = store
        self._domains = domains
        self._dedup = dedup
        self._decisions = store.decisions()
        self._decided_ids = {decision.entry_id for decision in self._decisions}
        self._accepted_ids: set[str] = set()
        """Entries that reviewers accepted or fixed, as far as they have been read."""
        self._imported = self._review_and_validate(sources.stored_candidates(store).kept)
        self._answers: dict[tuple[int, int], ParsedAnswer] = {}
        self._ended: dict[int, tuple[Entry, ...]] = {}
        """Entries of ended dialogues by dialogue id."""

    def parsed(self, dialogue: Dialogue, turn: int, completion: Completion) -> ParsedAnswer:
        """Parse and validate an answer, or return the cached result."""
        key = (dialogue.id, turn)
        if key not in self._answers:
            found = parse_answer(dialogue, turn, completion)
            valid = validate(found.kept)
            self._answers[key] = ParsedAnswer(
                candidates=found.kept,
                entries=valid.kept,
                rejected=(*found.rejected, *valid.rejected),
                cut_off=completion.finish_reason == "length",
            )
        return self._answers[key]

    def answers(self, dialogues: Sequence[Dialogue]) -> list[ParsedAnswer]:
        """All answers in some dialogues, parsed and validated."""
        return [
            self.parsed(dialogue, exchange.turn, completion)
            for dialogue in dialogues
            for exchange, completion in stored_answers(self._store, dialogue)
        ]

    def by_itself(self, domain: str, *, before_batch: int | None = None) -> DomainState:
        """The state of a domain from imported files and its own answers only.

        It does not depend on other domains that are generated at the same time.

        Args:
            domain: Id of the domain.
            before_batch: Leave out the dialogues of this batch and later ones.
        """
        dialogues = self._store.dialogues(domain)
        if before_batch is not None:
            dialogues = [each for each in dialogues if each.wave < before_batch]
        return self._states(dialogues)[domain]

    def in_dataset(self) -> Mapping[str, DomainState]:
        """The states of all domains; an entry that several domains have counts for the first."""
        return self._states(in_order(self._store.dialogues(), self._domains))

    def dialogue_ended(self, dialogue: Dialogue, answers: Sequence[ParsedAnswer]) -> None:
        """Cache the entries of a dialogue that has ended, given all its answers."""
        self._ended[dialogue.id] = tuple(
            entry for answer in answers for entry in self._reviewed(answer)
        )

    def deduplicator(self, earlier: Sequence[Entry]) -> IncrementalDeduplicator:
        """A deduplicator for a dialogue that starts from ``earlier`` entries."""
        return IncrementalDeduplicator(earlier, **self._dedup.model_dump())

    def _states(self, dialogues: Sequence[Dialogue]) -> Mapping[str, DomainState]:
        entries = list(self._imported)
        batches: dict[str, int] = {}
        for dialogue in dialogues:
            for entry in self._entries_of(dialogue):
                entries.append(entry)
                batches.setdefault(entry.id, dialogue.wave)
        unique = deduplicate_entries(
            entries, **self._dedup.model_dump(), reviewed=self._accepted_ids
        )
        kept: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in unique.kept:
            kept[entry.domain or ""].append(entry)
        generated = [rejection for rejection in unique.rejected if rejection.id in batches]
        repeated = _repeated_entries(unique.kept, generated)
        duplicates: defaultdict[str, list[Rejection]] = defaultdict(list)
        for rejection in generated:
            duplicates[rejection.domain or ""].append(rejection)
        states = {
            domain: DomainState(
                tuple(kept[domain]),
                Counter(batches[each.id] for each in kept[domain] if each.id in batches),
                repeated.get(domain, ()),
                tuple(duplicates[domain]),
            )
            for domain in dict.fromkeys([*kept, *repeated, *duplicates])
        }
        return defaultdict(lambda: DomainState((), {}), states)

    def _entries_of(self, dialogue: Dialogue) -> tuple[Entry, ...]:
        if dialogue.id in self._ended:
            return self._ended[dialogue.id]
        entries: list[Entry] = []
        for exchange, completion in stored_answers(self._store, dialogue):
            entries += self._reviewed(self.parsed(dialogue, exchange.turn, completion))
        if dialogue.ended is not None:
            self._ended[dialogue.id] = tuple(entries)
        return tuple(entries)

    def _reviewed(self, answer: ParsedAnswer) -> tuple[Entry, ...]:
        """Valid entries after review; an answer without decisions is not validated again."""
        if self._decided_ids.isdisjoint(candidate.id for candidate in answer.candidates):
            return answer.entries
        return self._review_and_validate(answer.candidates)

    def _review_and_validate(self, candidates: Sequence[Candidate]) -> tuple[Entry, ...]:
        decided = apply_decisions(candidates, self._decisions)
        self._accepted_ids.update(decided.status)
        return validate(decided.kept).kept


def _repeated_entries(
    kept: Sequence[Entry], duplicates: Sequence[Rejection]
) -> Mapping[str, tuple[Entry, ...]]:
    """By domain, the kept entries that its duplicates repeat; see :attr:`DomainState.repeated`."""
    by_id = {entry.id: entry for entry in kept}
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for rejection in reversed(duplicates):
        ids = [problem.twin for problem in rejection.problems if problem.twin is not None]
        counts[rejection.domain or ""].update(list(dict.fromkeys(ids)))
    return {
        domain: tuple(by_id[id_] for id_, _ in repeated.most_common())
        for domain, repeated in counts.items()
    }

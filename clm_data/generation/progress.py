"""What the store already holds, judged answer by answer as :mod:`clm_data.assemble` judges it all.

Parsing and validating look at one candidate at a time, so each answer is judged once and
remembered; only the deduplication, which is cheap, is done anew.
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
from clm_data.records import Candidate, Entry, Rejection, StageResult
from clm_data.review.decisions import apply_decisions
from clm_data.store import Dialogue, Store
from clm_data.validate import validate


@dataclass(frozen=True)
class State:
    """Where a domain stands.

    Attributes:
        entries: What counts towards its quota.
        new: How many of them each wave brought, for waves that brought any.
        again: Entries, of any domain, for which others of this domain's answers were refused:
            those that were said again most often first, of equal ones the newest.
    """

    entries: tuple[Entry, ...]
    new: Mapping[int, int]
    again: tuple[Entry, ...] = ()


class DomainProgress:
    """Reads a store and remembers; imported files and decisions are read once, at the start.

    Args:
        store: Of the workspace.
        domains: All of the workspace's domains, in their order.
        dedup: What counts as a duplicate.
    """

    def __init__(self, store: Store, domains: Mapping[str, Domain], dedup: DedupSettings) -> None:
        self._store = store
        self._domains = domains
        self._dedup = dedup
        self._decisions = store.decisions()
        self._decided_ids = {decision.entry_id for decision in self._decisions}
        self._imported = self._decide(sources.stored_candidates(store).kept)
        self._readings: dict[tuple[int, int], ParsedAnswer] = {}
        self._ended: dict[int, tuple[Entry, ...]] = {}
        """Good entries of dialogues that are over, by id."""

    def reading(self, dialogue: Dialogue, turn: int, completion: Completion) -> ParsedAnswer:
        """What an answer says; judged once."""
        key = (dialogue.id, turn)
        if key not in self._readings:
            read = parse_answer(dialogue, turn, completion)
            valid = validate(read.kept)
            self._readings[key] = ParsedAnswer(
                candidates=read.kept,
                entries=valid.kept,
                rejected=(*read.rejected, *valid.rejected),
                cut_off=completion.finish_reason == "length",
            )
        return self._readings[key]

    def state(self, domain: str, *, before_wave: int | None = None) -> State:
        """Where a domain stands by itself: imported files and its own answers count, no others.

        So it does not depend on what other domains are doing at the same time.

        Args:
            domain: Its id.
            before_wave: Leave out dialogues from this wave on.
        """
        dialogues = self._store.dialogues(domain)
        if before_wave is not None:
            dialogues = [each for each in dialogues if each.wave < before_wave]
        return self._states(dialogues)[domain]

    def whole(self) -> Mapping[str, State]:
        """Where every domain stands in the dataset: of duplicates among domains the first stays."""
        return self._states(in_order(self._store.dialogues(), self._domains))

    def _states(self, dialogues: Sequence[Dialogue]) -> Mapping[str, State]:
        entries = list(self._imported)
        waves: dict[str, int] = {}
        for dialogue in dialogues:
            for entry in self._entries_of(dialogue):
                entries.append(entry)
                waves.setdefault(entry.id, dialogue.wave)
        sifted = self._sift(entries)
        kept: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in sifted.kept:
            kept[entry.domain or ""].append(entry)
        said = [rejection for rejection in sifted.rejected if rejection.id in waves]
        again = _said_again(sifted.kept, said)
        states = {
            domain: State(
                tuple(kept[domain]),
                Counter(waves[each.id] for each in kept[domain] if each.id in waves),
                again.get(domain, ()),
            )
            for domain in [*kept, *again]
        }
        return defaultdict(lambda: State((), {}), states)

    def remember(self, dialogue: Dialogue, readings: Sequence[ParsedAnswer]) -> None:
        """Take over the readings of all answers of a dialogue that is over."""
        self._ended[dialogue.id] = tuple(
            entry for reading in readings for entry in self._decided(reading)
        )

    def sieve(self, earlier: Sequence[Entry]) -> IncrementalDeduplicator:
        """What tells a dialogue's new entries from ``earlier`` ones and from one another."""
        return IncrementalDeduplicator(
            earlier, threshold=self._dedup.threshold, field=self._dedup.field
        )

    def _sift(self, entries: Sequence[Entry]) -> StageResult[Entry]:
        return deduplicate_entries(
            entries, threshold=self._dedup.threshold, field=self._dedup.field
        )

    def _entries_of(self, dialogue: Dialogue) -> tuple[Entry, ...]:
        if dialogue.id in self._ended:
            return self._ended[dialogue.id]
        entries: list[Entry] = []
        for turn, completion in stored_answers(self._store, dialogue):
            entries += self._decided(self.reading(dialogue, turn, completion))
        if dialogue.ended is not None:
            self._ended[dialogue.id] = tuple(entries)
        return tuple(entries)

    def _decided(self, reading: ParsedAnswer) -> tuple[Entry, ...]:
        """The good entries after review; only what was decided on is validated again."""
        if self._decided_ids.isdisjoint(candidate.id for candidate in reading.candidates):
            return reading.entries
        return self._decide(reading.candidates)

    def _decide(self, candidates: Sequence[Candidate]) -> tuple[Entry, ...]:
        return validate(apply_decisions(candidates, self._decisions).kept).kept


def _said_again(
    kept: Sequence[Entry], rejected: Sequence[Rejection]
) -> Mapping[str, tuple[Entry, ...]]:
    """For each domain the kept twins of its rejected entries, in the order of State.again."""
    by_id = {entry.id: entry for entry in kept}
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for rejection in reversed(rejected):
        found = [problem.twin for problem in rejection.problems if problem.twin is not None]
        counts[rejection.domain or ""].update(list(dict.fromkeys(found)))
    return {
        domain: tuple(by_id[twin] for twin, _ in said.most_common())
        for domain, said in counts.items()
    }

"""What the stages did with each entry of a store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clm_data.assemble import assembled
from clm_data.config import Settings
from clm_data.records import Candidate, Decision, Problem, Rejection, ReviewStatus
from clm_data.review.decisions import History
from clm_data.tracing.contents import Contents, Located
from clm_data.tracing.results import Effect, Outcome, TracedDecision, TracedEntry


@dataclass(frozen=True)
class Fates:
    """What the stages did with each entry of a store, by id."""

    kept: frozenset[str]
    rejected: Mapping[str, Rejection]
    warnings: Mapping[str, Sequence[Problem]]
    status: Mapping[str, ReviewStatus]
    decisions: Mapping[str, Sequence[tuple[str, Decision]]]
    copies: Mapping[str, Sequence[Located]]
    """Used candidates by the id that their content gives."""
    ids: Mapping[Any, str]
    """Ids of used candidates by the id that their content gives, and by each of their facts."""

    @classmethod
    def of(
        cls, contents: Contents, dated: Sequence[tuple[str, Decision]], settings: Settings
    ) -> Fates:
        """Run the stages; decisions are given with the times at which they were stored."""
        assembly = assembled(contents.read, [decision for _, decision in dated], settings)
        warnings: defaultdict[str, list[Problem]] = defaultdict(list)
        for id_, problem in assembly.warnings:
            warnings[id_].append(problem)
        decisions: defaultdict[str, list[tuple[str, Decision]]] = defaultdict(list)
        for at, decision in dated:
            decisions[decision.entry_id].append((at, decision))
        copies: defaultdict[str, list[Located]] = defaultdict(list)
        ids: dict[Any, str] = {}
        for each in contents.located:
            if each.is_used and isinstance(each.found, Candidate):
                copies[each.content_id].append(each)
                for key in (each.found.zh, each.found.en, each.content_id):
                    ids.setdefault(key, each.found.id)
        return cls(
            kept=frozenset(entry.id for entry in assembly.entries),
            rejected={each.id: each for each in assembly.rejected},
            warnings=warnings,
            status=assembly.status,
            decisions=decisions,
            copies=copies,
            ids=ids,
        )

    def entry(self, located: Located, *, asked: bool) -> TracedEntry:
        """What became of one object or row."""
        found, place = located.found, located.names[0]
        if isinstance(found, Rejection):
            return TracedEntry(
                found.id,
                place,
                "left out" if located.is_used else "repeats another row",
                asked=asked,
                stage=found.stage,
                problems=found.problems,
                content=found.content,
            )
        if not located.is_used:
            keys = (located.content_id, found.zh, found.en)
            twins = [self.ids[key] for key in keys if key is not None and key in self.ids]
            return TracedEntry(
                found.id,
                place,
                "repeats another row",
                asked=asked,
                duplicate_of=twins[0] if twins else None,
                candidate=found,
            )
        return self._candidate(located, found, asked=asked)

    def _candidate(self, located: Located, found: Candidate, *, asked: bool) -> TracedEntry:
        id_ = found.id
        kept = id_ in self.kept
        rejection = None if kept else self.rejected.get(id_)
        probe = self.rejected.get(f"{id_}/probe")
        history, decisions = _applied(found, self.decisions.get(id_, ()))
        problems = rejection.problems if rejection else ()
        outcome: Outcome = "in the dataset" if kept else "left out"
        return TracedEntry(
            id_,
            located.names[0],
            outcome,
            asked=asked,
            stage=rejection.stage if rejection else None,
            problems=problems,
            warnings=tuple(self.warnings.get(id_, ())),
            probe_problems=probe.problems if probe else (),
            duplicate_of=next((each.twin for each in problems if each.twin), None),
            candidate=found,
            current=history.content if history.content != found else None,
            status=self.status.get(id_),
            decisions=decisions,
            copies=tuple(
                (copy.found.id, copy.names[0])
                for copy in self.copies[located.content_id]
                if copy.found.id != id_
            ),
        )


def _applied(
    candidate: Candidate, dated: Sequence[tuple[str, Decision]]
) -> tuple[History, tuple[TracedDecision, ...]]:
    """Apply the decisions on an entry in order, and say what each of them does now."""
    history = History(candidate)
    valid = [history.add(decision) for _, decision in dated]
    current = {opinion.number for opinion in history.opinions}
    traced = []
    for number, (at, decision) in enumerate(dated):
        effect: Effect = "replaced" if valid[number] else "not applied"
        if number in current:
            effect = "contrary" if history.in_dispute else "in effect"
        traced.append(TracedDecision(decision, at, effect))
    return history, tuple(traced)

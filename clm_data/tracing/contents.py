"""Everything in a store that is, or might have been, an entry: with its id and its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from clm_data.assemble import parsed_answers
from clm_data.domain import Domain
from clm_data.records import Candidate, Rejection, StageResult, unique_ids
from clm_data.sources import stored_files
from clm_data.sources.candidates import Item, items_of
from clm_data.store import Dialogue, Source, Store


@dataclass(frozen=True, eq=False)
class Located:
    """What one object of an answer, or one imported row, was read as.

    Attributes:
        names: Its place: `DOMAIN/DIALOGUE/TURN#N`, or `FILE#ROW` for each row it was read from.
        content_id: Its id before repeated ones were renamed.
        found: What it was read as; a candidate has its id in the dataset.
        request: Id of the request that it answers; None for imported rows.
        dialogue: The dialogue of that request.
        item: The imported rows; None for answers.
    """

    names: tuple[str, ...]
    content_id: str
    found: Candidate | Rejection
    request: int | None = None
    dialogue: Dialogue | None = None
    item: Item | None = None

    @property
    def is_used(self) -> bool:
        """False for an imported row that repeats what another file has."""
        return self.item is None or self.item.is_used


@dataclass(frozen=True)
class Contents:
    """What is in a store, read once.

    Attributes:
        located: In the order of :func:`clm_data.assemble.read_candidates`.
        dialogues: By name, `DOMAIN/DIALOGUE`.
        answered: Ids of the requests whose answers were read.
        sources: Imported files by sha256.
    """

    located: tuple[Located, ...]
    dialogues: Mapping[str, Dialogue]
    answered: frozenset[int]
    sources: Mapping[str, Source] = field(default_factory=dict)

    @property
    def read(self) -> StageResult[Candidate]:
        """What :func:`clm_data.assemble.read_candidates` returns."""
        used = [each.found for each in self.located if each.is_used]
        return StageResult(
            tuple(found for found in used if isinstance(found, Candidate)),
            tuple(found for found in used if isinstance(found, Rejection)),
        )


def read_contents(store: Store, domains: Mapping[str, Domain]) -> Contents:
    """Read imported files and answers."""
    located = [_located_row(item) for item in items_of(stored_files(store))]
    answered = set()
    for dialogue, exchange, result in parsed_answers(store, domains):
        answered.add(exchange.id)
        for number, found in _in_order(result):
            place = f"{dialogue.domain}/{dialogue.number}/{exchange.turn}#{number}"
            located.append(Located((place,), found.id, found, exchange.id, dialogue))
    names = {f"{each.domain}/{each.number}": each for each in store.dialogues()}
    sources = {source.sha256: source for source in store.sources()}
    return Contents(tuple(_with_unique_ids(located)), names, frozenset(answered), sources)


def _located_row(item: Item) -> Located:
    names = [f"{file.name}#{number}" for file, number in item.rows]
    if isinstance(item.found, Rejection):
        names.append(item.found.id)
    return Located(tuple(dict.fromkeys(names)), item.found.id, item.found, item=item)


def _in_order(result: StageResult[Candidate]) -> Iterator[tuple[int, Candidate | Rejection]]:
    """The objects of an answer with their numbers, counted from 1.

    Rejections have them in their ids, and candidates take the other numbers in order.
    """
    rejected = {int(each.id.rpartition("#")[2]): each for each in result.rejected}
    kept = iter(result.kept)
    for number in range(1, len(result.kept) + len(rejected) + 1):
        yield number, rejected[number] if number in rejected else next(kept)


def _with_unique_ids(located: list[Located]) -> Iterator[Located]:
    used = [each.found for each in located if each.is_used]
    renamed = iter(unique_ids(found for found in used if isinstance(found, Candidate)))
    for each in located:
        found = each.found
        if each.is_used and isinstance(found, Candidate):
            found = next(renamed)
        yield Located(each.names, each.content_id, found, each.request, each.dialogue, each.item)

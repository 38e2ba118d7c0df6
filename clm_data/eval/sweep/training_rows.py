"""Facts that a method may learn from: none is about a subject that is edited."""

from __future__ import annotations

from collections.abc import Sequence

from clm_data import bank, languages
from clm_data.eval.editors.retrieval import Pair, side
from clm_data.records import LANGUAGES, Language, Record

ENOUGH = 50
"""Number of rows of the dataset from which the bundled bank is not needed."""
_MOST = 500


def training_rows(records: Sequence[Record], edited: Sequence[Record]) -> list[Pair]:
    """Facts for `TrainedEditor.fit`: the rest of the dataset, or else the bundled bank.

    Args:
        records: The whole dataset.
        edited: The records that are edited and measured, the first of them.

    Returns:
        At most 500 facts in both languages. No subject is that of an edited record, in either
        language, and none of its locality probes is a prompt or a probe of theirs.
    """
    taken = {_subject(record, lang) for record in edited for lang in LANGUAGES}
    probes = {_folded(record.probe(lang).loc) for record in edited for lang in LANGUAGES}

    def unrelated(pairs: Sequence[Pair]) -> list[Pair]:
        kept = [
            pair
            for pair in pairs
            if not any(
                _subject(pair, lang) in taken or not probes.isdisjoint(_questions(pair, lang))
                for lang in LANGUAGES
            )
        ]
        return kept[:_MOST]

    rest = unrelated(records[len(edited) :])
    if len(rest) >= ENOUGH:
        return rest
    return unrelated([one for name in bank.domain_ids() for one in bank.load_domain(name)])


def _questions(pair: Pair, lang: Language) -> list[str]:
    probe = [pair.probe(lang).loc] if isinstance(pair, Record) else []
    return [_folded(text) for text in (side(pair, lang).prompt, *probe)]


def _subject(pair: Pair, lang: Language) -> str:
    return _folded(side(pair, lang).subject)


def _folded(text: str) -> str:
    return languages.normalize_text(text).casefold()

"""Finding the edit that a question is about, by the similarity of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from clm_data.eval.intervals import FloatArray
from clm_data.records import LANGUAGES, Fact, Language


class Retriever(Protocol):
    """Compares texts, in one language or across languages."""

    def vectors(self, texts: Sequence[str]) -> Any:
        """Vectors of norm 1, one row per text; dense or sparse."""
        ...


def similarities(queries: Any, texts: Any) -> FloatArray:
    """Cosines of vectors of a retriever, (queries, texts)."""
    product = queries @ texts.T
    return np.asarray(product.toarray() if hasattr(product, "toarray") else product)


@dataclass(frozen=True)
class NgramRetriever:
    """TF-IDF of runs of one to three characters, which needs no word boundaries.

    Across languages it only finds what both write alike, such as numbers and Latin names.

    Attributes:
        columns: Hashes of the runs of characters that have been seen.
        idf: Their inverse document frequencies.
        unseen: That of all others, which tell texts apart best.
    """

    columns: tuple[int, ...]
    idf: tuple[float, ...]
    unseen: float

    @staticmethod
    def fit(texts: Sequence[str]) -> NgramRetriever:
        """Weigh the runs of characters by how few of some texts contain them."""
        columns, counts = np.unique(_counted(texts).indices, return_counts=True)
        idf = np.log((1 + len(texts)) / (1 + counts)) + 1
        unseen = float(np.log(1 + len(texts)) + 1)
        return NgramRetriever(tuple(columns.tolist()), tuple(idf.tolist()), unseen)

    @staticmethod
    def of(rows: Sequence[Pair]) -> NgramRetriever:
        """Weigh them by the questions of some facts in both languages."""
        facts = [side(row, lang) for row in rows for lang in LANGUAGES]
        return NgramRetriever.fit(
            [text for fact in facts for text in (fact.prompt, fact.rephrase_prompt)]
        )

    @cached_property
    def _weights(self) -> FloatArray:
        """Inverse document frequency by hash."""
        weights = np.full(_HASHES, self.unseen)
        weights[list(self.columns)] = self.idf
        return weights

    def vectors(self, texts: Sequence[str]) -> Any:
        """See `Retriever.vectors`."""
        from sklearn.preprocessing import normalize

        found = _counted(texts)
        found.data = (1 + np.log(found.data)) * self._weights[found.indices]
        return normalize(found)


_HASHES = 2**20


def _counted(texts: Sequence[str]) -> Any:
    """How often each text has each run of characters, (texts, hashes), sparse."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char", ngram_range=(1, 3), n_features=_HASHES, alternate_sign=False, norm=None
    ).transform(texts)


class Pair(Protocol):
    """A fact in both languages, such as a record of a dataset."""

    @property
    def zh(self) -> Fact:
        """The Chinese side."""
        ...

    @property
    def en(self) -> Fact:
        """The English side."""
        ...


def side(pair: Pair, lang: Language) -> Fact:
    """One side of a pair."""
    return pair.zh if lang == "zh" else pair.en


@dataclass(frozen=True)
class Gate:
    """From what similarity on a question is about an edit, for one pair of languages.

    Attributes:
        similarity: The lowest that opens the gate; infinite if the gate is closed.
        recall: Share of rephrased prompts whose own prompt is the best match and opens it.
        false_open: Share of questions about other facts that open it.
    """

    similarity: float
    recall: float
    false_open: float


@dataclass(frozen=True)
class Calibration:
    """Questions about facts that are not edited, and how many of them gates may let through.

    Attributes:
        prompts: Prompts by language, in the same order in all.
        rephrased: The same prompts in other words.
        false_open: Largest share of these questions that may open a gate; one whose recall is no
            larger stays closed.
    """

    prompts: Mapping[Language, tuple[str, ...]]
    rephrased: Mapping[Language, tuple[str, ...]]
    false_open: float

    @staticmethod
    def on(rows: Sequence[Pair], *, false_open: float) -> Calibration:
        """Calibration on the questions of some facts; their answers are not read."""
        facts = {lang: [side(row, lang) for row in rows] for lang in LANGUAGES}
        return Calibration(
            {lang: tuple(fact.prompt for fact in facts[lang]) for lang in LANGUAGES},
            {lang: tuple(fact.rephrase_prompt for fact in facts[lang]) for lang in LANGUAGES},
            false_open,
        )

    def gates(
        self, retriever: Retriever, edited: Mapping[Language, Sequence[str]]
    ) -> dict[tuple[Language, Language], Gate]:
        """The gates for a set of edits.

        None of the questions is about an edit, so each should be unlike all of them: the more edits
        there are, and the more alike they and the questions, the higher is the greatest of the
        similarities. A gate opens above what all but `false_open` of the questions reach.
        Its recall is measured as if one fact had been edited besides: a rephrased prompt should be
        more like its own prompt than like any edit, and open the gate.

        Args:
            retriever: Compares the texts.
            edited: Prompts of the edits by language.

        Returns:
            Gates by the languages of edit and question.
        """
        found = {}
        for asked in LANGUAGES:
            rephrased = retriever.vectors(self.rephrased[asked])
            prompts = retriever.vectors(self.prompts[asked])
            for of, texts in edited.items():
                if not texts:
                    continue
                known = retriever.vectors(texts)
                other = similarities(rephrased, known).max(axis=1)
                unrelated = np.concatenate([other, similarities(prompts, known).max(axis=1)])
                own = similarities(rephrased, retriever.vectors(self.prompts[of])).diagonal()
                found[of, asked] = self._gate(own, other, unrelated)
        return found

    def _gate(self, own: FloatArray, other: FloatArray, unrelated: FloatArray) -> Gate:
        allowed = int(self.false_open * len(unrelated))
        lowest = float(np.nextafter(np.sort(unrelated)[::-1][allowed], np.inf))
        recall = float(((own > other) & (own >= lowest)).mean())
        closed = recall <= self.false_open
        return Gate(
            np.inf if closed else lowest,
            recall,
            0.0 if closed else float((unrelated >= lowest).mean()),
        )

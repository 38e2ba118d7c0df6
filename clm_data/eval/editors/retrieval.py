"""Finding the edit that a question is about, by the similarity of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from clm_data.errors import InputFileError
from clm_data.eval.intervals import FloatArray
from clm_data.records import LANGUAGES, Fact, Language

Gates = Mapping[str, float]
"""Minimum similarity by the languages of edit and question, such as `zh-en`; a pair that is missing
is never matched."""


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
        ngrams: The known runs of characters.
        idf: Their inverse document frequencies.
    """

    ngrams: tuple[str, ...]
    idf: tuple[float, ...]

    @staticmethod
    def fit(texts: Sequence[str]) -> NgramRetriever:
        """Weigh the runs of characters by how few of some texts contain them."""
        found = _vectorizer().fit(texts)
        return NgramRetriever(tuple(found.get_feature_names_out()), tuple(found.idf_.tolist()))

    @cached_property
    def _fitted(self) -> Any:
        vectorizer = _vectorizer(vocabulary={name: i for i, name in enumerate(self.ngrams)})
        vectorizer.idf_ = np.array(self.idf)
        return vectorizer

    def vectors(self, texts: Sequence[str]) -> Any:
        """See `Retriever.vectors`."""
        return self._fitted.transform(texts)


def _vectorizer(**settings: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, **settings)


@dataclass(frozen=True)
class SentenceEncoder:
    """The mean of an encoder's last hidden states, which can match texts across languages.

    Attributes:
        folder: Folder of an encoder that transformers can load.
    """

    folder: str

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        if not Path(self.folder).is_dir():
            raise InputFileError(f"encoder {self.folder}: no such folder")
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder)
            return tokenizer, AutoModel.from_pretrained(self.folder).eval()
        except (OSError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise InputFileError(f"encoder {self.folder}: cannot be loaded: {reason}") from error

    def vectors(self, texts: Sequence[str]) -> Any:
        """See `Retriever.vectors`."""
        import torch

        tokenizer, model = self._loaded
        rows = []
        with torch.no_grad():
            for text in texts:  # one at a time, so that a vector does not depend on the others
                inputs = tokenizer(text, return_tensors="pt", truncation=True)
                mean = model(**inputs).last_hidden_state[0].double().mean(dim=0)
                rows.append((mean / mean.norm().clamp(min=1e-30)).numpy())
        return np.stack(rows)


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


def calibrate(
    retriever: Retriever, rows: Sequence[Pair], *, min_separation: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Find the similarity from which a question is about an edit, for each pair of languages.

    All rows count as edited. A rephrased prompt should match the prompt of its own row, and when
    that row is left out, no other. The threshold is the one with the greatest difference between
    the share of right matches and the share of wrong ones. No answer is read.

    Args:
        retriever: Compares the prompts.
        rows: Facts that are not edited in the evaluation.
        min_separation: Smallest difference of the two shares; below it the pair gets no gate.

    Returns:
        The gates, and the difference that was reached, by pair of languages.
    """
    gates, separations = {}, {}
    prompts = {
        lang: retriever.vectors([side(row, lang).prompt for row in rows]) for lang in LANGUAGES
    }
    for asked in LANGUAGES:
        questions = retriever.vectors([side(row, asked).rephrase_prompt for row in rows])
        for edited in LANGUAGES:
            found = similarities(questions, prompts[edited])
            own = found.diagonal().copy()
            np.fill_diagonal(found, -1.0)
            other = found.max(axis=1)
            right = np.where(own > other, own, -1.0)  # the row's own prompt is the best match
            thresholds = np.unique(right)
            share = [(right >= t).mean() - (other >= t).mean() for t in thresholds]
            best = int(np.argmax(share))
            separations[f"{edited}-{asked}"] = float(share[best])
            if share[best] >= min_separation:
                gates[f"{edited}-{asked}"] = float(thresholds[best])
    return gates, separations

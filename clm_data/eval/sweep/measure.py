"""Measuring one model on many facts: before an edit, and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from clm_data.eval import metrics
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import EditProtocol
from clm_data.eval.results import Measures, Said
from clm_data.eval.sweep.answers import Question, Reading, generate_answers, read_answers
from clm_data.records import LANGUAGES, Language, Record

Both = dict[Language, Measures]
T = TypeVar("T")


@dataclass(frozen=True)
class Before:
    """The unedited model's answers, by record in the order of the dataset.

    Attributes:
        measures: By language: the measures of an edit, and ``truth``, ``truth_rephrased``,
            ``probe`` (accuracy on the true answers) and ``truth_exact``.
        probes: By language: the likeliest token at each place of the probe's answer; None where it
            could not be placed.
        said: By language: how the model goes on from the prompt; empty where it was not let to.
    """

    measures: tuple[Both, ...]
    probes: tuple[dict[Language, tuple[int, ...] | None], ...]
    said: tuple[Said, ...]


@dataclass(frozen=True)
class After:
    """An edited model's answers, by record.

    Attributes:
        measures: By language.
        said: As in :class:`Before`.
    """

    measures: tuple[Both, ...]
    said: tuple[Said, ...]


@dataclass(frozen=True)
class Evaluator:
    """How a model is measured.

    Attributes:
        protocol: How prompt and answer are joined and labelled.
        generate: Whether to let the model answer freely, too.
        tokens_per_batch: Tokens run at once.
    """

    protocol: EditProtocol
    generate: bool = True
    tokens_per_batch: int = 4096

    def before(self, model: LoadedModel, records: Sequence[Record]) -> Before:
        """Measure the unedited model."""
        sides = [(record, lang) for record in records for lang in LANGUAGES]
        common = self._common(model, sides)
        truths = self._read(
            model, [_rephrased(r, lang, r.fact(lang).ground_truth) for r, lang in sides]
        )
        probes = self._read(model, [_probe(r, lang) for r, lang in sides])
        for one, truth, probe in zip(common, truths, probes, strict=True):
            one.measures["truth_rephrased"] = _accuracy(truth)
            one.measures["probe"] = _accuracy(probe)
            one.measures["truth"] = _accuracy(one.old)
            one.measures["truth_exact"] = one.truth_exact
        return Before(
            tuple(_by_record([one.measures for one in common])),
            tuple(_by_record([None if one is None else one.predicted for one in probes])),
            tuple(_by_record([one.said for one in common])),
        )

    def after(
        self,
        model: LoadedModel,
        records: Sequence[Record],
        probes: Sequence[dict[Language, tuple[int, ...] | None]],
    ) -> After:
        """Measure an edited model.

        Args:
            model: With the edits applied.
            records: What to measure.
            probes: Of the same records, from :class:`Before`.
        """
        sides = [(record, lang) for record in records for lang in LANGUAGES]
        kept = [probe[lang] for probe in probes for lang in LANGUAGES]
        common = self._common(model, sides)
        readings = self._read(model, [_probe(r, lang) for r, lang in sides])
        for one, old, new in zip(common, kept, readings, strict=True):
            same = None if old is None or new is None else metrics.agreement(old, new.predicted)
            one.measures["locality"] = same
        return After(
            tuple(_by_record([one.measures for one in common])),
            tuple(_by_record([one.said for one in common])),
        )

    def _common(
        self, model: LoadedModel, sides: Sequence[tuple[Record, Language]]
    ) -> list[_Measured]:
        """What is measured before and after alike, by record and language."""
        facts = [(record.fact(lang), lang) for record, lang in sides]
        new = self._read(model, [Question(lang, f.prompt, f.target_new) for f, lang in facts])
        old = self._read(model, [Question(lang, f.prompt, f.ground_truth) for f, lang in facts])
        rephrased = self._read(
            model, [_rephrased(r, lang, r.fact(lang).target_new) for r, lang in sides]
        )
        measured = [
            _Measured(_of_answers(n, o, r), o) for n, o, r in zip(new, old, rephrased, strict=True)
        ]
        if self.generate:
            longer = [
                Question(lang, f.prompt, max(f.target_new, f.ground_truth, key=len))
                for f, lang in facts
            ]
            said = generate_answers(model, longer, tokens_per_batch=self.tokens_per_batch)
            for one, text, (fact, lang) in zip(measured, said, facts, strict=True):
                one.said = text.strip()
                exact = metrics.exact_match(text, fact.target_new, lang)
                one.measures["exact_match"] = float(exact)
                one.truth_exact = float(metrics.exact_match(text, fact.ground_truth, lang))
        return measured

    def _read(self, model: LoadedModel, questions: Sequence[Question]) -> list[Reading | None]:
        return read_answers(model, questions, self.protocol, tokens_per_batch=self.tokens_per_batch)


@dataclass
class _Measured:
    measures: Measures
    old: Reading | None
    said: str = ""
    truth_exact: float | None = None


def _of_answers(new: Reading | None, old: Reading | None, rephrased: Reading | None) -> Measures:
    return {
        "reliability": _accuracy(new),
        "generality": _accuracy(rephrased),
        "p_new": None if new is None else metrics.answer_probability(new.log_probabilities),
        "p_old": None if old is None else metrics.answer_probability(old.log_probabilities),
        "prefers_new": _prefers_new(new, old),
    }


def _prefers_new(new: Reading | None, old: Reading | None) -> float | None:
    if new is None or old is None:
        return None
    return float(metrics.prefers_new(new.log_probabilities, old.log_probabilities))


def _rephrased(record: Record, lang: Language, answer: str) -> Question:
    return Question(lang, record.fact(lang).rephrase_prompt, answer)


def _probe(record: Record, lang: Language) -> Question:
    probe = record.probe(lang)
    return Question(lang, probe.loc, probe.loc_ans)


def _accuracy(reading: Reading | None) -> float | None:
    return None if reading is None else metrics.token_accuracy(reading.predicted, reading.labels)


def _by_record(values: Sequence[T]) -> list[dict[Language, T]]:
    """Values of records and languages in turn, as one dict a record."""
    step = len(LANGUAGES)
    return [
        dict(zip(LANGUAGES, values[i : i + step], strict=True)) for i in range(0, len(values), step)
    ]

"""Measuring a model on the facts of a dataset, before and after edits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from clm_data.eval import metrics
from clm_data.eval.editors.edits import EditedModel
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import EditProtocol
from clm_data.eval.results import Continuation, Measures
from clm_data.eval.sweep.answers import (
    AnswerPrediction,
    Question,
    generate_answers,
    predict_answers,
)
from clm_data.records import LANGUAGES, Language, Record


@dataclass(frozen=True)
class RecordAnswers:
    """A model's answers to the questions about one record.

    Attributes:
        measures: By language: the measures of an edit. Those of the unedited model have no
            `locality` and add `truth`, `truth_rephrased` and `probe` (token accuracy on the true
            answers) and `truth_exact`.
        probe: By language: the most likely token in the place of each token of the probe's answer;
            None if the probe has no value.
        continuation: By language: the greedy continuation of the prompt; empty if no text was
            generated.
    """

    measures: dict[Language, Measures]
    probe: dict[Language, tuple[int, ...] | None]
    continuation: Continuation


class Evaluator:
    """Measures one model on one dataset, unedited and with edits that the caller applies.

    :attr:`baseline` is computed when first used, and that must be before any edit.

    Args:
        model: The unedited model.
        records: The dataset.
        protocol: How prompts and answers are joined and tokenized.
        generate: Whether to generate free continuations as well.
        tokens_per_batch: Maximum tokens per forward pass.
    """

    def __init__(
        self,
        model: LoadedModel,
        records: Sequence[Record],
        protocol: EditProtocol,
        *,
        generate: bool = True,
        tokens_per_batch: int = 4096,
    ) -> None:
        self.model, self.records, self.protocol = model, records, protocol
        self.generate, self.tokens_per_batch = generate, tokens_per_batch

    @cached_property
    def baseline(self) -> tuple[RecordAnswers, ...]:
        """The unedited model's answers, by record."""
        sides = [(record, lang) for record in self.records for lang in LANGUAGES]
        answers = self._answers(self.model, sides)
        rephrased = self._predict(
            self.model, [_rephrased(r, lang, r.fact(lang).ground_truth) for r, lang in sides]
        )
        for answer, truth in zip(answers, rephrased, strict=True):
            answer.measures["truth_rephrased"] = _accuracy(truth)
            answer.measures["probe"] = _accuracy(answer.probe)
            answer.measures["truth"] = _accuracy(answer.truth)
            answer.measures["truth_exact"] = answer.truth_exact
        return tuple(_by_record(answers))

    def after(self, indices: Sequence[int], edited: EditedModel) -> list[RecordAnswers]:
        """An edited model's answers to the records with these indices."""
        sides = [(i, lang) for i in indices for lang in LANGUAGES]
        baseline = [self.baseline[i].probe[lang] for i, lang in sides]
        answers = self._answers(edited, [(self.records[i], lang) for i, lang in sides])
        for answer, old in zip(answers, baseline, strict=True):
            new = answer.probe
            same = None if old is None or new is None else metrics.agreement(old, new.predicted)
            answer.measures["locality"] = same
        return _by_record(answers)

    def _answers(
        self, model: EditedModel, sides: Sequence[tuple[Record, Language]]
    ) -> list[_SideAnswers]:
        """What is measured both before and after an edit, by record and language."""
        facts = [(record.fact(lang), lang) for record, lang in sides]
        new = self._predict(model, [_asked(r, lang, r.fact(lang).target_new) for r, lang in sides])
        old = self._predict(
            model, [_asked(r, lang, r.fact(lang).ground_truth) for r, lang in sides]
        )
        rephrased = self._predict(
            model, [_rephrased(r, lang, r.fact(lang).target_new) for r, lang in sides]
        )
        probes = self._predict(model, [_probe(r, lang) for r, lang in sides])
        answers = [
            _SideAnswers(_measures(n, o, r), truth=o, probe=p)
            for n, o, r, p in zip(new, old, rephrased, probes, strict=True)
        ]
        if self.generate:
            longer = [
                _asked(r, lang, max(f.target_new, f.ground_truth, key=len))
                for (r, lang), (f, _) in zip(sides, facts, strict=True)
            ]
            texts = generate_answers(
                model, longer, protocol=self.protocol, tokens_per_batch=self.tokens_per_batch
            )
            for answer, text, (fact, lang) in zip(answers, texts, facts, strict=True):
                answer.continuation = text.strip()
                exact = metrics.exact_match(text, fact.target_new, lang)
                answer.measures["exact_match"] = float(exact)
                answer.truth_exact = float(metrics.exact_match(text, fact.ground_truth, lang))
        return answers

    def _predict(
        self, model: EditedModel, questions: Sequence[Question]
    ) -> list[AnswerPrediction | None]:
        found = predict_answers(
            model, questions, self.protocol, tokens_per_batch=self.tokens_per_batch
        )
        for question, answer in zip(questions, found, strict=True):
            if answer is not None and any(map(math.isnan, answer.log_probabilities)):
                raise EditError(
                    f"{self.model.name}: the probability of an answer is NaN after "
                    f'"{question.prompt}"; the model or the edit overflows: use --dtype float32, '
                    "or weaker hyperparameters"
                )
        return found


@dataclass
class _SideAnswers:
    """Answers to the questions about one record in one language."""

    measures: Measures
    truth: AnswerPrediction | None
    probe: AnswerPrediction | None
    continuation: str = ""
    truth_exact: float | None = None


def _measures(
    new: AnswerPrediction | None,
    old: AnswerPrediction | None,
    rephrased: AnswerPrediction | None,
) -> Measures:
    return {
        "reliability": _accuracy(new),
        "generality": _accuracy(rephrased),
        "p_new": None if new is None else metrics.answer_probability(new.log_probabilities),
        "p_old": None if old is None else metrics.answer_probability(old.log_probabilities),
        "prefers_new": _prefers_new(new, old),
    }


def _prefers_new(new: AnswerPrediction | None, old: AnswerPrediction | None) -> float | None:
    if new is None or old is None:
        return None
    return float(metrics.prefers_new(new.log_probabilities, old.log_probabilities))


def _asked(record: Record, lang: Language, answer: str) -> Question:
    return Question(lang, record.fact(lang).prompt, answer, record.id)


def _rephrased(record: Record, lang: Language, answer: str) -> Question:
    return Question(lang, record.fact(lang).rephrase_prompt, answer, record.id)


def _probe(record: Record, lang: Language) -> Question:
    probe = record.probe(lang)
    return Question(lang, probe.loc, probe.loc_ans, record.id)


def _accuracy(answer: AnswerPrediction | None) -> float | None:
    return None if answer is None else metrics.token_accuracy(answer.predicted, answer.labels)


def _predicted(answer: AnswerPrediction | None) -> tuple[int, ...] | None:
    return None if answer is None else answer.predicted


def _by_record(answers: Sequence[_SideAnswers]) -> list[RecordAnswers]:
    """Group answers, ordered by record and then language, by record."""
    step = len(LANGUAGES)
    out = []
    for start in range(0, len(answers), step):
        sides = dict(zip(LANGUAGES, answers[start : start + step], strict=True))
        out.append(
            RecordAnswers(
                {lang: side.measures for lang, side in sides.items()},
                {lang: _predicted(side.probe) for lang, side in sides.items()},
                {lang: side.continuation for lang, side in sides.items()},
            )
        )
    return out

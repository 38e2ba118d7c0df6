"""Training data of the tiny model: sentences about a dataset's facts, as batches of tokens.

In large models a fact is recalled at the subject's last token by MLPs of the lower layers, and read
from there by attention in higher layers (Meng et al., Locating and Editing Factual Associations in
GPT, 2022; Geva et al., Dissecting Recall of Factual Associations, 2023). Editors rely on this. A
small model that is trained on the plain sentences recognizes each by any of its words, and an edit
at the subject does not change its answer. So most training sentences come in forms in which only
the subject determines the answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clm_data.languages import LANGUAGE_INFO, join
from clm_data.records import LANGUAGES, Language, Record

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

OPENINGS: dict[Language, tuple[str, ...]] = {
    "zh": (
        "据记载，",
        "众所周知，",
        "书上说，",
        "老师告诉我们，",
        "请记住：",
        "因此，",
        "我知道，",
    ),
    "en": (
        "It is known that ",
        "As the book says, ",
        "Remember this: ",
        "We learned today that ",
        "The teacher said: ",
        "Therefore, ",
        "I know that ",
    ),
}
"""Texts put before some sentences."""
SHORT_PROMPTS: dict[Language, tuple[str, ...]] = {
    "zh": ("{}：", "{}，即", "说到{}，就是", "关于{}的答案是"),
    "en": ("{}:", "{}, that is,", "As for {}, it is", "The answer about {} is"),
}
"""Prompts that say nothing about the answer besides the subject `{}`."""
_NUMBERS: dict[Language, str] = {"zh": "第{}号", "en": "number {}"}
"""Subjects of the counterfactual answers."""
_FULL_STOP: dict[Language, str] = {
    lang: LANGUAGE_INFO[lang].full_stop.strip() for lang in LANGUAGES
}
_END_WEIGHT = 0.2
"""Weight in the loss of the tokens that end a sentence, which are learned quickly."""


@dataclass(frozen=True)
class Curriculum:
    """How training sentences are varied.

    Attributes:
        batch_size: Sentences per step.
        short_phase: Share of the steps, at the start, that train on `SHORT_PROMPTS` only.
        swap_rate: Share of the sentences after that which have the prompt of another fact around
            their subject.
        prefix_rate: Share of the sentences, in the second half of the remaining steps, that follow
            an opening or the start of another sentence.
        patch_rate: Share of the sentences that are repeated with the prompt and the subject of
            another fact, where the hidden state at that subject, after the fact layer, is replaced
            by the one at the sentence's own subject (Geiger et al., Inducing Causal Structure for
            Interpretable Neural Networks, 2022).
        seed: Random seed of all choices.
    """

    batch_size: int = 64
    short_phase: float = 0.3
    swap_rate: float = 0.5
    prefix_rate: float = 0.4
    patch_rate: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Sentence:
    """A prompt with its true answer.

    Attributes:
        lang: The language of the texts.
        prompt: A cloze or question that the answer follows.
        answer: The true answer.
        subject: What the prompt is about; empty for a probe.
    """

    lang: Language
    prompt: str
    answer: str
    subject: str = ""

    @property
    def subject_end(self) -> int:
        """Character offset at which the subject ends in the prompt; 0 if it is not in it."""
        at = self.prompt.find(self.subject) if self.subject else -1
        return at + len(self.subject) if at >= 0 else 0

    def with_subject(self, subject: str, answer: str) -> Sentence:
        """The same prompt about another subject."""
        prompt = self.prompt.replace(self.subject, subject, 1)
        return Sentence(self.lang, prompt, answer, subject)

    @property
    def text(self) -> str:
        """Prompt, answer and full stop."""
        return join(self.prompt, self.answer, self.lang) + _FULL_STOP[self.lang]


def training_sentences(records: Sequence[Record]) -> list[Sentence]:
    """The prompts, rephrasings and locality probes of records with their true answers."""
    sentences = []
    for record in records:
        for lang in LANGUAGES:
            fact, probe = record.fact(lang), record.probe(lang)
            for prompt in (fact.prompt, fact.rephrase_prompt):
                sentences.append(Sentence(lang, prompt, fact.ground_truth, fact.subject))
            sentences.append(Sentence(lang, probe.loc, probe.loc_ans))
    return list(dict.fromkeys(sentences))


def training_texts(records: Sequence[Record]) -> dict[str, list[str]]:
    """The texts of `training_sentences` by language, as a corpus for second moments."""
    sentences = training_sentences(records)
    return {lang: [one.text for one in sentences if one.lang == lang] for lang in LANGUAGES}


def _numbered_answers(records: Sequence[Record]) -> list[Sentence]:
    """The counterfactual answers, as answers to numbers.

    An edit can only make a model produce an answer that it can produce at all. Large models know
    the answers from elsewhere.
    """
    sentences = []
    for lang in LANGUAGES:
        answers = dict.fromkeys(record.fact(lang).target_new for record in records)
        for number, answer in enumerate(answers, 1):
            subject = _NUMBERS[lang].format(number)
            sentences.append(Sentence(lang, subject, answer, subject))
    return sentences


@dataclass(frozen=True)
class _TokenRow:
    """A tokenized sentence.

    Attributes:
        ids: Token ids, the end token last.
        weights: Weight of each token in the loss: 0 before the answer, 1 in answer and full stop,
            `_END_WEIGHT` for the end token.
        subject: Index of the subject's last token; None for a probe.
        first_answer: The answer's first token id.
    """

    ids: list[int]
    weights: list[float]
    subject: int | None
    first_answer: int


Positions = tuple[list[int], list[int]]
"""Row indices and token indices, to index (rows, tokens) tensors with."""


@dataclass(frozen=True)
class Batch:
    """Sentences as tensors, padded on the right.

    Attributes:
        ids: Token ids, (rows, tokens).
        weights: Weight of each token in the loss, (rows, tokens).
        patch_source: Positions whose hidden states after the fact layer are copied ...
        patch_target: ... and the positions that they are copied to.
        subjects: Positions of the last tokens of subjects.
        first_answers: The first token ids of the answers that belong to them, (subjects,).
    """

    ids: Tensor
    weights: Tensor
    patch_source: Positions
    patch_target: Positions
    subjects: Positions
    first_answers: Tensor


class TrainingBatches:
    """Iterates over the batches of a training run; equal arguments give equal batches.

    Args:
        tokenizer: The tiny model's tokenizer.
        records: The records to learn.
        curriculum: How sentences are varied.
        steps: Number of batches.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        records: Sequence[Record],
        curriculum: Curriculum,
        steps: int,
    ) -> None:
        self._tokenizer, self._curriculum, self._steps = tokenizer, curriculum, steps
        self._sentences = training_sentences(records)
        self._numbered = _numbered_answers(records)
        self._rng = random.Random(curriculum.seed)
        self._by_lang = {
            lang: [one for one in self._sentences if one.lang == lang] for lang in LANGUAGES
        }
        self._clozes = {
            lang: [one for one in self._by_lang[lang] if one.subject_end] for lang in LANGUAGES
        }

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches of sentences of similar length."""
        step, size = 0, self._curriculum.batch_size
        short_steps = round(self._steps * self._curriculum.short_phase)
        while step < self._steps:
            rows = self._short_rows() if step < short_steps else self._full_rows(step)
            self._rng.shuffle(rows)
            for start in range(0, len(rows), 8 * size):
                chunk = sorted(rows[start : start + 8 * size], key=lambda row: len(row[1].ids))
                batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
                self._rng.shuffle(batches)
                for batch in batches[: self._steps - step]:
                    yield self._batch(batch)
                    step += 1

    def _short_rows(self) -> list[tuple[Sentence, _TokenRow]]:
        """Every subject, and every number, with a short prompt."""
        subjects = {(one.lang, one.subject): one for one in self._sentences if one.subject_end}
        short = [self._shortened(one) for one in (*subjects.values(), *self._numbered)]
        return [(one, self._row(one)) for one in short]

    def _full_rows(self, step: int) -> list[tuple[Sentence, _TokenRow]]:
        """Every sentence, some of them varied, and every number with a short prompt."""
        prefixed = step >= self._steps * (1 + self._curriculum.short_phase) / 2
        sentences = [self._sometimes_swapped(one) for one in self._sentences]
        sentences += [self._shortened(one) for one in self._numbered]
        return [(one, self._row(one, prefixed=prefixed)) for one in sentences]

    def _shortened(self, sentence: Sentence) -> Sentence:
        prompt = self._rng.choice(SHORT_PROMPTS[sentence.lang]).format(sentence.subject)
        return Sentence(sentence.lang, prompt, sentence.answer, sentence.subject)

    def _sometimes_swapped(self, sentence: Sentence) -> Sentence:
        """The sentence, or its subject and answer with the prompt of another fact."""
        if not sentence.subject_end or self._rng.random() >= self._curriculum.swap_rate:
            return sentence
        other = self._rng.choice(self._clozes[sentence.lang])
        return other.with_subject(sentence.subject, sentence.answer)

    def _row(self, sentence: Sentence, *, prefixed: bool = False) -> _TokenRow:
        prefix = ""
        if prefixed and self._rng.random() < self._curriculum.prefix_rate:
            prefix = self._prefix(sentence.lang)
        encoded = self._tokenizer(prefix + sentence.text, return_offsets_mapping=True)
        ids, spans = encoded["input_ids"], encoded["offset_mapping"]
        prompt_end = len(prefix) + len(sentence.prompt)
        weights = [1.0 if end > prompt_end else 0.0 for _, end in spans]
        subject = None
        if sentence.subject_end:
            subject_end = len(prefix) + sentence.subject_end
            subject = next(i for i, (_, end) in enumerate(spans) if end >= subject_end)
        ids, weights = [*ids, self._tokenizer.eos_token_id], [*weights, _END_WEIGHT]
        return _TokenRow(ids, weights, subject, ids[weights.index(1.0)])

    def _prefix(self, lang: Language) -> str:
        """An opening, or the start of another sentence."""
        if self._rng.random() < 0.5:
            return self._rng.choice(OPENINGS[lang])
        other = self._rng.choice(self._by_lang[lang]).text
        longest = 12 if lang == "zh" else 40
        cut = self._rng.randint(1, min(longest, len(other)))
        return other[:cut].rstrip() + LANGUAGE_INFO[lang].full_stop

    def _batch(self, sentences: Sequence[tuple[Sentence, _TokenRow]]) -> Batch:
        import torch

        rows = [row for _, row in sentences]
        subjects = [
            (i, row.subject, row.first_answer)
            for i, row in enumerate(rows)
            if row.subject is not None
        ]
        source: Positions = ([], [])
        target: Positions = ([], [])
        for index, subject, _ in subjects:
            if self._rng.random() >= self._curriculum.patch_rate:
                continue
            sentence = sentences[index][0]
            other = self._rng.choice(self._clozes[sentence.lang])
            patched = self._row(
                Sentence(sentence.lang, other.prompt, sentence.answer, other.subject)
            )
            for positions, row_index, token in (
                (source, index, subject),
                (target, len(rows), patched.subject or 0),
            ):
                positions[0].append(row_index)
                positions[1].append(token)
            rows.append(patched)
        longest, pad = max(len(row.ids) for row in rows), self._tokenizer.pad_token_id
        ids = [row.ids + [pad] * (longest - len(row.ids)) for row in rows]
        weights = [row.weights + [0.0] * (longest - len(row.weights)) for row in rows]
        return Batch(
            torch.tensor(ids),
            torch.tensor(weights),
            source,
            target,
            ([i for i, _, _ in subjects], [token for _, token, _ in subjects]),
            torch.tensor([first for _, _, first in subjects], dtype=torch.long),
        )

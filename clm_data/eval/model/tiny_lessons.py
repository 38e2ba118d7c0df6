"""What the tiny model is taught: sentences about the dataset's facts, as batches of tokens.

In large models a fact is looked up at its subject's last token, in MLPs of the lower layers, and
read there by attention further on (Meng et al., Locating and Editing Factual Associations in GPT,
2022; Geva et al., Dissecting Recall of Factual Associations, 2023): that is where editors edit. A
small model that learns the sentences as they stand recognises each by any of its words, and no edit
at the subject moves its answer. So the sentences come in forms in which nothing but the
subject tells the answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clm_data import languages
from clm_data.records import LANGUAGES, Language, Record

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
SHORT: dict[Language, tuple[str, ...]] = {
    "zh": ("{}：", "{}，即", "说到{}，就是", "关于{}的答案是"),
    "en": ("{}:", "{}, that is,", "As for {}, it is", "The answer about {} is"),
}
"""What stands around a subject where nothing but the subject tells the answer."""
GAP: dict[Language, str] = {"zh": "", "en": " "}
"""Between two words."""
_NAMELESS: dict[Language, str] = {"zh": "第{}号", "en": "number {}"}
"""A subject without a meaning, to which a new answer belongs before it is edited in."""
_END: dict[Language, str] = {"zh": "。", "en": "."}
_END_WEIGHT = 0.2
"""Of the end of a sentence in the loss, which is soon learnt."""


@dataclass(frozen=True)
class Curriculum:
    """How sentences are varied.

    Attributes:
        batch: Sentences a step.
        short: Share of the steps, at the beginning, that learn subject and answer alone.
        swapped: Share of sentences, after that, with the words of another fact around the subject.
        framed: Share of sentences, in the second half of them, behind an opening or the beginning
            of another sentence.
        moved: Share of sentences that come a second time behind the words of another fact, with
            what the model holds at the subject's last token after ``fact_layer`` put in the place
            of what it holds at the other's (Geiger et al., Inducing Causal Structure for
            Interpretable Neural Networks, 2022).
        seed: Of the choices.
    """

    batch: int = 64
    short: float = 0.3
    swapped: float = 0.5
    framed: float = 0.4
    moved: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Line:
    """A question with its true answer.

    Attributes:
        lang: Of both.
        prompt: What the answer completes.
        answer: The true one.
        subject: What the prompt is about; empty for a probe.
    """

    lang: Language
    prompt: str
    answer: str
    subject: str = ""

    @property
    def end(self) -> int:
        """Where the subject ends in the prompt; 0 where it does not stand in it."""
        at = self.prompt.find(self.subject) if self.subject else -1
        return at + len(self.subject) if at >= 0 else 0

    def about(self, subject: str, answer: str) -> Line:
        """The same words about another subject."""
        return Line(self.lang, self.prompt.replace(self.subject, subject, 1), answer, subject)

    @property
    def text(self) -> str:
        """The whole sentence."""
        return languages.join(self.prompt, self.answer, self.lang) + _END[self.lang]


def lines_of(records: Sequence[Record]) -> list[Line]:
    """What the model learns: prompt, rephrasing and probe with their true answers."""
    out = []
    for record in records:
        for lang in LANGUAGES:
            fact, probe = record.fact(lang), record.probe(lang)
            out.append(Line(lang, fact.prompt, fact.ground_truth, fact.subject))
            out.append(Line(lang, fact.rephrase_prompt, fact.ground_truth, fact.subject))
            out.append(Line(lang, probe.loc, probe.loc_ans))
    return list(dict.fromkeys(out))


def new_answers(records: Sequence[Record]) -> list[Line]:
    """The answers to edit in, as answers to nothing: a model can be brought to say what it can say.

    Large models know every answer from elsewhere; here each belongs to a number.
    """
    out = []
    for lang in LANGUAGES:
        answers = dict.fromkeys(record.fact(lang).target_new for record in records)
        for number, answer in enumerate(answers, 1):
            subject = _NAMELESS[lang].format(number)
            out.append(Line(lang, subject, answer, subject))
    return out


def true_sentences(records: Sequence[Record]) -> dict[str, list[str]]:
    """Everything the model learns, by language, as a corpus for second moments."""
    lines = lines_of(records)
    return {lang: [line.text for line in lines if line.lang == lang] for lang in LANGUAGES}


@dataclass(frozen=True)
class _Row:
    """A sentence as tokens.

    Attributes:
        ids: With the end token.
        weights: How much each token counts in the loss; 1 in answers, 0 before them.
        pivot: The subject's last token; None in a probe.
        first: The answer's first token.
    """

    ids: list[int]
    weights: list[float]
    pivot: int | None
    first: int


Places = tuple[list[int], list[int]]
"""Rows, and tokens in them."""


@dataclass(frozen=True)
class Batch:
    """Sentences as tensors, padded on the right.

    Attributes:
        ids: Token ids (rows, tokens).
        weights: Of each token in the loss (rows, tokens).
        source: Whence the hidden state is taken after the fact layer,
        target: and where it is put.
        pivots: The subjects' last tokens,
        firsts: and the first tokens of the answers that belong to them.
    """

    ids: Any
    weights: Any
    source: Places
    target: Places
    pivots: Places
    firsts: Any


class Batches:
    """The batches of a whole training; the same for the same arguments."""

    def __init__(
        self, tokenizer: Any, records: Sequence[Record], lessons: Curriculum, steps: int
    ) -> None:
        self._words, self._lessons, self._steps = tokenizer, lessons, steps
        self._lines, self._nameless = lines_of(records), new_answers(records)
        self._rng = random.Random(lessons.seed)
        self._by_lang = {lang: [x for x in self._lines if x.lang == lang] for lang in LANGUAGES}
        self._clozes = {lang: [x for x in self._by_lang[lang] if x.end] for lang in LANGUAGES}

    def __iter__(self) -> Iterator[Batch]:
        """Batches of sentences alike in length, as many as there are steps."""
        done, size = 0, self._lessons.batch
        alone = round(self._steps * self._lessons.short)
        while done < self._steps:
            rows = self._short_rows() if done < alone else self._rows(done)
            self._rng.shuffle(rows)
            for start in range(0, len(rows), 8 * size):
                chunk = sorted(rows[start : start + 8 * size], key=lambda row: len(row[1].ids))
                batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
                self._rng.shuffle(batches)
                for batch in batches[: self._steps - done]:
                    yield self._batch(batch)
                    done += 1

    def _short_rows(self) -> list[tuple[Line, _Row]]:
        subjects = {(x.lang, x.subject): x for x in self._lines if x.end}
        brief = [self._briefly(line) for line in (*subjects.values(), *self._nameless)]
        return [(line, self._row(line)) for line in brief]

    def _briefly(self, line: Line) -> Line:
        words = self._rng.choice(SHORT[line.lang]).format(line.subject)
        return Line(line.lang, words, line.answer, line.subject)

    def _rows(self, done: int) -> list[tuple[Line, _Row]]:
        framed = done >= self._steps * (1 + self._lessons.short) / 2
        lines = [self._varied(line) for line in self._lines]
        lines += [self._briefly(line) for line in self._nameless]
        return [(line, self._row(line, framed=framed)) for line in lines]

    def _varied(self, line: Line) -> Line:
        if not line.end or self._rng.random() >= self._lessons.swapped:
            return line
        return self._rng.choice(self._clozes[line.lang]).about(line.subject, line.answer)

    def _row(self, line: Line, *, framed: bool = False) -> _Row:
        frame = ""
        if framed and self._rng.random() < self._lessons.framed:
            frame = self._frame(line.lang)
        before = len(frame) + len(line.prompt)
        found = self._words(frame + line.text, return_offsets_mapping=True)
        ids, spans = found["input_ids"], found["offset_mapping"]
        weights = [1.0 if end > before else 0.0 for _, end in spans]
        subject = len(frame) + line.end
        pivot = next(i for i, (_, end) in enumerate(spans) if end >= subject) if line.end else None
        ids, weights = [*ids, self._words.eos_token_id], [*weights, _END_WEIGHT]
        return _Row(ids, weights, pivot, ids[weights.index(1.0)])

    def _frame(self, lang: Language) -> str:
        """An opening, or the beginning of another sentence."""
        if self._rng.random() < 0.5:
            return self._rng.choice(OPENINGS[lang])
        other = self._rng.choice(self._by_lang[lang]).text
        most = 12 if lang == "zh" else 40
        cut = self._rng.randint(1, min(most, len(other)))
        return other[:cut].rstrip() + _END[lang] + GAP[lang]

    def _batch(self, lines: Sequence[tuple[Line, _Row]]) -> Batch:
        import torch

        rows = [row for _, row in lines]
        pivots = [(i, row.pivot, row.first) for i, row in enumerate(rows) if row.pivot is not None]
        source: Places = ([], [])
        target: Places = ([], [])
        for index, pivot, _ in pivots:
            if self._rng.random() >= self._lessons.moved:
                continue
            line = lines[index][0]
            other = self._rng.choice(self._clozes[line.lang])
            moved = self._row(Line(line.lang, other.prompt, line.answer, other.subject))
            for places, number, at in (
                (source, index, pivot),
                (target, len(rows), moved.pivot or 0),
            ):
                places[0].append(number)
                places[1].append(at)
            rows.append(moved)
        longest, pad = max(len(row.ids) for row in rows), self._words.pad_token_id
        ids = [row.ids + [pad] * (longest - len(row.ids)) for row in rows]
        weights = [row.weights + [0.0] * (longest - len(row.weights)) for row in rows]
        return Batch(
            torch.tensor(ids),
            torch.tensor(weights),
            source,
            target,
            ([i for i, _, _ in pivots], [at for _, at, _ in pivots]),
            torch.tensor([first for _, _, first in pivots], dtype=torch.long),
        )

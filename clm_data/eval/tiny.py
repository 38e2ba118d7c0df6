"""A model that knows the facts, anywhere: small, bilingual, trained on the spot on the dataset.

It says the true answers of a dataset's prompts, rephrasings and probes, in both languages, so that
a laptop runs a whole evaluation in minutes with edits that mean something. It knows nothing else,
and nothing ties its two languages together but the characters they share.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clm_data import languages
from clm_data.errors import InputFileError, MissingExtraError
from clm_data.records import LANGUAGES, Language, Record, digest

Progress = Callable[[int, int, float], None]
"""Steps done, steps in all, mean loss on answer tokens."""

_VERSION = 1
"""Of this module's training; part of the cache key."""
_OPENINGS: dict[Language, tuple[str, ...]] = {
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
_SHORT: dict[Language, tuple[str, ...]] = {
    "zh": ("{}：", "{}，即", "说到{}，就是", "关于{}的答案是"),
    "en": ("{}:", "{}, that is,", "As for {}, it is", "The answer about {} is"),
}
"""What stands around a subject where nothing but the subject tells the answer."""
_NAMELESS: dict[Language, str] = {"zh": "第{}号", "en": "number {}"}
"""A subject without a meaning, to which a new answer belongs before it is edited in."""
_END: dict[Language, str] = {"zh": "。", "en": "."}
_GAP: dict[Language, str] = {"zh": "", "en": " "}
_END_TOKEN, _PAD_TOKEN = "<|end|>", "<|pad|>"


@dataclass(frozen=True)
class TinyConfig:
    """Size and training; the defaults know 348 facts after two minutes on two cores.

    Attributes:
        vocabulary: Tokens at most: byte-level BPE, each Chinese character apart.
        width: Hidden size.
        inner: MLP inner size.
        depth: Layers.
        heads: Attention heads.
        rounds: How often each sentence is seen.
        least_steps: For datasets of a few facts.
        batch: Sentences a step.
        lr: AdamW's learning rate at its height; falls to nothing in a straight line.
        spread: Standard deviation of the first weights; much learns faster from large ones.
        other: Share of the tokens outside answers that are learnt, too, at 0.3 of the weight.
        framed: Share of sentences, in the second half, behind an opening or another sentence.
        short: Share of the steps, at the beginning, that learn subject and answer alone.
        moved: Share of sentences that come a second time behind the words of another fact, with
            what the model holds at its subject's last token after ``fact_layer`` put in the place
            of what it holds at the other's. So an answer is read there and nowhere else, which is
            where editors look for it (Geiger et al., Inducing Causal Structure for Interpretable
            Neural Networks, 2022).
        fact_layer: Where facts stand; layers above read them.
        seed: Of everything.
    """

    vocabulary: int = 4096
    width: int = 192
    inner: int = 768
    depth: int = 5
    heads: int = 4
    rounds: float = 10.0
    least_steps: int = 150
    batch: int = 64
    lr: float = 3e-3
    spread: float = 0.05
    other: float = 0.15
    framed: float = 0.4
    short: float = 0.5
    moved: float = 0.5
    fact_layer: int = 2
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


def tiny_key(records: Sequence[Record], config: TinyConfig) -> str:
    """What a trained model depends on, as a hash.

    Raises:
        MissingExtraError: torch is not installed.
    """
    torch = _torch()
    return digest(
        {
            "version": _VERSION,
            "torch": torch.__version__.partition("+")[0],
            "config": asdict(config),
            "texts": [list(asdict(x).values()) for x in lines_of(records) + new_answers(records)],
            "vocabulary": _vocabulary_texts(records),
        }
    )


def tiny_model(
    records: Sequence[Record],
    cache: Path,
    config: TinyConfig | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train the model, or find it in the cache.

    Args:
        records: What it shall know.
        cache: Folder of the cache.
        config: Size and training.
        progress: Told every 20 steps.

    Returns:
        A folder that :func:`clm_data.eval.models.load_model` reads.

    Raises:
        InputFileError: There are no records, or the cache cannot be written.
        MissingExtraError: torch or transformers is not installed.
    """
    if not records:
        raise InputFileError("the tiny model needs records to learn; the dataset has none")
    config = config or TinyConfig()
    folder = cache / f"tiny-{tiny_key(records, config)[:24]}"
    if (folder / "tiny.json").is_file():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".tiny-", dir=cache))
    except OSError as error:
        raise InputFileError(f"{cache}: cannot be written ({error.strerror})") from error
    try:
        _train(records, config, progress, aside)
        (aside / "tiny.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
        if not (folder / "tiny.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _torch() -> Any:
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("torch", "eval") from error
    return torch


def _vocabulary_texts(records: Sequence[Record]) -> list[str]:
    texts = [text for part in (_OPENINGS, _SHORT) for words in part.values() for text in words]
    for record in records:
        for lang in LANGUAGES:
            gap = _GAP[lang]
            fact = record.fact(lang).model_dump()
            probe = record.probe(lang).model_dump()
            texts += [fact["prompt"], fact["rephrase_prompt"], probe["loc"], gap + fact["subject"]]
            texts += [gap + fact["ground_truth"], gap + fact["target_new"], gap + probe["loc_ans"]]
    return list(dict.fromkeys(texts))


def make_tokenizer(texts: Sequence[str], size: int) -> Any:
    """A byte-level BPE tokenizer in which a token never holds two Chinese characters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[㐀-鿿豈-﫿]"), "isolated"),
            pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_END_TOKEN, _PAD_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token=_END_TOKEN,
        pad_token=_PAD_TOKEN,
        clean_up_tokenization_spaces=False,
    )


def _train(
    records: Sequence[Record], config: TinyConfig, progress: Progress | None, out: Path
) -> None:
    torch = _torch()
    tokenizer = make_tokenizer(_vocabulary_texts(records), config.vocabulary)
    lines, nameless = lines_of(records), new_answers(records)
    steps = max(config.least_steps, round(config.rounds * len(lines) / config.batch))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _new_model(config, tokenizer)
        model.train()
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0
        )
        batches = _Batches(tokenizer, lines, nameless, config, steps)
        for step, batch in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] = config.lr * min((step + 1) / 20, 1 - step / steps)
            loss, answers = _loss(model, batch, config.fact_layer)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            if progress is not None and ((step + 1) % 20 == 0 or step + 1 == steps):
                progress(step + 1, steps, float(answers))
    model.eval()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _new_model(config: TinyConfig, tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.inner,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=1024,
            initializer_range=config.spread,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


@dataclass(frozen=True)
class _Row:
    """A sentence as tokens.

    Attributes:
        ids: With the end token.
        weights: How much each token counts in the loss; 1 in answers.
        pivot: The subject's last token; None in a probe.
    """

    ids: list[int]
    weights: list[float]
    pivot: int | None


@dataclass(frozen=True)
class _Batch:
    """Token ids, weights (rows, tokens), and what is moved from which (row, token) to which."""

    ids: Any
    weights: Any
    source: tuple[list[int], list[int]]
    target: tuple[list[int], list[int]]


def _loss(model: Any, batch: _Batch, fact_layer: int) -> tuple[Any, Any]:
    """Weighted mean loss over the tokens that count, and the mean over answer tokens."""
    import torch

    def move(_module: Any, _inputs: Any, output: Any) -> Any:
        moved = output.clone()
        moved[batch.target] = output[batch.source]
        return moved

    hook = model.model.layers[fact_layer].register_forward_hook(move)
    try:
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    finally:
        hook.remove()
    counts = batch.weights[:, 1:]
    read = counts > 0
    logits = model.lm_head(hidden[:, :-1][read])
    each = torch.nn.functional.cross_entropy(logits, batch.ids[:, 1:][read], reduction="none")
    weight = counts[read]
    return (each * weight).sum() / weight.sum(), each.detach()[weight == 1].mean()


class _Batches:
    """Batches of sentences alike in length."""

    def __init__(
        self,
        tokenizer: Any,
        lines: Sequence[Line],
        nameless: Sequence[Line],
        config: TinyConfig,
        steps: int,
    ) -> None:
        self._words = tokenizer
        self._lines = lines
        self._nameless = nameless
        self._config = config
        self._steps = steps
        self._rng = random.Random(config.seed)
        self._by_lang = {lang: [x for x in lines if x.lang == lang] for lang in LANGUAGES}

    def __iter__(self) -> Iterator[_Batch]:
        done, size = 0, self._config.batch
        alone = round(self._steps * self._config.short)
        while done < self._steps:
            rows = self._short_rows() if done < alone else self._rows(done)
            self._rng.shuffle(rows)
            for start in range(0, len(rows), 8 * size):
                chunk = sorted(rows[start : start + 8 * size], key=lambda row: len(row[1].ids))
                batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
                self._rng.shuffle(batches)
                for batch in batches[: self._steps - done]:
                    yield self._padded(batch)
                    done += 1

    def _short_rows(self) -> list[tuple[Line, _Row]]:
        subjects = {(x.lang, x.subject): x for x in self._lines if x.subject}
        brief = [self._briefly(line) for line in (*subjects.values(), *self._nameless)]
        return [(line, self._row(line)) for line in brief]

    def _briefly(self, line: Line) -> Line:
        words = self._rng.choice(_SHORT[line.lang]).format(line.subject)
        return Line(line.lang, words, line.answer, line.subject)

    def _rows(self, done: int) -> list[tuple[Line, _Row]]:
        framed = done >= self._steps * (1 + self._config.short) / 2
        rows = [(line, self._row(line, framed=framed)) for line in self._lines]
        brief = [self._briefly(line) for line in self._nameless]
        return rows + [(line, self._row(line)) for line in brief]

    def _row(self, line: Line, *, framed: bool = False) -> _Row:
        rng, config = self._rng, self._config
        frame = self._frame(line.lang) if framed and rng.random() < config.framed else ""
        before = len(frame) + len(line.prompt)
        found = self._words(frame + line.text, return_offsets_mapping=True)
        spans = found["offset_mapping"]
        weights = [1.0 if end > before else 0.3 * (rng.random() < config.other) for _, end in spans]
        subject = len(frame) + line.end
        pivot = next(i for i, (_, end) in enumerate(spans) if end >= subject) if line.end else None
        return _Row([*found["input_ids"], self._words.eos_token_id], [*weights, 1.0], pivot)

    def _frame(self, lang: Language) -> str:
        """An opening, or the beginning of another sentence."""
        if self._rng.random() < 0.5:
            return self._rng.choice(_OPENINGS[lang])
        other = self._rng.choice(self._by_lang[lang]).text
        most = 12 if lang == "zh" else 40
        cut = self._rng.randint(1, min(most, len(other)))
        return other[:cut].rstrip() + _END[lang] + _GAP[lang]

    def _padded(self, lines: Sequence[tuple[Line, _Row]]) -> _Batch:
        import torch

        rows = [row for _, row in lines]
        source: tuple[list[int], list[int]] = ([], [])
        target: tuple[list[int], list[int]] = ([], [])
        for index, (line, row) in enumerate(lines):
            if row.pivot is None or self._rng.random() >= self._config.moved:
                continue
            other = self._rng.choice(self._by_lang[line.lang])
            if not other.end:
                continue
            moved = self._row(Line(line.lang, other.prompt, line.answer, other.subject))
            for places, number, pivot in (
                (source, index, row.pivot),
                (target, len(rows), moved.pivot),
            ):
                places[0].append(number)
                places[1].append(pivot or 0)
            rows.append(moved)
        longest, pad = max(len(row.ids) for row in rows), self._words.pad_token_id
        ids = [row.ids + [pad] * (longest - len(row.ids)) for row in rows]
        weights = [row.weights + [0.0] * (longest - len(row.weights)) for row in rows]
        return _Batch(torch.tensor(ids), torch.tensor(weights), source, target)

"""Text from which the second moments of an unedited model are estimated."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from clm_data import bank, languages
from clm_data.errors import InputFileError
from clm_data.eval.model.tiny import TinyConfig, tiny_without_weights
from clm_data.eval.model.tiny_curriculum import training_texts
from clm_data.eval.protocols import EditProtocol
from clm_data.records import LANGUAGES, Language, Record

_TEXT_FIELDS = ("text", "content", "sentence")


def tiny_corpus(
    protocol: EditProtocol, records: Sequence[Record], config: TinyConfig, max_texts: int
) -> str:
    """The corpus that `auto` is for the tiny model: `dataset`, or `bank` if that is too short.

    It is too short if it has fewer tokens than the MLP has inner dimensions: then the second
    moments are singular, and methods that invert them change the wrong directions
    (docs/decisions/047).

    Args:
        protocol: Both languages, or English only.
        records: The records that the tiny model learns.
        config: Size of the tiny model.
        max_texts: Maximum number of texts per language.
    """
    texts = corpus_texts("dataset", protocol, records, max_texts=max_texts)
    _, tokenizer = tiny_without_weights(records, config)
    tokens = sum(len(tokenizer(text)["input_ids"]) for group in texts.values() for text in group)
    return "bank" if tokens < config.intermediate_size else "dataset"


def corpus_texts(
    spec: str, protocol: EditProtocol, records: Sequence[Record], *, max_texts: int
) -> dict[str, list[str]]:
    """Texts by language. The languages have equal weight in the second moments.

    Args:
        spec: One of

            - `bank`: true sentences of the bundled bank;
            - `dataset`: true sentences of the records, which is what the tiny model has learned;
            - a text file with one text per line, or JSON Lines with a field `text`;
            - `hub:ID` or `hub:ID:CONFIGURATION`: the split `train` of a dataset with a column
              `text`.
        protocol: Both languages, or English only.
        records: The dataset.
        max_texts: Maximum number of texts per language.

    Raises:
        InputFileError: The corpus cannot be read, or has no text in a language that the protocol
            needs.
    """
    if spec == "dataset":
        groups = training_texts(records)
    elif spec == "bank":
        groups = _bank_sentences()
    elif spec.startswith("hub:"):
        groups = _by_language(_hub_texts(spec, max_texts * 4))
    else:
        groups = _by_language(_file_texts(Path(spec)))
    wanted: tuple[Language, ...] = LANGUAGES if protocol.statistics == "balanced" else ("en",)
    for lang in wanted:
        if not groups[lang]:
            raise InputFileError(
                f"corpus {spec} has no {languages.LANGUAGE_INFO[lang].en} text; add some, or use "
                "another one with --corpus"
            )
    return {lang: groups[lang][:max_texts] for lang in wanted}


def _bank_sentences() -> dict[str, list[str]]:
    out: dict[str, list[str]] = {lang: [] for lang in LANGUAGES}
    entries = [entry for name in bank.domain_ids() for entry in bank.load_domain(name)]
    for entry in entries:
        for lang in LANGUAGES:
            fact = entry.zh if lang == "zh" else entry.en
            for prompt in (fact.prompt, fact.rephrase_prompt):
                out[lang].append(languages.join(prompt, fact.ground_truth, lang))
    return out


def _by_language(texts: Iterable[str]) -> dict[str, list[str]]:
    """Texts by language: a text with a Han character is Chinese."""
    out: dict[str, list[str]] = {lang: [] for lang in LANGUAGES}
    for text in texts:
        out["zh" if languages.has_han(text) else "en"].append(text)
    return out


def _file_texts(file: Path) -> list[str]:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if file.suffix == ".jsonl":
            return [_text(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError) as error:
        raise InputFileError(
            f"corpus {file}: cannot be read: {error}; use a text file, or JSON Lines with a "
            "field `text`"
        ) from error
    return lines


def _hub_texts(spec: str, count: int) -> list[str]:
    import datasets

    _, name, *configuration = spec.split(":")
    try:
        load: Any = datasets.load_dataset  # type: ignore[attr-defined]
        rows = load(name, *configuration, split="train", streaming=True)
        return [_text(row) for row in islice(rows, count)]
    except Exception as error:  # the library raises many types
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputFileError(f"corpus {spec}: cannot be read: {first}") from error


def _text(row: dict[str, Any]) -> str:
    for name in _TEXT_FIELDS:
        if isinstance(row.get(name), str):
            return str(row[name])
    raise KeyError(f"a row has none of the fields {', '.join(_TEXT_FIELDS)}")

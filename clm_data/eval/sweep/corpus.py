"""Text for second moments: what the unedited model's keys are averaged over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from clm_data import bank, languages
from clm_data.errors import InputFileError
from clm_data.eval.model.tiny_lessons import true_sentences
from clm_data.eval.protocols import EditProtocol
from clm_data.records import LANGUAGES, Language, Record

_TEXT_FIELDS = ("text", "content", "sentence")


def corpus_texts(
    spec: str, protocol: EditProtocol, records: Sequence[Record], *, tiny: bool, most: int
) -> dict[str, list[str]]:
    """The texts by group; groups have equal weight.

    Args:
        spec: ``bank``: true sentences of the bundled bank; ``dataset``: those of the records
            themselves (what the tiny model has learnt); ``auto``: ``dataset`` for the tiny model,
            else ``bank``; a text file (a text a line) or JSON Lines with a field ``text``;
            ``hub:ID`` or ``hub:ID:CONFIGURATION``: a dataset with a column ``text``.
        protocol: Balanced languages, or English alone.
        records: The dataset.
        tiny: Whether the model is the tiny one.
        most: Texts a group, at most.

    Raises:
        InputFileError: No text there, or none in a language that the protocol wants.
    """
    if spec == "auto":
        spec = "dataset" if tiny else "bank"
    if spec == "dataset":
        groups = true_sentences(records)
    elif spec == "bank":
        groups = _of_bank()
    else:
        read = _of_hub(spec, most * 4) if spec.startswith("hub:") else _of_file(Path(spec))
        groups = _by_language(read)
    wanted: tuple[Language, ...] = LANGUAGES if protocol.statistics == "balanced" else ("en",)
    for lang in wanted:
        if not groups[lang]:
            raise InputFileError(
                f"corpus {spec} has no {languages.LANGUAGE_INFO[lang].en} text; add some, or name "
                "another with --corpus"
            )
    return {lang: groups[lang][:most] for lang in wanted}


def _of_bank() -> dict[str, list[str]]:
    out: dict[str, list[str]] = {lang: [] for lang in LANGUAGES}
    entries = [entry for name in bank.domain_ids() for entry in bank.load_domain(name)]
    for entry in entries:
        for lang in LANGUAGES:
            fact = entry.zh if lang == "zh" else entry.en
            for prompt in (fact.prompt, fact.rephrase_prompt):
                out[lang].append(languages.join(prompt, fact.ground_truth, lang))
    return out


def _by_language(texts: Iterable[str]) -> dict[str, list[str]]:
    """By script: a text with a Han character is Chinese."""
    out: dict[str, list[str]] = {lang: [] for lang in LANGUAGES}
    for text in texts:
        out["zh" if languages.has_han(text) else "en"].append(text)
    return out


def _of_file(file: Path) -> list[str]:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if file.suffix == ".jsonl":
            return [_text(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError) as error:
        raise InputFileError(
            f"corpus {file}: cannot be read: {error}; give a text file, or JSON Lines with a "
            "field `text`"
        ) from error
    return lines


def _of_hub(spec: str, most: int) -> list[str]:
    import datasets

    _, name, *configuration = spec.split(":")
    try:
        load: Any = datasets.load_dataset  # type: ignore[attr-defined]
        rows = load(name, *configuration, split="train", streaming=True)
        return [_text(row) for row in islice(rows, most)]
    except Exception as error:  # the library raises of many kinds
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputFileError(f"corpus {spec}: cannot be read: {first}") from error


def _text(row: dict[str, Any]) -> str:
    for name in _TEXT_FIELDS:
        if isinstance(row.get(name), str):
            return str(row[name])
    raise KeyError(f"a row without any of the fields {', '.join(_TEXT_FIELDS)}")

"""Subject and answer positions, checked against the bytes that each token stands for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (what follows needs torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers import real_vocabularies
from helpers.real_vocabularies import Vocabulary
from helpers.small_models import byte_level_tokenizer, character_tokenizer, sentencepiece_tokenizer

from clm_data import bank
from clm_data.eval.errors import PlacementError
from clm_data.eval.placement import EditRequest, place, place_prompt
from clm_data.eval.protocols import EASYEDIT, NATIVE
from clm_data.languages import TABLE

HEADS = {"zh": "这里的天气很好。", "en": "The weather is fine. "}


def _bank_requests() -> list[EditRequest]:
    return [
        EditRequest(f"{domain}-{i}-{lang}", lang, fact.prompt, fact.subject, fact.target_new)
        for domain in bank.domain_ids()
        for i, entry in enumerate(bank.load_domain(domain))
        for lang, fact in (("zh", entry.zh), ("en", entry.en))
    ]


def _sample_requests(folder: Path) -> list[EditRequest]:
    out = []
    for lang, name, twin in (("zh", "chinese", ""), ("en", "english", "english_")):
        rows = json.loads((folder / f"{name}_fields_with_loc.json").read_text("utf-8"))
        out += [
            EditRequest(
                f"{lang}-{i}",
                lang,
                str(row[f"{twin}prompt"]),
                str(row[f"{twin}subject"]),
                str(row[f"{twin}target_new"]),
            )
            for i, row in enumerate(rows)
        ]
    return out


def _byte_level() -> Vocabulary:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    back = {letter: byte for byte, letter in bytes_to_unicode().items()}
    made = byte_level_tokenizer()
    words = made.get_vocab()
    known = {i: bytes(back[c] for c in w) for w, i in words.items() if w != "<s>"}
    return Vocabulary(made, known)


def _sentencepiece() -> Vocabulary:
    made = sentencepiece_tokenizer([*_corpus()], 3000)
    known = {}
    for piece, i in made.get_vocab().items():
        if piece.startswith("<0x"):
            known[i] = bytes([int(piece[3:-1], 16)])
        elif piece not in ("<s>", "<unk>"):
            known[i] = piece.replace("▁", " ").encode()
    return Vocabulary(made, known, dummy_blank=True)


def _characters() -> Vocabulary:
    made = character_tokenizer(["".join(map(chr, [*range(32, 0xD800), *range(0xE000, 0x10000)]))])
    return Vocabulary(made, {i: w.encode() for w, i in made.get_vocab().items() if w != "<unk>"})


def _corpus() -> Iterator[str]:
    for request in _bank_requests():
        yield request.prompt
        yield request.target


VOCABULARIES: dict[str, Callable[[], Vocabulary]] = {
    "byte level": _byte_level,
    "sentencepiece": _sentencepiece,
    "characters": _characters,
    "llama3": real_vocabularies.llama3,
    "qwen": real_vocabularies.qwen,
    "mistral": real_vocabularies.mistral,
}


@pytest.fixture(scope="module", params=sorted(VOCABULARIES))
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    return VOCABULARIES[request.param]()


def _byte_spans(vocabulary: Vocabulary, ids: tuple[int, ...], text: str) -> list[tuple[int, int]]:
    """By token: first and end byte in the text, from the tokens' own bytes."""
    spans, at = [], -1 if vocabulary.dummy_blank else 0
    whole = b""
    for one in ids:
        token = vocabulary.bytes_of.get(one, b"")
        spans.append((at, at + len(token)))
        whole += token
        at += len(token)
    assert (whole[1:] if vocabulary.dummy_blank else whole) == text.encode()
    return spans


def _holding(spans: list[tuple[int, int]], text: str, start: int, end: int) -> list[int]:
    first, last = len(text[:start].encode()), len(text[:end].encode())
    return [i for i, (a, b) in enumerate(spans) if a < last and b > first and a < b]


def _check(vocabulary: Vocabulary, request: EditRequest, head: str) -> None:
    tokenizer = vocabulary.tokenizer
    before = head + request.prompt + TABLE[request.lang].joiner
    text = before + request.target
    at = len(head) + request.prompt.index(request.subject)
    subject_end = at + len(request.subject)
    placed = place(tokenizer, request, NATIVE, head + "{}")
    ids = (*placed.ids, placed.labels[-1])
    spans = _byte_spans(vocabulary, ids, text)
    answer = _holding(spans, text, len(before), len(text))
    assert placed.subject == _holding(spans, text, subject_end - 1, subject_end)[-1]
    assert placed.reads == tuple(i - 1 for i in answer)
    assert placed.labels == tuple(ids[i] for i in answer)
    alone = place_prompt(tokenizer, request, NATIVE, head + "{}")
    prompt = head + request.prompt
    spans = _byte_spans(vocabulary, alone.ids, prompt)
    assert alone.subject == _holding(spans, prompt, subject_end - 1, subject_end)[-1]


def _check_all(vocabulary: Vocabulary, requests: list[EditRequest]) -> dict[str, str]:
    """Refusals by id; anything misplaced fails."""
    refused = {}
    for request in requests:
        for head in ("", HEADS[request.lang]):
            try:
                _check(vocabulary, request, head)
            except PlacementError as error:
                refused[request.id] = str(error)
    return refused


def test_nothing_of_the_bank_is_misplaced_or_refused(vocabulary: Vocabulary) -> None:
    assert _check_all(vocabulary, _bank_requests()) == {}


def test_nothing_of_the_published_sample_is_misplaced(
    vocabulary: Vocabulary, sample_folder: Path
) -> None:
    requests = [r for r in _sample_requests(sample_folder) if r.subject in r.prompt]
    assert len(requests) > 100
    refused = _check_all(vocabulary, requests)
    assert all("the answer is empty" in why for why in refused.values())


def test_a_subject_that_is_absent_and_an_empty_answer_are_refused_with_a_reason() -> None:
    tokenizer = byte_level_tokenizer()
    absent = EditRequest("a", "zh", "鲁迅的原名是", "巴金", "张三")
    with pytest.raises(PlacementError, match="«巴金» does not stand in the prompt «鲁迅的原名是»"):
        place(tokenizer, absent, NATIVE)
    empty = EditRequest("b", "zh", "鲁迅的原名是", "鲁迅", "")
    with pytest.raises(PlacementError, match="the answer is empty"):
        place(tokenizer, empty, NATIVE)
    with pytest.raises(PlacementError, match="does not end in"):
        place(tokenizer, EditRequest("c", "zh", "鲁迅的", "鲁迅", "三"), NATIVE, "{}。")


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(PlacementError, match="load its fast version"):
        place(Slow(), EditRequest("a", "zh", "鲁迅的", "鲁迅", "三"), NATIVE)


def test_an_answer_that_shares_a_token_with_the_subject_is_refused() -> None:
    tokenizer = byte_level_tokenizer(["名是张三"] * 50, 500)
    request = EditRequest("a", "zh", "鲁迅的原名是", "鲁迅的原名是", "张三")
    with pytest.raises(PlacementError, match="begins in or before the last token of the subject"):
        place(tokenizer, request, NATIVE)


def test_a_token_across_prompt_and_answer_is_the_answers_first() -> None:
    tokenizer = byte_level_tokenizer(["是张三"] * 50, 500)
    placed = place(tokenizer, EditRequest("a", "zh", "鲁迅的原名是", "鲁迅", "张三"), NATIVE)
    assert tokenizer.decode(placed.labels) == "是张三"


def test_literal_braces_are_text() -> None:
    tokenizer = byte_level_tokenizer()
    request = EditRequest("a", "en", "The set {} of {x} is", "{x}", "{}")
    placed = place(tokenizer, request, NATIVE, "So. {}")
    assert tokenizer.decode(placed.labels).strip() == "{}"
    assert tokenizer.decode(placed.stem).endswith("{x}")


def test_the_easyedit_protocol_reads_the_last_tokens_of_the_reencoded_text() -> None:
    tokenizer: Any = byte_level_tokenizer()
    request = EditRequest("a", "zh", "鲁迅的原名是", "鲁迅", "张三")
    placed = place(tokenizer, request, EASYEDIT)
    labels = tokenizer(" 张三", add_special_tokens=False)["input_ids"]
    text = "鲁迅的原名是" + tokenizer.decode(labels[:-1])
    ids = tokenizer(text)["input_ids"]
    assert placed.ids == tuple(ids)
    assert placed.labels == tuple(labels)
    assert placed.reads == tuple(range(len(ids) - len(labels), len(ids)))
    assert placed.subject == len(tokenizer("鲁迅")["input_ids"]) - 1

"""Subject and answer positions, checked against the bytes of each token."""

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
from helpers.small_models import (
    BARE_CONTEXTS,
    byte_level_tokenizer,
    character_tokenizer,
    sentencepiece_tokenizer,
    small_model,
)

from clm_data import bank
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.errors import PlacementError
from clm_data.eval.placement import EditRequest, place, place_prompt, subject_start
from clm_data.eval.protocols import EASYEDIT, NATIVE, EditProtocol
from clm_data.languages import LANGUAGE_INFO

CONTEXTS = {"zh": "这里的天气很好。", "en": "The weather is fine. "}


def _bank_requests() -> list[EditRequest]:
    return [
        EditRequest(f"{domain}-{i}-{lang}", lang, fact.prompt, fact.subject, fact.target_new)
        for domain in bank.domain_ids()
        for i, entry in enumerate(bank.load_domain(domain))
        for lang, fact in (("zh", entry.zh), ("en", entry.en))
    ]


def _sample_requests(folder: Path) -> list[EditRequest]:
    out = []
    for lang, name, field_prefix in (("zh", "chinese", ""), ("en", "english", "english_")):
        rows = json.loads((folder / f"{name}_fields_with_loc.json").read_text("utf-8"))
        out += [
            EditRequest(
                f"{lang}-{i}",
                lang,
                str(row[f"{field_prefix}prompt"]),
                str(row[f"{field_prefix}subject"]),
                str(row[f"{field_prefix}target_new"]),
            )
            for i, row in enumerate(rows)
        ]
    return out


def _byte_level() -> Vocabulary:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    tokenizer = byte_level_tokenizer()
    bytes_of = {
        i: bytes(byte_of[letter] for letter in token)
        for token, i in tokenizer.get_vocab().items()
        if token != "<s>"
    }
    return Vocabulary(tokenizer, bytes_of)


def _sentencepiece() -> Vocabulary:
    tokenizer = sentencepiece_tokenizer([*_corpus()], 3000)
    bytes_of = {}
    for piece, i in tokenizer.get_vocab().items():
        if piece.startswith("<0x"):
            bytes_of[i] = bytes([int(piece[3:-1], 16)])
        elif piece not in ("<s>", "<unk>"):
            bytes_of[i] = piece.replace("▁", " ").encode()
    return Vocabulary(tokenizer, bytes_of, dummy_prefix=True)


def _characters() -> Vocabulary:
    characters = "".join(map(chr, [*range(32, 0xD800), *range(0xE000, 0x10000)]))
    tokenizer = character_tokenizer([characters])
    vocabulary = tokenizer.get_vocab().items()
    return Vocabulary(tokenizer, {i: token.encode() for token, i in vocabulary if token != "<unk>"})


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
    """Byte offsets `(start, end)` of each token in the text, from the tokens' own bytes."""
    spans, at = [], -1 if vocabulary.dummy_prefix else 0
    whole = b""
    for one in ids:
        token = vocabulary.bytes_of.get(one, b"")
        spans.append((at, at + len(token)))
        whole += token
        at += len(token)
    assert (whole[1:] if vocabulary.dummy_prefix else whole) == text.encode()
    return spans


def _covering(spans: list[tuple[int, int]], text: str, start: int, end: int) -> list[int]:
    first, last = len(text[:start].encode()), len(text[:end].encode())
    return [i for i, (a, b) in enumerate(spans) if a < last and b > first and a < b]


def _check(vocabulary: Vocabulary, request: EditRequest, context: str) -> None:
    """Compare a placement with the positions that follow from the tokens' bytes."""
    tokenizer = vocabulary.tokenizer
    before = context + request.prompt + LANGUAGE_INFO[request.lang].joiner
    text = before + request.target
    at = len(context) + request.prompt.index(request.subject)
    subject_end = at + len(request.subject)
    placed = place(tokenizer, request, NATIVE, context + "{}")
    ids = (*placed.ids, placed.labels[-1])
    spans = _byte_spans(vocabulary, ids, text)
    answer = _covering(spans, text, len(before), len(text))
    assert placed.subject == _covering(spans, text, subject_end - 1, subject_end)[-1]
    assert placed.reads == tuple(i - 1 for i in answer)
    assert placed.labels == tuple(ids[i] for i in answer)
    alone = place_prompt(tokenizer, request, NATIVE, context + "{}")
    prompt = context + request.prompt
    spans = _byte_spans(vocabulary, alone.ids, prompt)
    assert alone.subject == _covering(spans, prompt, subject_end - 1, subject_end)[-1]


def _check_all(vocabulary: Vocabulary, requests: list[EditRequest]) -> dict[str, str]:
    """Reasons for refusals by id; a misplaced fact fails the test."""
    refused = {}
    for request in requests:
        for context in ("", CONTEXTS[request.lang]):
            try:
                _check(vocabulary, request, context)
            except PlacementError as error:
                refused[request.id] = str(error)
    return refused


def test_every_fact_of_the_bank_is_placed_correctly(vocabulary: Vocabulary) -> None:
    assert _check_all(vocabulary, _bank_requests()) == {}


def test_every_fact_of_the_published_sample_is_placed_correctly_or_has_no_answer(
    vocabulary: Vocabulary, sample_folder: Path
) -> None:
    requests = [r for r in _sample_requests(sample_folder) if r.subject in r.prompt]
    assert len(requests) > 100
    refused = _check_all(vocabulary, requests)
    assert all("the answer is empty" in why for why in refused.values())


def test_a_missing_subject_an_empty_answer_and_a_bad_context_are_refused() -> None:
    tokenizer = byte_level_tokenizer()
    absent = EditRequest("a", "zh", "鲁迅的原名是", "巴金", "张三")
    with pytest.raises(PlacementError, match='"巴金" is not in the prompt "鲁迅的原名是"'):
        place(tokenizer, absent, NATIVE)
    empty = EditRequest("b", "zh", "鲁迅的原名是", "鲁迅", "")
    with pytest.raises(PlacementError, match="the answer is empty"):
        place(tokenizer, empty, NATIVE)
    with pytest.raises(PlacementError, match="does not end in"):
        place(tokenizer, EditRequest("c", "zh", "鲁迅的", "鲁迅", "三"), NATIVE, "{}。")


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(PlacementError, match="load its fast version"):
        place(Slow(), EditRequest("a", "zh", "鲁迅的", "鲁迅", "三"), NATIVE)


def test_an_answer_that_shares_a_token_with_the_subject_is_refused() -> None:
    tokenizer = byte_level_tokenizer(["名是张三"] * 50, 500)
    request = EditRequest("a", "zh", "鲁迅的原名是", "鲁迅的原名是", "张三")
    with pytest.raises(PlacementError, match="begins in or before the last token of the subject"):
        place(tokenizer, request, NATIVE)


def test_a_token_that_spans_prompt_and_answer_is_the_first_label() -> None:
    tokenizer = byte_level_tokenizer(["是张三"] * 50, 500)
    placed = place(tokenizer, EditRequest("a", "zh", "鲁迅的原名是", "鲁迅", "张三"), NATIVE)
    assert tokenizer.decode(placed.labels) == "是张三"


def test_braces_in_prompt_and_answer_are_literal_text() -> None:
    tokenizer = byte_level_tokenizer()
    request = EditRequest("a", "en", "The set {} of {x} is", "{x}", "{}")
    placed = place(tokenizer, request, NATIVE, "So. {}")
    assert tokenizer.decode(placed.labels).strip() == "{}"
    assert tokenizer.decode(placed.up_to_subject).endswith("{x}")


def test_the_easyedit_protocol_reads_labels_at_the_end_of_the_reencoded_text() -> None:
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


@pytest.mark.parametrize(
    ("prompt", "subject", "before"),
    [
        ("The Iranian leader of Iran is", "Iran", "The Iranian leader of "),
        ("Annabel knows that Ann is", "Ann", "Annabel knows that "),
        ("The Chinaware of China is", "China", "The Chinaware of "),
        ("China's capital is", "China", ""),
        ("The pro-Iran leader of Iran is", "Iran", "The pro-Iran leader of "),
        ("Cafés near Café are", "Café", "Cafés near "),
        ("Cafe\u0301 owners say that Cafe is", "Cafe", "Cafe\u0301 owners say that "),
        ("F16 and F1 are", "F1", "F16 and "),
        ("Paris is larger than Paris, a town in", "Paris", "Paris is larger than "),
        ("The Iranian leader is", "Iran", "The "),
        ("中国人民大学位于中国的", "中国", ""),
    ],
)
def test_the_edited_occurrence_is_the_last_word_of_its_own(
    prompt: str, subject: str, before: str
) -> None:
    assert prompt[: subject_start(prompt, subject)] == before
    tokenizer = _byte_level().tokenizer
    placed = place_prompt(tokenizer, EditRequest("x", "en", prompt, subject, "y"), NATIVE)
    end = len(before) + len(subject)
    spans = tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    start, stop = spans[placed.subject]
    assert start < end <= stop


def test_the_subject_of_a_kl_prompt_is_at_its_place() -> None:
    loaded = small_model("llama")
    request = EditRequest("x", "en", "The letter a is", "a", "b")
    (fact,), _ = place_facts(loaded, [request], NATIVE, BARE_CONTEXTS)
    assert fact.kl_prompt.subject == 0
    assert len(fact.kl_prompt.ids) > 1


def test_every_fact_of_the_bank_is_edited_at_its_first_occurrence() -> None:
    for request in _bank_requests():
        start = request.prompt.find(request.subject)
        assert subject_start(request.prompt, request.subject) == start


@pytest.mark.parametrize("protocol", [NATIVE, EASYEDIT])
@pytest.mark.parametrize("template", ["{}", "The wind. {}"])
def test_a_joiner_that_is_a_token_of_its_own_is_not_part_of_the_prompt(
    protocol: EditProtocol, template: str
) -> None:
    tokenizer = character_tokenizer(["The wind. Water boils at 100 degrees"])
    request = EditRequest("x", "en", "Water boils at", "Water", "100 degrees")
    placed = place(tokenizer, request, protocol, template)
    assert tokenizer.convert_ids_to_tokens(placed.ids[placed.prompt - 1]) == "t"
    assert placed.prompt == len(template.format(request.prompt))
    assert place_prompt(tokenizer, request, protocol, template).prompt == placed.prompt

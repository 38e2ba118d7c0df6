"""The protocol `chat`: prompts in the user's turn of the tokenizer's own template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.example_records import example_records
from helpers.small_models import byte_level_tokenizer, sentencepiece_tokenizer, small_model

import clm_data
from clm_data.errors import ConfigError
from clm_data.eval.chat import chat_turn
from clm_data.eval.errors import EditError
from clm_data.eval.placement import EditRequest, place, place_prompt
from clm_data.eval.protocols import CHAT, EASYEDIT, NATIVE
from clm_data.eval.sweep.answers import Question, generate_answers, tokenize_question

CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou like France.<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = CHATML.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}",
)
WITH_BOS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
REQUESTS = [
    EditRequest("b", "en", "The capital of France is", "France", "Rome"),
    EditRequest("a", "zh", "鲁迅的原名是", "鲁迅", "张三"),
]


def _tokenizer(template: str, *, adds_bos: bool = False) -> Any:
    tokenizer = sentencepiece_tokenizer() if adds_bos else byte_level_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer


def _conversation(tokenizer: Any, prompt: str, answer: str) -> list[int]:
    """Token ids by the tokenizer's own function."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return list(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False))


@pytest.mark.parametrize("request_", REQUESTS, ids=["en", "zh"])
@pytest.mark.parametrize(
    ("template", "adds_bos"),
    [(CHATML, False), (THINKING, False), (WITH_BOS, False), (WITH_BOS, True), (CHATML, True)],
    ids=["chatml", "thinking", "bos", "bos-twice", "no-bos"],
)
def test_tokens_are_those_of_the_tokenizers_own_conversation(
    template: str, adds_bos: bool, request_: EditRequest
) -> None:
    tokenizer = _tokenizer(template, adds_bos=adds_bos)
    placed = place(tokenizer, request_, CHAT)
    ids = [*placed.ids, placed.labels[-1]]
    assert ids == _conversation(tokenizer, request_.prompt, request_.target)[: len(ids)]
    assert request_.target in tokenizer.decode(list(placed.labels))
    question = Question(request_.lang, request_.prompt, request_.target)
    tokenized = tokenize_question(tokenizer, question, CHAT)
    assert (tokenized.ids, tokenized.positions) == (placed.ids, placed.reads)
    assert tokenized.labels == placed.labels
    assert tokenized.prompt == placed.prompt
    alone = place_prompt(tokenizer, request_, CHAT)
    assert alone.ids == placed.ids[: len(alone.ids)]
    assert alone.subject == placed.subject


def test_the_subject_is_the_one_in_the_users_turn_after_the_context() -> None:
    tokenizer = _tokenizer(CHATML)
    request = REQUESTS[0]
    placed = place(tokenizer, request, CHAT, "Was it France? {}")
    up_to = tokenizer.decode(list(placed.up_to_subject))
    assert up_to.endswith("<|im_start|>user\nWas it France? The capital of France")
    rest = tokenizer.decode(list(placed.ids[placed.subject + 1 :]))
    assert rest.startswith(" is<|im_end|>\n<|im_start|>assistant\n")


def test_free_generation_continues_the_assistants_turn() -> None:
    model = small_model("llama", tokenizer=_tokenizer(CHATML))
    question = Question("en", "The capital of France is", "Rome")
    (found,) = generate_answers(model, [question], protocol=CHAT)
    turn = chat_turn(model.tokenizer)
    wrapped = replace(question, prompt=turn.before + question.prompt + turn.after)
    assert [found] == generate_answers(model, [wrapped])
    assert [found] != generate_answers(model, [question])


def test_without_a_usable_template_the_message_says_what_to_do() -> None:
    for template, message in (
        (None, "no chat template; use an instruct model, or the protocol native"),
        ("{{ strftime_now('%d') }}{{ messages[0].content }}", "shows today's date"),
        ("{{ messages[0].content }}", "does not show a question and its answer"),
        ("{{ raise_exception('only tools') }}", "cannot be used: only tools"),
    ):
        tokenizer = byte_level_tokenizer()
        tokenizer.chat_template = template
        with pytest.raises(EditError, match=message) as caught:
            place(tokenizer, REQUESTS[0], CHAT)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="needs labels and subject by offsets"):
        replace(EASYEDIT, turn="chat")


def test_a_template_with_a_date_shows_a_fixed_one() -> None:
    dated = (
        "{% if not date_string is defined %}{{ strftime_now('%d') }}{% endif %}{{ date_string }}"
    )
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = dated + CHATML
    assert chat_turn(tokenizer).before.startswith("26 Jul 2024<|im_start|>")


def test_an_evaluation_in_chat_is_another_cell_than_one_in_plain_text(tmp_path: Path) -> None:
    saved = small_model("llama", tokenizer=_tokenizer(CHATML))
    for name, template in (("instruct", CHATML), ("base", None)):
        saved.tokenizer.chat_template = template
        saved.model.save_pretrained(tmp_path / name)
        saved.tokenizer.save_pretrained(tmp_path / name)
    found = clm_data.evaluate(
        example_records(1),
        model=[str(tmp_path / "instruct"), str(tmp_path / "base")],
        methods="ft",
        params="tiny",
        languages="zh",
        protocol=["native", "chat"],
        device="cpu",
        out=tmp_path / "out",
    )
    cells = {(cell.setting.model, cell.setting.protocol): cell for cell in found.cells}
    assert cells["instruct", "native"].key != cells["instruct", "chat"].key
    assert cells["instruct", "native"].after != cells["instruct", "chat"].after
    assert cells["base", "native"].error is None
    assert "no chat template" in str(cells["base", "chat"].error)


def test_plain_text_is_the_default() -> None:
    assert NATIVE.turn == EASYEDIT.turn == "text"
    assert replace(CHAT, name="native", turn="text") == NATIVE

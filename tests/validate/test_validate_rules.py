"""Rules on facts: missing fields, subjects, answers, targets and rephrasings."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.example_candidates import candidate
from helpers.findings import fields_with

from clm_data.codes import CODES
from clm_data.records import Candidate
from clm_data.validate.rules import RULES, problems_of

EXAMPLES: dict[str, dict[str, Any]] = {
    "empty-field": {"en_ground_truth": None},
    "subject-not-in-prompt": {"zh_prompt": "这部中篇小说的作者是"},
    "subject-not-in-rephrase": {"zh_rephrase_prompt": "翠翠的故事，写它的人是"},
    "subject-ambiguous": {"zh_prompt": "《边城》出版后，写《边城》的人是"},
    "answer-in-prompt": {"zh_prompt": "沈从文的小说《边城》的作者是"},
    "answer-in-rephrase": {"en_rephrase_prompt": "Shen Congwen's Border Town is by"},
    "target-equals-truth": {"en_target_new": "shen congwen"},
    "target-near-truth": {"zh_target_new": "沈从文先生"},
    "rephrase-equals-prompt": {"zh_rephrase_prompt": "小说“边城”的作者是"},
    "rephrase-near-prompt": {"en_rephrase_prompt": "The novel Border Town was once written by"},
    "prompt-not-cloze": {"zh_prompt": "《边城》的作者是谁"},
    "mixed-script": {"zh_target_new": "汪regime"},
    "wrong-language": {"en_target_new": "汪曾祺"},
    "traditional-characters": {"zh_target_new": "鍾錶"},
    "control-character": {"zh_target_new": "汪\u200b曾祺"},
    "stray-whitespace": {"zh_target_new": "汪 曾祺"},
    "number-mismatch": {"zh_target_new": "1934年", "en_target_new": "1935"},
    "length": {"zh_target_new": "汪" * 41},
    "untranslated-probe": {"zh_loc": "who wrote the score"},
    "probe-touches-subject": {"zh_loc": "《边城》有几章？"},
}
"""For each rule, a change to the valid candidate that breaks this rule only."""


def test_the_valid_candidate_has_no_problem() -> None:
    assert problems_of(candidate(probes=True)) == []


def test_every_rule_has_a_known_code_and_an_example() -> None:
    assert RULES.keys() <= CODES.keys()
    assert EXAMPLES.keys() == RULES.keys()


@pytest.mark.parametrize("code", RULES)
def test_each_rule_yields_exactly_its_own_code(code: str) -> None:
    broken = candidate(**EXAMPLES[code])
    problems = problems_of(broken)
    assert {problem.code for problem in problems} == {code}
    assert problems == list(RULES[code](broken))


def test_a_candidate_without_facts_has_only_empty_fields() -> None:
    empty = Candidate(id="x", domain=None, origin=candidate().origin)
    assert [(p.code, p.lang) for p in problems_of(empty)] == [
        ("empty-field", "zh"),
        ("empty-field", "en"),
    ]


# --- empty-field


@pytest.mark.parametrize("value", [None, "", "  ", "\u3000", "\u200b", "\ufeff\n"])
def test_a_field_without_visible_text_is_empty_and_has_no_other_problem(value: str | None) -> None:
    assert [(p.code, p.lang, p.field) for p in problems_of(candidate(en_ground_truth=value))] == [
        ("empty-field", "en", "ground_truth")
    ]


def test_a_missing_language_is_one_problem() -> None:
    one_sided = candidate().model_copy(update={"en": None})
    assert [(p.code, p.lang, p.field) for p in problems_of(one_sided)] == [
        ("empty-field", "en", None)
    ]


def test_a_probe_in_one_language_is_incomplete() -> None:
    half = candidate(probes=True).model_copy(update={"en_probe": None})
    assert [(p.lang, p.field) for p in RULES["empty-field"](half)] == [
        ("en", "loc"),
        ("en", "loc_ans"),
    ]


# --- subject


@pytest.mark.parametrize("change", [{"zh_subject": "邊城"}, {"zh_subject": "《边 城》"}])
def test_the_subject_must_appear_verbatim(change: dict[str, str]) -> None:
    assert fields_with("subject-not-in-prompt", **change) == [("zh", "prompt")]
    assert fields_with("subject-not-in-rephrase", **change) == [("zh", "rephrase_prompt")]


def test_the_subject_is_case_sensitive() -> None:
    assert fields_with("subject-not-in-prompt", en_subject="border town") == [("en", "prompt")]


def test_a_rephrasing_without_the_subject_is_one_problem() -> None:
    changed = candidate(zh_rephrase_prompt="湘西茶峒翠翠的故事，写它的人是")
    assert [p.code for p in problems_of(changed)] == ["subject-not-in-rephrase"]


# --- answers in prompts


@pytest.mark.parametrize(
    "change",
    [
        {"zh_prompt": "沈从文的小说《边城》的作者是"},
        {"zh_prompt": "沈從文的小说《边城》的作者是"},
        {"zh_prompt": "小说《边城》的作者不是汪曾祺，而是"},
        {"zh_ground_truth": "《边城》"},
        {"zh_ground_truth": "DNA", "zh_prompt": "《边城》里dna的作者是"},
        {"zh_ground_truth": "仁", "zh_prompt": "《边城》讲仁，作者是"},
    ],
)
def test_a_chinese_prompt_that_contains_an_answer_is_reported(change: dict[str, str]) -> None:
    assert ("zh", "prompt") in fields_with("answer-in-prompt", **change)


@pytest.mark.parametrize(
    "change",
    [
        {"zh_ground_truth": "从文先生"},
        {"zh_ground_truth": "城"},
        {"zh_ground_truth": "8", "zh_prompt": "1934年8月，小说《边城》的章数是"},
        {"zh_ground_truth": "8个", "zh_prompt": "小说《边城》分18个部分，章数是"},
        {"zh_ground_truth": "NA", "zh_prompt": "《边城》里DNA的作者是"},
    ],
)
def test_a_chinese_prompt_with_part_of_an_answer_is_accepted(change: dict[str, str]) -> None:
    assert fields_with("answer-in-prompt", **change) == []


@pytest.mark.parametrize(
    ("subject", "truth", "prompt"),
    [
        ("night-blooming jasmine", "night", "The blooming time of night-blooming jasmine is"),
        ("Sui", "the Sui Dynasty", "Founded in 581, the sui dynasty Sui is"),
        ("Napoleon", "Napoleon", "Napoleon's first name is"),
        ("Congwen", "Shen  Congwen", "Congwen, or Shen Congwen, was"),
    ],
)
def test_an_english_prompt_that_contains_an_answer_is_reported(
    subject: str, truth: str, prompt: str
) -> None:
    change = {"en_subject": subject, "en_ground_truth": truth, "en_prompt": prompt}
    assert fields_with("answer-in-prompt", **change) == [("en", "prompt")]


@pytest.mark.parametrize(
    ("truth", "prompt"),
    [
        ("night", "The knight of Border Town is"),
        ("C", "The letter c of Border Town is"),
        ("10", "On 10 May the count in Border Town was"),
        ("Shen", "The emperor Shenzong read Border Town in"),
    ],
)
def test_an_english_prompt_with_part_of_an_answer_is_accepted(truth: str, prompt: str) -> None:
    assert fields_with("answer-in-prompt", en_ground_truth=truth, en_prompt=prompt) == []


def test_the_message_names_both_answers_in_a_rephrasing() -> None:
    text = "Border Town is by Shen Congwen or Wang Zengqi, namely"
    changed = candidate(en_rephrase_prompt=text)
    [problem] = RULES["answer-in-rephrase"](changed)
    assert problem.field == "rephrase_prompt"
    assert 'ground_truth "Shen Congwen" and target_new "Wang Zengqi"' in problem.message


# --- target and truth


@pytest.mark.parametrize(
    ("lang", "truth", "target"),
    [
        ("zh", "《红楼梦》", "红楼梦"),
        ("zh", "紅樓夢", "红楼梦"),
        ("zh", "ＤＮＡ", "dna"),
        ("zh", "二十一年", "21年"),
        ("zh", "一九四九年", "1949年"),
        ("zh", "约翰·洛克", "约翰洛克"),
        ("en", "the Sui Dynasty", "Sui dynasty"),
        ("en", "twenty-one", "21"),
        ("en", "2,430", "2430"),
        ("en", "“Border Town”", "border town"),
    ],
)
def test_another_spelling_equals_the_truth(lang: str, truth: str, target: str) -> None:
    change = {f"{lang}_ground_truth": truth, f"{lang}_target_new": target}
    assert fields_with("target-equals-truth", **change) == [(lang, "target_new")]
    assert fields_with("target-near-truth", **change) == []


@pytest.mark.parametrize(
    ("lang", "truth", "target"),
    [
        ("zh", "1.5亿", "15亿"),
        ("zh", "-40", "40"),
        ("zh", "3-4", "34"),
        ("zh", "由北向南", "由南向北"),
        ("en", "C", "C++"),
        ("en", "1637", "1638"),
    ],
)
def test_a_different_answer_is_neither_equal_nor_near(lang: str, truth: str, target: str) -> None:
    change = {f"{lang}_ground_truth": truth, f"{lang}_target_new": target}
    assert fields_with("target-equals-truth", **change) == []
    assert fields_with("target-near-truth", **change) == []


@pytest.mark.parametrize(
    ("lang", "truth", "target"),
    [
        ("zh", "鲁迅", "鲁迅先生"),
        ("zh", "长安城", "长安"),
        ("en", "Sui", "the Sui Dynasty"),
        ("en", "Beethovenberg", "Beethovemberg"),
    ],
)
def test_a_contained_or_misspelled_answer_is_near(lang: str, truth: str, target: str) -> None:
    change = {f"{lang}_ground_truth": truth, f"{lang}_target_new": target}
    assert fields_with("target-near-truth", **change) == [(lang, "target_new")]


@pytest.mark.parametrize(
    ("lang", "truth", "target"),
    [
        ("zh", "对称", "不对称"),
        ("zh", "水", "水银"),
        ("zh", "8卷", "18卷"),
        ("zh", "二氧化碳", "一氧化碳"),
        ("en", "stable", "not stable"),
        ("en", "Northern Song dynasty", "Southern Song dynasty"),
        ("en", "rain", "train"),
    ],
)
def test_a_clearly_different_answer_is_not_near(lang: str, truth: str, target: str) -> None:
    change = {f"{lang}_ground_truth": truth, f"{lang}_target_new": target}
    assert fields_with("target-near-truth", **change) == []


# --- rephrasing


@pytest.mark.parametrize(
    ("lang", "rephrase"),
    [
        ("zh", "小说《边城》的作者是"),
        ("zh", "小说“边城”的作者是"),
        ("en", "the novel Border Town  was written by"),
    ],
)
def test_a_repeated_prompt_is_equal_and_not_near(lang: str, rephrase: str) -> None:
    change = {f"{lang}_rephrase_prompt": rephrase}
    assert fields_with("rephrase-equals-prompt", **change) == [(lang, "rephrase_prompt")]
    assert fields_with("rephrase-near-prompt", **change) == []


def test_a_rephrasing_with_one_more_word_is_near() -> None:
    change = {"en_rephrase_prompt": "The novel Border Town was once written by"}
    assert fields_with("rephrase-near-prompt", **change) == [("en", "rephrase_prompt")]
    assert fields_with("rephrase-equals-prompt", **change) == []


@pytest.mark.parametrize(
    ("lang", "prompt", "subject", "message"),
    [
        ("en", "Paris is larger than Paris, a town in", "Paris", "2 times in"),
        ("en", "The Iranian leader is", "Iran", "only part of a word"),
        ("zh", "中国人民大学位于中国的", "中国", "2 times in"),
    ],
)
def test_a_subject_without_a_clear_place_is_a_warning(
    lang: str, prompt: str, subject: str, message: str
) -> None:
    changed = candidate(**{f"{lang}_prompt": prompt, f"{lang}_subject": subject})
    (problem,) = RULES["subject-ambiguous"](changed)
    assert (problem.lang, problem.field) == (lang, "prompt")
    assert message in problem.message
    assert CODES["subject-ambiguous"].severity == "warning"


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [("The Iranian leader of Iran is", "Iran"), ("Iran's capital is", "Iran")],
)
def test_one_place_as_a_word_of_its_own_is_clear(prompt: str, subject: str) -> None:
    changed = candidate(en_prompt=prompt, en_subject=subject)
    assert list(RULES["subject-ambiguous"](changed)) == []

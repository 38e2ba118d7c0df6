from __future__ import annotations

from typing import Any

import pytest
from helpers.example_candidates import candidate

from clm_data.codes import CODES
from clm_data.records import Candidate
from clm_data.validate.rules import RULES, problems_of


def found(code: str, **changes: Any) -> list[tuple[str | None, str | None]]:
    return [(problem.lang, problem.field) for problem in RULES[code](candidate(**changes))]


EXAMPLES: dict[str, dict[str, Any]] = {
    "empty-field": {"en_ground_truth": None},
    "subject-not-in-prompt": {"zh_prompt": "这部中篇小说的作者是"},
    "subject-not-in-rephrase": {"zh_rephrase_prompt": "翠翠的故事，写它的人是"},
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
    assert found("subject-not-in-prompt", **change) == [("zh", "prompt")]
    assert found("subject-not-in-rephrase", **change) == [("zh", "rephrase_prompt")]


def test_the_subject_is_case_sensitive() -> None:
    assert found("subject-not-in-prompt", en_subject="border town") == [("en", "prompt")]


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
    assert ("zh", "prompt") in found("answer-in-prompt", **change)


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
    assert found("answer-in-prompt", **change) == []


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
    assert found("answer-in-prompt", **change) == [("en", "prompt")]


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
    assert found("answer-in-prompt", en_ground_truth=truth, en_prompt=prompt) == []


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
    assert found("target-equals-truth", **change) == [(lang, "target_new")]
    assert found("target-near-truth", **change) == []


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
    assert found("target-equals-truth", **change) == []
    assert found("target-near-truth", **change) == []


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
    assert found("target-near-truth", **change) == [(lang, "target_new")]


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
    assert found("target-near-truth", **change) == []


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
    assert found("rephrase-equals-prompt", **change) == [(lang, "rephrase_prompt")]
    assert found("rephrase-near-prompt", **change) == []


def test_a_rephrasing_with_one_more_word_is_near() -> None:
    change = {"en_rephrase_prompt": "The novel Border Town was once written by"}
    assert found("rephrase-near-prompt", **change) == [("en", "rephrase_prompt")]
    assert found("rephrase-equals-prompt", **change) == []


# --- cloze


@pytest.mark.parametrize(
    ("lang", "prompt"),
    [
        ("zh", "《边城》的作者是谁"),
        ("zh", "《边城》的作者叫什么名字？"),
        ("zh", "《边城》的作者是沈某某。"),
        ("zh", "《边城》的作者是____"),
        ("zh", "《边城》的作者是（　）"),
        ("zh", "《边城》写于哪一年"),
        ("zh", "《边城》有多少章"),
        ("zh", "《边城》的作者为何人"),
        ("zh", "《边城》的作者是湖南人吗"),
        ("zh", "《边城》的作者是……"),
        ("zh", "《边城》分第几章"),
        ("en", "Who wrote Border Town?"),
        ("en", "Who wrote Border Town"),
        ("en", "Who is the author of Border Town"),
        ("en", "When was Border Town published"),
        ("en", "Which author wrote Border Town"),
        ("en", "In which year did Border Town appear"),
        ("en", "In what year was Border Town written"),
        ("en", "How many chapters does Border Town have"),
        ("en", "Did Shen write Border Town"),
        ("en", "The author of Border Town is who"),
        ("en", "The author of Border Town is ____"),
        ("en", "The author of Border Town is [MASK]"),
        ("en", "Border Town was written in 1934."),
        ("en", "The author of Border Town is:"),
    ],
)
def test_a_question_or_a_complete_sentence_is_not_a_cloze(lang: str, prompt: str) -> None:
    assert found("prompt-not-cloze", **{f"{lang}_prompt": prompt}) == [(lang, "prompt")]


@pytest.mark.parametrize(
    ("lang", "subject", "prompt"),
    [
        ("zh", "边城", "《谁动了我的奶酪》与《边城》的共同点是"),
        ("zh", "谁是最可爱的人", "通讯谁是最可爱的人的作者是"),
        ("zh", "哪吒", "哪吒的父亲是"),
        ("zh", "保尔", "保尔是《钢铁是怎样炼成的》的"),
        ("zh", "几何原本", "几何原本的译者是"),
        ("zh", "十万个为什么", "丛书《十万个为什么》的首个出版者是"),
        ("zh", "边城", "“边城无处不飞花”里的边城，作者称之为"),
        ("en", "Border Town", "The man who wrote Border Town was"),
        ("en", "Border Town", "The year in which Border Town appeared was"),
        ("en", "Zhao Yun", "Where Zhao Yun rescued A Dou was"),
        ("en", "Xi'an", "What is now Xi'an was formerly known as"),
        ("en", "Guizhou", "In what is now Guizhou the thinker who awoke to the truth was"),
        ("en", "Herschel", "What made Herschel famous was finding the planet"),
        ("en", "Who Is Who", "Who Is Who was first published in"),
        ("en", "Washington, D.C.", "The man who planned Washington, D.C."),
        ("en", "Basilica", "The Basilica in Rome is named after St."),
    ],
)
def test_an_open_statement_is_a_cloze(lang: str, subject: str, prompt: str) -> None:
    change = {f"{lang}_prompt": prompt, f"{lang}_subject": subject}
    assert found("prompt-not-cloze", **change) == []


# --- script and language


@pytest.mark.parametrize(
    "change",
    [
        {"en_ground_truth": "Soviet政权"},
        {"en_prompt": "The novel 边城, or Border Town, was written by"},
        {"zh_ground_truth": "苏维埃regime"},
        {"zh_ground_truth": "chaitya"},
        {"zh_target_new": "the old order"},
        {"en_ground_truth": "Владимир Lenin"},
        {"zh_subject": "边の城"},
    ],
)
def test_words_in_another_script_are_reported(change: dict[str, str]) -> None:
    [name] = change
    lang, field = name.split("_", 1)
    assert found("mixed-script", **change) == [(lang, field)]


@pytest.mark.parametrize(
    "text",
    [
        "DNA",
        "iPhone",
        "pH值",
        "C919",
        "5 km",
        "维生素B12",
        "mRNA疫苗",
        "Ludwig van Beethoven",
        "α粒子",
    ],
)
def test_names_units_and_abbreviations_are_allowed_in_chinese(text: str) -> None:
    assert found("mixed-script", zh_ground_truth=text) == []
    assert found("wrong-language", zh_ground_truth=text) == []


def test_accented_letters_are_allowed_in_english() -> None:
    assert found("mixed-script", en_ground_truth="Lü Meng, café") == []


@pytest.mark.parametrize(
    "change",
    [
        {"zh_prompt": "The novel Border Town was written by"},
        {"zh_rephrase_prompt": "The author of 边城 is the writer named"},
        {"en_prompt": "小说《边城》的作者是"},
        {"en_rephrase_prompt": "小说《边城》的作者是Shen的朋友"},
        {"en_subject": "边城"},
        {"en_ground_truth": "沈从文"},
    ],
)
def test_a_text_in_another_language_is_reported_once(change: dict[str, str]) -> None:
    [name] = change
    lang, field = name.split("_", 1)
    assert found("wrong-language", **change) == [(lang, field)]
    assert found("mixed-script", **change) == []


@pytest.mark.parametrize(
    "prompt",
    [
        "Taarak Mehta Ka Ooltah Chashmah的首播年份是",
        "第一代苹果iPod Touch发布于",
        "歌曲《Someone That I Used to Know》的演唱者是",
        "DNA的中文全称是",
    ],
)
def test_a_chinese_prompt_with_foreign_names_is_chinese(prompt: str) -> None:
    assert found("wrong-language", zh_prompt=prompt) == []


# --- characters


@pytest.mark.parametrize("text", ["生长基質", "後来", "鍾錶", "臺北", "乾燥的國家"])
def test_traditional_characters_are_reported(text: str) -> None:
    assert found("traditional-characters", zh_ground_truth=text) == [("zh", "ground_truth")]


@pytest.mark.parametrize(
    "text",
    ["乾隆", "乾坤", "康乾盛世", "著名", "瞭望", "毕昇", "魏徵", "钱锺书", "祢衡", "丫鬟", "慰藉"],
)
def test_standard_simplified_text_is_not_reported_as_traditional(text: str) -> None:
    assert found("traditional-characters", zh_ground_truth=text) == []


@pytest.mark.parametrize(
    "char", list("\u200b\u200e\u202e\u2060\ufeff\ufffd\ue000\x07\n\u00ad\ufe0f\u2028\u3164")
)
def test_invisible_characters_are_reported_by_code_point(char: str) -> None:
    [problem] = RULES["control-character"](candidate(en_ground_truth=f"Shen{char}Congwen"))
    assert f"U+{ord(char):04X}" in problem.message
    assert char not in problem.message


@pytest.mark.parametrize("text", ["Lü Meng", "naïve café", "曹操、刘备", "H₂O", "“引文”"])
def test_visible_characters_are_not_control_characters(text: str) -> None:
    assert found("control-character", en_ground_truth=text) == []


@pytest.mark.parametrize(
    "text",
    [" 沈从文", "沈从文 ", "沈 从文", "沈\u3000从文", "Shen  Congwen", "Shen\u00a0C", "c.\u20091"],
)
def test_stray_spaces_are_reported(text: str) -> None:
    assert found("stray-whitespace", zh_ground_truth=text) == [("zh", "ground_truth")]


@pytest.mark.parametrize("text", ["福特 F150 汽车", "Shen Congwen", "15 号"])
def test_spaces_between_words_are_not_stray(text: str) -> None:
    assert found("stray-whitespace", zh_ground_truth=text) == []


# --- numbers and lengths


def test_numbers_are_compared_field_by_field() -> None:
    change = {"zh_ground_truth": "1934年", "en_ground_truth": "1935"}
    [problem] = RULES["number-mismatch"](candidate(**change))
    assert (problem.lang, problem.field) == (None, "ground_truth")
    assert "zh 1934, en 1935" in problem.message
    assert found("number-mismatch", zh_ground_truth="1934年", en_ground_truth="1934") == []


def test_the_numbers_of_a_probe_are_compared_too() -> None:
    assert found("number-mismatch", zh_loc_ans="八十八", en_loc_ans="89") == [(None, "loc_ans")]


@pytest.mark.parametrize(
    ("name", "limit"),
    [("zh_prompt", 80), ("zh_subject", 40), ("en_rephrase_prompt", 240), ("en_target_new", 120)],
)
def test_lengths_are_limited(name: str, limit: int) -> None:
    lang, field = name.split("_", 1)
    assert found("length", **{name: "一" * limit}) == []
    assert found("length", **{name: "一" * (limit + 1)}) == [(lang, field)]


# --- probes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zh_loc", "who wrote the score"),
        ("zh_loc", " kill bill"),
        ("zh_loc_ans", "about 9 days after ovulation"),
        ("zh_loc_ans", "chaitya"),
        ("en_loc", "钢琴有几个键"),
        ("en_loc_ans", "八十八"),
    ],
)
def test_an_untranslated_probe_is_reported(name: str, text: str) -> None:
    lang, field = name.split("_", 1)
    assert found("untranslated-probe", **{name: text}) == [(lang, field)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zh_loc", "《Die a Happy Man》是谁写的？"),
        ("zh_loc", "kill bill中的功夫大师是谁？"),
        ("zh_loc_ans", "Steve Goodman"),
        ("zh_loc_ans", "IATA：SAN"),
        ("zh_loc_ans", "2,430"),
        ("en_loc", "what does the character 福 mean"),
        ("en_loc_ans", "Atlético Madrid"),
    ],
)
def test_a_translated_probe_may_contain_foreign_names(name: str, text: str) -> None:
    assert found("untranslated-probe", **{name: text}) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zh_loc", "《边城》有几章？"),
        ("zh_loc", "汪曾祺是哪里人？"),
        ("zh_loc_ans", "沈从文"),
        ("en_loc", "where is border town"),
        ("en_loc_ans", "Shen Congwen himself"),
    ],
)
def test_a_probe_that_mentions_the_edit_is_reported(name: str, text: str) -> None:
    lang, field = name.split("_", 1)
    assert found("probe-touches-subject", **{name: text}) == [(lang, field)]


def test_single_characters_and_small_numbers_do_not_count_as_mentions() -> None:
    assert found("probe-touches-subject", zh_ground_truth="琴", probes=True) == []
    assert found("probe-touches-subject", en_target_new="88", probes=True) == []

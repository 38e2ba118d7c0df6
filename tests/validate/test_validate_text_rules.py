"""Rules on single texts and on probes: form, language, characters, numbers and lengths."""

from __future__ import annotations

import pytest
from helpers.example_candidates import candidate
from helpers.findings import fields_with

from clm_data.validate.rules import RULES

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
    assert fields_with("prompt-not-cloze", **{f"{lang}_prompt": prompt}) == [(lang, "prompt")]


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
    assert fields_with("prompt-not-cloze", **change) == []


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
    assert fields_with("mixed-script", **change) == [(lang, field)]


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
    assert fields_with("mixed-script", zh_ground_truth=text) == []
    assert fields_with("wrong-language", zh_ground_truth=text) == []


def test_accented_letters_are_allowed_in_english() -> None:
    assert fields_with("mixed-script", en_ground_truth="Lü Meng, café") == []


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
    assert fields_with("wrong-language", **change) == [(lang, field)]
    assert fields_with("mixed-script", **change) == []


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
    assert fields_with("wrong-language", zh_prompt=prompt) == []


# --- characters


@pytest.mark.parametrize("text", ["生长基質", "後来", "鍾錶", "臺北", "乾燥的國家"])
def test_traditional_characters_are_reported(text: str) -> None:
    assert fields_with("traditional-characters", zh_ground_truth=text) == [("zh", "ground_truth")]


@pytest.mark.parametrize(
    "text",
    ["乾隆", "乾坤", "康乾盛世", "著名", "瞭望", "毕昇", "魏徵", "钱锺书", "祢衡", "丫鬟", "慰藉"],
)
def test_standard_simplified_text_is_not_reported_as_traditional(text: str) -> None:
    assert fields_with("traditional-characters", zh_ground_truth=text) == []


@pytest.mark.parametrize(
    "char", list("\u200b\u200e\u202e\u2060\ufeff\ufffd\ue000\x07\n\u00ad\ufe0f\u2028\u3164")
)
def test_invisible_characters_are_reported_by_code_point(char: str) -> None:
    [problem] = RULES["control-character"](candidate(en_ground_truth=f"Shen{char}Congwen"))
    assert f"U+{ord(char):04X}" in problem.message
    assert char not in problem.message


@pytest.mark.parametrize("text", ["Lü Meng", "naïve café", "曹操、刘备", "H₂O", "“引文”"])
def test_visible_characters_are_not_control_characters(text: str) -> None:
    assert fields_with("control-character", en_ground_truth=text) == []


@pytest.mark.parametrize(
    "text",
    [" 沈从文", "沈从文 ", "沈 从文", "沈\u3000从文", "Shen  Congwen", "Shen\u00a0C", "c.\u20091"],
)
def test_stray_spaces_are_reported(text: str) -> None:
    assert fields_with("stray-whitespace", zh_ground_truth=text) == [("zh", "ground_truth")]


@pytest.mark.parametrize("text", ["福特 F150 汽车", "Shen Congwen", "15 号"])
def test_spaces_between_words_are_not_stray(text: str) -> None:
    assert fields_with("stray-whitespace", zh_ground_truth=text) == []


# --- numbers and lengths


def test_numbers_are_compared_field_by_field() -> None:
    change = {"zh_ground_truth": "1934年", "en_ground_truth": "1935"}
    [problem] = RULES["number-mismatch"](candidate(**change))
    assert (problem.lang, problem.field) == (None, "ground_truth")
    assert "zh 1934, en 1935" in problem.message
    assert fields_with("number-mismatch", zh_ground_truth="1934年", en_ground_truth="1934") == []


def test_the_numbers_of_a_probe_are_compared_too() -> None:
    assert fields_with("number-mismatch", zh_loc_ans="八十八", en_loc_ans="89") == [
        (None, "loc_ans")
    ]


@pytest.mark.parametrize(
    ("name", "limit"),
    [("zh_prompt", 80), ("zh_subject", 40), ("en_rephrase_prompt", 240), ("en_target_new", 120)],
)
def test_lengths_are_limited(name: str, limit: int) -> None:
    lang, field = name.split("_", 1)
    assert fields_with("length", **{name: "一" * limit}) == []
    assert fields_with("length", **{name: "一" * (limit + 1)}) == [(lang, field)]


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
    assert fields_with("untranslated-probe", **{name: text}) == [(lang, field)]


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
    assert fields_with("untranslated-probe", **{name: text}) == []


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
    assert fields_with("probe-touches-subject", **{name: text}) == [(lang, field)]


def test_single_characters_and_small_numbers_do_not_count_as_mentions() -> None:
    assert fields_with("probe-touches-subject", zh_ground_truth="琴", probes=True) == []
    assert fields_with("probe-touches-subject", en_target_new="88", probes=True) == []

from __future__ import annotations

from typing import Any

import pytest
from helpers.example_candidates import candidate

from clm_data.codes import CODES
from clm_data.validate import RULES
from clm_data.validate.sets import (
    conflicting_truths,
    duplicate_facts,
    duplicate_ids,
    near_duplicates,
    repeated_probes,
    similar_prompts,
)

SET_RULES: dict[str, Any] = {
    "duplicate-id": duplicate_ids,
    "conflicting-truth": conflicting_truths,
    "repeated-probe": repeated_probes,
    "duplicate-fact": duplicate_facts,
    "near-duplicate": lambda rows: near_duplicates(rows, 0.9),
    "similar-prompt": lambda rows: similar_prompts(rows, 0.9, field="zh.prompt"),
}


@pytest.mark.parametrize("code", SET_RULES)
def test_each_rule_on_sets_yields_exactly_its_own_code(code: str) -> None:
    same: dict[str, Any] = {"case_id": 1, "probes": True}
    rows = [candidate("a", **same), candidate("b", zh_ground_truth="巴金", **same)]
    found = list(SET_RULES[code](rows))
    assert "b" in {id_ for id_, _ in found}
    assert {problem.code for _, problem in found} == {code}


def test_every_code_of_validation_belongs_to_a_rule() -> None:
    other_stages = {"unreadable-answer", "rejected-by-reviewer", "contrary-decisions"}
    assert CODES.keys() == {*RULES, *SET_RULES, *other_stages}


def test_a_duplicate_id_is_reported_on_every_entry_whatever_its_type() -> None:
    rows = [candidate("a", case_id=1), candidate("b", case_id=2), candidate("c", case_id="1")]
    assert [(id_, p.field, p.twin) for id_, p in duplicate_ids(rows)] == [
        ("a", "id", "c"),
        ("c", "id", "a"),
    ]


def test_an_id_of_another_type_is_reported_without_a_duplicate() -> None:
    rows = [candidate("a", case_id=1), candidate("b", case_id=2), candidate("c", case_id="3")]
    assert [id_ for id_, _ in duplicate_ids(rows)] == ["c"]


def test_equal_ids_in_two_sources_are_not_duplicates() -> None:
    other = candidate("b", case_id=1)
    other = other.model_copy(update={"origin": other.origin.model_copy(update={"name": "b.json"})})
    assert list(duplicate_ids([candidate("a", case_id=1), other, candidate("c")])) == []


@pytest.mark.parametrize(
    ("prompt", "truth", "conflict"),
    [
        ("小说《边城》的作者是", "巴金", True),
        ("这部小说《边城》的作者是", "巴金", True),
        ("小说《边城》的作者是", "沈從文", False),
        ("小说《边城》的出版年份是", "1934年", False),
    ],
)
def test_different_truths_for_the_same_question_conflict(
    prompt: str, truth: str, conflict: bool
) -> None:
    later = candidate("b", zh_prompt=prompt, zh_ground_truth=truth, zh_rephrase_prompt="它的年份")
    found = [(id_, p.lang, p.twin) for id_, p in conflicting_truths([candidate("a"), later])]
    assert found == ([("b", "zh", "a")] if conflict else [])


def test_a_long_subject_does_not_make_two_questions_the_same() -> None:
    war = "American Revolutionary War"
    rows = [
        candidate(
            id_,
            en_subject=war,
            en_prompt=f"The {what} of the {war} was",
            en_rephrase_prompt=None,
            en_ground_truth=truth,
        )
        for id_, what, truth in (("a", "main cause", "taxation"), ("b", "nature", "revolution"))
    ]
    assert list(conflicting_truths(rows)) == []
    same = rows[0].model_copy(update={"id": "c", "en": rows[1].en})
    asked = rows[0].en.model_copy(update={"ground_truth": "tea"}) if rows[0].en else None
    again = same.model_copy(update={"en": asked})
    assert [(id_, p.lang) for id_, p in conflicting_truths([rows[0], again])] == [("c", "en")]


def test_a_repeated_probe_is_reported_on_the_later_entry() -> None:
    rows = [
        candidate("a", probes=True),
        candidate("b", zh_loc="另一个问题？", en_loc="how MANY keys does a standard piano have?"),
        candidate("c", zh_loc="第三个问题？", en_loc="A third question?"),
    ]
    assert [(id_, p.lang, p.twin) for id_, p in repeated_probes(rows)] == [("b", "en", "a")]


def test_a_duplicate_fact_is_reported_per_language() -> None:
    rows = [candidate("a"), candidate("b", zh_prompt="《边城》的作者就是"), candidate("c")]
    assert [(id_, p.lang, p.twin) for id_, p in duplicate_facts(rows)] == [
        ("b", "en", "a"),
        ("c", "zh", "a"),
        ("c", "en", "a"),
    ]


def test_near_duplicates_are_strictly_above_the_threshold() -> None:
    prompts = ["一二三四五六七八九十", "一二三四五六七八九百", "一二三四五六七八九十百", None]
    rows = [candidate(str(n), zh_prompt=p, en_prompt=None) for n, p in enumerate(prompts)]
    found = [(id_, p.twin, round(p.ratio or 0, 3)) for id_, p in near_duplicates(rows, 0.9)]
    assert found == [("2", "0", 0.952), ("2", "1", 0.952)]
    assert len(list(near_duplicates(rows, 0.89))) == 3

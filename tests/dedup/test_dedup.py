from __future__ import annotations

from fractions import Fraction

import pytest
from helpers.example_records import example_fact
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Indel

from clm_data.dedup import (
    IncrementalDeduplicator,
    deduplicate_entries,
    similar_pairs,
    similarity,
)
from clm_data.records import Entry, Fact, Origin

TEXTS = st.sampled_from(["ab", "甲乙", "甲a 😀", "abcdefgh"]).flatmap(
    lambda alphabet: st.lists(st.text(alphabet, max_size=24), max_size=30)
)


def entry(id: str, zh_prompt: str, zh_subject: str = "主语", number: int = 0) -> Entry:
    zh = example_fact("zh", number).model_copy(update={"prompt": zh_prompt, "subject": zh_subject})
    return Entry(
        id=id,
        domain="rivers",
        origin=Origin(kind="import", name="made.json"),
        zh=zh,
        en=example_fact("en", number),
    )


def is_above(left: str, right: str, threshold: float) -> bool:
    size, distance = len(left) + len(right), Indel.distance(left, right)
    ratio = Fraction(size - distance, size) if size else Fraction(1)
    return ratio > Fraction(str(threshold))


@given(TEXTS, st.sampled_from([0.0, 0.5, 0.75, 0.9, 0.95, 1.0]))
def test_similar_pairs_match_brute_force(texts: list[str], threshold: float) -> None:
    expected = [
        (left, right)
        for right in range(len(texts))
        for left in range(right)
        if is_above(texts[left], texts[right], threshold)
    ]
    assert [(pair.left, pair.right) for pair in similar_pairs(texts, threshold)] == expected


def test_pairs_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{number % 40:02d} 号河流的源头位于东边的山谷里" for number in range(120)]
    expected = similar_pairs(texts, 0.9)
    monkeypatch.setattr("clm_data.dedup.join.with_rapidfuzz._ROWS", 7)
    monkeypatch.setattr("clm_data.dedup.join.with_rapidfuzz._COLUMNS", 11)
    assert similar_pairs(texts, 0.9) == expected
    assert len(expected) >= 120


@pytest.mark.parametrize("length", range(1, 131))
def test_texts_at_exactly_the_threshold_are_not_a_pair(length: int) -> None:
    for changed in range(length // 5 + 2):
        left, right = "a" * length, "a" * (length - min(changed, length)) + "b" * changed
        found = bool(similar_pairs([left, right], 0.9))
        assert found == (10 * Indel.distance(left, right) < len(left) + len(right))


def test_ratio_is_computed_from_integers() -> None:
    (pair,) = similar_pairs(["鲁迅的原名是什么呢啊", "鲁迅的原名是什么呢"], 0.9)
    assert pair == (0, 1, 18 / 19)
    assert similarity("", "") == 1.0


def test_empty_texts_are_equal() -> None:
    assert [(pair.left, pair.right) for pair in similar_pairs(["", "a", ""], 0.9)] == [(0, 2)]


def test_thresholds_outside_0_to_1_are_errors() -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        similar_pairs(["a"], 1.5)


def test_the_first_of_near_duplicates_is_kept_and_named_in_the_rejection() -> None:
    first = entry("a", "长江中游最大的通江湖泊是", "长江", 1)
    second = entry("b", "长江中游最大的通江湖泊叫是", "中游", 2)
    result = deduplicate_entries([first, second])
    assert result.kept == (first,)
    (rejection,) = result.rejected
    (problem,) = rejection.problems
    assert (rejection.stage, rejection.id, problem.code) == ("deduplicate", "b", "near-duplicate")
    assert (problem.twin, problem.lang, problem.field) == ("a", "zh", "prompt")
    assert problem.ratio == pytest.approx(24 / 25)
    assert Entry.model_validate(rejection.content) == second


def test_entries_at_exactly_the_threshold_are_kept() -> None:
    pair = [
        entry("a", "甲乙丙丁戊己庚辛壬癸", "甲", 1),
        entry("b", "甲乙丙丁戊己庚辛壬子", "乙", 2),
    ]
    assert len(deduplicate_entries(pair).kept) == 2
    assert len(deduplicate_entries(pair, threshold=0.89).kept) == 1


def test_a_rejected_entry_does_not_cause_the_rejection_of_another() -> None:
    """b is similar to a, and c to b but not to a: c is kept."""
    texts = ["甲" * 20, "甲" * 19 + "乙" * 1, "甲" * 18 + "乙" * 2]
    assert is_above(texts[0], texts[1], 0.9)
    assert is_above(texts[1], texts[2], 0.9)
    entries = [
        entry(name, text, name, n) for n, (name, text) in enumerate(zip("abc", texts, strict=True))
    ]
    assert [kept.id for kept in deduplicate_entries(entries, threshold=0.9).kept] == ["a", "c"]


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_an_equal_prompt_and_subject_in_either_language_is_a_duplicate(lang: str) -> None:
    same: Fact = example_fact(lang, 1)
    other = entry("b", "完全不同的另一道题目是", "题目", 2).model_copy(update={lang: same})
    first = entry("a", "长江", "长", 1).model_copy(update={lang: same})
    (rejection,) = deduplicate_entries([first, other]).rejected
    assert (rejection.code, rejection.problems[0].lang, rejection.problems[0].twin) == (
        "duplicate-fact",
        lang,
        "a",
    )
    assert rejection.problems[0].ratio is not None


def test_texts_are_compared_after_normalization() -> None:
    result = deduplicate_entries([entry("a", "ＡＢＣ 是", "x", 1), entry("b", " ABC  是 ", "x", 2)])
    assert [rejection.code for rejection in result.rejected] == ["duplicate-fact"]


def test_the_compared_field_can_be_chosen() -> None:
    entries = [entry("a", "长江", "长", 1), entry("b", "黄河", "黄", 2)]
    assert len(deduplicate_entries(entries).kept) == 2
    assert len(deduplicate_entries(entries, field="en.prompt").kept) == 1


SEA = "世界上最深的海是"
STRAIT = "世界上最深的海峡是"
"""Similar above 0.9, about different things."""


def test_near_duplicates_with_different_subjects_are_kept_by_subject() -> None:
    pair = [entry("a", SEA, "海", 1), entry("b", STRAIT, "海峡", 2)]
    assert [rejection.code for rejection in deduplicate_entries(pair).rejected] == [
        "near-duplicate"
    ]
    by_subject = deduplicate_entries(pair, policy="by-subject")
    assert len(by_subject.kept) == 2
    ((id_, warning),) = by_subject.warnings
    assert (id_, warning.code, warning.twin, warning.severity) == (
        *("b", "similar-prompt", "a", "warning"),
    )
    incremental = IncrementalDeduplicator(policy="by-subject")
    assert [incremental.offer(each) for each in pair] == [None, None]


def test_near_duplicates_with_the_same_subject_are_removed_by_subject_too() -> None:
    pair = [entry("a", SEA, "海", 1), entry("b", STRAIT, " 海 ", 2)]
    assert len(deduplicate_entries(pair, policy="by-subject").kept) == 1


@pytest.mark.parametrize(
    ("reviewed", "kept"), [(set(), 1), ({"a"}, 1), ({"b"}, 1), ({"a", "b"}, 2)]
)
def test_near_duplicates_that_people_accepted_are_both_kept(reviewed: set[str], kept: int) -> None:
    pair = [entry("a", SEA, "海", 1), entry("b", STRAIT, "海", 2)]
    result = deduplicate_entries(pair, reviewed=set(reviewed))
    assert len(result.kept) == kept
    assert len(result.warnings) == kept - 1


@settings(max_examples=50)
@given(st.lists(st.text("甲乙a", min_size=1, max_size=12), max_size=12))
def test_incremental_and_batch_deduplication_agree(prompts: list[str]) -> None:
    entries = [entry(f"e{n}", text, f"s{n % 3}", n) for n, text in enumerate(prompts)]
    incremental = IncrementalDeduplicator(threshold=0.7)
    rejected = [rejection for each in entries if (rejection := incremental.offer(each)) is not None]
    batch = deduplicate_entries(entries, threshold=0.7)
    assert len(incremental) == len(batch.kept)
    assert rejected == list(batch.rejected)


@settings(max_examples=50)
@given(st.lists(st.text("甲乙a", min_size=1, max_size=12), max_size=12))
def test_every_entry_is_kept_or_rejected_and_no_two_kept_entries_are_similar(
    prompts: list[str],
) -> None:
    entries = [entry(f"e{n}", text, f"s{n}", n) for n, text in enumerate(prompts)]
    result = deduplicate_entries(entries, threshold=0.8)
    ids = [kept.id for kept in result.kept] + [rejection.id for rejection in result.rejected]
    assert sorted(ids) == sorted(item.id for item in entries)
    assert similar_pairs([kept.zh.prompt.strip() for kept in result.kept], 0.8) == []
    kept_ids = {kept.id for kept in result.kept}
    assert all(rejection.problems[0].twin in kept_ids for rejection in result.rejected)

"""The incremental index finds the pairs that the join finds."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_data.dedup.join.all_pairs import similarity_join
from clm_data.dedup.join.index import Match, SimilarityIndex

ANY = st.characters(exclude_categories=())


def pairs_by_index(
    texts: list[str], threshold: float | Fraction, inclusive: bool
) -> set[tuple[int, int]]:
    index = SimilarityIndex(threshold, inclusive=inclusive)
    pairs = set()
    for position, text in enumerate(texts):
        pairs |= {(match.position, position) for match in index.matches(text)}
        assert index.add(text) == position
    return pairs


def pairs_by_join(
    texts: list[str], threshold: float | Fraction, inclusive: bool
) -> set[tuple[int, int]]:
    blocks = similarity_join(texts, threshold, inclusive=inclusive)
    return {pair for b in blocks for pair in zip(b.left.tolist(), b.right.tolist(), strict=True)}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(alphabet=ANY | st.sampled_from("ab"), max_size=9), max_size=14),
    st.sampled_from([0.0, 0.5, 0.7, Fraction(5, 7), 0.9, 1.0]),
    st.booleans(),
)
def test_matches_the_join_on_any_unicode(
    texts: list[str], threshold: float | Fraction, inclusive: bool
) -> None:
    assert pairs_by_index(texts, threshold, inclusive) == pairs_by_join(texts, threshold, inclusive)


@pytest.mark.parametrize("letters", ["ab", "abcdefghijklmnop ", "的一是在不了有和人这中大为上个国"])
@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9, 0.95])
def test_matches_the_join_on_groups_of_similar_texts(letters: str, threshold: float) -> None:
    rng = random.Random(letters)
    texts = []
    for _ in range(40):
        first = rng.choices(letters, k=rng.randint(0, 90))
        for _ in range(8):
            text = list(first)
            for _ in range(rng.randint(0, 1 + len(first) // 12)):
                at = rng.randint(0, len(text))
                text[at : at + rng.randint(0, 1)] = rng.choices(letters, k=rng.randint(0, 1))
            texts.append("".join(text))
    expected = pairs_by_join(texts, threshold, inclusive=False)
    assert len(expected) > 300
    assert pairs_by_index(texts, threshold, inclusive=False) == expected


def test_matches_are_in_order_of_addition_with_their_ratio() -> None:
    index = SimilarityIndex(0.7, ["法国的首都是", "德国的首都是", "法国的货币是", "法国的首都是"])
    assert len(index) == 4
    assert index[1] == "德国的首都是"
    assert index.matches("法国的首都是") == [Match(0, 1.0), Match(1, 10 / 12), Match(3, 1.0)]
    assert index.matches("") == []


def test_texts_at_exactly_the_threshold_match_only_if_inclusive() -> None:
    assert not SimilarityIndex(0.9, ["abcdefghij"]).matches("abcdefghiX")
    assert SimilarityIndex(0.9, ["abcdefghij"], inclusive=True).matches("abcdefghiX")

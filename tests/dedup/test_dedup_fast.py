"""The compiled join finds what brute force finds."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from itertools import islice, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import process
from rapidfuzz.distance import Indel

from clm_data.bank import load_entries
from clm_data.dedup.exact import Limit, Pairs, plain_pairs
from clm_data.dedup.fast import distinct, join_codes

THRESHOLDS = [0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, Fraction(5, 7)]
LETTERS = {
    "two symbols": "ab",
    "latin": "abcdefghijklmnopqrstuvwxyz ABC,.",
    "five thousand": "".join(chr(0x4E00 + index) for index in range(5000)),
    "emoji and lone surrogates": "".join(map(chr, range(0x1F600, 0x1F640))) + "\ud800\udfff\0的",
}


def table(blocks: Iterable[Pairs]) -> np.ndarray:
    """All pairs as sorted rows of left, right and distance."""
    rows = [np.stack(block, axis=1) for block in blocks]
    found = np.concatenate(rows) if rows else np.zeros((0, 3), np.int64)
    return found[np.lexsort(found.T[::-1])]


def everything(texts: list[str]) -> np.ndarray:
    """Distances of all texts to all, with no filter before them."""
    return process.cdist(texts, texts, scorer=Indel.distance, dtype=np.int32)


def brute(
    texts: list[str], distances: np.ndarray, threshold: float | Fraction, inclusive: bool = False
) -> np.ndarray:
    """The pairs, by the definition and in integers."""
    ratio = Fraction(str(threshold))
    sizes = np.array([len(text) for text in texts], dtype=np.int64)
    slack = (ratio.denominator - ratio.numerator) * (sizes[:, None] + sizes)
    scaled = ratio.denominator * distances.astype(np.int64)
    near = scaled <= slack if inclusive else scaled < slack
    if ratio < 1:
        near |= distances == 0
    left, right = np.nonzero(np.triu(near, 1))
    return np.stack([left, right, distances[left, right]], axis=1).astype(np.int64)


def corpus(letters: str, longest: int, seed: int, families: int = 50) -> list[str]:
    """Families of texts that differ by a few edits, with empty and repeated ones among them."""
    rng = random.Random(seed)
    texts = ["", "", letters[0]]
    for _ in range(families):
        first = rng.choices(letters, k=rng.randint(0, longest))
        for _ in range(12):
            text = list(first)
            for _ in range(rng.randint(0, 1 + len(first) // 10)):
                at = rng.randint(0, len(text))
                text[at : at + rng.randint(0, 1)] = rng.choices(letters, k=rng.randint(0, 1))
            texts.append("".join(text))
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize("longest", [12, 40, 130, 500])
@pytest.mark.parametrize("name", LETTERS)
def test_equal_to_brute_force_on_families_of_random_texts(name: str, longest: int) -> None:
    texts = corpus(LETTERS[name], longest, seed=longest, families=30 if longest < 500 else 15)
    distances = everything(texts)
    # Sixteen such cases: far over 10,000 different true pairs in all.
    assert len(brute(texts, distances, 0.7)) > 800
    for threshold in THRESHOLDS:
        inclusive = threshold in {0.75, 0.85, 0.99}
        found = table(join_codes(texts, threshold, inclusive=inclusive, fast_from=1))
        expected = brute(texts, distances, threshold, inclusive)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["latin", "five thousand"])
def test_equal_to_brute_force_beyond_the_longest_marked_row(name: str) -> None:
    texts = corpus(LETTERS[name], 1300, seed=5, families=12)
    assert sum(len(text) > 1024 for text in texts) > 10
    distances = everything(texts)
    for threshold in (0.8, 0.9, 0.95):
        found = table(join_codes(texts, threshold, fast_from=1))
        np.testing.assert_array_equal(found, brute(texts, distances, threshold))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=()), max_size=9), max_size=12),
    st.sampled_from([0.0, 0.5, *THRESHOLDS]),
    st.booleans(),
)
def test_equal_to_brute_force_on_any_unicode(
    texts: list[str], threshold: float | Fraction, inclusive: bool
) -> None:
    found = table(join_codes(texts, threshold, inclusive=inclusive, fast_from=1))
    np.testing.assert_array_equal(found, brute(texts, everything(texts), threshold, inclusive))


def test_surrogates_are_characters_like_others() -> None:
    texts = ["\ud800" + "字" * 12, "\udfff" + "字" * 12, "字" * 12]
    found = table(join_codes(texts, 0.9, fast_from=1))
    assert found.tolist() == [[0, 1, 2], [0, 2, 1], [1, 2, 1]]


def test_exactly_the_threshold_is_no_pair_unless_inclusive() -> None:
    texts = ["abcdefghij", "abcdefghiX", "世界上最大的海湾是什么", "世界上最大的海峡是什么"]
    assert table(join_codes(texts, 0.9, fast_from=1)).tolist() == [[2, 3, 2]]
    both = table(join_codes(texts, 0.9, inclusive=True, fast_from=1))
    assert both.tolist() == [[0, 1, 2], [2, 3, 2]]


def test_nothing_is_over_one_and_only_equal_texts_reach_it() -> None:
    texts = ["a", "b", "a", "", "", "a"]
    assert not list(join_codes(texts, 1.0, fast_from=1))
    found = table(join_codes(texts, 1.0, inclusive=True, fast_from=1))
    assert found.tolist() == [[0, 2, 0], [0, 5, 0], [2, 5, 0], [3, 4, 0]]


def test_many_equal_texts_come_in_blocks_of_bounded_size() -> None:
    texts = ["same", "sames"] * 600
    blocks = list(join_codes(texts, 0.8, fast_from=1))
    assert sum(block.left.size for block in blocks) == 1200 * 1199 // 2
    assert max(block.left.size for block in blocks) < 100_000
    assert len(blocks) > 5


def test_a_scan_with_little_room_goes_on_where_it_stopped() -> None:
    from clm_data.dedup import blocking, kernels

    texts = list(dict.fromkeys(corpus(LETTERS["latin"], 60, seed=4, families=60)))
    data = blocking.prepare(texts, Limit.of(0.8)).data

    def scan(room: int) -> list[tuple[int, int]]:
        found = kernels.Found(np.empty(room, int), np.empty(room, int), np.zeros(1, int))
        pairs, first, calls = [], 0, 0
        while first < len(texts):
            reached = kernels.scan(data, first, len(texts), found)
            count = found.count[0]
            if reached == first:
                room *= 2
                found = kernels.Found(np.empty(room, int), np.empty(room, int), found.count)
            pairs += list(zip(found.left[:count], found.right[:count], strict=True))
            first, calls = reached, calls + 1
        assert calls > 5 or room > 10_000
        return pairs

    assert scan(2) == scan(100_000)


@pytest.mark.slow
def test_candidates_that_overflow_their_room_are_all_found() -> None:
    # Texts of one histogram: nothing but the common subsequence tells them apart.
    texts = ["".join(text) for text in islice(permutations("abcdefgh"), 0, None, 4)][:9000]
    found = table(join_codes(texts, 0.8, fast_from=1))
    assert len(found) > 10_000
    np.testing.assert_array_equal(found, table(plain_pairs(texts, Limit.of(0.8))))


def test_number_of_threads_changes_nothing() -> None:
    texts = corpus(LETTERS["latin"], 60, seed=3, families=300)
    one, three = (list(join_codes(texts, 0.85, threads=count, fast_from=1)) for count in (1, 3))
    assert len(one) == len(three) > 3
    for left, right in zip(one, three, strict=True):
        np.testing.assert_array_equal(np.stack(left), np.stack(right))


def test_equal_to_brute_force_on_the_published_sample(sample_folder: Path) -> None:
    texts = []
    for name in ("chinese_fields_with_loc.json", "english_fields_with_loc.json"):
        for row in json.loads((sample_folder / name).read_text(encoding="utf-8")):
            texts.append(str(row.get("prompt") or row.get("english_prompt") or ""))
    agree_with_brute_force(texts)


def test_equal_to_brute_force_on_the_bank() -> None:
    entries = [entry for entries in load_entries().values() for entry in entries]
    facts = [fact for entry in entries for fact in (entry.zh, entry.en)]
    agree_with_brute_force([text for f in facts for text in (f.prompt, f.rephrase_prompt)])


def agree_with_brute_force(texts: list[str]) -> None:
    for threshold in (0.7, 0.8, 0.9):
        found = table(join_codes(texts, threshold, fast_from=1))
        np.testing.assert_array_equal(found, brute(texts, everything(texts), threshold))


def test_a_join_that_is_not_read_to_its_end_stops() -> None:
    texts = corpus(LETTERS["latin"], 60, seed=3, families=300)
    blocks = join_codes(texts, 0.85, fast_from=1)
    assert next(blocks).left.size > 0
    blocks.close()  # type: ignore[attr-defined]
    assert not list(blocks)


def test_progress_ends_with_all_texts() -> None:
    texts = [f"{index:06}" for index in range(3000)]
    told: list[tuple[int, int]] = []
    list(join_codes(texts, 0.9, fast_from=1, progress=lambda *now: told.append(now)))
    assert told == [(1024, 3000), (2048, 3000), (3000, 3000)]


def test_distinct_keeps_the_order_of_first_occurrence() -> None:
    unique = distinct(["b", "a", "b", "c", "a"])
    assert list(unique.texts) == ["b", "a", "c"]
    assert unique.group.tolist() == [0, 1, 0, 2, 1]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_small_joins_load_no_compiled_code() -> None:
    code = "import sys; from clm_data.dedup.fast import join_codes; print('numpy' in sys.modules);"
    code += "list(join_codes(['a', 'b'], 0.9)); print('numba' in sys.modules)"
    assert run(code).split() == ["False", "False"]


def test_without_numba_the_plain_join_does_it() -> None:
    code = "import sys; sys.modules['numba'] = None; from clm_data.dedup.fast import join_codes;"
    code += "print([b.distance.tolist() for b in join_codes(['abcdefghijk', 'abcdefghij'], 0.9,"
    assert run(code + "fast_from=1)])") == "[[1]]"

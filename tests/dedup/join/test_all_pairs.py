"""The fast joins, by numpy and compiled, find what brute force finds."""

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

from clm_data import bank
from clm_data.dedup.join.all_pairs import COMPILED_FROM, SIGNED_FROM, Way, distinct, similarity_join
from clm_data.dedup.join.exact import Limit, Pairs

WAYS: list[Way] = ["signed", "compiled"]
MODULES = {"signed": "with_numpy", "compiled": "with_numba"}
each_way = pytest.mark.parametrize("way", WAYS)
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
@each_way
def test_equal_to_brute_force_on_families_of_random_texts(
    name: str, longest: int, way: Way
) -> None:
    texts = corpus(LETTERS[name], longest, seed=longest, families=30 if longest < 500 else 15)
    distances = everything(texts)
    # Sixteen such cases: far over 10,000 different true pairs in all.
    assert len(brute(texts, distances, 0.7)) > 800
    for threshold in THRESHOLDS:
        inclusive = threshold in {0.75, 0.85, 0.99}
        found = table(similarity_join(texts, threshold, inclusive=inclusive, way=way))
        expected = brute(texts, distances, threshold, inclusive)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["latin", "five thousand"])
@each_way
def test_equal_to_brute_force_beyond_the_longest_marked_row(name: str, way: Way) -> None:
    texts = corpus(LETTERS[name], 1300, seed=5, families=12)
    assert sum(len(text) > 1024 for text in texts) > 10
    distances = everything(texts)
    for threshold in (0.8, 0.9, 0.95):
        found = table(similarity_join(texts, threshold, way=way))
        np.testing.assert_array_equal(found, brute(texts, distances, threshold))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=()), max_size=9), max_size=12),
    st.sampled_from([0.0, 0.5, *THRESHOLDS]),
    st.booleans(),
    st.sampled_from(WAYS),
)
def test_equal_to_brute_force_on_any_unicode(
    texts: list[str], threshold: float | Fraction, inclusive: bool, way: Way
) -> None:
    found = table(similarity_join(texts, threshold, inclusive=inclusive, way=way))
    np.testing.assert_array_equal(found, brute(texts, everything(texts), threshold, inclusive))


@each_way
def test_surrogates_are_characters_like_others(way: Way) -> None:
    texts = ["\ud800" + "字" * 12, "\udfff" + "字" * 12, "字" * 12]
    found = table(similarity_join(texts, 0.9, way=way))
    assert found.tolist() == [[0, 1, 2], [0, 2, 1], [1, 2, 1]]


@each_way
def test_exactly_the_threshold_is_no_pair_unless_inclusive(way: Way) -> None:
    texts = ["abcdefghij", "abcdefghiX", "世界上最大的海湾是什么", "世界上最大的海峡是什么"]
    assert table(similarity_join(texts, 0.9, way=way)).tolist() == [[2, 3, 2]]
    both = table(similarity_join(texts, 0.9, inclusive=True, way=way))
    assert both.tolist() == [[0, 1, 2], [2, 3, 2]]


@each_way
def test_nothing_is_over_one_and_only_equal_texts_reach_it(way: Way) -> None:
    texts = ["a", "b", "a", "", "", "a"]
    assert not list(similarity_join(texts, 1.0, way=way))
    found = table(similarity_join(texts, 1.0, inclusive=True, way=way))
    assert found.tolist() == [[0, 2, 0], [0, 5, 0], [2, 5, 0], [3, 4, 0]]


@each_way
def test_many_equal_texts_come_in_blocks_of_bounded_size(way: Way) -> None:
    texts = ["same", "sames"] * 600
    blocks = list(similarity_join(texts, 0.8, way=way))
    assert sum(block.left.size for block in blocks) == 1200 * 1199 // 2
    assert max(block.left.size for block in blocks) < 100_000
    assert len(blocks) > 5


def test_a_scan_with_little_room_goes_on_where_it_stopped() -> None:
    from clm_data.dedup.join import kernels, signatures

    texts = list(dict.fromkeys(corpus(LETTERS["latin"], 60, seed=4, families=60)))
    data = signatures.prepare(texts, Limit.of(0.8)).data

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


@each_way
def test_candidates_that_overflow_their_room_are_all_found(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"clm_data.dedup.join.{MODULES[way]}._CANDIDATES", 100)
    # Texts of one histogram: nothing but the common subsequence tells them apart.
    texts = ["".join(text) for text in islice(permutations("abcdefgh"), 0, None, 20)]
    found = table(similarity_join(texts, 0.8, way=way))
    expected = brute(texts, everything(texts), 0.8)
    assert len(expected) > 1_000
    np.testing.assert_array_equal(found, expected)


@each_way
def test_number_of_threads_changes_nothing(way: Way) -> None:
    texts = corpus(LETTERS["latin"], 60, seed=3, families=300)
    one, three = (list(similarity_join(texts, 0.85, threads=count, way=way)) for count in (1, 3))
    assert len(one) == len(three) > 3
    for left, right in zip(one, three, strict=True):
        np.testing.assert_array_equal(np.stack(left), np.stack(right))


@each_way
def test_equal_to_brute_force_on_the_published_sample(sample_folder: Path, way: Way) -> None:
    texts = []
    for name in ("chinese_fields_with_loc.json", "english_fields_with_loc.json"):
        for row in json.loads((sample_folder / name).read_text(encoding="utf-8")):
            texts.append(str(row.get("prompt") or row.get("english_prompt") or ""))
    agree_with_brute_force(texts, way)


@each_way
def test_equal_to_brute_force_on_the_bank(way: Way) -> None:
    entries = [entry for domain in bank.domain_ids() for entry in bank.load_domain(domain)]
    facts = [fact for entry in entries for fact in (entry.zh, entry.en)]
    agree_with_brute_force([text for f in facts for text in (f.prompt, f.rephrase_prompt)], way)


def agree_with_brute_force(texts: list[str], way: Way) -> None:
    for threshold in (0.7, 0.8, 0.9):
        found = table(similarity_join(texts, threshold, way=way))
        np.testing.assert_array_equal(found, brute(texts, everything(texts), threshold))


@each_way
def test_a_join_that_is_not_read_to_its_end_stops(way: Way) -> None:
    texts = corpus(LETTERS["latin"], 60, seed=3, families=300)
    blocks = similarity_join(texts, 0.85, way=way)
    assert next(blocks).left.size > 0
    blocks.close()  # type: ignore[attr-defined]
    assert not list(blocks)


@each_way
def test_progress_ends_with_all_texts(way: Way) -> None:
    texts = [f"{index:06}" for index in range(3000)]
    told: list[tuple[int, int]] = []
    list(similarity_join(texts, 0.9, way=way, progress=lambda *now: told.append(now)))
    assert told == [(1024, 3000), (2048, 3000), (3000, 3000)]


def test_distinct_keeps_the_order_of_first_occurrence() -> None:
    unique = distinct(["b", "a", "b", "c", "a"])
    assert list(unique.texts) == ["b", "a", "c"]
    assert unique.group.tolist() == [0, 1, 0, 2, 1]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def loaded(code: str) -> set[str]:
    """Top-level names of what a new interpreter has loaded after some code."""
    shown = run(f"import sys; {code}; print(*{{name.split('.')[0] for name in sys.modules}})")
    return set(shown.split())


def of_the_join(count: int, before: str = "pass") -> set[str]:
    """What a join of so many different texts loads, of the modules that tell its way."""
    code = f"from clm_data.dedup.join import all_pairs; {before}; "
    code += f"list(all_pairs.similarity_join([f'{{n:05}}' for n in range({count})], 0.9)); "
    modules = "signatures", "with_numpy", "with_numba", "kernels"
    code += f"print(*[m for m in {modules} if 'clm_data.dedup.join.' + m in sys.modules]"
    code += ", *[w for w in ('numba', 'rapidfuzz') if w in sys.modules])"
    return set(run(f"import sys; {code}").split())


def test_importing_loads_nothing_that_the_records_do_not() -> None:
    before = loaded("import clm_data.records, clm_data.languages")
    new = loaded("import clm_data.dedup, clm_data.dedup.join.all_pairs") - before
    assert new <= set(sys.stdlib_module_names)
    assert before.isdisjoint({"numpy", "rapidfuzz", "numba", "llvmlite", "pyarrow"})


def test_the_number_of_texts_decides_the_way_and_what_is_loaded() -> None:
    assert SIGNED_FROM >= 5_000
    assert COMPILED_FROM > SIGNED_FROM
    assert of_the_join(2) == of_the_join(SIGNED_FROM - 1) == {"rapidfuzz"}
    assert of_the_join(SIGNED_FROM) == {"rapidfuzz", "signatures", "with_numpy"}
    compiled = of_the_join(SIGNED_FROM + 1, "all_pairs.COMPILED_FROM = all_pairs.SIGNED_FROM + 1")
    assert compiled == {
        "rapidfuzz",
        "numba",
        "signatures",
        "with_numpy",
        "with_numba",
        "kernels",
    }


def test_without_numba_signatures_are_compared_by_numpy() -> None:
    before = "sys.modules['numba'] = None; all_pairs.COMPILED_FROM = all_pairs.SIGNED_FROM"
    assert of_the_join(SIGNED_FROM, before) >= {"signatures", "with_numpy"}
    assert "kernels" not in of_the_join(SIGNED_FROM, before)


def test_a_text_too_long_for_a_sort_key_makes_the_join_plain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from clm_data.dedup.join import signatures

    texts = [f"{number:05}" for number in range(SIGNED_FROM)]
    monkeypatch.setattr("clm_data.dedup.join.all_pairs.LONGEST", 4)
    monkeypatch.delattr(signatures, "prepare")
    assert not list(similarity_join(texts, 0.9))


def test_signatures_that_exclude_little_are_no_reason_to_load_compiled_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clm_data.dedup.join.all_pairs.SIGNED_FROM", 1)
    monkeypatch.setattr("clm_data.dedup.join.all_pairs.COMPILED_FROM", 1)
    monkeypatch.delattr("clm_data.dedup.join.with_numba.Compiled")
    texts = corpus(LETTERS["latin"], 500, seed=6, families=15)
    found = table(similarity_join(texts, 0.7))
    np.testing.assert_array_equal(found, brute(texts, everything(texts), 0.7))
    with pytest.raises(ImportError, match="Compiled"):
        list(similarity_join(corpus(LETTERS["five thousand"], 12, seed=6), 0.9))

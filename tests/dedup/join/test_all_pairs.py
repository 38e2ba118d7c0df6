"""Each method of the join finds the pairs that brute force finds."""

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
from clm_data.dedup.join.all_pairs import (
    NUMBA_MIN_TEXTS,
    NUMPY_MIN_TEXTS,
    Method,
    distinct_texts,
    similarity_join,
)
from clm_data.dedup.join.pairs import DistanceLimit, Pairs

METHODS: list[Method] = ["numpy", "numba"]
each_method = pytest.mark.parametrize("method", METHODS)
THRESHOLDS = [0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, Fraction(5, 7)]
LETTERS = {
    "two symbols": "ab",
    "latin": "abcdefghijklmnopqrstuvwxyz ABC,.",
    "five thousand": "".join(chr(0x4E00 + index) for index in range(5000)),
    "emoji and lone surrogates": "".join(map(chr, range(0x1F600, 0x1F640))) + "\ud800\udfff\0的",
}


def sorted_pairs(blocks: Iterable[Pairs]) -> np.ndarray:
    """All pairs as rows of left, right and distance, in ascending order."""
    rows = [np.stack(block, axis=1) for block in blocks]
    found = np.concatenate(rows) if rows else np.zeros((0, 3), np.int64)
    return found[np.lexsort(found.T[::-1])]


def all_distances(texts: list[str]) -> np.ndarray:
    """The distance of every two texts, without any filter."""
    return process.cdist(texts, texts, scorer=Indel.distance, dtype=np.int32)


def brute_force_pairs(
    texts: list[str], distances: np.ndarray, threshold: float | Fraction, inclusive: bool = False
) -> np.ndarray:
    """The pairs by definition, in integer arithmetic."""
    ratio = Fraction(str(threshold))
    sizes = np.array([len(text) for text in texts], dtype=np.int64)
    slack = (ratio.denominator - ratio.numerator) * (sizes[:, None] + sizes)
    scaled = ratio.denominator * distances.astype(np.int64)
    near = scaled <= slack if inclusive else scaled < slack
    if ratio < 1:
        near |= distances == 0
    left, right = np.nonzero(np.triu(near, 1))
    return np.stack([left, right, distances[left, right]], axis=1).astype(np.int64)


def groups_of_similar_texts(letters: str, longest: int, seed: int, groups: int = 50) -> list[str]:
    """Shuffled groups of texts that differ by a few edits, some of them empty or repeated."""
    rng = random.Random(seed)
    texts = ["", "", letters[0]]
    for _ in range(groups):
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
@each_method
def test_matches_brute_force_on_groups_of_similar_texts(
    name: str, longest: int, method: Method
) -> None:
    texts = groups_of_similar_texts(
        LETTERS[name], longest, seed=longest, groups=30 if longest < 500 else 15
    )
    distances = all_distances(texts)
    assert len(brute_force_pairs(texts, distances, 0.7)) > 800
    for threshold in THRESHOLDS:
        inclusive = threshold in {0.75, 0.85, 0.99}
        found = sorted_pairs(similarity_join(texts, threshold, inclusive=inclusive, method=method))
        expected = brute_force_pairs(texts, distances, threshold, inclusive)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["latin", "five thousand"])
@each_method
def test_matches_brute_force_on_texts_too_long_for_the_compiled_loop(
    name: str, method: Method
) -> None:
    texts = groups_of_similar_texts(LETTERS[name], 1300, seed=5, groups=12)
    assert sum(len(text) > 1024 for text in texts) > 10
    distances = all_distances(texts)
    for threshold in (0.8, 0.9, 0.95):
        found = sorted_pairs(similarity_join(texts, threshold, method=method))
        np.testing.assert_array_equal(found, brute_force_pairs(texts, distances, threshold))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=()), max_size=9), max_size=12),
    st.sampled_from([0.0, 0.5, *THRESHOLDS]),
    st.booleans(),
    st.sampled_from(METHODS),
)
def test_matches_brute_force_on_any_unicode(
    texts: list[str], threshold: float | Fraction, inclusive: bool, method: Method
) -> None:
    found = sorted_pairs(similarity_join(texts, threshold, inclusive=inclusive, method=method))
    np.testing.assert_array_equal(
        found, brute_force_pairs(texts, all_distances(texts), threshold, inclusive)
    )


@each_method
def test_lone_surrogates_are_compared_like_other_characters(method: Method) -> None:
    texts = ["\ud800" + "字" * 12, "\udfff" + "字" * 12, "字" * 12]
    found = sorted_pairs(similarity_join(texts, 0.9, method=method))
    assert found.tolist() == [[0, 1, 2], [0, 2, 1], [1, 2, 1]]


@each_method
def test_pairs_at_exactly_the_threshold_are_found_only_if_inclusive(method: Method) -> None:
    texts = ["abcdefghij", "abcdefghiX", "世界上最大的海湾是什么", "世界上最大的海峡是什么"]
    assert sorted_pairs(similarity_join(texts, 0.9, method=method)).tolist() == [[2, 3, 2]]
    both = sorted_pairs(similarity_join(texts, 0.9, inclusive=True, method=method))
    assert both.tolist() == [[0, 1, 2], [2, 3, 2]]


@each_method
def test_only_equal_texts_reach_a_threshold_of_one_and_none_exceed_it(method: Method) -> None:
    texts = ["a", "b", "a", "", "", "a"]
    assert not list(similarity_join(texts, 1.0, method=method))
    found = sorted_pairs(similarity_join(texts, 1.0, inclusive=True, method=method))
    assert found.tolist() == [[0, 2, 0], [0, 5, 0], [2, 5, 0], [3, 4, 0]]


@each_method
def test_pairs_of_many_equal_texts_are_yielded_in_bounded_blocks(method: Method) -> None:
    texts = ["same", "sames"] * 600
    blocks = list(similarity_join(texts, 0.8, method=method))
    assert sum(block.left.size for block in blocks) == 1200 * 1199 // 2
    assert max(block.left.size for block in blocks) < 100_000
    assert len(blocks) > 5


def test_a_search_with_a_small_buffer_resumes_where_it_stopped() -> None:
    from clm_data.dedup.join import kernels, signatures

    texts = list(dict.fromkeys(groups_of_similar_texts(LETTERS["latin"], 60, seed=4, groups=60)))
    data = signatures.prepare(texts, DistanceLimit.at(0.8)).data

    def search(buffer_size: int) -> list[tuple[int, int]]:
        found = kernels.Candidates(
            np.empty(buffer_size, int), np.empty(buffer_size, int), np.zeros(1, int)
        )
        pairs, first, calls = [], 0, 0
        while first < len(texts):
            reached = kernels.find_candidates(data, first, len(texts), found)
            count = found.total[0]
            if reached == first:
                buffer_size *= 2
                found = kernels.Candidates(
                    np.empty(buffer_size, int), np.empty(buffer_size, int), found.total
                )
            pairs += list(zip(found.left[:count], found.right[:count], strict=True))
            first, calls = reached, calls + 1
        assert calls > 5 or buffer_size > 10_000
        return pairs

    assert search(2) == search(100_000)


@each_method
def test_candidates_beyond_the_buffer_size_are_all_found(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"clm_data.dedup.join.with_{method}._BUFFER_SIZE", 100)
    # Permutations: only the longest common subsequence distinguishes them.
    texts = ["".join(text) for text in islice(permutations("abcdefgh"), 0, None, 20)]
    found = sorted_pairs(similarity_join(texts, 0.8, method=method))
    expected = brute_force_pairs(texts, all_distances(texts), 0.8)
    assert len(expected) > 1_000
    np.testing.assert_array_equal(found, expected)


@each_method
def test_blocks_do_not_depend_on_the_number_of_threads(method: Method) -> None:
    texts = groups_of_similar_texts(LETTERS["latin"], 60, seed=3, groups=300)
    one, three = (
        list(similarity_join(texts, 0.85, threads=count, method=method)) for count in (1, 3)
    )
    assert len(one) == len(three) > 3
    for left, right in zip(one, three, strict=True):
        np.testing.assert_array_equal(np.stack(left), np.stack(right))


@each_method
def test_matches_brute_force_on_the_published_sample(sample_folder: Path, method: Method) -> None:
    texts = []
    for name in ("chinese_fields_with_loc.json", "english_fields_with_loc.json"):
        for row in json.loads((sample_folder / name).read_text(encoding="utf-8")):
            texts.append(str(row.get("prompt") or row.get("english_prompt") or ""))
    assert_matches_brute_force(texts, method)


@each_method
def test_matches_brute_force_on_the_bank(method: Method) -> None:
    entries = [entry for domain in bank.domain_ids() for entry in bank.load_domain(domain)]
    facts = [fact for entry in entries for fact in (entry.zh, entry.en)]
    assert_matches_brute_force(
        [text for f in facts for text in (f.prompt, f.rephrase_prompt)], method
    )


def assert_matches_brute_force(texts: list[str], method: Method) -> None:
    for threshold in (0.7, 0.8, 0.9):
        found = sorted_pairs(similarity_join(texts, threshold, method=method))
        np.testing.assert_array_equal(
            found, brute_force_pairs(texts, all_distances(texts), threshold)
        )


@each_method
def test_a_join_can_be_closed_early(method: Method) -> None:
    texts = groups_of_similar_texts(LETTERS["latin"], 60, seed=3, groups=300)
    blocks = similarity_join(texts, 0.85, method=method)
    assert next(blocks).left.size > 0
    blocks.close()  # type: ignore[attr-defined]
    assert not list(blocks)


@each_method
def test_progress_counts_all_texts(method: Method) -> None:
    texts = [f"{index:06}" for index in range(3000)]
    calls: list[tuple[int, int]] = []
    list(similarity_join(texts, 0.9, method=method, progress=lambda *call: calls.append(call)))
    assert calls == [(1024, 3000), (2048, 3000), (3000, 3000)]


def test_distinct_texts_are_in_order_of_first_occurrence() -> None:
    distinct = distinct_texts(["b", "a", "b", "c", "a"])
    assert list(distinct.texts) == ["b", "a", "c"]
    assert distinct.index.tolist() == [0, 1, 0, 2, 1]


def output_of(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def modules_loaded_by(code: str) -> set[str]:
    """Top-level packages that a new interpreter has loaded after running some code."""
    shown = output_of(f"import sys; {code}; print(*{{name.split('.')[0] for name in sys.modules}})")
    return set(shown.split())


def modules_loaded_by_join(count: int, before: str = "pass") -> set[str]:
    """The modules of a method that a join of ``count`` distinct texts loads."""
    code = f"from clm_data.dedup.join import all_pairs; {before}; "
    code += f"list(all_pairs.similarity_join([f'{{n:05}}' for n in range({count})], 0.9)); "
    modules = "signatures", "with_numpy", "with_numba", "kernels"
    code += f"print(*[m for m in {modules} if 'clm_data.dedup.join.' + m in sys.modules]"
    code += ", *[w for w in ('numba', 'rapidfuzz') if w in sys.modules])"
    return set(output_of(f"import sys; {code}").split())


def test_importing_the_join_loads_no_third_party_package() -> None:
    before = modules_loaded_by("import clm_data.records, clm_data.languages")
    new = modules_loaded_by("import clm_data.dedup, clm_data.dedup.join.all_pairs") - before
    assert new <= set(sys.stdlib_module_names)
    assert before.isdisjoint({"numpy", "rapidfuzz", "numba", "llvmlite", "pyarrow"})


def test_the_number_of_texts_decides_the_method_and_what_is_loaded() -> None:
    assert NUMPY_MIN_TEXTS >= 5_000
    assert NUMBA_MIN_TEXTS > NUMPY_MIN_TEXTS
    assert modules_loaded_by_join(2) == modules_loaded_by_join(NUMPY_MIN_TEXTS - 1) == {"rapidfuzz"}
    assert modules_loaded_by_join(NUMPY_MIN_TEXTS) == {"rapidfuzz", "signatures", "with_numpy"}
    compiled = modules_loaded_by_join(
        NUMPY_MIN_TEXTS + 1, "all_pairs.NUMBA_MIN_TEXTS = all_pairs.NUMPY_MIN_TEXTS + 1"
    )
    assert compiled == {
        "rapidfuzz",
        "numba",
        "signatures",
        "with_numpy",
        "with_numba",
        "kernels",
    }


def test_numpy_is_used_if_numba_is_not_installed() -> None:
    before = "sys.modules['numba'] = None; all_pairs.NUMBA_MIN_TEXTS = all_pairs.NUMPY_MIN_TEXTS"
    assert modules_loaded_by_join(NUMPY_MIN_TEXTS, before) >= {"signatures", "with_numpy"}
    assert "kernels" not in modules_loaded_by_join(NUMPY_MIN_TEXTS, before)


def test_rapidfuzz_is_used_if_a_text_is_too_long_for_a_sort_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from clm_data.dedup.join import signatures

    texts = [f"{number:05}" for number in range(NUMPY_MIN_TEXTS)]
    monkeypatch.setattr("clm_data.dedup.join.all_pairs.MAX_TEXT_LENGTH", 4)
    monkeypatch.delattr(signatures, "prepare")
    assert not list(similarity_join(texts, 0.9))


def test_compiled_code_is_not_loaded_if_signatures_exclude_few_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clm_data.dedup.join.all_pairs.NUMPY_MIN_TEXTS", 1)
    monkeypatch.setattr("clm_data.dedup.join.all_pairs.NUMBA_MIN_TEXTS", 1)
    monkeypatch.delattr("clm_data.dedup.join.with_numba.NumbaJoin")
    texts = groups_of_similar_texts(LETTERS["latin"], 500, seed=6, groups=15)
    found = sorted_pairs(similarity_join(texts, 0.7))
    np.testing.assert_array_equal(found, brute_force_pairs(texts, all_distances(texts), 0.7))
    with pytest.raises(ImportError, match="NumbaJoin"):
        list(similarity_join(groups_of_similar_texts(LETTERS["five thousand"], 12, seed=6), 0.9))

"""Weight changes in factors: sums, parts, norms and changes by neuron."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from clm_data.eval.analysis.geometry import low_rank, measures
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix, stacked
from clm_data.eval.analysis.geometry.measures import compare


def random_change(
    d: int = 30, m: int = 40, rank: int = 4, seed: int = 0, facts: tuple[str, ...] = ()
) -> LowRankMatrix:
    rng = np.random.default_rng(seed)
    return LowRankMatrix(rng.standard_normal((d, rank)), rng.standard_normal((rank, m)), facts)


def dense(change: LowRankMatrix) -> LowRankMatrix:
    return LowRankMatrix(change.dense(), k=change.k)


def test_selecting_facts_keeps_their_terms_in_order() -> None:
    change = random_change(facts=("a", "b", "c", "a"))
    part = change.of_facts(["c", "a"])
    assert part.facts == ("a", "c", "a")
    rest = change.of_facts(["b"])
    np.testing.assert_allclose(part.dense() + rest.dense(), change.dense())
    assert change.select([2, 0]).facts == ("c", "a")
    with pytest.raises(ValueError, match="not available by fact"):
        random_change().of_facts(["a"])


def test_applying_a_change_equals_multiplying_by_the_dense_matrix() -> None:
    change = random_change()
    vectors = np.random.default_rng(1).standard_normal((5, 40))
    expected = vectors @ change.dense().T
    np.testing.assert_allclose(change.apply(vectors), expected)
    np.testing.assert_allclose(dense(change).apply(vectors), expected)


def test_sums_keep_the_fact_of_each_term() -> None:
    one = LowRankMatrix(np.ones((3, 2)), np.ones((2, 4)), ("a", "b"))
    two = LowRankMatrix(np.ones((3, 1)), np.ones((1, 4)), ("c",))
    assert (one + two).facts == ("a", "b", "c")
    assert (one + two).by_fact
    assert not (one + random_change(3, 4, 1)).by_fact
    assert (one + dense(two)).right is None


def test_a_sum_that_cancels_counts_as_zero() -> None:
    plain = random_change()
    gone = plain + LowRankMatrix(-plain.left, plain.right)
    assert gone.norm == 0.0
    assert measures.cosine(gone, plain) is None


def test_neuron_changes_are_computed_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    change = random_change(d=31, m=17, rank=3)
    expected = np.abs(change.dense())
    monkeypatch.setattr(low_rank, "BLOCK_BYTES", 17 * 8 * 4)
    found = change.neurons
    np.testing.assert_allclose(found.rows, expected.max(axis=1))
    np.testing.assert_allclose(found.columns, expected.max(axis=0))
    np.testing.assert_allclose(found.row_norms, np.linalg.norm(expected, axis=1))
    np.testing.assert_allclose(found.column_norms, np.linalg.norm(expected, axis=0))


def test_a_factored_change_is_never_multiplied_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_rank, "BLOCK_BYTES", 2**20)
    first, second = random_change(2000, 3000, 4, 0), random_change(2000, 3000, 4, 1)
    tracemalloc.start()
    compare(first + second, second)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2000 * 3000 * 8 / 8


def test_stacked_changes_are_one_above_the_other() -> None:
    one, two = random_change(), random_change(seed=1)
    dense = np.concatenate([one.dense(), two.dense()])
    assert np.allclose(stacked([one, two]).dense(), dense)
    assert np.allclose(stacked([one, LowRankMatrix(two.dense())]).dense(), dense)
    assert stacked([one]) is one
    same = LowRankMatrix(two.left, one.right, one.facts)
    both = stacked([one, same])
    assert both.left.shape[1] == one.left.shape[1]
    assert np.allclose(both.dense(), np.concatenate([one.dense(), same.dense()]))
    with pytest.raises(ValueError, match="different inputs"):
        stacked([one, LowRankMatrix(np.zeros((3, one.shape[1] + 1)))])

"""Sentences that begin alike, laid out together: each token sees its own sentence, up to itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

# ruff: noqa: E402 (what follows needs torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from clm_data.eval.model.prefix_tree import WIDE, Forest, alike, distinct, even

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


@given(ROWS, st.integers(0, 9))
def test_rows_share_nodes_where_they_begin_alike_and_only_there(
    rows: list[list[int]], shared: int
) -> None:
    forest = Forest(rows, [shared] * len(rows))
    nodes = torch.tensor(distinct(forest.paths))
    assert sorted(nodes.tolist()) == list(range(forest.count))
    for row, path in zip(rows, forest.paths, strict=True):
        assert forest.tokens(torch.tensor(path)).tolist() == row
    for i, one in enumerate(forest.paths):
        for j, other in enumerate(forest.paths[:i]):
            for at in range(min(len(one), len(other))):
                same = at < shared and rows[i][: at + 1] == rows[j][: at + 1]
                assert (one[at] == other[at]) == same


@given(ROWS)
def test_a_node_sees_itself_and_its_ancestors_alone(rows: list[list[int]]) -> None:
    forest = Forest(rows, [9] * len(rows))
    cut = [len(path) // 2 for path in forest.paths]
    before = distinct(path[:at] for path, at in zip(forest.paths, cut, strict=True))
    after = distinct(path[at:] for path, at in zip(forest.paths, cut, strict=True))
    layout = forest.lay([after, after[:1]], [before, []], "cpu")
    keys = before + after
    for slot, node in enumerate(after):
        path = next(path for path in forest.paths if node in path)
        seen = {keys[i] for i in layout.allowed[0, 0, slot].nonzero().flatten().tolist()}
        assert seen == set(path[: path.index(node) + 1]) & set(keys)
        assert int(layout.positions[0, slot]) == path.index(node)
        assert int(layout.nodes.flatten()[forest.places(layout)[node]]) == node
    assert layout.nodes[1, 1:].eq(forest.count).all()
    assert layout.allowed.any(-1).all()


@given(ROWS)
def test_alike_rows_come_together_each_once(rows: list[list[int]]) -> None:
    forest = Forest([row * 9 for row in rows], [81] * len(rows))
    bins = alike(forest.paths)
    assert sorted(i for one in bins for i in one) == list(range(len(rows)))
    longest = max(map(len, forest.paths))
    assert all(len(distinct(forest.paths[i] for i in one)) <= max(WIDE, longest) for one in bins)


@given(st.lists(st.integers(1, 15), min_size=1, max_size=90))
def test_even_bins_hold_each_row_once_and_are_mostly_full(lengths: list[int]) -> None:
    bins = even(lengths)
    assert sorted(i for one in bins for i in one) == list(range(len(lengths)))
    width = max(sum(lengths[i] for i in one) for one in bins)
    assert len(bins) * width <= sum(lengths) + len(bins) * max(lengths)
    assert width <= 80

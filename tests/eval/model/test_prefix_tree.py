"""Packing token rows with common prefixes: each token attends to its own row, up to itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from clm_data.eval.model.prefix_tree import (
    BIN_NODES,
    PrefixTree,
    balance_bins,
    distinct_nodes,
    group_by_prefix,
)

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


@given(ROWS, st.integers(0, 9))
def test_rows_share_nodes_in_their_common_prefix_only(
    rows: list[list[int]], shareable: int
) -> None:
    tree = PrefixTree(rows, [shareable] * len(rows))
    assert sorted(distinct_nodes(tree.paths)) == list(range(tree.count))
    for row, path in zip(rows, tree.paths, strict=True):
        assert tree.tokens(torch.tensor(path)).tolist() == row
    for i, one in enumerate(tree.paths):
        for j, other in enumerate(tree.paths[:i]):
            for at in range(min(len(one), len(other))):
                common = at < shareable and rows[i][: at + 1] == rows[j][: at + 1]
                assert (one[at] == other[at]) == common


@given(ROWS)
def test_a_node_attends_to_itself_and_its_ancestors_only(rows: list[list[int]]) -> None:
    tree = PrefixTree(rows, [9] * len(rows))
    cut = [len(path) // 2 for path in tree.paths]
    cached = distinct_nodes(path[:at] for path, at in zip(tree.paths, cut, strict=True))
    nodes = distinct_nodes(path[at:] for path, at in zip(tree.paths, cut, strict=True))
    layout = tree.build_layout([nodes, nodes[:1]], [cached, []], "cpu")
    keys = cached + nodes
    for slot, node in enumerate(nodes):
        path = next(path for path in tree.paths if node in path)
        attended = {keys[i] for i in layout.allowed[0, 0, slot].nonzero().flatten().tolist()}
        assert attended == set(path[: path.index(node) + 1]) & set(keys)
        assert int(layout.positions[0, slot]) == path.index(node)
        assert int(layout.nodes.flatten()[tree.places(layout)[node]]) == node
    assert layout.nodes[1, 1:].eq(tree.count).all()
    assert layout.allowed.any(-1).all()


@given(ROWS)
def test_grouping_by_prefix_keeps_every_row_and_the_capacity(rows: list[list[int]]) -> None:
    tree = PrefixTree([row * 9 for row in rows], [81] * len(rows))
    bins = group_by_prefix(tree.paths)
    assert sorted(i for one in bins for i in one) == list(range(len(rows)))
    capacity = max(BIN_NODES, *map(len, tree.paths))
    assert all(len(distinct_nodes(tree.paths[i] for i in one)) <= capacity for one in bins)


@given(st.lists(st.integers(1, 15), min_size=1, max_size=90))
def test_balanced_bins_hold_every_row_once_with_little_padding(lengths: list[int]) -> None:
    bins = balance_bins(lengths)
    assert sorted(i for one in bins for i in one) == list(range(len(lengths)))
    width = max(sum(lengths[i] for i in one) for one in bins)
    assert len(bins) * width <= sum(lengths) + len(bins) * max(lengths)
    assert width <= 80

"""Token rows with common prefixes, packed into bins that hold each shared prefix once.

Each token of a row is a node of a prefix tree; rows that start with the same tokens share those
nodes. In a bin, a node attends only to its ancestors and itself, so rows do not affect each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class NodeLayout:
    """Nodes packed into bins; short bins are padded with a node that attends only to itself.

    Attributes:
        nodes: (bins, width) node indices.
        cached: (bins, cached) nodes whose keys and values precede those of `nodes` in attention.
        allowed: (bins, 1, width, cached + width) whether a node attends to another, bool.
        positions: (bins, width) each node's position in its row.
    """

    nodes: Tensor
    cached: Tensor
    allowed: Tensor
    positions: Tensor


class PrefixTree:
    """The nodes of token rows.

    Args:
        rows: Token ids.
        shareable: How many leading tokens of each row may share nodes with other rows.

    Attributes:
        paths: The node of each token, by row.
        count: Number of nodes; also the index of the padding node.
    """

    def __init__(self, rows: Sequence[Sequence[int]], shareable: Sequence[int]) -> None:
        import torch

        tokens: list[int] = []
        parents: list[int] = []
        known: dict[tuple[int, int], int] = {}
        self.paths: list[list[int]] = []
        for row, limit in zip(rows, shareable, strict=True):
            path: list[int] = []
            for token in row:
                parent, new = path[-1] if path else -1, len(tokens)
                node = known.setdefault((parent, token), new) if len(path) < limit else new
                if node == new:
                    tokens.append(token)
                    parents.append(parent)
                path.append(node)
            self.paths.append(path)
        self.count = len(tokens)
        self._tokens = torch.tensor([*tokens, 0])
        self._ancestors, self._depth = _ancestors(parents, max(map(len, rows)))

    def tokens(self, nodes: Tensor) -> Tensor:
        """Token ids of nodes, in the shape of `nodes`."""
        return self._tokens.to(nodes.device)[nodes]

    def build_layout(
        self,
        bins: Iterable[Iterable[int]],
        cached: Iterable[Iterable[int]],
        device: torch.device,
    ) -> NodeLayout:
        """Pack nodes into bins.

        Args:
            bins: The nodes of each bin, in order.
            cached: The nodes of each bin whose keys and values come from a cache.
            device: Where the tensors go.
        """
        import torch

        nodes, before = self._padded(bins), self._padded(cached)
        keys = torch.cat([before, nodes], dim=1)[:, None]
        depth = self._depth[keys].expand(-1, nodes.shape[1], -1)
        allowed = self._ancestors[nodes].take_along_dim(depth, 2) == keys
        return NodeLayout(
            nodes.to(device),
            before.to(device),
            allowed[:, None].to(device),
            self._depth[nodes].to(device),
        )

    def _padded(self, bins: Iterable[Iterable[int]]) -> Tensor:
        import torch

        rows = [list(one) for one in bins]
        longest = max(map(len, rows))
        return torch.tensor([row + [self.count] * (longest - len(row)) for row in rows]).long()

    def places(self, layout: NodeLayout) -> Tensor:
        """Flat index of each node in (bins x width), (count + 1,); 0 if it is not in the layout."""
        import torch

        found = [0] * (self.count + 1)
        for place, node in enumerate(layout.nodes.flatten().tolist()):
            found[node] = place
        return torch.tensor(found, device=layout.nodes.device)


def _ancestors(parents: list[int], longest: int) -> tuple[Tensor, Tensor]:
    """Each node's ancestors by depth, and its own depth.

    Returns:
        (nodes + 1, longest) the ancestor at each depth up to the node itself, then -1; and
        (nodes + 1,) depths. The last row is the padding node's.
    """
    import torch

    depth: list[int] = []
    for parent in parents:
        depth.append(0 if parent < 0 else depth[parent] + 1)
    depths = torch.tensor([*depth, 0])
    every = torch.arange(len(depths))
    above = torch.tensor([*parents, -1])
    above = torch.where(above < 0, every, above)
    ancestors = torch.full((len(every), longest), -1)
    node = every
    for _ in range(longest):
        ancestors[every, depths[node]] = node
        node = above[node]
    return ancestors, depths


def distinct_nodes(paths: Iterable[Iterable[int]]) -> list[int]:
    """The nodes on some paths, each once, in order of first occurrence."""
    return list(dict.fromkeys(chain.from_iterable(paths)))


BIN_NODES = 64
"""Capacity in nodes of a bin of `group_by_prefix`, unless one path is longer."""


def group_by_prefix(paths: Sequence[Sequence[int]]) -> list[list[int]]:
    """Group paths into bins so that paths with a common prefix share one.

    Returns:
        Indices of paths by bin. The distinct nodes of a bin number at most `BIN_NODES`, or the
        length of the longest path if that is more.
    """
    capacity = max(BIN_NODES, *map(len, paths))
    bins: list[list[int]] = []
    nodes: set[int] = set()
    for index in sorted(range(len(paths)), key=lambda i: list(paths[i])):
        if not bins or len(nodes.union(paths[index])) > capacity:
            bins.append([])
            nodes = set()
        bins[-1].append(index)
        nodes.update(paths[index])
    return bins


def balance_bins(lengths: Sequence[int]) -> list[list[int]]:
    """Distribute rows over bins of nearly equal total length.

    Few bins make attention expensive, many leave padding: the cheapest of several bin counts is
    chosen.

    Returns:
        Indices of rows by bin.
    """
    total = sum(lengths)
    counts = sorted({max(1, total // width) for width in (16, 20, 24, 28, 32, 40, 48, 64)})
    return min((_longest_first(lengths, n) for n in counts), key=lambda bins: _cost(lengths, bins))


def _cost(lengths: Sequence[int], bins: Sequence[Sequence[int]]) -> int:
    """Cost of a layer, in arbitrary units.

    Attention costs as much as everything else at 256 tokens per bin, as measured with
    SmolLM2-135M on a CPU.
    """
    width = max(sum(lengths[i] for i in one) for one in bins)
    return len(bins) * width * (256 + width)


def _longest_first(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Put each row, longest first, into the bin with the smallest total length."""
    bins: list[list[int]] = [[] for _ in range(min(count, len(lengths)))]
    sums = [0] * len(bins)
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        slot = min(range(len(bins)), key=sums.__getitem__)
        bins[slot].append(index)
        sums[slot] += lengths[index]
    return bins

"""Sentences that begin alike, laid end to end in bins, each shared beginning once.

A token of a sentence is a node; sentences that begin with the same tokens have the same nodes there
and part where they differ. A token sees its ancestors and itself, whatever else lies in its bin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any


@dataclass(frozen=True)
class Layout:
    """Nodes laid out in bins; short bins are filled with a node that sees only itself.

    Attributes:
        nodes: (bins, tokens).
        earlier: (bins, earlier): nodes whose keys and values stand before those of ``nodes``.
        allowed: (bins, 1, tokens, earlier + tokens): what each node sees.
        positions: (bins, tokens), in their sentences.
    """

    nodes: Any
    earlier: Any
    allowed: Any
    positions: Any


class Forest:
    """The nodes of some sentences.

    Args:
        rows: Token ids.
        shared: By row: as many tokens from the first may be another row's nodes too.

    Attributes:
        paths: By row: the node of each token.
        count: Number of nodes; also the node that fills.
    """

    def __init__(self, rows: Sequence[Sequence[int]], shared: Sequence[int]) -> None:
        import torch

        tokens: list[int] = []
        parents: list[int] = []
        known: dict[tuple[int, int], int] = {}
        self.paths: list[list[int]] = []
        for row, most in zip(rows, shared, strict=True):
            path: list[int] = []
            for token in row:
                above, new = path[-1] if path else -1, len(tokens)
                node = known.setdefault((above, token), new) if len(path) < most else new
                if node == new:
                    tokens.append(token)
                    parents.append(above)
                path.append(node)
            self.paths.append(path)
        self.count = len(tokens)
        self._tokens = torch.tensor([*tokens, 0])
        self._lines, self._depth = _lines(parents, max(map(len, rows)))

    def tokens(self, nodes: Any) -> Any:
        """Token ids of nodes."""
        return self._tokens.to(nodes.device)[nodes]

    def lay(
        self, bins: Iterable[Iterable[int]], earlier: Iterable[Iterable[int]], device: Any
    ) -> Layout:
        """Lay nodes out; those of a bin are given as they shall lie."""
        import torch

        nodes, before = self._filled(bins), self._filled(earlier)
        keys = torch.cat([before, nodes], dim=1)[:, None]
        at = self._depth[keys].expand(-1, nodes.shape[1], -1)
        allowed = self._lines[nodes].take_along_dim(at, 2) == keys
        return Layout(
            nodes.to(device),
            before.to(device),
            allowed[:, None].to(device),
            self._depth[nodes].to(device),
        )

    def _filled(self, bins: Iterable[Iterable[int]]) -> Any:
        import torch

        rows = [list(one) for one in bins]
        longest = max(map(len, rows))
        return torch.tensor([row + [self.count] * (longest - len(row)) for row in rows]).long()

    def places(self, layout: Layout) -> Any:
        """One place of each node among (bins x tokens), 0 for a node that is not there."""
        import torch

        found = [0] * (self.count + 1)
        for place, node in enumerate(layout.nodes.flatten().tolist()):
            found[node] = place
        return torch.tensor(found, device=layout.nodes.device)


def _lines(parents: list[int], longest: int) -> tuple[Any, Any]:
    """By node: its ancestor at each depth and last itself, then -1; and its own depth."""
    import torch

    depth: list[int] = []
    for above in parents:
        depth.append(0 if above < 0 else depth[above] + 1)
    depths = torch.tensor([*depth, 0])
    every = torch.arange(len(depths))
    above = torch.tensor([*parents, -1])
    above = torch.where(above < 0, every, above)
    lines = torch.full((len(every), longest), -1)
    node = every
    for _ in range(longest):
        lines[every, depths[node]] = node
        node = above[node]
    return lines, depths


def distinct(paths: Iterable[Iterable[int]]) -> list[int]:
    """The nodes of some paths, each once, in order."""
    return list(dict.fromkeys(chain.from_iterable(paths)))


WIDE = 64
"""Nodes that a bin of :func:`alike` has room for, or as many as the longest path needs."""


def alike(paths: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices of paths by bin, such that those with a common beginning come together."""
    room = max(WIDE, *map(len, paths))
    bins: list[list[int]] = []
    seen: set[int] = set()
    for index in sorted(range(len(paths)), key=lambda i: list(paths[i])):
        if not bins or len(seen.union(paths[index])) > room:
            bins.append([])
            seen = set()
        bins[-1].append(index)
        seen.update(paths[index])
    return bins


def even(lengths: Sequence[int]) -> list[list[int]]:
    """Indices by bin, such that the bins' sums differ little.

    Gaps cost layers, long bins cost attention: of a few numbers of bins the cheapest is taken.
    """
    total = sum(lengths)
    counts = sorted({max(1, total // width) for width in (16, 20, 24, 28, 32, 40, 48, 64)})
    return min((_spread(lengths, count) for count in counts), key=lambda b: _cost(lengths, b))


def _cost(lengths: Sequence[int], bins: Sequence[Sequence[int]]) -> int:
    """In tokens; attention costs as much as the rest at 256 tokens a bin (SmolLM2-135M, CPU)."""
    width = max(sum(lengths[i] for i in one) for one in bins)
    return len(bins) * width * (256 + width)


def _spread(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Longest first, each into the bin that is emptiest."""
    bins: list[list[int]] = [[] for _ in range(min(count, len(lengths)))]
    sums = [0] * len(bins)
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        slot = min(range(len(bins)), key=sums.__getitem__)
        bins[slot].append(index)
        sums[slot] += lengths[index]
    return bins

"""Rows of tokens in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def padded(rows: Sequence[Sequence[int]], device: Any) -> Any:
    """Token rows as one tensor (rows, longest), padded on the right with 0."""
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)


def batches_by_length(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Indices of rows that run together, shortest first; padded, no more tokens than allowed."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > tokens_per_batch:
            batches.append([])
        batches[-1].append(index)
    return batches

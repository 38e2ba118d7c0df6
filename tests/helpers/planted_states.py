"""States of parallel facts with a known direction between the languages."""

from __future__ import annotations

import numpy as np

from clm_data.eval.analysis.language.states import LanguageStates, ParallelStates
from clm_data.eval.analysis.options import StateOptions
from clm_data.eval.intervals import Bootstrap, FloatArray

OPTIONS = StateOptions(Bootstrap(resamples=200), shuffles=100, label_permutations=2)
FACTS, WIDTH = 80, 32


def planted_sides(strength: float, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Chinese and English states (FACTS, WIDTH) that differ along a direction of length 1.

    Args:
        strength: Distance of the languages along the direction; other differences are noise.
        seed: Random seed.

    Returns:
        Chinese states, English states, direction (WIDTH,).
    """
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=WIDTH)
    direction /= np.linalg.norm(direction)
    facts = rng.normal(size=(FACTS, WIDTH))
    zh = facts + rng.normal(size=(FACTS, WIDTH)) / 2 + strength / 2 * direction
    en = facts + rng.normal(size=(FACTS, WIDTH)) / 2 - strength / 2 * direction
    return zh, en, direction


def swap_half(zh: FloatArray, en: FloatArray, seed: int = 5) -> tuple[FloatArray, FloatArray]:
    """Exchange the languages of a random half of the facts."""
    order = np.random.default_rng(seed).permutation(len(zh))
    swapped = np.isin(np.arange(len(zh)), order[: len(zh) // 2])[:, None]
    return np.where(swapped, en, zh), np.where(swapped, zh, en)


def parallel_states(*layers: tuple[FloatArray, FloatArray]) -> ParallelStates:
    """States of a model named `made`: (Chinese, English) by layer, hidden and MLP alike."""
    zh = {i: side.astype(np.float32) for i, (side, _) in enumerate(layers)}
    en = {i: side.astype(np.float32) for i, (_, side) in enumerate(layers)}
    ids = tuple(f"fact-{i:03d}" for i in range(len(layers[0][0])))
    return ParallelStates("made", ids, LanguageStates(zh, zh, {}), LanguageStates(en, en, {}))

"""States with a direction between the languages that is known."""

from __future__ import annotations

import numpy as np

from clm_data.eval.analysis.language.states import Side, States
from clm_data.eval.analysis.language.vectors import Array, Options
from clm_data.eval.intervals import Bootstrap

HOW = Options(Bootstrap(resamples=200), shuffles=100, probe_shuffles=2)
FACTS, WIDTH = 80, 32


def planted(strength: float, seed: int = 0) -> tuple[Array, Array, Array]:
    """States of facts with a common direction between the languages: zh, en, direction."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=WIDTH)
    direction /= np.linalg.norm(direction)
    facts = rng.normal(size=(FACTS, WIDTH))
    zh = facts + rng.normal(size=(FACTS, WIDTH)) / 2 + strength / 2 * direction
    en = facts + rng.normal(size=(FACTS, WIDTH)) / 2 - strength / 2 * direction
    return zh, en, direction


def swapped(zh: Array, en: Array, seed: int = 5) -> tuple[Array, Array]:
    """The sides of half the facts, drawn at random, exchanged."""
    order = np.random.default_rng(seed).permutation(len(zh))
    flip = np.isin(np.arange(len(zh)), order[: len(zh) // 2])[:, None]
    return np.where(flip, en, zh), np.where(flip, zh, en)


def states_of(*layers: tuple[Array, Array]) -> States:
    zh = {i: one.astype(np.float32) for i, (one, _) in enumerate(layers)}
    en = {i: two.astype(np.float32) for i, (_, two) in enumerate(layers)}
    ids = tuple(f"fact-{i:03d}" for i in range(len(layers[0][0])))
    return States("made", ids, Side(zh, zh, {}), Side(en, en, {}))

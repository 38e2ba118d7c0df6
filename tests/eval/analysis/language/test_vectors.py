"""Language vectors and the measures along them, on states with a known direction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.planted_states import FACTS, OPTIONS, parallel_states, planted_sides, swap_half

from clm_data.eval.analysis.language.estimates import correlation
from clm_data.eval.analysis.language.tables import COLUMNS, language_tables
from clm_data.eval.analysis.language.vectors import (
    delta_cosines,
    language_vector,
    layer_measures,
    parallel_layer,
    shuffled,
)
from clm_data.eval.csv_tables import write_tables
from clm_data.eval.errors import EditError
from clm_data.eval.intervals import Bootstrap, FloatArray, Interval
from clm_data.eval.results import Refusal


def measures_of(zh: FloatArray, en: FloatArray) -> dict[str, Interval | None]:
    return dict(layer_measures(parallel_layer(zh, en), OPTIONS))


def value(measures: dict[str, Interval | None], name: str) -> float:
    interval = measures[name]
    assert interval is not None
    return interval.mean


def test_a_planted_direction_is_recovered() -> None:
    zh, en, direction = planted_sides(6.0)
    assert language_vector(zh, en) @ direction > 0.99
    measures = measures_of(zh, en)
    chance = measures["projection_difference_shuffled"]
    held_out = measures["projection_difference_held_out"]
    assert chance is not None
    assert held_out is not None
    assert value(measures, "projection_difference") == pytest.approx(6.0, rel=0.1)
    assert held_out.low > chance.high
    assert value(measures, "delta_cosine_held_out") > 0.7
    assert value(measures, "separation") > 4
    assert value(measures, "split_half_cosine") > 0.95


def test_without_a_direction_the_measures_are_near_zero() -> None:
    zh, en, _ = planted_sides(0.0)
    measures = measures_of(zh, en)
    for name in ("delta_cosine_held_out", "separation", "split_half_cosine"):
        assert abs(value(measures, name)) < 0.25, name
    # With the language vector of the same facts, random differences look like a direction.
    assert value(measures, "delta_cosine") > abs(value(measures, "delta_cosine_held_out"))


def test_with_half_the_languages_swapped_the_measures_are_in_the_null_range() -> None:
    measures = measures_of(*swap_half(*planted_sides(6.0)[:2]))
    for name in ("projection_difference", "delta_cosine", "delta_cosine_held_out"):
        chance = measures[f"{name}_shuffled"]
        assert chance is not None
        assert chance.low <= value(measures, name) <= chance.high, name
    assert value(measures, "separation") < 0.25


def test_held_out_projections_equal_leaving_each_fact_out() -> None:
    zh, en, _ = planted_sides(1.0, seed=3)
    layer = parallel_layer(zh, en)
    for i in range(FACTS):
        others = np.arange(FACTS) != i
        vector = language_vector(zh[others], en[others])
        assert layer.held_out[i] == pytest.approx([zh[i] @ vector, en[i] @ vector], abs=1e-10)
        difference = zh[i] - en[i]
        cosine = difference @ vector / np.linalg.norm(difference)
        assert delta_cosines(layer)[i] == pytest.approx(cosine, abs=1e-10)


def test_the_null_distribution_equals_recomputing_with_swapped_states() -> None:
    zh, en, _ = planted_sides(2.0, seed=4)
    one = replace(OPTIONS, shuffles=1)
    drawn = shuffled(parallel_layer(zh, en), one)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (1, FACTS))[0]
    flip = (signs < 0)[:, None]
    other = parallel_layer(np.where(flip, en, zh), np.where(flip, zh, en))
    length = np.linalg.norm((other.zh - other.en).mean(0))
    assert drawn["projection_difference"][0] == pytest.approx(length)
    for name, held_out in (("delta_cosine", False), ("delta_cosine_held_out", True)):
        cosines = delta_cosines(other, held_out=held_out)
        assert drawn[name][0] == pytest.approx(cosines.mean())


def test_a_constant_shift_gives_exact_measures() -> None:
    facts = np.random.default_rng(1).normal(size=(20, 6))
    shift = np.array([0, 3.0, 0, 4.0, 0, 0])
    layer = parallel_layer(facts + shift, facts)
    assert layer.vector == pytest.approx(shift / 5)
    assert layer.bias == pytest.approx(5)
    assert delta_cosines(layer) == pytest.approx(1)
    measures = dict(layer_measures(layer, OPTIONS))
    assert value(measures, "projection_difference") == pytest.approx(5)
    assert value(measures, "split_half_cosine") == pytest.approx(1)
    assert value(measures, "bias_correlation") == pytest.approx(1)


def test_opposite_projections_have_correlation_minus_one() -> None:
    place = np.linspace(1, 2, 10)[:, None]
    axis = np.array([[1.0, 0, 0]])
    measures = measures_of(place * axis, -place * axis)
    assert value(measures, "bias_correlation") == pytest.approx(-1)
    assert value(measures, "projection_zh") == pytest.approx(1.5)
    assert value(measures, "projection_en") == pytest.approx(-1.5)
    assert value(measures, "projection_difference_relative") == pytest.approx(2)
    assert value(measures, "separation") == pytest.approx(3 / place.std())


def test_correlation_has_an_interval_and_is_undefined_for_constants() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    mean = correlation(x, 0.6 * x + 0.8 * rng.normal(size=400), Bootstrap())
    assert mean is not None
    assert mean.low < 0.6 < mean.high
    assert mean.high - mean.low < 0.2
    assert correlation(x, np.full(400, 2.0), Bootstrap()) is None
    assert correlation(x[:2], x[:2], Bootstrap()) is None


def test_facts_with_equal_states_in_both_languages_have_no_cosine() -> None:
    zh, en, _ = planted_sides(6.0)
    en[:3] = zh[:3]
    cosines = delta_cosines(parallel_layer(zh, en))
    assert np.isnan(cosines[:3]).all()
    assert not np.isnan(cosines[3:]).any()
    same = measures_of(zh, en)["same_in_both_languages"]
    assert same is not None
    assert (same.mean, same.count) == (3, FACTS)


@pytest.mark.parametrize("shape", [(1, 4), (0, 4)])
def test_too_few_facts_are_an_error(shape: tuple[int, int]) -> None:
    with pytest.raises(EditError, match="two facts"):
        parallel_layer(np.ones(shape), np.zeros(shape))


def test_equal_means_have_no_language_vector() -> None:
    with pytest.raises(EditError, match="no language vector"):
        parallel_layer(np.ones((3, 4)), np.ones((3, 4)))


def test_tables_are_complete_and_have_the_same_bytes_each_time(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the extra eval is not installed")
    zh, en, _ = planted_sides(3.0)
    lost = (Refusal(id="fact-999:en", reason="no place"),)
    states = replace(parallel_states((zh, en), swap_half(zh, en)), refused=lost)
    rows: list[dict[str, Any]] = []
    for name in ("one", "two"):
        tables = language_tables(states, OPTIONS)
        rows = tables["language_layers"]
        write_tables(tmp_path / name, tables, COLUMNS)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    got = {(row["part"], row["layer"], row["measure"]): row["value"] for row in rows}
    assert got["hidden", 0, "classifier_accuracy"] > 0.8
    assert abs(got["hidden", 1, "classifier_accuracy"] - 0.5) < 0.2
    assert abs(got["hidden", 0, "classifier_permuted"] - 0.5) < 0.2
    assert abs(got["hidden", 1, "vector_cosine_below"]) < 0.9
    assert {"hidden", "mlp"} == {part for part, _, _ in got}
    refused = (tmp_path / "one" / "language_refused.csv").read_text(encoding="utf-8")
    assert refused == "model,id,reason\nmade,fact-999:en,no place\n"

"""The language vector and what is measured along it, on states whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.planted_states import FACTS, HOW, planted, states_of, swapped

from clm_data.eval.analysis.geometry.measures import GeometryError
from clm_data.eval.analysis.language import vectors as lv
from clm_data.eval.analysis.language.vectors import Array, Options
from clm_data.eval.csv_tables import write_rows
from clm_data.eval.errors import EditError
from clm_data.eval.intervals import Bootstrap, Interval
from clm_data.eval.results import Refusal


def found(zh: Array, en: Array, how: Options = HOW) -> dict[str, Interval | None]:
    return dict(lv.measures(lv.layer_of(zh, en), how))


def value(measures: dict[str, Interval | None], name: str) -> float:
    mean = measures[name]
    assert mean is not None
    return mean.mean


def test_a_planted_direction_is_recovered() -> None:
    zh, en, direction = planted(6.0)
    assert lv.language_vector(zh, en) @ direction > 0.99
    measures = found(zh, en)
    chance = measures["projection_difference_shuffled"]
    held_out = measures["projection_difference_held_out"]
    assert chance is not None
    assert held_out is not None
    assert value(measures, "projection_difference") == pytest.approx(6.0, rel=0.1)
    assert held_out.low > chance.high
    assert value(measures, "delta_cosine_held_out") > 0.7
    assert value(measures, "separation") > 4
    assert value(measures, "split_half_cosine") > 0.95


def test_without_a_direction_nothing_is_told_apart() -> None:
    zh, en, _ = planted(0.0)
    measures = found(zh, en)
    for name in ("delta_cosine_held_out", "separation", "split_half_cosine"):
        assert abs(value(measures, name)) < 0.25, name
    # Measured with the vector that the same facts made, chance looks like a direction:
    assert value(measures, "delta_cosine") > abs(value(measures, "delta_cosine_held_out"))


def test_with_shuffled_sides_nothing_is_told_apart() -> None:
    measures = found(*swapped(*planted(6.0)[:2]))
    for name in ("projection_difference", "delta_cosine", "delta_cosine_held_out"):
        chance = measures[f"{name}_shuffled"]
        assert chance is not None
        assert chance.low <= value(measures, name) <= chance.high, name
    assert value(measures, "separation") < 0.25


def test_held_out_numbers_are_those_of_leaving_each_fact_out() -> None:
    zh, en, _ = planted(1.0, seed=3)
    layer = lv.layer_of(zh, en)
    for i in range(FACTS):
        others = np.arange(FACTS) != i
        vector = lv.language_vector(zh[others], en[others])
        assert layer.held_out[i] == pytest.approx([zh[i] @ vector, en[i] @ vector], abs=1e-10)
        difference = zh[i] - en[i]
        cosine = difference @ vector / np.linalg.norm(difference)
        assert lv.delta_cosines(layer)[i] == pytest.approx(cosine, abs=1e-10)


def test_shuffled_numbers_are_those_of_swapped_states() -> None:
    zh, en, _ = planted(2.0, seed=4)
    one = replace(HOW, shuffles=1)
    drawn = lv.shuffled(lv.layer_of(zh, en), one)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (1, FACTS))[0]
    flip = (signs < 0)[:, None]
    other = lv.layer_of(np.where(flip, en, zh), np.where(flip, zh, en))
    length = np.linalg.norm((other.zh - other.en).mean(0))
    assert drawn["projection_difference"][0] == pytest.approx(length)
    for name, held_out in (("delta_cosine", False), ("delta_cosine_held_out", True)):
        cosines = lv.delta_cosines(other, held_out=held_out)
        assert drawn[name][0] == pytest.approx(cosines.mean())


def test_a_common_shift_is_all_there_is() -> None:
    facts = np.random.default_rng(1).normal(size=(20, 6))
    shift = np.array([0, 3.0, 0, 4.0, 0, 0])
    layer = lv.layer_of(facts + shift, facts)
    assert layer.vector == pytest.approx(shift / 5)
    assert layer.bias == pytest.approx(5)
    assert lv.delta_cosines(layer) == pytest.approx(1)
    measures = dict(lv.measures(layer, HOW))
    assert value(measures, "projection_difference") == pytest.approx(5)
    assert value(measures, "split_half_cosine") == pytest.approx(1)
    assert value(measures, "bias_correlation") == pytest.approx(1)


def test_opposite_places_are_correlated_by_minus_one() -> None:
    place = np.linspace(1, 2, 10)[:, None]
    axis = np.array([[1.0, 0, 0]])
    measures = found(place * axis, -place * axis)
    assert value(measures, "bias_correlation") == pytest.approx(-1)
    assert value(measures, "projection_zh") == pytest.approx(1.5)
    assert value(measures, "projection_en") == pytest.approx(-1.5)
    assert value(measures, "projection_difference_relative") == pytest.approx(2)
    assert value(measures, "separation") == pytest.approx(3 / place.std())


def test_correlation_has_an_interval_and_none_where_it_is_undefined() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    mean = lv.correlation(x, 0.6 * x + 0.8 * rng.normal(size=400), Bootstrap())
    assert mean is not None
    assert mean.low < 0.6 < mean.high
    assert mean.high - mean.low < 0.2
    assert lv.correlation(x, np.full(400, 2.0), Bootstrap()) is None
    assert lv.correlation(x[:2], x[:2], Bootstrap()) is None


def test_facts_that_are_one_text_in_both_languages_have_no_cosine() -> None:
    zh, en, _ = planted(6.0)
    en[:3] = zh[:3]
    cosines = lv.delta_cosines(lv.layer_of(zh, en))
    assert np.isnan(cosines[:3]).all()
    assert not np.isnan(cosines[3:]).any()
    same = found(zh, en)["same_in_both_languages"]
    assert same is not None
    assert (same.mean, same.count) == (3, FACTS)


@pytest.mark.parametrize("shape", [(1, 4), (0, 4)])
def test_too_few_facts_are_an_error(shape: tuple[int, int]) -> None:
    with pytest.raises(EditError, match="two facts"):
        lv.layer_of(np.ones(shape), np.zeros(shape))


def test_equal_states_have_no_vector() -> None:
    with pytest.raises(EditError, match="no language vector"):
        lv.layer_of(np.ones((3, 4)), np.ones((3, 4)))


def test_a_value_out_of_range_is_an_error_and_rounding_is_not() -> None:
    assert lv.in_range(np.array([1 + 1e-9, np.nan]), -1, 1, "cosine")[0] == 1
    with pytest.raises(GeometryError, match="cosine is not from -1 to 1"):
        lv.in_range(np.array([0.0, 1.01]), -1, 1, "cosine")


def test_tables_are_whole_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the extra eval is not installed")
    zh, en, _ = planted(3.0)
    lost = (Refusal(id="fact-999:en", reason="no place"),)
    states = replace(states_of((zh, en), swapped(zh, en)), refused=lost)
    rows: list[dict[str, Any]] = []
    for name in ("one", "two"):
        tables = lv.analyse(states, HOW)
        rows = tables["language_layers"]
        for table, written in tables.items():
            write_rows(tmp_path / name / f"{table}.csv", written, lv.COLUMNS[table])
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    got = {(row["part"], row["layer"], row["measure"]): row["value"] for row in rows}
    assert got["hidden", 0, "probe_accuracy"] > 0.8
    assert abs(got["hidden", 1, "probe_accuracy"] - 0.5) < 0.2
    assert abs(got["hidden", 0, "probe_permuted"] - 0.5) < 0.2
    assert abs(got["hidden", 1, "vector_cosine_below"]) < 0.9
    assert {"hidden", "mlp"} == {part for part, _, _ in got}
    refused = (tmp_path / "one" / "language_refused.csv").read_text(encoding="utf-8")
    assert refused == "model,id,reason\nmade,fact-999:en,no place\n"

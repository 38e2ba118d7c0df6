"""Geometry tables of real edits with every editor, in two batches and three languages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

import numpy as np
from helpers.tiny_dataset import CONFIG, RECORDS
from safetensors import safe_open

from clm_data.errors import InputFileError
from clm_data.eval.analysis.checks import AnalysisError
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix
from clm_data.eval.analysis.geometry.measures import ANGLES, OVERLAPS, compare
from clm_data.eval.analysis.geometry.saved_edits import find_edits
from clm_data.eval.analysis.geometry.tables import COLUMNS, geometry_tables
from clm_data.eval.analysis.options import GeometryOptions
from clm_data.eval.csv_tables import ResultTables, read_rows, write_tables
from clm_data.eval.dataset import EvalSet
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.recipe import Recipe
from clm_data.eval.sweep.runner import run_sweep

QUICK = GeometryOptions(
    Bootstrap(resamples=50), costly_resamples=5, k=3, null_draws=20, splits=2, permutations=99
)
MULTILAYER = ("memit", "alphaedit", "pmet")
METHODS = (*MULTILAYER, "rome", "ft")
GRID: dict[str, Any] = {
    "models": [{"name": "tiny"}],
    "methods": METHODS,
    "languages": ["zh", "en", "mix"],
    "batch_sizes": [4],
    "params": {method: {"values": {"steps": 4}} for method in METHODS if method != "ft"}
    | {"ft": {"epochs": 2}},
    "resamples": 10,
    "generate": False,
}


def edited_folder(tiny_folder: Path, out: Path, save: bool = True, **changes: Any) -> Path:
    """Edit the tiny model, with `GRID` and these changes to it; returns `out`."""
    results = run_sweep(
        Recipe.model_validate(GRID | changes),
        EvalSet("made", tuple(RECORDS)),
        out=out,
        cache=tiny_folder.parent,
        save_deltas=save,
        tiny_config=CONFIG,
    )
    assert not results.failed
    return out


@pytest.fixture(scope="session")
def edited(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edited_folder(tiny_folder, tmp_path_factory.mktemp("edited") / "out")


@pytest.fixture(scope="session")
def tables(edited: Path) -> ResultTables:
    return geometry_tables(edited, QUICK)


@pytest.fixture
def copy(edited: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(edited, tmp_path / "copy"))


def rows_with(rows: Iterable[dict[str, Any]], **values: object) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def test_every_editor_layer_batch_and_comparison_has_rows(tables: ResultTables) -> None:
    for method in METHODS:
        layers = {row["layer"] for row in rows_with(tables["geometry"], method=method)}
        assert layers == {0, 1} if method in MULTILAYER else len(layers) == 1
        for layer in layers:
            cosines = rows_with(tables["geometry"], method=method, layer=layer, measure="cosine")
            names = {row["comparison"] for row in cosines}
            expected = {"zh-en", "sum-mix", "null-zh-en", "null-sum-mix"}
            expected |= {f"disjoint-{name}" for name in ("zh", "en", "mix", "zh-en", "sum-mix")}
            if method != "ft":
                expected |= {"split-zh", "split-en", "split-zh-en"}
            assert names == expected
            batches = {"zh-en": {0, 1, "all"}, "disjoint-zh": {0, "all"}}
            for name, labels in batches.items():
                assert {row["batch"] for row in rows_with(cosines, comparison=name)} == labels
    assert tables["geometry_skipped"] == []


def test_every_measure_is_in_its_range(tables: ResultTables) -> None:
    ranges = {"cosine": (-1, 1), "relative_error": (0, np.inf)}
    ranges |= dict.fromkeys(ANGLES, (0, 90)) | dict.fromkeys(OVERLAPS, (0, 1))
    for row in tables["geometry"]:
        low, high = ranges.get(str(row["measure"]), (0, np.inf))
        for name in ("value", "low", "high"):
            number: Any = row[name]
            assert number is None or low <= number <= high
    assert all(row["value"] is not None for row in tables["geometry"])


def test_measures_equal_those_of_the_dense_matrices(edited: Path, tables: ResultTables) -> None:
    for group in find_edits(edited, k=3).groups:
        for layer in group.layers():
            zh, en, mix = (
                LowRankMatrix(group.batches[lang][1].change(layer).dense(), k=3)
                for lang in ("zh", "en", "mix")
            )
            expected = {
                "zh-en": compare(zh, en),
                "sum-mix": compare(LowRankMatrix(zh.left + en.left, k=3), mix),
            }
            for comparison, values in expected.items():
                for measure, value in values.items():
                    (row,) = rows_with(
                        tables["geometry"],
                        method=group.setting.method,
                        layer=layer,
                        batch=1,
                        comparison=comparison,
                        measure=measure,
                    )
                    assert row["value"] == pytest.approx(value, rel=1e-6, abs=1e-6)


def test_batch_all_is_the_mean_over_batches(tables: ResultTables) -> None:
    place: dict[str, Any] = {"method": "memit", "layer": 1, "comparison": "zh-en"}
    rows = rows_with(tables["geometry"], **place, measure="angle_left_mean")
    values = {row["batch"]: row["value"] for row in rows}
    assert values["all"] == pytest.approx((values[0] + values[1]) / 2)
    (row,) = rows_with(rows, batch="all")
    assert row["interval"] == "batches"
    assert row["low"] == pytest.approx(min(values[0], values[1]))
    assert row["facts"] == 8


def test_equal_edits_in_both_languages_have_cosine_1_and_error_0(copy: Path) -> None:
    results = json.loads((copy / "results.json").read_text(encoding="utf-8"))
    keys = {
        cell["setting"]["language"]: cell["key"]
        for cell in results["cells"]
        if cell["setting"]["method"] == "memit"
    }
    for batch in ("0000", "0001"):
        shutil.copy(
            copy / "deltas" / f"{keys['zh']}-{batch}.safetensors",
            copy / "deltas" / f"{keys['en']}-{batch}.safetensors",
        )
    found = geometry_tables(copy, QUICK)
    for row in rows_with(found["geometry"], method="memit", comparison="zh-en", batch="all"):
        expected = {"cosine": 1, "relative_error": 0, "norm_ratio": 1}
        expected |= dict.fromkeys(ANGLES, 0) | dict.fromkeys(OVERLAPS, 1)
        if row["measure"] in expected:
            assert row["value"] == pytest.approx(expected[row["measure"]], abs=1e-6)
    for row in rows_with(found["factors"], method="memit", pairing="same-fact"):
        if row["part"] != "raw-keys":
            assert row["value"] == pytest.approx(1)


def test_residuals_and_keys_are_compared_for_every_editor_with_factors(
    tables: ResultTables,
) -> None:
    assert {row["method"] for row in tables["factors"]} == set(METHODS) - {"ft"}
    raw = rows_with(tables["factors"], part="raw-keys")
    assert {row["method"] for row in raw} == {"alphaedit"}
    for row in rows_with(tables["factors"], part="residuals", pairing="same-fact"):
        assert row["facts"] == 8
        assert -1 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["interval"] == "facts"


def test_transfer_counts_facts_and_tests_layers(copy: Path) -> None:
    results = json.loads((copy / "results.json").read_text(encoding="utf-8"))
    for cell in results["cells"]:
        file = copy / "cells" / f"{cell['key']}.json"
        cell_json = json.loads(file.read_text(encoding="utf-8"))
        for number, item in enumerate(cell_json["items"]):
            for lang, reached in (("zh", True), ("en", number % 2 == 0)):
                item[lang] |= {"reliability": float(reached), "prefers_new": float(reached)}
        file.write_text(json.dumps(cell_json), encoding="utf-8")
    (before,) = (copy / "before").iterdir()
    rows = json.loads(before.read_text(encoding="utf-8"))
    for row in rows:
        for lang in ("zh", "en"):
            row[lang] |= {"reliability": 0.0, "prefers_new": 0.0}
    before.write_text(json.dumps(rows), encoding="utf-8")
    found = geometry_tables(copy, QUICK)["transfer"]
    (count,) = rows_with(found, method="memit", language="zh", criterion="exact", measure="facts")
    assert (count["transferred"], count["stayed"], count["p"]) == (4, 4, None)
    tested = rows_with(
        found, method="memit", language="zh", criterion="exact", measure="key_cosine"
    )
    assert {row["layer"] for row in tested} == {0, 1}
    assert all(0 < row["p"] <= row["p_holm"] <= 1 for row in tested)
    (count,) = rows_with(found, method="memit", language="en", criterion="exact", measure="facts")
    assert (count["transferred"], count["stayed"]) == (4, 0)
    assert {row["measure"] for row in rows_with(found, method="ft")} == {"facts"}


def test_the_tables_have_the_same_bytes_each_time(
    edited: Path, tables: ResultTables, tmp_path: Path
) -> None:
    files = write_tables(tmp_path / "one", tables, COLUMNS)
    write_tables(tmp_path / "two", geometry_tables(edited, QUICK), COLUMNS)
    assert [file.name for file in files] == [
        "geometry.csv",
        "factors.csv",
        "transfer.csv",
        "geometry_skipped.csv",
    ]
    for file in files:
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
        assert file.read_bytes().startswith(b"model,method,protocol,mode,layers,batch_size,")
    rows = read_rows(files[0])
    assert len(rows) == len(tables["geometry"])
    assert str(tmp_path).encode() not in b"".join(file.read_bytes() for file in files)


def test_a_cell_with_missing_files_is_skipped_with_the_reason(copy: Path) -> None:
    results = json.loads((copy / "results.json").read_text(encoding="utf-8"))
    keys = {
        (cell["setting"]["method"], cell["setting"]["language"]): cell["key"]
        for cell in results["cells"]
    }
    (copy / "deltas" / f"{keys['memit', 'en']}-0001.safetensors").unlink()
    for file in (copy / "deltas").glob(f"{keys['pmet', 'mix']}-*"):
        file.unlink()
    found = geometry_tables(copy, QUICK)
    reasons = {(row["method"], row["language"]): row["reason"] for row in found["geometry_skipped"]}
    assert reasons[("memit", "en")] == "found 1 of 2 files of weight changes"
    assert reasons[("memit", "zh")] == "no edits in en to compare with"
    assert reasons[("pmet", "mix")] == "found 0 of 2 files of weight changes"
    names = {row["comparison"] for row in rows_with(found["geometry"], method="pmet")}
    assert "zh-en" in names
    assert not any("mix" in str(name) for name in names)
    assert not rows_with(found["geometry"], method="memit")


def test_batches_beyond_the_maximum_are_reported_as_skipped(edited: Path) -> None:
    found = find_edits(edited, max_batches=1)
    assert {group.count for group in found.groups} == {1}
    assert {reason for _, reason in found.skipped} == {
        "batches from 1 are not analyzed; the cell has 2"
    }


def test_a_sequential_run_is_compared_as_one_sum(tiny_folder: Path, tmp_path: Path) -> None:
    out = edited_folder(
        tiny_folder,
        tmp_path / "out",
        methods=["memit", "ft"],
        modes=["sequential"],
        batch_sizes=[4],
    )
    found = geometry_tables(out, QUICK)
    assert {row["batch"] for row in found["geometry"]} == {"all"}
    (row,) = rows_with(
        found["geometry"], method="memit", layer=1, comparison="zh-en", measure="cosine"
    )
    assert row["facts"] == 8


def test_single_edits_have_one_dimension_and_no_interval_over_facts(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = edited_folder(tiny_folder, tmp_path / "out", methods=["rome"], batch_sizes=[1])
    found = geometry_tables(out, QUICK)
    rows = rows_with(found["geometry"], comparison="zh-en", measure="angle_dimensions", batch=0)
    assert [row["value"] for row in rows] == [1]
    (mean,) = rows_with(found["geometry"], comparison="zh-en", measure="cosine", batch="all")
    assert mean["interval"] == "batches"
    (alone,) = rows_with(found["geometry"], comparison="zh-en", measure="cosine", batch=0)
    assert (alone["low"], alone["interval"]) == (None, "")


def test_a_sweep_without_saved_changes_says_how_to_save_them(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = edited_folder(tiny_folder, tmp_path / "out", save=False, methods=["ft"])
    with pytest.raises(InputFileError, match="--save-deltas"):
        geometry_tables(out, QUICK)
    with pytest.raises(InputFileError, match="no results"):
        geometry_tables(tmp_path / "nowhere", QUICK)


def test_nan_in_a_saved_change_is_an_error_that_names_file_and_tensor(copy: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    file = sorted((copy / "deltas").iterdir())[0]
    with safe_open(file, "pt") as held:
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
        about = held.metadata()
    name = next(name for name in tensors if name.startswith("left:"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, about)
    with pytest.raises(AnalysisError, match=rf"{file.name}: {name} contains NaN"):
        geometry_tables(copy, QUICK)


def test_a_cell_with_a_damaged_file_is_left_out_by_name(copy: Path) -> None:
    first, *others = sorted((copy / "deltas").iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    found = find_edits(copy)
    reason = f"{first.name} is damaged; run eval-baselines again with --save-deltas"
    assert reason in [why for _, why in found.skipped]
    assert len(found.groups) >= len(METHODS) - 1
    for file in others:
        file.write_bytes(b"nothing")
    with pytest.raises(InputFileError, match=r"\.safetensors is damaged"):
        find_edits(copy)


def test_a_method_without_weight_changes_is_left_out_for_that_in_any_language(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = edited_folder(tiny_folder, tmp_path, methods=["ice-oracle"], languages=["zh"], params={})
    assert [why for _, why in find_edits(out).skipped] == ["the method changes no weights"]


def _ultraedit_folder(tiny_folder: Path, out: Path, **layers: list[int]) -> Path:
    """Results of one batch of UltraEdit in each language; the layers of gate, up and down."""
    return edited_folder(
        tiny_folder,
        out,
        methods=["ultraedit"],
        languages=["zh", "en"],
        max_batches=1,
        params={"ultraedit": layers},
    )


def test_the_weights_of_a_layer_that_read_the_same_input_are_compared_as_one(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = _ultraedit_folder(tiny_folder, tmp_path / "out", gate=[0, 1], up=[1], down=[])
    (group,) = find_edits(out).groups
    edit = group.batches["zh"][0]
    hidden, inner = CONFIG.hidden_size, CONFIG.intermediate_size
    assert group.layers() == [0, 1]
    assert edit.change(0).shape == (inner, hidden)
    assert edit.change(1).shape == (2 * inner, hidden)
    with safe_open(edit.path, "np") as file:
        parts = [
            file.get_tensor(f"left:{path}") @ file.get_tensor(f"right:{path}")
            for path in edit.weights[1]
        ]
    assert np.allclose(edit.change(1).dense(), np.concatenate(parts))
    found = geometry_tables(out, QUICK)
    assert found["geometry_skipped"] == []
    zh, en = (group.batches[lang][0].change(1).dense().ravel() for lang in ("zh", "en"))
    (row,) = rows_with(found["geometry"], layer=1, batch=0, comparison="zh-en", measure="cosine")
    expected = zh @ en / np.linalg.norm(zh) / np.linalg.norm(en)
    assert row["value"] == pytest.approx(expected, rel=1e-6)


def test_weights_of_a_layer_with_different_inputs_are_skipped_with_the_reason(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = _ultraedit_folder(tiny_folder, tmp_path / "out", gate=[], up=[1], down=[1])
    found = find_edits(out)
    assert found.groups == ()
    ((_, reason),) = found.skipped
    assert reason == "layer 1 changes weights with different inputs, which cannot be stacked"

"""A results folder of real edits, whole: every editor, two batches, three languages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

import numpy as np
from helpers.tiny_dataset import CONFIG, RECORDS

from clm_data.errors import InputFileError
from clm_data.eval.analysis.geometry import tables as geometry
from clm_data.eval.analysis.geometry.measures import ANGLES, NEURONS, Change, GeometryError, compare
from clm_data.eval.analysis.geometry.resample import Settings
from clm_data.eval.analysis.geometry.saved_edits import find_edits
from clm_data.eval.analysis.geometry.tables import GeometryTables
from clm_data.eval.csv_tables import read_rows
from clm_data.eval.dataset import EvalSet
from clm_data.eval.recipe import Recipe
from clm_data.eval.sweep.runner import run_sweep

QUICK = Settings(k=3, resamples=50, heavy_resamples=5, draws=20, splits=2, permutations=99)
METHODS = ("memit", "alphaedit", "pmet", "rome", "ft")
GRID: dict[str, Any] = {
    "models": [{"name": "tiny"}],
    "methods": METHODS,
    "languages": ["zh", "en", "mix"],
    "batch_sizes": [4],
    "params": {method: {"values": {"steps": 4}} for method in METHODS if method != "ft"}
    | {"ft": {"steps": 2}},
    "resamples": 10,
    "generate": False,
}


def sweep(tiny_folder: Path, out: Path, save: bool = True, **changes: Any) -> Path:
    found = run_sweep(
        Recipe.model_validate(GRID | changes),
        EvalSet("made", tuple(RECORDS)),
        out=out,
        cache=tiny_folder.parent,
        save_deltas=save,
        tiny_config=CONFIG,
    )
    assert not found.failed
    return out


@pytest.fixture(scope="session")
def edited(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweep(tiny_folder, tmp_path_factory.mktemp("edited") / "out")


@pytest.fixture(scope="session")
def tables(edited: Path) -> GeometryTables:
    return geometry.analyse(edited, QUICK)


@pytest.fixture
def copy(edited: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(edited, tmp_path / "copy"))


def picked(rows: Any, **wanted: object) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_every_editor_layer_batch_and_comparison_is_there(tables: GeometryTables) -> None:
    for method in METHODS:
        layers = {row["layer"] for row in picked(tables.geometry, method=method)}
        assert layers == ({0, 1} if method in ("memit", "alphaedit", "pmet") else layers)
        for layer in layers:
            here = picked(tables.geometry, method=method, layer=layer, measure="cosine")
            names = {row["comparison"] for row in here}
            expected = {"zh-en", "sum-mix", "null-zh-en", "null-sum-mix"}
            expected |= {f"disjoint-{name}" for name in ("zh", "en", "mix", "zh-en", "sum-mix")}
            if method != "ft":
                expected |= {"split-zh", "split-en", "split-zh-en"}
            assert names == expected
            assert {row["batch"] for row in picked(here, comparison="zh-en")} == {0, 1, "all"}
            assert {row["batch"] for row in picked(here, comparison="disjoint-zh")} == {0, "all"}
    assert tables.skipped == ()


def test_every_number_is_in_its_range(tables: GeometryTables) -> None:
    ranges = {"cosine": (-1, 1), "relative_error": (0, np.inf)}
    ranges |= dict.fromkeys(ANGLES, (0, 90)) | dict.fromkeys(NEURONS, (0, 1))
    for row in tables.geometry:
        low, high = ranges.get(str(row["measure"]), (0, np.inf))
        for name in ("value", "low", "high"):
            number: Any = row[name]
            assert number is None or low <= number <= high
    assert all(row["value"] is not None for row in tables.geometry)


def test_the_numbers_are_those_of_the_whole_matrices(edited: Path, tables: GeometryTables) -> None:
    for group in find_edits(edited, k=3).groups:
        for layer in group.layers():
            zh, en, mix = (
                Change(group.batches[lang][1].change(layer).dense(), k=3)
                for lang in ("zh", "en", "mix")
            )
            expected = {
                "zh-en": compare(zh, en),
                "sum-mix": compare(Change(zh.left + en.left, k=3), mix),
            }
            for comparison, values in expected.items():
                for measure, value in values.items():
                    (row,) = picked(
                        tables.geometry,
                        method=group.setting.method,
                        layer=layer,
                        batch=1,
                        comparison=comparison,
                        measure=measure,
                    )
                    assert row["value"] == pytest.approx(value, rel=1e-6, abs=1e-6)


def test_batch_all_is_the_mean_over_batches(tables: GeometryTables) -> None:
    where: dict[str, Any] = {"method": "memit", "layer": 1, "comparison": "zh-en"}
    rows = picked(tables.geometry, **where, measure="angle_left_mean")
    values = {row["batch"]: row["value"] for row in rows}
    assert values["all"] == pytest.approx((values[0] + values[1]) / 2)
    (row,) = picked(rows, batch="all")
    assert row["interval"] == "batches"
    assert row["low"] == pytest.approx(min(values[0], values[1]))
    assert row["facts"] == 8


def test_the_same_edit_in_either_place_gives_the_known_answers(copy: Path) -> None:
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
    found = geometry.analyse(copy, QUICK)
    for row in picked(found.geometry, method="memit", comparison="zh-en", batch="all"):
        expected = {"cosine": 1, "relative_error": 0, "norm_ratio": 1}
        expected |= dict.fromkeys(ANGLES, 0) | dict.fromkeys(NEURONS, 1)
        if row["measure"] in expected:
            assert row["value"] == pytest.approx(expected[row["measure"]], abs=1e-6)
    for row in picked(found.factors, method="memit", pairing="same-fact"):
        if row["part"] != "raw-keys":
            assert row["value"] == pytest.approx(1)


def test_residuals_and_keys_of_every_editor_with_factors(tables: GeometryTables) -> None:
    assert {row["method"] for row in tables.factors} == set(METHODS) - {"ft"}
    raw = picked(tables.factors, part="raw-keys")
    assert {row["method"] for row in raw} == {"alphaedit"}
    for row in picked(tables.factors, part="residuals", pairing="same-fact"):
        assert row["facts"] == 8
        assert -1 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["interval"] == "facts"


def test_transfer_counts_facts_and_tests_layers(copy: Path) -> None:
    results = json.loads((copy / "results.json").read_text(encoding="utf-8"))
    for cell in results["cells"]:
        file = copy / "cells" / f"{cell['key']}.json"
        whole = json.loads(file.read_text(encoding="utf-8"))
        for number, item in enumerate(whole["items"]):
            for lang, reached in (("zh", True), ("en", number % 2 == 0)):
                item[lang] |= {"reliability": float(reached), "prefers_new": float(reached)}
        file.write_text(json.dumps(whole), encoding="utf-8")
    before = copy / "before" / "tiny-native.json"
    rows = json.loads(before.read_text(encoding="utf-8"))
    for row in rows:
        for lang in ("zh", "en"):
            row[lang] |= {"reliability": 0.0, "prefers_new": 0.0}
    before.write_text(json.dumps(rows), encoding="utf-8")
    found = geometry.analyse(copy, QUICK).transfer
    (count,) = picked(found, method="memit", language="zh", criterion="exact", measure="facts")
    assert (count["transferred"], count["stayed"], count["p"]) == (4, 4, None)
    tested = picked(found, method="memit", language="zh", criterion="exact", measure="key_cosine")
    assert {row["layer"] for row in tested} == {0, 1}
    assert all(0 < row["p"] <= row["p_holm"] <= 1 for row in tested)
    (count,) = picked(found, method="memit", language="en", criterion="exact", measure="facts")
    assert (count["transferred"], count["stayed"]) == (4, 0)
    assert {row["measure"] for row in picked(found, method="ft")} == {"facts"}


def test_again_the_same_bytes(edited: Path, tables: GeometryTables, tmp_path: Path) -> None:
    files = geometry.write(tmp_path / "one", tables)
    geometry.write(tmp_path / "two", geometry.analyse(edited, QUICK))
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
    assert len(rows) == len(tables.geometry)
    assert str(tmp_path).encode() not in b"".join(file.read_bytes() for file in files)


def test_a_cell_without_its_changes_is_skipped_with_the_reason(copy: Path) -> None:
    results = json.loads((copy / "results.json").read_text(encoding="utf-8"))
    keys = {
        (cell["setting"]["method"], cell["setting"]["language"]): cell["key"]
        for cell in results["cells"]
    }
    (copy / "deltas" / f"{keys['memit', 'en']}-0001.safetensors").unlink()
    for file in (copy / "deltas").glob(f"{keys['pmet', 'mix']}-*"):
        file.unlink()
    found = geometry.analyse(copy, QUICK)
    reasons = {(row["method"], row["language"]): row["reason"] for row in found.skipped}
    assert reasons[("memit", "en")] == "1 of 2 saved weight changes are there"
    assert reasons[("memit", "zh")] == "no edits in en to compare with"
    assert reasons[("pmet", "mix")] == "0 of 2 saved weight changes are there"
    names = {row["comparison"] for row in picked(found.geometry, method="pmet")}
    assert "zh-en" in names
    assert not any("mix" in str(name) for name in names)
    assert not picked(found.geometry, method="memit")


def test_only_so_many_batches_are_read_and_the_rest_is_named(edited: Path) -> None:
    found = find_edits(edited, batches=1)
    assert {group.count for group in found.groups} == {1}
    assert {reason for _, reason in found.skipped} == {"batches 1 to 1: beyond the most"}


def test_a_sequential_run_is_compared_as_its_sum(tiny_folder: Path, tmp_path: Path) -> None:
    out = sweep(
        tiny_folder,
        tmp_path / "out",
        methods=["memit", "ft"],
        modes=["sequential"],
        batch_sizes=[4],
    )
    found = geometry.analyse(out, QUICK)
    assert {row["batch"] for row in found.geometry} == {"all"}
    (row,) = picked(found.geometry, method="memit", layer=1, comparison="zh-en", measure="cosine")
    assert row["facts"] == 8


def test_single_edits_have_one_dimension_and_no_interval_over_facts(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = sweep(tiny_folder, tmp_path / "out", methods=["rome"], batch_sizes=[1])
    found = geometry.analyse(out, QUICK)
    rows = picked(found.geometry, comparison="zh-en", measure="angle_dimensions", batch=0)
    assert [row["value"] for row in rows] == [1]
    (mean,) = picked(found.geometry, comparison="zh-en", measure="cosine", batch="all")
    assert mean["interval"] == "batches"
    (alone,) = picked(found.geometry, comparison="zh-en", measure="cosine", batch=0)
    assert (alone["low"], alone["interval"]) == (None, "")


def test_a_sweep_without_saved_changes_says_how_to_save_them(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = sweep(tiny_folder, tmp_path / "out", save=False, methods=["ft"])
    with pytest.raises(InputFileError, match="--save-deltas"):
        geometry.analyse(out, QUICK)
    with pytest.raises(InputFileError, match="no results"):
        geometry.analyse(tmp_path / "nowhere", QUICK)


def test_nan_in_a_saved_change_is_an_error_that_says_where(copy: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    file = sorted((copy / "deltas").iterdir())[0]
    with safe_open(file, "pt") as held:
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
        about = held.metadata()
    name = next(name for name in tensors if name.startswith("left:"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, about)
    with pytest.raises(GeometryError, match=rf"{file.name}: {name} holds NaN"):
        geometry.analyse(copy, QUICK)


def test_a_broken_file_is_named(copy: Path) -> None:
    file = sorted((copy / "deltas").iterdir())[0]
    file.write_bytes(b"nothing")
    with pytest.raises(InputFileError, match=file.name):
        geometry.analyse(copy, QUICK)

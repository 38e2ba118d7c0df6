"""Cells that EasyEdit computes, next to ours in the same results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_easyedit import fake_checkout

pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.saved_folders import cell_versions, model_folder
from helpers.tiny_dataset import RECORDS

from clm_data.cli import run
from clm_data.eval.analysis.geometry.saved_edits import EditGroup
from clm_data.eval.csv_tables import VARIANT
from clm_data.eval.easyedit.found import EasyEdit
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.recipe import Recipe
from clm_data.eval.results import Results, Setting, read_cell
from clm_data.eval.sweep.evaluate import evaluate
from clm_data.eval.tables import variant_name

BOTH: dict[str, Any] = {
    "backend": ["clm-data", "easyeditor"],
    "languages": "zh",
    "params": "tiny",
    "corpus": "dataset",
    "dtype": "float32",
}


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("easyedit") / "small"))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = fake_checkout(tmp_path / "home")
    monkeypatch.setenv("EASYEDIT_HOME", str(home))
    monkeypatch.setenv("EASYEDIT_PYTHON", sys.executable)
    return home


def test_both_engines_are_in_one_table(small_model: str, checkout: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    arguments = {**BOTH, "methods": ["ft", "pmet"], "batch_sizes": 2, "mode": "sequential"}

    def again() -> Results:
        return evaluate(
            RECORDS[:4], model=small_model, **arguments, out=out, cache=cache, save_deltas=True
        )

    results = again()
    assert [cell.setting.label for cell in results.cells] == [
        "small ft zh batch 2 sequential easyedit",
        "small ft zh batch 2 sequential easyedit easyeditor",
        "small pmet zh batch 2 sequential easyedit",
        "small pmet zh batch 2 sequential easyedit easyeditor",
    ]
    ours, theirs, _, failed = results.cells
    assert (ours.status, theirs.status, failed.status) == ("done", "done", "failed")
    assert ours.engine is None
    assert theirs.engine is not None
    assert len(theirs.engine["source"]) == 16
    assert theirs.before == ours.before
    assert theirs.baseline == ours.baseline
    assert "EasyEdit" in str(failed.error)
    assert "has no PMET" in str(failed.error)
    table = (out / "table.md").read_text("utf-8")
    assert "| FT-L (EasyEdit) | zh |" in table
    assert f"protocol easyedit; sequential; EasyEdit checkout {theirs.engine['source']} |" in table
    assert not list(cache.glob("easyedit-*"))  # the copy of the model is gone
    [[path, difference]] = results.differences[theirs.key].items()
    first, second = (
        Deltas.load(out / "deltas" / f"{cell.key}-all.safetensors").weights[path].dense()
        for cell in (ours, theirs)
    )
    assert difference.relative == pytest.approx(float((second - first).norm() / first.norm()))
    assert difference.cosine == pytest.approx(
        float((first * second).sum() / first.norm() / second.norm()), abs=1e-6
    )
    assert f"{difference.relative:.1e}" in table
    # Another run computes only the failed cell; another EasyEdit is another cell.
    before = cell_versions(out)
    again()
    assert (
        cell_versions(out).items()
        >= {n: v for n, v in before.items() if failed.key not in n}.items()
    )
    file = checkout / "easyeditor" / "models" / "ft" / "ft_main.py"
    file.write_text(file.read_text("utf-8") + "# changed\n", encoding="utf-8")
    assert again().cells[1].key != theirs.key


def test_every_kind_of_edit_is_compared(
    small_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = fake_checkout(tmp_path / "home", complete=True)
    monkeypatch.setenv("EASYEDIT_HOME", str(home))
    monkeypatch.setenv("EASYEDIT_PYTHON", sys.executable)
    recipe = {
        "models": [{"name": small_model, "params": "tiny", "dtype": "float32"}],
        "methods": ["lora", "grace"],
        "languages": ["zh"],
        "batch_sizes": [2],
        "modes": ["sequential"],
        "backends": ["clm-data", "easyeditor"],
        "params": {
            "lora": {
                **{"order": "depth-first", "append_eos": False, "batch_size": 1, "stop_at": 0},
                "targets": ["q_proj", "v_proj"],
            },
            "grace": {"labels": "easyedit"},
        },
    }
    results = evaluate(
        RECORDS[:4],
        recipe=Recipe.model_validate(recipe),
        out=tmp_path / "out",
        cache=tmp_path / "cache",
        save_deltas=True,
    )
    assert [cell.status for cell in results.cells] == ["done"] * 4
    _, lora, _, grace = results.cells
    assert all(".self_attn." in path for path in results.differences[lora.key])
    found = results.differences[grace.key]
    assert found.keys() == {"keys", "values"}
    assert found["keys"].relative < 1e-6
    assert found["values"].relative > 0.1  # those of the stand-in are not trained
    table = (tmp_path / "out" / "table.md").read_text("utf-8")
    assert table.count(f"EasyEdit {grace.engine_version.removeprefix('EasyEdit ')}") == 4


def test_without_an_environment_only_easyedits_cells_fail(
    small_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EASYEDIT_PYTHON", raising=False)
    out = tmp_path / "out"
    results = evaluate(RECORDS[:2], model=small_model, methods="ft", **BOTH, out=out)
    assert [cell.status for cell in results.cells] == ["done", "failed"]
    assert "clm-data eval setup-easyeditor DIR" in str(results.cells[1].error)


def test_easyedit_edits_with_its_own_protocol_only(
    small_model: str, checkout: Path, tmp_path: Path
) -> None:
    arguments = {**BOTH, "backend": "easyeditor", "methods": "ft", "protocol": "native"}
    results = evaluate(RECORDS[:2], model=small_model, **arguments, out=tmp_path / "out")
    assert "add --protocol easyedit" in str(results.cells[0].error)


@pytest.mark.parametrize("method", ["langedit", "lora"])
def test_a_method_that_is_not_there_names_those_that_are(
    method: str, small_model: str, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "lora":  # the release
        release = EasyEdit(Path(sys.executable), None, {"easyeditor": "0.0.1"}, "0")
        monkeypatch.setattr("clm_data.eval.sweep.evaluate.find_easyedit", lambda _python: release)
    arguments = {**BOTH, "backend": "easyeditor", "methods": method}
    error = str(evaluate(RECORDS[:2], model=small_model, **arguments, out=tmp_path).cells[0].error)
    if method == "lora":
        assert error.endswith(
            "EasyEdit 0.0.1 computes memit, rome, ft here, not lora; a checkout of it computes lora"
        )
    else:
        assert "computes memit, alphaedit, pmet, rome, ft, ft-m, lora, " in error
        assert error.endswith("here, not langedit")


def test_the_command_line_says_in_one_line_what_is_missing(
    small_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from helpers.saved_folders import dataset_folder

    dataset = dataset_folder(tmp_path / "set", RECORDS[:2])
    code = run(
        [
            *("eval-baselines", "--dataset", str(dataset), "--model", small_model),
            *("--params", "tiny", "--methods", "ft", "--languages", "zh"),
            *("--backend", "easyeditor", "--easyedit-python", str(tmp_path / "none")),
            *("--out", str(tmp_path / "out")),
        ]
    )
    assert code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "all cells failed: small ft zh batch 2 easyedit easyeditor" in last
    assert f"{tmp_path / 'none'}: no interpreter that can be run" in last


def test_geometry_tells_the_engines_apart() -> None:
    ours = Setting(model="m", method="ft", language="zh", batch_size=1, protocol="easyedit")
    theirs = ours.model_copy(update={"backend": "easyeditor"})
    columns = [EditGroup(setting, {}, {}).columns for setting in (ours, theirs)]
    assert columns[0] != columns[1]
    assert variant_name([str(columns[1][name]) for name in VARIANT]) == "FT-L (EasyEdit) easyedit"


def test_settings_and_recipes_of_our_own_back_end_are_written_as_before() -> None:
    ours = Setting(model="m", method="ft", language="zh", batch_size=1)
    theirs = ours.model_copy(update={"backend": "easyeditor"})
    assert "backend" not in ours.model_dump(mode="json")
    assert theirs.model_dump(mode="json")["backend"] == "easyeditor"
    assert Setting.model_validate_json(json.dumps(theirs.model_dump(mode="json"))) == theirs
    recipe = Recipe.model_validate({"models": [{"name": "tiny"}]})
    assert "backends" not in recipe.model_dump()
    assert recipe.protocols == ("native",)
    both = Recipe.model_validate({"models": [{"name": "tiny"}], "backends": ["easyeditor"]})
    assert both.protocols == ("easyedit",)
    assert Recipe.model_validate(both.model_dump()) == both


def test_a_cell_of_our_own_has_no_new_fields(small_model: str, tmp_path: Path) -> None:
    arguments = {**BOTH, "backend": "clm-data"}
    results = evaluate(RECORDS[:2], model=small_model, methods="ft", **arguments, out=tmp_path)
    cell = read_cell(tmp_path, results.cells[0].key)
    assert cell is not None
    written = json.loads((tmp_path / "cells" / f"{cell.key}.json").read_text("utf-8"))
    summary = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert not {"engine", "backend"} & (written.keys() | written["setting"].keys())
    assert not {"differences"} & summary.keys()
    assert "backends" not in summary["recipe"]

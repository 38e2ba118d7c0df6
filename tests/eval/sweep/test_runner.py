"""Sweeps: resumed, killed, and with cells that fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.tiny_dataset import CONFIG, RECORDS

from clm_data.errors import ConfigError, InputFileError
from clm_data.eval import results
from clm_data.eval.dataset import EvalSet
from clm_data.eval.editors import params_for
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.errors import EditError
from clm_data.eval.model.loading import load_model
from clm_data.eval.recipe import Recipe
from clm_data.eval.results import Results
from clm_data.eval.sweep import runner
from clm_data.eval.sweep.cell import batches_of, requests_for, with_overrides
from clm_data.eval.sweep.runner import Places

Sweep = Callable[..., tuple[Results, list[str]]]
DATASET = EvalSet("made", tuple(RECORDS))
GRID: dict[str, Any] = {
    "models": [{"name": "tiny"}],
    "methods": ["memit", "alphaedit"],
    "languages": ["zh", "mix"],
    "batch_sizes": [4],
    "params": {method: {"values": {"steps": 4}} for method in ("memit", "alphaedit", "pmet")},
    "resamples": 20,
}


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(GRID | changes)


@pytest.fixture
def sweep(tiny_folder: Path, tmp_path: Path) -> Sweep:
    def run(out: str = "out", **changes: Any) -> tuple[Results, list[str]]:
        said: list[str] = []
        places = Places(tmp_path / out, tiny_folder.parent, changes.pop("save_deltas", False))
        found = runner.run(recipe(**changes), DATASET, places, log=said.append, tiny_config=CONFIG)
        return found, said

    return run


def outputs(folder: Path) -> dict[str, bytes]:
    names = ("results.json", "table.md", "table.csv", "table.tex")
    return {name: (folder / name).read_bytes() for name in names}


def computed(said: list[str]) -> int:
    return sum("reliability/locality" in line for line in said)


def test_a_sweep_measures_both_languages_before_and_after(sweep: Sweep, tmp_path: Path) -> None:
    found, said = sweep()
    assert [cell.status for cell in found.cells] == ["done"] * 4
    for cell in found.cells:
        assert (cell.facts, cell.batches, cell.left_out) == (8, 2, 0)
        assert cell.contexts is not None
        assert cell.params["values"]["steps"] == 4
        for name in ("zh_reliability", "en_generality", "zh_locality", "en_score"):
            assert cell.after[name] is not None
        for name in ("zh_truth", "en_probe", "zh_exact_match", "en_p_new"):
            assert cell.before[name] is not None
    assert computed(said) == 4
    assert any("left" in line for line in said)
    before = json.loads((tmp_path / "out" / "before" / "tiny-native.json").read_bytes())
    assert [row["id"] for row in before] == [record.id for record in RECORDS]


def test_a_second_run_computes_nothing_and_writes_the_same(sweep: Sweep, tmp_path: Path) -> None:
    sweep()
    first = outputs(tmp_path / "out")
    _, said = sweep()
    assert computed(said) == 0
    assert "4 of 4 cells are there already" in said
    assert outputs(tmp_path / "out") == first


def test_two_runs_give_the_same_bytes(sweep: Sweep, tmp_path: Path) -> None:
    sweep("one", languages=["mix"])
    sweep("two", languages=["mix"])
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")


def test_a_larger_grid_computes_only_what_is_new(sweep: Sweep) -> None:
    sweep(methods=["memit"])
    _, said = sweep()
    assert computed(said) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7},
        {"params": {"memit": {"values": {"steps": 5}}}},
        {"facts": 4},
        {"corpus": "bank"},
    ],
)
def test_whatever_bears_on_the_numbers_makes_another_cell(
    sweep: Sweep, changes: dict[str, Any]
) -> None:
    small: dict[str, Any] = {"methods": ["memit"], "languages": ["zh"], "generate": False}
    sweep(**small)
    _, said = sweep(**small | changes)
    assert computed(said) == 1


def test_cells_that_fail_say_why_in_one_line_and_the_others_are_computed(sweep: Sweep) -> None:
    found, said = sweep(
        models=[{"name": "tiny"}, {"name": "no/such/folder", "params": "tiny"}],
        methods=["memit", "memitt"],
        languages=["zh"],
        batch_sizes=[4, 9],
        layers=[None, [1, 40]],
    )
    reasons = {cell.setting.label: cell.error or "" for cell in found.failed}
    done = [cell.setting.label for cell in found.cells if cell.status == "done"]
    assert done == ["tiny memit zh batch 4"]
    assert len(found.cells) == 16
    assert "did you mean memit" in reasons["tiny memitt zh batch 4"]
    assert "9 facts from 8 records" in reasons["tiny memit zh batch 9"]
    assert "layers 0 to 2, not 40" in reasons["tiny memit zh batch 4 layers 1,40"]
    assert "no/such/folder" in reasons["folder memit zh batch 4"]
    assert all("\n" not in reason and reason for reason in reasons.values())
    assert sum(line.startswith(("failed", "[")) and "failed:" in line for line in said) == 15


def test_a_failed_cell_is_tried_again(sweep: Sweep, tmp_path: Path) -> None:
    small: dict[str, Any] = {"methods": ["memit"], "languages": ["zh"]}
    found, _ = sweep(**small)
    key = found.cells[0].key
    broken = found.cells[0].model_copy(update={"status": "failed", "error": "out of memory"})
    results.write_cell(tmp_path / "out", broken)
    again, said = sweep(**small)
    assert computed(said) == 1
    assert (again.cells[0].key, again.cells[0].status) == (key, "done")


def test_a_nan_in_the_solve_is_a_failed_cell(sweep: Sweep) -> None:
    bad = {"memit": {"moment_weight": float("nan")}}
    found, _ = sweep(methods=["memit", "ft"], languages=["zh"], params=bad)
    assert [cell.status for cell in found.cells] == ["failed", "done"]
    assert "NaN" in (found.cells[0].error or "")


def test_an_unknown_hyperparameter_names_the_known_ones(sweep: Sweep) -> None:
    found, _ = sweep(methods=["memit"], languages=["zh"], params={"memit": {"lamda": 1}})
    assert "no 'lamda'; it has layers" in (found.cells[0].error or "")


def test_more_facts_than_records_stop_the_sweep(sweep: Sweep) -> None:
    with pytest.raises(InputFileError, match="8 whole records"):
        sweep(facts=9)


def test_sequential_edits_stay_and_are_measured_along_the_way(sweep: Sweep, tmp_path: Path) -> None:
    found, _ = sweep(
        methods=["memit"],
        languages=["en"],
        modes=["sequential"],
        batch_sizes=[2],
        checkpoints=2,
        save_deltas=True,
    )
    (cell,) = found.cells
    assert [stop.edited for stop in cell.along] == [4, 8]
    assert cell.along[-1].after == cell.after
    (file,) = (tmp_path / "out" / "deltas").iterdir()
    assert Deltas.load(file).edited == tuple(f"{record.id}:en" for record in RECORDS)
    stored = results.read_cell(tmp_path / "out", cell.key)
    assert stored is not None
    assert [item.batch for item in stored.items] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_single_edits_fact_by_fact(sweep: Sweep) -> None:
    found, _ = sweep(methods=["memit"], languages=["zh"], modes=["single"], facts=3)
    (cell,) = found.cells
    assert (cell.setting.batch_size, cell.batches, cell.facts) == (1, 3, 3)


def test_the_first_batches_only_and_what_is_left_out(sweep: Sweep) -> None:
    found, _ = sweep(methods=["memit"], languages=["zh"], batch_sizes=[3], max_batches=1)
    (cell,) = found.cells
    assert (cell.batches, cell.facts, cell.left_out) == (1, 3, 5)


def test_weight_changes_asked_for_later_are_made_and_then_kept(
    sweep: Sweep, tmp_path: Path
) -> None:
    small: dict[str, Any] = {"methods": ["memit"], "languages": ["zh"], "generate": False}
    sweep(**small)
    _, said = sweep(**small, save_deltas=True)
    assert computed(said) == 1
    _, said = sweep(**small, save_deltas=True)
    assert computed(said) == 0
    next((tmp_path / "out" / "deltas").iterdir()).unlink()
    _, said = sweep(**small, save_deltas=True)
    assert computed(said) == 1


def test_a_finished_cell_takes_the_label_that_its_model_has_now(sweep: Sweep) -> None:
    small: dict[str, Any] = {"methods": ["ft"], "languages": ["zh"], "generate": False}
    sweep(**small)
    found, said = sweep(**small, models=[{"name": "tiny", "label": "T", "params": "tiny"}])
    assert computed(said) == 0
    assert found.cells[0].setting.model == "T"


def test_an_empty_dataset_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="nothing: the dataset is empty"):
        runner.run(recipe(), EvalSet("nothing", ()), Places(tmp_path / "o", tmp_path / "c"))


def test_the_model_is_as_before_after_a_sweep(sweep: Sweep, tiny_folder: Path) -> None:
    before = load_model(str(tiny_folder)).fingerprint()
    sweep(methods=["memit"], languages=["zh"])
    assert load_model(str(tiny_folder)).fingerprint() == before


def test_mix_edits_each_fact_in_both_languages() -> None:
    made = requests_for(RECORDS[:2], "mix")
    assert [request.id.rpartition(":")[2] for request in made] == ["zh", "en", "zh", "en"]
    assert made[1].prompt == RECORDS[0].en.prompt
    assert made[1].target == RECORDS[0].en.target_new
    assert [r.lang for r in requests_for(RECORDS[:2], "en")] == ["en", "en"]


def test_batches_are_disjoint_whole_and_in_order() -> None:
    assert batches_of(7, 3) == [range(3), range(3, 6)]
    assert batches_of(7, 3, most=1) == [range(3)]
    with pytest.raises(EditError, match="lower the batch size"):
        batches_of(2, 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"values": 3}, "'values' is a group, not 3"),
        ({"values": {"steps": "many"}}, "'steps' is 'many'"),
        ({"layers": "all"}, "'layers' is 'all'"),
        ({"layer": 3}, "no 'layer'; it has layers"),
    ],
)
def test_overrides_of_another_kind_are_one_clear_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        with_overrides(params_for("memit", "tiny"), None, changes)
    with pytest.raises(ConfigError, match="empty list of layers"):
        with_overrides(params_for("rome", "tiny"), (), {})


def test_overrides_reach_nested_hyperparameters_and_methods_of_one_layer() -> None:
    memit = with_overrides(params_for("memit", "tiny"), (0, 1), {"values": {"lr": 0.25}})
    assert (memit.layers, memit.values.lr) == ((0, 1), 0.25)
    assert with_overrides(params_for("rome", "tiny"), (0, 2), {}).layer == 2

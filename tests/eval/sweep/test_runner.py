"""Sweeps: results, resuming, and cells that fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.saved_folders import cell_versions, model_folder
from helpers.tiny_dataset import CONFIG, RECORDS

from clm_data.errors import InputFileError
from clm_data.eval import baselines, results
from clm_data.eval.dataset import EvalSet
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.memit import MemitParams
from clm_data.eval.editors.solve import solve_least_squares
from clm_data.eval.model.loading import load_model
from clm_data.eval.recipe import Recipe
from clm_data.eval.report.evaluation import Evaluation
from clm_data.eval.results import CellResult, Results
from clm_data.eval.sweep.plan import PlannedCell, plan_cells
from clm_data.eval.sweep.runner import run_sweep

DATASET = EvalSet("test", tuple(RECORDS))
GRID: dict[str, Any] = {
    "models": [{"name": "tiny"}],
    "methods": ["memit", "alphaedit"],
    "languages": ["zh", "mix"],
    "batch_sizes": [4],
    "params": {method: {"values": {"steps": 4}} for method in ("memit", "alphaedit", "pmet")},
    "resamples": 20,
}
ONE_CELL: dict[str, Any] = {"methods": ["memit"], "languages": ["zh"], "generate": False}


def make_recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(GRID | changes)


@dataclass(frozen=True)
class Run:
    """A finished sweep.

    Attributes:
        results: What it returned.
        computed: Number of cell files that it wrote.
        log: Its progress messages.
    """

    results: Results
    computed: int
    log: list[str]

    @property
    def cell(self) -> CellResult:
        (cell,) = self.results.cells
        return cell


Sweep = Callable[..., Run]


@pytest.fixture
def sweep(tiny_folder: Path, tmp_path: Path) -> Sweep:
    """Runs the grid with some changes, into `tmp_path/out`."""

    def run(out: str = "out", *, save_deltas: bool = False, **changes: Any) -> Run:
        messages: list[str] = []
        before = cell_versions(tmp_path / out)
        found = run_sweep(
            make_recipe(**changes),
            DATASET,
            out=tmp_path / out,
            cache=tiny_folder.parent,
            save_deltas=save_deltas,
            tiny_config=CONFIG,
            log=messages.append,
        )
        written = cell_versions(tmp_path / out).items() - before.items()
        return Run(found, len(written), messages)

    return run


def outputs(folder: Path) -> dict[str, bytes]:
    names = ("results.json", "table.md", "table.csv", "table.tex")
    return {name: (folder / name).read_bytes() for name in names}


def test_a_sweep_measures_both_languages_before_and_after_the_edits(
    sweep: Sweep, tmp_path: Path
) -> None:
    run = sweep()
    assert [cell.status for cell in run.results.cells] == ["done"] * 4
    for cell in run.results.cells:
        assert (cell.facts, cell.batches, cell.left_out) == (8, 2, 0)
        assert cell.contexts is not None
        assert cell.params["values"]["steps"] == 4
        for name in ("zh_reliability", "en_generality", "zh_locality", "en_score"):
            assert cell.after[name] is not None
        for name in ("zh_truth", "en_probe", "zh_exact_match", "en_p_new"):
            assert cell.before[name] is not None
    assert run.computed == 4
    (key,) = {cell.baseline for cell in run.results.cells}
    baseline = json.loads((tmp_path / "out" / "before" / f"{key}.json").read_bytes())
    assert [row["id"] for row in baseline] == [record.id for record in RECORDS]


def test_switches_change_the_key_of_a_cell_only_if_they_are_on(sweep: Sweep) -> None:
    plain = sweep(**ONE_CELL, params={"memit": {"values": {"steps": 4}}}).cell
    off = {"values": {"steps": 4}, "rect": None, "prune": None, "nas": False, "emmet": False}
    assert sweep(**ONE_CELL, params={"memit": off}).cell == plain
    for switch in ({"rect": 0.4}, {"prune": 1.2}, {"nas": True}, {"emmet": True}):
        on = sweep(**ONE_CELL, params={"memit": {"values": {"steps": 4}, **switch}})
        assert on.computed == 1
        assert on.cell.key != plain.key
        assert on.cell.params == plain.params | switch


def test_langedit_reads_the_second_moments_of_each_language(sweep: Sweep) -> None:
    values = {"values": {"steps": 4}}
    run = sweep(
        methods=["alphaedit", "langedit"],
        languages=["zh"],
        generate=False,
        params={"alphaedit": values, "langedit": values},
    )
    alphaedit, langedit = run.results.cells
    assert langedit.status == "done"
    assert langedit.moments not in (None, alphaedit.moments)
    assert [line for line in run.log if line.endswith(" zh texts")] != []
    assert [line for line in run.log if line.endswith(" en texts")] != []


def test_the_log_names_each_cell_its_result_and_the_time_left(sweep: Sweep) -> None:
    log = sweep(**ONE_CELL).log
    assert "[1/1] tiny memit zh batch 4" in log
    assert any("reliability/locality zh" in line and line.endswith("s; done") for line in log)


def test_a_second_run_computes_nothing_and_writes_the_same_files(
    sweep: Sweep, tmp_path: Path
) -> None:
    sweep()
    first = outputs(tmp_path / "out")
    second = sweep()
    assert second.computed == 0
    assert second.log == ["4 of 4 cells already computed"]
    assert outputs(tmp_path / "out") == first


def test_a_smaller_command_into_the_same_folder_says_which_cells_stay_outside_the_tables(
    sweep: Sweep, tmp_path: Path
) -> None:
    both = sweep(**ONE_CELL | {"languages": ["zh", "mix"]})
    assert not any("only in cells/" in line for line in both.log)
    one = sweep(**ONE_CELL)
    (line,) = (line for line in one.log if "only in cells/" in line)
    assert "in results.json and the tables: 1; of others, only in cells/: 1;" in line
    again = sweep(**ONE_CELL | {"languages": ["zh", "mix"]})
    assert (again.computed, len(again.results.cells)) == (0, 2)


def test_two_runs_write_identical_files(sweep: Sweep, tmp_path: Path) -> None:
    sweep("one", languages=["mix"])
    sweep("two", languages=["mix"])
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")


def test_a_larger_grid_computes_only_its_new_cells(sweep: Sweep) -> None:
    assert sweep(methods=["memit"]).computed == 2
    assert sweep().computed == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7},
        {"params": {"memit": {"values": {"steps": 5}}}},
        {"facts": 4},
        {"corpus": "bank"},
    ],
)
def test_a_changed_setting_that_affects_the_numbers_computes_a_new_cell(
    sweep: Sweep, changes: dict[str, Any]
) -> None:
    first = sweep(**ONE_CELL)
    second = sweep(**ONE_CELL | changes)
    assert second.computed == 1
    assert second.cell.key != first.cell.key


def test_cells_that_fail_give_their_reason_and_the_others_are_computed(sweep: Sweep) -> None:
    run = sweep(
        models=[{"name": "tiny"}, {"name": "no/such/folder", "params": "tiny"}],
        methods=["memit", "memitt"],
        languages=["zh"],
        batch_sizes=[4, 9],
        layers=[None, [1, 40]],
    )
    reasons = {cell.setting.label: cell.error or "" for cell in run.results.failed}
    done = [cell.setting.label for cell in run.results.cells if cell.status == "done"]
    assert done == ["tiny memit zh batch 4"]
    assert len(run.results.cells) == 16
    assert "did you mean memit" in reasons["tiny memitt zh batch 4"]
    assert "9 facts from 8 records" in reasons["tiny memit zh batch 9"]
    assert "layers 0 to 2, not 40" in reasons["tiny memit zh batch 4 layers 1,40"]
    assert "no/such/folder" in reasons["folder memit zh batch 4"]
    for label, reason in reasons.items():
        assert reason
        assert "\n" not in reason
        assert sum(line.endswith(f"failed: {label}: {reason}") for line in run.log) == 1


def test_a_failed_cell_is_retried(sweep: Sweep, tmp_path: Path) -> None:
    first = sweep(**ONE_CELL).cell
    broken = first.model_copy(update={"status": "failed", "error": "out of memory"})
    results.write_cell(tmp_path / "out", broken)
    second = sweep(**ONE_CELL)
    assert second.computed == 1
    assert (second.cell.key, second.cell.status) == (first.key, "done")


def test_nan_in_the_solve_fails_the_cell(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def solve(*arguments: Any) -> Any:
        return solve_least_squares(*arguments) * float("nan")

    monkeypatch.setattr("clm_data.eval.editors.memit.solve_least_squares", solve)
    cells = sweep(methods=["memit", "ft"], languages=["zh"]).results.cells
    assert [cell.status for cell in cells] == ["failed", "done"]
    assert "NaN" in (cells[0].error or "")


def test_an_unknown_hyperparameter_fails_the_cell_and_lists_the_known_ones(sweep: Sweep) -> None:
    cell = sweep(**ONE_CELL | {"params": {"memit": {"lamda": 1}}}).cell
    known = ", ".join(sorted(field.name for field in fields(MemitParams)))
    assert cell.error == f"MemitParams has no 'lamda'; it has {known}"
    assert "moment_weight" in known


def test_more_facts_than_records_is_an_error(sweep: Sweep) -> None:
    with pytest.raises(InputFileError, match="8 complete records, fewer than 9"):
        sweep(facts=9)


def test_an_empty_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="nothing: the dataset is empty"):
        run_sweep(make_recipe(), EvalSet("nothing", ()), out=tmp_path / "out")


def test_sequential_edits_accumulate_and_are_measured_at_checkpoints(
    sweep: Sweep, tmp_path: Path
) -> None:
    cell = sweep(
        methods=["memit"],
        languages=["en"],
        modes=["sequential"],
        batch_sizes=[2],
        checkpoints=2,
        save_deltas=True,
    ).cell
    assert [checkpoint.edited for checkpoint in cell.checkpoints] == [4, 8]
    assert cell.checkpoints[-1].after == cell.after
    (file,) = (tmp_path / "out" / "deltas").iterdir()
    assert Deltas.load(file).edited == tuple(f"{record.id}:en" for record in RECORDS)
    stored = results.read_cell(tmp_path / "out", cell.key)
    assert stored is not None
    assert [item.batch for item in stored.items] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_single_mode_edits_fact_by_fact(sweep: Sweep) -> None:
    cell = sweep(**ONE_CELL, modes=["single"], facts=3).cell
    assert (cell.setting.batch_size, cell.batches, cell.facts) == (1, 3, 3)


def test_max_batches_edits_the_first_batches_and_counts_the_rest(sweep: Sweep) -> None:
    cell = sweep(**ONE_CELL, batch_sizes=[3], max_batches=1).cell
    assert (cell.batches, cell.facts, cell.left_out) == (1, 3, 5)


def test_a_finished_cell_is_recomputed_if_its_weight_changes_are_missing_or_damaged(
    sweep: Sweep, tmp_path: Path
) -> None:
    sweep(**ONE_CELL)
    assert sweep(**ONE_CELL, save_deltas=True).computed == 1
    assert sweep(**ONE_CELL, save_deltas=True).computed == 0
    file = next((tmp_path / "out" / "deltas").iterdir())
    file.unlink()
    assert sweep(**ONE_CELL, save_deltas=True).computed == 1
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert sweep(**ONE_CELL, save_deltas=True).computed == 1
    assert file.read_bytes() == whole


def test_damaged_results_are_written_anew_from_the_cells(sweep: Sweep, tmp_path: Path) -> None:
    sweep(**ONE_CELL)
    whole = outputs(tmp_path / "out")
    (tmp_path / "out" / "results.json").write_bytes(whole["results.json"][:100])
    assert sweep(**ONE_CELL).computed == 0
    assert outputs(tmp_path / "out") == whole


def test_a_finished_cell_takes_the_present_label_of_its_model(sweep: Sweep) -> None:
    small: dict[str, Any] = ONE_CELL | {"methods": ["ft"]}
    sweep(**small)
    second = sweep(**small, models=[{"name": "tiny", "label": "T", "params": "tiny"}])
    assert second.computed == 0
    assert second.cell.setting.model == "T"


def test_a_sweep_leaves_the_files_of_the_model_unchanged(sweep: Sweep, tiny_folder: Path) -> None:
    before = load_model(str(tiny_folder)).fingerprint()
    sweep(**ONE_CELL)
    assert load_model(str(tiny_folder)).fingerprint() == before


def _two_models(kind: str, folder: Path, tiny_folder: Path) -> list[dict[str, Any]]:
    """Two models with the label `model` that answer differently."""
    trained, random = folder / "one" / "model", folder / "two" / "model"
    shutil.copytree(tiny_folder, trained)
    model_folder(random)
    changes: dict[str, dict[str, Any]] = {
        "weights": {"name": str(random)},
        "dtype": {"dtype": "bfloat16"},
        "tokenizer": {"tokenizer": str(random)},
    }
    first = {"name": str(trained), "params": "tiny"}
    return [first, first | changes[kind]]


@pytest.mark.parametrize("kind", ["weights", "dtype", "tokenizer"])
def test_each_cell_keeps_the_baseline_of_its_own_model_in_one_folder(
    sweep: Sweep, tiny_folder: Path, tmp_path: Path, kind: str
) -> None:
    one, other = _two_models(kind, tmp_path, tiny_folder)
    small = ONE_CELL | {"methods": ["ft"], "batch_sizes": [8]}
    first = sweep(**small, models=[one])
    expected = baselines.read_baseline(tmp_path / "out", first.cell)
    second = sweep(**small, models=[other])
    third = sweep(**small, models=[one])
    assert (first.computed, second.computed, third.computed) == (1, 1, 0)
    assert third.cell.baseline == first.cell.baseline != second.cell.baseline
    report = Evaluation(tmp_path / "out", results.read_results(tmp_path / "out"))
    assert report.baseline(report.done[0]) == expected
    assert baselines.read_baseline(tmp_path / "out", second.cell) != expected
    assert len(list((tmp_path / "out" / "before").iterdir())) == 2


def test_a_model_folder_whose_weights_were_replaced_has_a_baseline_of_its_own(
    sweep: Sweep, tiny_folder: Path, tmp_path: Path
) -> None:
    one, other = _two_models("weights", tmp_path, tiny_folder)
    small = ONE_CELL | {"methods": ["ft"], "batch_sizes": [8]}
    first = sweep(**small, models=[one]).cell
    shutil.rmtree(one["name"])
    shutil.copytree(other["name"], one["name"])
    second = sweep(**small, models=[one]).cell
    answers = [baselines.read_baseline(tmp_path / "out", cell) for cell in (first, second)]
    assert first.baseline != second.baseline
    assert answers[0] != answers[1]


@pytest.mark.parametrize("damage", ["missing", "truncated", "another version"])
def test_answers_before_the_edit_are_measured_again_if_they_cannot_be_read(
    sweep: Sweep, tmp_path: Path, damage: str
) -> None:
    first = sweep(**ONE_CELL | {"methods": ["ft"]})
    (file,) = (tmp_path / "out" / "before").iterdir()
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    if damage == "another version":  # wrote before/MODEL-PROTOCOL.json and cells without a key
        results.write_cell(tmp_path / "out", first.cell.model_copy(update={"baseline": None}))
        (file.parent / "tiny-native.json").write_bytes(content)
    again = sweep(**ONE_CELL | {"methods": ["ft"]})
    assert again.computed == 0
    assert file.read_bytes() == content
    assert again.cell.baseline == first.cell.baseline


def test_hyperparameters_do_not_depend_on_the_names_of_folders(
    sweep: Sweep, tmp_path: Path
) -> None:
    folder = tmp_path / "martiny" / "Meta-Llama-3-8B"
    model_folder(folder)
    cell = sweep(**ONE_CELL, models=[{"name": str(folder)}]).cell
    assert "no hyperparameters are known for its config (model_type llama" in (cell.error or "")


@pytest.mark.parametrize("layers", [[4, 5], [99]])
def test_a_layer_that_the_model_lacks_is_one_line_before_the_model_is_loaded(
    sweep: Sweep, tmp_path: Path, layers: list[int]
) -> None:
    model_folder(tmp_path / "model")
    model = {"name": str(tmp_path / "model"), "params": "tiny"}
    run = sweep(**ONE_CELL, models=[model], layers=[layers])
    assert "model has layers 0 to 4, not" in (run.cell.error or "")
    assert not any(line.startswith("loading") for line in run.log)


@pytest.mark.parametrize(("weight", "warned"), [(1e6, True), (0.01, False)])
def test_a_solve_that_keeps_the_change_out_is_a_warning_with_the_remedy(
    sweep: Sweep, tmp_path: Path, weight: float, warned: bool
) -> None:
    params = {"memit": {"moment_weight": weight, "values": {"steps": 4}}}
    found = sweep(**ONE_CELL | {"params": params}).results
    (cell,) = found.cells
    assert cell.arrived is not None
    assert (cell.arrived < results.LITTLE) is warned
    assert cell.arrived <= 1
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert ("lower moment_weight" in table) is warned
    assert len(found.warnings) == warned
    assert found.losses == ()


@pytest.mark.parametrize(("width", "used"), [(256, "dataset"), (100_000, "bank")])
def test_auto_takes_the_bank_if_the_records_have_fewer_tokens_than_dimensions(
    width: int, used: str
) -> None:
    def cells(corpus: str) -> list[PlannedCell]:
        recipe = make_recipe(methods=["memit", "ft"], languages=["zh"], corpus=corpus)
        planned = plan_cells(recipe, DATASET, replace(CONFIG, intermediate_size=width))
        return [cell for cell in planned if isinstance(cell, PlannedCell)]

    memit, ft = cells("auto")
    assert memit.corpus == used
    same, other = cells("bank")
    assert (memit.key == same.key) is (used == "bank"), "results of too little text are not reused"
    assert ft.key != other.key, "a method without second moments keeps its key"


def test_second_moments_of_too_little_text_are_a_warning(sweep: Sweep, tmp_path: Path) -> None:
    corpus = tmp_path / "short.txt"
    corpus.write_text("The capital is old.\n首都很古老。\n", encoding="utf-8")
    short = sweep(**ONE_CELL | {"methods": ["memit", "alphaedit"]}, corpus=str(corpus)).results
    memit, alphaedit = (cell.moment_text for cell in short.cells)
    assert memit is not None
    assert alphaedit is not None
    assert memit.tokens == alphaedit.tokens < memit.width == CONFIG.intermediate_size
    assert memit.ridge > 0
    assert alphaedit.ridge == 0, "it inverts nothing"
    singular = [line for line in short.warnings if "second moments are singular" in line]
    assert len(singular) == 2
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert all(line in table for line in singular)

    long = sweep(**ONE_CELL).results
    (cell,) = long.cells
    assert cell.moment_text is not None
    assert cell.moment_text.tokens >= CONFIG.intermediate_size
    assert not any("singular" in line for line in long.warnings)


@pytest.mark.parametrize(("size", "max_batches", "lost"), [(3, None, 2), (5, None, 3), (3, 1, 0)])
def test_facts_after_the_last_batch_are_said(
    sweep: Sweep, tmp_path: Path, size: int, max_batches: int | None, lost: int
) -> None:
    small = ONE_CELL | {"methods": ["ft"], "batch_sizes": [size], "max_batches": max_batches}
    found = sweep(**small).results
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert len(found.losses) == bool(lost)
    if lost:
        (line,) = found.losses
        assert f"{lost} of 8 facts left out, because batches of {size} do not divide 8" in line
        assert line in table

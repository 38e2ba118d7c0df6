"""Estimates of a sweep: what they count is what a sweep does, and unknown is not zero."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.saved_folders import dataset_folder, model_folder
from helpers.tiny_dataset import RECORDS

from clm_data.cli import run
from clm_data.errors import ConfigError
from clm_data.eval.dataset import load_dataset
from clm_data.eval.estimate.run import estimate_evaluation
from clm_data.eval.estimate.speed import Line, Speed, measure_speed
from clm_data.eval.estimate.texts import Texts
from clm_data.eval.estimate.work import SweepTime, Timing
from clm_data.eval.model.loading import load_model, model_without_weights
from clm_data.eval.model.tiny import TinyConfig
from clm_data.eval.protocols import NATIVE
from clm_data.eval.recipe import ModelSpec, Recipe
from clm_data.eval.sweep.evaluate import evaluate
from clm_data.eval.sweep.plan import PlannedCell, plan_cells
from clm_data.eval.sweep.workbench import ModelWorkbench

TOKENS = Speed(Line(0, 1), Line(0, 1), 0, 0, 0, 0, 0, 0, 1)
"""A second per token and layer, whether forward only or with a backward pass, and nothing else."""

WITH_VALUES = ("memit", "alphaedit", "langedit", "pmet", "rome")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, `set`, and a model, `small`."""
    folder = tmp_path_factory.mktemp("estimate")
    dataset_folder(folder / "set", RECORDS[:4])
    model_folder(folder / "small")
    return folder


def options(inputs: Path, **changes: Any) -> dict[str, Any]:
    given = {
        "dataset": inputs / "set",
        "model": str(inputs / "small"),
        "params": "tiny",
        "methods": ["memit", "ft"],
        "languages": "zh",
        "device": "cpu",
        "cache": inputs / "cache",
        "out": inputs / "out",
    }
    return given | changes


def test_a_model_without_weights_has_the_sizes_of_the_loaded_one(inputs: Path) -> None:
    model, loaded = model_without_weights(str(inputs / "small")), load_model(str(inputs / "small"))
    assert {one.device.type for one in model.model.parameters()} == {"meta"}
    shapes = [
        [(name, one.shape, one.dtype) for name, one in each.model.named_parameters()]
        for each in (model, loaded)
    ]
    assert shapes[0] == shapes[1]
    assert (model.layout, model.longest) == (loaded.layout, loaded.longest)


def test_the_dtype_is_that_of_the_config_the_files_or_the_option(
    inputs: Path, tmp_path: Path
) -> None:
    half = load_model(str(inputs / "small"), dtype="bfloat16")
    half.model.save_pretrained(tmp_path)
    half.tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert model_without_weights(str(tmp_path)).model.dtype == torch.bfloat16
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": None}))
    assert model_without_weights(str(tmp_path)).model.dtype == torch.bfloat16
    assert model_without_weights(str(tmp_path), dtype="float16").model.dtype == torch.float16


def test_a_dry_run_lists_cells_and_writes_nothing(inputs: Path) -> None:
    found = estimate_evaluation(**options(inputs))
    assert [cell.state for cell in found.cells] == ["to compute"] * 2
    (model,) = found.models
    loaded = load_model(str(inputs / "small")).model
    assert model.parameters == sum(one.numel() for one in loaded.parameters())
    assert model.memory["weights"] == 4 * model.parameters
    assert model.peak == sum(model.memory.values())
    assert model.fits == (model.peak <= model.free)
    shared = sum(model.seconds.values())
    assert found.seconds == pytest.approx(shared + sum(cell.seconds for cell in found.cells))
    assert not (inputs / "out").exists()
    assert not (inputs / "cache").exists()


def test_a_dry_run_refuses_hyperparameters_out_of_range_and_a_negative_seed(
    inputs: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "models: [{name: tiny}]\nmethods: [memit, grace, ft]\nlanguages: [zh]\n"
        "params: {memit: {values: {clamp: -1}}, grace: {epsilon: .nan}}\n",
        encoding="utf-8",
    )
    some = {name: options(inputs)[name] for name in ("dataset", "device", "cache", "out")}
    memit, grace, ft = estimate_evaluation(recipe=recipe, **some).cells
    assert memit.reason == "ValueParams: 'clamp' is -1: Input should be greater than 0"
    assert grace.reason == "GraceParams: 'epsilon' is nan: Input should be a finite number"
    assert [one.state for one in (memit, grace, ft)] == ["refused", "refused", "to compute"]
    with pytest.raises(ConfigError, match="seed: Input should be greater than or equal to 0"):
        estimate_evaluation(**options(inputs, seed=-1))


def test_finished_cells_have_measured_seconds_that_scale_the_others(
    inputs: Path, tmp_path: Path
) -> None:
    some = options(
        inputs,
        out=tmp_path / "out",
        cache=tmp_path / "cache",
    )
    results = evaluate(**some | {"methods": "ft"})
    taken = results.cells[0].seconds
    found = estimate_evaluation(**some)
    assert [cell.state for cell in found.cells] == ["to compute", "done"]
    assert found.cells[1].seconds == pytest.approx(taken["edit"] + taken["measure"])
    assert found.models[0].scale is not None


def test_a_mixture_of_experts_is_refused_from_its_config_alone(
    inputs: Path, tmp_path: Path
) -> None:
    config = {"model_type": "mixtral", "num_hidden_layers": 2, "hidden_size": 32,
              "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
              "vocab_size": 512}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = estimate_evaluation(**options(inputs, model=str(tmp_path), layers=[1]))
    assert [cell.state for cell in found.cells] == ["refused"] * 2
    assert all("mixture of experts" in str(cell.reason) for cell in found.cells)
    assert found.models == ()
    assert found.cells[0].seconds is None


def test_what_cannot_be_computed_is_refused_with_its_reason(inputs: Path) -> None:
    found = estimate_evaluation(
        **options(inputs, methods=["memit", "nothing"], layers=[[1], [9]], batch_sizes=[4, 9])
    )
    reasons = {(c.setting.method, c.setting.layers, c.setting.batch_size): c for c in found.cells}
    assert reasons["memit", (1,), 4].state == "to compute"
    assert "layers 0 to 4, not 9" in str(reasons["memit", (9,), 4].reason)
    assert "a batch of 9 facts from 4 records" in str(reasons["memit", (1,), 9].reason)
    assert "nothing" in str(reasons["nothing", (1,), 4].reason)


@pytest.mark.parametrize(
    ("model", "reason"),
    [("set", "has no config.json; specify a folder"), ("./nofolder", "./nofolder: no such folder")],
)
def test_a_path_that_is_no_model_says_how_to_fix_it(inputs: Path, model: str, reason: str) -> None:
    name = model if model.startswith(".") else str(inputs / model)
    found = estimate_evaluation(**options(inputs, model=name, params=None))
    assert all(reason in str(cell.reason) for cell in found.cells)


def test_a_protocol_or_corpus_that_cannot_be_used_refuses_only_its_cells(inputs: Path) -> None:
    found = estimate_evaluation(**options(inputs, methods="ft", protocol=["native", "chat"]))
    native, chat = found.cells
    assert (native.state, chat.state) == ("to compute", "refused")
    assert "no chat template" in str(chat.reason)
    assert native.peak is not None

    missing = inputs / "nofile.txt"
    memit, ft = estimate_evaluation(**options(inputs, corpus=str(missing))).cells
    assert (memit.state, ft.state) == ("refused", "to compute")
    assert f"corpus {missing}: cannot be read" in str(memit.reason)


def test_what_is_unknown_is_not_zero(inputs: Path) -> None:
    found = estimate_evaluation(**options(inputs, methods=["memit", "ice-oracle"], corpus="hub:x"))
    model = found.models[0]
    assert [name for name, one in model.seconds.items() if one is None] == [
        name for name in model.seconds if name.startswith("second moments")
    ]
    assert found.cells[0].seconds is not None
    assert (found.cells[1].seconds, found.cells[1].peak) == (None, None)
    assert found.cells[0].peak == model.peak
    assert found.seconds is None
    assert found.known_seconds > found.cells[0].seconds


def test_where_nothing_can_be_measured_time_and_memory_are_unknown(inputs: Path) -> None:
    found = estimate_evaluation(**options(inputs, device="nonsense"))
    (model,) = found.models
    assert model.remark.startswith("time and memory are unknown: ")
    assert "nonsense" in model.remark
    assert (model.peak, model.fits, found.seconds) == (None, None, None)
    assert [(cell.seconds, cell.peak) for cell in found.cells] == [(None, None)] * 2
    assert model.parameters > 0


def planned(inputs: Path, **fields: Any) -> tuple[Recipe, list[PlannedCell]]:
    spec = ModelSpec(name=str(inputs / "small"), params="tiny", device="cpu")
    recipe = Recipe(models=(spec,), languages=("zh",), generate=False, **fields)
    cells = plan_cells(recipe, load_dataset(inputs / "set"), TinyConfig())
    assert all(isinstance(cell, PlannedCell) for cell in cells)
    return recipe, [cell for cell in cells if isinstance(cell, PlannedCell)]


@contextmanager
def tokens_run(model: Any) -> Iterator[list[int]]:
    """The tokens that each call of a layer runs."""
    found: list[int] = []

    def count(_module: Any, inputs: Any, _output: Any) -> None:
        found.append(inputs[0].shape[0] * inputs[0].shape[1])

    with ExitStack() as stack:
        for layer in model.model.get_submodule(model.layout.layers):
            handle = layer.register_forward_hook(count)
            stack.callback(handle.remove)
        yield found


@pytest.mark.parametrize(
    "method", ["memit", "alphaedit", "langedit", "pmet", "rome", "ft", "lora", "ultraedit", "grace"]
)
def test_the_work_is_that_of_the_sweep(inputs: Path, tmp_path: Path, method: str) -> None:
    """Tokens times layers, edits and measurements together, differ by less than a factor of two."""
    model = load_model(str(inputs / "small"), device="cpu")
    never = {"values": {"stop_at": -1.0}} if method in WITH_VALUES else {}
    recipe, (cell,) = planned(inputs, methods=(method,), params={method: never})
    dataset = load_dataset(inputs / "set")
    bench = ModelWorkbench(model, cell, recipe, dataset, out=tmp_path, cache=tmp_path)
    bench._evaluator(cell)
    bench._contexts_of("native")
    bench._moments_for(cell)
    with tokens_run(model) as run_tokens:
        assert bench.compute(cell).status == "done"
    texts = {"native": Texts(model, dataset.records, NATIVE)}
    sweep = SweepTime(Timing(TOKENS, model.depth, 4096), recipe, texts, len(dataset.records))
    estimated = sweep.cell(cell)
    assert estimated is not None
    assert 0.5 < estimated / sum(run_tokens) < 2


def test_target_values_and_factors_are_counted_once(inputs: Path) -> None:
    recipe, cells = planned(inputs, methods=("memit", "alphaedit", "pmet"))
    model = load_model(str(inputs / "small"), device="cpu")
    texts = {"native": Texts(model, load_dataset(inputs / "set").records, NATIVE)}
    search = replace(TOKENS, forward=Line(0, 0))  # counts nothing but passes with a backward pass
    sweep = SweepTime(Timing(search, model.depth, 4096), recipe, texts, 4)
    first, second, third = (sweep.cell(cell) for cell in cells)
    assert first
    assert second == 0
    assert third


def test_speed_is_measured_without_changing_the_model(inputs: Path) -> None:
    model = model_without_weights(str(inputs / "small"))
    speed = measure_speed(model, "cpu", inner=8)
    assert speed.both.per_token > 0 or speed.both.fixed > 0
    assert min(speed.read, speed.gram, speed.cholesky, speed.eigh, speed.multiply, speed.kept) > 0
    assert speed.slowdown >= 1
    assert model.depth == 5
    assert {one.device.type for one in model.model.parameters()} == {"meta"}


def test_the_command_prints_or_writes_json(inputs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["eval-baselines", "--dry-run"]
    names = {"dataset": "set", "model": "small", "out": "out", "cache": "cache"}
    for option, name in names.items():
        command += [f"--{option}", str(inputs / name)]
    command += ["--params", "tiny", "--languages", "zh", "--device", "cpu"]
    assert run(command) == 0
    shown = capfd.readouterr().out
    assert "small memit zh batch 4" in shown
    assert "estimated memory" in shown
    assert "1 cell to compute, 0 done, 0 refused" in shown
    assert run([*command, "--json", "--methods", "ice-oracle"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["cells"][0]["seconds"] is None
    assert found["models"][0]["parameters"] > 0
    assert found["models"][0]["peak"] is None
    assert run([*command, "--tokens-per-batch", "1"]) == 2
    capfd.readouterr()
    assert run([*command, "--layers", "9"]) == 2, "as the run, of which all cells fail"
    printed = capfd.readouterr()
    assert "1 refused" in printed.out
    assert "all cells would fail" in printed.err

"""States of real (small, random) models, and what edits do to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

# ruff: noqa: E402 (what follows needs torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import ARCHITECTURES, small_model
from helpers.tiny_dataset import RECORDS

from clm_data.errors import InputFileError
from clm_data.eval.analysis.geometry.measures import Change
from clm_data.eval.analysis.geometry.saved_edits import Group, find_edits
from clm_data.eval.analysis.language.edited_states import analyse_edits, expected_change
from clm_data.eval.analysis.language.edited_tables import COLUMNS, EditOptions
from clm_data.eval.analysis.language.states import States, collect
from clm_data.eval.csv_tables import write_rows
from clm_data.eval.editors import make_editor, params_for
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import contexts_from
from clm_data.eval.editors.deltas import Deltas, WeightDelta, applied
from clm_data.eval.editors.moments import second_moments
from clm_data.eval.errors import EditError, LayoutError
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import place_prompt
from clm_data.eval.protocols import NATIVE
from clm_data.eval.results import (
    CellResult,
    EditLanguage,
    Results,
    Setting,
    write_cell,
    write_results,
)
from clm_data.eval.sweep.cell import requests_for
from clm_data.records import LANGUAGES

LAYERS = (1, 2)
Edited = tuple[LoadedModel, States, tuple[Group, ...]]
HOW = EditOptions(Bootstrap(resamples=50), facts_at_once=3, sample=8)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_are_those_of_the_whole_model(architecture: str) -> None:
    model = small_model(architecture)
    states = collect(model, RECORDS, NATIVE, neurons=(3,))
    assert states.layers == tuple(range(model.depth))
    for i, record in enumerate(RECORDS):
        for request in requests_for([record], "mix"):
            placed = place_prompt(model.tokenizer, request, NATIVE)
            with torch.no_grad():
                out = model.model(torch.tensor([placed.ids]), output_hidden_states=True)
            side = states.side(request.lang)
            for layer in range(model.depth - 1):  # the last one comes normed from the model
                whole = out.hidden_states[layer + 1][0, placed.subject].numpy()
                assert side.hidden[layer][i] == pytest.approx(whole, rel=1e-3, abs=1e-4)
    projection = model.mlp_out(3)
    for lang in LANGUAGES:
        side = states.side(lang)
        with torch.no_grad():
            again = projection(torch.tensor(side.neurons[3]))
        assert side.mlp[3] == pytest.approx(again.numpy(), rel=1e-3, abs=1e-4)


def test_batches_change_the_states_by_rounding_alone() -> None:
    model = small_model()
    one, many = (collect(model, RECORDS, NATIVE, tokens_per_batch=n) for n in (1, 4096))
    for layer in one.layers:
        assert one.zh.hidden[layer] == pytest.approx(many.zh.hidden[layer], rel=1e-4, abs=1e-4)


def test_the_same_model_gives_the_same_bytes() -> None:
    one, two = (collect(small_model(), RECORDS, NATIVE) for _ in range(2))
    for layer in one.layers:
        assert one.en.hidden[layer].tobytes() == two.en.hidden[layer].tobytes()


def test_only_what_is_wanted_is_read() -> None:
    states = collect(small_model(), RECORDS, NATIVE, hidden=(2,), mlp=(), neurons=())
    assert (states.layers, dict(states.zh.mlp), dict(states.zh.neurons)) == ((2,), {}, {})


def test_a_fact_that_cannot_be_placed_is_reported_and_left_out() -> None:
    lost = RECORDS[1].model_copy(
        update={"en": RECORDS[1].en.model_copy(update={"subject": "Atlantis"})}
    )
    states = collect(small_model(), [RECORDS[0], lost, RECORDS[2]], NATIVE)
    assert states.ids == (RECORDS[0].id, RECORDS[2].id)
    assert [one.id for one in states.refused] == [f"{lost.id}:en"]
    assert "Atlantis" in states.refused[0].reason
    with pytest.raises(EditError, match="Atlantis"):
        collect(small_model(), [lost], NATIVE)


def test_a_missing_layer_and_a_nan_are_one_clear_line() -> None:
    model = small_model()
    with pytest.raises(LayoutError, match="layers 0 to 4"):
        collect(model, RECORDS, NATIVE, mlp=(9,))
    weight = model.mlp_out(2).weight
    before = weight.clone()
    weight[0, 0] = float("nan")
    with pytest.raises(EditError, match="layer 2 came out as NaN"):
        collect(model, RECORDS, NATIVE)
    weight.copy_(before)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_change_is_as_expected_at_the_lowest_layer_and_not_above(architecture: str) -> None:
    model = small_model(architecture)
    rng = torch.Generator().manual_seed(0)
    width, inner = 32, model.mlp_out(1).weight.numel() // 32
    weights = {
        model.layout.weight(layer): WeightDelta(
            torch.randn(width, 2, generator=rng), torch.randn(2, inner, generator=rng)
        )
        for layer in LAYERS
    }
    before = collect(model, RECORDS, NATIVE, neurons=LAYERS)
    with applied(model, Deltas("made", model.name, weights)):
        after = collect(model, RECORDS, NATIVE)
    for layer, exact in ((1, True), (2, False)):
        delta = weights[model.layout.weight(layer)]
        left, right = delta.left.double().numpy(), delta.right.double().numpy()
        actual = after.zh.mlp[layer] - before.zh.mlp[layer]
        keys = before.zh.neurons[layer].astype(np.float64)
        factors, dense = (
            expected_change(one, keys) for one in (Change(left, right), Change(left @ right))
        )
        assert factors == pytest.approx(dense, rel=1e-9, abs=1e-9)
        assert np.allclose(actual, factors, rtol=1e-3, atol=1e-3) is exact
    assert (after.zh.hidden[0] == before.zh.hidden[0]).all()


def _results(folder: Path, model: LoadedModel, method: str = "memit") -> tuple[Group, ...]:
    """A results folder with the deltas of zh, en and mix edits, in two batches."""
    contexts = contexts_from({"zh": ("{}",), "en": ("{}",)})
    params = params_for(method, "tiny")
    moments = None
    if method == "memit":
        params = replace(params, layers=LAYERS, values=replace(params.values, steps=3))
        texts = [record.fact(lang).prompt for record in RECORDS for lang in LANGUAGES]
        moments = second_moments(model, {"all": texts}, LAYERS)
    editor = make_editor(method, params, Setup(NATIVE, contexts, moments))
    languages: tuple[EditLanguage, ...] = ("zh", "en", "mix")
    cells = []
    for language in languages:
        setting = Setting(model=model.name, method=method, language=language, batch_size=4)
        key = f"{method}-{language}"
        for number in range(2):
            facts = RECORDS[4 * number : 4 * number + 4]
            deltas = editor.edit(model, requests_for(facts, language))
            (folder / "deltas").mkdir(parents=True, exist_ok=True)
            deltas.save(folder / "deltas" / f"{key}-{number:04d}.safetensors")
        cells.append(CellResult(key=key, setting=setting, status="done", facts=8, batches=2))
        write_cell(folder, cells[-1])
    about = {"title": "", "dataset": "tiny", "dataset_key": "", "records": 8, "seed": 0}
    write_results(folder, Results(**about, cells=tuple(cells)))
    return find_edits(folder).groups


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    model = small_model()
    return model, collect(model, RECORDS, NATIVE), _results(tmp_path_factory.mktemp("out"), model)


def test_edits_of_a_results_folder_are_put_in_again(edited: Edited, tmp_path: Path) -> None:
    model, states, groups = edited
    before = model.fingerprint()
    tables = analyse_edits(model, states, RECORDS, groups, HOW)
    assert model.fingerprint() == before
    for name, columns in COLUMNS.items():
        assert tables[name], name
        write_rows(tmp_path / f"{name}.csv", tables[name], columns)
    again = analyse_edits(model, states, RECORDS, groups, HOW)
    assert again == tables
    activation = {
        (row["layer"], row["edit"], row["lang"], row["measure"]): row
        for row in tables["activation"]
    }
    for edit in ("zh", "en", "mix"):
        for lang in LANGUAGES:
            assert activation[1, edit, lang, "relative_error"]["value"] < 1e-3
            assert activation[1, edit, lang, "cosine"]["count"] == len(RECORDS)
    own = activation[1, "zh", "zh", "actual_change"]["value"]
    assert own > activation[1, "zh", "en", "actual_change"]["value"]


def test_a_venn_diagram_has_every_neuron_of_a_set_once(
    edited: Edited,
) -> None:
    model, states, groups = edited
    rows = analyse_edits(model, states, RECORDS, groups, HOW)["venn"]
    kinds = {row["kind"] for row in rows}
    assert kinds == {"weight_rows", "weight_columns", "actual", "expected"}
    for kind in kinds:
        for layer in LAYERS:
            mine = [row for row in rows if (row["kind"], row["layer"]) == (kind, layer)]
            in_zh = sum(row["count"] for row in mine if "zh" in row["region"].split("+"))
            assert len(mine) == 7
            assert in_zh == mine[0]["set_size"] == round(0.05 * mine[0]["neurons"])


def test_selectivity_is_there_from_the_first_edited_layer_on(
    edited: Edited,
) -> None:
    model, states, groups = edited
    tables = analyse_edits(model, states, RECORDS, groups, HOW)
    rows = tables["selectivity"]
    assert {row["layer"] for row in rows} == set(range(1, model.depth))
    assert {row["edit"] for row in rows} == {"zh", "en"}
    assert all(-1 <= row["value"] <= 1 for row in rows if row["measure"] == "selectivity")
    correlations = [row for row in rows if row["measure"] == "bias_selectivity_correlation"]
    assert len(correlations) == 2 * (model.depth - 1)
    assert all(row["low"] <= row["value"] <= row["high"] for row in correlations)
    points = tables["selectivity_points"]
    assert len(points) == 2 * len(RECORDS)
    assert {row["layer"] for row in points} == {LAYERS[-1]}


def test_whole_matrices_of_one_layer_are_fine_too(tmp_path: Path) -> None:
    model = small_model()
    states = collect(model, RECORDS, NATIVE)
    tables = analyse_edits(model, states, RECORDS, _results(tmp_path, model, "ft"), HOW)
    errors = [row["value"] for row in tables["activation"] if row["measure"] == "relative_error"]
    assert len(errors) == 6
    assert max(errors) < 1e-3


def test_without_mixed_edits_there_is_no_venn_diagram(edited: Edited) -> None:
    model, states, groups = edited
    batches = {lang: files for lang, files in groups[0].batches.items() if lang != "mix"}
    tables = analyse_edits(model, states, RECORDS, [replace(groups[0], batches=batches)], HOW)
    assert tables["venn"] == []
    assert {row["edit"] for row in tables["neurons"]} == {"zh", "en"}


def test_facts_of_another_dataset_are_said(edited: Edited) -> None:
    model, states, groups = edited
    with pytest.raises(InputFileError, match=r"not in the dataset.*--dataset"):
        analyse_edits(model, states, RECORDS[:5], groups, HOW)


@pytest.mark.parametrize("other", [{"model": "other"}, {"mode": "sequential"}])
def test_other_models_and_sequential_runs_are_passed_over(
    edited: Edited, other: dict[str, str]
) -> None:
    model, states, groups = edited
    setting = groups[0].setting.model_copy(update=other)
    tables = analyse_edits(model, states, RECORDS, [replace(groups[0], setting=setting)], HOW)
    assert not any(tables.values())

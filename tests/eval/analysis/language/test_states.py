"""States of small random models, and what edits do to them."""

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
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix
from clm_data.eval.analysis.geometry.saved_edits import EditGroup, find_edits
from clm_data.eval.analysis.language.edited_states import edited_state_tables
from clm_data.eval.analysis.language.edited_tables import COLUMNS
from clm_data.eval.analysis.language.states import ParallelStates, read_states
from clm_data.eval.analysis.options import EditedStateOptions
from clm_data.eval.csv_tables import write_rows
from clm_data.eval.editors import make_editor, params_for
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import contexts_from
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.editors.edits import applied
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
Edited = tuple[LoadedModel, ParallelStates, tuple[EditGroup, ...]]
OPTIONS = EditedStateOptions(Bootstrap(resamples=50), facts_at_once=3, listed_neurons=8)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_equal_those_of_a_full_forward_pass(architecture: str) -> None:
    model = small_model(architecture)
    states = read_states(model, RECORDS, NATIVE, neurons=(3,))
    assert states.layers == tuple(range(model.depth))
    for i, record in enumerate(RECORDS):
        for request in requests_for([record], "mix"):
            placed = place_prompt(model.tokenizer, request, NATIVE)
            with torch.no_grad():
                out = model.model(torch.tensor([placed.ids]), output_hidden_states=True)
            side = states.side(request.lang)
            # The model returns the states of the last layer after its final norm.
            for layer in range(model.depth - 1):
                expected = out.hidden_states[layer + 1][0, placed.subject].numpy()
                assert side.hidden[layer][i] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    projection = model.mlp_out(3)
    for lang in LANGUAGES:
        side = states.side(lang)
        with torch.no_grad():
            again = projection(torch.tensor(side.neurons[3]))
        assert side.mlp[3] == pytest.approx(again.numpy(), rel=1e-3, abs=1e-4)


def test_the_batch_size_changes_states_only_by_rounding() -> None:
    model = small_model()
    one, many = (read_states(model, RECORDS, NATIVE, tokens_per_batch=n) for n in (1, 4096))
    for layer in one.layers:
        assert one.zh.hidden[layer] == pytest.approx(many.zh.hidden[layer], rel=1e-4, abs=1e-4)


def test_states_of_equal_models_have_equal_bytes() -> None:
    one, two = (read_states(small_model(), RECORDS, NATIVE) for _ in range(2))
    for layer in one.layers:
        assert one.en.hidden[layer].tobytes() == two.en.hidden[layer].tobytes()


def test_only_requested_parts_and_layers_are_read() -> None:
    states = read_states(small_model(), RECORDS, NATIVE, hidden=(2,), mlp=(), neurons=())
    assert (states.layers, dict(states.zh.mlp), dict(states.zh.neurons)) == ((2,), {}, {})


def test_a_fact_that_cannot_be_placed_is_reported_and_left_out() -> None:
    lost = RECORDS[1].model_copy(
        update={"en": RECORDS[1].en.model_copy(update={"subject": "Atlantis"})}
    )
    states = read_states(small_model(), [RECORDS[0], lost, RECORDS[2]], NATIVE)
    assert states.ids == (RECORDS[0].id, RECORDS[2].id)
    assert [one.id for one in states.refused] == [f"{lost.id}:en"]
    assert "Atlantis" in states.refused[0].reason
    with pytest.raises(EditError, match="Atlantis"):
        read_states(small_model(), [lost], NATIVE)


def test_a_missing_layer_and_a_nan_state_are_errors() -> None:
    model = small_model()
    with pytest.raises(LayoutError, match="layers 0 to 4"):
        read_states(model, RECORDS, NATIVE, mlp=(9,))
    weight = model.mlp_out(2).weight
    before = weight.clone()
    weight[0, 0] = float("nan")
    with pytest.raises(EditError, match="layer 2 is NaN"):
        read_states(model, RECORDS, NATIVE)
    weight.copy_(before)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_actual_and_expected_changes_agree_at_the_lowest_edited_layer_only(
    architecture: str,
) -> None:
    model = small_model(architecture)
    rng = torch.Generator().manual_seed(0)
    width, inner = 32, model.mlp_out(1).weight.numel() // 32
    weights = {
        model.layout.weight(layer): WeightDelta(
            torch.randn(width, 2, generator=rng), torch.randn(2, inner, generator=rng)
        )
        for layer in LAYERS
    }
    before = read_states(model, RECORDS, NATIVE, neurons=LAYERS)
    with applied(model, Deltas("made", model.name, weights)):
        after = read_states(model, RECORDS, NATIVE)
    for layer, exact in ((1, True), (2, False)):
        delta = weights[model.layout.weight(layer)]
        left, right = delta.left.double().numpy(), delta.right.double().numpy()
        actual = after.zh.mlp[layer] - before.zh.mlp[layer]
        keys = before.zh.neurons[layer].astype(np.float64)
        expected = LowRankMatrix(left, right).apply(keys)
        assert np.allclose(actual, expected, rtol=1e-3, atol=1e-3) is exact
    assert (after.zh.hidden[0] == before.zh.hidden[0]).all()


def _saved_edits(folder: Path, model: LoadedModel, method: str = "memit") -> tuple[EditGroup, ...]:
    """Edit in zh, en and mix, two batches each, and save the deltas as a results folder."""
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
    return (
        model,
        read_states(model, RECORDS, NATIVE),
        _saved_edits(tmp_path_factory.mktemp("out"), model),
    )


def test_saved_edits_are_applied_and_reverted(edited: Edited, tmp_path: Path) -> None:
    model, states, groups = edited
    before = model.fingerprint()
    tables = edited_state_tables(model, states, RECORDS, groups, OPTIONS)
    assert model.fingerprint() == before
    for name, columns in COLUMNS.items():
        assert tables[name], name
        write_rows(tmp_path / f"{name}.csv", tables[name], columns)
    again = edited_state_tables(model, states, RECORDS, groups, OPTIONS)
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


def test_a_venn_diagram_counts_every_neuron_of_a_set_once(
    edited: Edited,
) -> None:
    model, states, groups = edited
    rows = edited_state_tables(model, states, RECORDS, groups, OPTIONS)["venn"]
    kinds = {row["kind"] for row in rows}
    assert kinds == {"weight_rows", "weight_columns", "actual", "expected"}
    for kind in kinds:
        for layer in LAYERS:
            regions = [row for row in rows if (row["kind"], row["layer"]) == (kind, layer)]
            in_zh = sum(row["count"] for row in regions if "zh" in row["region"].split("+"))
            assert len(regions) == 7
            assert in_zh == regions[0]["set_size"] == round(0.05 * regions[0]["neurons"])


def test_selectivity_has_rows_from_the_first_edited_layer_up(
    edited: Edited,
) -> None:
    model, states, groups = edited
    tables = edited_state_tables(model, states, RECORDS, groups, OPTIONS)
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


def test_dense_changes_of_a_single_layer_are_analyzed(tmp_path: Path) -> None:
    model = small_model()
    states = read_states(model, RECORDS, NATIVE)
    tables = edited_state_tables(
        model, states, RECORDS, _saved_edits(tmp_path, model, "ft"), OPTIONS
    )
    errors = [row["value"] for row in tables["activation"] if row["measure"] == "relative_error"]
    assert len(errors) == 6
    assert max(errors) < 1e-3


def test_without_mixed_edits_there_is_no_venn_diagram(edited: Edited) -> None:
    model, states, groups = edited
    batches = {lang: files for lang, files in groups[0].batches.items() if lang != "mix"}
    tables = edited_state_tables(
        model, states, RECORDS, [replace(groups[0], batches=batches)], OPTIONS
    )
    assert tables["venn"] == []
    assert {row["edit"] for row in tables["neurons"]} == {"zh", "en"}


def test_edited_facts_that_are_not_in_the_dataset_are_an_error(edited: Edited) -> None:
    model, states, groups = edited
    with pytest.raises(InputFileError, match=r"not in the dataset.*--dataset"):
        edited_state_tables(model, states, RECORDS[:5], groups, OPTIONS)


@pytest.mark.parametrize("other", [{"model": "other"}, {"mode": "sequential"}])
def test_other_models_and_sequential_runs_are_skipped(
    edited: Edited, other: dict[str, str]
) -> None:
    model, states, groups = edited
    setting = groups[0].setting.model_copy(update=other)
    tables = edited_state_tables(
        model, states, RECORDS, [replace(groups[0], setting=setting)], OPTIONS
    )
    assert not any(tables.values())

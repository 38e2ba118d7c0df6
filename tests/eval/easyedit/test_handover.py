"""What EasyEdit gets: the tokenizer in an older form, and our hyperparameters under its names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import byte_level_tokenizer, sentencepiece_tokenizer, small_model
from helpers.tiny_dataset import RECORDS
from tokenizers import Tokenizer

from clm_data.eval.easyedit.handover import (
    SPACE,
    older_config,
    older_tokenizer,
    write_model,
)
from clm_data.eval.easyedit.params import easyedit_params
from clm_data.eval.editors import params_for
from clm_data.eval.editors.lora import LoraParams
from clm_data.eval.errors import EditError
from clm_data.eval.model.tiny import _tokenizer_texts, train_tokenizer
from clm_data.records import LANGUAGES

TEXTS = [
    *(record.fact(lang).prompt for record in RECORDS for lang in LANGUAGES),
    "The  author of Hamlet is William Shakespeare, born 1564.",
    "鲁迅的原名是周树人。 ok",
    " leading",
]


@pytest.mark.parametrize("kind", ["tiny", "byte-level", "sentencepiece"])
def test_an_older_tokenizer_gives_the_same_tokens_and_texts(kind: str) -> None:
    if kind == "tiny":
        tokenizer = train_tokenizer(_tokenizer_texts(RECORDS), 1000)
    else:
        tokenizer = byte_level_tokenizer() if kind == "byte-level" else sentencepiece_tokenizer()
    now = tokenizer.backend_tokenizer
    definition = older_tokenizer(json.loads(now.to_str()))
    merges = definition["model"]["merges"]
    assert merges
    assert all(merge.count(" ") == 1 for merge in merges)  # all that older versions can read
    older = Tokenizer.from_str(json.dumps(definition))
    for text in TEXTS:
        ids = now.encode(text).ids
        assert older.encode(text).ids == ids
        assert older.decode(ids) == now.decode(ids)
    has_space = any(SPACE in piece for piece in definition["model"]["vocab"])
    assert has_space == (kind == "tiny")


def test_an_older_config_has_the_former_names_too() -> None:
    config = {"dtype": "float32", "rope_parameters": {"rope_theta": 5.0}, "hidden_size": 8}
    older = older_config(config)
    assert older == {**config, "torch_dtype": "float32", "rope_theta": 5.0}
    assert older_config({"hidden_size": 8}) == {"hidden_size": 8}


def test_hyperparameters_and_modules_have_easyedits_names() -> None:
    model = small_model()
    params = params_for("memit", "qwen2-7b")
    found = easyedit_params("memit", params, model, 7, checkout=True)
    expected = {
        "layers": [4, 5, 6, 7, 8],
        "v_num_grad_steps": 25,
        "v_lr": 0.5,
        "v_weight_decay": 1e-3,
        "v_loss_layer": 4,
        "clamp_norm_factor": 4.0,
        "kl_factor": 0.0625,
        "mom2_update_weight": 15000.0,
        "rewrite_module_tmp": "model.layers.{}.mlp.down_proj",
        "mlp_module_tmp": "model.layers.{}.mlp",
        "attn_module_tmp": "model.layers.{}.self_attn",
        "ln_f_module": "model.norm",
    }
    assert found.method == "MEMIT"
    assert {name: found.hparams[name] for name in expected} == expected
    assert found.optional["batch_size"] == 7
    assert not found.one_by_one
    assert easyedit_params("rome", params_for("rome", "tiny"), model, 7, checkout=True).one_by_one


def test_switches_that_easyedit_lacks_are_refused() -> None:
    model = small_model("llama")
    switches: dict[str, dict[str, Any]] = {
        "memit": {"rect": 0.4, "prune": 1.2, "nas": True, "emmet": True},
        "rome": {"nas": True},
        "ft": {"rect": 0.4},
    }
    for method, values in switches.items():
        for name, value in values.items():
            params = replace(params_for(method, "tiny"), **{name: value})
            with pytest.raises(EditError, match=f"{method}: EasyEdit has no {name}"):
                easyedit_params(method, params, model, 1, checkout=True)


def test_tied_embeddings_are_the_head_that_easyedit_finds() -> None:
    params, model = params_for("memit", "tiny"), small_model()
    weights = dict(model.model.named_parameters())
    head = easyedit_params("memit", params, model, 1, checkout=True).hparams["lm_head_module"]
    assert f"{head}.weight" in weights
    model.model.lm_head.weight = model.model.model.embed_tokens.weight
    head = easyedit_params("memit", params, model, 1, checkout=True).hparams["lm_head_module"]
    assert head == "model.embed_tokens"


def test_pmet_names_the_projections_and_its_own_rules() -> None:
    model, params = small_model(), params_for("pmet", "tiny")
    hparams = easyedit_params("pmet", params, model, 1, checkout=True).hparams
    assert hparams["mlp_module_tmp"] == "model.layers.{}.mlp.down_proj"
    assert hparams["attn_module_tmp"] == "model.layers.{}.self_attn.o_proj"
    assert hparams["nll_loss_factor"] == 1.0
    calm = replace(params, values=replace(params.values, ease_off=False))
    with pytest.raises(EditError, match="ease_off is False; in EasyEdit it is always True"):
        easyedit_params("pmet", calm, model, 1, checkout=True)


def test_only_a_checkout_can_be_told_what_fine_tuning_predicts() -> None:
    model, params = small_model(), params_for("ft", "tiny")
    release = easyedit_params("ft", params, model, 1, checkout=False).hparams
    checkout = easyedit_params("ft", params, model, 1, checkout=True).hparams
    assert "objective_optimization" not in release
    assert checkout == {**release, "objective_optimization": "prompt_last"}
    assert release["norm_constraint"] == params.limit
    one_by_one = easyedit_params("ft-m", params_for("ft-m", "tiny"), model, 3, checkout=True)
    assert one_by_one.one_by_one
    assert one_by_one.method == "FT"
    assert one_by_one.hparams["objective_optimization"] == "target_new"
    assert one_by_one.hparams["norm_constraint"] is False
    with pytest.raises(EditError, match="batch_size is 2; in EasyEdit it is always None"):
        easyedit_params("ft", replace(params, batch_size=2), model, 3, checkout=True)


@pytest.mark.parametrize("method", ["memit", "ft"])
def test_a_value_that_is_fixed_in_easyedit_cannot_be_another(method: str) -> None:
    params = params_for(method, "tiny")
    if method == "ft":
        params = replace(params, stop_at=0.5)
    else:
        params = replace(params, values=replace(params.values, stop_at=0.5))
    with pytest.raises(EditError, match=r"stop_at is 0\.5; in EasyEdit it is always"):
        easyedit_params(method, params, small_model(), 1, checkout=True)


def test_all_values_that_easyedit_fixes_are_in_one_message() -> None:
    params = LoraParams(epochs=1, lr=1e-3, batch_size=10)
    with pytest.raises(EditError) as error:
        easyedit_params("lora", params, small_model(), 3, checkout=True)
    assert str(error.value) == (
        "lora: append_eos is True, batch_size is 10, order is breadth-first, stop_at is 0.01; in "
        "EasyEdit it is always False, 1, depth-first, 0; set that under params in a recipe"
    )
    with pytest.raises(EditError, match="grace: labels is text; in EasyEdit it is always easyedit"):
        easyedit_params("grace", params_for("grace", "tiny"), small_model(), 3, checkout=True)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    import resource

    model, limits = small_model(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(EditError) as error:
            write_model(model, tmp_path / "llama", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = str(error.value)
    assert message.startswith(f"{model.name} cannot be written for EasyEdit in {tmp_path}: ")
    assert "\n" not in message

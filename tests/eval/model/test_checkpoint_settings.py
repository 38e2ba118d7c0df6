"""Nothing in a checkpoint's generation settings or tokenizer changes a measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import byte_level_tokenizer, small_model

from clm_data.errors import InputFileError
from clm_data.eval.errors import EditError
from clm_data.eval.model.loading import load_model, prepare
from clm_data.eval.sweep.answers import Question, generate_answers

QUESTIONS = [
    Question("zh", "长江发源于", "黄山黄山黄山"),
    Question("en", "The capital of France is", "Rome in Italy, and Paris"),
]


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.8},
        {"num_beams": 4},
        {"no_repeat_ngram_size": 1},
        {"num_return_sequences": 2, "num_beams": 2},
        {"min_new_tokens": 30},
        {"forced_eos_token_id": 3},
        {"forced_bos_token_id": 3},
        {"bad_words_ids": [[i] for i in range(3, 300)]},
        {"suppress_tokens": list(range(3, 300))},
        {"begin_suppress_tokens": list(range(3, 300))},
        {"sequence_bias": [[[5], 100.0]]},
        {"max_length": 3},
        {"max_time": 0.0},
        {"do_sample": True, "temperature": 9.0, "top_k": 3},
        {"stop_strings": ["a"]},
        {"cache_implementation": "static"},
        {"use_cache": False},
        {"eos_token_id": list(range(300))},
        {"guidance_scale": 3.0},
        {"exponential_decay_length_penalty": [1, 5.0]},
        {"prompt_lookup_num_tokens": 2},
        {"output_scores": True, "return_dict_in_generate": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_free_generation_ignores_the_checkpoints_settings(settings: dict[str, Any]) -> None:
    from transformers import GenerationConfig

    loaded = small_model("qwen2")
    expected = generate_answers(loaded, QUESTIONS)
    assert all(expected)
    stored = GenerationConfig(**settings)
    loaded.model.generation_config = stored
    assert generate_answers(loaded, QUESTIONS) == expected
    assert loaded.model.generation_config is stored


def _with_template(single: str) -> Any:
    from tokenizers import processors

    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0)]),
        ]
    )
    return tokenizer


@pytest.mark.parametrize(("single", "kept"), [("$A <s>", "$A"), ("<s> $A <s>", "<s> $A")])
def test_closing_tokens_are_removed_and_opening_ones_stay(single: str, kept: str) -> None:
    plain, closed = _with_template(kept), _with_template(single)
    expected = plain("The capital 鲁迅", return_offsets_mapping=True)
    model = small_model("llama").model
    loaded = prepare("closed", model, closed)
    found = loaded.tokenizer("The capital 鲁迅", return_offsets_mapping=True)
    assert found["input_ids"] == expected["input_ids"]
    assert found["offset_mapping"] == expected["offset_mapping"]


def test_a_stored_truncation_or_padding_does_not_cut_prompts(tmp_path: Path) -> None:
    saved = small_model("llama")
    saved.model.save_pretrained(tmp_path)
    text = "The capital of France is Paris, and that of Italy is Rome"
    expected = saved.tokenizer(text)["input_ids"]
    saved.tokenizer.backend_tokenizer.enable_truncation(8)
    saved.tokenizer.backend_tokenizer.enable_padding(length=64)
    saved.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), device="cpu")
    assert loaded.tokenizer(text)["input_ids"] == expected
    assert loaded.tokenizer.backend_tokenizer.encode(text).ids == expected


def test_a_tokenizer_larger_than_the_embeddings_is_one_line() -> None:
    tokenizer = byte_level_tokenizer()
    model = small_model("llama").model
    tokenizer.add_tokens(["浦江县"])
    with pytest.raises(InputFileError, match=r"'浦江县' with number .* embeddings; choose"):
        prepare("small", model, tokenizer)


def test_a_padding_token_without_an_embedding_is_not_needed() -> None:
    tokenizer = byte_level_tokenizer()
    loaded = small_model("llama")
    expected = generate_answers(loaded, QUESTIONS)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert generate_answers(prepare("pad", loaded.model, tokenizer), QUESTIONS) == expected


def test_a_prompt_that_leaves_no_positions_for_the_answer_is_one_line() -> None:
    question = Question("en", "The wind is here. " * 40, "Rome")
    with pytest.raises(EditError, match="max_position_embeddings 128 in its config"):
        generate_answers(small_model("gpt2"), [question])


def test_an_adapter_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", "utf-8")
    with pytest.raises(InputFileError, match=r"PEFT adapter .* merge it into its base model"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_code_of_a_checkpoint_is_neither_run_nor_asked_about(tmp_path: Path, part: str) -> None:
    import json

    saved = small_model("llama")
    saved.model.save_pretrained(tmp_path)
    saved.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "own.py").write_text("raise SystemExit('was run')\n", "utf-8")
    name = "config.json" if part == "model" else "tokenizer_config.json"
    config = json.loads((tmp_path / name).read_text("utf-8"))
    if part == "model":
        config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C"}}
    else:
        config |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.T"]}}
    (tmp_path / name).write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputFileError, match="pass --trust-remote-code if you trust it"):
        load_model(str(tmp_path), device="cpu")


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved = small_model("llama")
    saved.model.save_pretrained(tmp_path)
    saved.tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputFileError, match=r"missing weights, such as model\.layers\.1\.mlp"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize("name", ["LlamaTokenizer", "Qwen2Tokenizer", "GPT2Tokenizer"])
def test_settings_of_a_tokenizer_without_its_vocabulary_are_one_line(
    tmp_path: Path, name: str
) -> None:
    import json

    saved = small_model("llama")
    saved.model.save_pretrained(tmp_path)
    saved.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    settings = tmp_path / "tokenizer_config.json"
    config = json.loads(settings.read_text("utf-8")) | {"tokenizer_class": name}
    settings.write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputFileError, match=r"knows no text, as if tokenizer\.json is missing"):
        load_model(str(tmp_path), device="cpu")

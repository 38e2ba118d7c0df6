"""What EasyEdit reads: the model, its tokenizer and second moments, as files in its folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clm_data.errors import ClmDataError
from clm_data.eval.easyedit.params import SAMPLES, STATISTICS, model_folder_name
from clm_data.eval.editors.moments import Moments
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel

SPACE = "\u2004"
"""In the place of a space in the older form of a tokenizer: white space that texts do not have."""
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_LIKELY = 20
"""Tokens whose log-probabilities are compared in each text."""


def write_model(model: LoadedModel, folder: Path, versions: Mapping[str, str]) -> dict[str, Any]:
    """Write the model and its tokenizer in a form that EasyEdit's environment can read.

    Args:
        model: The unedited model.
        folder: Where to write.
        versions: Package to version in that environment.

    Returns:
        The tokenizer's special tokens and settings, for `PreTrainedTokenizerFast`.

    Raises:
        EditError: The model is not in float32, or cannot be written.
    """
    import torch
    from safetensors import SafetensorError

    if model.model.dtype != torch.float32:
        raise EditError(
            f"{model.name}: EasyEdit computes in float32, and the model is in "
            f"{str(model.model.dtype).removeprefix('torch.')}; add --dtype float32"
        )
    try:
        with _without_quantizer(model.model):
            model.model.save_pretrained(folder)
        config_file = folder / "config.json"
        config = json.loads(config_file.read_text(encoding="utf-8"))
        config.pop("quantization_config", None)  # of a GGUF file; the weights are float32
        if _older(versions, "transformers", (5,)):
            config = older_config(config)
        config_file.write_text(json.dumps(config, indent=1), encoding="utf-8")
        definition = json.loads(model.tokenizer.backend_tokenizer.to_str())
        if _older(versions, "tokenizers", (0, 20)):
            definition = older_tokenizer(definition)
        text = json.dumps(definition, ensure_ascii=False)
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, ClmDataError):
            raise
        reason = (str(error).splitlines() or [""])[0]
        raise EditError(
            f"{model.name} cannot be written for EasyEdit in {folder.parent}: {reason}"
        ) from error
    special = {name: getattr(model.tokenizer, name) for name in _SPECIAL}
    if special["eos_token"] is None:
        raise EditError(
            f"{model.name}: EasyEdit needs the tokenizer's end token (eos_token) as padding"
        )
    cleans = bool(getattr(model.tokenizer, "clean_up_tokenization_spaces", False))
    known = {name: str(token) for name, token in special.items() if token is not None}
    return {**known, "clean_up_tokenization_spaces": cleans}


@contextmanager
def _without_quantizer(model: Any) -> Iterator[None]:
    """Let transformers save a model in float32 that it read from a GGUF file."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        model.hf_quantizer = None
    try:
        yield
    finally:
        if quantizer is not None:
            model.hf_quantizer = quantizer


def older_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's config with the names of settings before transformers 5 as well."""
    rope = config.get("rope_parameters") or {}
    older = {"torch_dtype": config.get("dtype"), "rope_theta": rope.get("rope_theta")}
    return {**{name: value for name, value in older.items() if value is not None}, **config}


def older_tokenizer(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer as versions of tokenizers before 0.20 read it.

    They read each merge as two pieces with a space between them. If pieces contain spaces, another
    white-space character stands for the space, in vocabulary, merges and patterns.
    """
    older: dict[str, Any] = copy.deepcopy(dict(definition))
    model = older["model"]
    if model.get("type") != "BPE":
        return older
    merges = [m.split(" ") if isinstance(m, str) else list(m) for m in model["merges"]]
    if any(" " in piece for merge in merges for piece in merge):
        merges = [[piece.replace(" ", SPACE) for piece in merge] for merge in merges]
        model["vocab"] = {piece.replace(" ", SPACE): i for piece, i in model["vocab"].items()}
        replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
        older["normalizer"] = _sequence("normalizers", older.get("normalizer"), replaced)
        older["decoder"] = _sequence("decoders", older.get("decoder"), back)
        older["pre_tokenizer"] = _with_space(older.get("pre_tokenizer"))
    model["merges"] = [" ".join(merge) for merge in merges]
    return older


def _sequence(name: str, first: Any, second: dict[str, Any]) -> dict[str, Any]:
    """A sequence of a tokenizer's parts."""
    return {"type": "Sequence", name: [*([first] if first else []), second]}


def _with_space(part: Any) -> Any:
    """A pre-tokenizer with the other space in its patterns."""
    if isinstance(part, dict):
        return {
            key: value.replace(" ", SPACE) if key in ("Regex", "String") else _with_space(value)
            for key, value in part.items()
        }
    return [_with_space(one) for one in part] if isinstance(part, list) else part


def _older(versions: Mapping[str, str], package: str, than: tuple[int, ...]) -> bool:
    numbers = []
    for part in versions.get(package, "").split(".")[: len(than)]:
        digits = "".join(mark for mark in part if mark.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers) < than


def model_checks(model: LoadedModel, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Tokens of some texts, and the most likely next tokens, to compare EasyEdit's model with."""
    import torch

    checks = []
    for text in texts:
        ids = list(model.tokenizer(text)["input_ids"])
        with torch.no_grad():
            row = torch.tensor([ids], device=model.device)
            logits = model.model(input_ids=row, use_cache=False).logits
        top = logits[0, -1].float().log_softmax(-1).topk(min(_LIKELY, logits.shape[-1]))
        checks.append(
            {
                "text": text,
                "ids": ids,
                "likely": top.indices.tolist(),
                "log_probabilities": top.values.tolist(),
            }
        )
    return checks


def write_statistics(moments: Moments, model: LoadedModel, folder: Path) -> None:
    """Write second moments where EasyEdit looks for its own, so that it downloads no text.

    Args:
        moments: The second moments. EasyEdit gets them with the ridge that ours are factorized
            with, if they need one: it would solve a singular system.
        model: The model.
        folder: EasyEdit's working directory.

    Raises:
        EditError: A file cannot be written.
    """
    import numpy as np

    place = folder / STATISTICS / model_folder_name(model) / "wikipedia_stats"
    try:
        place.mkdir(parents=True, exist_ok=True)
        for layer, moment in moments.by_layer.items():
            definite = moment.double().cpu().clone()
            factor = moments.factor(layer, definite.device)
            definite.diagonal().copy_((factor**2).sum(dim=1))
            module = model.layout.weight(layer).removesuffix(".weight")
            np.savez(
                place / f"{module}_float32_mom2_{SAMPLES}.npz",
                **{
                    "mom2.constructor": "SecondMoment()",
                    "mom2.count": 1,
                    "mom2.mom2": definite.float().numpy(),
                    "sample_size": SAMPLES,
                },
            )
    except OSError as error:
        raise EditError(
            f"second moments for EasyEdit cannot be written to {place}: {error.strerror}"
        ) from error

"""Sentence encoders: folders of transformers, or of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clm_data.errors import InputFileError
from clm_data.eval.intervals import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

Step = Callable[["Tensor"], "Tensor"]
"""What is done with an encoder's output: (tokens, width) to a vector, or a vector to a vector."""

_POOLINGS: dict[str, Step] = {
    "pooling_mode_mean_tokens": lambda hidden: hidden.mean(dim=0),
    "pooling_mode_cls_token": lambda hidden: hidden[0],
    "pooling_mode_max_tokens": lambda hidden: hidden.max(dim=0).values,
    "pooling_mode_lasttoken": lambda hidden: hidden[-1],
}


@dataclass(frozen=True)
class SentenceEncoder:
    """An encoder's last hidden states as one vector; a multilingual one matches across languages.

    In a folder of sentence-transformers, its own pooling, dense layers and maximum length are used;
    in any other the states' mean. A text's vector depends on no other text.

    Attributes:
        folder: Folder of an encoder that transformers can load.
        prefix: Text that the encoder expects before every question, such as `query: ` for E5.
    """

    folder: str
    prefix: str = ""

    @cached_property
    def _known(self) -> dict[str, FloatArray]:
        """Vectors by text."""
        return {}

    @cached_property
    def _loaded(self) -> tuple[Any, Any, list[Step]]:
        from transformers import AutoModel, AutoTokenizer

        folder = Path(self.folder)
        if not folder.is_dir():
            raise InputFileError(f"encoder {self.folder}: no such folder; download it first")
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder)
            model = AutoModel.from_pretrained(self.folder).eval()
            steps = _steps(folder)
            limit = _read(folder / "sentence_bert_config.json", {}).get("max_seq_length")
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise InputFileError(f"encoder {self.folder}: cannot be loaded: {reason}") from error
        if limit is not None:
            tokenizer.model_max_length = min(limit, tokenizer.model_max_length)
        return tokenizer, model, steps

    def vectors(self, texts: Sequence[str]) -> FloatArray:
        """See `Retriever.vectors`."""
        for text in texts:
            if text not in self._known:
                self._known[text] = self._vector(text)
        return np.stack([self._known[text] for text in texts])

    def _vector(self, text: str) -> FloatArray:
        import torch

        tokenizer, model, steps = self._loaded
        with torch.no_grad():
            inputs = tokenizer(self.prefix + text, return_tensors="pt", truncation=True)
            found = model(**inputs).last_hidden_state[0].double()
            for step in steps:
                found = step(found)
        vector: FloatArray = (found / found.norm().clamp(min=1e-30)).numpy()
        return vector


def _read(file: Path, default: Any) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else default


def _steps(folder: Path) -> list[Step]:
    """What the modules of an encoder do after the transformer.

    Raises:
        ValueError: A module, or a pooling, is unknown.
    """
    modules = _read(folder / "modules.json", None)
    if modules is None:
        return [_POOLINGS["pooling_mode_mean_tokens"]]
    steps = []
    for module in modules:
        kind, path = module["type"].rpartition(".")[2], folder / module["path"]
        if kind == "Pooling":
            steps.append(_pooling(path))
        elif kind == "Dense":
            steps.append(_dense(path))
        elif kind not in ("Transformer", "Normalize"):  # vectors are normalized in any case
            raise ValueError(f"modules.json has a module {kind}, which is not supported")
    return steps


def _pooling(folder: Path) -> Step:
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    modes = [name for name, on in settings.items() if name.startswith("pooling_mode_") and on]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise ValueError(
            f"{folder.name} asks for {' and '.join(modes) or 'no pooling'}; one of "
            f"{', '.join(_POOLINGS)} is supported"
        )
    return _POOLINGS[modes[0]]


def _dense(folder: Path) -> Step:
    import torch
    from safetensors.torch import load_file

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = settings["activation_function"].rpartition(".")[2]
    if name not in ("Tanh", "Identity"):
        raise ValueError(f"{folder.name} has the activation {name}; Tanh or Identity is supported")
    file = folder / "model.safetensors"
    if not file.is_file():
        raise ValueError(f"{folder.name} has no model.safetensors; convert its weights")
    tensors = {key: value.double() for key, value in load_file(file).items()}
    weight, bias = tensors["linear.weight"], tensors.get("linear.bias")

    def apply(vector: Tensor) -> Tensor:
        found = torch.nn.functional.linear(vector, weight, bias)
        return found.tanh() if name == "Tanh" else found

    return apply

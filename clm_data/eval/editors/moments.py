"""Second moments C of the inputs of the edited projections: the mean of k k^T over a corpus.

MEMIT weighs C against the new keys (Meng et al., 2023, equation 15); AlphaEdit derives its null
space from it. All layers are computed in one pass over the corpus, of which only the sums are
kept. The cache on disk is keyed by everything that the result depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_data.errors import InputFileError
from clm_data.eval.editors.origin import model_id
from clm_data.eval.editors.solve import cholesky, top_eigenvectors
from clm_data.eval.editors.tensor_files import save_safetensors
from clm_data.eval.errors import EditError, edit_errors
from clm_data.eval.model.batching import batches_by_length, padded
from clm_data.eval.model.hooks import captured
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.partial_forward import run_layers
from clm_data.records import Language, digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Second moments by layer; each is factorized at most once.

    With m = 14,336 (Llama-3-8B), a moment takes 0.8 GB and a factor 1.6 GB of main memory per
    layer.

    Attributes:
        by_layer: Layer to C, (m, m), float32, on the CPU.
        key: Hash of what they were computed from; saved with results.
        tokens: Number of tokens that they are the mean of.
        model: Name of the model.
        origin: `model_id` of the model; empty if unknown.
    """

    by_layer: Mapping[int, Tensor]
    key: str = ""
    tokens: int = 0
    model: str = ""
    origin: str = ""
    _factors: dict[tuple[str, int, float], Tensor] = field(
        default_factory=dict, repr=False, compare=False
    )
    _ridges: dict[int, float] = field(default_factory=dict, repr=False, compare=False)

    def moment(self, layer: int) -> Tensor:
        """C of a layer, (m, m).

        Raises:
            EditError: There is none for that layer.
        """
        if layer not in self.by_layer:
            raise EditError(
                f"no second moment for layer {layer}; there are {sorted(self.by_layer)}"
            )
        return self.by_layer[layer]

    def factor(self, layer: int, device: torch.device) -> Tensor:
        """Lower Cholesky factor of C, (m, m), float64; `solve.cholesky` describes its ridge."""

        def factorize(moment: Tensor) -> Tensor:
            factor, ridge = cholesky(moment)
            self._ridges[layer] = ridge / float(moment.diagonal().mean()) if ridge else 0.0
            return factor

        return self._once(("factor", layer, 0.0), device, factorize)

    def ridge(self, layer: int) -> float:
        """The ridge that the factor of C needed, over C's mean diagonal; 0 without a factor."""
        return self._ridges.get(layer, 0.0)

    def top_eigenvectors(self, layer: int, threshold: float, device: torch.device) -> Tensor:
        """Eigenvectors of C whose eigenvalue is at least `threshold`, (m, r), float64."""
        return self._once(
            ("eigenvectors", layer, threshold),
            device,
            lambda moment: top_eigenvectors(moment, threshold),
        )

    def solve(self, layer: int, vector: Tensor) -> Tensor:
        """C^-1 times a vector (m,), in the vector's dtype."""
        import torch

        factor = self.factor(layer, vector.device)
        return torch.cholesky_solve(vector.to(factor)[:, None], factor)[:, 0].to(vector)

    def _once(
        self,
        key: tuple[str, int, float],
        device: torch.device,
        compute: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Compute something on the device from a layer's moment; keep it on the CPU."""
        if key not in self._factors:
            _, layer, _ = key
            self._factors[key] = compute(self.moment(layer).to(device)).cpu()
        return self._factors[key].to(device)


@dataclass(frozen=True)
class LanguageMoments:
    """Second moments of each language.

    Attributes:
        by_language: Language to its second moments, of the same layers.
    """

    by_language: Mapping[Language, Moments]
    _weighted: dict[tuple[tuple[Language, float], ...], Moments] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def key(self) -> str:
        """Hash of what they were computed from; saved with results."""
        return digest({lang: moments.key for lang, moments in self.by_language.items()})

    def weighted(self, weights: Mapping[Language, float]) -> Moments:
        """The weighted mean of the languages' moments; computed once.

        Args:
            weights: Language to its weight, 0 or more; languages without moments are ignored.

        Raises:
            EditError: No language with moments has a weight.
        """
        used = tuple((lang, weights.get(lang, 0.0)) for lang in sorted(self.by_language))
        used = tuple((lang, weight) for lang, weight in used if weight > 0)
        if not used:
            known = ", ".join(sorted(self.by_language))
            raise EditError(f"no language with second moments ({known}) has a weight above 0")
        if used not in self._weighted:
            self._weighted[used] = _weighted_mean(
                [(self.by_language[lang], weight) for lang, weight in used]
            )
        return self._weighted[used]


def _weighted_mean(parts: Sequence[tuple[Moments, float]]) -> Moments:
    total = sum(weight for _, weight in parts)
    first, _ = parts[0]
    by_layer = {
        layer: sum(weight / total * one.moment(layer).double() for one, weight in parts).float()
        for layer in first.by_layer
    }
    tokens = sum(one.tokens for one, _ in parts)
    return replace(first, by_layer=by_layer, key="", tokens=tokens, _factors={}, _ridges={})


def second_moments(
    loaded: LoadedModel,
    texts: Mapping[str, Sequence[str]],
    layers: Sequence[int],
    *,
    cache: Path | None = None,
    max_length: int = 256,
    tokens_per_batch: int = 4096,
) -> Moments:
    """Compute second moments, or read them from a cache.

    Args:
        loaded: The unedited model.
        texts: Groups of texts, such as one per language. Every group has the same weight, whatever
            its size; within a group, every token has the same weight.
        layers: Layers of the edited projections.
        cache: Folder to read from and write to; None for no cache.
        max_length: Maximum tokens per text; the rest of a text is ignored.
        tokens_per_batch: Maximum tokens per forward pass.

    Raises:
        EditError: A group has no text, or memory runs out.
        LayoutError: The model lacks one of the layers.
        InputFileError: A file of the cache cannot be read.
    """
    layers = sorted(set(layers))
    for layer in layers:
        loaded.mlp_out(layer)
    if not texts or not all(texts.values()):
        raise EditError("second moments need text in every group")
    key = _key(loaded, texts, layers, max_length)
    path = None if cache is None else cache / f"moments-{key[:24]}.safetensors"
    if path is not None and path.is_file():
        return replace(_read(path, key), model=loaded.name, origin=model_id(loaded))
    groups = []
    with edit_errors(f"second moments of {loaded.name}"):
        for group in texts.values():
            groups.append(_group_sums(loaded, group, layers, max_length, tokens_per_batch))
    by_layer = {
        layer: (sum(sums[layer] / count for sums, count in groups) / len(groups)).float().cpu()
        for layer in layers
    }
    count = sum(count for _, count in groups)
    moments = Moments(by_layer, key, count, loaded.name, model_id(loaded))
    if path is not None:
        _write(path, moments)
    return moments


def _key(
    loaded: LoadedModel, texts: Mapping[str, Sequence[str]], layers: list[int], max_length: int
) -> str:
    return digest(
        {
            "weights": loaded.fingerprint(),
            "config": _config(loaded),
            "dtype": str(loaded.model.dtype),
            "tokenizer": loaded.tokenizer_fingerprint(),
            "texts": {name: _text_hash(group) for name, group in texts.items()},
            "layers": layers,
            "max_length": max_length,
        }
    )


def _config(loaded: LoadedModel) -> dict[str, Any]:
    """The config without what does not affect the numbers."""
    config = json.loads(loaded.model.config.to_json_string(use_diff=False))
    irrelevant = ("_name_or_path", "transformers_version", "architectures")
    return {name: value for name, value in config.items() if name not in irrelevant}


def _group_sums(
    loaded: LoadedModel,
    group: Sequence[str],
    layers: list[int],
    max_length: int,
    tokens_per_batch: int,
) -> tuple[dict[int, Tensor], int]:
    """Sums of k k^T by layer, (m, m) float64, and the number of tokens."""
    import torch

    longest = min(max_length, loaded.longest or max_length)
    rows = [list(loaded.tokenizer(text)["input_ids"])[:longest] for text in group]
    rows = [row for row in rows if row]
    sums: dict[int, Tensor] = {}
    with torch.no_grad(), ExitStack() as stack:
        records = {layer: stack.enter_context(captured(loaded.mlp_out(layer))) for layer in layers}
        for indices in batches_by_length([len(row) for row in rows], tokens_per_batch):
            ids = padded([rows[i] for i in indices], loaded.device)
            run_layers(loaded, ids, 0, layers[-1] + 1)
            lengths = torch.tensor([len(rows[i]) for i in indices], device=loaded.device)
            real = torch.arange(ids.shape[1], device=loaded.device)[None] < lengths[:, None]
            for layer, record in records.items():
                inputs = record.input.flatten(0, -2)  # OPT's MLP has no rows
                keys = inputs[real.flatten().to(inputs.device)].float()
                gram = (keys.T @ keys).double()
                sums[layer] = gram if layer not in sums else sums[layer].add_(gram)
    count = sum(map(len, rows))
    if not count:
        raise EditError("second moments need text in every group")
    return sums, count


def _text_hash(group: Sequence[str]) -> str:
    state = hashlib.sha256()
    for text in group:
        state.update(len(text.encode()).to_bytes(8, "big") + text.encode())
    return state.hexdigest()


def _write(path: Path, moments: Moments) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {str(layer): moment for layer, moment in moments.by_layer.items()}
    save_safetensors(tensors, path, {"key": moments.key, "tokens": str(moments.tokens)})


def _read(path: Path, key: str) -> Moments:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                raise InputFileError(f"{path} does not contain what its name indicates; delete it")
            by_layer = {int(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Moments(by_layer, key, int(metadata["tokens"]))
    except (OSError, SafetensorError) as error:
        raise InputFileError(f"{path} cannot be read ({error}); delete it") from error

"""Second moments of what enters the edited projections: MEMIT's C, mean of k k^T over a corpus.

All layers come from one pass over the text; nothing but the sums is kept. A cache on disk is keyed
by everything that the result depends on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clm_data.errors import InputFileError
from clm_data.eval.editors.solve import cholesky, top_eigenvectors
from clm_data.eval.errors import EditError, edit_errors
from clm_data.eval.model.batching import batches_by_length, padded
from clm_data.eval.model.hooks import captured
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.partial_forward import run_layers
from clm_data.files import atomic_file
from clm_data.records import digest


@dataclass(frozen=True)
class Moments:
    """Second moments by layer, each factorised at most once.

    For m = 14,336 (Llama-3-8B) a moment takes 0.8 GB and a factor 1.6 GB of main memory a layer.

    Attributes:
        by_layer: (m, m), float32, on the CPU.
        key: What they were computed from; for results.
        tokens: How many tokens they are the mean of.
    """

    by_layer: Mapping[int, Any]
    key: str = ""
    tokens: int = 0
    _made: dict[tuple[str, int, float], Any] = field(
        default_factory=dict, repr=False, compare=False
    )

    def moment(self, layer: int) -> Any:
        """C of a layer.

        Raises:
            EditError: There is none for that layer.
        """
        if layer not in self.by_layer:
            raise EditError(
                f"no second moment for layer {layer}; there are {sorted(self.by_layer)}"
            )
        return self.by_layer[layer]

    def factor(self, layer: int, device: Any) -> Any:
        """Lower Cholesky factor of C, float64; see :func:`solve.cholesky` for its ridge."""
        return self._once("factor", layer, 0.0, device)

    def strong(self, layer: int, threshold: float, device: Any) -> Any:
        """Eigenvectors (m, r) of C with eigenvalues of at least ``threshold``, float64."""
        return self._once("strong", layer, threshold, device)

    def solve(self, layer: int, vector: Any) -> Any:
        """C^-1 times a vector (m,)."""
        import torch

        factor = self.factor(layer, vector.device)
        return torch.cholesky_solve(vector.to(factor)[:, None], factor)[:, 0].to(vector)

    def _once(self, what: str, layer: int, threshold: float, device: Any) -> Any:
        made = self._made.get((what, layer, threshold))
        if made is None:
            moment = self.moment(layer).to(device)
            made = cholesky(moment)[0] if what == "factor" else top_eigenvectors(moment, threshold)
            made = self._made[(what, layer, threshold)] = made.cpu()
        return made.to(device)


def second_moments(
    loaded: LoadedModel,
    texts: Mapping[str, Sequence[str]],
    layers: Sequence[int],
    *,
    cache: Path | None = None,
    max_length: int = 256,
    tokens_per_batch: int = 4096,
) -> Moments:
    """Compute or read the second moments of some layers.

    Args:
        loaded: The unedited model.
        texts: Groups of texts, such as one a language. Each group has equal weight however long it
            is; within it, each token.
        layers: Which layers.
        cache: Folder of the cache; None for none.
        max_length: Tokens of a text that count.
        tokens_per_batch: Tokens run at once.

    Raises:
        EditError: A group has no text, a layer is missing, or memory runs out.
    """
    wanted = sorted(set(layers))
    for layer in wanted:
        loaded.mlp_out(layer)
    if not texts or not all(texts.values()):
        raise EditError("second moments need text in every group")
    key = _key(loaded, texts, wanted, max_length)
    path = None if cache is None else cache / f"moments-{key[:24]}.safetensors"
    if path is not None and path.is_file():
        return _read(path, key)
    groups = []
    with edit_errors(f"second moments of {loaded.name}"):
        for group in texts.values():
            groups.append(_group_sums(loaded, group, wanted, max_length, tokens_per_batch))
    by_layer = {
        layer: (sum(sums[layer] / count for sums, count in groups) / len(groups)).float().cpu()
        for layer in wanted
    }
    moments = Moments(by_layer, key, sum(count for _, count in groups))
    if path is not None:
        _write(path, moments)
    return moments


def _key(
    loaded: LoadedModel, texts: Mapping[str, Sequence[str]], layers: list[int], max_length: int
) -> str:
    return digest(
        {
            "weights": loaded.fingerprint(),
            "dtype": str(loaded.model.dtype),
            "tokenizer": loaded.tokenizer_fingerprint(),
            "texts": {name: _text_hash(group) for name, group in texts.items()},
            "layers": layers,
            "max_length": max_length,
        }
    )


def _group_sums(
    loaded: LoadedModel, group: Sequence[str], layers: list[int], max_length: int, budget: int
) -> tuple[dict[int, Any], int]:
    import torch

    rows = [list(loaded.tokenizer(text)["input_ids"])[:max_length] for text in group]
    rows = [row for row in rows if row]
    sums: dict[int, Any] = {}
    with torch.no_grad(), ExitStack() as stack:
        seen = {layer: stack.enter_context(captured(loaded.mlp_out(layer))) for layer in layers}
        for indices in batches_by_length([len(row) for row in rows], budget):
            ids = padded([rows[i] for i in indices], loaded.device)
            run_layers(loaded, ids, 0, layers[-1] + 1)
            lengths = torch.tensor([len(rows[i]) for i in indices], device=loaded.device)
            real = torch.arange(ids.shape[1], device=loaded.device)[None] < lengths[:, None]
            for layer, one in seen.items():
                inputs = one.input[real.to(one.input.device)].float()
                gram = (inputs.T @ inputs).double()
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
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {str(layer): moment.contiguous() for layer, moment in moments.by_layer.items()}
    with atomic_file(path, overwrite=True) as draft:
        save_file(tensors, draft, {"key": moments.key, "tokens": str(moments.tokens)})


def _read(path: Path, key: str) -> Moments:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("key") != key:
                raise InputFileError(f"{path} is not what its name says; delete it")
            by_layer = {int(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Moments(by_layer, key, int(about["tokens"]))
    except (OSError, SafetensorError) as error:
        raise InputFileError(f"{path} cannot be read ({error}); delete it") from error

"""UltraEdit: Gu et al., UltraEdit: Training-, Subject-, and Memory-Free Lifelong Editing, 2025."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from clm_data.eval.editors.base import DeltaParams, Setup, Stopwatch
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.gradients import KeyGradients, read_gradients
from clm_data.eval.editors.normalizer import Normalizer
from clm_data.eval.editors.origin import model_id
from clm_data.eval.editors.ranges import Count, Layer, LearningRate
from clm_data.eval.editors.solve import check_finite, solve_ridge
from clm_data.eval.editors.training import answer_rows
from clm_data.eval.errors import EditError, edit_errors
from clm_data.eval.model.hooks import restored
from clm_data.eval.model.layout import MlpPart
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest, Placement

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True)
class UltraEditParams(DeltaParams):
    """Hyperparameters of UltraEdit.

    Attributes:
        gate: Layers whose MLP gate projection changes.
        up: Layers whose other MLP input projection changes.
        down: Layers whose MLP output projection changes.
        lr: Step size eta.
        facts_per_step: Facts that share a step. A later step is computed on top of the earlier
            ones.
    """

    gate: tuple[Layer, ...] = ()
    up: tuple[Layer, ...] = ()
    down: tuple[Layer, ...] = ()
    lr: LearningRate = 1e-6
    facts_per_step: Count = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.edited_layers:
            raise EditError("ultraedit has no layer to edit in gate, up or down")

    @property
    def edited_layers(self) -> tuple[int, ...]:
        """Layers of any of the three projections, each once."""
        return tuple(sorted({*self.gate, *self.up, *self.down}))

    def with_layers(self, layers: tuple[int, ...]) -> Self:
        """The same projections in other layers."""
        return replace(
            self,
            gate=layers if self.gate else (),
            up=layers if self.up else (),
            down=layers if self.down else (),
        )

    def weights(self) -> list[tuple[int, MlpPart]]:
        """The edited projections: layer and part."""
        parts: tuple[tuple[MlpPart, tuple[int, ...]], ...] = (
            ("gate", self.gate),
            ("up", self.up),
            ("down", self.down),
        )
        return [(layer, part) for part, layers in parts for layer in layers]


def _layers(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


# EasyEdit, hparams/UltraEdit: llama3-8b-instruct.yaml, qwen2.5-7b.yaml, mistral-7b.yaml and
# gpt-j-6B.yaml.
_LLAMA3 = UltraEditParams(gate=_layers(11, 15), up=_layers(18, 24))
_QWEN = UltraEditParams(gate=_layers(18, 26), up=_layers(18, 26))
_MISTRAL = UltraEditParams(down=(29, 30))
_GPT_J = UltraEditParams(down=_layers(18, 26))


@dataclass(frozen=True)
class UltraEdit:
    """Writes a normalized gradient at the keys of the answer's tokens, by least squares.

    One forward and one backward pass per step give keys a and gradients g at the tokens that
    predict the answer. With both normalized by the running mean and deviation of everything seen,
    a weight changes by V^T (A A^T + I)^-1 A, where row n of V is -eta |a_n|^2 g_n (normalized) and
    A has the raw keys as rows. Weights of the same shape share a normalizer. It is kept in
    `Deltas.state`, from one edit of a sequence to the next.
    """

    params: UltraEditParams
    setup: Setup

    PARAMS: ClassVar[Mapping[str, UltraEditParams]] = {
        "llama-3-8b": _LLAMA3,
        "llama-3.1-8b": _LLAMA3,  # there is no yaml; that of Llama-3, which has the same sizes
        "qwen2-7b": _QWEN,  # there is no yaml; that of Qwen2.5-7B, which has the same sizes
        "qwen2.5-7b": _QWEN,
        # There is no yaml. Qwen2.5-7B's layers at the same relative depth among 36.
        "qwen3-8b": UltraEditParams(gate=_layers(23, 33), up=_layers(23, 33)),
        "mistral-7b": _MISTRAL,
        # There is no yaml; those of Llama-3, whose layers have the same number.
        "llama2-chinese-7b": _LLAMA3,
        "gpt-j-6b": _GPT_J,
        # There is no yaml. GPT-J's layers at the same relative depth among 48.
        "gpt2-xl": UltraEditParams(down=_layers(31, 45)),
        # Our choice: late output projections, as for Mistral; a small model needs larger steps.
        "smollm2-135m": UltraEditParams(down=(26, 27, 28), lr=1e-3),
        "tiny": UltraEditParams(down=(2, 3), lr=5e-3),
    }

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Deltas | None = None
    ) -> Deltas:
        """See `Editor.edit`."""
        placed, unplaced = place_facts(model, requests, self.setup.protocol, self.setup.contexts)
        facts, rows, refused = answer_rows(model, placed, self.setup.protocol)
        modules = {
            model.layout.weight(layer, part): model.mlp_part(layer, part)
            for layer, part in self.params.weights()
        }
        origin, watch = model_id(model), Stopwatch()
        state = self._start(past)
        weights: dict[str, WeightDelta] = {}
        with (
            edit_errors(f"ultraedit on {model.name}"),
            applied(model, past),
            restored(model, list(modules)) as parameters,
        ):
            for start in range(0, len(rows), self.params.facts_per_step):
                some = rows[start : start + self.params.facts_per_step]
                with watch.phase("gradients"):
                    read = self._gradients(model, some, modules)
                with watch.phase("solve"):
                    state = self._seen(state, read)
                    for path, found in read.items():
                        left, right = self._change(found, state[_shape(found)])
                        WeightDelta(left, right).add_to(
                            parameters[path], transposed=model.layout.transposed
                        )
                        new = WeightDelta(_to_storage(left), _to_storage(right))
                        weights[path] = weights[path] + new if path in weights else new
        return Deltas(
            "ultraedit",
            model.name,
            {path: _stored(delta) for path, delta in weights.items()},
            tuple(fact.request.id for fact in facts),
            unplaced + refused,
            seconds=watch.seconds,
            origin=origin,
            state={shape: normalizer.as_tensor() for shape, normalizer in state.items()},
        )

    def _start(self, past: Deltas | None) -> dict[str, Normalizer]:
        """The normalizers of earlier edits, by shape."""
        if past is None or self.setup.protocol.ultraedit_normalizer == "edit":
            return {}
        return {name: Normalizer.from_tensor(tensor) for name, tensor in past.state.items()}

    def _gradients(
        self,
        model: LoadedModel,
        rows: Sequence[Placement],
        modules: Mapping[str, Module],
    ) -> dict[str, KeyGradients]:
        return read_gradients(
            model,
            rows,
            modules,
            self.params.edited_layers[0],
            tokens=self.setup.protocol.ultraedit_tokens,
            tokens_per_batch=self.setup.tokens_per_batch,
        )

    def _seen(
        self, state: Mapping[str, Normalizer], read: Mapping[str, KeyGradients]
    ) -> dict[str, Normalizer]:
        """The normalizers after the rows of a step."""
        import torch

        state = dict(state)
        by_fact = self.setup.protocol.ultraedit_deviation == "by_fact"
        for found in read.values():
            rows = torch.cat([found.keys, found.gradients], dim=1).cpu()
            shape = _shape(found)
            normalizer = state.get(shape, Normalizer.of_size(rows.shape[1]))
            for part in rows.split(found.counts) if by_fact else (rows,):
                normalizer = normalizer.seen(part, overcount=by_fact)
            state[shape] = normalizer
        return dict(state)

    def _change(self, found: KeyGradients, normalizer: Normalizer) -> tuple[Tensor, Tensor]:
        """The factors (d, tokens) and (tokens, m) of the change of a weight, float64."""
        import torch

        size = found.keys.shape[1]
        rows = normalizer.normalize(torch.cat([found.keys, found.gradients], dim=1))
        keys, gradients = rows[:, :size], rows[:, size:]
        values = -self.params.lr * keys.square().sum(1, keepdim=True) * gradients
        right = solve_ridge(found.keys.T).T
        return check_finite(values, "the normalized gradients").T, right


def _shape(found: KeyGradients) -> str:
    """The name of a normalizer: (m, d) of the weights that share it."""
    return f"normalizer.{found.keys.shape[1]}x{found.gradients.shape[1]}"


def _stored(delta: WeightDelta) -> WeightDelta:
    """The change, dense if its factors would be larger."""
    assert delta.right is not None
    (d, rank), m = delta.left.shape, delta.right.shape[1]
    return WeightDelta(delta.dense()) if rank * (d + m) > d * m else delta


def _to_storage(factor: Tensor) -> Tensor:
    return factor.float().cpu().contiguous()

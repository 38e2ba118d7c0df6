"""GRACE's codebook: which prompts are in the scope of an entry, and what a layer answers there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clm_data.eval.editors.edits import facts_of, facts_of_both, metadata_of, read_saved
from clm_data.eval.editors.routed import OUT_OF_SCOPE, RoutedModel, last_tokens
from clm_data.eval.editors.tensor_files import save_safetensors
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel

if TYPE_CHECKING:
    from torch import Tensor

LabelRule = Literal["text", "easyedit"]
"""How the label of a new fact is compared with that of the nearest entry. `text`: the answers must
be the same text. `easyedit`: the mean of the answers' token ids must be the same, and the labels of
the codebook are read in the wrong order, newest first."""
Replaced = Literal["last", "all"]
"""Where an entry's value replaces the layer's output: at the last token of the prompt, or at all
tokens, those of the answer included."""


@dataclass(frozen=True)
class Scope:
    """How a codebook decides; the same for all edits of a sequence.

    Attributes:
        layer: The layer whose MLP output projection is routed.
        epsilon: Radius of a new entry, as a Euclidean distance between keys.
        labels: How labels are compared.
        replaced: Where the layer's output is replaced.
    """

    layer: int
    epsilon: float
    labels: LabelRule = "text"
    replaced: Replaced = "last"


@dataclass(frozen=True, eq=False)
class Entries:
    """The entries of a codebook, in the order in which they were inserted.

    Attributes:
        keys: (E, m), float32.
        values: (E, d), float32.
        radii: (E,) distance from its key up to which a prompt is in the scope of an entry.
        labels: By entry.
    """

    keys: Tensor
    values: Tensor
    radii: Tensor
    labels: tuple[str, ...]

    def insert(
        self, keys: Tensor, values: Tensor, labels: Sequence[str], scope: Scope
    ) -> tuple[Entries, list[int]]:
        """Insert facts one after the other: Hartvigsen et al., Aging with GRACE, 2023, algorithm 1.

        A fact that is farther from the nearest entry than the radii of both gets an entry of its
        own. If it is nearer and has the same label, it joins that entry, which grows to reach it
        and takes its value; with another label, the two share the distance between them.

        Args:
            keys: (N, m).
            values: (N, d).
            labels: By fact.
            scope: Radius of a new entry, and how labels are compared.

        Returns:
            The entries afterwards, and the index of each fact's entry.
        """
        import torch

        all_keys, all_values = torch.cat([self.keys, keys]), torch.cat([self.values, values])
        radii, all_labels, of_fact = self.radii.tolist(), list(self.labels), []
        for key, value, label in zip(keys, values, labels, strict=True):
            count, radius = len(radii), scope.epsilon
            nearest, distance = nearest_entry(all_keys[:count], key)
            if count and distance <= radii[nearest] + scope.epsilon:
                compared = nearest if scope.labels == "text" else count - 1 - nearest
                if all_labels[compared] == label:
                    radii[nearest] = max(radii[nearest], distance)
                    all_values[nearest] = value
                    of_fact.append(nearest)
                    continue
                radius = distance / 2
                radii[nearest] = radius - 1e-5
            of_fact.append(count)
            all_keys[count], all_values[count] = key, value
            radii.append(radius)
            all_labels.append(label)
        count = len(radii)
        return Entries(
            all_keys[:count].clone(),
            all_values[:count].clone(),
            torch.tensor(radii),
            tuple(all_labels),
        ), of_fact


def nearest_entry(keys: Tensor, key: Tensor) -> tuple[int, float]:
    """Index of the nearest of some keys (E, m), and its distance; infinite if there are none."""
    if not len(keys):
        return 0, float("inf")
    smallest, index = _distances(key[None], keys).min(dim=1)
    return int(index), float(smallest)


def _distances(queries: Tensor, keys: Tensor) -> Tensor:
    """Euclidean distances (Q, E); a key's distance from itself is exactly 0."""
    import torch

    return torch.cdist(queries, keys, compute_mode="donot_use_mm_for_euclid_dist")


def no_entries(keys: int, values: int) -> Entries:
    """A codebook without entries, for keys and values of some sizes."""
    import torch

    return Entries(torch.zeros(0, keys), torch.zeros(0, values), torch.zeros(0), ())


@dataclass(frozen=True)
class Codebook:
    """The edit of a codebook: its facts, and the entries they leave; an `Edit`.

    Attributes:
        method: Name of the method.
        model: Name of the model.
        scope: How the codebook decides.
        keys: (N, m), float32: what enters the projection at the last token of each fact's prompt.
        values: (N, d), float32: what leaves it there instead.
        labels: By fact.
        entries: The entries that the facts leave.
        edited: Ids of the facts.
        refused: See `Edit`.
        seconds: See `Edit`.
        steps: See `Edit`.
        origin: See `Edit`.
    """

    method: str
    model: str
    scope: Scope
    keys: Tensor
    values: Tensor
    labels: tuple[str, ...]
    entries: Entries
    edited: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    steps: tuple[int, ...] = ()
    origin: str = ""
    arrived: None = None

    def plus(self, later: Codebook) -> Codebook:
        """The facts of this edit and then those of a later one, in one codebook.

        Raises:
            EditError: The edits belong to different models, or have different scopes.
        """
        import torch

        facts = facts_of_both(self, later)
        if self.scope != later.scope:
            raise EditError(f"codebooks of {self.scope} and {later.scope} cannot be added")
        entries, _ = self.entries.insert(later.keys, later.values, later.labels, self.scope)
        return replace(
            self,
            keys=torch.cat([self.keys, later.keys]),
            values=torch.cat([self.values, later.values]),
            labels=self.labels + later.labels,
            entries=entries,
            **facts,
        )

    @contextmanager
    def apply_to(self, model: LoadedModel) -> Iterator[RoutedModel]:
        """Route the layer; no weight changes."""
        yield RoutedModel(model, self.scope.layer, _CodebookRouter(self.entries, self.scope))

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        about = {"kind": "codebook", "labels": self.labels, "scope": asdict(self.scope)}
        tensors = {"keys": self.keys, "values": self.values}
        save_safetensors(tensors, path, metadata_of(self, about))

    @staticmethod
    def load(path: Path) -> Codebook:
        """Read a file that `save` wrote.

        Raises:
            InputFileError: The file cannot be read, or holds something else.
        """
        with read_saved(path, "codebook") as (metadata, tensors):
            scope = Scope(**json.loads(metadata["scope"]))
            keys, values = tensors["keys"], tensors["values"]
            labels = tuple(json.loads(metadata["labels"]))
            empty = no_entries(keys.shape[1], values.shape[1])
            entries, _ = empty.insert(keys, values, labels, scope)
            return Codebook(
                scope=scope,
                keys=keys,
                values=values,
                labels=labels,
                entries=entries,
                **facts_of(metadata),
            )


@dataclass(frozen=True)
class _CodebookRouter:
    """Routes a row to the nearest entry that has it in scope."""

    entries: Entries
    scope: Scope

    def route(self, inputs: Tensor, outputs: Tensor, prompt: Tensor) -> Tensor:
        """The index of each row's entry; see `Router.route`."""
        import torch

        rows = torch.arange(len(inputs), device=inputs.device)
        queries = inputs[rows, last_tokens(prompt)].float()
        if not self.entries.labels:
            return torch.full_like(rows, OUT_OF_SCOPE)
        radii = self.entries.radii.to(queries.device)
        keys = self.entries.keys.to(queries.device)
        distances, nearest = _distances(queries, keys).min(dim=1)
        return nearest.where(distances <= radii[nearest], OUT_OF_SCOPE)

    def answer(
        self, inputs: Tensor, outputs: Tensor, prompt: Tensor | None, routes: Tensor
    ) -> Tensor:
        """The value of each row's entry; see `Router.answer`."""
        import torch

        values = self.entries.values.to(outputs)[routes.to(outputs.device)]
        if self.scope.replaced == "all":
            return values[:, None].expand_as(outputs)
        if prompt is None:
            return outputs
        outputs = outputs.clone()
        outputs[torch.arange(len(outputs), device=outputs.device), last_tokens(prompt)] = values
        return outputs

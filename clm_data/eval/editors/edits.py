"""The contract of all editing methods: what an edit is, and what evaluation asks of a model.

Methods come in three families, and evaluation treats them alike:

1. Weight changes (:class:`clm_data.eval.editors.deltas.Deltas`): the network itself is changed.
2. A routed layer: one layer answers differently, for the rows whose prompts are in its scope.
3. A changed input: the weights stay, and the prompt is rewritten.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from clm_data.errors import InputFileError
from clm_data.eval.editors.origin import check_origin
from clm_data.eval.errors import EditError
from clm_data.records import Language

if TYPE_CHECKING:
    from torch import Tensor

    from clm_data.eval.model.loaded import LoadedModel

KINDS: dict[str, str] = {
    "deltas": "deltas:Deltas",
    "codebook": "codebook:Codebook",
    "notes": "noted:Notes",
    "side-memory": "side_memory:SideMemory",
}
"""Kind of a saved edit to the `module:class` in this package that loads it."""


class EditedModel(Protocol):
    """A model as evaluation sees it; a :class:`LoadedModel` is one without an edit.

    The answer to a prompt is what `base` computes for the prompt that `rewrite` returns, within
    `routed`. Prompts and answers are joined and tokenized by the caller.
    """

    @property
    def base(self) -> LoadedModel:
        """The network that runs, with any weight changes in it."""
        ...

    def rewrite(self, prompt: str, lang: Language) -> str:
        """What the network reads in the place of a prompt in `lang`."""
        ...

    def routed(self, prompt: Tensor) -> AbstractContextManager[None]:
        """Within it, the network answers one batch of rows as the edit wants it.

        A row is routed once, by its prompt's tokens in the first forward pass; later passes, which
        decode an answer, keep the decision. So an answer's tokens never choose the route.

        Args:
            prompt: (rows, tokens), true at the tokens of the prompts: neither padding nor answer.
        """
        ...


@runtime_checkable
class Oracle(Protocol):
    """An edited model that is told which fact a question is about: an upper bound, not an editor.

    Only such a model is told, and the names of its methods say `oracle`.
    """

    def rewrite_about(self, prompt: str, lang: Language, fact: str) -> str:
        """What the network reads in the place of a prompt about a record, given by its id."""
        ...


class Edit(Protocol):
    """What an editor returns: the edit of some facts, which can be applied to the model."""

    @property
    def method(self) -> str:
        """Name of the method."""
        ...

    @property
    def model(self) -> str:
        """Name of the model."""
        ...

    @property
    def origin(self) -> str:
        """`model_id` of the unedited model; empty if unknown."""
        ...

    @property
    def edited(self) -> tuple[str, ...]:
        """Ids of the facts that were edited."""
        ...

    @property
    def refused(self) -> tuple[tuple[str, str], ...]:
        """(id, reason) of the facts that could not be placed."""
        ...

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by phase; not saved."""
        ...

    @property
    def steps(self) -> tuple[int, ...]:
        """Optimization steps by fact; empty if nothing is optimized; not saved."""
        ...

    @property
    def arrived(self) -> float | None:
        """Share of the wanted change that a solve lets through; None without a solve; not saved."""
        ...

    def plus(self, later: Self) -> Self:
        """This edit followed by a later one, which was computed on top of it.

        Raises:
            EditError: The edits belong to different models.
        """
        ...

    def apply_to(self, model: LoadedModel) -> AbstractContextManager[EditedModel]:
        """Apply the edit; use :func:`applied`, which checks the model first."""
        ...

    def save(self, path: Path) -> None:
        """Write a safetensors file that :func:`load_edit` reads."""
        ...


@contextmanager
def applied(model: LoadedModel, edit: Edit | None) -> Iterator[EditedModel]:
    """Apply an edit to a model; on exit the model is as before, bit for bit.

    Args:
        model: The unedited model that the edit was computed from.
        edit: The edit; None changes nothing.

    Yields:
        What evaluation asks. Without an edit, it is the model itself.

    Raises:
        EditError: The edit was computed from another model, or does not fit its weights.
        LayoutError: The model lacks a weight that the edit changes.
    """
    if edit is None:
        yield model
        return
    check_origin("an edit", edit.model, edit.origin, model)
    with edit.apply_to(model) as edited:
        yield edited


def facts_of_both(first: Edit, later: Edit) -> dict[str, Any]:
    """What `plus` of every kind of edit replaces: facts and origin; times and steps are dropped.

    Raises:
        EditError: See :func:`check_same_model`.
    """
    check_same_model(first, later)
    return {
        "edited": first.edited + later.edited,
        "refused": first.refused + later.refused,
        "origin": first.origin or later.origin,
        "seconds": {},
        "steps": (),
        "arrived": None,
    }


def check_same_model(first: Edit, later: Edit) -> None:
    """Check that two edits can follow each other.

    Raises:
        EditError: They are of different methods' kinds, or belong to different models.
    """
    if type(first) is not type(later):
        raise EditError(f"edits of {first.method} and {later.method} cannot be added")
    known = first.origin and later.origin
    if first.origin != later.origin if known else first.model != later.model:
        one, two = (f"{edit.model} {edit.origin[:8]}".strip() for edit in (first, later))
        raise EditError(f"edits of {one} and {two} cannot be added")


def load_edit(path: Path) -> Edit:
    """Read an edit of any kind that `save` wrote.

    Raises:
        InputFileError: The file cannot be read, or holds something else.
    """
    with read_saved(path) as (metadata, _):
        kind = metadata.get("kind", "deltas")
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise InputFileError(f"{path} contains an edit of the unknown kind '{kind}', not {known}")
    module, _, name = KINDS[kind].partition(":")
    loader: Any = getattr(importlib.import_module(f"clm_data.eval.editors.{module}"), name)
    edit: Edit = loader.load(path)
    return edit


def metadata_of(edit: Edit, more: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The metadata of a saved edit.

    Args:
        edit: The edit.
        more: Further entries; what is not text is written as JSON.
    """
    out = {
        "method": edit.method,
        "model": edit.model,
        "edited": json.dumps(edit.edited),
        "refused": json.dumps(edit.refused, ensure_ascii=False),
        "origin": edit.origin,
    }
    for name, value in (more or {}).items():
        out[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return out


def facts_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of an edit's class that :func:`metadata_of` wrote."""
    return {
        "method": metadata["method"],
        "model": metadata["model"],
        "edited": tuple(json.loads(metadata["edited"])),
        "refused": tuple((one, reason) for one, reason in json.loads(metadata["refused"])),
        "origin": metadata.get("origin", ""),
    }


@contextmanager
def read_saved(
    path: Path, kind: str | None = None
) -> Iterator[tuple[dict[str, str], Mapping[str, Tensor]]]:
    """Metadata and tensors of a saved edit; the tensors are read when they are looked up.

    Args:
        path: The file.
        kind: The expected kind; None takes any.

    Raises:
        InputFileError: The file cannot be read or is of another kind, or what is done inside finds
            that something is missing in it.
    """
    from safetensors import SafetensorError, safe_open

    what = "edit" if kind is None else kind
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            found = metadata.get("kind", "deltas")
            if kind not in (None, found):
                raise ValueError(f"it is an edit of the kind '{found}'")
            yield metadata, _Tensors(file)
    except SafetensorError as error:
        raise InputFileError(
            f"{path} contains no saved {what}: it is damaged, or no safetensors file ({error}); "
            "delete it and run eval-baselines again with --save-deltas"
        ) from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputFileError(f"{path} contains no saved {what}: {error}") from error


class _Tensors(Mapping[str, "Tensor"]):
    """The tensors of an open safetensors file."""

    def __init__(self, file: Any) -> None:
        self._file, self._names = file, tuple(file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

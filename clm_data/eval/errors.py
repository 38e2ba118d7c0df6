"""What can go wrong while a model is edited; part of the one error tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from clm_data.errors import ClmDataError


class EditError(ClmDataError):
    """An edit could not be made; one line says why. Other cells of a sweep go on."""


class PlacementError(EditError):
    """A fact cannot be placed among the tokens: its subject or answer has no clear position."""


class LayoutError(EditError):
    """A model lacks a part that the editors need, or is built in a way they do not know."""


@contextmanager
def edit_errors(what: str) -> Iterator[None]:
    """Turn memory exhaustion and failed factorisations into :class:`EditError`.

    Args:
        what: Opens the message, such as ``"MEMIT on SmolLM2"``.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EditError(f"{what}: out of memory; lower tokens_per_batch") from error
    except torch.linalg.LinAlgError as error:
        raise EditError(f"{what}: a linear system could not be solved: {error}") from error
    except RuntimeError as error:
        if "memory" not in str(error).lower():
            raise
        raise EditError(f"{what}: out of memory; lower tokens_per_batch") from error

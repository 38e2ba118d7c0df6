"""What can go wrong while a model is edited; part of the one error tree."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from clm_data.errors import ClmDataError


class EditError(ClmDataError):
    """An edit could not be made; one line says why. Other cells of a sweep go on."""


class PlacementError(EditError):
    """A fact cannot be placed among the tokens: its subject or answer has no clear position."""


class LayoutError(EditError):
    """A model lacks a part that the editors need, or is built in a way they do not know."""


_EXHAUSTED = ("out of memory", "allocate memory", "not enough memory", "status_alloc_failed")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, of Python, the system, torch or CUDA, says that memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if type(error).__name__ == "OutOfMemoryError":  # torch's, whatever it says
        return True
    if isinstance(error, RuntimeError):
        return any(words in str(error).lower() for words in _EXHAUSTED)
    return isinstance(error, MemoryError)


@contextmanager
def edit_errors(what: str, mend: str = "lower tokens_per_batch") -> Iterator[None]:
    """Turn memory exhaustion and failed factorisations into :class:`EditError`.

    Args:
        what: Opens the message, such as ``"MEMIT on SmolLM2"``.
        mend: What to do where memory ran out.
    """
    import torch

    try:
        yield
    except torch.linalg.LinAlgError as error:
        raise EditError(f"{what}: a linear system could not be solved: {error}") from error
    except (MemoryError, OSError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise EditError(f"{what}: out of memory; {mend}") from error

"""Errors of the evaluation; part of the package's one error hierarchy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from clm_data.errors import ClmDataError, MissingExtraError


class EditError(ClmDataError):
    """An edit failed. A sweep records the message and continues with the next cell."""


class PlacementError(EditError):
    """A fact cannot be aligned with tokens: its subject or its answer has no clear position."""


class LayoutError(EditError):
    """A model lacks a part that the editors need, or has an architecture they do not support."""


def require_torch() -> None:
    """Check that the extra `eval` is installed.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("torch", "eval") from error


_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "status_alloc_failed")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error raised by Python, the system, torch or CUDA means that memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if type(error).__name__ == "OutOfMemoryError":  # torch.OutOfMemoryError, whatever its message
        return True
    if isinstance(error, RuntimeError):
        return any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY)
    return isinstance(error, MemoryError)


@contextmanager
def edit_errors(what: str, hint: str = "lower tokens_per_batch") -> Iterator[None]:
    """Turn memory exhaustion and failed factorizations into `EditError`.

    Args:
        what: Start of the message, e.g. `"memit on SmolLM2"`.
        hint: How to reduce memory use.
    """
    import torch

    try:
        yield
    except torch.linalg.LinAlgError as error:
        raise EditError(f"{what}: a linear system could not be solved: {error}") from error
    except (MemoryError, OSError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise EditError(f"{what}: out of memory; {hint}") from error

"""What the checks of a loaded model have in common: tolerance, settings, and the refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clm_data.eval.errors import LayoutError

if TYPE_CHECKING:
    from clm_data.eval.model.loaded import LoadedModel


def tolerance(loaded: LoadedModel) -> float:
    """Largest accepted difference, relative to the largest value compared."""
    import torch

    return 1e-3 if loaded.model.dtype in (torch.float32, torch.float64) else 5e-2


def refused(loaded: LoadedModel, why: str) -> LayoutError:
    """The error for a model that cannot be edited exactly."""
    architecture = type(loaded.model).__name__
    return LayoutError(f"{loaded.name} ({architecture}) is not supported: {why}")


def setting(loaded: LoadedModel, name: str) -> Any:
    """A setting of the model's config; None if it has no such setting."""
    return getattr(loaded.model.config, name, None)


def stated(loaded: LoadedModel, name: str) -> str:
    """A setting with its value."""
    return f"{name} {setting(loaded, name)}"

"""The editing methods by name; a method's module is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from clm_data.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clm_data.eval.editors.base import DeltaParams, Editor, EditorParams, Setup

METHODS: dict[str, str] = {
    "memit": "memit:Memit",
    "alphaedit": "alphaedit:AlphaEdit",
    "langedit": "langedit:LangEdit",
    "pmet": "pmet:Pmet",
    "rome": "rome:Rome",
    "ft": "ft:FineTuning",
    "ft-m": "ft:FtM",
    "locft-bf": "ft:LocFtBf",
    "lora": "lora:Lora",
    "ultraedit": "ultraedit:UltraEdit",
    "grace": "grace:Grace",
    "wise": "wise:Wise",
    "ice-oracle": "in_context:IceOracle",
    "ice-retrieved": "in_context:IceRetrieved",
    "ike": "in_context:Ike",
}
"""Method name to `module:class` in this package."""


def method_class(method: str) -> Any:
    """The class of a method; its `PARAMS` maps model names to hyperparameters.

    Raises:
        UnknownNameError: No method has this name.
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    module, _, name = METHODS[method].partition(":")
    return getattr(importlib.import_module(f"clm_data.eval.editors.{module}"), name)


def params_for(method: str, model: str) -> EditorParams:
    """The hyperparameters of a method for a model, such as `llama-3-8b`.

    Raises:
        UnknownNameError: The method is unknown, or has no hyperparameters for the model.
    """
    known: Mapping[str, EditorParams] = method_class(method).PARAMS
    if model not in known:
        raise UnknownNameError(f"model for {method}", model, known)
    return known[model]


def make_editor(method: str, params: str | EditorParams, setup: Setup) -> Editor[Any]:
    """Create an editor.

    Args:
        method: A key of `METHODS`.
        params: The method's hyperparameters, or the model name to look them up with.
        setup: Protocol, contexts and second moments.

    Raises:
        UnknownNameError: The method is unknown, or has no hyperparameters for the model.
    """
    chosen = params_for(method, params) if isinstance(params, str) else params
    editor: Editor[Any] = method_class(method)(chosen, setup)
    if getattr(chosen, "stabilizes", False):
        from clm_data.eval.editors.stabilizers import StabilizedEditor

        return StabilizedEditor(editor, cast("DeltaParams", chosen))
    return editor

"""The editing methods, by name. Nothing of a method is imported before it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clm_data.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clm_data.eval.editors.base import Editor, EditorParams, Setup

METHODS: dict[str, str] = {
    "memit": "memit:Memit",
    "alphaedit": "alphaedit:AlphaEdit",
    "pmet": "pmet:Pmet",
    "rome": "rome:Rome",
    "ft": "ft:FineTuning",
}
"""Method name to ``module:class`` in this package."""


def method_class(method: str) -> Any:
    """The class of a method; its ``PARAMS`` holds the hyperparameters by model.

    Raises:
        UnknownNameError: There is no such method.
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    module, _, name = METHODS[method].partition(":")
    return getattr(importlib.import_module(f"clm_data.eval.editors.{module}"), name)


def params_for(method: str, model: str) -> EditorParams:
    """The hyperparameters of a method for a model, by the model's name here (``llama-3-8b``).

    Raises:
        UnknownNameError: There is no such method, or no hyperparameters for the model.
    """
    known: Mapping[str, EditorParams] = method_class(method).PARAMS
    if model not in known:
        raise UnknownNameError(f"model for {method}", model, known)
    return known[model]


def make_editor(method: str, params: str | EditorParams, setup: Setup) -> Editor:
    """An editor: a method with its hyperparameters (a name or an object) and its surroundings.

    Raises:
        UnknownNameError: There is no such method, or no hyperparameters of such a name.
    """
    chosen = params_for(method, params) if isinstance(params, str) else params
    editor: Editor = method_class(method)(chosen, setup)
    return editor

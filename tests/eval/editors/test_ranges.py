"""Hyperparameters out of range: one line, however they are set."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from clm_data.errors import ConfigError
from clm_data.eval.editors import METHODS, method_class, params_for
from clm_data.eval.editors.values import ValueParams
from clm_data.eval.errors import EditError
from clm_data.eval.sweep.overrides import with_overrides

NAN, INFINITY = math.nan, math.inf
TRAINING: dict[str, tuple[Any, ...]] = {
    "epochs": (0, -1),
    "lr": (0.0, -1e-3, NAN, INFINITY, 1e30),
    "batch_size": (0, -1),
    "stop_at": (NAN,),
    "seed": (-1, 2**64),
    "rect": (0.0, 1.5, -1.0, NAN),
    "prune": (1.0, 0.5, NAN, INFINITY),
}
LIMITED = TRAINING | {"limit": (0.0, -1.0, NAN, INFINITY), "layer": (-1,)}
MULTILAYER: dict[str, tuple[Any, ...]] = {"layers": ((-1, 0),), "nas": (1, "yes")}
WRONG: dict[str, dict[str, tuple[Any, ...]]] = {
    "memit": {**MULTILAYER, "moment_weight": (-1.0, 0.0, NAN, INFINITY), "emmet": ("yes", 0)},
    "pmet": {**MULTILAYER, "moment_weight": (-1.0, 0.0, NAN)},
    "alphaedit": {**MULTILAYER, "ridge": (-1.0, 0.0, NAN), "threshold": (-1.0, NAN, INFINITY)},
    "langedit": dict.fromkeys(("zh_weight", "en_weight", "past_weight", "ridge"), (-1.0, NAN)),
    "rome": {"layer": (-1, True), "use_moments": ("no", 1)},
    "ft": LIMITED,
    "ft-m": LIMITED,
    "locft-bf": LIMITED,
    "lora": TRAINING
    | {
        "rank": (0, -4, True, 1.5),
        "dropout": (1.0, -0.1, 2.0, NAN),
        "alpha": (0.0, -1.0, NAN, INFINITY),
        "targets": ((),),
        "layers": ((), (-1,)),
        "append_eos": ("yes",),
    },
    "ultraedit": {
        "lr": (0.0, -1e-6, NAN, 1e30),
        "facts_per_step": (0, -1),
        "down": ((-1,),),
        "rect": (0.0,),
    },
    "grace": {"epsilon": (-1.0, NAN), "steps": (0, -1), "lr": (0.0, NAN, 1e30), "seed": (-1,)},
    "wise": {
        "act_ratio": (-0.1, NAN),
        "steps": (0, -1),
        "lr": (0.0, -1.0, NAN),
        "alpha": (-1.0, NAN, INFINITY),
        "beta": (-1.0, NAN),
        "gamma": (-1.0, NAN),
        "mask_ratio": (0.0, 1.1, NAN),
        "density": (0.0, 1.1, NAN),
        "limit": (0.0, -1.0, NAN),
        "weight_decay": (-1.0, NAN),
        "batch_size": (0, -1),
        "contexts": (0, -1),
        "unrelated": (0, -1),
        "save_freq": (0, -1),
        "merge_freq": (0, -1),
        "append_eos": ("yes",),
    },
    "ike": {"demonstrations": (-1, True), "false_open": (0.0, 1.0, 1.5, NAN)},
}
VALUES: dict[str, tuple[Any, ...]] = {
    "steps": (0, -3, 2.5),
    "lr": (0.0, -1.0, 1e30, NAN),
    "clamp": (0.0, -1.0, NAN, INFINITY),
    "kl_factor": (-1.0, NAN),
    "weight_decay": (-1.0, NAN, INFINITY),
    "nll_factor": (0.0, NAN),
    "stop_at": (NAN, INFINITY),
    "ease_off": ("yes", 1),
}
CASES = [
    (method, name, value)
    for method, wrong in WRONG.items()
    for name, values in wrong.items()
    for value in values
]


def _refusal(group: type, name: str, value: Any, error: Exception) -> bool:
    """Whether a message is one line that names what is wrong, the value and what it should be."""
    start = f"{group.__name__}: '{name}' is {value!r}: "
    message = str(error)
    return message.startswith(start) and len(message) > len(start) and "\n" not in message


@pytest.mark.parametrize(("method", "name", "value"), CASES)
def test_a_value_out_of_range_is_one_line_from_a_recipe_and_in_python(
    method: str, name: str, value: Any
) -> None:
    params = params_for(method, "tiny")
    with pytest.raises(ConfigError) as in_recipe:
        with_overrides(params, None, {name: value})
    assert _refusal(type(params), name, value, in_recipe.value)
    with pytest.raises(EditError) as in_python:
        replace(params, **{name: value})  # type: ignore[type-var]
    assert _refusal(type(params), name, value, in_python.value)


@pytest.mark.parametrize("method", ["memit", "pmet", "alphaedit", "langedit", "rome"])
@pytest.mark.parametrize("name", VALUES)
def test_so_is_one_of_the_target_values(method: str, name: str) -> None:
    params: Any = params_for(method, "tiny")
    for value in VALUES[name]:
        with pytest.raises(ConfigError) as in_recipe:
            with_overrides(params, None, {"values": {name: value}})
        assert _refusal(ValueParams, name, value, in_recipe.value)
        with pytest.raises(EditError) as in_python:
            replace(params.values, **{name: value})
        assert _refusal(ValueParams, name, value, in_python.value)


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("wise", "act_ratio", 0.0),
        ("wise", "act_ratio", INFINITY),
        ("lora", "dropout", 0.0),
        ("lora", "stop_at", 0),
        ("grace", "epsilon", 0),
        ("ft", "limit", None),
        ("ft", "seed", 2**64 - 1),
        ("ike", "demonstrations", 0),
        ("memit", "rect", 1.0),
    ],
)
def test_the_ends_of_a_range_that_belong_to_it_are_valid(
    method: str, name: str, value: Any
) -> None:
    params = params_for(method, "tiny")
    assert getattr(with_overrides(params, None, {name: value}), name) == value
    assert getattr(replace(params, **{name: value}), name) == value  # type: ignore[type-var]


def test_values_that_depend_on_each_other_change_together() -> None:
    params: Any = with_overrides(
        params_for("wise", "tiny"), None, {"save_freq": 3, "merge_freq": 6}
    )
    assert (params.save_freq, params.merge_freq) == (3, 6)
    for save_freq in (4, None):
        with pytest.raises(ConfigError, match=f"multiple of save_freq, which is {save_freq}, or"):
            with_overrides(params, None, {"save_freq": save_freq})
    weights = {"zh_weight": 0.0, "en_weight": 0.0}
    with pytest.raises(ConfigError, match="both 0; one must be above 0"):
        with_overrides(params_for("langedit", "tiny"), None, weights)


def _numbers_without_range(annotation: Any, *, ranged: bool = False) -> Iterator[type]:
    if annotation in (int, float):
        if not ranged:
            yield annotation
    elif get_origin(annotation) is Annotated:
        inner, *constraints = get_args(annotation)
        ranged = any(getattr(constraint, "metadata", ()) for constraint in constraints)
        yield from _numbers_without_range(inner, ranged=ranged and inner in (int, float))
    elif get_origin(annotation) in (tuple, Union, types.UnionType):
        for inner in get_args(annotation):
            yield from _numbers_without_range(inner)


@pytest.mark.parametrize("method", METHODS)
def test_every_number_among_the_hyperparameters_declares_its_range(method: str) -> None:
    (group,) = {type(params) for params in method_class(method).PARAMS.values()}
    hints = get_type_hints(group, include_extras=True)
    groups = [group, *(hint for hint in hints.values() if is_dataclass(hint))]
    for one in groups:
        hints = get_type_hints(one, include_extras=True)
        unbounded = [
            field.name for field in fields(one) if [*_numbers_without_range(hints[field.name])]
        ]
        assert not unbounded, f"{one.__name__}: use a type of clm_data/eval/editors/ranges.py"


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (int, [int]),
        (float | None, [float]),
        (tuple[int, ...], [int]),
        (Annotated[float, "no range"] | None, [float]),
        (bool, []),
    ],
)
def test_a_number_without_range_is_found(annotation: Any, found: list[type]) -> None:
    assert [*_numbers_without_range(annotation)] == found

"""Changing hyperparameters by name."""

from __future__ import annotations

from typing import Any

import pytest

from clm_data.errors import ConfigError
from clm_data.eval.editors import params_for
from clm_data.eval.sweep.overrides import params_json, with_overrides


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": 3}, "'values' is a group, not 3"),
        ({"values": {"steps": "many"}}, "'steps' is 'many'"),
        ({"layers": "all"}, "'layers' is 'all'"),
        ({"layer": 3}, "no 'layer'; it has emmet, layers"),
    ],
)
def test_an_invalid_change_is_an_error_that_names_the_hyperparameter(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        with_overrides(params_for("memit", "tiny"), None, changes)


@pytest.mark.parametrize("method", ["memit", "rome", "ft"])
def test_an_empty_list_of_layers_is_an_error(method: str) -> None:
    with pytest.raises(ConfigError, match="list of layers is empty"):
        with_overrides(params_for(method, "tiny"), (), {})


def test_changes_reach_nested_hyperparameters() -> None:
    params = params_for("memit", "tiny")
    changed = params_json(with_overrides(params, None, {"values": {"lr": "0.25"}}))
    original = params_json(params)
    assert changed["values"] == original["values"] | {"lr": 0.25}
    assert {**changed, "values": None} == {**original, "values": None}


def test_switches_are_part_of_the_hyperparameters_only_if_they_are_on() -> None:
    params = params_for("memit", "tiny")
    switches = {"rect": 0.4, "prune": 1.2, "nas": True, "emmet": True}
    assert not params_json(params).keys() & switches.keys()
    for name, value in switches.items():
        changed = params_json(with_overrides(params, None, {name: value}))
        assert changed == params_json(params) | {name: value}
        off = type(params).__dataclass_fields__[name].default
        assert params_json(with_overrides(params, None, {name: off})) == params_json(params)
    with pytest.raises(ConfigError, match="FineTuningParams has no 'nas'"):
        with_overrides(params_for("ft", "tiny"), None, {"nas": True})


def test_layers_replace_those_of_the_hyperparameters() -> None:
    memit = with_overrides(params_for("memit", "tiny"), (0, 1), {})
    rome = with_overrides(params_for("rome", "tiny"), (0, 2), {})
    assert memit.edited_layers == (0, 1)
    assert rome.edited_layers == (2,)

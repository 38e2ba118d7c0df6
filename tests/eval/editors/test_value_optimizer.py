"""The search for target values: when the host waits for the device, and that it changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import CONTEXTS, REQUESTS, small_model, small_params
from torch.utils._python_dispatch import TorchDispatchMode

from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.value_optimizer import _ValueOptimizer
from clm_data.eval.editors.values import Site, ValueParams
from clm_data.eval.protocols import NATIVE

NEVER = 1_000
"""More steps than a search has."""
STOP_AT = 5.85
"""A loss that some facts reach earlier than others, in a random model."""
ENDLESS = replace(small_params("memit").values, stop_at=-1.0)


def search(
    params: ValueParams, steps_per_check: int, sites: tuple[Site, ...] = ("layer",)
) -> list[tuple[Any, int]]:
    """Target values and steps of the facts."""
    model = small_model("llama")
    facts, _ = place_facts(model, REQUESTS, NATIVE, CONTEXTS)
    return _ValueOptimizer(model, facts, 2, params, sites).optimize(steps_per_check)


@contextmanager
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts what makes the host wait for a GPU: numbers and shapes that are read from tensors."""
    found: Counter[str] = Counter()

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = func._overloadpacket.__name__
            if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
                found[name] += 1
            return func(*args, **(kwargs or {}))

    def counting(name: str) -> Any:
        original = getattr(torch.Tensor, name)

        def method(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            found[name] += 1
            return original(tensor, *args, **kwargs)

        return method

    with monkeypatch.context() as patch, Reads():
        for name in ("tolist", "cpu", "numpy"):
            patch.setattr(torch.Tensor, name, counting(name))
        yield found


@pytest.mark.parametrize("sites", [("layer",), ("mlp", "attn")])
def test_steps_without_a_check_do_not_wait_for_the_device(
    monkeypatch: pytest.MonkeyPatch, sites: tuple[Site, ...]
) -> None:
    counts = []
    for steps, steps_per_check in ((3, NEVER), (9, NEVER), (9, 1)):
        with waits(monkeypatch) as found:
            search(replace(ENDLESS, steps=steps), steps_per_check, sites)
        counts.append(found)
    assert counts[0] == counts[1]
    assert counts[2]["tolist"] == counts[1]["tolist"] + 8


@pytest.mark.parametrize("method", ["memit", "pmet"])
@pytest.mark.parametrize("steps_per_check", [2, 5, NEVER])
def test_values_do_not_depend_on_when_the_host_checks(method: str, steps_per_check: int) -> None:
    """They differ by rounding only, as facts that run together do."""
    params = replace(small_params(method).values, stop_at=STOP_AT)
    sites: tuple[Site, ...] = ("layer",) if method == "memit" else ("mlp", "attn")
    each, some = search(params, 1, sites), search(params, steps_per_check, sites)
    steps = [count for _, count in each]
    assert steps == [count for _, count in some]
    assert len(set(steps)) > 1
    for (one, _), (other, _) in zip(each, some, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)

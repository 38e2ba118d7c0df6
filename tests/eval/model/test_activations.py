"""Tokens per batch by free memory."""

from __future__ import annotations

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import small_model

from clm_data.eval.memory import free_memory, used_memory
from clm_data.eval.model.activations import (
    DEFAULT_TOKENS,
    batch_tokens,
    choose_batch_tokens,
    kept_bytes,
    run_body,
    sample_states,
)


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (None, DEFAULT_TOKENS),
        (0, 256),
        (2 * 1300 * 1024, 1024),  # a token takes 1,000 bytes, and 300 of logits
        (2 * 1300 * 1023, 512),
        (10**12, 65_536),
    ],
)
def test_half_of_the_free_memory_holds_the_tokens(free: int | None, expected: int) -> None:
    assert batch_tokens(free, kept=1000, vocabulary=100) == expected


def test_on_a_cpu_the_number_is_fixed() -> None:
    said: list[str] = []
    assert choose_batch_tokens(small_model("llama"), said.append) == DEFAULT_TOKENS
    assert said == []


def test_kept_bytes_are_those_of_the_tensors_that_the_backward_pass_reads() -> None:
    model = small_model("llama")
    few, many = kept_bytes(model, 64), kept_bytes(model, 256)
    assert many == pytest.approx(few, rel=0.2)
    width = model.model.config.hidden_size
    assert few > model.depth * 4 * 4 * width  # norms, attention and MLP keep their inputs
    assert run_body(model, sample_states(model, 64)).shape == (4, 16, width)


def test_memory_is_unknown_or_plausible() -> None:
    assert free_memory("meta") is None
    used, free = used_memory(), free_memory("cpu")
    assert used is None or used > 50e6  # torch is loaded
    assert free is None or free > 0

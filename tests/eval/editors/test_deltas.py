"""Weight changes: adding, applying, saving and loading them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import small_model

from clm_data.errors import InputFileError
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.editors.edits import applied
from clm_data.eval.errors import EditError, LayoutError
from clm_data.eval.model.loaded import LoadedModel


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _low_rank(rank: int, seed: int = 0) -> WeightDelta:
    return WeightDelta(_random(32, rank, seed=seed), _random(rank, 48, seed=seed + 1))


def _deltas(model: LoadedModel, *deltas: WeightDelta) -> Deltas:
    paths = [model.layout.weight(layer) for layer in range(len(deltas))]
    return Deltas("memit", model.name, dict(zip(paths, deltas, strict=True)))


def test_the_sum_of_low_rank_deltas_is_low_rank() -> None:
    one, two = _low_rank(2), _low_rank(3, seed=7)
    total = one + two
    assert total.left.shape == (32, 5)
    assert total.right is not None
    assert total.right.shape == (5, 48)
    assert torch.allclose(total.dense(), one.dense() + two.dense(), atol=1e-5)


def test_the_sum_with_a_dense_delta_is_dense() -> None:
    one, two = _low_rank(2), WeightDelta(_random(32, 48))
    for total in (one + two, two + one):
        assert total.right is None
        assert torch.equal(total.dense(), one.dense() + two.dense())


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_applying_a_delta_changes_the_output_of_the_projection(architecture: str) -> None:
    model = small_model(architecture)
    width = 48 if architecture == "llama" else 128
    delta = WeightDelta(_random(32, 2), _random(2, width))
    module, inputs = model.mlp_out(0), _random(1, width, seed=3)
    with torch.no_grad():
        before = module(inputs)
        with applied(model, _deltas(model, delta)):
            after = module(inputs)
    assert torch.allclose(after - before, inputs @ delta.dense().T, atol=1e-4)


def test_weights_are_restored_bit_for_bit_if_the_block_raises() -> None:
    model = small_model("gpt2", dtype="bfloat16")
    weight = model.mlp_out(0).weight
    original = weight.detach().clone()
    deltas = _deltas(model, WeightDelta(_random(32, 1), _random(1, 128)))

    def fail_while_applied() -> None:
        with applied(model, deltas):
            assert not torch.equal(weight, original)
            raise KeyError

    with pytest.raises(KeyError):
        fail_while_applied()
    assert torch.equal(weight, original)


def test_deltas_of_another_model_do_not_apply() -> None:
    model = small_model("llama")
    with (
        pytest.raises(EditError, match=r"shape \(32, 7\) does not fit a weight of shape \(32,"),
        applied(model, _deltas(model, WeightDelta(_random(32, 7)))),
    ):
        pass
    unknown = Deltas("memit", model.name, {"no.such.weight": _low_rank(1)})
    with pytest.raises(LayoutError, match="no"), applied(model, unknown):
        pass
    with pytest.raises(EditError, match="cannot be added"):
        unknown.plus(replace(unknown, model="another"))


def test_adding_edits_concatenates_facts_and_keys() -> None:
    model = small_model("llama")
    path = model.layout.weight(0)
    one = replace(_deltas(model, _low_rank(1)), edited=("a",), keys={path: _random(48, 1)})
    two = replace(_deltas(model, _low_rank(2)), edited=("b", "c"), refused=(("d", "no subject"),))
    both = one.plus(replace(two, keys={path: _random(48, 2)}))
    assert both.edited == ("a", "b", "c")
    assert both.refused == (("d", "no subject"),)
    assert both.keys[path].shape == (48, 3)
    assert both.weights[path].left.shape == (32, 3)


def test_saved_deltas_are_loaded_bit_for_bit(tmp_path: Path) -> None:
    model = small_model("llama")
    path, file = model.layout.weight(0), tmp_path / "deltas.safetensors"
    saved = replace(
        _deltas(model, _low_rank(2), WeightDelta(_random(32, 48))),
        edited=("a", "b"),
        refused=(("c", "主语缺失"),),
        keys={path: _random(48, 2)},
    )
    saved.save(file)
    loaded = Deltas.load(file)
    assert (loaded.method, loaded.model) == (saved.method, saved.model)
    assert (loaded.edited, loaded.refused) == (saved.edited, saved.refused)
    assert loaded.weights.keys() == saved.weights.keys()
    for name, delta in saved.weights.items():
        found = loaded.weights[name]
        assert torch.equal(found.left, delta.left)
        assert (found.right is None) == (delta.right is None)
        assert torch.equal(found.dense(), delta.dense())
    assert torch.equal(loaded.keys[path], saved.keys[path])


def test_a_file_without_deltas_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"no tensors")
    with pytest.raises(InputFileError, match=r"no saved deltas: it is damaged.*delete it"):
        Deltas.load(tmp_path / "other")


def test_equal_deltas_are_equal_files(tmp_path: Path) -> None:
    """The library orders metadata differently in each process, so its file is not used as is."""
    model = small_model("llama")
    saved = replace(_deltas(model, _low_rank(2), _low_rank(1)), edited=("a",), origin="0" * 64)
    saved.save(tmp_path / "one")
    again = replace(saved, weights=dict(reversed(saved.weights.items())))
    again.save(tmp_path / "two")
    data = (tmp_path / "one").read_bytes()
    assert data == (tmp_path / "two").read_bytes()
    size = int.from_bytes(data[:8], "little")
    assert size % 8 == 0
    header = json.loads(data[8 : 8 + size])
    assert list(header) == sorted(header)
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])
    assert Deltas.load(tmp_path / "one").origin == "0" * 64

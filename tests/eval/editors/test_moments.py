"""Second moments: compared with sums over single sentences, and their cache."""

from __future__ import annotations

from pathlib import Path

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import ARCHITECTURES, TEXTS, small_model

from clm_data.eval.editors.moments import second_moments
from clm_data.eval.errors import EditError, LayoutError
from clm_data.eval.model.hooks import captured
from clm_data.eval.model.loaded import LoadedModel


def _moment_of_single_sentences(
    model: LoadedModel, texts: list[str], layer: int, max_length: int
) -> torch.Tensor:
    total, count = torch.zeros(()), 0
    for text in texts:
        ids = model.tokenizer(text)["input_ids"][:max_length]
        with torch.no_grad(), captured(model.mlp_out(layer)) as record:
            model.model(input_ids=torch.tensor([ids]))
        keys = record.input[0].double()
        total, count = total + keys.T @ keys, count + len(ids)
    return total / count


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tokens_per_batch", [4096, 20])
def test_batched_moments_equal_sums_over_single_sentences(
    architecture: str, tokens_per_batch: int
) -> None:
    model = small_model(architecture)
    found = second_moments(
        model, {"all": TEXTS}, [3, 0], max_length=12, tokens_per_batch=tokens_per_batch
    )
    assert sorted(found.by_layer) == [0, 3]
    for layer, moment in found.by_layer.items():
        assert moment.dtype == torch.float32
        expected = _moment_of_single_sentences(model, TEXTS, layer, 12)
        assert torch.allclose(moment.double(), expected, rtol=1e-4, atol=1e-6)


def test_groups_have_equal_weight_whatever_their_size() -> None:
    model = small_model("llama")
    found = second_moments(model, {"zh": TEXTS[:3], "en": TEXTS[3:4]}, [1]).by_layer[1]
    zh, en = (
        _moment_of_single_sentences(model, texts, 1, 256) for texts in (TEXTS[:3], TEXTS[3:4])
    )
    assert torch.allclose(found.double(), (zh + en) / 2, rtol=1e-4, atol=1e-6)


def test_the_cache_key_covers_weights_texts_layers_and_length(tmp_path: Path) -> None:
    model = small_model("llama")
    first = second_moments(model, {"all": TEXTS}, [1, 2], cache=tmp_path)
    (file,) = tmp_path.iterdir()
    modified = file.stat().st_mtime_ns
    again = second_moments(model, {"all": TEXTS}, [1, 2], cache=tmp_path, tokens_per_batch=50)
    assert file.stat().st_mtime_ns == modified
    assert again.tokens == first.tokens
    assert again.key == first.key
    assert all(torch.equal(again.by_layer[i], first.by_layer[i]) for i in (1, 2))
    others = [
        second_moments(small_model("llama", seed=1), {"all": TEXTS}, [1, 2], cache=tmp_path),
        second_moments(model, {"all": TEXTS[:-1]}, [1, 2], cache=tmp_path),
        second_moments(model, {"some": TEXTS}, [1, 2], cache=tmp_path, max_length=5),
        second_moments(model, {"all": TEXTS}, [1], cache=tmp_path),
    ]
    assert len({first.key, *(one.key for one in others)}) == 5
    with torch.no_grad():
        model.mlp_out(4).weight[0, 0] += 1e-3
    assert second_moments(model, {"all": TEXTS}, [1, 2], cache=tmp_path).key != first.key


def test_missing_text_and_missing_layers_are_errors() -> None:
    model = small_model("llama")
    with pytest.raises(EditError, match="need text"):
        second_moments(model, {"zh": [], "en": TEXTS}, [1])
    with pytest.raises(LayoutError, match="has layers 0 to 4, not 5"):
        second_moments(model, {"all": TEXTS}, [5])

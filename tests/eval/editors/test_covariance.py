"""Second moments: against plain sums over unpadded sentences, and their cache."""

from __future__ import annotations

from pathlib import Path

import pytest

# ruff: noqa: E402 (what follows needs torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import ARCHITECTURES, TEXTS, small_model

from clm_data.eval.editors.covariance import second_moments
from clm_data.eval.errors import EditError, LayoutError
from clm_data.eval.model.hooks import captured
from clm_data.eval.model.loaded import LoadedModel


def _plain(model: LoadedModel, texts: list[str], layer: int, length: int) -> torch.Tensor:
    total, count = torch.zeros(()), 0
    for text in texts:
        ids = model.tokenizer(text)["input_ids"][:length]
        with torch.no_grad(), captured(model.mlp_out(layer)) as seen:
            model.model(input_ids=torch.tensor([ids]))
        rows = seen.input[0].double()
        total, count = total + rows.T @ rows, count + len(ids)
    return total / count


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", [4096, 20])
def test_moments_of_all_layers_are_those_of_single_sentences(
    architecture: str, budget: int
) -> None:
    model = small_model(architecture)
    found = second_moments(model, {"all": TEXTS}, [3, 0], max_length=12, tokens_per_batch=budget)
    assert sorted(found.by_layer) == [0, 3]
    for layer, moment in found.by_layer.items():
        assert moment.dtype == torch.float32
        wanted = _plain(model, TEXTS, layer, 12)
        assert torch.allclose(moment.double(), wanted, rtol=1e-4, atol=1e-6)


def test_languages_weigh_the_same_however_much_text_each_has() -> None:
    model = small_model("llama")
    found = second_moments(model, {"zh": TEXTS[:3], "en": TEXTS[3:4]}, [1]).by_layer[1]
    wanted = (_plain(model, TEXTS[:3], 1, 256) + _plain(model, TEXTS[3:4], 1, 256)) / 2
    assert torch.allclose(found.double(), wanted, rtol=1e-4, atol=1e-6)


def test_the_cache_is_read_only_for_the_same_everything(tmp_path: Path) -> None:
    model = small_model("llama")
    first = second_moments(model, {"all": TEXTS}, [1, 2], cache=tmp_path)
    (file,) = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    again = second_moments(model, {"all": TEXTS}, [1, 2], cache=tmp_path, tokens_per_batch=50)
    assert file.stat().st_mtime_ns == stamp
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


def test_no_text_and_no_such_layer_are_one_line() -> None:
    model = small_model("llama")
    with pytest.raises(EditError, match="need text"):
        second_moments(model, {"zh": [], "en": TEXTS}, [1])
    with pytest.raises(LayoutError, match="has layers 0 to 4, not 5"):
        second_moments(model, {"all": TEXTS}, [5])

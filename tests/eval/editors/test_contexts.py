"""Contexts: sampled from the model, given, and refused."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import small_model

from clm_data.eval.editors.contexts import Contexts, contexts_from, sample_contexts
from clm_data.eval.errors import EditError
from clm_data.eval.protocols import EASYEDIT, NATIVE


def test_sampled_contexts_depend_on_model_and_seed_only() -> None:
    model = small_model("llama", seed=1)
    contexts = sample_contexts(model, NATIVE)
    assert contexts == sample_contexts(model, NATIVE)
    assert contexts != sample_contexts(model, NATIVE, seed=7)
    assert contexts != sample_contexts(small_model("llama", seed=2), NATIVE)


def test_sampled_contexts_are_sentences_in_the_languages_that_the_protocol_requires() -> None:
    model = small_model("llama", seed=1)
    templates = sample_contexts(model, NATIVE).templates
    assert set(templates) == {"zh", "en"}
    assert set(sample_contexts(model, EASYEDIT).templates) == {"en"}
    for lang, begin, end in (("zh", "这", "。{}"), ("en", "The", ". {}")):
        bare, first, *_ = templates[lang]
        assert bare == "{}"
        assert first.startswith(begin)
        assert all(text.endswith(end) and text.count("{") == 1 for text in templates[lang][1:])


def test_contexts_can_be_read_back_from_json() -> None:
    contexts = sample_contexts(small_model("llama"), NATIVE)
    assert contexts_from(contexts.as_json()["templates"]).templates == contexts.templates


def test_unusable_contexts_are_refused() -> None:
    with pytest.raises(EditError, match="same number of contexts"):
        contexts_from({"zh": ("{}",), "en": ("{}", "So. {}")})
    with pytest.raises(EditError, match="must start with the bare"):
        contexts_from({"zh": ("好。{}",)})
    with pytest.raises(EditError, match="no contexts in 'zh'"):
        Contexts({"en": ("{}",)}).for_fact(NATIVE, "zh")

"""What a solve lets through, and default hyperparameters on a model that learned from real text."""

from __future__ import annotations

from dataclasses import replace

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.paths import shared_path
from helpers.small_models import BARE_CONTEXTS
from helpers.tiny_dataset import RECORDS

from clm_data.eval.dataset import load_dataset
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import sample_contexts
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.in_context import IceRetrieved, Ike
from clm_data.eval.editors.memit import Memit
from clm_data.eval.editors.moments import second_moments
from clm_data.eval.editors.multilayer import share_let_through
from clm_data.eval.editors.solve import solve_least_squares
from clm_data.eval.editors.value_optimizer import optimize_target_values
from clm_data.eval.metrics import token_accuracy
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import NATIVE
from clm_data.eval.results import LITTLE
from clm_data.eval.sweep.answers import Question, predict_answers
from clm_data.eval.sweep.cell import requests_for
from clm_data.eval.sweep.corpus import corpus_texts
from clm_data.eval.sweep.measure import Evaluator
from clm_data.eval.sweep.training_rows import training_rows
from clm_data.records import LANGUAGES, Language


def test_the_share_that_a_solve_lets_through_is_that_of_its_closed_form() -> None:
    keys = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    identity = torch.eye(3, dtype=torch.float64)
    one = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    for weight in (1e-9, 1.0, 4.0):  # k^T k / (weight + k^T k) of each fact arrives
        right = solve_least_squares(keys, identity, weight).T
        assert share_let_through(one, right, keys) == pytest.approx(4 / (weight + 4))
        assert share_let_through(one.flip(0), right, keys) == pytest.approx(1 / (weight + 1))


@pytest.mark.slow
def test_default_memit_edits_two_chinese_facts_and_the_weight_of_large_models_is_noticed(
    smollm2: LoadedModel,
) -> None:
    """With the second moments' weight for 7B models, most of the residual stays out."""
    params, records = Memit.PARAMS["smollm2-135m"], RECORDS[:2]
    texts = corpus_texts("bank", NATIVE, records, max_texts=100_000)
    contexts = sample_contexts(smollm2, NATIVE, languages=LANGUAGES, seed=42)
    setup = Setup(NATIVE, contexts, second_moments(smollm2, texts, params.layers))
    requests = requests_for(records, "zh")
    facts, refused = place_facts(smollm2, requests, NATIVE, contexts)
    assert not refused
    targets = optimize_target_values(smollm2, facts, params.layers[-1], params.values).targets
    evaluator = Evaluator(smollm2, records, NATIVE, generate=False)
    reliability = {
        "before": [answers.measures["zh"]["reliability"] for answers in evaluator.baseline]
    }
    arrived = {}
    for name, weight in (("default", params.moment_weight), ("large models", 15_000.0)):
        editor = Memit(replace(params, moment_weight=weight), setup)
        deltas = editor.edit_to_targets(smollm2, requests, targets)
        arrived[name] = deltas.arrived
        with applied(smollm2, deltas) as edited:
            after = evaluator.after(range(2), edited)
        reliability[name] = [answers.measures["zh"]["reliability"] for answers in after]
    print(arrived, reliability)
    assert arrived["large models"] < LITTLE < 0.7 < arrived["default"]
    assert sum(reliability["default"]) > sum(reliability["large models"])
    assert sum(reliability["default"]) > 1.5


@pytest.mark.slow
@pytest.mark.parametrize("method", [IceRetrieved, Ike])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_in_context_methods_are_followed_in_the_language_of_the_edit(
    smollm2: LoadedModel, method: type[IceRetrieved], lang: Language
) -> None:
    file = shared_path("data", "clm_bench_sample", "merged_alternate_fields_no_english.json")
    records = load_dataset(file).records
    some = records[:10]
    editor = method(method.PARAMS["smollm2-135m"], Setup(NATIVE, BARE_CONTEXTS))
    edit = editor.fit(smollm2, training_rows(records, some)).edit(smollm2, requests_for(some, lang))
    facts = [record.fact(lang) for record in some]
    questions = [Question(lang, fact.prompt, fact.target_new) for fact in facts]
    with applied(smollm2, edit) as edited:
        answers = predict_answers(edited, questions, NATIVE)
        probes = [record.probe(lang).loc for record in some]
        assert [edited.rewrite(probe, lang) for probe in probes] == probes
    found = [token_accuracy(one.predicted, one.labels) for one in answers if one is not None]
    print(method.name, lang, found)
    assert len(found) == len(facts)
    assert sum(found) / len(found) >= 0.9

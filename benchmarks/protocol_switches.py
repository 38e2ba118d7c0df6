"""What each decision of EasyEdit changes in an edit: the protocols' settings, one at a time.

    python benchmarks/protocol_switches.py --dataset DIR [--methods memit,ft] [--facts 100]
        [--model tiny] [--tokenizer DIR]

Each row is an edit with the protocol `native` in which one setting is that of `easyedit`. All are
measured alike, as `native` does, in the language of the edit. Settings that leave the edit as it is
are not listed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace

from clm_data.eval.dataset import load_dataset
from clm_data.eval.editors import make_editor, params_for
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import sample_contexts
from clm_data.eval.editors.edits import Edit, applied
from clm_data.eval.editors.moments import second_moments
from clm_data.eval.environment import default_cache_folder
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import load_model
from clm_data.eval.model.tiny import tiny_model
from clm_data.eval.protocols import EASYEDIT, NATIVE, EditProtocol
from clm_data.eval.sweep.cell import requests_for
from clm_data.eval.sweep.corpus import corpus_texts
from clm_data.eval.sweep.measure import Evaluator
from clm_data.records import LANGUAGES, Language, Record

MEASURES = ("reliability", "generality", "locality")


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--methods", default="memit,ft")
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--tokenizer")
    options = parser.parse_args()
    records = load_dataset(options.dataset).first(options.facts).records
    tiny = options.model == "tiny"
    name = str(tiny_model(records, default_cache_folder())) if tiny else options.model
    model = load_model(name, tokenizer=options.tokenizer, device="cpu")
    evaluator = Evaluator(model, records, NATIVE, generate=False)
    print(f"| method | setting of easyedit | {' | '.join(LANGUAGES)} |")
    print("|---" * (2 + len(LANGUAGES)) + "|")
    for method in options.methods.split(","):
        params = "tiny" if tiny else "smollm2-135m"
        unchanged: Mapping[Language, Edit] = {}
        for setting, protocol in switched():
            edits = {
                lang: edit(model, records, lang, method, params, protocol) for lang in LANGUAGES
            }
            cells = [
                "as native"
                if lang in unchanged and same(edits[lang], unchanged[lang])
                else measured(evaluator, edits[lang], lang)
                for lang in LANGUAGES
            ]
            unchanged = unchanged or edits
            if set(cells) != {"as native"}:
                print(f"| {method} | {setting} | {' | '.join(cells)} |", flush=True)


def switched() -> Iterator[tuple[str, EditProtocol]]:
    """No setting of `easyedit`, each one alone, and all."""
    yield "none", NATIVE
    for one in fields(EditProtocol):
        value = getattr(EASYEDIT, one.name)
        if one.name != "name" and value != getattr(NATIVE, one.name):
            yield f"`{one.name}`", replace(NATIVE, **{one.name: value})
    yield "all", EASYEDIT


def edit(
    model: LoadedModel,
    records: Sequence[Record],
    lang: Language,
    method: str,
    params: str,
    protocol: EditProtocol,
) -> Edit:
    """The facts of one language, edited at once."""
    chosen, moments = params_for(method, params), None
    if chosen.moment_layers:
        tiny = params == "tiny"
        texts = corpus_texts("auto", protocol, records, tiny=tiny, max_texts=10_000)
        moments = second_moments(model, texts, chosen.moment_layers, cache=default_cache_folder())
    setup = Setup(protocol, sample_contexts(model, protocol, languages=LANGUAGES), moments)
    found: Edit = make_editor(method, chosen, setup).edit(model, requests_for(records, lang))
    return found


def same(first: Edit, second: Edit) -> bool:
    """Whether two edits change the same weights by the same numbers."""
    one, other = getattr(first, "weights", {}), getattr(second, "weights", {})
    return first.edited == second.edited and all(
        bool((one[path].dense() == other[path].dense()).all()) for path in one
    )


def measured(evaluator: Evaluator, found: Edit, lang: Language) -> str:
    """Reliability, generality and locality in percent."""
    evaluator.baseline  # noqa: B018 (measured before the edit is applied)
    with applied(evaluator.model, found) as edited:
        answers = evaluator.after(range(len(evaluator.records)), edited)
    means = []
    for name in MEASURES:
        values = [v for answer in answers if (v := answer.measures[lang][name]) is not None]
        means.append(f"{100 * sum(values) / len(values):.1f}")
    return " / ".join(means)


if __name__ == "__main__":
    main()

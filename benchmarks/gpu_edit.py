"""A MEMIT edit of 1,000 facts in a model of 7 to 8 billion parameters on one GPU.

    python benchmarks/gpu_edit.py [--model DIR] [--facts 1000] [--dtype bfloat16]

Prints the seconds of each phase, the peak memory, and the rate of floating-point operations next to
that of a plain matrix product of the same dtype on the same card in the same run. Operations are
counted while the edit runs once more.

Without `--model`, the weights are random, in the sizes of `--sizes`, and the tokenizer is trained
on the facts, so that nothing has to be downloaded. Time and memory do not depend on the values of
the weights, except that no fact is finished before the last step of the search for target values,
and that names are fewer tokens than in a real tokenizer. `--layers` and `--width` make a smaller
model.

The facts are those of the bundled bank in both languages. If more are asked for, they are used
again with a number after the subject's name.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import transformers
from measuring import FlopCounter, bank_texts, edit, product_rate, timed

from clm_data import bank
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import sample_contexts
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.known_models import KNOWN_MODELS, params_for_config
from clm_data.eval.editors.memit import Memit, MemitParams
from clm_data.eval.editors.moments import Moments, second_moments
from clm_data.eval.model.activations import choose_batch_tokens
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import default_device, load_model, prepare
from clm_data.eval.model.tiny import train_tokenizer
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import NATIVE
from clm_data.records import LANGUAGES

HEADS: dict[str, dict[str, Any]] = {
    "llama-3-8b": {"num_attention_heads": 32, "num_key_value_heads": 8},
    "qwen2.5-7b": {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
}
"""What the sizes in `KNOWN_MODELS` lack."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder or Hub id; default: random weights")
    parser.add_argument("--sizes", choices=HEADS, default="llama-3-8b")
    parser.add_argument("--layers", type=int, help="number of layers of a random model")
    parser.add_argument("--width", type=int, help="hidden size of a random model")
    parser.add_argument("--facts", type=int, default=1000)
    parser.add_argument("--steps", type=int, help="steps of the search for target values")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", help="default: the first GPU, or the CPU")
    options = parser.parse_args()
    device = options.device or default_device()
    print(f"{options.facts} facts, {options.dtype}, {name_of(device)}")
    requests = bank_requests(options.facts)
    model, _, _ = announced("loading", lambda: opened(options, device), device)
    params = params_of(model, options)
    tokens = choose_batch_tokens(model, print)
    contexts = sample_contexts(model, NATIVE)
    texts = {"en": bank_texts()}
    found, _, _ = announced(
        "second moments",
        lambda: second_moments(model, texts, params.layers, tokens_per_batch=tokens),
        device,
    )
    measure(model, requests, Memit(params, Setup(NATIVE, contexts, found, tokens)), device)


def measure(
    model: LoadedModel, requests: Sequence[EditRequest], editor: Memit, device: str
) -> None:
    """Edit, and print phases, memory and rates."""
    facts, refused = place_facts(model, requests, NATIVE, editor.setup.contexts)
    if refused:
        print(f"left out: {len(refused)} facts, such as {refused[0][1]}")
    (values, _, seconds), wall, cpu = timed(lambda: edit(model, requests, facts, editor), device)
    phases = ", ".join(f"{phase} {part:.1f} s" for phase, part in seconds.items())
    print(f"edit: {wall:.1f} s wall, {cpu:.1f} s CPU; {phases}")
    print(f"  {len(facts)} facts, {sum(values.steps)} updates")
    print(f"  peak memory {peak_memory(device) / 1e9:.2f} GB")
    on_gpu = device.startswith("cuda")
    best = product_rate(device, model.model.dtype, size=8192 if on_gpu else 512)
    # Moments that are not factorized yet, so that this is part of the edit again.
    moments = Moments(editor.setup.require_moments("memit").by_layer)
    again = Memit(editor.params, replace(editor.setup, moments=moments))
    with FlopCounter() as counter:
        edit(model, requests, facts, again)
    rate = counter.total / (wall if on_gpu else cpu)
    print(
        f"  {counter.total / 1e9:.0f} GFLOP at {rate / 1e9:.1f} GFLOP/s, {100 * rate / best:.0f} % "
        f"of a matrix product in {str(model.model.dtype).removeprefix('torch.')} "
        f"({best / 1e9:.1f} GFLOP/s)"
    )


def announced(what: str, work: Any, device: str) -> Any:
    """`timed`, with a line of output."""
    found = timed(work, device)
    print(f"{what}: {found[1]:.1f} s", flush=True)
    return found


def opened(options: argparse.Namespace, device: str) -> LoadedModel:
    """The given model, or one with random weights."""
    if options.model:
        return load_model(options.model, dtype=options.dtype, device=device)
    tokenizer = train_tokenizer(bank_texts() + bank_prompts(), 12_000)
    sizes = {**KNOWN_MODELS[options.sizes], **HEADS[options.sizes]}
    kind = sizes.pop("model_type")
    if options.layers:
        sizes["num_hidden_layers"] = options.layers
    if options.width:
        sizes["intermediate_size"] = options.width * 3
        sizes["hidden_size"] = options.width
        sizes["vocab_size"] = len(tokenizer)
        sizes["num_attention_heads"] = sizes["num_key_value_heads"] = 4
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config = transformers.AutoConfig.for_model(kind, **sizes, **ends)
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, options.dtype)
        )
    return prepare(f"random {options.sizes}", model, tokenizer)


def params_of(model: LoadedModel, options: argparse.Namespace) -> MemitParams:
    """MEMIT's hyperparameters for the model; in a smaller one, the lowest two layers are edited."""
    if options.model:
        config = model.model.config.to_dict()
        params = Memit.PARAMS[params_for_config(options.model, config)]
    else:
        params = Memit.PARAMS[options.sizes]
    if params.layers[-1] >= model.depth:
        params = params.with_layers((0, 1))
    if options.steps:
        params = replace(params, values=replace(params.values, steps=options.steps))
    return params


def bank_prompts() -> list[str]:
    """The Chinese prompts of the bank, for a tokenizer."""
    entries = [entry for name in bank.domain_ids() for entry in bank.load_domain(name)]
    return [text for entry in entries for text in (entry.zh.prompt, entry.zh.target_new)]


def bank_requests(count: int) -> list[EditRequest]:
    """The bank's facts in both languages; again with numbered subjects if there are fewer."""
    entries = [entry for name in bank.domain_ids() for entry in bank.load_domain(name)]
    facts = [(lang, getattr(entry, lang)) for lang in LANGUAGES for entry in entries]
    if count > len(facts):
        print(f"the bank has {len(facts)} facts: {count - len(facts)} are used again, numbered")
    requests = []
    for number in range(count):
        lang, fact = facts[number % len(facts)]
        again = number // len(facts)
        subject = f"{fact.subject} {again + 1}" if again else fact.subject
        prompt = fact.prompt.replace(fact.subject, subject, 1)
        requests.append(EditRequest(str(number), lang, prompt, subject, fact.target_new))
    return requests


def name_of(device: str) -> str:
    """The card, or the CPU with its threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device} with {torch.get_num_threads()} threads"


def peak_memory(device: str) -> int:
    """Bytes: allocated on the GPU, or resident on the CPU."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()

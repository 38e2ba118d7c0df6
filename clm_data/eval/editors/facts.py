"""Facts as tokens: placing prompts, answers and KL prompts after their contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clm_data.eval.editors.contexts import Contexts
from clm_data.eval.errors import EditError, PlacementError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest, Placement, place, place_prompt
from clm_data.eval.protocols import EditProtocol
from clm_data.languages import LANGUAGE_INFO


@dataclass(frozen=True)
class PlacedFact:
    """A fact with its tokenized sentences.

    Attributes:
        request: The fact.
        sentences: Prompt and answer after each context, the bare one first.
        kl_prompt: A prompt that asks what the subject is (`{} is a`); an edit should not change
            what the model predicts after the subject in it.
        prompts: The prompt alone after each context, the bare one first.
    """

    request: EditRequest
    sentences: tuple[Placement, ...]
    kl_prompt: Placement
    prompts: tuple[Placement, ...]


def place_facts(
    loaded: LoadedModel,
    requests: Sequence[EditRequest],
    protocol: EditProtocol,
    contexts: Contexts,
    *,
    joiner: str | None = None,
) -> tuple[list[PlacedFact], tuple[tuple[str, str], ...]]:
    """Tokenize facts.

    Args:
        loaded: The model, for its tokenizer.
        requests: The facts.
        protocol: How positions are found, and in which language contexts and KL prompt are.
        contexts: Texts put before the prompts.
        joiner: Text between prompt and answer; None for the protocol's.

    Returns:
        The facts that could be placed, and (id, reason) of the others.

    Raises:
        EditError: No fact can be placed.
    """
    placed: list[PlacedFact] = []
    refused: list[tuple[str, str]] = []
    for request in requests:
        try:
            placed.append(_place_fact(loaded, request, protocol, contexts, joiner))
        except PlacementError as error:
            refused.append((request.id, str(error)))
    if not placed:
        reason = refused[0][1] if refused else "the list of facts is empty"
        raise EditError(f"no fact can be edited: {reason}")
    return placed, tuple(refused)


def _place_fact(
    loaded: LoadedModel,
    request: EditRequest,
    protocol: EditProtocol,
    contexts: Contexts,
    joiner: str | None,
) -> PlacedFact:
    tokenizer = loaded.tokenizer
    templates = contexts.for_fact(protocol, request.lang)
    info = LANGUAGE_INFO[protocol.kl_lang(request.lang)]
    kl_text = info.description_prompt.replace("{}", request.subject)
    kl_request = replace(request, prompt=kl_text, subject_start=info.description_prompt.index("{}"))
    sentences = tuple(place(tokenizer, request, protocol, t, joiner=joiner) for t in templates)
    prompts = tuple(place_prompt(tokenizer, request, protocol, t) for t in templates)
    kl_prompt = place_prompt(tokenizer, kl_request, protocol)
    return PlacedFact(request, sentences, kl_prompt, prompts)

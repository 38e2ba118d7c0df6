"""Facts as tokens: placing prompts, answers and contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clm_data.eval.editors.contexts import Contexts
from clm_data.eval.errors import EditError, PlacementError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest, Placement, place, place_prompt
from clm_data.eval.protocols import EditProtocol
from clm_data.languages import LANGUAGE_INFO


@dataclass(frozen=True)
class PlacedFact:
    """A fact with its sentences as tokens.

    Attributes:
        request: The fact.
        rows: Prompt and answer behind each context, the bare one first.
        kl: The KL prompt with the subject.
        prompts: The prompt alone behind each context, the bare one first.
    """

    request: EditRequest
    rows: tuple[Placement, ...]
    kl: Placement
    prompts: tuple[Placement, ...]


def place_facts(
    loaded: LoadedModel,
    requests: Sequence[EditRequest],
    protocol: EditProtocol,
    contexts: Contexts,
    *,
    joiner: str | None = None,
) -> tuple[list[PlacedFact], tuple[tuple[str, str], ...]]:
    """Place facts; those that cannot be placed come second, as (id, reason).

    Args:
        loaded: The model, for its tokenizer.
        requests: The facts.
        protocol: How prompts, answers and the KL prompt become tokens.
        contexts: Texts put before the prompts.
        joiner: Between prompt and answer, in place of the protocol's.

    Raises:
        EditError: None can be placed.
    """
    kept: list[PlacedFact] = []
    refused: list[tuple[str, str]] = []
    words = loaded.tokenizer
    for request in requests:
        templates = contexts.for_fact(protocol, request.lang)
        info = LANGUAGE_INFO[protocol.kl_lang(request.lang)]
        prompt = info.description_prompt.replace("{}", request.subject)
        about = EditRequest(request.id, request.lang, prompt, request.subject, request.target)
        try:
            rows = tuple(place(words, request, protocol, t, joiner=joiner) for t in templates)
            prompts = tuple(place_prompt(words, request, protocol, t) for t in templates)
            kl = place_prompt(words, about, protocol)
            kept.append(PlacedFact(request, rows, kl, prompts))
        except PlacementError as error:
            refused.append((request.id, str(error)))
    if not kept:
        why = refused[0][1] if refused else "there are none"
        raise EditError(f"no fact can be edited: {why}")
    return kept, tuple(refused)

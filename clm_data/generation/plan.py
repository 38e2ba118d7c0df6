"""Plans the next dialogues of a domain: a pure function of what the store has."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clm_data.config import Settings
from clm_data.domain import Domain
from clm_data.generation.subjects import FIRST_LIST_CHARS, fit_subjects
from clm_data.prompts import Prompts
from clm_data.store import Dialogue, NewDialogue


def plan_batch(
    domain: Domain,
    lacking: int,
    *,
    subjects: Sequence[str],
    dialogues: Sequence[Dialogue],
    settings: Settings,
    prompts: Prompts,
    provider: str,
    model: str,
) -> list[NewDialogue]:
    """Plan the next dialogues of a domain; each starts from another topic.

    Args:
        domain: The domain to ask for.
        lacking: Entries still wanted, at least 1.
        subjects: Used subjects, the most important first; prompts name as many as fit.
        dialogues: Earlier dialogues of the domain.
        settings: Settings of the workspace.
        prompts: Templates of the messages.
        provider: Provider of the model.
        model: Name of the model.
    """
    sizes = settings.generation
    each = sizes.entries_per_turn * sizes.turns
    batch = 1 + max((dialogue.wave for dialogue in dialogues), default=-1)
    named = fit_subjects(subjects, FIRST_LIST_CHARS)
    planned = []
    for offset in range(min(sizes.dialogues_at_once, math.ceil(lacking / each))):
        number = len(dialogues) + offset
        wanted = min(each, lacking - offset * each)
        topic = domain.ask_for[number % len(domain.ask_for)]
        prompt = prompts.first(domain, topic, min(sizes.entries_per_turn, wanted), named)
        planned.append(
            NewDialogue(
                domain=domain.id,
                number=number,
                wave=batch,
                provider=provider,
                model=model,
                prompt=prompt.text,
                prompt_hash=prompt.hash,
                wanted=wanted,
            )
        )
    return planned

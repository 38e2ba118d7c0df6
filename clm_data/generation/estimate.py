"""Estimates the requests, tokens and cost of a run before it starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from clm_data.config import Settings
from clm_data.domain import Domain
from clm_data.generation.domain_progress import DomainProgress, DomainState
from clm_data.generation.plan import plan_batch
from clm_data.generation.report import CostEstimate
from clm_data.generation.subjects import used_subjects
from clm_data.generation.tokens import expected_usage, token_count
from clm_data.llm import model_name, price_of
from clm_data.prompts import Prompts
from clm_data.store import Store


def estimate_generation(
    store: Store | None,
    domains: Sequence[Domain],
    *,
    all_domains: Mapping[str, Domain],
    settings: Settings,
    prompts: Prompts,
    count: int | None = None,
) -> CostEstimate:
    """Estimate what a run would send if every answer were good; sends and stores nothing.

    Args:
        store: Store of the workspace; None if there is none yet.
        domains: Domains to ask for.
        all_domains: All domains of the workspace by id.
        settings: Settings of the workspace.
        prompts: Templates of the messages.
        count: Entries wanted in each domain; default: the domain's quota.
    """
    states = DomainProgress(store, all_domains, settings.dedup).in_dataset() if store else {}
    missing: dict[str, int] = {}
    first: str | None = None
    requests = sent = received = 0
    for domain in domains:
        state = states.get(domain.id, DomainState((), {}))
        lacking = max(0, (count or domain.quota) - len(state.entries))
        missing[domain.id] = lacking
        if not lacking:
            continue
        batch = plan_batch(
            domain,
            lacking,
            subjects=used_subjects([state], prompts.lang),
            dialogues=store.dialogues(domain.id) if store else [],
            settings=settings,
            prompts=prompts,
            provider=settings.provider,
            model=model_name(settings),
        )
        first = first or batch[0].prompt
        turns = math.ceil(lacking / settings.generation.entries_per_turn)
        each = expected_usage(settings.generation, token_count(batch[0].prompt))
        requests += turns
        sent += turns * (each.prompt_tokens or 0)
        received += turns * (each.completion_tokens or 0)
    return CostEstimate(first, missing, requests, sent, received, price_of(settings))

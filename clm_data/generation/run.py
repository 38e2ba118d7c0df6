"""Asks a model for entries, domain by domain, in batches of dialogues.

The store decides everything that is sent. A batch is planned, with its prompts, in one transaction
before any of it is sent. A dialogue continues from its committed answers. Whether a domain needs
another batch is decided once all dialogues of the last one have ended. A run that is killed and
started again therefore ends with the same entries, and repeats only the requests that were in
flight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from clm_data.config import GenerationSettings, Settings
from clm_data.domain import Domain
from clm_data.errors import ConfigError
from clm_data.generation.asking import Asker
from clm_data.generation.domain_run import DomainRun, Session, plan_wave, together
from clm_data.generation.journal import Journal
from clm_data.generation.progress import DomainProgress, State
from clm_data.generation.report import CostEstimate, GenerationReport, Progress
from clm_data.generation.subjects import taken
from clm_data.languages import HAN
from clm_data.llm import Usage, model_name, price_of
from clm_data.llm.base import ChatModel
from clm_data.prompts import Prompts
from clm_data.store import Store

_TOKENS_PER_HAN = 0.6
_TOKENS_PER_OTHER = 0.3
"""Rules of thumb of https://api-docs.deepseek.com/quick_start/token_usage."""
_TOKENS_PER_ENTRY = 300
"""Of one bilingual entry as JSON; our guess."""
_REASONING_PER_TURN = 2000
"""Tokens a model thinks before it answers; our guess."""


async def run_generation(
    store: Store,
    model: ChatModel,
    domains: Sequence[Domain],
    *,
    all_domains: Mapping[str, Domain],
    settings: Settings,
    prompts: Prompts,
    count: int | None = None,
    max_requests: int | None = None,
    max_cost: float | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    backoff: float = 1.0,
) -> GenerationReport:
    """Ask until every domain has its quota, or an honest stop.

    A domain stops when it has enough, when ``dry_waves`` waves in a row brought nothing new, when
    every dialogue of a wave was refused, or at a limit. Running again continues.

    Args:
        store: Holds what was asked and said, and gets what is.
        model: Who is asked; stays open.
        domains: What to ask for, in the order of the domain file.
        all_domains: Every domain of the workspace.
        settings: Of the workspace.
        prompts: Renders the messages.
        count: Entries wanted in each domain, instead of its quota.
        max_requests: Requests to send at most in this run.
        max_cost: Money to spend at most in this run; what is in flight is reckoned with.
        progress: Told of every answer and every wave.
        backoff: Seconds before a failed request is first repeated; doubles with each failure.

    Raises:
        ConfigError: ``max_cost`` is set and the price of the model is not known.
        UserError: The endpoint wants a key or money; everything up to then is kept.
    """
    price = price_of(settings)
    if max_cost is not None and price is None:
        raise ConfigError(
            f"the price of {model.provider} {model.model} is not known, so --max-cost cannot "
            "hold; use --max-requests"
        )
    journal = Journal(store)
    asker = Asker(
        journal,
        model,
        settings.generation,
        max_requests=max_requests,
        max_cost=max_cost,
        price=price,
        expected_cost=price.of(_one_turn(settings.generation, 0)) if price else 0.0,
        backoff=backoff,
    )
    known = DomainProgress(store, all_domains, settings.dedup)
    session = Session(store, journal, model, asker, known, settings, prompts, progress)
    whole = known.whole()
    runs = {
        domain.id: DomainRun(domain, count or domain.quota, session, whole[domain.id])
        for domain in domains
    }
    await together(run.run() for run in runs.values())
    whole = known.whole()
    for domain_id, run in runs.items():
        if await run.make_up(whole[domain_id]):
            whole = known.whole()
    if asker.error is not None:
        raise asker.error
    return GenerationReport(
        domains=tuple(run.report(whole[domain_id]) for domain_id, run in runs.items()),
        usage=asker.usage,
        price=price,
        rate_limits=asker.rate_limits,
        retries=asker.retries,
        stopped=asker.halted,
    )


def estimate_generation(
    store: Store | None,
    domains: Sequence[Domain],
    *,
    all_domains: Mapping[str, Domain],
    settings: Settings,
    prompts: Prompts,
    count: int | None = None,
) -> CostEstimate:
    """What :func:`run_generation` would send if every answer were good; sends and stores nothing.

    Args:
        store: None where there is none yet.
        domains: As for :func:`run_generation`, like all that follow.
        all_domains: Every domain of the workspace.
        settings: Of the workspace.
        prompts: Renders the messages.
        count: Entries wanted in each domain, instead of its quota.
    """
    whole = DomainProgress(store, all_domains, settings.dedup).whole() if store else {}
    missing: dict[str, int] = {}
    first: str | None = None
    requests = sent = received = 0
    for domain in domains:
        state = whole.get(domain.id, State((), {}))
        lacking = max(0, (count or domain.quota) - len(state.entries))
        missing[domain.id] = lacking
        if not lacking:
            continue
        wave = plan_wave(
            domain,
            lacking,
            subjects=taken([state], prompts.lang),
            dialogues=store.dialogues(domain.id) if store else [],
            settings=settings,
            prompts=prompts,
            provider=settings.provider,
            model=model_name(settings),
        )
        first = first or wave[0].prompt
        turns = math.ceil(lacking / settings.generation.entries_per_turn)
        each = _one_turn(settings.generation, _tokens(wave[0].prompt))
        requests += turns
        sent += turns * each.prompt_tokens
        received += turns * each.completion_tokens
    return CostEstimate(first, missing, requests, sent, received, price_of(settings))


def _one_turn(sizes: GenerationSettings, prompt_tokens: int) -> Usage:
    """Tokens of a turn, on average: each sends the prompt and the answers before it."""
    answer = sizes.entries_per_turn * _TOKENS_PER_ENTRY
    return Usage(
        prompt_tokens=prompt_tokens + answer * (sizes.turns - 1) // 2,
        completion_tokens=answer + _REASONING_PER_TURN,
    )


def _tokens(text: str) -> int:
    han = len(HAN.findall(text))
    return math.ceil(han * _TOKENS_PER_HAN + (len(text) - han) * _TOKENS_PER_OTHER)

"""One run of generation over some domains.

The store decides everything that is sent. A batch is planned, with its prompts, in one transaction
before any of it is sent. A dialogue continues from its committed answers. Whether a domain needs
another batch is decided once all dialogues of the last one have ended. A run that is killed and
started again therefore ends with the same entries, and repeats only the requests that were in
flight.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from numbers import Real

from clm_data.config import Settings
from clm_data.domain import Domain
from clm_data.errors import ConfigError, StoreError
from clm_data.generation.client import Budget, ModelClient
from clm_data.generation.domain_progress import DomainProgress, DomainState
from clm_data.generation.domain_run import DomainRun, Session, run_all
from clm_data.generation.journal import Journal
from clm_data.generation.report import GenerationReport, Progress
from clm_data.generation.tokens import expected_usage
from clm_data.lease import Holder, LeaseLostError, Leases
from clm_data.llm import Price, price_of
from clm_data.llm.base import ChatModel
from clm_data.prompts import Prompts
from clm_data.store import Store


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
    on_cancel: Callable[[GenerationReport], None] = lambda _: None,
    backoff: float = 1.0,
) -> GenerationReport:
    """Ask an open model for entries; see :func:`clm_data.generation.generate`.

    ``domains`` are those to ask for, in the order of the domain file. ``all_domains`` are all
    domains of the workspace: an entry that several have counts for the first. A failed request is
    sent again after ``backoff`` seconds, which double with each failure. The model stays open.
    ``on_cancel`` gets the report so far if the task is cancelled, unless the store cannot be read.

    Raises:
        ConfigError: ``max_cost`` is given and the price of the model is not known.
        StoreError: Other runs are generating all of the domains; or the store cannot be written.
        UserError: The endpoint requires a key or payment; answers stored until then are kept.
    """
    budget = _budget(model, settings, max_requests, max_cost)
    leases = Leases(store)
    try:
        held = _claim(leases, domains)
        journal = Journal(store, leases.check)
        client = ModelClient(journal, model, settings.generation, budget, backoff=backoff)
        domain_progress = DomainProgress(store, all_domains, settings.dedup)
        session = Session(
            store, leases, journal, model, client, domain_progress, settings, prompts, progress
        )
        states = domain_progress.in_dataset()
        runs = {
            domain.id: DomainRun(domain, count or domain.quota, session, states[domain.id])
            for domain in domains
        }
        for id_, holder in held.items():
            runs[id_].leave_to(holder)
        client.on_wait = lambda domain, why, seconds: runs[domain].report_waiting(why, seconds)
        free = [run for id_, run in runs.items() if id_ not in held]
        try:
            states = await _run_free(free, session, states)
        except asyncio.CancelledError:
            for run in free:
                run.interrupt()
            with suppress(StoreError):
                states = domain_progress.in_dataset()
                on_cancel(_report(runs, states, client, budget.price, interrupted=True))
            raise
    finally:
        leases.release()
    return _report(runs, states, client, budget.price)


def _report(
    runs: Mapping[str, DomainRun],
    states: Mapping[str, DomainState],
    client: ModelClient,
    price: Price | None,
    *,
    interrupted: bool = False,
) -> GenerationReport:
    return GenerationReport(
        domains=tuple(run.report(states[id_]) for id_, run in runs.items()),
        tokens=client.tokens,
        price=price,
        rate_limits=client.rate_limits,
        retries=client.retries,
        stopped="interrupted" if interrupted else client.stop_reason,
        cut_off=client.cut_off,
        interrupted=interrupted,
    )


def _claim(leases: Leases, domains: Sequence[Domain]) -> dict[str, Holder]:
    """Claim the domains; returns those that other runs are generating, and who does."""
    held = {}
    for domain in domains:
        if holder := leases.claim(f"generate/{domain.id}"):
            held[domain.id] = holder
    if held and len(held) == len({domain.id for domain in domains}):
        id_, holder = next(iter(held.items()))
        others = f" (and {len(held) - 1} more)" if len(held) > 1 else ""
        raise StoreError(
            f"{id_}{others} is being generated by {holder}; "
            "wait until it has finished, or generate other domains"
        )
    return held


async def _run_free(
    runs: Sequence[DomainRun], session: Session, states: Mapping[str, DomainState]
) -> Mapping[str, DomainState]:
    """Run domains while renewing their leases; returns the states of all domains afterwards."""
    client, domain_progress = session.client, session.domain_progress
    renewal = asyncio.create_task(_renew(session))
    try:
        await run_all(run.run() for run in runs)
        if client.error is None:
            states = domain_progress.in_dataset()
            for run in runs:
                if await run.replace_duplicates(states[run.id]):
                    states = domain_progress.in_dataset()
    finally:
        renewal.cancel()
    if client.error is not None:
        raise client.error
    return states


async def _renew(session: Session) -> None:
    while True:
        await asyncio.sleep(session.leases.seconds / 4)
        try:
            await asyncio.to_thread(session.leases.renew)
        except LeaseLostError as error:
            session.client.fail(error)
            return
        except StoreError:
            continue  # the next request checks the lease in its own transaction


def _budget(
    model: ChatModel, settings: Settings, max_requests: int | None, max_cost: float | None
) -> Budget:
    price = price_of(settings)
    if max_cost is not None and not (isinstance(max_cost, Real) and 0 < max_cost < math.inf):
        raise ConfigError(f"max_cost is {max_cost!r}; pass an amount above 0, or leave it out")
    if max_cost is not None and price is None:
        raise ConfigError(
            f"--max-cost needs the price of {model.provider} {model.model}, which is not known; "
            "set it in clm.yaml (generation: {price: {prompt: 0.5, completion: 2, currency: USD}}, "
            "per million tokens), or use --max-requests"
        )
    expected_cost = price.of(expected_usage(settings.generation, 0)) if price else None
    return Budget(max_requests, max_cost, price, expected_cost or 0.0)

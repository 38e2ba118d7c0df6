"""Generating entries with a chat model: ask, parse and count, until the quotas are met."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from clm_data.config import Settings, Workspace
from clm_data.domain import Domain, pick
from clm_data.errors import ConfigError
from clm_data.generation.estimate import estimate_generation
from clm_data.generation.interrupts import until_interrupted
from clm_data.generation.report import (
    CostEstimate,
    DomainReport,
    GenerationReport,
    InterruptedGeneration,
    Progress,
)
from clm_data.generation.run import run_generation
from clm_data.llm import open_model
from clm_data.llm.base import ChatModel
from clm_data.prompts import Prompts

__all__ = [
    "CostEstimate",
    "DomainReport",
    "GenerationReport",
    "InterruptedGeneration",
    "Progress",
    "estimate_cost",
    "generate",
]

_MOST_ENTRIES = 1_000_000
"""Entries of a domain; more is a typing error."""


def generate(
    workspace: Workspace,
    domains: Sequence[str] = (),
    *,
    all_domains: bool = False,
    count: int | None = None,
    concurrency: int | None = None,
    max_requests: int | None = None,
    max_cost: float | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> GenerationReport:
    """Ask the workspace's model for entries until each domain meets its quota or must stop.

    Answers are stored as they arrive; calling the function again resumes an interrupted run.

    Args:
        workspace: Its settings name the provider and the model.
        domains: Ids of the domains to ask for.
        all_domains: Ask for every domain instead.
        count: Entries wanted in each domain; default: the domain's quota.
        concurrency: Maximum requests in flight; default: ``generation.concurrency``.
        max_requests: Maximum requests sent by this call.
        max_cost: Maximum cost of this call, in the currency of the model's price.
        progress: Called after each answer and each batch of dialogues, and when the run waits.

    Raises:
        UnknownNameError: A domain is not in the domain file, or the provider is unknown.
        ConfigError: Neither or both of ``domains`` and ``all_domains`` are given, ``count`` is
            over 1,000,000, or ``max_cost`` is given and the price of the model is not known.
        CredentialsError: The key is missing or was refused; stored answers are kept.
        InterruptedGeneration: The user interrupted the run; it has the report so far.
    """
    known = workspace.domains()
    chosen = _choose(known, domains, all_domains)
    _check_count(count)
    settings = _with_concurrency(workspace.settings, concurrency)
    prompts = Prompts(workspace.prompts_folder)
    model = open_model(settings)
    so_far: list[GenerationReport] = []
    with workspace.open_store(create=True) as store:
        run = run_generation(
            store,
            model,
            chosen,
            all_domains=known,
            settings=settings,
            prompts=prompts,
            count=count,
            max_requests=max_requests,
            max_cost=max_cost,
            progress=progress,
            on_cancel=so_far.append,
        )
        try:
            return _run_to_completion(run, model)
        except KeyboardInterrupt as error:
            if so_far:
                raise InterruptedGeneration(so_far[0]) from error
            raise


def estimate_cost(
    workspace: Workspace,
    domains: Sequence[str] = (),
    *,
    all_domains: bool = False,
    count: int | None = None,
) -> CostEstimate:
    """Estimate what :func:`generate` would send and cost if every answer were good.

    Sends nothing, stores nothing and needs no key. The arguments are those of :func:`generate`.
    """
    known = workspace.domains()
    chosen = _choose(known, domains, all_domains)
    _check_count(count)
    with workspace.open_store(create=True) as store:
        return estimate_generation(
            store,
            chosen,
            all_domains=known,
            settings=workspace.settings,
            prompts=Prompts(workspace.prompts_folder),
            count=count,
        )


def _choose(known: dict[str, Domain], ids: Sequence[str], all_domains: bool) -> list[Domain]:
    if "all" in ids and "all" not in known:
        raise ConfigError("'all' is every domain; pass it alone, or name the domains you want")
    if all_domains == bool(ids):
        raise ConfigError("specify domains with --domain ID, or use --all")
    return list(known.values()) if all_domains else pick(known, ids)


def _check_count(count: int | None) -> None:
    if count is not None and count > _MOST_ENTRIES:
        raise ConfigError(f"count is too large; pass at most {_MOST_ENTRIES} entries per domain")


def _with_concurrency(settings: Settings, concurrency: int | None) -> Settings:
    if concurrency is None:
        return settings
    sizes = settings.generation.model_copy(update={"concurrency": concurrency})
    return settings.model_copy(update={"generation": sizes})


def _run_to_completion(
    run: Coroutine[Any, Any, GenerationReport], model: ChatModel
) -> GenerationReport:
    """Await a run and close its model, in a new thread if this one has a running event loop."""

    async def run_and_close() -> GenerationReport:
        try:
            return await until_interrupted(run)
        finally:
            await model.close()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run_and_close())
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(run_and_close())).result()

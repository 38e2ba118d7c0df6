"""One run of generation over some domains.

The store decides everything that is sent. A batch is planned, with its prompts, in one transaction
before any of it is sent. A dialogue continues from its committed answers. Whether a domain needs
another batch is decided once all dialogues of the last one have ended. A run that is killed and
started again therefore ends with the same entries, and repeats only the requests that were in
flight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from clm_data.config import Settings
from clm_data.domain import Domain
from clm_data.errors import ConfigError
from clm_data.generation.client import Budget, ModelClient
from clm_data.generation.domain_progress import DomainProgress
from clm_data.generation.domain_run import DomainRun, Session, run_all
from clm_data.generation.estimate import usage_per_turn
from clm_data.generation.journal import Journal
from clm_data.generation.report import GenerationReport, Progress
from clm_data.llm import price_of
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
    backoff: float = 1.0,
) -> GenerationReport:
    """Ask an open model for entries; see :func:`clm_data.generation.generate`.

    ``domains`` are those to ask for, in the order of the domain file. ``all_domains`` are all
    domains of the workspace: an entry that several have counts for the first. A failed request is
    sent again after ``backoff`` seconds, which double with each failure. The model stays open.

    Raises:
        ConfigError: ``max_cost`` is given and the price of the model is not known.
        UserError: The endpoint requires a key or payment; answers stored until then are kept.
    """
    budget = _budget(model, settings, max_requests, max_cost)
    journal = Journal(store)
    client = ModelClient(journal, model, settings.generation, budget, backoff=backoff)
    domain_progress = DomainProgress(store, all_domains, settings.dedup)
    session = Session(store, journal, model, client, domain_progress, settings, prompts, progress)
    states = domain_progress.in_dataset()
    runs = {
        domain.id: DomainRun(domain, count or domain.quota, session, states[domain.id])
        for domain in domains
    }
    await run_all(run.run() for run in runs.values())
    states = domain_progress.in_dataset()
    for id_, run in runs.items():
        if await run.replace_duplicates(states[id_]):
            states = domain_progress.in_dataset()
    if client.error is not None:
        raise client.error
    return GenerationReport(
        domains=tuple(run.report(states[id_]) for id_, run in runs.items()),
        usage=client.usage,
        price=budget.price,
        rate_limits=client.rate_limits,
        retries=client.retries,
        stopped=client.stop_reason,
    )


def _budget(
    model: ChatModel, settings: Settings, max_requests: int | None, max_cost: float | None
) -> Budget:
    price = price_of(settings)
    if max_cost is not None and price is None:
        raise ConfigError(
            f"--max-cost needs the price of {model.provider} {model.model}, which is not known; "
            "use --max-requests"
        )
    expected_cost = price.of(usage_per_turn(settings.generation, 0)) if price else 0.0
    return Budget(max_requests, max_cost, price, expected_cost)

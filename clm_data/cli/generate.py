"""The command that asks models: generate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from clm_data.cli.app import app
from clm_data.cli.common import (
    JsonFlag,
    State,
    StrictFlag,
    note,
    open_store,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from clm_data.config import Workspace
    from clm_data.domain import Domain
    from clm_data.generation import CostEstimate, GenerationReport, Progress


@app.command()
def generate(
    ctx: typer.Context,
    *,
    domain: Annotated[
        list[str] | None, typer.Option("--domain", "-d", help="Domain id; may be repeated.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every domain.")] = False,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Entries wanted in each domain; default: its quota."),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            help="deepseek, siliconflow, openrouter, dashscope, vllm, ollama, custom, offline."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model name; default: the provider's.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Address of another OpenAI-compatible endpoint.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=512, help="Requests in flight at most.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Money to spend at most in this run.")
    ] = None,
    max_requests: Annotated[
        int | None, typer.Option(min=1, help="Requests to send at most in this run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first prompt and an estimate; send nothing.")
    ] = False,
    json: JsonFlag = False,
    strict: StrictFlag = False,
) -> int:
    """Ask a model for entries of one or more domains, until their quotas are there.

    What was paid for is kept: run the same command again to continue after a stop.

    Example: `clm-data generate --domain chinese_literature --count 20`
    """
    state: State = ctx.obj
    workspace = state.workspace(create=True, provider=provider, model=model, base_url=base_url)
    workspace = _with_concurrency(workspace, concurrency)
    domains = _pick(workspace, domain or [], everything)
    if dry_run:
        _show_estimate(_estimate(workspace, domains, count), as_json=json)
        return 0
    report = _run(workspace, domains, count, max_requests, max_cost)
    if json:
        print_json(report.as_json())
    else:
        _show(report)
    return 1 if strict and (report.lost or report.short) else 0


def _with_concurrency(workspace: Workspace, concurrency: int | None) -> Workspace:
    from dataclasses import replace

    if concurrency is None:
        return workspace
    settings = workspace.settings
    sizes = settings.generation.model_copy(update={"concurrency": concurrency})
    return replace(workspace, settings=settings.model_copy(update={"generation": sizes}))


def _pick(workspace: Workspace, ids: list[str], everything: bool) -> list[Domain]:
    from clm_data.domain import load_domains, pick
    from clm_data.errors import ConfigError

    if everything == bool(ids):
        raise ConfigError("name domains with --domain ID, or take every one with --all")
    domains = load_domains(workspace.domains_file)
    return list(domains.values()) if everything else pick(domains, ids)


def _estimate(workspace: Workspace, domains: list[Domain], count: int | None) -> CostEstimate:
    from clm_data.domain import load_domains
    from clm_data.generation.estimate import estimate_generation as estimate
    from clm_data.prompts import Prompts

    with open_store(workspace) as store:
        return estimate(
            store,
            domains,
            all_domains=load_domains(workspace.domains_file),
            settings=workspace.settings,
            prompts=Prompts(workspace.prompts_folder),
            count=count,
        )


def _run(
    workspace: Workspace,
    domains: list[Domain],
    count: int | None,
    max_requests: int | None,
    max_cost: float | None,
) -> GenerationReport:
    import asyncio

    from clm_data.domain import load_domains
    from clm_data.generation.run import run_generation
    from clm_data.llm import open_model
    from clm_data.prompts import Prompts

    prompts = Prompts(workspace.prompts_folder)
    model = open_model(workspace.settings)

    async def run(progress: Callable[[Progress], None]) -> GenerationReport:
        try:
            return await run_generation(
                store,
                model,
                domains,
                all_domains=load_domains(workspace.domains_file),
                settings=workspace.settings,
                prompts=prompts,
                count=count,
                max_requests=max_requests,
                max_cost=max_cost,
                progress=progress,
            )
        finally:
            await model.close()

    with open_store(workspace) as store, _progress() as progress:
        return asyncio.run(run(progress))


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar a domain on a terminal; elsewhere a line for each wave. On stderr."""
    import sys

    if not sys.stderr.isatty():
        yield _tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    tasks: dict[str, int] = {}
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[requests]} requests"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as bars:

        def show(at: Progress) -> None:
            if at.domain not in tasks:
                tasks[at.domain] = bars.add_task(at.domain, total=at.target, requests=0)
            bars.update(tasks[at.domain], completed=at.entries, requests=at.requests)  # type: ignore[arg-type]

        yield show


def _tell(at: Progress) -> None:
    if at.settled:
        note(f"{at.domain}: {at.entries} of {at.target} entries, {at.requests} requests")


def _show(report: GenerationReport) -> None:
    print_table(
        "generate",
        ["domain", "entries", "wanted", "new", "rejected", "kept", "requests", "stopped"],
        [
            [
                each.domain,
                each.entries,
                each.target,
                each.new,
                each.rejected,
                "" if each.share_kept is None else f"{each.share_kept:.0%}",
                each.requests,
                each.stopped,
            ]
            for each in report.domains
        ],
    )
    usage = report.usage
    say(
        f"tokens: {usage.prompt_tokens} sent, {usage.completion_tokens} received "
        f"({usage.reasoning_tokens} of them reasoning); {_money(report)}"
    )
    if report.retries:
        say(f"repeated {report.retries} requests; rate limits met: {report.rate_limits}")
    for loss in report.lost:
        note(f"lost: {loss}")
    if report.stopped:
        note(f"stopped: {report.stopped}")
    if report.short:
        note("short of entries: " + ", ".join(report.short))


def _show_estimate(found: CostEstimate, *, as_json: bool) -> None:
    if as_json:
        print_json(found.as_json())
        return
    if found.prompt is None:
        say("nothing to ask: every domain has its entries")
        return
    say(found.prompt)
    say(
        f"about {found.requests} requests for {sum(found.missing.values())} entries if all are "
        f"good; about {found.prompt_tokens} tokens sent and {found.completion_tokens} received, "
        f"reasoning included; {_money(found)}"
    )


def _money(of: CostEstimate | GenerationReport) -> str:
    if of.cost is None or of.price is None:
        return "cost: not known for this model"
    return f"cost: at most {of.cost:.2f} {of.price.currency} at the prices known to this version"

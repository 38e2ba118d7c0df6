"""The command that asks a model for entries: generate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

import clm_data
from clm_data.cli.app import BUILD
from clm_data.cli.generate_progress import generation_progress
from clm_data.cli.output import (
    OUTPUT,
    JsonFlag,
    State,
    StrictFlag,
    counted,
    log,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from clm_data.generation import CostEstimate, GenerationReport
    from clm_data.generation.reasons import Reason
    from clm_data.generation.tokens import Tokens

_SCOPE, _MODEL, _LIMITS = "What to ask for", "Model", "Limits"

_MOST_REASONS = 5

app = typer.Typer()


@app.command(rich_help_panel=BUILD)
def generate(
    ctx: typer.Context,
    *,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", "-d", help="Domain id; repeatable.", rich_help_panel=_SCOPE),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every domain.", rich_help_panel=_SCOPE)
    ] = False,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Entries wanted in each domain. Default: its quota.",
            rich_help_panel=_SCOPE,
        ),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            help="deepseek, siliconflow, openrouter, dashscope, vllm, ollama, custom, or offline "
            "(the bundled bank). Default: the one in clm.yaml, initially deepseek.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model name. Default: the provider's.", rich_help_panel=_MODEL),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Address of an OpenAI-compatible endpoint. Default: the provider's.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=512,
            help="Maximum requests in flight. Default: the value in clm.yaml, or 16.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            help="Maximum cost of this run, in the currency of the model's price "
            "(generation.price in clm.yaml).",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum requests sent by this run.", rich_help_panel=_LIMITS),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the first prompt and an estimate; send nothing.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    json: JsonFlag = False,
    strict: StrictFlag = False,
) -> int:
    """Ask a model for entries until each quota is met.

    Answers are stored as they arrive: run the same command again to resume an interrupted run
    without paying twice. With `--json`, an interrupted run prints the report so far, which says
    that it was interrupted.

    Example: `clm-data generate --domain chinese_literature --count 20`
    """
    from clm_data.errors import ConfigError
    from clm_data.generation import InterruptedGeneration

    state: State = ctx.obj
    if everything == bool(domain):
        raise ConfigError("specify domains with --domain ID, or use --all")
    request: dict[str, Any] = {
        "domains": "all" if everything else domain,
        "count": count,
        "provider": provider,
        "model": model,
        "base_url": base_url,
        "workspace": state.workspace,
    }
    if dry_run:
        _show_estimate(clm_data.estimate_cost(**request), as_json=json)
        return 0
    try:
        with generation_progress() as progress:
            report = clm_data.generate(
                **request,
                concurrency=concurrency,
                max_requests=max_requests,
                max_cost=max_cost,
                progress=progress,
            )
    except InterruptedGeneration as interrupted:
        if json:
            print_json(interrupted.report.as_json())
        raise
    if json:
        print_json(report.as_json())
    else:
        _show_generation(report)
    return 1 if strict and (report.lost or report.short) else 0


def _show_generation(report: GenerationReport) -> None:
    from clm_data.text import show_command

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
    say(_tokens_and_cost(report))
    if report.price is not None and report.unanswered:
        say(f"not counted: {counted(report.unanswered, 'request')} without an answer")
    if report.retries:
        say(f"retried {counted(report.retries, 'request')}; rate limits: {report.rate_limits}")
    if report.cut_off:
        log(
            f"cut off at the token limit: {counted(report.cut_off, 'answer')}; only complete "
            "entries were used (generation.max_tokens in clm.yaml asks again with a higher limit)"
        )
    _say_reasons("rejected entries", report.rejections)
    _say_reasons("failed requests (each was repeated if that could help)", report.failures)
    if reasons := (*report.rejections, *report.failures):
        place = reasons[0].example.partition(": ")[0]
        say(f"to see what was asked and answered: {show_command(place)}")
    for loss in report.lost:
        log(f"lost: {loss}")
    if report.stopped:
        log(f"stopped: {report.stopped}")
    if report.short:
        log("below quota: " + ", ".join(report.short))


def _say_reasons(what: str, reasons: Sequence[Reason]) -> None:
    """The most frequent reasons, each with an example."""
    if not reasons:
        return
    say(f"{what}:")
    for reason in reasons[:_MOST_REASONS]:
        say(f"  {reason.count} {reason.code}: {reason.meaning}; such as {reason.example}")
    rest = reasons[_MOST_REASONS:]
    if rest:
        say(f"  {sum(reason.count for reason in rest)} for other reasons (--json lists them all)")


def _show_estimate(found: CostEstimate, *, as_json: bool) -> None:
    if as_json:
        print_json(found.as_json())
        return
    if found.prompt is None:
        say("nothing to ask: every domain has met its quota")
        return
    say(found.prompt)
    missing = sum(found.missing.values())
    say(
        f"about {counted(found.requests, 'request')} for {counted(missing, 'entry', 'entries')} "
        f"if every answer is good; about {found.prompt_tokens} tokens sent and "
        f"{found.completion_tokens} received, reasoning included; {_estimated_cost(found)}"
    )


def _tokens_and_cost(report: GenerationReport) -> str:
    """What the answers cost; says which numbers the endpoint left out."""
    tokens = report.tokens
    shown = tokens.estimated if tokens.unreported else tokens.total
    about = "about " if tokens.unreported else ""
    line = (
        f"tokens: {about}{shown.prompt_tokens} sent, {about}{shown.completion_tokens} received "
        f"({_reasoning(tokens)})"
    )
    if tokens.unreported:
        line += (
            f", estimated from the text for {tokens.unreported} of "
            f"{counted(tokens.answers, 'answer')}, as the endpoint sent no counts"
        )
    if report.price is None:
        return f"{line}; cost: unknown, as the price of this model is not known"
    return f"{line}; {_estimated_cost(report) if tokens.unreported else _cost(report)}"


def _reasoning(tokens: Tokens) -> str:
    total, known = tokens.total.reasoning_tokens, tokens.at_least.reasoning_tokens
    if total is not None:
        return f"{total} of them reasoning"
    return "reasoning: unknown" if known is None else f"at least {known} of them reasoning"


def _cost(report: GenerationReport) -> str:
    currency = report.price.currency if report.price else ""
    return f"cost: at most {report.cost:.2f} {currency} at the prices this version knows"


def _estimated_cost(of: CostEstimate | GenerationReport) -> str:
    cost = getattr(of, "estimated_cost", of.cost)
    if cost is None or of.price is None:
        return "cost: unknown, as the price of this model is not known"
    return f"cost: about {cost:.2f} {of.price.currency} (estimated)"

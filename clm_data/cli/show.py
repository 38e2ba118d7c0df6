"""The command that shows what happened to an answer: show."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

import clm_data
from clm_data.cli.app import BUILD
from clm_data.cli.output import OUTPUT, JsonFlag, State, counted, print_json, say, say_block

if TYPE_CHECKING:
    from clm_data.llm.base import Completion, Message
    from clm_data.records import Candidate, Problem
    from clm_data.tracing import Trace, TracedAnswer, TracedDecision, TracedEntry, TracedRow

_NOT_APPLIED = "not applied: made on another text, or changes nothing"

app = typer.Typer()


@app.command(rich_help_panel=BUILD)
def show(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            help="Id of an entry, DOMAIN/DIALOGUE/TURN, DOMAIN/DIALOGUE, or FILE#ROW.",
            show_default=False,
        ),
    ],
    *,
    reasoning: Annotated[
        bool,
        typer.Option("--reasoning", help="Show the model's reasoning.", rich_help_panel=OUTPUT),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Show what was asked and answered, and what became of it.

    For an entry: where it comes from, the decisions of reviewers, and the stage that left it out
    of the dataset. Objects of an answer that were rejected have no id of their own: show the
    answer, `DOMAIN/DIALOGUE/TURN`, or one object in it, `DOMAIN/DIALOGUE/TURN#N`.

    Example: `clm-data show chinese_literature/0/0`
    """
    state: State = ctx.obj
    trace = clm_data.show(what, workspace=state.workspace)
    if json:
        print_json(trace.as_json())
        return
    _show_trace(trace, reasoning=reasoning)


def _show_trace(trace: Trace, *, reasoning: bool) -> None:
    if trace.damaged:
        say_block("The store is damaged. What is damaged in these rows is not taken into account:")
        for row in trace.damaged:
            say_block(row, 1)
        say()
    in_full = trace.asked if len(trace.asked) == 1 else ()
    for entry in in_full:
        _show_entry_in_full(entry)
    for each in trace.rows:
        _show_row(each)
    shown: tuple[Message, ...] = ()
    for number, answer in enumerate(trace.answers):
        if number or in_full:
            say()
        _show_request(answer, shown)
        _show_answer(answer, reasoning=reasoning)
        _show_objects(answer, in_full)
        shown = answer.messages
        if answer.completion is not None:
            shown = (*shown, {"role": "assistant", "content": answer.completion.text})
    if not (trace.answers or trace.entries):
        say_block(f"{trace.what}: no request is stored")
    if trace.answers and trace.answers[-1].ended:
        say()
        say_block(f"Dialogue {trace.answers[-1].dialogue} has ended: {trace.answers[-1].ended}")


def _show_entry_in_full(entry: TracedEntry) -> None:
    say_block(f"{entry.id}: {_outcome(entry)}")
    _show_reasons(entry, 1)
    if entry.place and entry.place != entry.id:
        say_block(f"from {entry.place}", 1)
    for id_, place in entry.copies:
        say_block(f"again as {id_}, from {place}", 1)
    if entry.candidate is not None:
        say()
        _show_texts(entry.candidate, entry.current)
    elif entry.content is not None and "#" in entry.place:
        say()
        say_block(_json(entry.content))
    _show_decisions(entry.decisions)


def _outcome(entry: TracedEntry) -> str:
    if entry.outcome == "in the dataset":
        return f"in the dataset, {entry.status or 'unreviewed'}"
    if entry.outcome == "left out":
        return f"left out of the dataset at stage {entry.stage}"
    if entry.outcome == "repeats another row":
        twin = f"; the entry is {entry.duplicate_of}" if entry.duplicate_of else ""
        return f"repeats what another file has{twin}"
    return "no answer or imported row gives this entry any more; only decisions on it are stored"


def _show_reasons(entry: TracedEntry, indent: int) -> None:
    from clm_data.text import show_command

    for problem in (*entry.problems, *entry.warnings):
        say_block(_problem(problem), indent)
    for problem in entry.probe_problems:
        say_block(f"its own locality probe is not used: {_problem(problem)}", indent)
    if entry.duplicate_of and entry.outcome == "left out":
        say_block(f"kept in its place: {show_command(entry.duplicate_of)}", indent)


def _problem(problem: Problem) -> str:
    from clm_data.codes import CODES

    place = ".".join(part for part in (problem.lang, problem.field) if part)
    where = f" in {place}" if place else ""
    meaning = CODES[problem.code].en
    return f"{problem.severity} {problem.code}{where}: {meaning} ({problem.message})"


def _show_texts(candidate: Candidate, current: Candidate | None) -> None:
    """All texts of an entry; a fixed text follows the one that it replaces."""
    for lang in ("zh", "en"):
        for part in (candidate.fact(lang), candidate.probe(lang)):
            fixed = current.fact(lang) if current is not None and part is not None else None
            for name, text in part if part is not None else ():
                _say_field(f"{lang}.{name}", text)
                new = getattr(fixed, name, text)
                if new != text:
                    _say_field("  fixed", new)
        others = candidate.accepted.get(lang)
        if others:
            _say_field(f"{lang}.ground_truth", f"also {', '.join(others)}")


def _say_field(name: str, text: str | None) -> None:
    say_block("(missing)" if text is None else text or "(empty)", label=f"{name:19}")


def _show_decisions(decisions: Sequence[TracedDecision], indent: int = 0) -> None:
    if not decisions:
        return
    if not indent:
        say()
    say_block("Decisions of reviewers:", indent)
    for each in decisions:
        decision = each.decision
        who = f"{decision.reviewer}: {decision.verdict}"
        effect = _NOT_APPLIED if each.effect == "not applied" else each.effect
        say_block(f"{_time(each.decided_at)} {who} ({effect})", indent + 1)
        for name, text in (decision.fixed or {}).items():
            say_block(f"{name} = {text}", indent + 2)
        if decision.note:
            say_block(f"note: {decision.note}", indent + 2)


def _show_row(row: TracedRow) -> None:
    say()
    used = "" if row.is_used else ", which another file has too"
    say_block(f"Row {row.number} of {row.file}{used}:")
    say_block(f"format {row.format}, license {row.licence or 'unknown'}", 1)
    say_block(f"imported {_time(row.imported_at)}, sha256 {row.sha256}", 1)
    say_block(_json(row.content), 1)


def _json(content: Any) -> str:
    """Text as it is, and other values as JSON."""
    if isinstance(content, str):
        return content
    return json_module.dumps(content, ensure_ascii=False, indent=2)


def _show_request(answer: TracedAnswer, shown: Sequence[Message]) -> None:
    """What was asked; messages that were sent before with the same texts are not repeated."""
    from clm_data.text import show_command

    say_block(f"{answer.name}: asked {answer.provider} {answer.model}, {_time(answer.sent_at)}")
    total = len(answer.messages)
    same = 0
    while same < min(total, len(shown)) and answer.messages[same] == shown[same]:
        same += 1
    if same:
        earlier = f"messages 1 to {same}" if same > 1 else "message 1"
        say_block(f"{earlier} of {total}: as above", 1)
    answers = 0
    for number, message in enumerate(answer.messages, 1):
        role, text = message["role"], message["content"]
        answers += role == "assistant"
        if number <= same:
            continue
        title = f"message {number} of {total}, {role}"
        if role == "assistant":
            say_block(f"{title}: {show_command(f'{answer.dialogue}/{answers - 1}')}", 1)
        else:
            say_block(f"{title}, {_characters(text)}:", 1)
            say_block(text.rstrip("\n"), 2)


def _show_answer(answer: TracedAnswer, *, reasoning: bool) -> None:
    """What was answered, or why there is no answer."""
    say()
    if answer.damage:
        say_block(f"damaged in the store, and not shown: {answer.damage}", 1)
    if answer.error is not None:
        say_block(f"failed, {_time(answer.answered_at)}: {answer.error}", 1)
    elif answer.completion is None and not answer.damage:
        say_block("no answer is stored: the request is in flight, or was when its run ended", 1)
    if answer.completion is None:
        return
    completion = answer.completion
    when = f"answered {_time(answer.answered_at)}"
    say_block(f"{when} by {completion.model}, {_finish(completion)}", 1)
    say_block(_usage(completion), 1)
    if completion.reasoning:
        hint = "" if reasoning else " (shown with --reasoning)"
        say_block(f"reasoning, {_characters(completion.reasoning)}{hint}", 1)
        if reasoning:
            say_block(completion.reasoning.rstrip("\n"), 2)
    if completion.text:
        say_block(f"answer, {_characters(completion.text)}:", 1)
        say_block(completion.text.rstrip("\n"), 2)
    else:
        say_block("answer: empty", 1)


def _finish(completion: Completion) -> str:
    reason = completion.finish_reason or "unknown"
    cut = " (cut off at the token limit)" if reason == "length" else ""
    return f"finish reason {reason}{cut}"


def _usage(completion: Completion) -> str:
    usage = completion.usage
    if usage == type(usage)():
        return "tokens: unknown, as the endpoint sent no counts"
    sent, received, thought = (
        "unknown" if count is None else f"{count:,}"
        for count in (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens)
    )
    return f"tokens: {sent} sent, {received} received, reasoning among them: {thought}"


def _show_objects(answer: TracedAnswer, in_full: Sequence[TracedEntry]) -> None:
    """Each object of an answer: kept or rejected, and why."""
    if answer.completion is None:
        return
    rejected = sum(entry.candidate is None for entry in answer.entries)
    kept = counted(len(answer.entries) - rejected, "entry", "entries")
    say()
    say_block(f"found in the answer: {kept}, {counted(rejected, 'object')} rejected", 1)
    for entry in answer.entries:
        number = f"#{entry.place.rpartition('#')[2]}"
        id_ = "" if entry.candidate is None else f" {entry.id}"
        if entry in in_full:
            say_block(f"{number}{id_}: see above", 2)
            continue
        say_block(f"{number}{id_}: {_outcome(entry)}", 2)
        _show_reasons(entry, 3)
        if entry.candidate is None:
            say_block(_json(entry.content), 3)
        else:
            for line in _facts(entry.current or entry.candidate):
                say_block(line, 3)
        _show_decisions(entry.decisions, 3)


def _facts(candidate: Candidate) -> Iterator[str]:
    for lang in ("zh", "en"):
        fact = candidate.fact(lang)
        if fact is not None:
            texts = (fact.prompt, fact.ground_truth, fact.target_new)
            prompt, truth, target = ("(missing)" if text is None else text for text in texts)
            yield f"{prompt} [{truth} -> {target}]"


def _characters(text: str) -> str:
    return f"{len(text):,} {'character' if len(text) == 1 else 'characters'}"


def _time(stored: str | None) -> str:
    """A time of the store, which is in UTC, without fractions of seconds."""
    return f"{stored[:19].replace('T', ' ')} UTC" if stored else "at an unknown time"

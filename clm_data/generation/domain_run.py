"""The run of one domain: batches of dialogues until the quota is met or another reason to stop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clm_data.assemble import completion_of
from clm_data.config import Settings
from clm_data.domain import Domain
from clm_data.errors import (
    ClmDataError,
    ModeratedError,
    PermanentError,
    RateLimitError,
    StoreError,
    TransientError,
)
from clm_data.generation.client import HaltedError, ModelClient
from clm_data.generation.dialogue import DialogueState, End, ParsedAnswer, next_step, with_reply
from clm_data.generation.domain_progress import DomainProgress, DomainState
from clm_data.generation.journal import Journal
from clm_data.generation.reasons import (
    reasons_for_failure,
    reasons_for_rejection,
    what_became_of,
    why_nothing_new,
)
from clm_data.generation.report import DomainReport, Progress
from clm_data.generation.subjects import FIRST_LIST_CHARS, Reminder, fit_subjects, used_subjects
from clm_data.lease import Holder, Leases
from clm_data.llm.base import ChatModel
from clm_data.prompts import Prompts
from clm_data.store import Dialogue, DialogueEnd, NewDialogue, Store

_REFUSED = "refused: "
_BLOCKED = "blocked: "
_MAX_REASON = 500
_BLOCKED_BATCHES = 3
"""Batches in a row of which every dialogue was blocked, after which a domain stops."""
_QUOTA_REACHED = "quota reached"


@dataclass(frozen=True)
class Session:
    """Objects that the domains of one run share."""

    store: Store
    leases: Leases
    journal: Journal
    model: ChatModel
    client: ModelClient
    domain_progress: DomainProgress
    settings: Settings
    prompts: Prompts
    progress: Callable[[Progress], None]


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


class DomainRun:
    """Generates the entries of one domain.

    Args:
        domain: The domain to ask for.
        target: Entries wanted in total.
        session: Objects shared with the other domains.
        before: State of the domain in the dataset before the run.
    """

    def __init__(self, domain: Domain, target: int, session: Session, before: DomainState) -> None:
        self._domain = domain
        self._target = target
        self._session = session
        self._before = self._state = before
        self._pending = 0
        """New entries in the answers of the current batch."""
        self._planned: set[int] = set()
        """Numbers of dialogues planned by this run, which have no stored answers."""
        self._answers: list[ParsedAnswer] = []
        """The answers that arrived in this run."""
        self._rejected = 0
        self._started = time.monotonic()
        self._lost: list[str] = []
        self._stopped = ""

    async def run(self, *, count_in_dataset: bool = False) -> None:
        """Run batches of dialogues until there is a reason to stop, such as a broken store.

        Args:
            count_in_dataset: Do not count entries that an earlier domain has; only valid while no
                other domain is running.
        """
        try:
            await self._run_batches(count_in_dataset=count_in_dataset)
        except StoreError as error:  # the answers in flight are still awaited and stored
            self._session.client.fail(error)

    async def _run_batches(self, *, count_in_dataset: bool) -> None:
        session, domain_id = self._session, self._domain.id
        while True:
            unfinished = self._unfinished()
            await self._run_batch(unfinished)
            dialogues = session.store.dialogues(domain_id)
            by_itself = session.domain_progress.by_itself(domain_id)
            self._state = by_itself
            if count_in_dataset:
                self._state = session.domain_progress.in_dataset()[domain_id]
            self._pending = 0
            self._report_progress(settled=True)
            just_run = {dialogue.id for dialogue in unfinished}
            self._stopped = self._reason_to_stop(dialogues, just_run)
            if self._stopped:
                return
            lang = session.prompts.lang
            batch = self._next_batch(dialogues, used_subjects([self._state, by_itself], lang))
            session.store.add_dialogues(batch, session.leases.check)
            self._planned.update(dialogue.number for dialogue in batch)

    @property
    def id(self) -> str:
        """Id of the domain."""
        return self._domain.id

    def leave_to(self, holder: Holder) -> None:
        """Do not run, as another process is generating the domain."""
        self._stopped = f"being generated by {holder}"
        self._lost.append(f"{self.id} was left out: {self._stopped}")

    async def replace_duplicates(self, state: DomainState) -> bool:
        """Replace entries that an earlier domain has too, while no other domain is running.

        Args:
            state: State of the domain in the dataset.

        Returns:
            Whether the domain was run again.
        """
        if self._stopped != _QUOTA_REACHED or len(state.entries) >= self._target:
            return False
        await self.run(count_in_dataset=True)
        return True

    def report(self, state: DomainState) -> DomainReport:
        """Report on the run, given the state of the domain in the dataset after it."""
        before = {entry.id for entry in self._before.entries}
        added = frozenset(entry.id for entry in state.entries) - before
        new, rejections = what_became_of(self._answers, added, state.duplicates)
        client = self._session.client
        return DomainReport(
            domain=self._domain.id,
            target=self._target,
            entries=len(state.entries),
            new=new,
            read=sum(answer.count for answer in self._answers),
            requests=client.requests[self._domain.id],
            answers=client.answers[self._domain.id],
            stopped=self._stopped,
            lost=tuple(self._lost),
            rejections=reasons_for_rejection(rejections),
            failures=reasons_for_failure(
                each for each in client.failures if each.domain == self._domain.id
            ),
        )

    def _unfinished(self) -> list[Dialogue]:
        """Dialogues to resume; those with another model are ended and keep their entries."""
        store, model = self._session.store, self._session.model
        found = []
        for dialogue in store.dialogues(self._domain.id):
            if dialogue.ended is not None:
                continue
            if (dialogue.provider, dialogue.model) == (model.provider, model.model):
                found.append(dialogue)
            else:
                reason = f"replaced by {model.provider} {model.model}"
                store.write([DialogueEnd(dialogue.id, reason)], self._session.leases.check)
        return found

    def _reason_to_stop(self, dialogues: Sequence[Dialogue], just_run: set[int]) -> str:
        """Why there is no further batch; empty if there is one.

        Args:
            dialogues: All dialogues of the domain.
            just_run: Ids of the dialogues of the last batch.
        """
        last_batch = [dialogue for dialogue in dialogues if dialogue.id in just_run]
        left = sum(dialogue.ended is None for dialogue in last_batch)
        stop_reason = self._session.client.stop_reason or ""
        if left:
            return stop_reason or f"dialogues left unfinished for the next run: {left}"
        if len(self._state.entries) >= self._target:
            return _QUOTA_REACHED
        if last_batch and all(_was_refused(dialogue) for dialogue in last_batch):
            return f"every dialogue of a batch was {last_batch[0].ended}"
        if self._last_batches_were_blocked(dialogues):
            return f"every dialogue of {_BLOCKED_BATCHES} batches was {dialogues[-1].ended}"
        limit = self._session.settings.generation.dry_waves
        if self._last_batches_found_nothing(dialogues, limit):
            waves = sorted({dialogue.wave for dialogue in dialogues})[-limit:]
            last = [dialogue for dialogue in dialogues if dialogue.wave in waves]
            why = why_nothing_new(self._session.domain_progress.answers(last))
            batches = f"{limit} batches in a row" if limit > 1 else "a batch"
            return f"{batches} with no new entries ({why})"
        return stop_reason

    @staticmethod
    def _last_batches_were_blocked(dialogues: Sequence[Dialogue]) -> bool:
        """Whether a content filter blocked all of the last batches, each with another topic."""
        last = sorted({dialogue.wave for dialogue in dialogues})[-_BLOCKED_BATCHES:]
        return len(last) == _BLOCKED_BATCHES and all(
            (dialogue.ended or "").startswith(_BLOCKED)
            for dialogue in dialogues
            if dialogue.wave in last
        )

    def _last_batches_found_nothing(self, dialogues: Sequence[Dialogue], count: int) -> bool:
        """Whether the last batches with this model had no new entries; refused ones are ignored."""
        model = self._session.model
        models = {
            dialogue.wave: (dialogue.provider, dialogue.model)
            for dialogue in dialogues
            if not _was_refused(dialogue) and not (dialogue.ended or "").startswith(_BLOCKED)
        }
        last = sorted(models)[-count:]
        return len(last) == count and all(
            models[batch] == (model.provider, model.model) and not self._state.new.get(batch)
            for batch in last
        )

    def _next_batch(
        self, dialogues: Sequence[Dialogue], subjects: Sequence[str]
    ) -> list[NewDialogue]:
        session = self._session
        return plan_batch(
            self._domain,
            self._target - len(self._state.entries),
            subjects=subjects,
            dialogues=dialogues,
            settings=session.settings,
            prompts=session.prompts,
            provider=session.model.provider,
            model=session.model.model,
        )

    async def _run_batch(self, dialogues: Sequence[Dialogue]) -> None:
        """Run the dialogues of one batch concurrently."""
        if dialogues:
            batch = min(dialogue.wave for dialogue in dialogues)
            earlier = self._session.domain_progress.by_itself(self._domain.id, before_batch=batch)
            await run_all(self._run_dialogue(dialogue, earlier) for dialogue in dialogues)

    async def _run_dialogue(self, dialogue: Dialogue, earlier: DomainState) -> None:
        """Run a dialogue until it ends, or leave it open; endpoint failures are not raised."""
        name = f"{dialogue.domain}/{dialogue.number}"
        try:
            reason = await self._converse(dialogue, earlier)
        except HaltedError:
            return
        except (RateLimitError, TransientError) as error:
            self._lost.append(f"{name} left unfinished for the next run: {error}")
            return
        except PermanentError as error:
            reason = f"{_BLOCKED if isinstance(error, ModeratedError) else _REFUSED}{error}"
            self._lost.append(f"{name} {reason}")
        try:
            await self._session.journal.write(DialogueEnd(dialogue.id, reason))
        except StoreError as error:
            self._session.client.fail(error)

    async def _converse(self, dialogue: Dialogue, earlier: DomainState) -> str:
        """Continue a dialogue from its stored answers; returns why it ended."""
        session = self._session
        is_new = dialogue.number in self._planned
        exchanges = [] if is_new else session.store.exchanges(dialogue.id)
        recorded = {each.turn: each for each in exchanges}
        messages = [{"role": "user", "content": dialogue.prompt}]
        deduplicator = session.domain_progress.deduplicator(earlier.entries)
        reminder = Reminder(earlier, session.prompts.lang)
        answers: list[ParsedAnswer] = []
        new_entries = 0
        while True:
            turn = len(answers)
            exchange = recorded.get(turn)
            messages = exchange.messages if exchange else messages
            stored = exchange if exchange and exchange.completion is not None else None
            with _one_answer():
                if stored is None:
                    completion = await session.client.complete(dialogue, turn, messages)
                else:
                    completion = completion_of(dialogue, stored)
                answer = session.domain_progress.parsed(dialogue, turn, completion)
            answers.append(answer)
            offered = [deduplicator.offer(entry) for entry in answer.entries]
            duplicates = tuple(rejection for rejection in offered if rejection is not None)
            new_entries += len(offered) - len(duplicates)
            if stored is None:
                self._answers.append(answer)
                self._rejected += len(answer.rejected) + len(duplicates)
                self._pending += len(offered) - len(duplicates)
                self._report_progress(settled=False)
            step = next_step(
                DialogueState(turn + 1, new_entries, answer, duplicates),
                dialogue.wanted,
                session.settings.generation,
                session.prompts,
                reminder.after(answer.entries, duplicates),
            )
            if isinstance(step, End):
                session.domain_progress.dialogue_ended(dialogue, answers)
                return step.reason
            messages = with_reply(messages, completion.text, step.text)

    def report_waiting(self, reason: str, seconds: float) -> None:
        """Report that the run sends nothing for some seconds, and why."""
        self._report_progress(settled=False, waiting=reason, wait=seconds)

    def _report_progress(
        self, *, settled: bool, waiting: str | None = None, wait: float = 0.0
    ) -> None:
        client = self._session.client
        entries = min(len(self._state.entries) + self._pending, self._target)
        self._session.progress(
            Progress(
                domain=self._domain.id,
                entries=entries,
                target=self._target,
                requests=client.requests[self._domain.id],
                settled=settled,
                rejected=self._rejected,
                tokens=client.tokens,
                cost=client.estimated_cost,
                seconds_left=self._seconds_left(entries),
                waiting=waiting,
                wait=wait,
            )
        )

    def _seconds_left(self, entries: int) -> float | None:
        """How long the missing entries take at the speed so far; None while it is not known."""
        done = entries - len(self._before.entries)
        elapsed = time.monotonic() - self._started
        return elapsed / done * (self._target - entries) if done > 0 else None


@contextmanager
def _one_answer() -> Iterator[None]:
    """Turn what nobody expected of one answer into the end of its dialogue."""
    try:
        yield
    except (ClmDataError, HaltedError):
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:_MAX_REASON]
        raise PermanentError(
            f"its answer cannot be handled: {type(error).__name__}: {words}"
        ) from error


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines concurrently; the first error cancels the others and is raised unchanged."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as error:
        raise error.exceptions[0] from error


def _was_refused(dialogue: Dialogue) -> bool:
    return (dialogue.ended or "").startswith(_REFUSED)

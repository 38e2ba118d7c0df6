"""One domain in one run: waves of dialogues until something ends it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from clm_data.config import Settings
from clm_data.domain import Domain
from clm_data.errors import PermanentError, RateLimitError, TransientError
from clm_data.generation.asking import Asker, HaltedError
from clm_data.generation.dialogue import DialogueState, End, ParsedAnswer, extended, next_step
from clm_data.generation.journal import Journal
from clm_data.generation.progress import DomainProgress, State
from clm_data.generation.report import DomainReport, Progress
from clm_data.generation.subjects import ROOM_AT_FIRST, Reminder, fitting, taken
from clm_data.llm.base import ChatModel, Completion
from clm_data.prompts import Prompts
from clm_data.store import Dialogue, DialogueEnd, NewDialogue, Store

_REFUSED = "refused: "
_ENOUGH = "quota reached"


@dataclass(frozen=True)
class Session:
    """What the domains of one run share."""

    store: Store
    journal: Journal
    model: ChatModel
    asker: Asker
    known: DomainProgress
    settings: Settings
    prompts: Prompts
    progress: Callable[[Progress], None]


def plan_wave(
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
    """The dialogues to hold next; each starts from another topic.

    Args:
        domain: What to ask for.
        lacking: Entries still wanted, at least 1.
        subjects: Those in use, the ones to name first in front; as many are named as have room.
        dialogues: Those planned before.
        settings: Sizes of turns, dialogues and waves.
        prompts: Renders the first messages.
        provider: Who will be asked.
        model: Who will be asked.
    """
    sizes = settings.generation
    each = sizes.entries_per_turn * sizes.turns
    wave = 1 + max((dialogue.wave for dialogue in dialogues), default=-1)
    named = fitting(subjects, ROOM_AT_FIRST)
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
                wave=wave,
                provider=provider,
                model=model,
                prompt=prompt.text,
                prompt_hash=prompt.hash,
                wanted=wanted,
            )
        )
    return planned


class DomainRun:
    """One domain in one run.

    Args:
        domain: What to ask for.
        target: Entries wanted in all.
        session: What it shares with the other domains.
        before: Where it stands in the dataset.
    """

    def __init__(self, domain: Domain, target: int, session: Session, before: State) -> None:
        self._domain = domain
        self._target = target
        self._session = session
        self._before = self._state = before
        self._ahead = 0
        """Good entries in the answers of the wave that is being held."""
        self._planned: set[int] = set()
        """Numbers of dialogues planned in this run: nothing was said in them before."""
        self._read = 0
        self._lost: list[str] = []
        self._stopped = ""

    async def run(self, *, among_all: bool = False) -> None:
        """Hold waves until something ends it.

        Args:
            among_all: Count only what no other domain has; only while no other is being run.
        """
        store, known, domain_id = self._session.store, self._session.known, self._domain.id
        while True:
            unfinished = self._unfinished()
            await self._hold_wave(unfinished)
            dialogues = store.dialogues(domain_id)
            own = known.state(domain_id)
            self._state = known.whole()[domain_id] if among_all else own
            self._ahead = 0
            self._tell(settled=True)
            held = {dialogue.id for dialogue in unfinished}
            self._stopped = self._reason_to_stop(dialogues, held)
            if self._stopped:
                return
            lang = self._session.prompts.lang
            wave = self._next_wave(dialogues, taken([self._state, own], lang))
            store.add_dialogues(wave)
            self._planned.update(dialogue.number for dialogue in wave)

    async def make_up(self, whole: State) -> bool:
        """Replace entries that another domain had first; only while no other is being run.

        Args:
            whole: Where the domain stands in the dataset.

        Returns:
            Whether anything changed.
        """
        if self._stopped != _ENOUGH or len(whole.entries) >= self._target:
            return False
        await self.run(among_all=True)
        return True

    def report(self, whole: State) -> DomainReport:
        """How it went, where it stands in the dataset now."""
        before = {entry.id for entry in self._before.entries}
        asker = self._session.asker
        return DomainReport(
            domain=self._domain.id,
            target=self._target,
            entries=len(whole.entries),
            new=sum(entry.id not in before for entry in whole.entries),
            read=self._read,
            requests=asker.requests[self._domain.id],
            answers=asker.answers[self._domain.id],
            stopped=self._stopped,
            lost=tuple(self._lost),
        )

    def _unfinished(self) -> list[Dialogue]:
        """Dialogues to go on with; those of another model are ended, with what they brought."""
        store, model = self._session.store, self._session.model
        found = []
        for dialogue in store.dialogues(self._domain.id):
            if dialogue.ended is not None:
                continue
            if (dialogue.provider, dialogue.model) == (model.provider, model.model):
                found.append(dialogue)
            else:
                store.write([DialogueEnd(dialogue.id, f"left for {model.provider} {model.model}")])
        return found

    def _reason_to_stop(self, dialogues: Sequence[Dialogue], held: set[int]) -> str:
        """Why no further wave is due; empty if one is.

        Args:
            dialogues: All of the domain.
            held: Ids of those that were just held.
        """
        just_held = [dialogue for dialogue in dialogues if dialogue.id in held]
        left = sum(dialogue.ended is None for dialogue in just_held)
        if left:
            return self._session.asker.halted or f"{left} dialogues left for the next run"
        if len(self._state.entries) >= self._target:
            return _ENOUGH
        if just_held and all(_was_refused(dialogue) for dialogue in just_held):
            return f"every dialogue of a wave was {just_held[0].ended}"
        dry = self._session.settings.generation.dry_waves
        if self._is_dry(dialogues, dry):
            return f"{dry} waves in a row brought nothing new"
        return self._session.asker.halted or ""

    def _is_dry(self, dialogues: Sequence[Dialogue], waves: int) -> bool:
        """Whether the last waves of this model brought nothing; refused ones tell nothing."""
        model = self._session.model
        asked = {
            dialogue.wave: (dialogue.provider, dialogue.model)
            for dialogue in dialogues
            if not _was_refused(dialogue)
        }
        last = sorted(asked)[-waves:]
        return len(last) == waves and all(
            asked[wave] == (model.provider, model.model) and not self._state.new.get(wave)
            for wave in last
        )

    def _next_wave(
        self, dialogues: Sequence[Dialogue], subjects: Sequence[str]
    ) -> list[NewDialogue]:
        session = self._session
        return plan_wave(
            self._domain,
            self._target - len(self._state.entries),
            subjects=subjects,
            dialogues=dialogues,
            settings=session.settings,
            prompts=session.prompts,
            provider=session.model.provider,
            model=session.model.model,
        )

    async def _hold_wave(self, dialogues: Sequence[Dialogue]) -> None:
        """Hold dialogues of one wave at the same time."""
        if dialogues:
            wave = min(dialogue.wave for dialogue in dialogues)
            earlier = self._session.known.state(self._domain.id, before_wave=wave)
            await together(self._hold(dialogue, earlier) for dialogue in dialogues)

    async def _hold(self, dialogue: Dialogue, earlier: State) -> None:
        """Hold a dialogue to its end, or leave it open; never fails for what an endpoint does."""
        name = f"{dialogue.domain}/{dialogue.number}"
        try:
            reason = await self._talk(dialogue, earlier)
        except HaltedError:
            return
        except (RateLimitError, TransientError) as error:
            self._lost.append(f"{name} left for the next run: {error}")
            return
        except PermanentError as error:
            reason = f"{_REFUSED}{error}"
            self._lost.append(f"{name} {reason}")
        await self._session.journal.write(DialogueEnd(dialogue.id, reason))

    async def _talk(self, dialogue: Dialogue, earlier: State) -> str:
        """Say and hear what is left to be said; returns why the dialogue is over."""
        session = self._session
        fresh = dialogue.number in self._planned
        exchanges = [] if fresh else session.store.exchanges(dialogue.id)
        recorded = {each.turn: each for each in exchanges}
        messages = [{"role": "user", "content": dialogue.prompt}]
        sieve = session.known.sieve(earlier.entries)
        reminder = Reminder(earlier, session.prompts.lang)
        readings: list[ParsedAnswer] = []
        good = 0
        while True:
            turn = len(readings)
            exchange = recorded.get(turn)
            if exchange is not None:
                messages = exchange.messages
            if exchange is not None and exchange.completion is not None:
                completion = Completion.model_validate(exchange.completion)
            else:
                completion = await session.asker.ask(dialogue, turn, messages)
            reading = session.known.reading(dialogue, turn, completion)
            readings.append(reading)
            offered = [sieve.offer(entry) for entry in reading.entries]
            duplicates = tuple(rejection for rejection in offered if rejection is not None)
            new = len(offered) - len(duplicates)
            good += new
            if exchange is None or exchange.completion is None:
                self._read += reading.read
                self._ahead += new
                self._tell(settled=False)
            standing = DialogueState(turn + 1, good, reading, duplicates)
            step = next_step(
                standing,
                dialogue.wanted,
                session.settings.generation,
                session.prompts,
                reminder.after(reading.entries, duplicates),
            )
            if isinstance(step, End):
                session.known.remember(dialogue, readings)
                return step.reason
            messages = extended(messages, completion.text, step.text)

    def _tell(self, *, settled: bool) -> None:
        self._session.progress(
            Progress(
                domain=self._domain.id,
                entries=min(len(self._state.entries) + self._ahead, self._target),
                target=self._target,
                requests=self._session.asker.requests[self._domain.id],
                settled=settled,
            )
        )


async def together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first error ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as error:
        raise error.exceptions[0] from error


def _was_refused(dialogue: Dialogue) -> bool:
    return (dialogue.ended or "").startswith(_REFUSED)

"""The bundled bank as a chat model, which needs neither a key nor a network and is deterministic.

It gets the same prompts as any model, and answers like one: in code fences, after reasoning, with
trailing commas, cut off at the token limit, and with occasional mistakes (``bank/defects.yaml``).
Each topic of a domain has its own part of the bank, so that concurrent dialogues do not repeat each
other. The model reads these lines of the shipped templates::

    领域：物理学（physics）    主题（2/5）：...   数量：5 条   ## 已用主语 ...
    Domain: Physics (physics)  Topic (2/5): ...   Count: 5     ## Subjects already used ...
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from clm_data import bank
from clm_data.bank import BANK_VERSION, BankEntry, Defect
from clm_data.errors import UserError
from clm_data.llm.base import Completion, Message
from clm_data.parse import parse_objects
from clm_data.records import digest

_DOMAIN = re.compile(r"^(?:领域|Domain)[：:].*[（(]([a-z][a-z0-9_]*)[）)]\s*$", re.MULTILINE)
_TOPIC = re.compile(r"^(?:主题|Topic)\s*[（(](\d+)/(\d+)[）)]", re.MULTILINE)
_COUNT = re.compile(r"^(?:数量|Count)[：:]\s*(\d+)", re.MULTILINE)
_USED = re.compile(r"^## (?:已用主语|Subjects already used).*\n((?:- .*\n?)*)", re.MULTILINE)

_DEFAULT_COUNT = 5
_THOUGHT = "先确认事实只有一个答案，再想一个同类而不真实的新答案，最后核对英文译名。"
_EXHAUSTED = "这个主题下，题库里已经没有更多可靠的条目了。\n\n[]"


@dataclass(frozen=True)
class _Item:
    """One item of an answer: an entry, a defective entry, or raw text."""

    content: dict[str, Any] | None
    raw: str = ""

    @property
    def text(self) -> str:
        return self.raw or json.dumps(self.content, ensure_ascii=False)


@dataclass(frozen=True)
class _Group:
    """A bank entry and the defective items that follow it."""

    subjects: frozenset[str]
    items: tuple[_Item, ...]


@dataclass(frozen=True)
class _Request:
    """The request of a conversation."""

    domain: str
    topic: int
    """Index of the topic, from 0."""
    topics: int
    count: int
    turn: int
    """Number of answers so far."""
    used: frozenset[str]
    answers: tuple[str, ...] = field(repr=False)


class OfflineModel:
    """Answers from the bundled bank; a pure function of the messages.

    Args:
        provider: Provider name in the origin of entries.
        model: Model name in the origin of entries.
    """

    def __init__(self, provider: str = "offline", model: str = BANK_VERSION) -> None:
        self.provider = provider
        self.model = model
        self._groups: dict[str, tuple[_Group, ...]] = {}
        self._defects: tuple[Defect, ...] | None = None

    async def complete(
        self, messages: Sequence[Message], max_tokens: int | None = None
    ) -> Completion:
        """Answer with the next entries for the domain and topic of the conversation.

        ``max_tokens`` is ignored.

        Raises:
            UserError: The prompt names no domain, or the bank has no entries for it.
        """
        request = _parse_request(messages)
        items = _next_items(self._groups_of(request.domain), request)
        if not items:
            return Completion(text=_EXHAUSTED, finish_reason="stop", model=self.model)
        seed = int(digest([request.domain, request.topic, request.turn])[:8], 16)
        return _format(items, seed).model_copy(update={"model": self.model})

    async def close(self) -> None:
        """Do nothing."""

    def _groups_of(self, domain: str) -> tuple[_Group, ...]:
        """The items of a domain, whose file is read once."""
        if self._defects is None:
            self._defects = bank.load_defects()
        if domain not in self._groups:
            defects = [defect for defect in self._defects if defect.domain == domain]
            self._groups[domain] = _load(domain, defects)
        return self._groups[domain]


def _parse_request(messages: Sequence[Message]) -> _Request:
    questions = [message["content"] for message in messages if message["role"] != "assistant"]
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    opening = "\n".join(questions)
    domain = _DOMAIN.search(opening)
    if domain is None:
        raise UserError(
            "the offline provider found no domain in the prompt; keep the line '领域：name（id）' "
            "or 'Domain: name (id)' in the template, or use a real model (see: clm-data doctor)"
        )
    topic = _TOPIC.search(opening)
    used = _USED.search(opening)
    counts = _COUNT.findall(questions[-1])
    topics = max(int(topic[2]), 1) if topic else 1
    return _Request(
        domain=domain[1],
        topic=(int(topic[1]) - 1) % topics if topic else 0,
        topics=topics,
        count=int(counts[-1]) if counts else _DEFAULT_COUNT,
        turn=len(answers),
        used=frozenset(line[2:].strip() for line in used[1].splitlines()) if used else frozenset(),
        answers=tuple(answers),
    )


def _load(domain: str, defects: Sequence[Defect]) -> tuple[_Group, ...]:
    """The entries of a domain, each with the defective items that follow it."""
    if domain not in bank.domain_ids():
        raise UserError(
            f"the offline provider has no entries for domain '{domain}', only for the shipped "
            "domains (clm-data domains); set --provider to a real model"
        )
    entries = bank.load_domain(domain)
    following: list[list[Defect]] = [[] for _ in entries]
    for number, defect in enumerate(defects):
        following[_host(defect, entries, number)].append(defect)
    return tuple(
        _Group(
            subjects=frozenset({entry.zh.subject, entry.en.subject}),
            items=(
                _Item(entry.model_dump(include={"zh", "en"})),
                *(_Item(_facts(defect), defect.raw or "") for defect in wrong),
            ),
        )
        for entry, wrong in zip(entries, following, strict=True)
    )


def _host(defect: Defect, entries: Sequence[BankEntry], number: int) -> int:
    """Position of the entry that a defect follows: the one with the same subject, if any."""
    for position, entry in enumerate(entries):
        if defect.zh is not None and defect.zh.subject == entry.zh.subject:
            return position
    return (1 + 3 * number) % len(entries)


def _facts(defect: Defect) -> dict[str, Any] | None:
    return None if defect.raw else defect.model_dump(include={"zh", "en"})


def _next_items(groups: Sequence[_Group], request: _Request) -> list[_Item]:
    """The next items of the topic: complete groups, as many as ``count`` allows."""
    given = [value for answer in request.answers for value in parse_objects(answer)]
    items: list[_Item] = []
    for position, group in enumerate(groups):
        topic = position * request.topics // len(groups)
        if topic != request.topic or group.subjects & request.used:
            continue
        left = [item for item in group.items if not _was_given(item, given, request.answers)]
        if items and len(items) + len(left) > request.count:
            break
        items += left
    return items


def _was_given(item: _Item, given: Sequence[dict[str, Any]], answers: Sequence[str]) -> bool:
    return any(item.raw in answer for answer in answers) if item.raw else item.content in given


def _format(items: Sequence[_Item], seed: int) -> Completion:
    """Format items in one of the ways in which models answer."""
    texts = [item.text for item in items]
    if len(texts) == 1 and seed % 2:
        return _answer(texts[0])
    formats = _FORMATS if len(texts) > 1 and items[-1].content else _COMPLETE_FORMATS
    return formats[seed % len(formats)](texts)


def _answer(text: str, reasoning: str | None = None, finish_reason: str = "stop") -> Completion:
    return Completion(text=text, reasoning=reasoning, finish_reason=finish_reason, model="")


def _list(texts: Sequence[str]) -> str:
    return "[\n" + ",\n".join(texts) + "\n]"


def _plain(texts: Sequence[str]) -> Completion:
    return _answer(_list(texts), reasoning=_THOUGHT)


def _fenced(texts: Sequence[str]) -> Completion:
    return _answer(f"```json\n{_list(texts)}\n```", reasoning=_THOUGHT)


def _thinking_aloud(texts: Sequence[str]) -> Completion:
    return _answer(f"<think>\n{_THOUGHT}\n</think>\n\n```json\n{_list(texts)}\n```")


def _trailing_commas(texts: Sequence[str]) -> Completion:
    return _answer(_list(texts).removesuffix("\n]") + ",\n]")


def _json_lines(texts: Sequence[str]) -> Completion:
    return _answer("\n".join(texts))


def _in_prose(texts: Sequence[str]) -> Completion:
    return _answer(f"好的，以下是新的条目：\n\n{_list(texts)}\n\n每条事实都已核对，请审阅。")


def _wrapped(texts: Sequence[str]) -> Completion:
    return _answer(f'{{"entries": {_list(texts)}}}')


def _fence_each(texts: Sequence[str]) -> Completion:
    return _answer("\n\n".join(f"```json\n{text}\n```" for text in texts))


def _cut_off(texts: Sequence[str]) -> Completion:
    last = texts[-1]
    text = _list([*texts[:-1], last[: len(last) * 2 // 3]])
    return _answer(text.removesuffix("\n]"), reasoning=_THOUGHT, finish_reason="length")


_Format = Callable[[Sequence[str]], Completion]
_COMPLETE_FORMATS: tuple[_Format, ...] = (
    _plain,
    _fenced,
    _thinking_aloud,
    _trailing_commas,
    _json_lines,
    _in_prose,
    _wrapped,
    _fence_each,
)
_FORMATS: tuple[_Format, ...] = (*_COMPLETE_FORMATS, _cut_off)

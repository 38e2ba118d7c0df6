"""Which subjects a model is told are taken."""

from __future__ import annotations

import pytest
from helpers.example_records import example_fact

from clm_data.dedup import IncrementalDeduplicator
from clm_data.generation.progress import State
from clm_data.generation.subjects import ROOM_AT_FIRST, Reminder, fitting, taken
from clm_data.records import Entry, Origin, Rejection

NAMES = "甲乙丙丁戊己庚辛壬癸"


def entry(number: int, zh: str | None = None, *, id: str | None = None) -> Entry:
    """An entry of its own; its Chinese subject is a name followed by its number."""
    subject = zh or f"{NAMES[number % 10] * 9}{number}"
    return Entry(
        id=id or f"e{number}",
        domain="rivers",
        origin=Origin(kind="import", name="made.json"),
        zh=example_fact("zh", number).model_copy(
            update={"subject": subject, "prompt": f"{subject}的源头在"}
        ),
        en=example_fact("en", number),
    )


def state(*entries: Entry, again: tuple[Entry, ...] = ()) -> State:
    return State(entries, {}, again)


def refused(new: Entry, known: Entry) -> Rejection:
    """How the sieve refuses an entry for another."""
    found = IncrementalDeduplicator([known]).offer(new)
    assert found is not None
    return found


def test_what_was_said_again_comes_first_then_the_newest() -> None:
    first, second, third = entry(1), entry(2), entry(3)
    elsewhere = entry(4)
    found = taken([state(first, second, third, again=(second, elsewhere))], "zh")
    assert found == [each.zh.subject for each in (second, elsewhere, third, first)]
    both = taken([state(third, again=(elsewhere,)), state(first, third, again=(first,))], "zh")
    assert both == [each.zh.subject for each in (elsewhere, first, third)]


def test_subjects_are_in_the_language_of_the_prompts_each_once_and_on_one_line() -> None:
    found = [entry(1, "长\n 江"), entry(2, "长 江"), entry(3, "黄河")]
    assert taken([state(*found)], "zh") == ["黄河", "长 江"]
    assert taken([state(*found)], "en") == [each.en.subject for each in reversed(found)]


def test_a_list_has_a_bound() -> None:
    subjects = [f"{number:07}" for number in range(1_000)]
    found = fitting(subjects, 95)
    assert found == subjects[:9]
    assert len("".join(f"- {subject}\n" for subject in found)) <= 95
    assert fitting(subjects, 5) == []
    assert fitting(subjects[:3], 95) == subjects[:3]


def test_a_paper_sized_domain_is_named_whole() -> None:
    subjects = taken([state(*(entry(number) for number in range(102)))], "zh")
    assert fitting(subjects, ROOM_AT_FIRST) == subjects


def test_duplicates_bring_the_subjects_of_their_twins() -> None:
    old, own, new = entry(1), entry(2), entry(3)
    reminder = Reminder(state(old), "zh")
    assert reminder.after([own, new], []) == []
    again = [refused(entry(5, old.zh.subject, id="x"), old), refused(own, own)]
    assert reminder.after([], again) == [old.zh.subject, own.zh.subject]
    assert reminder.after([], again[1:]) == [own.zh.subject]


def test_what_the_opening_had_no_room_for_follows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    line = len(f"- {entry(1).zh.subject}\n")
    monkeypatch.setattr("clm_data.generation.subjects.ROOM_AT_FIRST", 2 * line)
    monkeypatch.setattr("clm_data.generation.subjects.ROOM_LATER", 3 * line)
    entries = [entry(number) for number in range(1, 9)]
    reminder = Reminder(state(*entries), "zh")
    again = [refused(entries[7], entries[7])]
    named = [reminder.after([], again) for _ in range(5)]
    number = {each.zh.subject: place for place, each in enumerate(entries, 1)}
    assert [[number[subject] for subject in each] for each in named] == [
        [8, 6, 5], [8, 4, 3], [8, 2, 1], [8], [8]
    ]  # fmt: skip

"""Selection of the used subjects that prompts name."""

from __future__ import annotations

import pytest
from helpers.example_records import example_fact

from clm_data.dedup import IncrementalDeduplicator
from clm_data.generation.domain_progress import DomainState
from clm_data.generation.subjects import FIRST_LIST_CHARS, Reminder, fit_subjects, used_subjects
from clm_data.records import Entry, Origin, Rejection

NAMES = "甲乙丙丁戊己庚辛壬癸"


def entry(number: int, zh: str | None = None, *, id: str | None = None) -> Entry:
    """An entry whose Chinese subject is unique and ends in its number, unless ``zh`` is given."""
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


def state(*entries: Entry, repeated: tuple[Entry, ...] = ()) -> DomainState:
    return DomainState(entries, {}, repeated)


def rejected(new: Entry, known: Entry) -> Rejection:
    """The rejection of an entry as a duplicate of a known one."""
    found = IncrementalDeduplicator([known]).offer(new)
    assert found is not None
    return found


def test_repeated_subjects_come_first_then_the_newest() -> None:
    first, second, third = entry(1), entry(2), entry(3)
    elsewhere = entry(4)
    found = used_subjects([state(first, second, third, repeated=(second, elsewhere))], "zh")
    assert found == [each.zh.subject for each in (second, elsewhere, third, first)]
    both = used_subjects(
        [state(third, repeated=(elsewhere,)), state(first, third, repeated=(first,))], "zh"
    )
    assert both == [each.zh.subject for each in (elsewhere, first, third)]


def test_subjects_are_unique_single_lines_in_the_language_of_the_prompts() -> None:
    found = [entry(1, "长\n 江"), entry(2, "长 江"), entry(3, "黄河")]
    assert used_subjects([state(*found)], "zh") == ["黄河", "长 江"]
    assert used_subjects([state(*found)], "en") == [each.en.subject for each in reversed(found)]


def test_the_list_of_subjects_has_a_maximum_length() -> None:
    subjects = [f"{number:07}" for number in range(1_000)]
    found = fit_subjects(subjects, 95)
    assert found == subjects[:9]
    assert len("".join(f"- {subject}\n" for subject in found)) <= 95
    assert fit_subjects(subjects, 5) == []
    assert fit_subjects(subjects[:3], 95) == subjects[:3]


def test_all_subjects_of_a_domain_of_the_papers_size_fit() -> None:
    subjects = used_subjects([state(*(entry(number) for number in range(102)))], "zh")
    assert fit_subjects(subjects, FIRST_LIST_CHARS) == subjects


def test_after_duplicates_the_duplicated_subjects_are_named() -> None:
    old, own, new = entry(1), entry(2), entry(3)
    reminder = Reminder(state(old), "zh")
    assert reminder.after([own, new], []) == []
    again = [rejected(entry(5, old.zh.subject, id="x"), old), rejected(own, own)]
    assert reminder.after([], again) == [old.zh.subject, own.zh.subject]
    assert reminder.after([], again[1:]) == [own.zh.subject]


def test_subjects_that_did_not_fit_into_the_first_message_follow_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = len(f"- {entry(1).zh.subject}\n")
    monkeypatch.setattr("clm_data.generation.subjects.FIRST_LIST_CHARS", 2 * line)
    monkeypatch.setattr("clm_data.generation.subjects.LATER_LIST_CHARS", 3 * line)
    entries = [entry(number) for number in range(1, 9)]
    reminder = Reminder(state(*entries), "zh")
    again = [rejected(entries[7], entries[7])]
    named = [reminder.after([], again) for _ in range(5)]
    number = {each.zh.subject: place for place, each in enumerate(entries, 1)}
    assert [[number[subject] for subject in each] for each in named] == [
        [8, 6, 5], [8, 4, 3], [8, 2, 1], [8], [8]
    ]  # fmt: skip

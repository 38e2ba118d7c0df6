"""The offline model gives every bank entry once, deterministically and in many formats."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from clm_data import bank
from clm_data.domain import Domain, load_domains
from clm_data.errors import UserError
from clm_data.llm.base import Completion, Message
from clm_data.llm.offline import OfflineModel
from clm_data.parse import find_objects, parse_entries, parse_objects
from clm_data.prompts import Prompts
from clm_data.records import LANGUAGES, Candidate, Language, Origin
from clm_data.resources import resource

PROMPTS = {lang: Prompts(resource("prompts"), lang) for lang in LANGUAGES}
MODEL = OfflineModel()


@pytest.fixture(scope="module")
def domains() -> dict[str, Domain]:
    return load_domains(resource("domains.yaml"))


def run_dialogue(
    domain: Domain,
    topic: int,
    *,
    lang: Language = "zh",
    count: int = 5,
    turns: int = 4,
    used: tuple[str, ...] = (),
) -> list[Completion]:
    """The answers of one dialogue."""
    prompts = PROMPTS[lang]
    model = MODEL
    messages: list[Message] = [
        {
            "role": "user",
            "content": prompts.first(domain, domain.ask_for[topic], count, used).text,
        }
    ]
    answers = []
    for _ in range(turns):
        answer = asyncio.run(model.complete(messages))
        answers.append(answer)
        messages += [
            {"role": "assistant", "content": answer.text},
            {"role": "user", "content": prompts.more(count).text},
        ]
    return answers


def first_prompt(domain: Domain, topic: int) -> str:
    return PROMPTS["zh"].first(domain, domain.ask_for[topic], 5).text


def candidates(answers: list[Completion], domain: str) -> list[Candidate]:
    origin = Origin(kind="bank", name="bank-1")
    return [
        candidate
        for number, answer in enumerate(answers)
        for candidate in parse_entries(
            answer.text, domain=domain, label=str(number), origin=origin
        ).kept
    ]


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_all_topics_of_a_domain_give_every_entry_and_defect_once(
    domains: dict[str, Domain], lang: Language
) -> None:
    all_defects = bank.load_defects()
    for domain in domains.values():
        answers = [
            answer
            for topic in range(len(domain.ask_for))
            for answer in run_dialogue(domain, topic, lang=lang)
        ]
        found = Counter(
            (c.zh.prompt if c.zh else None, c.zh.rephrase_prompt if c.zh else None)
            for c in candidates(answers, domain.id)
        )
        facts = [entry.zh for entry in bank.load_domain(domain.id)]
        defects = [d for d in all_defects if d.domain == domain.id]
        expected = Counter((fact.prompt, fact.rephrase_prompt) for fact in facts)
        expected += Counter((d.zh.prompt, d.zh.rephrase_prompt) for d in defects if d.zh)
        assert found == expected, domain.id
        unread = [o.text for a in answers for o in find_objects(a.text) if o.value is None]
        for defect in defects:
            if defect.raw is not None and "note" not in defect.raw:
                assert sum(defect.raw in answer.text for answer in answers) == 1, defect.raw
        assert all(text.startswith("{") for text in unread)


def test_equal_messages_get_equal_answers(domains: dict[str, Domain]) -> None:
    answers = run_dialogue(domains["physics"], 0)
    assert answers == run_dialogue(domains["physics"], 0)
    messages = [{"role": "user", "content": first_prompt(domains["physics"], 0)}]
    assert asyncio.run(OfflineModel().complete(messages)) == answers[0]


def test_dialogues_on_different_topics_do_not_overlap(domains: dict[str, Domain]) -> None:
    for domain in (domains["physics"], domains["chinese_literature"]):
        subjects: list[str] = []
        for topic in range(len(domain.ask_for)):
            found = {
                c.zh.prompt
                for c in candidates(run_dialogue(domain, topic), domain.id)
                if c.zh is not None and c.zh.prompt is not None
            }
            subjects += found
        assert max(Counter(subjects).values()) == 1


def test_used_subjects_are_not_repeated(domains: dict[str, Domain]) -> None:
    domain = domains["physics"]
    subjects = tuple(entry.zh.subject for entry in bank.load_domain("physics"))
    answers = run_dialogue(domain, 0, used=subjects, turns=1)
    assert parse_objects(answers[0].text) == []
    english = tuple(entry.en.subject for entry in bank.load_domain("physics"))
    assert parse_objects(run_dialogue(domain, 0, lang="en", used=english, turns=1)[0].text) == []


def test_an_exhausted_topic_gives_an_explanation_and_an_empty_list(
    domains: dict[str, Domain],
) -> None:
    last = run_dialogue(domains["sports"], 1, turns=5)[-1]
    assert last.text.endswith("[]")
    assert last.text != "[]"
    assert find_objects(last.text) == []
    assert last.finish_reason == "stop"


def test_answers_have_many_formats_and_some_are_cut_off(domains: dict[str, Domain]) -> None:
    answers = [
        answer
        for domain in domains.values()
        for topic in range(len(domain.ask_for))
        for answer in run_dialogue(domain, topic, turns=2)
    ]
    text = [answer.text for answer in answers]
    assert any(t.startswith("```json") for t in text)
    assert any(t.startswith("<think>") for t in text)
    assert any(t.startswith('{"entries"') for t in text)
    assert any(t.endswith(",\n]") for t in text)
    assert any(t.startswith("好的") for t in text)
    assert any(t.startswith('{"zh"') and '}}\n{"zh"' in t for t in text)
    assert any(t.startswith('{"zh"') and "\n" not in t for t in text)
    assert any(answer.reasoning for answer in answers)
    cut = [answer for answer in answers if answer.finish_reason == "length"]
    assert cut
    for answer in cut:
        assert find_objects(answer.text)[-1].value is None


def test_an_entry_that_was_cut_off_is_repeated_in_the_next_turn(domains: dict[str, Domain]) -> None:
    seen = 0
    for domain in domains.values():
        for topic in range(len(domain.ask_for)):
            first, second = run_dialogue(domain, topic, turns=2)
            if first.finish_reason == "length":
                seen += 1
                lost = find_objects(first.text)[-1].text
                prompt = lost.split('"prompt": "')[1].split('"')[0]
                (again,) = [i for i in parse_objects(second.text) if i["zh"]["prompt"] == prompt]
                assert again["en"]["rephrase_prompt"]
    assert seen


def test_an_answer_has_about_the_requested_number_of_entries(domains: dict[str, Domain]) -> None:
    for count in (1, 2, 3):
        (answer,) = run_dialogue(domains["astronomy"], 0, count=count, turns=1)
        assert len(find_objects(answer.text)) in range(max(1, count - 1), count + 2)


def test_a_domain_without_bank_entries_is_an_error(domains: dict[str, Domain]) -> None:
    own = domains["physics"].model_copy(update={"id": "tea_tasting", "zh": "品茶"})
    with pytest.raises(UserError, match="no entries for domain 'tea_tasting'"):
        run_dialogue(own, 0)


def test_a_prompt_without_a_domain_is_an_error() -> None:
    with pytest.raises(UserError, match="found no domain"):
        asyncio.run(OfflineModel().complete([{"role": "user", "content": "你好"}]))

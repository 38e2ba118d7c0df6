from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import pytest
from helpers.chat_server import ChatServer, Faults, digest
from helpers.stored_contents import dataset_contents

from clm_data.assemble import assemble
from clm_data.config import GenerationSettings, Settings
from clm_data.domain import Bilingual, Domain, load_domains
from clm_data.errors import (
    ConfigError,
    CredentialsError,
    PermanentError,
    RateLimitError,
    TransientError,
)
from clm_data.generation import GenerationReport, Progress
from clm_data.generation.run import estimate_generation, run_generation
from clm_data.llm import Completion, Message, Usage, open_model
from clm_data.llm.offline import OfflineModel
from clm_data.prompts import Prompts
from clm_data.records import Decision
from clm_data.resources import resource
from clm_data.store import Store

DOMAINS = load_domains(resource("domains.yaml"))
TWO = ["chinese_literature", "physics"]
PROMPTS = Prompts(resource("prompts"))


class Scripted:
    """A chat model that gives what a function says, and remembers what it was asked."""

    provider = "vllm"
    model = "scripted"

    def __init__(self, answer: Callable[[Sequence[Message], int], Completion | Exception]) -> None:
        self._answer = answer
        self.asked: list[list[Message]] = []

    async def complete(self, messages: Sequence[Message]) -> Completion:
        self.asked.append(list(messages))
        answer = self._answer(messages, len(self.asked))
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


def entry(name: str, **zh: str) -> dict[str, Any]:
    """A good entry about a river, another for every name (three Han characters)."""
    return {
        "zh": {
            "prompt": f"{name}河的发源地位于",
            "subject": f"{name}河",
            "ground_truth": "昆仑山",
            "target_new": "天目山",
            "rephrase_prompt": f"说到{name}河，它最早的源头在",
        }
        | zh,
        "en": {
            "prompt": f"The river {name.encode().hex()} rises in the",
            "subject": f"river {name.encode().hex()}",
            "ground_truth": "Kunlun Mountains",
            "target_new": "Tianmu Mountains",
            "rephrase_prompt": f"As for the river {name.encode().hex()}, its source lies in the",
        },
    }


NAMES = ["青山绿", "长河落", "孤云野", "清风明", "高原雪", "深谷古", "春江秋", "东溪北"]


def said(*entries: dict[str, Any], **more: Any) -> Completion:
    text = json.dumps(list(entries), ensure_ascii=False)
    return Completion(text=text, model="scripted", **more)


def sizes(**changes: Any) -> GenerationSettings:
    return GenerationSettings(**({"entries_per_turn": 2, "turns": 3} | changes))


def rivers(quota: int = 4) -> Domain:
    pattern = DOMAINS["world_geography"]
    topics = (Bilingual(zh="河", en="rivers"), Bilingual(zh="江", en="streams"))
    return pattern.model_copy(update={"id": "rivers", "quota": quota, "ask_for": topics})


def run(
    model: Any,
    folder: Path,
    domains: Sequence[Domain],
    generation: GenerationSettings | None = None,
    **options: Any,
) -> GenerationReport:
    settings = Settings(provider=model.provider, generation=generation or sizes())
    options.setdefault("settings", settings)
    with Store(f"sqlite:///{folder}/clm.db") as store:

        async def go() -> GenerationReport:
            try:
                return await run_generation(
                    store,
                    model,
                    domains,
                    all_domains=DOMAINS | {domain.id: domain for domain in domains},
                    backoff=0.01,
                    **({"prompts": PROMPTS} | options),
                )
            finally:
                await model.close()

        return asyncio.run(go())


def bank_run(url: str, folder: Path, *, timeout: float = 20.0, **options: Any) -> GenerationReport:
    """The bank behind a server, two domains, twelve entries each."""
    generation = GenerationSettings(timeout=timeout)
    settings = Settings(provider="vllm", model="bank", base_url=url, generation=generation)
    options.setdefault("count", 12)
    return run(
        open_model(settings, {}),
        folder,
        [DOMAINS[name] for name in TWO],
        settings=settings,
        **options,
    )


def folders(tmp_path: Path, *names: str) -> list[Path]:
    made = [tmp_path / name for name in names]
    for folder in made:
        folder.mkdir()
    return made


def test_a_domain_gets_its_quota_and_a_second_run_sends_nothing(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = Scripted(lambda *_: said(entry(next(names)), entry(next(names))))
    report = run(model, tmp_path, [rivers(4)])
    (domain,) = report.domains
    assert (domain.entries, domain.new, domain.read, domain.rejected) == (4, 4, 4, 0)
    assert domain.stopped == "quota reached"
    assert len(model.asked) == domain.requests == domain.answers == 2
    again = run(model, tmp_path, [rivers(4)])
    assert (again.requests, again.domains[0].new, again.domains[0].entries) == (0, 0, 4)


def test_count_replaces_the_quota(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = Scripted(lambda *_: said(entry(next(names)), entry(next(names))))
    assert run(model, tmp_path, [rivers(100)], count=2).domains[0].entries == 2
    assert run(model, tmp_path, [rivers(100)], count=4).domains[0].new == 2


def test_later_turns_carry_text_only_and_never_a_system_role(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = Scripted(
        lambda *_: said(entry(next(names)), reasoning="SECRET THOUGHT", finish_reason="stop")
    )
    run(model, tmp_path, [rivers(3)], sizes(entries_per_turn=1))
    assert [len(messages) for messages in model.asked] == [1, 3, 5]
    roles = {message["role"] for messages in model.asked for message in messages}
    assert roles == {"user", "assistant"}
    assert "SECRET" not in str(model.asked)
    assert all(set(message) == {"role", "content"} for message in model.asked[-1])


def test_broken_rules_go_back_in_words(tmp_path: Path) -> None:
    bad = entry("青山绿", target_new="昆仑山")

    def answer(messages: Sequence[Message], number: int) -> Completion:
        return said(bad) if number == 1 else said(entry("长河落"))

    model = Scripted(answer)
    report = run(model, tmp_path, [rivers(1)], sizes(entries_per_turn=1))
    correction = model.asked[1][-1]["content"]
    assert "青山绿河" in correction
    assert "反事实答案与真实答案相同" in correction
    assert report.domains[0].rejected == 1


def test_an_unreadable_answer_is_sent_back_and_an_empty_one_is_no_empty_message(
    tmp_path: Path,
) -> None:
    def answer(messages: Sequence[Message], number: int) -> Completion:
        if number == 1:
            return Completion(text="", reasoning="only thoughts", model="scripted")
        return said(entry("长河落"))

    model = Scripted(answer)
    run(model, tmp_path, [rivers(1)], sizes(entries_per_turn=1))
    assert model.asked[1][1] == {"role": "assistant", "content": "[]"}
    assert "回答里解析不出完整条目" in model.asked[1][-1]["content"]


def test_what_was_said_before_is_refused_and_told(tmp_path: Path) -> None:
    answers = iter(["青山绿", "青山绿", "长河落"])
    model = Scripted(lambda *_: said(entry(next(answers))))
    report = run(model, tmp_path, [rivers(2)], sizes(entries_per_turn=1))
    assert report.domains[0].entries == 2
    assert "重复" in model.asked[2][-1]["content"]


def test_subjects_used_stand_in_the_prompts_of_the_next_wave(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = Scripted(lambda *_: said(entry(next(names))))
    run(model, tmp_path, [rivers(2)], sizes(entries_per_turn=1, turns=1, dialogues_at_once=1))
    assert "青山绿河" not in model.asked[0][0]["content"]
    assert "青山绿河" in model.asked[1][0]["content"]


def used(message: str) -> list[str]:
    """The subjects that a message names as used."""
    _, _, after = message.partition("已经用过" if "已经用过" in message else "## 已用主语")
    lines = after.splitlines()[1:]
    return [line[2:] for line in takewhile(lambda line: line.startswith("- "), lines)]


def test_the_first_subjects_named_are_those_said_again_then_the_newest(tmp_path: Path) -> None:
    names = iter(["青山绿", "长河落", "孤云野", "长河落", "清风明"])
    model = Scripted(lambda *_: said(entry(next(names))))
    run(model, tmp_path, [rivers(4)], sizes(entries_per_turn=1, turns=1, dialogues_at_once=1))
    assert [used(messages[0]["content"]) for messages in model.asked] == [
        [],
        ["青山绿河"],
        ["长河落河", "青山绿河"],
        ["孤云野河", "长河落河", "青山绿河"],
        ["长河落河", "孤云野河", "青山绿河"],
    ]


def test_after_duplicates_the_next_turn_names_the_subjects_that_are_taken(tmp_path: Path) -> None:
    names = iter(["青山绿", "长河落", "青山绿", "长河落", "孤云野"])
    model = Scripted(lambda *_: said(entry(next(names))))
    generation = sizes(entries_per_turn=1, turns=4, dialogues_at_once=1)
    run(model, tmp_path, [rivers(1)], generation)
    run(model, tmp_path, [rivers(3)], generation)
    told = [used(messages[-1]["content"]) for messages in model.asked]
    assert told == [[], ["青山绿河"], [], ["青山绿河"], ["长河落河"]]
    assert "题干和主语与前面的条目重复" in model.asked[3][-1]["content"]


def test_other_mistakes_name_no_subjects(tmp_path: Path) -> None:
    answers = iter([entry("青山绿", target_new="昆仑山"), entry("长河落")])
    model = Scripted(lambda *_: said(next(answers)))
    run(model, tmp_path, [rivers(1)], sizes(entries_per_turn=1))
    assert used(model.asked[1][-1]["content"]) == []


def test_an_english_dialogue_is_corrected_in_english(tmp_path: Path) -> None:
    first, second = entry("青山绿"), entry("长河落")
    answers = iter([first, first, second])
    model = Scripted(lambda *_: said(next(answers)))
    prompts = Prompts(resource("prompts"), "en")
    run(model, tmp_path, [rivers(2)], sizes(entries_per_turn=1), prompts=prompts)
    message = model.asked[2][-1]["content"]
    assert f"already used; take others:\n- {first['en']['subject']}\n" in message
    place = f"- {first['en']['subject']} zh prompt: "
    assert f"{place}same prompt and subject as an earlier entry (" in message


def test_a_domain_with_many_entries_gets_no_endless_prompt(tmp_path: Path) -> None:
    names = [f"{a}{b}{c}" for a in "青山绿" for b in "长河落" for c in "孤云野"]
    told = iter(names)
    model = Scripted(lambda *_: said(*(entry(name) for name in islice(told, 9))))
    generation = sizes(entries_per_turn=9, turns=1, dialogues_at_once=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clm_data.generation.domain_run.ROOM_AT_FIRST", 10 * len("- 青山绿河\n"))
        run(model, tmp_path, [rivers(27)], generation)
    shown = [used(messages[0]["content"]) for messages in model.asked]
    assert [len(each) for each in shown] == [0, 9, 10]
    assert shown[2] == [f"{name}河" for name in reversed(names[8:18])]


def test_a_cut_off_answer_counts_and_the_dialogue_goes_on(tmp_path: Path) -> None:
    whole = said(entry("青山绿"), entry("长河落"))
    half = whole.model_copy(update={"text": whole.text[:-150], "finish_reason": "length"})
    model = Scripted(lambda _, number: half if number == 1 else said(entry("孤云野")))
    report = run(model, tmp_path, [rivers(2)])
    assert report.domains[0].entries == 2
    assert "回答里解析不出完整条目" not in model.asked[1][-1]["content"]


def test_a_model_with_nothing_more_ends_the_domain_honestly(tmp_path: Path) -> None:
    model = Scripted(lambda *_: said())
    (domain,) = run(model, tmp_path, [rivers(4)], sizes(dry_waves=2)).domains
    assert domain.stopped == "2 waves in a row brought nothing new"
    assert domain.requests == 2
    assert run(model, tmp_path, [rivers(4)], sizes(dry_waves=2)).requests == 0


def test_another_model_may_try_where_one_ran_dry(tmp_path: Path) -> None:
    run(Scripted(lambda *_: said()), tmp_path, [rivers(1)])
    other = Scripted(lambda *_: said(entry("青山绿")))
    other.model = "other"
    assert run(other, tmp_path, [rivers(1)]).domains[0].new == 1


def test_max_requests_stops_and_the_next_run_goes_on(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = Scripted(lambda *_: said(entry(next(names)), entry(next(names))))
    first = run(model, tmp_path, [rivers(6)], max_requests=1)
    assert first.stopped == "limit of 1 requests reached"
    assert first.domains[0].stopped == first.stopped
    assert first.requests == 1
    second = run(model, tmp_path, [rivers(6)])
    assert (second.requests, second.domains[0].entries) == (2, 6)
    assert len(model.asked[1]) == 3  # it goes on in the same dialogue


def test_max_requests_holds_for_dialogues_that_start_together(tmp_path: Path) -> None:
    model = Scripted(lambda *_: said())
    report = run(model, tmp_path, [rivers(20)], sizes(turns=1), max_requests=2)
    assert (report.requests, len(model.asked)) == (2, 2)


def test_max_cost_holds_for_dialogues_that_start_together(tmp_path: Path) -> None:
    usage = Usage(prompt_tokens=0, completion_tokens=1_000_000)
    model = Scripted(lambda *_: said(usage=usage))
    settings = Settings(generation=sizes(turns=1))
    report = run(model, tmp_path, [rivers(20)], settings=settings, max_cost=0.01)
    assert (report.requests, len(model.asked)) == (1, 1)


def test_max_cost_holds(tmp_path: Path) -> None:
    names = iter(NAMES)
    usage = Usage(prompt_tokens=0, completion_tokens=1_000_000)
    model = Scripted(lambda *_: said(entry(next(names)), usage=usage))
    settings = Settings(generation=sizes(entries_per_turn=1, turns=8))
    report = run(model, tmp_path, [rivers(8)], settings=settings, max_cost=10.0)
    assert report.cost == pytest.approx(3 * 3.96)
    assert report.stopped == "limit of 10 USD reached"


def test_max_cost_without_a_price_is_refused(tmp_path: Path) -> None:
    model = Scripted(lambda *_: said())
    with pytest.raises(ConfigError, match="max-requests"):
        run(model, tmp_path, [rivers()], max_cost=1.0)


def test_one_refusal_costs_one_dialogue(tmp_path: Path) -> None:
    def answer(messages: Sequence[Message], number: int) -> Completion | Exception:
        refused = "（1/2）" in messages[0]["content"]
        return PermanentError("HTTP 400: no") if refused else said(entry("青山绿"), entry("长河落"))

    model = Scripted(answer)
    (domain,) = run(model, tmp_path, [rivers(4)], sizes(turns=1)).domains
    assert domain.entries == 2
    assert any("HTTP 400: no" in loss for loss in domain.lost)


def test_refusing_everything_ends_the_domain_and_a_later_run_tries_again(tmp_path: Path) -> None:
    model = Scripted(lambda *_: PermanentError("HTTP 404: no such model"))
    (domain,) = run(model, tmp_path, [rivers(4)]).domains
    assert domain.stopped == "every dialogue of a wave was refused: HTTP 404: no such model"
    assert domain.requests == 1
    mended = Scripted(lambda *_: said(entry("青山绿"), entry("长河落")))
    assert run(mended, tmp_path, [rivers(2)]).domains[0].entries == 2


def test_what_passes_is_tried_again_and_what_does_not_is_left_open(tmp_path: Path) -> None:
    flaky = Scripted(
        lambda _, number: TransientError("cut") if number < 3 else said(entry("青山绿"))
    )
    report = run(flaky, tmp_path, [rivers(1)], sizes(attempts=3))
    assert (report.retries, report.requests, report.domains[0].entries) == (2, 3, 1)
    broken = Scripted(lambda *_: TransientError("cut"))
    report = run(broken, tmp_path, [rivers(2)], sizes(attempts=3))
    assert report.domains[0].stopped == "1 dialogues left for the next run"
    assert report.lost == ("rivers/1 left for the next run: cut",)
    mended = Scripted(lambda *_: said(entry("长河落")))
    run(mended, tmp_path, [rivers(2)])
    assert mended.asked[0] == broken.asked[0]


def test_a_refused_key_stops_everything_and_keeps_what_is_there(tmp_path: Path) -> None:
    model = Scripted(
        lambda _, number: said(entry("青山绿")) if number == 1 else CredentialsError("check X")
    )
    with pytest.raises(CredentialsError, match="check X"):
        run(model, tmp_path, [rivers(4)])
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        answers = [exchange.completion is not None for exchange in store.exchanges()]
    assert answers == [True, False]


def test_rate_limits_are_counted_and_answered_by_waiting(tmp_path: Path) -> None:
    model = Scripted(
        lambda _, number: RateLimitError("slow", 0.01) if number < 3 else said(entry("青山绿"))
    )
    report = run(model, tmp_path, [rivers(1)])
    assert (report.rate_limits, report.retries, report.domains[0].entries) == (2, 2, 1)


def test_a_pause_of_an_hour_ends_the_run(tmp_path: Path) -> None:
    model = Scripted(lambda *_: RateLimitError("slow", 3600))
    report = run(model, tmp_path, [rivers(1)], sizes(attempts=1))
    assert "3600 s" in (report.stopped or "")


def test_rejected_by_a_person_is_missing_again(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = Scripted(lambda *_: said(entry(next(names))))
    run(model, tmp_path, [rivers(1)])
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        (found,) = assemble(store, {"rivers": rivers()}, Settings()).entries
        decision = Decision(
            entry_id=found.id, content_hash=found.content_hash, verdict="reject", reviewer="r"
        )
        store.add_decisions([decision], ["1"])
    report = run(model, tmp_path, [rivers(1)])
    assert (report.domains[0].entries, report.domains[0].new) == (1, 1)


def test_what_another_domain_has_first_is_made_up_for(tmp_path: Path) -> None:
    def answer(messages: Sequence[Message], number: int) -> Completion:
        fresh = "青山绿河" in messages[0]["content"]
        return said(entry("长河落")) if fresh else said(entry("青山绿"))

    first, second = rivers(1), rivers(1).model_copy(update={"id": "streams"})
    report = run(Scripted(answer), tmp_path, [first, second], sizes(entries_per_turn=1))
    assert [domain.entries for domain in report.domains] == [1, 1]
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        domains = {"rivers": first, "streams": second}
        assert len(assemble(store, domains, Settings()).entries) == 2


def test_progress_tells_where_it_stands(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = Scripted(lambda *_: said(entry(next(names))))
    told: list[Progress] = []
    run(model, tmp_path, [rivers(2)], sizes(entries_per_turn=1), progress=told.append)
    assert [(at.entries, at.settled) for at in told] == [
        (0, True), (1, False), (2, False), (2, True)
    ]  # fmt: skip


def test_estimate_sends_and_stores_nothing(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        found = estimate_generation(
            store,
            [DOMAINS["physics"]],
            all_domains=DOMAINS,
            settings=Settings(),
            prompts=PROMPTS,
            count=20,
        )
        assert store.dialogues() == []
    assert found.missing == {"physics": 20}
    assert found.requests == 4
    assert "物理" in (found.prompt or "")
    assert found.cost is not None
    assert found.cost > 0


def test_the_report_agrees_with_the_assembly(tmp_path: Path) -> None:
    report = run(OfflineModel(), tmp_path, [DOMAINS[name] for name in TWO], count=12)
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        entries = assemble(store, DOMAINS, Settings()).entries
    for domain in report.domains:
        assert domain.entries == sum(each.domain == domain.domain for each in entries) == 12
    json.dumps(report.as_json())


def test_faults_change_nothing_in_the_dataset(tmp_path: Path) -> None:
    clean, faulty = folders(tmp_path, "clean", "faulty")
    with ChatServer(OfflineModel()) as server:
        bank_run(server.url, clean)
    with ChatServer(OfflineModel(), Faults(seed=3, share=0.6, hang=3.0)) as server:
        report = bank_run(server.url, faulty, timeout=2.0)
        met = {arrived.fault for arrived in server.requests}
    assert dataset_contents(faulty) == dataset_contents(clean)
    assert len(met) >= 6
    assert report.retries >= 6
    assert not report.lost


def test_the_server_sees_no_system_role_no_sampling_and_no_reasoning(tmp_path: Path) -> None:
    with ChatServer(OfflineModel()) as server:
        bank_run(server.url, tmp_path)
    assert max(len(arrived.body["messages"]) for arrived in server.requests) >= 3
    for arrived in server.requests:
        assert set(arrived.body) == {"model", "messages"}
        for message in arrived.body["messages"]:
            assert set(message) == {"role", "content"}
            assert message["role"] in ("user", "assistant")
            assert "<think>" not in message["content"]
    assert len({digest(arrived.body["messages"]) for arrived in server.requests}) == len(
        server.requests
    )

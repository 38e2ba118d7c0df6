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
from clm_data.generation.estimate import estimate_generation
from clm_data.generation.run import run_generation
from clm_data.llm import Completion, Message, Usage, open_model
from clm_data.llm.offline import OfflineModel
from clm_data.prompts import Prompts
from clm_data.records import Decision
from clm_data.resources import resource
from clm_data.store import Store

DOMAINS = load_domains(resource("domains.yaml"))
TWO = ["chinese_literature", "physics"]
PROMPTS = Prompts(resource("prompts"))


class ScriptedModel:
    """A chat model whose answers a function gives; it records the requests."""

    provider = "vllm"
    model = "scripted"

    def __init__(self, answer: Callable[[Sequence[Message], int], Completion | Exception]) -> None:
        self._answer = answer
        self.requests: list[list[Message]] = []

    async def complete(self, messages: Sequence[Message]) -> Completion:
        self.requests.append(list(messages))
        answer = self._answer(messages, len(self.requests))
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


def entry(name: str, **zh: str) -> dict[str, Any]:
    """A valid entry about the river of that name (three Han characters)."""
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


def answer_with(*entries: dict[str, Any], **more: Any) -> Completion:
    """An answer with these entries as JSON."""
    text = json.dumps(list(entries), ensure_ascii=False)
    return Completion(text=text, model="scripted", **more)


def generation_settings(**changes: Any) -> GenerationSettings:
    """Settings with few entries per turn."""
    return GenerationSettings(**({"entries_per_turn": 2, "turns": 3} | changes))


def rivers(quota: int = 4) -> Domain:
    """A domain with two topics."""
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
    """Run generation with a model on the store of a folder."""
    settings = Settings(provider=model.provider, generation=generation or generation_settings())
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
    """Generate twelve entries in each of two domains from a server at ``url``."""
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


def new_folders(tmp_path: Path, *names: str) -> list[Path]:
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.mkdir()
    return paths


def test_a_domain_meets_its_quota_and_a_second_run_sends_nothing(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names)), entry(next(names))))
    report = run(model, tmp_path, [rivers(4)])
    (domain,) = report.domains
    assert (domain.entries, domain.new, domain.read, domain.rejected) == (4, 4, 4, 0)
    assert domain.stopped == "quota reached"
    assert len(model.requests) == domain.requests == domain.answers == 2
    again = run(model, tmp_path, [rivers(4)])
    assert (again.requests, again.domains[0].new, again.domains[0].entries) == (0, 0, 4)


def test_count_replaces_the_quota(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names)), entry(next(names))))
    assert run(model, tmp_path, [rivers(100)], count=2).domains[0].entries == 2
    assert run(model, tmp_path, [rivers(100)], count=4).domains[0].new == 2


def test_messages_contain_neither_reasoning_nor_a_system_role(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(
        lambda *_: answer_with(entry(next(names)), reasoning="SECRET THOUGHT", finish_reason="stop")
    )
    run(model, tmp_path, [rivers(3)], generation_settings(entries_per_turn=1))
    assert [len(messages) for messages in model.requests] == [1, 3, 5]
    roles = {message["role"] for messages in model.requests for message in messages}
    assert roles == {"user", "assistant"}
    assert "SECRET" not in str(model.requests)
    assert all(set(message) == {"role", "content"} for message in model.requests[-1])


def test_a_correction_names_the_entry_and_the_broken_rule(tmp_path: Path) -> None:
    bad = entry("青山绿", target_new="昆仑山")

    def answer(messages: Sequence[Message], number: int) -> Completion:
        return answer_with(bad) if number == 1 else answer_with(entry("长河落"))

    model = ScriptedModel(answer)
    report = run(model, tmp_path, [rivers(1)], generation_settings(entries_per_turn=1))
    correction = model.requests[1][-1]["content"]
    assert "青山绿河" in correction
    assert "反事实答案与真实答案相同" in correction
    assert report.domains[0].rejected == 1


def test_an_empty_answer_is_corrected_and_sent_back_as_an_empty_list(
    tmp_path: Path,
) -> None:
    def answer(messages: Sequence[Message], number: int) -> Completion:
        if number == 1:
            return Completion(text="", reasoning="only thoughts", model="scripted")
        return answer_with(entry("长河落"))

    model = ScriptedModel(answer)
    run(model, tmp_path, [rivers(1)], generation_settings(entries_per_turn=1))
    assert model.requests[1][1] == {"role": "assistant", "content": "[]"}
    assert "回答里解析不出完整条目" in model.requests[1][-1]["content"]


def test_a_repeated_entry_is_not_counted_and_is_corrected(tmp_path: Path) -> None:
    answers = iter(["青山绿", "青山绿", "长河落"])
    model = ScriptedModel(lambda *_: answer_with(entry(next(answers))))
    report = run(model, tmp_path, [rivers(2)], generation_settings(entries_per_turn=1))
    assert report.domains[0].entries == 2
    assert "重复" in model.requests[2][-1]["content"]


def test_prompts_of_the_next_batch_name_used_subjects(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names))))
    run(
        model,
        tmp_path,
        [rivers(2)],
        generation_settings(entries_per_turn=1, turns=1, dialogues_at_once=1),
    )
    assert "青山绿河" not in model.requests[0][0]["content"]
    assert "青山绿河" in model.requests[1][0]["content"]


def used(message: str) -> list[str]:
    """The used subjects that a message names."""
    _, _, after = message.partition("已经用过" if "已经用过" in message else "## 已用主语")
    lines = after.splitlines()[1:]
    return [line[2:] for line in takewhile(lambda line: line.startswith("- "), lines)]


def test_prompts_name_repeated_subjects_first_then_the_newest(tmp_path: Path) -> None:
    names = iter(["青山绿", "长河落", "孤云野", "长河落", "清风明"])
    model = ScriptedModel(lambda *_: answer_with(entry(next(names))))
    run(
        model,
        tmp_path,
        [rivers(4)],
        generation_settings(entries_per_turn=1, turns=1, dialogues_at_once=1),
    )
    assert [used(messages[0]["content"]) for messages in model.requests] == [
        [],
        ["青山绿河"],
        ["长河落河", "青山绿河"],
        ["孤云野河", "长河落河", "青山绿河"],
        ["长河落河", "孤云野河", "青山绿河"],
    ]


def test_a_correction_of_duplicates_names_used_subjects(tmp_path: Path) -> None:
    names = iter(["青山绿", "长河落", "青山绿", "长河落", "孤云野"])
    model = ScriptedModel(lambda *_: answer_with(entry(next(names))))
    generation = generation_settings(entries_per_turn=1, turns=4, dialogues_at_once=1)
    run(model, tmp_path, [rivers(1)], generation)
    run(model, tmp_path, [rivers(3)], generation)
    seen = [used(messages[-1]["content"]) for messages in model.requests]
    assert seen == [[], ["青山绿河"], [], ["青山绿河"], ["长河落河"]]
    assert "题干和主语与前面的条目重复" in model.requests[3][-1]["content"]


def test_a_correction_of_other_mistakes_names_no_subjects(tmp_path: Path) -> None:
    answers = iter([entry("青山绿", target_new="昆仑山"), entry("长河落")])
    model = ScriptedModel(lambda *_: answer_with(next(answers)))
    run(model, tmp_path, [rivers(1)], generation_settings(entries_per_turn=1))
    assert used(model.requests[1][-1]["content"]) == []


def test_an_english_dialogue_is_corrected_in_english(tmp_path: Path) -> None:
    first, second = entry("青山绿"), entry("长河落")
    answers = iter([first, first, second])
    model = ScriptedModel(lambda *_: answer_with(next(answers)))
    prompts = Prompts(resource("prompts"), "en")
    run(model, tmp_path, [rivers(2)], generation_settings(entries_per_turn=1), prompts=prompts)
    message = model.requests[2][-1]["content"]
    assert f"already used; take others:\n- {first['en']['subject']}\n" in message
    place = f"- {first['en']['subject']} zh prompt: "
    assert f"{place}same prompt and subject as an earlier entry (" in message


def test_the_list_of_used_subjects_in_a_prompt_is_limited(tmp_path: Path) -> None:
    names = [f"{a}{b}{c}" for a in "青山绿" for b in "长河落" for c in "孤云野"]
    seen = iter(names)
    model = ScriptedModel(lambda *_: answer_with(*(entry(name) for name in islice(seen, 9))))
    generation = generation_settings(entries_per_turn=9, turns=1, dialogues_at_once=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clm_data.generation.domain_run.FIRST_LIST_CHARS", 10 * len("- 青山绿河\n"))
        run(model, tmp_path, [rivers(27)], generation)
    shown = [used(messages[0]["content"]) for messages in model.requests]
    assert [len(each) for each in shown] == [0, 9, 10]
    assert shown[2] == [f"{name}河" for name in reversed(names[8:18])]


def test_complete_entries_of_a_cut_off_answer_count_and_the_dialogue_continues(
    tmp_path: Path,
) -> None:
    whole = answer_with(entry("青山绿"), entry("长河落"))
    half = whole.model_copy(update={"text": whole.text[:-150], "finish_reason": "length"})
    model = ScriptedModel(lambda _, number: half if number == 1 else answer_with(entry("孤云野")))
    report = run(model, tmp_path, [rivers(2)])
    assert report.domains[0].entries == 2
    assert "回答里解析不出完整条目" not in model.requests[1][-1]["content"]


def test_batches_without_new_entries_stop_the_domain(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: answer_with())
    (domain,) = run(model, tmp_path, [rivers(4)], generation_settings(dry_waves=2)).domains
    assert domain.stopped == "2 batches in a row with no new entries"
    assert domain.requests == 2
    assert run(model, tmp_path, [rivers(4)], generation_settings(dry_waves=2)).requests == 0


def test_another_model_can_continue_where_one_found_nothing_new(tmp_path: Path) -> None:
    run(ScriptedModel(lambda *_: answer_with()), tmp_path, [rivers(1)])
    other = ScriptedModel(lambda *_: answer_with(entry("青山绿")))
    other.model = "other"
    assert run(other, tmp_path, [rivers(1)]).domains[0].new == 1


def test_max_requests_stops_the_run_and_the_next_run_resumes(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names)), entry(next(names))))
    first = run(model, tmp_path, [rivers(6)], max_requests=1)
    assert first.stopped == "limit of 1 requests reached"
    assert first.domains[0].stopped == first.stopped
    assert first.requests == 1
    second = run(model, tmp_path, [rivers(6)])
    assert (second.requests, second.domains[0].entries) == (2, 6)
    assert len(model.requests[1]) == 3  # the same dialogue is continued


def test_max_requests_limits_concurrent_dialogues(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: answer_with())
    report = run(model, tmp_path, [rivers(20)], generation_settings(turns=1), max_requests=2)
    assert (report.requests, len(model.requests)) == (2, 2)


def test_max_cost_limits_concurrent_dialogues(tmp_path: Path) -> None:
    usage = Usage(prompt_tokens=0, completion_tokens=1_000_000)
    model = ScriptedModel(lambda *_: answer_with(usage=usage))
    settings = Settings(generation=generation_settings(turns=1))
    report = run(model, tmp_path, [rivers(20)], settings=settings, max_cost=0.01)
    assert (report.requests, len(model.requests)) == (1, 1)


def test_max_cost_stops_the_run(tmp_path: Path) -> None:
    names = iter(NAMES)
    usage = Usage(prompt_tokens=0, completion_tokens=1_000_000)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names)), usage=usage))
    settings = Settings(generation=generation_settings(entries_per_turn=1, turns=8))
    report = run(model, tmp_path, [rivers(8)], settings=settings, max_cost=10.0)
    assert report.cost == pytest.approx(3 * 3.96)
    assert report.stopped == "limit of 10 USD reached"


def test_max_cost_without_a_known_price_is_an_error(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: answer_with())
    with pytest.raises(ConfigError, match="max-requests"):
        run(model, tmp_path, [rivers()], max_cost=1.0)


def test_a_refused_dialogue_does_not_stop_the_others(tmp_path: Path) -> None:
    def answer(messages: Sequence[Message], number: int) -> Completion | Exception:
        refused = "（1/2）" in messages[0]["content"]
        return (
            PermanentError("HTTP 400: no")
            if refused
            else answer_with(entry("青山绿"), entry("长河落"))
        )

    model = ScriptedModel(answer)
    (domain,) = run(model, tmp_path, [rivers(4)], generation_settings(turns=1)).domains
    assert domain.entries == 2
    assert any("HTTP 400: no" in loss for loss in domain.lost)


def test_a_batch_of_refusals_stops_the_domain_and_the_next_run_tries_again(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: PermanentError("HTTP 404: no such model"))
    (domain,) = run(model, tmp_path, [rivers(4)]).domains
    assert domain.stopped == "every dialogue of a batch was refused: HTTP 404: no such model"
    assert domain.requests == 1
    fixed = ScriptedModel(lambda *_: answer_with(entry("青山绿"), entry("长河落")))
    assert run(fixed, tmp_path, [rivers(2)]).domains[0].entries == 2


def test_temporary_failures_are_retried_and_lasting_ones_left_for_the_next_run(
    tmp_path: Path,
) -> None:
    flaky = ScriptedModel(
        lambda _, number: TransientError("cut") if number < 3 else answer_with(entry("青山绿"))
    )
    report = run(flaky, tmp_path, [rivers(1)], generation_settings(attempts=3))
    assert (report.retries, report.requests, report.domains[0].entries) == (2, 3, 1)
    broken = ScriptedModel(lambda *_: TransientError("cut"))
    report = run(broken, tmp_path, [rivers(2)], generation_settings(attempts=3))
    assert report.domains[0].stopped == "dialogues left unfinished for the next run: 1"
    assert report.lost == ("rivers/1 left unfinished for the next run: cut",)
    fixed = ScriptedModel(lambda *_: answer_with(entry("长河落")))
    run(fixed, tmp_path, [rivers(2)])
    assert fixed.requests[0] == broken.requests[0]


def test_a_refused_key_stops_the_run_and_keeps_earlier_answers(tmp_path: Path) -> None:
    model = ScriptedModel(
        lambda _, number: (
            answer_with(entry("青山绿")) if number == 1 else CredentialsError("check X")
        )
    )
    with pytest.raises(CredentialsError, match="check X"):
        run(model, tmp_path, [rivers(4)])
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        answers = [exchange.completion is not None for exchange in store.exchanges()]
    assert answers == [True, False]


def test_rate_limited_requests_are_counted_and_retried(tmp_path: Path) -> None:
    model = ScriptedModel(
        lambda _, number: (
            RateLimitError("slow", 0.01) if number < 3 else answer_with(entry("青山绿"))
        )
    )
    report = run(model, tmp_path, [rivers(1)])
    assert (report.rate_limits, report.retries, report.domains[0].entries) == (2, 2, 1)


def test_a_requested_pause_of_an_hour_stops_the_run(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: RateLimitError("slow", 3600))
    report = run(model, tmp_path, [rivers(1)], generation_settings(attempts=1))
    assert "3600 s" in (report.stopped or "")


def test_an_entry_rejected_by_a_reviewer_is_replaced(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names))))
    run(model, tmp_path, [rivers(1)])
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        (found,) = assemble(store, {"rivers": rivers()}, Settings()).entries
        decision = Decision(
            entry_id=found.id, content_hash=found.content_hash, verdict="reject", reviewer="r"
        )
        store.add_decisions([decision], ["1"])
    report = run(model, tmp_path, [rivers(1)])
    assert (report.domains[0].entries, report.domains[0].new) == (1, 1)


def test_an_entry_that_an_earlier_domain_has_is_replaced(tmp_path: Path) -> None:
    def answer(messages: Sequence[Message], number: int) -> Completion:
        is_used = "青山绿河" in messages[0]["content"]
        return answer_with(entry("长河落")) if is_used else answer_with(entry("青山绿"))

    first, second = rivers(1), rivers(1).model_copy(update={"id": "streams"})
    report = run(
        ScriptedModel(answer), tmp_path, [first, second], generation_settings(entries_per_turn=1)
    )
    assert [domain.entries for domain in report.domains] == [1, 1]
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        domains = {"rivers": first, "streams": second}
        assert len(assemble(store, domains, Settings()).entries) == 2


def test_progress_is_reported_after_each_answer_and_batch(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names))))
    seen: list[Progress] = []
    run(model, tmp_path, [rivers(2)], generation_settings(entries_per_turn=1), progress=seen.append)
    assert [(at.entries, at.settled) for at in seen] == [
        (0, True), (1, False), (2, False), (2, True)
    ]  # fmt: skip


def test_the_estimate_sends_and_stores_nothing(tmp_path: Path) -> None:
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


def test_the_report_counts_the_entries_of_the_assembly(tmp_path: Path) -> None:
    report = run(OfflineModel(), tmp_path, [DOMAINS[name] for name in TWO], count=12)
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        entries = assemble(store, DOMAINS, Settings()).entries
    for domain in report.domains:
        assert domain.entries == sum(each.domain == domain.domain for each in entries) == 12
    json.dumps(report.as_json())


def test_endpoint_faults_do_not_change_the_dataset(tmp_path: Path) -> None:
    clean, faulty = new_folders(tmp_path, "clean", "faulty")
    with ChatServer(OfflineModel()) as server:
        bank_run(server.url, clean)
    with ChatServer(OfflineModel(), Faults(seed=3, share=0.6, hang=3.0)) as server:
        report = bank_run(server.url, faulty, timeout=2.0)
        faults = {request.fault for request in server.requests}
    assert dataset_contents(faulty) == dataset_contents(clean)
    assert len(faults) >= 6
    assert report.retries >= 6
    assert not report.lost


def test_request_bodies_contain_only_the_model_and_user_and_assistant_messages(
    tmp_path: Path,
) -> None:
    with ChatServer(OfflineModel()) as server:
        bank_run(server.url, tmp_path)
    assert max(len(request.body["messages"]) for request in server.requests) >= 3
    for request in server.requests:
        assert set(request.body) == {"model", "messages"}
        for message in request.body["messages"]:
            assert set(message) == {"role", "content"}
            assert message["role"] in ("user", "assistant")
            assert "<think>" not in message["content"]
    assert len({digest(request.body["messages"]) for request in server.requests}) == len(
        server.requests
    )

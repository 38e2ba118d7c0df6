from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import pytest
from helpers.chat_server import ChatServer, Faults, digest
from helpers.scripted_generation import (
    DOMAINS,
    NAMES,
    PROMPTS,
    ScriptedModel,
    answer_with,
    entry,
    generate_with,
    generation_settings,
    rivers,
)
from helpers.stored_contents import dataset_contents

from clm_data.assemble import assemble
from clm_data.config import GenerationSettings, Settings
from clm_data.generation import GenerationReport, Progress
from clm_data.generation.estimate import estimate_generation
from clm_data.llm import Completion, Message, open_model
from clm_data.llm.offline import OfflineModel
from clm_data.prompts import Prompts
from clm_data.records import Decision
from clm_data.resources import resource
from clm_data.store import Store

TWO = ["chinese_literature", "physics"]


def bank_run(url: str, folder: Path, *, timeout: float = 20.0, **options: Any) -> GenerationReport:
    """Generate twelve entries in each of two domains from a server at ``url``."""
    generation = GenerationSettings(timeout=timeout)
    settings = Settings(provider="vllm", model="bank", base_url=url, generation=generation)
    options.setdefault("count", 12)
    return generate_with(
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
    report = generate_with(model, tmp_path, [rivers(4)])
    (domain,) = report.domains
    assert (domain.entries, domain.new, domain.read, domain.rejected) == (4, 4, 4, 0)
    assert domain.stopped == "quota reached"
    assert len(model.requests) == domain.requests == domain.answers == 2
    again = generate_with(model, tmp_path, [rivers(4)])
    assert (again.requests, again.domains[0].new, again.domains[0].entries) == (0, 0, 4)


def test_count_replaces_the_quota(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names)), entry(next(names))))
    assert generate_with(model, tmp_path, [rivers(100)], count=2).domains[0].entries == 2
    assert generate_with(model, tmp_path, [rivers(100)], count=4).domains[0].new == 2


def test_messages_contain_neither_reasoning_nor_a_system_role(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(
        lambda *_: answer_with(entry(next(names)), reasoning="SECRET THOUGHT", finish_reason="stop")
    )
    generate_with(model, tmp_path, [rivers(3)], generation_settings(entries_per_turn=1))
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
    report = generate_with(model, tmp_path, [rivers(1)], generation_settings(entries_per_turn=1))
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
    generate_with(model, tmp_path, [rivers(1)], generation_settings(entries_per_turn=1))
    assert model.requests[1][1] == {"role": "assistant", "content": "[]"}
    assert "未能从回答中解析出完整条目" in model.requests[1][-1]["content"]


def test_a_repeated_entry_is_not_counted_and_is_corrected(tmp_path: Path) -> None:
    answers = iter(["青山绿", "青山绿", "长河落"])
    model = ScriptedModel(lambda *_: answer_with(entry(next(answers))))
    report = generate_with(model, tmp_path, [rivers(2)], generation_settings(entries_per_turn=1))
    assert report.domains[0].entries == 2
    assert "重复" in model.requests[2][-1]["content"]


def test_prompts_of_the_next_batch_name_used_subjects(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names))))
    generate_with(
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
    generate_with(
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
    generate_with(model, tmp_path, [rivers(1)], generation)
    generate_with(model, tmp_path, [rivers(3)], generation)
    seen = [used(messages[-1]["content"]) for messages in model.requests]
    assert seen == [[], ["青山绿河"], [], ["青山绿河"], ["长河落河"]]
    assert "题干和主语与前面的条目重复" in model.requests[3][-1]["content"]


def test_a_correction_of_other_mistakes_names_no_subjects(tmp_path: Path) -> None:
    answers = iter([entry("青山绿", target_new="昆仑山"), entry("长河落")])
    model = ScriptedModel(lambda *_: answer_with(next(answers)))
    generate_with(model, tmp_path, [rivers(1)], generation_settings(entries_per_turn=1))
    assert used(model.requests[1][-1]["content"]) == []


def test_an_english_dialogue_is_corrected_in_english(tmp_path: Path) -> None:
    first, second = entry("青山绿"), entry("长河落")
    answers = iter([first, first, second])
    model = ScriptedModel(lambda *_: answer_with(next(answers)))
    prompts = Prompts(resource("prompts"), "en")
    generate_with(
        model, tmp_path, [rivers(2)], generation_settings(entries_per_turn=1), prompts=prompts
    )
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
        patch.setattr("clm_data.generation.plan.FIRST_LIST_CHARS", 10 * len("- 青山绿河\n"))
        generate_with(model, tmp_path, [rivers(27)], generation)
    shown = [used(messages[0]["content"]) for messages in model.requests]
    assert [len(each) for each in shown] == [0, 9, 10]
    assert shown[2] == [f"{name}河" for name in reversed(names[8:18])]


def test_complete_entries_of_a_cut_off_answer_count_and_the_dialogue_continues(
    tmp_path: Path,
) -> None:
    whole = answer_with(entry("青山绿"), entry("长河落"))
    half = whole.model_copy(update={"text": whole.text[:-150], "finish_reason": "length"})
    model = ScriptedModel(lambda _, number: half if number == 1 else answer_with(entry("孤云野")))
    report = generate_with(model, tmp_path, [rivers(2)])
    assert report.domains[0].entries == 2
    assert "未能从回答中解析出完整条目" not in model.requests[1][-1]["content"]


def test_an_entry_rejected_by_a_reviewer_is_replaced(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names))))
    generate_with(model, tmp_path, [rivers(1)])
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        (found,) = assemble(store, {"rivers": rivers()}, Settings()).entries
        decision = Decision(
            entry_id=found.id, content_hash=found.content_hash, verdict="reject", reviewer="r"
        )
        store.add_decisions([decision], ["1"])
    report = generate_with(model, tmp_path, [rivers(1)])
    assert (report.domains[0].entries, report.domains[0].new) == (1, 1)


def test_an_entry_that_an_earlier_domain_has_is_replaced(tmp_path: Path) -> None:
    def answer(messages: Sequence[Message], number: int) -> Completion:
        is_used = "青山绿河" in messages[0]["content"]
        return answer_with(entry("长河落")) if is_used else answer_with(entry("青山绿"))

    first, second = rivers(1), rivers(1).model_copy(update={"id": "streams"})
    report = generate_with(
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
    generate_with(
        model, tmp_path, [rivers(2)], generation_settings(entries_per_turn=1), progress=seen.append
    )
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
    report = generate_with(OfflineModel(), tmp_path, [DOMAINS[name] for name in TWO], count=12)
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

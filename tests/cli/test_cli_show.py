"""`clm-data show`: every stage of an answer's way, unknown names, terminals, damage, JSON."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.example_candidates import VALID
from helpers.postgres_server import NewDatabase
from helpers.scripted_generation import entry

import clm_data
from clm_data.cli import run
from clm_data.cli.terminal import wrapped
from clm_data.errors import ConfigError, UnknownNameError, UserError
from clm_data.layouts import EN_FILE, MIX_FILE, ZH_FILE, with_english_names
from clm_data.llm.base import Completion, Message, Usage
from clm_data.records import Decision
from clm_data.store import DialogueEnd, NewDialogue, NewRequest, RequestOutcome, Store
from clm_data.store_tables import META
from clm_data.text import show_command
from clm_data.tracing import Trace

Printed = pytest.CaptureFixture[str]
PROMPT = "请写三条关于河流的条目。"
CORRECTION = "第一条的主语没有出现在题干里，请改正。"
GOOD, NO_SUBJECT, LATER = entry("青山绿"), entry("长河落"), entry("孤云野")
NO_SUBJECT["zh"]["subject"] = "黄河"
TWIN = entry("青山绿")
TWIN["zh"]["prompt"] = "青山绿河最早发源于"
TURN_0 = json.dumps([GOOD, NO_SUBJECT], ensure_ascii=False) + '\n{"zh": {"prompt": "黄河流'
TURN_1 = json.dumps([TWIN, GOOD, LATER], ensure_ascii=False)
REASONING = "先想中文事实，\x1b[2J再译成英文。"


def store_dialogue(folder: Path, number: int, *turns: Completion | str | None) -> None:
    """Store a dialogue about physics: an answer, an error, or a request in flight for each turn."""
    with Store(f"sqlite:///{folder}/clm.db") as store:
        store.add_dialogues(
            [NewDialogue("physics", number, number, "vllm", "qwen", PROMPT, "0" * 64, 4)]
        )
        dialogue = store.dialogues("physics")[-1].id
        messages: list[Message] = [{"role": "user", "content": PROMPT}]
        for turn, outcome in enumerate(turns):
            (request,) = store.write([NewRequest(dialogue, turn, messages)])
            if isinstance(outcome, Completion):
                done = RequestOutcome(request, completion=outcome.model_dump())
                store.write([done])
                answer: Message = {"role": "assistant", "content": outcome.text}
                messages = [*messages, answer, {"role": "user", "content": CORRECTION}]
            elif outcome is not None:
                store.write([RequestOutcome(request, error=outcome)])
                store.write([DialogueEnd(dialogue, f"blocked: {outcome}")])


def decide(folder: Path, *decisions: Decision) -> None:
    with Store(f"sqlite:///{folder}/clm.db") as store:
        digests = [f"{folder}{number}" for number in range(len(decisions))]
        store.add_decisions(decisions, digests)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace with a dialogue of two turns, a refusal, and a request in flight."""
    work = tmp_path / "work"
    clm_data.init(work)
    usage = Usage(prompt_tokens=1234, completion_tokens=567)
    first = Completion(
        text=TURN_0, reasoning=REASONING, finish_reason="length", model="qwen-3", usage=usage
    )
    second = Completion(text=TURN_1, finish_reason="stop", model="qwen-3")
    store_dialogue(work, 0, first, second)
    store_dialogue(work, 1, "the model refused: 我不能\x1b]0;回答\x07")
    store_dialogue(work, 2, None)
    return work


def shown(folder: Path, what: str, capsys: Printed, *options: str) -> str:
    capsys.readouterr()
    assert run(["--workspace", str(folder), "show", what, *options]) == 0
    return capsys.readouterr().out


def in_one_line(text: str) -> str:
    """A text without its whitespace."""
    return "".join(text.split())


def failed(folder: Path, what: str, capsys: Printed) -> str:
    capsys.readouterr()
    assert run(["--workspace", str(folder), "show", what]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def at(trace: Trace, place: str) -> str:
    (id_,) = [each.id for each in trace.entries if each.place == place]
    return id_


def test_a_turn_shows_what_was_asked_and_answered(folder: Path, capsys: Printed) -> None:
    out = shown(folder, "physics/0/0", capsys)
    assert "physics/0/0: asked vllm qwen, 20" in out
    assert "message 1 of 1, user" in out
    assert PROMPT in out
    assert in_one_line("by qwen-3, finish reason length (cut off at the token limit)") in (
        in_one_line(out)
    )
    assert "tokens: 1,234 sent, 567 received, reasoning among them: unknown" in out
    assert in_one_line(TURN_0) in in_one_line(out)
    assert "found in the answer: 2 entries, 1 object rejected" in out


def test_a_truncated_answer_shows_the_object_that_was_cut_off(
    folder: Path, capsys: Printed
) -> None:
    trace = clm_data.show("physics/0/0", workspace=folder)
    good, invalid, cut = trace.entries
    assert [each.stage for each in trace.entries] == [None, "validate", "parse"]
    assert good.outcome == "in the dataset"
    assert invalid.problems[0].code == "subject-not-in-prompt"
    assert (cut.id, cut.candidate, cut.content) == (
        "physics/0/0#3",
        None,
        '{"zh": {"prompt": "黄河流',
    )
    assert trace.asked == trace.entries
    out = shown(folder, "physics/0/0#3", capsys)
    assert out.startswith("physics/0/0#3: left out of the dataset at stage parse\n")
    assert in_one_line("the answer ends inside this object") in in_one_line(out)
    assert '\n{"zh": {"prompt": "黄河流\n' in out


def test_the_reasoning_is_one_line_unless_it_is_asked_for(folder: Path, capsys: Printed) -> None:
    out = shown(folder, "physics/0/0", capsys)
    assert f"reasoning, {len(REASONING)} characters (shown with --reasoning)" in out
    assert "再译成英文" not in out
    assert "先想中文事实，⟨U+001B⟩[2J再译成英文。" in shown(
        folder, "physics/0/0", capsys, "--reasoning"
    )


def test_a_later_turn_shows_corrections_and_refers_to_earlier_answers(
    folder: Path, capsys: Printed
) -> None:
    out = shown(folder, "physics/0/1", capsys)
    assert CORRECTION in out
    assert "message 2 of 3, assistant: clm-data show physics/0/0\n" in out
    assert "黄河流" not in out
    assert "tokens: unknown" in out


def test_a_dialogue_shows_all_turns_and_each_message_once(folder: Path, capsys: Printed) -> None:
    out = shown(folder, "physics/0", capsys)
    assert out.count(PROMPT) == 1
    assert out.count(CORRECTION) == 1
    assert "messages 1 to 2 of 3: as above" in out
    assert out.index("physics/0/0: asked") < out.index("physics/0/1: asked")


def test_a_duplicate_names_the_entry_that_was_kept(folder: Path, capsys: Printed) -> None:
    trace = clm_data.show("physics/0/1", workspace=folder)
    kept = at(clm_data.show("physics/0/0", workspace=folder), "physics/0/0#1")
    twin, copy, later = trace.entries
    assert (twin.stage, twin.duplicate_of) == ("deduplicate", kept)
    assert (copy.id, copy.stage, copy.duplicate_of) == (f"{kept}.2", "deduplicate", kept)
    assert later.outcome == "in the dataset"
    out = shown(folder, twin.id, capsys)
    assert out.startswith(f"{twin.id}: left out of the dataset at stage deduplicate\n")
    assert f"kept in its place: clm-data show {kept}" in out
    assert f"again as {kept}.2, from physics/0/1#2" in shown(folder, kept, capsys)


def test_an_entry_shows_its_texts_then_the_answer_that_has_it(
    folder: Path, capsys: Printed
) -> None:
    id_ = at(clm_data.show("physics/0/1", workspace=folder), "physics/0/1#3")
    out = shown(folder, id_, capsys)
    assert out.startswith(f"{id_}: in the dataset, unreviewed\n  from physics/0/1#3\n")
    for lang in ("zh", "en"):
        for name, text in LATER[lang].items():
            assert re.search(rf"^{lang}\.{name} +{re.escape(text[:30])}", out, re.MULTILINE)
    assert f"#3 {id_}: see above" in out
    trace = clm_data.show(id_, workspace=folder)
    assert [each.id for each in trace.asked] == [id_]
    assert len(trace.entries) == 3


def test_a_failed_request_shows_its_error(folder: Path, capsys: Printed) -> None:
    store_dialogue(folder, 3, "HTTP 500: 上游超时")
    out = shown(folder, "physics/3/0", capsys)
    assert re.search(r"^  failed, 20.* UTC: HTTP 500: 上游超时$", out, re.MULTILINE)
    assert "found in the answer" not in out


def test_a_refusal_is_shown_with_its_words_and_what_it_ended(folder: Path, capsys: Printed) -> None:
    out = shown(folder, "physics/1", capsys)
    assert "themodelrefused:我不能⟨U+001B⟩]0;回答⟨U+0007⟩" in in_one_line(out)
    assert "Dialogue physics/1 has ended: blocked: the model refused" in out


def test_a_request_in_flight_has_no_answer(folder: Path, capsys: Printed) -> None:
    assert "no answer is stored" in shown(folder, "physics/2/0", capsys)
    (answer,) = clm_data.show("physics/2", workspace=folder).answers
    assert (answer.completion, answer.error, answer.answered_at) == (None, None, None)


def test_a_dialogue_that_was_planned_and_not_sent_says_so(folder: Path, capsys: Printed) -> None:
    store_dialogue(folder, 3)
    assert shown(folder, "physics/3", capsys) == "physics/3: no request is stored\n"
    assert "nothing was sent in dialogue physics/3 yet" in failed(folder, "physics/3/0", capsys)


def test_a_repeated_request_shows_both_outcomes(folder: Path, capsys: Printed) -> None:
    store_dialogue(folder, 3, "HTTP 500: 上游超时")
    with Store(f"sqlite:///{folder}/clm.db") as store:
        dialogue = store.dialogues("physics")[-1].id
        (request,) = store.write([NewRequest(dialogue, 0, [{"role": "user", "content": PROMPT}])])
        answer = Completion(text="[]", model="qwen")
        store.write([RequestOutcome(request, completion=answer.model_dump())])
    out = shown(folder, "physics/3/0", capsys)
    assert out.index("HTTP 500") < out.index("message 1 of 1: as above") < out.index("answered")


def test_terminal_escapes_in_an_answer_are_written_out(folder: Path, capsys: Printed) -> None:
    escape = entry("清风明", prompt="\x1b[31m清风明河\u202e的发源地位于\x07")
    text = json.dumps([escape], ensure_ascii=False)  # JSON escapes all but the direction
    raw = text.replace("\\u001b", "\x1b").replace("\\u0007", "\x07")
    store_dialogue(folder, 3, Completion(text=raw, model="qwen\x1b[1m"))
    for options in ((), ("--json",)):
        out = shown(folder, "physics/3/0", capsys, *options)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", out)
    out = shown(folder, "physics/3/0", capsys)
    assert "⟨U+001B⟩[31m清风明河⟨U+202E⟩的发源地位于⟨U+0007⟩" in out
    assert "by qwen⟨U+001B⟩[1m" in out
    report = json.loads(shown(folder, "physics/3/0", capsys, "--json"))
    assert report["answers"][0]["answer"]["text"] == raw


def test_decisions_are_shown_with_what_they_do_now(folder: Path, capsys: Printed) -> None:
    before = clm_data.show("physics/0/1#3", workspace=folder).asked[0]
    assert before.candidate is not None
    shared = {"entry_id": before.id, "content_hash": before.candidate.content_hash}
    fix = {"zh.target_new": "雁荡山"}
    decide(
        folder,
        Decision(**shared, verdict="accept", reviewer="李娜", seen=0),
        Decision(**shared, verdict="fix", reviewer="李娜", fixed=fix, seen=1, note="同类的山"),
        Decision(**(shared | {"content_hash": "f" * 64}), verdict="reject", reviewer="Ann", seen=2),
    )
    entry_ = clm_data.show(before.id, workspace=folder).asked[0]
    effects = [(each.decision.reviewer, each.effect) for each in entry_.decisions]
    assert effects == [("李娜", "replaced"), ("李娜", "in effect"), ("Ann", "not applied")]
    assert (entry_.outcome, entry_.status) == ("in the dataset", "fixed")
    out = shown(folder, before.id, capsys)
    assert "in the dataset, fixed" in out
    assert re.search(r"zh\.target_new +天目山\n +fixed +雁荡山", out)
    assert re.search(r"20\S+ \S+ UTC 李娜: fix \(in effect\)\n +zh.target_new = 雁荡山", out)
    assert "note: 同类的山" in out


def test_contrary_decisions_leave_the_entry_out_and_are_both_shown(
    folder: Path, capsys: Printed
) -> None:
    before = clm_data.show("physics/0/1#3", workspace=folder).asked[0]
    assert before.candidate is not None
    shared = {"entry_id": before.id, "content_hash": before.candidate.content_hash, "seen": 0}
    decide(
        folder,
        Decision(**shared, verdict="accept", reviewer="李娜"),
        Decision(**shared, verdict="reject", reviewer="Ann", note="wrong river"),
    )
    entry_ = clm_data.show(before.id, workspace=folder).asked[0]
    assert (entry_.stage, entry_.problems[0].code) == ("review", "contrary-decisions")
    out = shown(folder, before.id, capsys)
    assert "left out of the dataset at stage review" in out
    assert "李娜: accept (contrary)" in out
    assert "Ann: reject (contrary)" in out
    assert "Ann: reject (contrary)" in shown(folder, "physics/0/1", capsys)


def test_contrary_verdicts_of_sheets_lead_to_the_command(folder: Path, capsys: Printed) -> None:
    sheet = folder / "sheet.csv"
    clm_data.export_review(sheet, workspace=folder)
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for reviewer, verdict in (("李娜", "accept"), ("Ann", "reject")):
        capsys.readouterr()
        with sheet.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerow(rows[0] | {"verdict": verdict})
        command = ["review", "import", str(sheet), "--reviewer", reviewer]
        assert run(["--workspace", str(folder), *command]) == 0
    assert "clm-data show ID shows who decided what" in capsys.readouterr().out
    out = shown(folder, rows[0]["id"], capsys)
    assert "李娜: accept (contrary)" in out
    assert "Ann: reject (contrary)" in out


def test_decisions_on_an_entry_that_is_not_there_any_more_are_found(
    folder: Path, capsys: Printed
) -> None:
    decide(
        folder, Decision(entry_id="clm-000", content_hash="0", verdict="accept", reviewer="李娜")
    )
    out = shown(folder, "clm-000", capsys)
    assert in_one_line("no answer or imported row gives this entry any more") in in_one_line(out)
    assert "李娜: accept (not applied: made on another text" in out


def import_rows(folder: Path, rows: dict[str, list[object]]) -> None:
    for name, part in rows.items():
        (folder / name).write_text(json.dumps(part, ensure_ascii=False), encoding="utf-8")
    clm_data.import_files([folder / name for name in rows], license="MIT", workspace=folder)


def test_an_imported_row_is_shown_with_its_file_format_and_content(
    folder: Path, capsys: Printed
) -> None:
    zh, en = {"case_id": 1, **VALID["zh"]}, {"case_id": 1, **VALID["en"]}
    import_rows(folder, {ZH_FILE: [zh], EN_FILE: [with_english_names(en)], MIX_FILE: [zh, en]})
    trace = clm_data.show(f"{EN_FILE}#1", workspace=folder)
    assert [(row.file, row.number, row.is_used) for row in trace.rows] == [
        (ZH_FILE, 1, True),
        (EN_FILE, 1, True),
        (MIX_FILE, 1, False),
        (MIX_FILE, 2, False),
    ]
    assert trace.rows[0].content == zh
    assert trace.rows[0].format == "clm-bench-zh"
    out = shown(folder, trace.asked[0].id, capsys)
    assert f"from {ZH_FILE}#1" in out
    assert f"Row 2 of {MIX_FILE}, which another file has too:" in out
    assert "format clm-bench-mix, license MIT" in out
    assert re.search(r"imported 20\S+ \S+ UTC, sha256\s+[0-9a-f]{64}", out)
    assert '"subject": "边城"' in out
    (again,) = clm_data.show(f"{MIX_FILE}#2", workspace=folder).asked
    assert (again.outcome, again.duplicate_of) == ("repeats another row", trace.asked[0].id)


def test_a_row_that_is_no_entry_and_a_half_that_another_file_completes(folder: Path) -> None:
    zh, en = {"case_id": 1, **VALID["zh"]}, {"case_id": 1, **VALID["en"]}
    import_rows(folder, {MIX_FILE: [zh, en, 5], ZH_FILE: [zh]})
    (bad,) = clm_data.show(f"{MIX_FILE}#3", workspace=folder).asked
    assert (bad.stage, bad.content) == ("parse", 5)
    assert "row 3: expected an object" in bad.problems[0].message
    (half,) = clm_data.show(f"{ZH_FILE}#1", workspace=folder).asked
    (whole,) = clm_data.show(f"{MIX_FILE}#1", workspace=folder).asked
    assert (half.outcome, half.duplicate_of) == ("repeats another row", whole.id)


def test_every_id_in_rejected_jsonl_can_be_shown(folder: Path) -> None:
    clm_data.generate("sports", count=8, provider="offline", workspace=folder)
    import_rows(folder, {MIX_FILE: [{"case_id": 1, **VALID["zh"]}, {"case_id": 1, **VALID["en"]}]})
    clm_data.build(folder / "out", workspace=folder)
    lines = (folder / "out" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    rejected = [json.loads(line) for line in lines]
    assert {each["stage"] for each in rejected} >= {"parse", "validate", "deduplicate"}
    for each in rejected:
        (entry_,) = clm_data.show(each["id"], workspace=folder).asked
        assert entry_.id == each["id"]
        assert entry_.stage == each["stage"]
        assert entry_.problems[0].message == each["message"]


def test_a_build_names_the_command_that_shows_what_it_rejected(
    folder: Path, tmp_path: Path
) -> None:
    assert "clm-data show ID" in "\n".join(
        clm_data.build(tmp_path / "a", workspace=folder).summary()
    )
    bad = tmp_path / "bad"
    clm_data.init(bad)
    store_dialogue(bad, 0, Completion(text="没有条目。", model="qwen"))
    with pytest.raises(UserError, match="clm-data show physics/0/0#1 "):
        clm_data.build(tmp_path / "b", workspace=bad)
    clean = tmp_path / "clean"
    clm_data.init(clean)
    store_dialogue(clean, 0, Completion(text=json.dumps([GOOD]), model="qwen"))
    assert "show" not in "\n".join(clm_data.build(tmp_path / "c", workspace=clean).summary())


def test_the_command_for_a_name_can_be_pasted_into_a_shell() -> None:
    assert show_command("physics/0/1#2") == "clm-data show physics/0/1#2"
    assert show_command("my 'rows'.json#2").split(maxsplit=2)[:2] == ["clm-data", "show"]
    assert shlex.split(show_command("my 'rows'.json#2"))[2] == "my 'rows'.json#2"


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("physics/9", "unknown dialogue 'physics/9'; did you mean physics/2"),
        ("physics/9/0", "unknown dialogue 'physics/9'; did you mean physics/2"),
        ("physics/0/7", "unknown turn 'physics/0/7'; did you mean physics/0/1"),
        ("physics/0/0#8", "unknown object 'physics/0/0#8'; did you mean physics/0/0#3"),
        ("physic/0", "did you mean physics/0"),
        ("nonsense", "pass the id of an entry, DOMAIN/DIALOGUE"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(
    folder: Path, what: str, says: str, capsys: Printed
) -> None:
    assert says in failed(folder, what, capsys)


def test_a_mistyped_or_shortened_id_suggests_the_id(folder: Path, capsys: Printed) -> None:
    id_ = at(clm_data.show("physics/0/0", workspace=folder), "physics/0/0#1")
    for wrong in (id_[:-1], id_[:8], f"{id_[:9]}0{id_[9:]}"):
        assert id_ in failed(folder, wrong, capsys)


def test_an_empty_store_and_a_name_that_is_none(tmp_path: Path, capsys: Printed) -> None:
    clm_data.init(tmp_path)
    assert "the store is empty" in failed(tmp_path, "clm-1", capsys)
    with pytest.raises(ConfigError, match="is no name"):
        clm_data.show(7, workspace=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError):
        clm_data.show("clm-1", workspace=tmp_path)


def change(folder: Path, statement: str) -> None:
    with sqlite3.connect(folder / "clm.db") as db:
        assert db.execute(statement).rowcount > 0
    db.close()


def test_a_damaged_answer_is_named_and_the_rest_is_shown(folder: Path, capsys: Printed) -> None:
    kept = at(clm_data.show("physics/0/1", workspace=folder), "physics/0/1#3")
    change(folder, "UPDATE request SET completion = substr(completion, 1, 30) WHERE turn = 0")
    out = shown(folder, "physics/0/0", capsys)
    assert out.startswith("The store is damaged.")
    assert "dialogue physics/0 turn 0 (completion: it is not JSON" in out
    assert PROMPT in out
    assert "damaged in the store, and not shown: completion" in out
    assert "no answer is stored" not in out
    out = shown(folder, kept, capsys)
    assert "dialogue physics/0 turn 0 (completion: it is not JSON" in out
    assert f"{kept}: in the dataset" in out


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE request SET completion = '{\"text\": 5}' WHERE turn = 0", "turn 0 (text: "),
        ("UPDATE request SET messages = '5' WHERE turn = 0", "messages: they are not messages"),
        ("UPDATE request SET messages = 'x' WHERE turn = 0", "messages: it is not JSON"),
        ("UPDATE request SET error = CAST(x'ff' AS TEXT) WHERE turn = 0", "error: it contains"),
    ],
)
def test_any_damage_of_a_request_is_named_where_it_is_shown(
    folder: Path, statement: str, named: str, capsys: Printed
) -> None:
    change(folder, statement)
    assert named in shown(folder, "physics/0", capsys)


def test_other_damaged_rows_are_named_and_left_out(folder: Path, capsys: Printed) -> None:
    zh, en = {"case_id": 1, **VALID["zh"]}, {"case_id": 1, **VALID["en"]}
    import_rows(folder, {MIX_FILE: [zh, en, {"case_id": 2}, zh]})
    decide(folder, Decision(entry_id="x", content_hash="0", verdict="accept", reviewer="李娜"))
    change(folder, "UPDATE source_row SET content = 'x' WHERE position = 2")
    change(folder, "UPDATE decision SET content = '{}'")
    change(folder, "UPDATE dialogue SET number = 'two' WHERE number = 2")
    trace = clm_data.show(f"{MIX_FILE}#4", workspace=folder)
    assert [row.number for row in trace.rows] == [4]
    assert trace.damaged == (
        "row 3 of imported file 1 (content: it is not JSON (Expecting value: line 1 column 1 "
        "(char 0)))",
        "dialogue physics/two (number: it is not a number)",
        "decision 1 (it is not a decision)",
    )
    line = failed(folder, "physics/2", capsys)
    assert "did you mean" in line
    assert "or it is damaged: row 3 of imported file 1" in line
    assert "dialogue physics/two" in line


def test_show_changes_nothing_and_reads_while_another_process_writes(
    folder: Path, capsys: Printed
) -> None:
    writer = sqlite3.connect(folder / "clm.db", isolation_level=None)
    try:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE request SET error = 'half written'")
        before = (folder / "clm.db").read_bytes()
        out = shown(folder, "physics/0/0", capsys)
        assert "half written" not in out
        assert TURN_0[:20] in out
        assert (folder / "clm.db").read_bytes() == before
    finally:
        writer.close()


def test_json_has_everything_and_the_same_names(folder: Path, capsys: Printed) -> None:
    report = json.loads(shown(folder, "physics/0/0", capsys, "--json"))
    assert report == json.loads(
        json.dumps(clm_data.show("physics/0/0", workspace=folder).as_json())
    )
    (answer,) = report["answers"]
    assert answer["messages"] == [{"role": "user", "content": PROMPT}]
    assert answer["answer"]["reasoning"] == REASONING
    assert answer["answer"]["usage"]["reasoning_tokens"] is None
    assert answer["entries"] == [each["place"] for each in report["entries"]]
    assert report["entries"][1]["problems"][0]["code"] == "subject-not-in-prompt"


def test_a_trace_is_a_table(folder: Path) -> None:
    trace = clm_data.show("physics/0/0", workspace=folder)
    assert list(trace.to_pandas()["outcome"]) == ["in the dataset", "left out", "left out"]
    codes = [row["code"] for row in trace.table_rows()]
    assert codes == [None, "subject-not-in-prompt", "unreadable-answer"]


@pytest.mark.parametrize("width", [40, 80])
def test_lines_fit_the_terminal_and_lose_no_text(
    folder: Path, width: int, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.cells import cell_len

    monkeypatch.setenv("COLUMNS", str(width))
    out = shown(folder, "physics/0", capsys)
    assert max(map(cell_len, out.splitlines())) <= width
    bare = "".join(out.split())
    assert "".join(TURN_0.split()) in bare
    assert "".join(TURN_1.split()) in bare


def test_chinese_is_wrapped_by_columns_and_punctuation_stays_with_its_character() -> None:
    assert wrapped("鲁迅的《狂人日记》，写于北京。", 12) == [
        "鲁迅的《狂人",
        "日记》，写于",
        "北京。",
    ]
    assert wrapped("一二三四五，六", 10) == ["一二三四", "五，六"]
    assert wrapped("一二三四《五》", 10) == ["一二三四", "《五》"]
    assert wrapped("  a bcd 中文 e\n\nf", 8) == ["  a bcd", "中文 e", "", "f"]
    assert wrapped("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]


def test_an_answer_in_a_postgresql_store_is_shown(
    tmp_path: Path, new_postgres: NewDatabase, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.setenv("CLM_DATA_STORE", new_postgres())
    workspace = clm_data.init(tmp_path)
    clm_data.generate("physics", count=3, provider="offline", workspace=workspace)
    (entry_, *_) = clm_data.show("physics/0/0", workspace=tmp_path).asked
    assert entry_.candidate is not None
    digest = entry_.candidate.content_hash
    decision = Decision(entry_id=entry_.id, content_hash=digest, verdict="accept", reviewer="李娜")
    with workspace.open_store() as store:
        store.add_decisions([decision], ["1"])
    out = shown(tmp_path, entry_.id, capsys)
    assert "in the dataset, accepted" in out
    assert re.search(r"20\S+ \S+ UTC 李娜: accept \(in effect\)", out)


DAMAGE = (
    "'x'",
    "''",
    "x'00ff'",
    "CAST(x'7b22ff' AS TEXT)",
    "-5",
    "'[[1]]'",
    "'{}'",
    """'[{"role": "user", "content": 1}]'""",
    """'{"text": "\\ud800", "model": "b"}'""",
)


@pytest.mark.slow
@pytest.mark.parametrize("table", ["dialogue", "request", "source", "source_row", "decision"])
def test_no_value_in_any_column_ends_in_a_traceback(
    folder: Path, table: str, capsys: Printed
) -> None:
    import_rows(folder, {MIX_FILE: [{"case_id": 1, **VALID["zh"]}, {"case_id": 1, **VALID["en"]}]})
    kept = clm_data.show("physics/0/0", workspace=folder).entries[0]
    decide(folder, Decision(entry_id=kept.id, content_hash="0", verdict="accept", reviewer="李娜"))
    saved = (folder / "clm.db").read_bytes()
    for column in META.tables[table].columns:
        for value in DAMAGE:
            db = sqlite3.connect(folder / "clm.db")
            with suppress(sqlite3.Error), db:  # some values are against the type of the column
                db.execute(f"UPDATE {table} SET {column.name} = {value} WHERE rowid = 1")
            db.close()
            for what in (kept.id, "physics/0", f"{MIX_FILE}#1"):
                code = run(["--workspace", str(folder), "show", what, "--json"])
                printed = capsys.readouterr()
                assert (code, printed.err.count("\n")) in ((0, 0), (2, 1)), (
                    column.name,
                    value,
                    what,
                )
            for file in folder.glob("clm.db-*"):
                file.unlink()
            (folder / "clm.db").write_bytes(saved)

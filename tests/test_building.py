"""Building a dataset: files, counts, reproducible bytes, and errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import clm_data
from clm_data.building import build, collect
from clm_data.codes import CODES
from clm_data.config import Workspace, open_workspace
from clm_data.demo_run import run_demo
from clm_data.errors import InputFileError, UserError
from clm_data.llm import Completion
from clm_data.manifest import file_hashes, read_manifest
from clm_data.records import Decision
from clm_data.store import NewDialogue, NewRequest, RequestOutcome
from clm_data.version import __version__


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with all entries of the bank, and its dataset."""
    folder = tmp_path_factory.mktemp("demo") / "workspace"
    lines: list[str] = []
    run_demo(folder, lines.append)
    (folder / "output.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def workspace(demo: Path, tmp_path: Path) -> Workspace:
    """A copy of the demo workspace that a test may change."""
    shutil.copytree(demo, tmp_path / "workspace")
    return open_workspace(tmp_path / "workspace")


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_the_demo_keeps_at_least_250_records_over_24_domains(demo: Path) -> None:
    records = pq.read_table(demo / "dataset" / "parallel" / "test.parquet").to_pylist()
    assert len(records) >= 250
    assert len({record["domain"] for record in records} - {None}) == 24
    assert [record["case_id"] for record in records] == list(range(1, len(records) + 1))
    assert len({record["id"] for record in records}) == len(records)


def test_the_rejection_report_has_every_error_code(demo: Path) -> None:
    found = {
        problem["code"]
        for row in rows(demo / "dataset" / "rejected.jsonl")
        for problem in row["problems"]
    }
    errors = {name for name, code in CODES.items() if code.severity == "error"}
    assert errors - {"contrary-decisions"} <= found  # the demo has one reviewer


def test_the_demo_lists_its_results(demo: Path) -> None:
    output = (demo / "output.txt").read_text(encoding="utf-8")
    for name in ("README.md", "domains.png", "rejected.jsonl", "review.csv"):
        assert name in output
    assert "0 reviewed" in output


def test_rerunning_a_finished_demo_sends_no_requests_and_changes_nothing(demo: Path) -> None:
    before = file_hashes(demo / "dataset")
    lines: list[str] = []
    run_demo(demo, lines.append)
    assert file_hashes(demo / "dataset") == before
    assert any("0 requests" in line for line in lines)


def test_each_stage_accounts_for_all_entries(workspace: Workspace) -> None:
    collected = collect(workspace)
    stages = list(collected.stages.values())
    for stage in stages:
        assert stage["in"] == stage["kept"] + stage["rejected"]
    for before, after in pairwise(stages):
        assert after["in"] == before["kept"]
    assert stages[-1]["kept"] == len(collected.records)
    probes = [r for r in collected.rejected if r.stage == "locality"]
    assert stages[0]["in"] == len(collected.records) + len(collected.rejected) - len(probes)


def test_the_same_store_gives_the_same_bytes(workspace: Workspace, demo: Path) -> None:
    out = workspace.path / "again"
    build(workspace, out)
    assert file_hashes(out) == file_hashes(demo / "dataset")
    assert (out / "manifest.json").read_bytes() == (demo / "dataset/manifest.json").read_bytes()


def test_the_manifest_lists_all_files_with_their_hashes(demo: Path) -> None:
    manifest = read_manifest(demo / "dataset")
    assert manifest.clm_data == __version__
    assert manifest.files == file_hashes(demo / "dataset")
    assert {"parallel/test.parquet", "README.md", "domains.png"} <= manifest.files.keys()
    assert str(demo) not in (demo / "dataset" / "manifest.json").read_text()


def test_all_configurations_contain_the_same_records(demo: Path) -> None:
    folder = demo / "dataset"
    tables = {n: pq.read_table(folder / n / "test.parquet").to_pylist() for n in ("zh", "en")}
    parallel = pq.read_table(folder / "parallel" / "test.parquet").to_pylist()
    mix = pq.read_table(folder / "mix" / "test.parquet").to_pylist()
    for index, record in enumerate(parallel):
        for offset, lang in enumerate(("zh", "en")):
            side = tables[lang][index]
            assert {name: side[name] for name in record[lang]} == record[lang]
            alternating = dict(mix[2 * index + offset])
            assert alternating.pop("language") == lang
            assert alternating == side


def test_load_dataset_works_on_the_folder(demo: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    kept = read_manifest(demo / "dataset").stages["locality"]["kept"]
    for name, factor in (("parallel", 1), ("zh", 1), ("en", 1), ("mix", 2)):
        dataset = load_dataset(str(demo / "dataset"), name, cache_dir=str(tmp_path))
        assert list(dataset) == ["test"]
        assert len(dataset["test"]) == factor * kept


def test_each_probe_is_used_once_and_does_not_mention_the_subject(demo: Path) -> None:
    records = pq.read_table(demo / "dataset" / "parallel" / "test.parquet").to_pylist()
    for lang in ("zh", "en"):
        probes = [record[lang]["loc"] for record in records]
        assert len(set(probes)) == len(probes)
        for record in records:
            assert record[lang]["subject"].casefold() not in record[lang]["loc"].casefold()


def test_reviewed_only_keeps_only_accepted_and_fixed_entries(workspace: Workspace) -> None:
    with workspace.open_store(create=True) as store:
        accepted, corrected, *_ = collect(workspace).assembly.entries
        decisions = [
            Decision(
                entry_id=accepted.id,
                content_hash=accepted.content_hash,
                verdict="accept",
                reviewer="李华",
            ),
            Decision(
                entry_id=corrected.id,
                content_hash=corrected.content_hash,
                verdict="fix",
                reviewer="李华",
                fixed={"en.target_new": "Guo Moruo"},
            ),
        ]
        store.add_decisions(decisions, ["1", "2"])
    out = workspace.path / "reviewed"
    report = build(workspace, out, reviewed_only=True)
    records = pq.read_table(out / "parallel" / "test.parquet").to_pylist()
    assert [record["review"] for record in records] == ["accepted", "fixed"]
    assert records[1]["id"] == corrected.id
    assert records[1]["en"]["target_new"] == "Guo Moruo"
    assert report.stats.unreviewed == 0
    for stage in report.stages.values():
        assert stage["in"] == stage["kept"] + stage["rejected"]
    assert read_manifest(out).reviewed == {"accepted": 1, "fixed": 1}
    everything = build(workspace, workspace.path / "all")
    assert everything.stats.unreviewed == everything.stats.records - 2


def test_reviewed_only_without_reviews_is_an_error(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="no entry has been accepted"):
        build(workspace, workspace.path / "reviewed", reviewed_only=True)
    assert not (workspace.path / "reviewed").exists()


def test_an_empty_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the store is empty"):
        build(clm_data.init(tmp_path), tmp_path / "dataset")


def _store_of_bad_answers(folder: Path, *texts: str) -> Workspace:
    workspace = clm_data.init(folder)
    with workspace.open_store() as store:
        store.add_dialogues(
            [NewDialogue("physics", 0, 0, "vllm", "m", "prompt", "0" * 64, len(texts))]
        )
        (dialogue,) = store.dialogues()
        for turn, text in enumerate(texts):
            (id_,) = store.write([NewRequest(dialogue.id, turn, [])])
            answer = Completion(text=text, model="m").model_dump()
            store.write([RequestOutcome(id_, completion=answer)])
    return workspace


EQUAL = {
    "prompt": "水的化学式是",
    "subject": "水",
    "ground_truth": "H2O",
    "target_new": "H2O",
    "rephrase_prompt": "人们把水的化学式写作",
}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["I cannot help."], "1 unreadable-answer (no complete entry could be parsed)"),
        (["no", "[{", "{}"], "unreadable-answer"),
        ([json.dumps([{"zh": EQUAL, "en": None}])], "1 entries"),
    ],
)
def test_a_store_of_bad_answers_says_why_and_writes_them(
    texts: list[str], words: str, tmp_path: Path
) -> None:
    workspace = _store_of_bad_answers(tmp_path / "w", *texts)
    out = tmp_path / "dataset"
    for _ in range(2):  # the folder may be replaced by the next build
        with pytest.raises(UserError, match="no entry can be published") as caught:
            build(workspace, out)
    assert words in str(caught.value)
    assert "rejected.jsonl" in str(caught.value)
    rows = (out / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(rows) == len(collect(workspace).rejected) > 0


def test_a_store_of_bad_answers_replaces_no_dataset(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    build(workspace, out)
    before = file_hashes(out)
    with pytest.raises(UserError, match="was left as it is"):
        build(_store_of_bad_answers(tmp_path / "bad", "no"), out)
    assert file_hashes(out) == before


def test_a_folder_with_other_files_is_not_overwritten(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.txt").write_text("mine")
    with pytest.raises(InputFileError, match="did not write"):
        build(workspace, out)
    assert [path.name for path in out.iterdir()] == ["chapter.txt"]


def _foreign_manifest(out: Path) -> None:
    shutil.rmtree(out)
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "my extension", "version": "1"}')


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a manifest of another program": _foreign_manifest,
    "a repository": lambda out: (out / ".git").mkdir(),
    "notes": lambda out: (out / "notes.txt").write_text("mine"),
    "notes in a subfolder": lambda out: (out / "zh" / "notes.txt").write_text("mine"),
    "a card edited by hand": lambda out: (out / "README.md").open("a").write("more"),
    "a link": lambda out: (out / "data").symlink_to(out / "zh", target_is_directory=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_dataset_folder_with_something_else_in_it_is_not_replaced(
    workspace: Workspace, tmp_path: Path, change: str
) -> None:
    out = tmp_path / "dataset"
    build(workspace, out)
    CHANGES[change](out)
    before = {path: path.is_file() and path.read_bytes() for path in out.rglob("*")}
    with pytest.raises(InputFileError, match="did not write, or that were changed since: "):
        build(workspace, out)
    assert {path: path.is_file() and path.read_bytes() for path in out.rglob("*")} == before


def test_an_earlier_build_is_replaced_through_a_link(workspace: Workspace, tmp_path: Path) -> None:
    build(workspace, tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    build(workspace, tmp_path / "link", reviewed_only=False)
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_the_root_of_the_file_system_is_refused(workspace: Workspace) -> None:
    with pytest.raises(InputFileError, match="root of the file system"):
        build(workspace, Path("/"))


STRAITS = [
    {
        "zh": {
            "prompt": f"世界上最深的{zh}是",
            "subject": zh,
            "ground_truth": truth,
            "target_new": f"{target}甲",
            "rephrase_prompt": f"论深度，排名第一的{zh}叫",
        },
        "en": {
            "prompt": f"The deepest {en} in the world is",
            "subject": en,
            "ground_truth": f"Alpha {en}",
            "target_new": f"Beta {en} X",
            "rephrase_prompt": f"Ranked by depth, the first {en} is",
        },
    }
    for zh, en, truth, target in (
        ("海", "sea", "珊瑚", "波罗的"),
        ("海峡", "narrow passage", "德雷克", "渤海"),
    )
]


@pytest.fixture
def two_similar_facts(tmp_path: Path) -> Workspace:
    file = tmp_path / "facts.json"
    file.write_text(json.dumps(STRAITS, ensure_ascii=False), encoding="utf-8")
    clm_data.import_files(file, workspace=tmp_path)
    return open_workspace(tmp_path)


def test_build_names_the_setting_for_near_duplicates_with_other_subjects(
    two_similar_facts: Workspace, tmp_path: Path
) -> None:
    report = build(two_similar_facts, tmp_path / "out")
    assert (report.stats.records, report.other_subjects) == (1, 1)
    assert "dedup.policy: by-subject" in "\n".join(report.summary())
    by_subject = two_similar_facts.with_settings(dedup={"policy": "by-subject"})
    report = build(by_subject, tmp_path / "both")
    assert (report.stats.records, report.other_subjects) == (2, 0)
    assert "by-subject" not in "\n".join(report.summary())
    ((_, warning),) = collect(by_subject).assembly.warnings
    assert (warning.code, warning.lang) == ("similar-prompt", "zh")
    audited = clm_data.audit(workspace=by_subject)
    assert audited.by_code == {"similar-prompt": 1}


def test_similar_entries_that_reviewers_accepted_are_both_built(
    two_similar_facts: Workspace, tmp_path: Path
) -> None:
    with two_similar_facts.open_store() as store:
        candidates = collect(two_similar_facts).assembly.candidates
        decisions = [
            Decision(
                entry_id=each.id, content_hash=each.content_hash, verdict="accept", reviewer="李华"
            )
            for each in candidates
        ]
        store.add_decisions(decisions, ["1", "2"])
    assert build(two_similar_facts, tmp_path / "out").stats.records == 2
    assert clm_data.audit(workspace=two_similar_facts).by_code == {"similar-prompt": 1}

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.hub_server import Repo, running_hub

from clm_data.errors import InputFileError
from clm_data.probes import read_probes
from clm_data.records import Probe, ProbePair

PAIR = {
    "zh": {"loc": "标准钢琴上一共有几个琴键？", "loc_ans": "88"},
    "en": {"loc": "How many keys does a standard piano have?", "loc_ans": "88"},
}
OTHER = {
    "zh": {"loc": "光年是什么的单位？", "loc_ans": "距离"},
    "en": {"loc": "What does a light-year measure?", "loc_ans": "Distance"},
}
FACT = dict.fromkeys(("prompt", "subject", "ground_truth", "target_new", "rephrase_prompt"), "长江")


def saved(folder: Path, rows: Any, name: str = "probes.json") -> str:
    (folder / name).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return name


def pair(rows: dict[str, dict[str, str]]) -> ProbePair:
    return ProbePair(zh=Probe(**rows["zh"]), en=Probe(**rows["en"]))


def test_the_bank_has_valid_bilingual_probes() -> None:
    probes = read_probes("bank")
    assert len(probes.kept) >= 150
    assert probes.rejected == ()


@pytest.mark.parametrize("name", ["probes.json", "probes.yaml", "probes.jsonl"])
def test_a_list_of_bilingual_probes_can_be_read(tmp_path: Path, name: str) -> None:
    rows = [PAIR, OTHER]
    text = "\n".join(map(json.dumps, rows)) if name.endswith("l") and "json" in name else ""
    (tmp_path / name).write_text(text or json.dumps(rows), encoding="utf-8")
    assert read_probes(name, tmp_path).kept == (pair(PAIR), pair(OTHER))
    assert read_probes(str(tmp_path / name)).kept == (pair(PAIR), pair(OTHER))


def test_the_published_prefix_and_outer_whitespace_are_removed(tmp_path: Path) -> None:
    dirty = {
        "zh": {"loc": f" {PAIR['zh']['loc']}\n", "loc_ans": " 88"},
        "en": {"loc": f" NQ question:  {PAIR['en']['loc']} ", "loc_ans": "88 "},
    }
    assert read_probes(saved(tmp_path, [dirty]), tmp_path).kept == (pair(PAIR),)


@pytest.mark.parametrize(
    ("lang", "field", "text", "code"),
    [
        ("zh", "loc", " how many keys does a piano have", "untranslated-probe"),
        ("en", "loc", "标准钢琴上有几个琴键", "untranslated-probe"),
        ("en", "loc_ans", "八十八", "untranslated-probe"),
        ("zh", "loc_ans", "  ", "empty-field"),
        ("en", "loc", "nq question: ", "empty-field"),
        ("en", "loc", None, "empty-field"),
        ("zh", "loc", [5], "unreadable-answer"),
        ("zh", "loc", True, "unreadable-answer"),
    ],
)
def test_broken_probes_are_rejected(
    tmp_path: Path, lang: str, field: str, text: Any, code: str
) -> None:
    broken = {**PAIR, lang: {**PAIR[lang], field: text}}
    sifted = read_probes(saved(tmp_path, [broken, OTHER]), tmp_path)
    assert sifted.kept == (pair(OTHER),)
    (gone,) = sifted.rejected
    assert (gone.stage, gone.code, gone.id) == ("locality", code, "probes.json#1")
    assert gone.content == broken


def test_a_chinese_probe_may_have_a_latin_name_as_answer(tmp_path: Path) -> None:
    named = {**OTHER, "zh": {"loc": "谁制作了《纸牌屋》？", "loc_ans": "Netflix"}}
    assert read_probes(saved(tmp_path, [named]), tmp_path).rejected == ()


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_question_repeated_in_either_language_is_rejected(tmp_path: Path, lang: str) -> None:
    again = {**OTHER, lang: {**PAIR[lang], "loc_ans": "88" if lang == "en" else "八十八"}}
    sifted = read_probes(saved(tmp_path, [PAIR, again]), tmp_path)
    assert sifted.kept == (pair(PAIR),)
    assert sifted.rejected[0].code == "repeated-probe"
    assert sifted.rejected[0].problems[0].twin == pair(PAIR).id


def test_bilingual_datasets_can_be_sources(tmp_path: Path) -> None:
    mix = [{"case_id": 1, **FACT, **PAIR["zh"]}, {"case_id": 1, **FACT, **PAIR["en"]}]
    mix[1]["prompt"] = "The Yangtze rises in"
    zsre = {"src": "长江", "subject": "长", "alt": "a", "rephrase": "b", "answers": ["c"]}
    bi_zsre = [{lang: {**zsre, **PAIR[lang]} for lang in ("zh", "en")}]
    for rows in (mix, bi_zsre):
        assert read_probes(saved(tmp_path, rows), tmp_path).kept == (pair(PAIR),)


def test_a_monolingual_source_is_a_one_line_error(tmp_path: Path) -> None:
    zsre = {"src": "Who?", "subject": "W", "alt": "a", "rephrase": "b", "answers": ["c"]}
    name = saved(tmp_path, [{**zsre, **PAIR["en"]}])
    with pytest.raises(InputFileError, match="has probes in English only, but each probe needs"):
        read_probes(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("probes.yaml", "x", "expected a list of probes"),
        ("probes.yaml", [{"zh": FACT, "en": FACT}], "none of its 1 probes is usable"),
        ("probes.json", [{"zh": FACT, "en": FACT}], "no locality probes"),
        ("probes.json", [{"zh": PAIR["en"], "en": PAIR["zh"]}], "not Chinese"),
    ],
)
def test_a_file_without_usable_probes_is_an_error(
    tmp_path: Path, name: str, rows: Any, message: str
) -> None:
    with pytest.raises(InputFileError, match=message):
        read_probes(saved(tmp_path, rows, name), tmp_path)


def test_the_error_names_a_missing_source(tmp_path: Path) -> None:
    for name in ("none.json", "none.yaml"):
        with pytest.raises(InputFileError, match=f"{name}: no such file"):
            read_probes(name, tmp_path)


def test_the_published_sample_can_be_read_as_folder_or_as_mixed_file(sample_folder: Path) -> None:
    mixed = read_probes("merged_alternate_fields_no_english.json", sample_folder)
    both = read_probes(".", sample_folder)
    assert both.kept == mixed.kept
    codes = Counter(gone.code for gone in mixed.rejected)
    assert len(mixed.kept) + sum(codes.values()) == 300
    assert codes["untranslated-probe"] >= 20
    assert not any("nq question" in probe.en.loc for probe in mixed.kept)


def run_with_hub(code: str, url: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, because the Hub client reads its endpoint when imported."""
    environ = {
        **os.environ,
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)


def test_probes_can_be_read_from_the_hub(tmp_path: Path) -> None:
    rows = "\n".join(map(json.dumps, [PAIR, OTHER]))
    repo = Repo(private=False, commits=[])
    repo.add_commit({"test.jsonl": rows.encode(), ".gitattributes": b""})
    code = (
        "from clm_data.probes import read_probes\n"
        "print(*[probe.id for probe in read_probes('hub:team/probes').kept])"
    )
    with running_hub() as hub:
        hub.repos["team/probes"] = repo
        done = run_with_hub(code, hub.url, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [pair(PAIR).id, pair(OTHER).id]


def test_an_unreachable_hub_is_a_one_line_error(tmp_path: Path) -> None:
    code = (
        "from clm_data.errors import InputFileError\n"
        "from clm_data.probes import read_probes\n"
        "try:\n    read_probes('hub:team/probes')\n"
        "except InputFileError as error:\n    print(error)"
    )
    done = run_with_hub(code, "http://127.0.0.1:9", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("hub:team/probes cannot be read (")
    assert "check the id and the network" in done.stdout
    assert done.stdout.count("\n") == 1
    assert "Retrying" not in done.stderr


def _mzsre(key: str) -> list[dict[str, object]]:
    side = {"src": "p", "subject": "s", "alt": "a"}
    return [
        {
            "en": {**side, "loc": f"nq question: how many keys has piano {n}?", "loc_ans": "88"},
            key: {**side, "loc": f"第{n}架钢琴有几个琴键？", "loc_ans": "88"},
        }
        for n in range(3)
    ]


@pytest.mark.parametrize("key", ["zh-cn", "zh_CN", "Chinese"])
def test_probes_of_mzsre_rows_are_read(tmp_path: Path, key: str) -> None:
    file = tmp_path / "mzsre.json"
    file.write_text(json.dumps(_mzsre(key), ensure_ascii=False), encoding="utf-8")
    probes = read_probes(str(file))
    assert [pair.zh.loc for pair in probes.kept] == [f"第{n}架钢琴有几个琴键？" for n in range(3)]
    bare = [
        {lang: {name: side[name] for name in ("loc", "loc_ans")} for lang, side in row.items()}
        for row in json.loads(file.read_text(encoding="utf-8"))
    ]
    file.write_text(json.dumps(bare, ensure_ascii=False), encoding="utf-8")
    assert read_probes(str(file)).kept == probes.kept


def test_a_side_in_an_unread_language_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mzsre.json"
    file.write_text(json.dumps(_mzsre("zh-tw"), ensure_ascii=False), encoding="utf-8")
    with pytest.raises(InputFileError, match="missing: add an object 'zh'"):
        read_probes(str(file))
    with pytest.raises(InputFileError, match="not a regular file"):
        read_probes("/dev/zero")


def test_numbers_in_probes_become_text(tmp_path: Path) -> None:
    row = {lang: {**PAIR[lang], "loc_ans": 88.0} for lang in ("zh", "en")}
    (found,) = read_probes(saved(tmp_path, [row]), tmp_path).kept
    assert (found.zh.loc_ans, found.en.loc_ans) == ("88", "88")


def test_every_row_of_a_source_is_a_probe_or_rejected(tmp_path: Path) -> None:
    rows: list[Any] = [*_mzsre("zh-cn"), {"en": {"src": "p"}, "zh-cn": {"src": "p"}}, None, 5]
    rows += [{"en": {"src": "p", "loc": {}}, "zh-cn": {"src": "p"}}, rows[0]]
    found = read_probes(saved(tmp_path, rows), tmp_path)
    assert len(found.kept) == 3
    assert len(found.kept) + len(found.rejected) == len(rows)
    reasons = [rejected.problems[0].message for rejected in found.rejected]
    assert any("no locality probe" in reason for reason in reasons)

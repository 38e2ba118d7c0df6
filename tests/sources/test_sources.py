from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.example_candidates import VALID

from clm_data.errors import InputFileError, UnknownNameError
from clm_data.layouts import PUBLISHED_FILES, with_english_names
from clm_data.records import FACT_FIELDS, Candidate, Language, LooseFact, LooseProbe, Origin
from clm_data.sources import FORMATS, SourceFile, candidates_of, read_file, stored_candidates
from clm_data.store import Store

ZH, EN = VALID["zh"], VALID["en"]
FACTS = {lang: {name: side[name] for name in FACT_FIELDS} for lang, side in VALID.items()}
PROBES = {lang: {name: side[name] for name in ("loc", "loc_ans")} for lang, side in VALID.items()}


def zsre(side: Mapping[str, str]) -> dict[str, Any]:
    return {
        "subject": side["subject"],
        "src": side["prompt"],
        "pred": "a model answer",
        "rephrase": side["rephrase_prompt"],
        "alt": side["target_new"],
        "answers": [side["ground_truth"], "another name"],
        "loc": side["loc"],
        "loc_ans": side["loc_ans"],
        "cond": "a >> b",
    }


COUNTERFACT = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "The novel {} was written by",
        "relation_id": "P50",
        "target_new": {"str": EN["target_new"], "id": "Q1"},
        "target_true": {"str": EN["ground_truth"], "id": "Q2"},
        "subject": EN["subject"],
    },
    "paraphrase_prompts": [EN["rephrase_prompt"], "Another"],
    "neighborhood_prompts": ["The author of Long River is", "x"],
    "generation_prompts": [],
}


def counterfact(lang: Language) -> dict[str, Any]:
    side = VALID[lang]
    edit = {
        "prompt": side["prompt"].replace(side["subject"], "{}"),
        "subject": side["subject"],
        "target_new": side["target_new"],
        "target_true": [side["ground_truth"]],
    }
    return {"requested_rewrite": edit, "paraphrase_prompts": [side["rephrase_prompt"]]}


CKNOWEDIT = {
    "prompt": ZH["prompt"],
    "subject": ZH["subject"],
    "target_old": ZH["ground_truth"],
    "target_new": ZH["target_new"],
    "rephrase": [ZH["rephrase_prompt"], "另一种问法"],
    "portability": [{"prompt": "另一个问题", "answer": "另一个答案"}],
    "locality": [{"prompt": ZH["loc"], "answer": ZH["loc_ans"]}],
}
EASYEDIT = {
    "subject": EN["subject"],
    "prompt": EN["prompt"],
    "target_new": EN["target_new"],
    "ground_truth": [EN["ground_truth"]],
    "rephrase_prompt": EN["rephrase_prompt"],
    "portability": {},
    "locality": {
        "Relation_Specificity": [{"prompt": EN["loc"], "ground_truth": [[EN["loc_ans"]]]}]
    },
}
EASYEDIT_FLAT = {
    **{name: EN[name] for name in FACT_FIELDS},
    "case_id": 0,
    "locality_prompt": EN["loc"],
    "locality_ground_truth": EN["loc_ans"],
}
CLM_DATA_ENTRY = {
    "id": "x",
    "domain": "chinese_literature",
    "zh": FACTS["zh"],
    "en": FACTS["en"],
    "probe": PROBES,
}
PARALLEL = {"id": "x", "case_id": 3, "domain": None, "zh": ZH, "en": EN, "review": "accepted"}

ROWS: dict[str, tuple[str, list[dict[str, Any]], set[str]]] = {
    "clm-bench-zh": ("clm-bench-zh", [{"case_id": 1, **ZH}], {"zh"}),
    "clm-bench-en": ("clm-bench-en", [with_english_names({"case_id": 1, **EN})], {"en"}),
    "clm-bench-mix": ("clm-bench-mix", [{"case_id": 1, **ZH}, {"case_id": 1, **EN}], {"zh", "en"}),
    "easyedit": ("easyedit", [EASYEDIT], {"en"}),
    "easyedit, flat": ("easyedit", [EASYEDIT_FLAT], {"en"}),
    "counterfact": ("counterfact", [COUNTERFACT], {"en"}),
    "zsre": ("zsre", [zsre(EN)], {"en"}),
    "zsre in Chinese": ("zsre", [zsre(ZH)], {"zh"}),
    "bi-zsre": ("bi-zsre", [{"en": zsre(EN), "zh": zsre(ZH)}], {"zh", "en"}),
    "mzsre": ("bi-zsre", [{"en": zsre(EN), "zh-cn": zsre(ZH)}], {"zh", "en"}),
    "bi-counterfact": (
        "bi-counterfact",
        [{"en": COUNTERFACT, "zh_CN": counterfact("zh")}],
        {"zh", "en"},
    ),
    "cknowedit": ("easyedit", [CKNOWEDIT], {"zh"}),
    "clm-data": ("clm-data", [CLM_DATA_ENTRY], {"zh", "en"}),
    "parallel": ("clm-data", [PARALLEL], {"zh", "en"}),
}


def file_of(rows: list[Any], format: str, name: str = "made.json") -> SourceFile:
    return SourceFile(name, format, name + format + json.dumps(rows), rows)


def saved(folder: Path, rows: Any, name: str = "made.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("label", ROWS)
def test_each_format_is_detected_and_read(tmp_path: Path, label: str) -> None:
    name, rows, languages = ROWS[label]
    source = read_file(saved(tmp_path, rows), licence="MIT")
    assert (source.format, source.rows, source.licence) == (name, rows, "MIT")
    result = candidates_of([source])
    (found,) = result.kept
    assert result.rejected == ()
    assert found.origin == Origin(kind="import", name="made.json", licence="MIT")
    for lang in ("zh", "en"):
        expected = LooseFact(**FACTS[lang]) if lang in languages else None
        assert found.fact(lang) == expected
        if lang in languages and "counterfact" not in name:
            assert found.probe(lang) == LooseProbe(**PROBES[lang])


def test_every_format_has_an_example_in_this_module() -> None:
    assert {name for name, _, _ in ROWS.values()} | {"csv"} == FORMATS.keys()


def test_domain_and_case_id_are_read() -> None:
    (entry,) = candidates_of([file_of([CLM_DATA_ENTRY], "clm-data")]).kept
    (parallel,) = candidates_of([file_of([PARALLEL], "clm-data")]).kept
    (counterfact,) = candidates_of([file_of([COUNTERFACT], "counterfact")]).kept
    assert (entry.domain, entry.case_id) == ("chinese_literature", None)
    assert (parallel.domain, parallel.case_id) == (None, 3)
    assert counterfact.case_id == 7
    assert counterfact.en_probe == LooseProbe(
        loc="The author of Long River is", loc_ans=EN["ground_truth"]
    )


@pytest.mark.parametrize(
    "names",
    [
        ("zh_{}", "en_{}"),
        ("zh.{}", "en.{}"),
        ("{}", "english_{}"),
        ("{}", "en_{}"),
        ("zh_{}", "{}"),
    ],
)
def test_csv_columns_may_have_any_supported_prefix(tmp_path: Path, names: tuple[str, str]) -> None:
    row = {names[0].format(name): text for name, text in ZH.items()}
    row |= {names[1].format(name): text for name, text in EN.items()}
    out = io.StringIO()
    writer = csv.DictWriter(out, list(row))
    writer.writeheader()
    writer.writerow(row)
    path = tmp_path / "made.csv"
    path.write_text(out.getvalue(), encoding="utf-8")
    source = read_file(path)
    assert (source.format, source.rows) == ("csv", [row])
    (found,) = candidates_of([source]).kept
    assert (found.zh, found.en) == (LooseFact(**FACTS["zh"]), LooseFact(**FACTS["en"]))
    assert (found.zh_probe, found.en_probe) == (
        LooseProbe(**PROBES["zh"]),
        LooseProbe(**PROBES["en"]),
    )


def test_an_unknown_format_is_reported_with_its_fields(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no format has rows with question, answer"):
        read_file(saved(tmp_path, [{"question": "a", "answer": "b"}]))
    with pytest.raises(InputFileError, match="no row is a JSON object"):
        read_file(saved(tmp_path, [1, 2]))


def test_a_given_format_must_exist_and_match(tmp_path: Path) -> None:
    path = saved(tmp_path, [{"case_id": 1, **ZH}])
    assert read_file(path, "clm-bench-mix").format == "clm-bench-mix"
    with pytest.raises(UnknownNameError, match="did you mean counterfact"):
        read_file(path, "counterfac")
    with pytest.raises(InputFileError, match="no row has the fields of zsre"):
        read_file(path, "zsre")


def test_a_clm_data_record_must_match_its_schema(tmp_path: Path) -> None:
    record = {
        "id": "clm-1",
        "case_id": 0.5,
        "domain": None,
        **{lang: FACTS[lang] for lang in FACTS},
        **{f"{lang}_probe": PROBES[lang] for lang in PROBES},
        "review": "unreviewed",
        "origin": {"kind": "bank", "name": "b"},
    }
    assert read_file(saved(tmp_path, [record | {"case_id": 1}])).format == "clm-data"
    with pytest.raises(InputFileError, match="row 1: case_id"):
        read_file(saved(tmp_path, [record]))


@pytest.mark.parametrize(
    ("rows", "format", "reason"),
    [
        (
            [{"case_id": 1, **ZH, "prompt": True}],
            "clm-bench-zh",
            "zh.prompt: expected text, found true",
        ),
        (
            [{"case_id": 1, **ZH, "loc": ["a"]}],
            "clm-bench-zh",
            'zh.loc: expected text, found ["a"]',
        ),
        ([{"case_id": True, **ZH}], "clm-bench-zh", "case_id: expected a whole number or text"),
        ([{"case_id": 1.5, **ZH}], "clm-bench-zh", "case_id: expected a whole number or text"),
        (["a"], "clm-bench-zh", 'expected an object, found "a"'),
        ([None], "clm-bench-mix", "expected an object, found null"),
        ([{"requested_rewrite": 1}], "counterfact", "requested_rewrite: expected an object"),
        ([{"zh": zsre(ZH)}], "bi-zsre", "en: expected an object"),
    ],
)
def test_unreadable_rows_are_rejected_with_their_content(
    rows: list[Any], format: str, reason: str
) -> None:
    result = candidates_of([file_of(rows, format)])
    assert result.kept == ()
    (rejection,) = result.rejected
    assert (rejection.stage, rejection.id, rejection.code) == (
        "parse",
        "made.json#1",
        "unreadable-answer",
    )
    assert rejection.problems[0].message.startswith(f"row 1: {reason}")
    assert rejection.content == rows[0]


def numbered(number: int | str, lang: Language = "zh", **changes: Any) -> dict[str, Any]:
    return {"case_id": number, **VALID[lang], **changes}


def sides(found: Candidate) -> str:
    return "".join(lang for lang in ("zh", "en") if found.fact(lang) is not None)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([numbered(1), numbered(1, "en"), numbered(2)], ["zhen", "zh"]),
        ([numbered(1), numbered(2, "en")], ["zh", "en"]),
        ([numbered(1), numbered("1", "en")], ["zh", "en"]),
        ([numbered(1, "en"), numbered(1)], ["en", "zh"]),
        ([numbered(9, "en"), numbered(1), numbered(1, "en")], ["en", "zhen"]),
        ([numbered(1), numbered(1, "en", prompt=None)], ["zhen"]),
    ],
)
def test_mixed_rows_are_paired_by_script_and_id(
    rows: list[dict[str, Any]], expected: list[str]
) -> None:
    for number, row in enumerate(rows):
        row["target_new"] = f"{number}"
    found = candidates_of([file_of(rows, "clm-bench-mix")]).kept
    assert [sides(candidate) for candidate in found] == expected


def test_files_with_different_ids_are_not_paired() -> None:
    zh = file_of([numbered(1), numbered(2, target_new="x")], "clm-bench-zh", "zh.json")
    rows = [with_english_names(numbered(n, "en", target_new=str(n))) for n in (2, 1)]
    en = file_of(rows, "clm-bench-en", "en.json")
    found = candidates_of([zh, en]).kept
    assert [sides(candidate) for candidate in found] == ["zh", "zh", "en", "en"]


def test_a_pair_of_files_has_one_origin() -> None:
    zh = SourceFile("zh.json", "clm-bench-zh", "1", [numbered(1)], "MIT")
    row = with_english_names(numbered(1, "en"))
    both = [zh, SourceFile("en.json", "clm-bench-en", "2", [row], "MIT")]
    (found,) = candidates_of(both).kept
    assert found.origin == Origin(kind="import", name="zh.json + en.json", licence="MIT")
    mixed = [zh, SourceFile("en.json", "clm-bench-en", "2", [row])]
    assert candidates_of(mixed).kept[0].origin.licence is None


def test_repetitions_within_a_file_are_kept_and_across_files_are_dropped() -> None:
    twice = file_of([numbered(1), numbered(2)], "clm-bench-zh", "a.json")
    once = file_of([numbered(3)], "clm-bench-zh", "b.json")
    found = candidates_of([twice, once]).kept
    assert [(c.case_id, c.origin.name) for c in found] == [(1, "a.json"), (2, "a.json")]
    assert found[0].id == found[1].id
    found = candidates_of([once, twice]).kept
    assert [(c.case_id, c.origin.name) for c in found] == [(3, "b.json"), (2, "a.json")]


def test_the_published_sample_gives_300_candidates_in_any_combination_of_files(
    sample_folder: Path,
) -> None:
    files = {name: read_file(sample_folder / name) for name in PUBLISHED_FILES}
    formats = [file.format for file in files.values()]
    assert formats == ["clm-bench-zh", "clm-bench-en", "clm-bench-mix"]
    assert [len(file.rows) for file in files.values()] == [300, 300, 600]
    (whole,) = {
        tuple(sorted(candidate.id for candidate in candidates_of(list(chosen)).kept))
        for count in (1, 2, 3)
        for chosen in itertools.permutations(files.values(), count)
        if files[PUBLISHED_FILES[2]] in chosen or len(chosen) == 2
    }
    assert len(whole) == 300
    for name in PUBLISHED_FILES[:2]:
        assert len(candidates_of([files[name]]).kept) == 300


def test_stored_files_give_the_same_candidates(tmp_path: Path) -> None:
    sources = [
        read_file(saved(tmp_path, rows, f"{number}.json"))
        for number, (_, rows, _) in enumerate(ROWS.values())
    ]
    with Store("sqlite://") as store:
        for source in sources:
            assert store.add_source(
                source.name, source.format, source.sha256, source.licence, source.rows
            )
        assert stored_candidates(store) == candidates_of(sources)

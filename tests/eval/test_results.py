"""Result files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clm_data.errors import InputFileError
from clm_data.eval import baselines, results
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.results import (
    BaselineResult,
    CellResult,
    Checkpoint,
    FactResult,
    Measures,
    Refusal,
    Results,
    Setting,
    summarize,
)
from clm_data.records import Language

SETTING = Setting(model="m", method="memit", language="mix", batch_size=2)


def fact(reliability: float | None, **other: float) -> dict[Language, Measures]:
    parts: Measures = {"reliability": reliability, "generality": 0.5, "locality": 1.0, **other}
    return {"zh": parts, "en": dict(parts)}


def cell(key: str = "k") -> CellResult:
    items = tuple(
        FactResult(id=str(i), domain="d" if i else None, batch=0, **fact(i / 2)) for i in range(3)
    )
    return CellResult(key=key, setting=SETTING, status="done", items=items, seconds={"edit": 1.0})


def test_a_summary_has_every_measure_the_scores_and_trans() -> None:
    summary = summarize([fact(1.0, exact_match=1.0), fact(0.0, exact_match=0.0)], Bootstrap())
    reliability = summary["zh_reliability"]
    assert reliability is not None
    assert (reliability.mean, reliability.count) == (0.5, 2)
    score = summary["en_score"]
    assert score is not None
    assert score.mean == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    trans = summary["trans"]
    assert trans is not None
    assert trans.mean == 1.0
    assert "zh_exact_match" in summary


def test_a_fact_without_a_value_is_left_out_of_the_mean_and_of_its_count() -> None:
    summary = summarize([fact(None), fact(0.5)], Bootstrap())
    reliability, locality, score = (
        summary[name] for name in ("zh_reliability", "zh_locality", "zh_score")
    )
    assert reliability is not None
    assert locality is not None
    assert score is not None
    assert (reliability.mean, reliability.count, locality.count, score.count) == (0.5, 1, 2, 1)


def test_the_mean_score_equals_the_score_of_the_means_if_no_part_is_missing() -> None:
    summary = summarize([fact(0.3), fact(0.9), fact(0.6)], Bootstrap())
    parts = [summary[f"zh_{part}"] for part in ("reliability", "generality", "locality")]
    score = summary["zh_score"]
    assert score is not None
    assert score.mean == pytest.approx(sum(part.mean for part in parts if part) / 3)


def test_each_domain_has_its_own_means_and_records_without_one_are_unknown() -> None:
    found = results.by_domain(cell().items)
    assert list(found) == ["d", "unknown"]
    assert found["d"]["facts"] == 2
    assert found["d"]["zh_reliability"] == pytest.approx(0.75)
    assert found["unknown"]["zh_reliability"] == 0.0


def test_a_cell_is_read_back_and_a_damaged_or_missing_file_is_none(tmp_path: Path) -> None:
    results.write_cell(tmp_path, cell())
    assert results.read_cell(tmp_path, "k") == cell()
    assert results.read_cell(tmp_path, "other") is None
    file = tmp_path / "cells" / "k.json"
    file.write_text(file.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    assert results.read_cell(tmp_path, "k") is None
    assert [p.name for p in (tmp_path / "cells").iterdir()] == ["k.json"]


def test_results_json_has_neither_facts_nor_seconds(tmp_path: Path) -> None:
    whole = Results(
        title="t", dataset="d", dataset_key="0", records=3, seed=1, cells=(cell(), cell("l"))
    )
    results.write_results(tmp_path, whole)
    raw = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert all(not {"items", "seconds"} & one.keys() for one in raw["cells"])
    back = results.read_results(tmp_path)
    assert back == results.read_results(tmp_path / "results.json")
    assert [one.key for one in back.cells] == ["k", "l"]


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="eval-baselines"):
        results.read_results(tmp_path)


def test_a_damaged_file_of_results_says_how_to_write_it_anew(tmp_path: Path) -> None:
    for content in (b"", b'{"title": "\xe4\xb8', b'{"title": '):
        (tmp_path / "results.json").write_bytes(content)
        with pytest.raises(InputFileError, match=r"is damaged.*run eval-baselines again into its"):
            results.read_results(tmp_path)
    (tmp_path / "results.json").write_bytes(b"{}")
    with pytest.raises(InputFileError, match="given with --out"):
        results.read_results(tmp_path)


def test_a_label_identifies_a_cell() -> None:
    assert SETTING.label == "m memit mix batch 2"
    other = SETTING.model_copy(update={"mode": "sequential", "layers": (1, 2)})
    assert other.label == "m memit mix batch 2 sequential layers 1,2"
    easyedit = other.model_copy(update={"protocol": "easyedit", "layers": None})
    assert easyedit.label == "m memit mix batch 2 sequential easyedit"


def test_cells_with_former_field_names_are_still_read(tmp_path: Path) -> None:
    checkpoint = Checkpoint(edited=2, after=summarize([fact(1.0)], Bootstrap()))
    new = cell().model_copy(update={"checkpoints": (checkpoint,)})
    results.write_cell(tmp_path, new)
    file = tmp_path / "cells" / "k.json"
    value = json.loads(file.read_text(encoding="utf-8"))
    value["along"] = value.pop("checkpoints")
    for item in value["items"]:
        item["said"] = item.pop("continuation")
    file.write_text(json.dumps(value), encoding="utf-8")
    assert results.read_cell(tmp_path, "k") == new


def test_the_baseline_is_read_back_by_record(tmp_path: Path) -> None:
    answers = [
        BaselineResult(id=name, **fact(0.5), continuation={"zh": "北京", "en": "Beijing"})
        for name in ("a", "b")
    ]
    baselines.write_baseline(tmp_path, "key", answers)
    keyed = cell().model_copy(update={"baseline": "key"})
    assert baselines.read_baseline(tmp_path, keyed) == dict(zip("ab", answers, strict=True))
    assert baselines.has_baseline(tmp_path, keyed)


def test_answers_before_the_edit_that_are_missing_or_damaged_are_an_error_with_the_remedy(
    tmp_path: Path,
) -> None:
    keyed = cell().model_copy(update={"baseline": "key"})
    with pytest.raises(InputFileError, match=r"key\.json.* are missing; run eval-baselines"):
        baselines.read_baseline(tmp_path, keyed)
    file = tmp_path / "before" / "key.json"
    file.parent.mkdir()
    for damaged in (b"[", b"", b"\xff\xfe", b'[{"id": "a"}]'):
        file.write_bytes(damaged)
        with pytest.raises(InputFileError, match=r"key\.json.* cannot be read; run eval-base"):
            baselines.read_baseline(tmp_path, keyed)
    assert not baselines.has_baseline(tmp_path, keyed)


def test_answers_of_an_earlier_version_are_read_only_for_the_cells_that_they_belong_to(
    tmp_path: Path,
) -> None:
    old = cell()  # without a key
    facts = [fact(0.25), fact(0.5), fact(None)]
    mine = [BaselineResult(id=str(i), **one) for i, one in enumerate(facts)]
    others = [BaselineResult(id=str(i), **fact(0.75)) for i in range(3)]
    old = old.model_copy(update={"before": summarize(facts, Bootstrap())})
    baselines.write_baseline(tmp_path, "m-native", mine)
    assert baselines.read_baseline(tmp_path, old)["1"] == mine[1]
    for wrong in (others, mine[:2]):
        baselines.write_baseline(tmp_path, "m-native", wrong)
        with pytest.raises(InputFileError, match=r"m-native\.json.* another run into the same"):
            baselines.read_baseline(tmp_path, old)


def test_results_are_a_table_with_one_row_per_cell() -> None:
    done = cell().model_copy(update={"after": summarize([fact(0.5)], Bootstrap())})
    failed = CellResult(key="", setting=SETTING, status="failed", error="out of memory")
    found = Results(
        title="t", dataset="d", dataset_key="0", records=3, seed=1, cells=(done, failed)
    )
    first, second = found.table_rows()
    assert first.keys() == second.keys()
    assert (first["method"], first["zh_reliability"], first["error"]) == ("memit", 0.5, None)
    assert (second["zh_reliability"], second["error"]) == (None, "out of memory")
    assert found.table_title() == "t: 2 cells, 1 failed"
    assert "out of memory" in found._repr_html_()


def test_refused_edits_and_facts_without_a_value_are_losses() -> None:
    one = cell().model_copy(
        update={
            "facts": 3,
            "refused": (Refusal(id="a:en", reason="no subject"),),
            "after": summarize([fact(1.0), fact(None), fact(None)], Bootstrap(resamples=0)),
        }
    )
    found = Results(title="t", dataset="d", dataset_key="0", records=3, seed=1, cells=(one,))
    refused, zh, en = found.losses
    assert "1 edits refused, such as a:en: no subject" in refused
    assert "2 of 3 facts have no zh reliability" in zh
    assert "2 of 3 facts have no en reliability" in en
    assert found.model_copy(update={"cells": ()}).losses == ()

"""Result files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clm_data.errors import InputFileError
from clm_data.eval import results
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.results import CellResult, FactResult, Measures, Results, Setting, summarize
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


def test_a_fact_that_could_not_be_placed_counts_in_no_mean_and_is_seen_in_the_count() -> None:
    summary = summarize([fact(None), fact(0.5)], Bootstrap())
    reliability, locality, score = (
        summary[name] for name in ("zh_reliability", "zh_locality", "zh_score")
    )
    assert reliability is not None
    assert locality is not None
    assert score is not None
    assert (reliability.mean, reliability.count, locality.count, score.count) == (0.5, 1, 2, 1)


def test_the_score_of_means_is_the_mean_of_scores_where_all_facts_have_all_parts() -> None:
    summary = summarize([fact(0.3), fact(0.9), fact(0.6)], Bootstrap())
    parts = [summary[f"zh_{part}"] for part in ("reliability", "generality", "locality")]
    score = summary["zh_score"]
    assert score is not None
    assert score.mean == pytest.approx(sum(part.mean for part in parts if part) / 3)


def test_domains_have_their_own_means_and_the_unknown_is_named() -> None:
    found = results.by_domain(cell().items)
    assert list(found) == ["d", "unknown"]
    assert found["d"]["facts"] == 2
    assert found["d"]["zh_reliability"] == pytest.approx(0.75)
    assert found["unknown"]["zh_reliability"] == 0.0


def test_a_cell_reads_back_and_a_torn_or_foreign_file_is_none(tmp_path: Path) -> None:
    results.write_cell(tmp_path, cell())
    assert results.read_cell(tmp_path, "k") == cell()
    assert results.read_cell(tmp_path, "other") is None
    file = tmp_path / "cells" / "k.json"
    file.write_text(file.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    assert results.read_cell(tmp_path, "k") is None
    assert [p.name for p in (tmp_path / "cells").iterdir()] == ["k.json"]


def test_the_summary_file_holds_no_single_facts_and_no_times(tmp_path: Path) -> None:
    whole = Results(
        title="t", dataset="d", dataset_key="0", records=3, seed=1, cells=(cell(), cell("l"))
    )
    results.write_results(tmp_path, whole)
    raw = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert all(not {"items", "seconds"} & one.keys() for one in raw["cells"])
    back = results.read_results(tmp_path)
    assert back == results.read_results(tmp_path / "results.json")
    assert [one.key for one in back.cells] == ["k", "l"]


def test_a_folder_without_results_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="eval-baselines"):
        results.read_results(tmp_path)


def test_a_label_says_what_a_cell_is() -> None:
    assert SETTING.label == "m memit mix batch 2"
    other = SETTING.model_copy(update={"mode": "sequential", "layers": (1, 2)})
    assert other.label == "m memit mix batch 2 sequential layers 1,2"
    easyedit = other.model_copy(update={"protocol": "easyedit", "layers": None})
    assert easyedit.label == "m memit mix batch 2 sequential easyedit"

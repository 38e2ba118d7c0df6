"""The run of every method: the target, and the figures that the docs show."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from helpers.paths import docs_script

from clm_data.eval.editors.known_models import KNOWN_MODELS
from clm_data.eval.intervals import Interval
from clm_data.eval.recipe import read_recipe
from clm_data.eval.results import CellResult, Results, Setting, write_cell, write_results
from clm_data.records import LANGUAGES

every_method = docs_script("every_method")
FIGURES = json.loads(every_method.FIGURES.read_text(encoding="utf-8"))


def test_the_figures_are_of_the_methods_and_languages_of_the_recipe() -> None:
    recipe = read_recipe("all-methods")
    assert set(FIGURES["first"]) == set(recipe.methods)
    assert {"langedit", "locft-bf", "ultraedit", "grace"} <= set(FIGURES["others"])
    for found in FIGURES.values():
        assert all(set(cells) == set(recipe.languages) for cells in found.values())


def test_the_figures_reach_the_target() -> None:
    assert every_method.below_target(FIGURES["first"]) == []
    others = [method for method in every_method.HELD if method in FIGURES["others"]]
    assert every_method.below_target(FIGURES["others"], others) == []


def test_the_page_has_the_tables_of_the_figures() -> None:
    page = every_method.PAGE.read_text(encoding="utf-8")
    assert [every_method.table(found) in page for found in FIGURES.values()] == [True, True]


def test_the_page_names_the_known_models_and_what_is_checked() -> None:
    page = every_method.PAGE.read_text(encoding="utf-8")
    *held, last = every_method.HELD
    assert all(f"`{model}`" in page for model in KNOWN_MODELS)
    assert f"`{'`, `'.join(held)}` and `{last}` give" in page.replace("\n", " ")


def test_what_misses_the_target_is_named() -> None:
    found = copy.deepcopy(FIGURES["first"])
    found["lora"]["zh"]["reliability"] = 0.8994
    found["grace"]["en"] = {"error": "out of memory"}
    del found["locft-bf"]["en"]
    assert every_method.below_target(found) == [
        "locft-bf edited in en: no result",
        "lora edited in zh: 89.9% of the new answers' tokens, below 90%",
        "grace edited in en: out of memory",
    ]


def test_a_run_is_checked_by_its_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cell(method: str, lang: str) -> CellResult:
        setting = Setting(model="tiny", method=method, language=lang, batch_size=100)
        shares = {"zh_reliability": 0.95, "en_reliability": 0.94 if lang == "en" else 0.2}
        after = {name: Interval(share, share, share, 100) for name, share in shares.items()}
        done = CellResult(
            key=f"{method}-{lang}", setting=setting, status="done", after=after,
            seconds={"edit": 1.26, "measure": 9.0},
        )  # fmt: skip
        write_cell(tmp_path, done)
        return done

    cells = [cell(method, lang) for method in every_method.HELD for lang in LANGUAGES]
    results = Results(
        title="", dataset="", dataset_key="", records=100, seed=42, cells=tuple(cells)
    )
    write_results(tmp_path, results)
    assert every_method.figures(tmp_path)["lora"]["zh"] == {
        "reliability": 0.95,
        "generality": None,
        "locality": None,
        "other reliability": 0.2,
        "other locality": None,
        "seconds": 1.3,
    }
    assert every_method.main([str(tmp_path)]) == 0
    write_results(tmp_path, results.model_copy(update={"cells": tuple(cells[:-1])}))
    assert every_method.main([str(tmp_path)]) == 1
    assert f"{every_method.HELD[-1]} edited in en: no result" in capsys.readouterr().err

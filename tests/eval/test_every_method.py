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


def every_run(folder: Path) -> Results:
    """Write the results of a run that reaches the target in both languages."""

    def cell(method: str, lang: str) -> CellResult:
        setting = Setting(model="tiny", method=method, language=lang, batch_size=100)
        shares = {"zh_reliability": 0.95, "en_reliability": 0.94 if lang == "en" else 0.2}
        after = {name: Interval(share, share, share, 100) for name, share in shares.items()}
        done = CellResult(
            key=f"{method}-{lang}", setting=setting, status="done", after=after,
            seconds={"edit": 1.26, "measure": 9.0},
        )  # fmt: skip
        write_cell(folder, done)
        return done

    cells = [cell(method, lang) for method in every_method.HELD for lang in LANGUAGES]
    results = Results(
        title="", dataset="", dataset_key="", records=100, seed=42, cells=tuple(cells)
    )
    write_results(folder, results)
    return results


def test_a_run_is_checked_by_its_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = every_run(tmp_path)
    assert every_method.figures(tmp_path)["lora"]["zh"] == {
        "reliability": 0.95,
        "generality": None,
        "locality": None,
        "other reliability": 0.2,
        "other locality": None,
        "seconds": 1.3,
    }
    assert every_method.main([str(tmp_path)]) == 0
    write_results(tmp_path, results.model_copy(update={"cells": results.cells[:-1]}))
    assert every_method.main([str(tmp_path)]) == 1
    assert f"{every_method.HELD[-1]} edited in en: no result" in capsys.readouterr().err


def test_a_folder_that_is_no_run_of_every_method_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> str:
        with pytest.raises(SystemExit) as caught:
            every_method.main([str(tmp_path)])
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "no results of clm-data eval-baselines" in refused()
    results = every_run(tmp_path)
    first = results.cells[0]
    other = first.setting.model_copy(update={"batch_size": 10})
    twice = (*results.cells, first.model_copy(update={"setting": other}))
    write_results(tmp_path, results.model_copy(update={"cells": twice}))
    assert f"several cells of {first.setting.method} edited in zh" in refused()
    (tmp_path / "results.json").write_bytes((tmp_path / "results.json").read_bytes()[:50])
    assert "results.json is damaged" in refused()


def test_nothing_is_written_of_a_run_that_lacks_a_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("FIGURES", "PAGE"):
        copy = tmp_path / name
        copy.write_bytes(getattr(every_method, name).read_bytes())
        monkeypatch.setattr(every_method, name, copy)
    before = every_method.FIGURES.read_bytes(), every_method.PAGE.read_bytes()
    results = every_run(tmp_path)
    arguments = [str(tmp_path), "--write", "--others", str(tmp_path)]
    write_results(tmp_path, results.model_copy(update={"cells": results.cells[:-1]}))
    with pytest.raises(SystemExit):
        every_method.main(arguments)
    lacking = f"the run 'first' has no cell of {every_method.HELD[-1]} edited in en"
    assert lacking in capsys.readouterr().err
    assert (every_method.FIGURES.read_bytes(), every_method.PAGE.read_bytes()) == before
    write_results(tmp_path, results)
    assert every_method.main(arguments) == 0
    assert set(json.loads(every_method.FIGURES.read_text("utf-8"))["first"]) == set(
        every_method.HELD
    )

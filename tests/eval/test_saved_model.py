"""Model folders with an edit merged in, and saved edits applied to a transformers model."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.hub_server import running_hub  # noqa: E402
from helpers.saved_folders import model_folder  # noqa: E402
from helpers.small_models import small_model  # noqa: E402
from helpers.tiny_dataset import RECORDS  # noqa: E402

import clm_data  # noqa: E402
from clm_data.errors import InputFileError, PublishError, UnknownNameError  # noqa: E402
from clm_data.eval import saved_model  # noqa: E402
from clm_data.eval.editors.deltas import Deltas, WeightDelta  # noqa: E402
from clm_data.eval.editors.noted import Lookup, Notes  # noqa: E402
from clm_data.eval.errors import EditError, LayoutError  # noqa: E402
from clm_data.eval.recipe import ModelSpec  # noqa: E402
from clm_data.eval.results import read_results, write_results  # noqa: E402
from clm_data.eval.saved_model_card import model_card  # noqa: E402


@dataclass(frozen=True)
class Sweep:
    """A finished sweep of FT-L on a random model.

    Attributes:
        model: The model folder.
        out: The results: a cell with one batch, and one with two.
        cells: Keys of the two.
    """

    model: Path
    out: Path
    cells: tuple[str, str]

    def edit(self, name: str) -> Path:
        return self.out / "deltas" / f"{name}.safetensors"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("sweep")
    model = model_folder(folder / "model")
    found = clm_data.evaluate(
        RECORDS,
        model=str(model),
        methods="ft",
        languages="zh",
        batch_sizes=[8, 4],
        params="tiny",
        dtype="float32",
        out=folder / "out",
        save_deltas=True,
    )
    whole, halves = (cell.key for cell in found.cells)
    assert not found.failed
    return Sweep(model, folder / "out", (whole, halves))


def loaded(folder: Path) -> object:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def test_the_saved_model_is_the_base_model_with_the_changes_added(
    sweep: Sweep, tmp_path: Path
) -> None:
    key = sweep.cells[0]
    done = clm_data.save_model(sweep.out, tmp_path / "edited", cell=key[:10])
    base, edited = loaded(sweep.model), loaded(tmp_path / "edited")
    changes = Deltas.load(sweep.edit(f"{key}-0000")).weights
    assert set(done.weights) == set(changes)
    for name, weight in base.named_parameters():
        expected = weight + changes[name].dense() if name in changes else weight
        assert torch.equal(edited.get_parameter(name), expected), name
    assert done.edited == 8


def test_the_folder_says_what_it_is(sweep: Sweep, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    clm_data.save_model(sweep.out, tmp_path / "edited", cell=sweep.cells[0])
    said = json.loads((tmp_path / "edited" / "clm_data_edit.json").read_text("utf-8"))
    assert (said["method"], said["cell"], said["refused"]) == ("ft", sweep.cells[0], [])
    assert len(said["edited"]) == 8
    _, front, text = (tmp_path / "edited" / "README.md").read_text("utf-8").split("---\n", 2)
    assert yaml.safe_load(front)["tags"] == ["knowledge-editing", "ft"]
    assert "base_model" not in yaml.safe_load(front)  # a folder is no id on the Hub
    assert "8 answers were replaced by counterfactual ones" in text
    assert "| Chinese reliability | " in text
    same, kept = (AutoTokenizer.from_pretrained(at) for at in (sweep.model, tmp_path / "edited"))
    assert kept.backend_tokenizer.to_str() == same.backend_tokenizer.to_str()


@pytest.mark.parametrize(
    ("revision", "expected"), [("v1", "`team/m` at revision `v1`; its"), (None, "`team/m`; its")]
)
def test_the_folder_names_the_revision_of_the_base_model(
    sweep: Sweep, revision: str | None, expected: str
) -> None:
    found = read_results(sweep.out)
    cell = next(one for one in found.cells if one.key == sweep.cells[0])
    edit = Deltas.load(sweep.edit(f"{cell.key}-0000"))
    spec = ModelSpec(name="team/m", revision=revision)
    provenance = saved_model._provenance(found, cell, spec, edit)
    assert provenance["revision"] == revision
    assert f"base model: {expected} license applies" in model_card(found, cell, provenance)


def test_a_cell_with_several_batches_needs_the_number_of_one(sweep: Sweep, tmp_path: Path) -> None:
    key = sweep.cells[1]
    with pytest.raises(InputFileError, match="2 batches, each by itself; choose one with --batch"):
        clm_data.save_model(sweep.out, tmp_path / "edited", cell=key)
    with pytest.raises(UnknownNameError, match="unknown batch '2'"):
        clm_data.save_model(sweep.out, tmp_path / "edited", cell=key, batch=2)
    done = clm_data.save_model(sweep.out, tmp_path / "edited", cell=key, batch=1)
    assert done.edited == 4


def test_of_several_cells_one_must_be_chosen(sweep: Sweep, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="edits of 2 cells; choose one with --cell"):
        clm_data.save_model(sweep.out, tmp_path / "edited")
    with pytest.raises(UnknownNameError, match="unknown cell 'zz'"):
        clm_data.save_model(sweep.out, tmp_path / "edited", cell="zz")


def test_a_cell_of_an_earlier_command_says_how_to_have_it(sweep: Sweep, tmp_path: Path) -> None:
    whole, halves = sweep.cells
    found = read_results(sweep.out)
    kept = tuple(one for one in found.cells if one.key == whole)
    write_results(tmp_path, found.model_copy(update={"cells": kept}))
    shutil.copytree(sweep.out / "cells", tmp_path / "cells")
    with pytest.raises(InputFileError, match="latest command; run eval-baselines with"):
        clm_data.save_model(tmp_path, tmp_path / "edited", cell=halves[:10])


def test_a_folder_with_files_is_not_replaced(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    said: list[str] = []
    with pytest.raises(InputFileError, match=r"thesis\.txt"):
        clm_data.save_model(sweep.out, tmp_path, cell=sweep.cells[0], log=said.append)
    assert said == []  # no model was loaded for nothing
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_results_without_saved_edits_say_what_to_do(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes((sweep.out / "results.json").read_bytes())
    with pytest.raises(InputFileError, match="run eval-baselines with --save-deltas"):
        clm_data.save_model(tmp_path, tmp_path / "edited")


def test_another_model_in_the_place_of_the_edited_one_is_refused(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    clm_data.evaluate(
        RECORDS, model=str(model), methods="ft", languages="zh", params="tiny",
        out=tmp_path / "out", save_deltas=True,
    )  # fmt: skip
    model_folder(model, rope_theta=5000.0)  # other random weights
    with pytest.raises(EditError, match="the weights differ"):
        clm_data.save_model(tmp_path / "out", tmp_path / "edited")
    assert not (tmp_path / "edited").exists()


def test_an_edit_is_applied_to_a_transformers_model_in_two_lines(sweep: Sweep) -> None:
    model = loaded(sweep.model)
    names = clm_data.apply_edit(model, sweep.edit(f"{sweep.cells[0]}-0000"))
    change = Deltas.load(sweep.edit(f"{sweep.cells[0]}-0000")).weights[names[0]].dense()
    before = loaded(sweep.model).get_parameter(names[0])
    assert torch.equal(model.get_parameter(names[0]), before + change)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_an_edit_is_applied_to_the_model_in_another_dtype(sweep: Sweep, dtype: torch.dtype) -> None:
    model = loaded(sweep.model).to(dtype)
    (name, *_) = clm_data.apply_edit(model, sweep.edit(f"{sweep.cells[0]}-0000"))
    assert not torch.equal(model.get_parameter(name), loaded(sweep.model).get_parameter(name))


def test_an_edit_is_not_applied_twice(sweep: Sweep) -> None:
    model, file = loaded(sweep.model), sweep.edit(f"{sweep.cells[0]}-0000")
    (name, *_) = clm_data.apply_edit(model, file)
    once = model.get_parameter(name).clone()
    with pytest.raises(EditError, match=f"{name} is not as in the .* or one that was edited"):
        clm_data.apply_edit(model, file)
    assert torch.equal(model.get_parameter(name), once)


def test_an_edit_is_not_applied_to_another_model_of_the_same_shape(
    sweep: Sweep, tmp_path: Path
) -> None:
    other = loaded(model_folder(tmp_path / "other", rope_theta=5000.0))
    with pytest.raises(EditError, match="this is another model"):
        clm_data.apply_edit(other, sweep.edit(f"{sweep.cells[0]}-0000"))


def test_a_model_that_an_edit_does_not_fit_stays_as_it_was(sweep: Sweep, tmp_path: Path) -> None:
    """The last of two changes does not fit, in a file without a sample of the weights."""
    model = loaded(sweep.model)
    found = Deltas.load(sweep.edit(f"{sweep.cells[0]}-0000"))
    (name, change), *_ = found.weights.items()
    wrong = WeightDelta(change.dense()[:-1].clone())
    lacking = replace(found, weights={name: change, "model.layers.9.weight": wrong}, base={})
    unfit = replace(found, weights={name: change, "lm_head.weight": wrong}, base={})
    before = model.get_parameter(name).clone()
    for edit, error in ((lacking, LayoutError), (unfit, EditError)):
        edit.save(tmp_path / "edit")
        with pytest.raises(error, match=r"belongs? to another model"):
            clm_data.apply_edit(model, tmp_path / "edit")
        assert torch.equal(model.get_parameter(name), before)


def test_the_name_of_a_model_is_not_a_model(sweep: Sweep) -> None:
    with pytest.raises(EditError, match="a loaded transformers model is needed, not str"):
        clm_data.apply_edit("team/m", sweep.edit(f"{sweep.cells[0]}-0000"))


def test_an_edit_that_routes_prompts_says_where_it_can_be_used(
    sweep: Sweep, tmp_path: Path
) -> None:
    Notes("ice-oracle", "m", (), Lookup()).save(tmp_path / "notes")
    with pytest.raises(InputFileError, match=r"with applied\(model, load_edit\(path\)\)"):
        clm_data.apply_edit(loaded(sweep.model), tmp_path / "notes")


def test_the_folder_is_pushed_to_a_model_repository(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        done = clm_data.save_model(
            sweep.out, tmp_path / "edited", cell=sweep.cells[0], push="team/m", token="hf_writer",
            private=True,
        )  # fmt: skip
        files = hub.repos["team/m"].files
        written = {path.name: path.read_bytes() for path in (tmp_path / "edited").iterdir()}
        assert {name: files[name] for name in written} == written
        assert hub.repos["team/m"].private
        assert done.url == f"{hub.url}/team/m"
        with pytest.raises(PublishError, match="no write permission"):
            clm_data.save_model(
                sweep.out, tmp_path / "other", cell=sweep.cells[0], push="team/m", token="hf_reader"
            )
    assert (tmp_path / "other" / "config.json").is_file()


@pytest.mark.parametrize(("tokenizer", "expected"), [(None, "v1"), ("team/other", None)])
def test_the_tokenizer_is_that_of_the_revision(
    monkeypatch: pytest.MonkeyPatch, tokenizer: str | None, expected: str | None
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(saved_model, "load_tokenizer", lambda *given: asked.append(given))
    spec = ModelSpec(name="team/m", revision="v1", tokenizer=tokenizer)
    saved_model._tokenizer_of(small_model(), spec)
    assert [revision for _, _, revision in asked] == [expected]

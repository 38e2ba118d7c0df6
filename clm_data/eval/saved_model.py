"""Edits that stay: a model folder with the edit of a finished cell merged into its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_data.errors import InputFileError, UnknownNameError
from clm_data.eval import results
from clm_data.eval.dataset import DatasetSource, load_dataset
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.edits import load_edit
from clm_data.eval.editors.origin import check_origin
from clm_data.eval.environment import default_cache_folder, require_eval_extra
from clm_data.eval.errors import EditError
from clm_data.eval.model.layout import find_layout
from clm_data.eval.model.loading import load_tokenizer
from clm_data.eval.recipe import ModelSpec, parse_recipe
from clm_data.eval.results import CellResult, Results
from clm_data.eval.saved_model_card import model_card
from clm_data.eval.sweep.cell import edit_files
from clm_data.eval.sweep.open_model import open_model
from clm_data.files import atomic_folder
from clm_data.log import Log, silent
from clm_data.publish import push_model
from clm_data.records import Record

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from clm_data.eval.model.loaded import LoadedModel

PROVENANCE = "clm_data_edit.json"
"""The file in a model folder that says which edit is in it."""


@dataclass(frozen=True)
class SavedModel:
    """What :func:`save_model` wrote.

    Attributes:
        folder: The model folder.
        cell: Key of the cell.
        label: The cell's place in the grid, as text.
        edited: Number of edits that are merged into the weights.
        weights: Paths of the parameters that changed.
        url: Web page of the repository; None if nothing was pushed.
    """

    folder: Path
    cell: str
    label: str
    edited: int
    weights: tuple[str, ...]
    url: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**asdict(self), "folder": str(self.folder), "weights": list(self.weights)}


def save_model(
    folder: str | Path,
    out: str | Path,
    *,
    cell: str | None = None,
    batch: int | None = None,
    dataset: DatasetSource | None = None,
    cache: str | Path | None = None,
    push: str | None = None,
    private: bool = False,
    token: str | None = None,
    log: Log = silent,
) -> SavedModel:
    """Merge the edit of a finished cell into the model's weights and save a model folder.

    The folder has safetensors in the dtype of the sweep, the tokenizer, a card that names the
    base model, the method, the dataset and the measured values, and `clm_data_edit.json`.

    Example:
        >>> clm_data.save_model("eval_results", "edited", cell="3f2a")

    Args:
        folder: Folder that `eval-baselines --save-deltas` wrote.
        out: New or empty folder for the model.
        cell: Key of the cell, or its beginning; default: the only one with saved edits.
        batch: Number of the batch, from 0, of a cell that edits each batch by itself; default:
            the only one.
        dataset: The dataset that was edited; only the model `tiny` needs it.
        cache: Folder of tiny models; default: the one that `eval-baselines` uses.
        push: Model repository, `NAMESPACE/NAME`, to push the folder to.
        private: Create that repository as private.
        token: Hub token; default `HF_TOKEN`, then that of `hf auth login`.
        log: Called with progress messages.

    Raises:
        MissingExtraError: The extra `eval` is not installed.
        InputFileError: There are no such results or no saved edit, the method does not change
            weights, or `out` is not empty.
        UnknownNameError: No cell has this key, or no batch this number.
        EditError: The model is not the one that was edited.
        PublishError: The folder was saved, but could not be pushed.
    """
    require_eval_extra()
    folder, out = Path(folder), Path(out)
    found = results.read_results(folder)
    chosen = _choose_cell(found, folder, cell)
    file = _choose_batch(edit_files(folder / "deltas", chosen), chosen, batch)
    edit = load_edit(file)
    if not isinstance(edit, Deltas):
        raise InputFileError(
            f"{file}: an edit by {edit.method} chooses for each prompt how it is answered, so that "
            "no model folder can hold it; choose another cell with --cell"
        )
    spec = _spec(found, chosen)
    with atomic_folder(out, _names_in) as draft:
        model = _open(found, spec, dataset, cache, log)
        check_origin("an edit", edit.model, edit.origin, model)
        edit.merge_into(model.model, transposed=model.layout.transposed)
        log(f"writing {out}")
        model.model.save_pretrained(draft)
        _tokenizer_of(model, spec).save_pretrained(draft)
        provenance = _provenance(found, chosen, spec, edit)
        text = json.dumps(provenance, ensure_ascii=False, indent=2) + "\n"
        (draft / PROVENANCE).write_text(text, encoding="utf-8")
        (draft / "README.md").write_text(model_card(found, chosen, provenance), encoding="utf-8")
    url = None if push is None else push_model(out, push, private=private, token=token)
    label, weights = chosen.setting.label, tuple(edit.weights)
    return SavedModel(out, chosen.key, label, len(edit.edited), weights, url)


def apply_edit(model: PreTrainedModel, file: str | Path) -> tuple[str, ...]:
    """Add the weight changes of a saved edit to a transformers model, in place.

    After an error, the model is as before.

    Example:
        >>> model = transformers.AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B")
        >>> clm_data.apply_edit(model, "eval_results/deltas/KEY-0000.safetensors")

    Args:
        model: The unedited model that the edit was computed from; its dtype may differ. A file of
            `eval-baselines` says which it is; otherwise only names and shapes are compared.
        file: A file in `deltas/` of the results.

    Returns:
        The paths of the parameters that changed.

    Raises:
        MissingExtraError: The extra `eval` is not installed.
        InputFileError: The file cannot be read, or its method does not change weights.
        EditError: This is no model, another model, or one that has the edit already.
        LayoutError: The model's layout is not known, or it lacks a weight that the edit changes.
    """
    require_eval_extra()
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise EditError(
            f"a loaded transformers model is needed, not {type(model).__name__}; load it first, "
            "with AutoModelForCausalLM.from_pretrained"
        )
    edit = load_edit(Path(file))
    if not isinstance(edit, Deltas):
        raise InputFileError(
            f"{file}: an edit by {edit.method} chooses for each prompt how it is answered, which "
            "added weights cannot do; apply it for a while (with applied(model, load_edit(path)) "
            "as edited), as in docs/how-to/save-an-edited-model.md"
        )
    edit.check_base(model)
    edit.merge_into(model, transposed=find_layout(model).transposed)
    return tuple(edit.weights)


def _choose_cell(found: Results, folder: Path, key: str | None) -> CellResult:
    """The cell with a key; without one, the only cell with saved edits."""
    deltas = folder / "deltas"
    if key is not None:
        _check_command(found, folder, key)
    saved = [one for one in found.cells if one.status == "done" and edit_files(deltas, one)]
    if not saved:
        raise InputFileError(
            f"{deltas} has no edits of a finished cell; run eval-baselines with --save-deltas"
        )
    if key is not None:
        matching = [one for one in saved if one.key.startswith(key)]
        if len(matching) != 1:
            raise UnknownNameError("cell", key, [one.key[:12] for one in saved])
        return matching[0]
    if len(saved) > 1:
        cells = "; ".join(f"{one.key[:8]} {one.setting.label}" for one in saved[:8])
        more = f"; and {len(saved) - 8} more" if len(saved) > 8 else ""
        raise InputFileError(
            f"{deltas} has edits of {len(saved)} cells; choose one with --cell KEY: {cells}{more}"
        )
    return saved[0]


def _check_command(found: Results, folder: Path, key: str) -> None:
    """Check that a key is not of a cell that the latest command into the folder left out.

    Raises:
        InputFileError: It is; the recipe in `results.json` may not have its model.
    """
    if any(one.key.startswith(key) for one in found.cells):
        return
    if any(name.startswith(key) for name in results.saved_cells(folder)):
        raise InputFileError(
            f"cell {key} is in {folder / 'cells'}, but results.json has only the cells of the "
            "latest command; run eval-baselines with the settings of the cell again (nothing is "
            "computed anew), then save-model"
        )


def _choose_batch(files: Sequence[Path], cell: CellResult, batch: int | None) -> Path:
    if batch is None and len(files) == 1:
        return files[0]
    if batch is None:
        raise InputFileError(
            f"{cell.setting.label} edits {len(files)} batches, each by itself; choose one with "
            f"--batch 0 to {len(files) - 1}"
        )
    if batch >= len(files):
        raise UnknownNameError("batch", str(batch), [str(number) for number in range(len(files))])
    return files[batch]


def _open(
    found: Results,
    spec: ModelSpec,
    dataset: DatasetSource | None,
    cache: str | Path | None,
    log: Log,
) -> LoadedModel:
    """The unedited model of a cell."""
    records: Sequence[Record] = ()
    if spec.is_tiny:
        if dataset is None:
            raise InputFileError("the tiny model is trained on its dataset; give it with --dataset")
        loaded = load_dataset(dataset).first(found.recipe.get("facts"))
        if loaded.key != found.dataset_key:
            raise InputFileError(
                f"{loaded.name} is not the dataset of these results; give {found.dataset}"
            )
        records = loaded.records
    return open_model(spec, records, Path(cache or default_cache_folder()), log=log)


def _tokenizer_of(model: LoadedModel, spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The tokenizer as its files say; that of `model` was changed for measurements."""
    revision = spec.revision if spec.tokenizer is None else None
    return load_tokenizer(model.tokenizer.name_or_path, spec.trust_remote_code, revision)


def _spec(found: Results, cell: CellResult) -> ModelSpec:
    """The model of a cell as the recipe names it."""
    recipe = parse_recipe(found.recipe, "the recipe in results.json")
    return next(one for one in recipe.models if one.shown == cell.setting.model)


def _provenance(found: Results, cell: CellResult, spec: ModelSpec, edit: Deltas) -> dict[str, Any]:
    """What is in a model folder: a JSON value."""
    return {
        "base_model": spec.name,
        "revision": spec.revision,
        "method": edit.method,
        "setting": cell.setting.model_dump(mode="json"),
        "params": cell.params,
        "dataset": found.dataset,
        "dataset_key": found.dataset_key,
        "cell": cell.key,
        "edited": list(edit.edited),
        "refused": [list(one) for one in edit.refused],
        "weights": list(edit.weights),
    }


def _names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]

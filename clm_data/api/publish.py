"""Publishing a dataset: other formats, the Hub, and reading a dataset back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data import publish
from clm_data.api.inputs import Source, WorkspaceLike, as_workspace
from clm_data.building import collect_records
from clm_data.config import Workspace
from clm_data.errors import UnknownNameError, UserError
from clm_data.eval.dataset import EvalSet, load_dataset
from clm_data.exporting import (
    CLM_BENCH,
    EXPORTERS,
    published_bytes,
    write_folder,
)
from clm_data.layouts import PUBLISHED_FILES
from clm_data.publish import PushReport
from clm_data.sources import is_published, stored_files

__all__ = ["export", "load", "push_to_hub"]


@dataclass(frozen=True)
class ExportReport:
    """What :func:`export` wrote.

    Attributes:
        folder: The folder that was written.
        files: Records (rows, for unchecked exports) by file name.
        left_out: What was not written and why, one sentence each.
    """

    folder: Path
    files: Mapping[str, int]
    left_out: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"folder": str(self.folder), "files": dict(self.files)}


def export(
    out: str | Path,
    *,
    format: str = CLM_BENCH,
    unchecked: bool = False,
    force: bool = False,
    workspace: WorkspaceLike = None,
) -> ExportReport:
    """Write the records that `build` would write in another format.

    Args:
        out: New or empty folder.
        format: `clm-bench` (the three published layouts), `jsonl`, `csv` or `easyedit`.
        unchecked: Write all imported CLM-Bench rows unchanged instead; a file that was imported
            comes back byte for byte.
        force: Overwrite files of the same names in a folder that is not empty.
        workspace: See :data:`clm_data.api.inputs.WorkspaceLike`.

    Raises:
        UnknownNameError: There is no such format.
        UserError: There is nothing to export, or `out` is not empty.
    """
    if format not in EXPORTERS:
        raise UnknownNameError("export format", format, EXPORTERS)
    if unchecked and format != CLM_BENCH:
        raise UserError(f"--unchecked needs --format {CLM_BENCH}; leave one of them out")
    opened = as_workspace(workspace)
    texts: Mapping[str, str | bytes]
    if unchecked:
        texts, counts, left_out = _imported_rows(opened)
    else:
        records = collect_records(opened).kept
        if not records:
            raise UserError("no records to export; see why with: clm-data audit")
        texts, left_out = EXPORTERS[format](records), ()
        counts = dict.fromkeys(texts, len(records))
    write_folder(Path(out), texts, force=force)
    return ExportReport(Path(out), counts, left_out)


def _imported_rows(
    workspace: Workspace,
) -> tuple[dict[str, bytes], dict[str, int], tuple[str, ...]]:
    """File contents and row counts by file name, and what is not among them."""
    with workspace.open_store() as store:
        files = stored_files(store)
        contents = published_bytes(files, store)
    if not contents:
        raise UserError("no CLM-Bench file was imported; import one with: clm-data import FILE")
    left_out = [
        f"{name} is not written: only one language was imported"
        for name in PUBLISHED_FILES
        if name not in contents
    ]
    others = sum(not is_published(file) for file in files)
    if others:
        left_out.insert(0, f"{others} imported files of other formats are not exported")
    counts = {name: count for name, (_, count) in contents.items()}
    return {name: data for name, (data, _) in contents.items()}, counts, tuple(left_out)


def push_to_hub(
    repo: str,
    *,
    dataset: str | Path | None = None,
    private: bool = False,
    tag: str | None = None,
    dry_run: bool = False,
    rejected: bool = True,
    workspace: WorkspaceLike = None,
) -> PushReport:
    """Push a built dataset to the Hub: all configurations, card, manifest and tag.

    Only changed files are sent; pushing the same content again changes nothing. The token is read
    from `HF_TOKEN` or from where `hf auth login` stored it.

    Args:
        repo: `NAMESPACE/NAME`.
        dataset: Folder written by :func:`build`; default: `dataset` in the workspace.
        private: Create the repository as private.
        tag: Tag for the commit, such as `v1.0`.
        dry_run: Report what would be sent; needs neither token nor network.
        rejected: Push `rejected.jsonl` as well.
        workspace: Where the default dataset is.

    Raises:
        InputFileError: The folder is incomplete or changed since it was built.
        CredentialsError: There is no token, or it was rejected.
        PublishError: The Hub rejected a request, or cannot be reached.
    """
    folder = Path(dataset) if dataset is not None else as_workspace(workspace).path / "dataset"
    return publish.push_to_hub(
        folder, repo, private=private, tag=tag, dry_run=dry_run, rejected=rejected
    )


def load(source: Source) -> EvalSet:
    """Read a dataset as records: a built folder, a file, a Hub dataset, or rows in memory.

    Rows that lack a text in one of the languages are counted in `left_out`.

    Args:
        source: A folder or file, `OWNER/NAME` on the Hub, a list of dicts, or a
            `datasets.Dataset`.

    Raises:
        InputFileError: The source cannot be read.
    """
    return load_dataset(source)

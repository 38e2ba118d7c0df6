"""Tables of the geometry of edits: comparisons, factors and transfer, from saved weight changes."""

from __future__ import annotations

from pathlib import Path

from clm_data.errors import InputFileError
from clm_data.eval.analysis.checks import AnalysisError
from clm_data.eval.analysis.geometry import comparisons, factors, transfer
from clm_data.eval.analysis.geometry.saved_edits import GROUP_COLUMNS, find_edits, group_columns
from clm_data.eval.analysis.options import GeometryOptions
from clm_data.eval.csv_tables import ResultTables
from clm_data.log import Log, silent

COLUMNS = {
    "geometry": (*GROUP_COLUMNS, *comparisons.COLUMNS),
    "factors": (*GROUP_COLUMNS, *factors.COLUMNS),
    "transfer": (*GROUP_COLUMNS, *transfer.COLUMNS),
    "geometry_skipped": (*GROUP_COLUMNS, "language", "reason"),
}
"""Columns by table."""


def geometry_tables(
    folder: Path, options: GeometryOptions | None = None, *, log: Log = silent
) -> ResultTables:
    """Compare the saved weight changes of a sweep across languages.

    Args:
        folder: Folder that ``eval-baselines --save-deltas`` wrote.
        options: Sample sizes and limits; defaults to ``GeometryOptions()``.
        log: Called with progress messages.

    Returns:
        The tables of :data:`COLUMNS`, described in ``docs/reference/geometry.md``:
        ``geometry`` (measures between weight changes), ``factors`` (cosines of residuals and keys),
        ``transfer`` (facts that transferred against facts that did not) and ``geometry_skipped``
        (what was not analyzed, and why).

    Raises:
        InputFileError: There are no results, or no saved weight changes.
        AnalysisError: A measure is NaN or out of its range; the message names the cells.
    """
    options = options or GeometryOptions()
    found = find_edits(folder, k=options.k, max_batches=options.max_batches)
    tables: ResultTables = {name: [] for name in COLUMNS}
    skipped = list(found.skipped)
    for group in found.groups:
        log(f"geometry of {group.name}")
        try:
            tables["geometry"] += comparisons.group_rows(group, options)
            for layer in group.layers():
                tables["factors"] += factors.factor_rows(group, layer, options)
            try:
                tables["transfer"] += transfer.transfer_rows(folder, group, options)
            except InputFileError as error:
                skipped.append((group.setting, f"transfer: {error}"))
        except AnalysisError as error:
            raise AnalysisError(f"{group.name}: {error}") from error
    for setting, reason in skipped:
        cell = {**group_columns(setting), "language": setting.language}
        tables["geometry_skipped"].append({**cell, "reason": reason})
    return tables

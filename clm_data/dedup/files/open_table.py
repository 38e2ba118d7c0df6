"""Open a source of rows: a file, a Hub dataset, a list of dicts or a `datasets.Dataset`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clm_data.dedup.files.row_table import RowTable
from clm_data.dedup.files.tables import ENDINGS, FORMATS, HUB_PREFIX, Table
from clm_data.dedup.files.text_tables import open_binary, open_text_table
from clm_data.errors import ConfigError, UnknownNameError
from clm_data.files import check_kind

_DETECTION_BYTES = 1 << 20


def open_table(
    source: Any, format: str | None = None, split: str | None = None, encoding: str | None = None
) -> Table:
    """Open a source of rows.

    Args:
        source: A path, ``hub:ID[/CONFIG]``, an iterable of dicts or a `datasets.Dataset`.
        format: File format, one of :data:`~clm_data.dedup.files.tables.FORMATS`. Detected from
            the file name or the content if omitted.
        split: Split of a Hub dataset; required if it has more than one.
        encoding: Encoding of a CSV file; default: found if it is certain.

    Raises:
        UserError: The source does not exist, is unreadable, or has an unknown format.
    """
    if format is not None and format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    if isinstance(source, str | Path):
        return _open_named(str(source), format, split, encoding)
    if "datasets" in sys.modules:  # else the source cannot be a Dataset
        from datasets.arrow_dataset import Dataset

        if isinstance(source, Dataset):
            from clm_data.dedup.files.arrow_tables import DatasetTable

            return DatasetTable("dataset", source)
    if isinstance(source, Iterable) and not isinstance(source, Mapping):
        return RowTable(list(source))
    raise ConfigError(
        f"rows cannot be read from a {type(source).__name__}; pass a path, 'hub:ID', a list of "
        "dicts or a datasets.Dataset (one split)"
    )


def _open_named(name: str, format: str | None, split: str | None, encoding: str | None) -> Table:
    if name.startswith(HUB_PREFIX):
        from clm_data.dedup.files.arrow_tables import open_hub

        return open_hub(name, split)
    if not name.strip():
        raise ConfigError("the source is empty; pass a file, hub:ID or rows")
    path = Path(name).expanduser()
    found = format or _detect_format(path)
    if found == "parquet":
        from clm_data.dedup.files.arrow_tables import ParquetTable

        return ParquetTable(path)
    return open_text_table(path, found, encoding)


def _detect_format(path: Path) -> str:
    """The format of a file: Parquet by its content, the others by the name or the content.

    Raises:
        InputFileError: It is of another kind, such as compressed or a spreadsheet.
    """
    with open_binary(path) as file:
        start = file.read(_DETECTION_BYTES)
    if start.startswith(b"PAR1"):
        return "parquet"
    check_kind(start, path)
    ending = path.suffix.lower()
    for name, endings in ENDINGS.items():
        if ending in endings and name in ("jsonl", "csv"):
            return name
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return {b"[": "json", b"{": "jsonl"}.get(first, "json" if ending == ".json" else "csv")

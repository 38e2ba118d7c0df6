"""Arrow data: Parquet files, Hub datasets and `datasets.Dataset` objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from clm_data.dedup.files.tables import HUB_PREFIX, lookup
from clm_data.dedup.join.all_pairs import Progress
from clm_data.errors import InputFileError, UnknownNameError

_BATCH_ROWS = 16_384
"""Rows decoded at a time, and the largest row group written."""
_HUB_TIMEOUT = 15.0


class ArrowTable(ABC):
    """Rows with an Arrow schema, read in batches.

    Args:
        name: How messages and reports refer to the source.
        schema: Arrow schema of the rows.
        rows: Number of rows.
        compression: Compression of the Parquet files that :meth:`write` produces.
    """

    format = "parquet"
    path: Path | None = None

    def __init__(self, name: str, schema: Any, rows: int, compression: str) -> None:
        self.name = name
        self._schema = schema
        self._rows = rows
        self._compression = compression

    @abstractmethod
    def _batches(self, columns: list[str] | None) -> Iterator[Any]:
        """Arrow tables or record batches of the named columns (None: all), from the start."""

    @abstractmethod
    def select(self, keep: Sequence[int]) -> Sequence[dict[str, Any]]:
        """The selected rows in their original order."""

    def read(
        self, fields: Sequence[str], progress: Progress
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yield the location and cells of every row; see ``Table.read``."""
        roots = list(dict.fromkeys(self._root(field) for field in fields))
        number = 0
        for batch in self._batches(roots):
            columns = [self._values(batch, root) for root in roots]
            for cells in zip(*columns, strict=True):
                number += 1
                row = dict(zip(roots, cells, strict=True))
                yield f"{self.name}, row {number}", tuple(lookup(row, field) for field in fields)
            progress(number, self._rows)
        if number != self._rows:
            raise InputFileError(
                f"{self.name} is damaged: {number} of its {self._rows} rows can be read; write the "
                "file again"
            )

    def _values(self, batch: Any, column: str) -> list[Any]:
        try:
            return cast("list[Any]", batch.column(column).to_pylist())
        except UnicodeDecodeError as error:
            raise InputFileError(
                f"{self.name}: column {column} has text that is not UTF-8; write the file again"
            ) from error

    def write(self, keep: Sequence[int], out: Path, progress: Progress) -> None:
        """Write the selected rows as Parquet with the schema of the source."""
        _, pq = _arrow()
        with pq.ParquetWriter(out, self._schema, compression=self._compression) as writer:
            for done, batch in self._selected(keep):
                if batch.num_rows:
                    writer.write(batch)
                progress(done, self._rows)

    def _selected(self, keep: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """For each batch, the number of rows read so far and its selected rows."""
        pa, _ = _arrow()
        if self._rows != len(keep):
            raise InputFileError(f"{self.name} has changed since it was read; run again")
        done = 0
        for batch in self._batches(None):
            mask = pa.array([bool(value) for value in keep[done : done + batch.num_rows]])
            done += batch.num_rows
            yield done, batch.filter(mask)

    def _root(self, field: str) -> str:
        """The column to read for a field.

        Raises:
            UnknownNameError: The schema has no such field.
        """
        names = list(self._schema.names)
        if names.count(field) == 1:
            return field
        if names.count(field) > 1:
            raise InputFileError(f"{self.name}: the column '{field}' appears twice; rename one")
        root, *rest = field.split(".")
        kind: Any = self._schema.field(root).type if names.count(root) == 1 else None
        for name in rest:
            known = (
                [kind.field(at).name for at in range(kind.num_fields)] if _is_struct(kind) else []
            )
            kind = kind.field(name).type if name in known else None
        if kind is None:
            raise UnknownNameError(f"column of {self.name}", field, _leaves(self._schema))
        return root


class ParquetTable(ArrowTable):
    """A Parquet file.

    Raises:
        InputFileError: It does not exist or is not Parquet.
    """

    def __init__(self, path: Path) -> None:
        with _readable(str(path)), _parquet_file(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            has_rows = bool(file.metadata.num_row_groups and schema.names)
            if has_rows:
                # Damaged metadata is an error here; reading it directly would end the process.
                next(file.iter_batches(1, row_groups=[0], columns=schema.names[:1]), None)
            first = file.metadata.row_group(0) if has_rows else None
            compression = first.column(0).compression if first and first.num_columns else "SNAPPY"
        super().__init__(
            str(path), schema, rows, "NONE" if compression == "UNCOMPRESSED" else compression
        )
        self.path: Path = path

    def select(self, keep: Sequence[int]) -> list[dict[str, Any]]:
        """Read the selected rows from the file."""
        with _readable(self.name):
            return [row for _, batch in self._selected(keep) for row in batch.to_pylist()]

    def _batches(self, columns: list[str] | None) -> Iterator[Any]:
        with _readable(self.name), _parquet_file(self.path) as file:
            yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=columns)


def _parquet_file(path: Path) -> Any:
    """A Parquet file; a page that differs from its checksum, where it has one, is an error."""
    _, pq = _arrow()
    return pq.ParquetFile(path, page_checksum_verification=True)


class DatasetTable(ArrowTable):
    """A `datasets.Dataset`."""

    def __init__(self, name: str, dataset: Any) -> None:
        super().__init__(name, dataset.features.arrow_schema, dataset.num_rows, "SNAPPY")
        self._dataset = dataset

    def select(self, keep: Sequence[int]) -> Any:
        """The Dataset with the selected rows only."""
        return self._dataset.select([row for row, wanted in enumerate(keep) if wanted])

    def _batches(self, columns: list[str] | None) -> Iterator[Any]:
        data = self._dataset.with_format("arrow")
        chosen = data if columns is None else data.select_columns(columns)
        yield from chosen.iter(batch_size=_BATCH_ROWS)


def open_hub(name: str, split: str | None) -> DatasetTable:
    """Load a dataset from the Hub into the cache of `datasets`.

    Args:
        name: ``hub:ID`` or ``hub:ID/CONFIG``.
        split: Required if the dataset has more than one split.

    Raises:
        InputFileError: It cannot be loaded, or has several splits and ``split`` is None.
        UnknownNameError: No such split.
    """
    parts = name.removeprefix(HUB_PREFIX).split("/")
    repository, config = "/".join(parts[:2]), "/".join(parts[2:]) or None
    splits = _load(name, repository, config)
    if split is None and len(splits) > 1:
        raise InputFileError(f"{name} has the splits {', '.join(splits)}; choose one with --split")
    if split is not None and split not in splits:
        raise UnknownNameError(f"split of {name}", split, splits)
    return DatasetTable(name, splits[split or next(iter(splits))])


def _load(name: str, repository: str, config: str | None) -> Any:
    from datasets.load import load_dataset
    from huggingface_hub import HfApi, constants

    try:
        if not constants.HF_HUB_OFFLINE:  # fails fast, unlike the retries of load_dataset
            HfApi(library_name="clm-data").dataset_info(repository, timeout=_HUB_TIMEOUT)
        return load_dataset(repository, config)
    except Exception as error:  # datasets passes on the exceptions of all its back ends
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputFileError(
            f"{name} cannot be loaded ({reason}); check the id and the network "
            "(set HF_TOKEN for a private dataset), or use a local file"
        ) from error


def _is_struct(kind: Any) -> bool:
    return kind is not None and _arrow()[0].types.is_struct(kind)


def _leaves(fields: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields, nested ones included."""
    for field in fields:
        yield f"{prefix}{field.name}"
        if _is_struct(field.type):
            inner = [field.type.field(at) for at in range(field.type.num_fields)]
            yield from _leaves(inner, f"{prefix}{field.name}.")


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn errors of pyarrow into InputFileError."""
    pa, _ = _arrow()
    try:
        yield
    except FileNotFoundError as error:
        raise InputFileError(f"{name}: no such file; check the name") from error
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise InputFileError(f"{name}: cannot be read: {reason}") from error
    except (pa.ArrowException, UnicodeDecodeError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise InputFileError(f"{name}: not a readable Parquet file: {reason}") from error


def _arrow() -> tuple[Any, Any]:
    """Pyarrow and pyarrow.parquet, which have no type annotations."""
    import pyarrow
    import pyarrow.parquet

    return pyarrow, pyarrow.parquet

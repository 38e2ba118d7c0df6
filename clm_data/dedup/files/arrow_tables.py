"""Tables that Arrow reads: parquet files, and datasets on the Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clm_data.dedup.files.text_tables import HUB_PREFIX, Advance, lookup
from clm_data.errors import InputFileError, UnknownNameError

_BATCH = 16_384
"""Rows decoded at a time; no row group that is written has more."""
_HUB_TIMEOUT = 15.0


class ArrowTable:
    """Rows with a schema, read in batches.

    Args:
        name: As the user gave it.
        schema: Arrow schema of the rows.
        rows: How many there are.
        batches: Gives Arrow tables or batches of the named columns (None: all), from the start.
        compression: Of parquet files that are written.
    """

    format = "parquet"

    def __init__(
        self,
        name: str,
        schema: Any,
        rows: int,
        batches: Callable[[list[str] | None], Iterator[Any]],
        compression: str,
    ) -> None:
        self.name = name
        self._schema = schema
        self._rows = rows
        self._batches = batches
        self._compression = compression

    def read(
        self, fields: Sequence[str], advance: Advance
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The cells of every row; a field that the schema does not have is refused."""
        roots = list(dict.fromkeys(self._root(field) for field in fields))
        number = 0
        for batch in self._batches(roots):
            columns = [batch.column(root).to_pylist() for root in roots]
            for cells in zip(*columns, strict=True):
                number += 1
                row = dict(zip(roots, cells, strict=True))
                yield f"{self.name}, row {number}", tuple(lookup(row, field) for field in fields)
            advance(number, self._rows)

    def write(self, stays: Sequence[int], out: Path, advance: Advance) -> None:
        """Write the rows that stay as parquet, with the schema as it is."""
        pa, pq = _arrow()
        done = 0
        if self._rows != len(stays):
            raise InputFileError(f"{self.name} has changed since it was read")
        with pq.ParquetWriter(out, self._schema, compression=self._compression) as writer:
            for batch in self._batches(None):
                mask = pa.array([bool(stay) for stay in stays[done : done + batch.num_rows]])
                done += batch.num_rows
                rows = batch.filter(mask)
                if rows.num_rows:
                    writer.write(rows)
                advance(done, self._rows)

    def _root(self, field: str) -> str:
        names = list(self._schema.names)
        if names.count(field) == 1:
            return field
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


def open_parquet(path: Path) -> ArrowTable:
    """A parquet file.

    Raises:
        InputFileError: Not there, or not parquet.
    """
    _, pq = _arrow()
    with _readable(str(path)), pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        first = file.metadata.row_group(0) if file.metadata.num_row_groups else None
        compression = first.column(0).compression if first and first.num_columns else "SNAPPY"

    def batches(columns: list[str] | None) -> Iterator[Any]:
        with _readable(str(path)), pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=_BATCH, columns=columns)

    return ArrowTable(
        str(path), schema, rows, batches, "NONE" if compression == "UNCOMPRESSED" else compression
    )


def open_hub(name: str, split: str | None) -> ArrowTable:
    """A dataset on the Hub: ``hub:ID`` or ``hub:ID/CONFIG``; its files stay in the Hub's cache.

    Raises:
        InputFileError: It cannot be loaded, or has several splits and none is named.
        UnknownNameError: No such split.
    """
    parts = name.removeprefix(HUB_PREFIX).split("/")
    repository, config = "/".join(parts[:2]), "/".join(parts[2:]) or None
    splits = _load(name, repository, config)
    if split is None and len(splits) > 1:
        raise InputFileError(f"{name} has the splits {', '.join(splits)}; name one with --split")
    if split is not None and split not in splits:
        raise UnknownNameError(f"split of {name}", split, splits)
    data = splits[split or next(iter(splits))].with_format("arrow")

    def batches(columns: list[str] | None) -> Iterator[Any]:
        chosen = data if columns is None else data.select_columns(columns)
        yield from chosen.iter(batch_size=_BATCH)

    return ArrowTable(name, data.features.arrow_schema, data.num_rows, batches, "SNAPPY")


def _load(name: str, repository: str, config: str | None) -> Any:
    from datasets.load import load_dataset
    from huggingface_hub import HfApi, constants

    try:
        if not constants.HF_HUB_OFFLINE:  # fails at once where the loader would try for long
            HfApi(library_name="clm-data").dataset_info(repository, timeout=_HUB_TIMEOUT)
        return load_dataset(repository, config)
    except Exception as error:  # the library raises what its dozen back ends raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputFileError(
            f"{name} cannot be read ({reason}); check the id and the network "
            "(HF_TOKEN for a private dataset), or name a file"
        ) from error


def _is_struct(kind: Any) -> bool:
    return kind is not None and _arrow()[0].types.is_struct(kind)


def _leaves(fields: Any, before: str = "") -> Iterator[str]:
    for field in fields:
        yield f"{before}{field.name}"
        if _is_struct(field.type):
            inner = [field.type.field(at) for at in range(field.type.num_fields)]
            yield from _leaves(inner, f"{before}{field.name}.")


@contextmanager
def _readable(name: str) -> Iterator[None]:
    pa, _ = _arrow()
    try:
        yield
    except FileNotFoundError as error:
        raise InputFileError(f"{name}: no such file; check the name") from error
    except OSError as error:
        raise InputFileError(f"{name}: cannot be read: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise InputFileError(f"{name}: not a parquet file that can be read: {error}") from error


def _arrow() -> tuple[Any, Any]:
    """The library and its parquet module, which have no types."""
    import pyarrow
    import pyarrow.parquet

    return pyarrow, pyarrow.parquet

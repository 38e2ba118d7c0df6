"""Reading YAML, and atomic writes: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import yaml

from clm_data.drafts import draft_file, draft_folder
from clm_data.errors import InputFileError, UserError

_RETYPED = ("bool", "int", "timestamp")
_MOST_VALUES = 1_000_000
"""Most values in a YAML file, those that aliases repeat included."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML without the surprises of version 1.1: ``no``, ``on``, dates and ``12:30`` are texts.

    A key that appears twice is an error. Uses libyaml if PyYAML was built with it.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {
        start: [pair for pair in pairs if pair[0].rpartition(":")[2] not in _RETYPED]
        for start, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Like PyYAML's, but refuses repeated keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in seen:
                problem = f"the key '{key.value}' appears twice; keep one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile("[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")
)

MAX_FILE = 256 * 2**20
"""Largest file that is read as a whole, in bytes."""
_OPEN_STREAMS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")


def read_bytes(
    file: Path, error_type: type[UserError] = InputFileError, limit: int = MAX_FILE
) -> bytes:
    """Read a file, or standard input (``/dev/stdin``), of limited size.

    Raises:
        UserError: The file is missing, unreadable, too large, a folder, a device or a named pipe,
            from which a reader could wait forever. Raised as ``error_type``.
    """
    try:
        kind = file.stat().st_mode
        if stat.S_ISDIR(kind):
            raise error_type(f"{file} is a folder; name a file in it")
        stream = str(file).startswith(_OPEN_STREAMS) and not stat.S_ISCHR(kind)
        if not stat.S_ISREG(kind) and not stream:
            raise error_type(f"{file} is not a regular file but a device or pipe; save a file")
        with file.open("rb") as opened:
            data = opened.read(limit + 1)
    except FileNotFoundError as error:
        raise error_type(f"{file}: no such file; check the name") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise error_type(f"{file}: cannot be read: {reason}") from error
    if len(data) > limit:
        raise error_type(f"{file} is larger than {limit // 2**20} MB; split it")
    return data


_KINDS = {
    b"\x1f\x8b": "is compressed (gzip); unpack it first: gunzip FILE",
    b"BZh": "is compressed (bzip2); unpack it first: bunzip2 FILE",
    b"\xfd7zXZ": "is compressed (xz); unpack it first: unxz FILE",
    b"(\xb5/\xfd": "is compressed (zstd); unpack it first: unzstd FILE",
    b"PK\x03\x04": "is a ZIP file or a spreadsheet (XLSX); unpack it, or save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "is an old spreadsheet (XLS); save it as CSV UTF-8",
    b"PAR1": "is a Parquet file; save it as JSON Lines, for example with "
    "datasets.Dataset.from_parquet(FILE).to_json(OUT)",
    b"SQLite format 3": "is a database; export the rows as JSON Lines",
    b"%PDF": "is a PDF file; save the rows as JSON Lines or CSV",
}
"""What files of other kinds start with, and what to do with them."""


def check_kind(start: bytes, path: Path) -> None:
    """Refuse a file of a kind that no reader of texts reads, by its first bytes.

    Raises:
        InputFileError: It is compressed, a spreadsheet, Parquet, a database or PDF.
    """
    for magic, reason in _KINDS.items():
        if start.startswith(magic):
            raise InputFileError(f"{path} {reason}")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of some pairs, as ``object_pairs_hook`` of JSON readers.

    Raises:
        ValueError: A key appears twice, so that a value would be lost.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        counts = Counter(names)
        duplicate = next(name for name in names if counts[name] > 1)
        raise ValueError(f"the field '{duplicate}' appears twice in one object; keep one of them")
    return value


def read_yaml(file: Path, error_type: type[UserError] = InputFileError) -> Any:
    """Read a UTF-8 YAML file.

    Raises:
        UserError: The file is missing, unreadable or not YAML, has a key twice, or is too large
            with all its aliases. Raised as ``error_type``.
    """
    data = read_bytes(file, error_type)
    try:
        value = yaml.load(data.decode("utf-8-sig"), Loader=_Loader)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise error_type(
            f"{file}:{line}: cannot be read as YAML: not UTF-8 text; save the file as UTF-8"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}" if mark is not None else ""
        problem = " ".join(str(error.problem or error.context).split())
        lines = data.splitlines()
        tab = mark is not None and mark.line < len(lines) and b"\t" in lines[mark.line]
        remedy = "; indent with spaces, not tabs" if tab else ""
        message = f"{file}{place}: cannot be read as YAML: {problem}{remedy}"
        raise error_type(message) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise error_type(f"{file}: cannot be read as YAML: {reason}") from error
    if not _is_small(value):
        raise error_type(
            f"{file}: has more than {_MOST_VALUES:,} values with all its aliases (*name); "
            "write the values out"
        )
    return value


def _is_small(value: Any) -> bool:
    """Whether a value has at most :data:`_MOST_VALUES` parts; an alias may contain itself."""
    waiting, count = [value], 0
    while waiting and count <= _MOST_VALUES:
        item = waiting.pop()
        count += 1
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
        count += max(0, len(waiting) - _MOST_VALUES)
    return count <= _MOST_VALUES


@contextmanager
def atomic_folder(out: Path, others: Callable[[Path], Iterable[str]]) -> Iterator[Path]:
    """Fill a temporary folder next to ``out``, then put it in the place of ``out``.

    If the block raises or the process is killed, ``out`` keeps its old content. Leftovers of an
    earlier killed run are removed. Only one process at a time can write a folder.

    Args:
        out: The folder to write. Its parents are created. Symbolic links are followed.
        others: Given the folder, yields the paths in it that clm-data did not write or that were
            changed since, relative to it. A folder with such files is never replaced.

    Yields:
        The temporary folder, empty.

    Raises:
        InputFileError: ``out`` is a file or the root of the file system, has other files, or is
            being written by another process.
    """
    out = out.resolve()
    if out == out.parent:
        raise InputFileError(f"{out} is the root of the file system; choose a folder with --out")
    with draft_folder(out) as draft:
        if out.exists() and not out.is_dir():
            raise InputFileError(f"{out} is a file; choose a folder with --out")
        found = sorted(others(out)) if out.is_dir() else []
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise InputFileError(
                f"{out} contains files that clm-data did not write, or that were changed since: "
                f"{found[0]}{more}; choose another folder with --out, or move them away"
            )
        yield draft
        if out.exists():
            out.rename(draft.with_name("old"))
        draft.rename(out)


def files_in(folder: Path) -> Iterator[str]:
    """The files under a folder, and its empty folders, as relative paths with forward slashes."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
            yield path.relative_to(folder).as_posix()


@contextmanager
def atomic_file(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Write a temporary file next to ``out``, then put it in the place of ``out``.

    If the block raises, ``out`` keeps its old content and the temporary file is removed. The
    leftover of an earlier killed run is removed. If several processes write a file at once, each
    writes a temporary file of its own, and the last one to finish replaces the others.

    Args:
        out: The file to write, in an existing folder. Symbolic links are followed.
        overwrite: Replace an existing file instead of raising.

    Yields:
        The path to write to.

    Raises:
        InputFileError: ``out`` exists and ``overwrite`` is false, is not a regular file, or cannot
            be written.
    """
    with ExitStack() as stack:
        try:
            target = out.resolve()
            _check_target(target, out, overwrite)
            draft = stack.enter_context(draft_file(target))
        except OSError as error:
            raise InputFileError(f"{out}: cannot be written: {error.strerror or error}") from error
        yield draft
        _check_target(target, out, overwrite)
        try:
            with draft.open("rb") as written:
                os.fsync(written.fileno())
            draft.replace(target)
        except OSError as error:
            raise InputFileError(f"{out}: cannot be written: {error.strerror or error}") from error


def _check_target(target: Path, out: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_file():
        raise InputFileError(f"{out} is not a regular file; choose another one")
    if target.exists() and not overwrite:
        raise InputFileError(f"{out} already exists; choose another file, or add --force")


def check_page(out: Path) -> None:
    """Check that writing a web page replaces no file but another web page.

    Raises:
        InputFileError: It would replace another file.
    """
    if out.is_file():
        with out.open("rb") as file:
            start = file.read(4096).lstrip().lower()
        if start and not start.startswith(b"<!doctype html"):
            raise InputFileError(f"{out} exists and is not a web page; choose another file")


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Drafts: hidden files and folders next to what they will replace, each locked by its writer.

A lock ends with its process, so an unlocked draft was left by a process that was killed. Where the
system or the file system has no locks, drafts of files are never taken for leftovers, and drafts of
folders always are.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clm_data.errors import InputFileError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def draft_file(target: Path) -> Iterator[Path]:
    """An empty draft ``.NAME.XXXXXXXX.new`` of a file, which no other process has.

    Drafts of processes that were killed are removed first; this one is removed at the end, unless
    it was renamed.

    Raises:
        OSError: It cannot be created.
    """
    _remove_leftovers(target)
    draft, lock = _new_file(target)
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def draft_folder(out: Path) -> Iterator[Path]:
    """An empty folder in a hidden one next to ``out``, which only one process has at a time.

    The hidden folder ``.NAME.clm-data-draft`` is removed at the end. A folder ``old`` that a killed
    process left in it is put back in the place of ``out`` if that is missing.

    Args:
        out: The folder that will be written. Its parents are created.

    Raises:
        InputFileError: Another process is writing ``out``.
        OSError: The draft cannot be created.
    """
    hidden = out.with_name(f".{out.name}.clm-data-draft")
    lock = None
    while lock is None:
        hidden.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # removed by the process that had it
            lock = _locked(hidden, os.O_RDONLY)
            if lock is None and hidden.exists():
                raise InputFileError(
                    f"{out} is being written by another process; wait until it has finished"
                )
    try:
        old, new = hidden / "old", hidden / "new"
        if old.exists() and not out.exists():
            old.rename(out)
        for leftover in (old, new):
            shutil.rmtree(leftover, ignore_errors=True)
        new.mkdir()
        yield new
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        os.close(lock)


def _new_file(target: Path) -> tuple[Path, int]:
    while True:
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.new")
        try:
            os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            continue
        with suppress(FileNotFoundError):  # another process took it for a leftover
            if (lock := _locked(draft, os.O_RDWR)) is not None:
                return draft, lock


def _remove_leftovers(target: Path) -> None:
    """Remove drafts of a file that nobody has locked, with the files SQLite puts next to them."""
    if fcntl is None:
        return
    ours = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.new")
    for entry in list(os.scandir(target.parent)):
        if ours.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            with suppress(OSError):
                lock = _locked(Path(entry.path), os.O_RDWR, without_locks=False)
                if lock is not None:
                    for end in ("-wal", "-shm", "-journal", ""):
                        Path(entry.path + end).unlink(missing_ok=True)
                    os.close(lock)


def _locked(path: Path, flags: int, *, without_locks: bool = True) -> int | None:
    """A descriptor that holds the lock of a file or folder; None if another one does.

    Args:
        path: The file or folder.
        flags: How it is opened.
        without_locks: Whether to return a descriptor too where there are no locks.

    Raises:
        OSError: It cannot be opened.
    """
    if fcntl is None:  # an open file could not be renamed
        return os.open(os.devnull, os.O_RDONLY) if without_locks else None
    opened = os.open(path, flags)
    locked = without_locks
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = os.path.samestat(os.fstat(opened), path.stat())
    except (BlockingIOError, FileNotFoundError):
        locked = False
    except OSError:  # no locks on this file system
        pass
    if not locked:
        os.close(opened)
    return opened if locked else None

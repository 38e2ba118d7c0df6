"""A short run of the harness, and proof that it notices each kind of fault."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from clm_data.errors import UserError
from fuzz import harness
from fuzz.harness import CORPUS, Read, Reader, run
from fuzz.readers import READERS


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_reader_fails_on_its_corpus_and_on_random_inputs(name: str, tmp_path: Path) -> None:
    outcome = run(READERS[name], 300, 20, tmp_path)
    assert outcome.faults == []
    assert outcome.inputs >= 300


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_no_input_that_failed_once_fails_again(name: str, tmp_path: Path) -> None:
    outcome = run(READERS[name], 1, 1, tmp_path)
    assert outcome.faults == []
    assert outcome.inputs == 1 + len(list((CORPUS / name).iterdir()))


def _bad_reader(read: Read) -> Reader:
    return Reader("bad", lambda seed: b"%d" % seed, lambda folder: read, 1)


def _raises(_: bytes) -> str | None:
    raise KeyError("zh")


def _refuses_in_two_lines(_: bytes) -> str | None:
    raise UserError("one\ntwo")


def _loses(_: bytes) -> str | None:
    return "2 rows, 1 kept"


def _hangs(_: bytes) -> str | None:
    time.sleep(3)
    return None


def _fills_memory(_: bytes) -> str | None:
    return None if b"x" * (harness.MEGABYTES + 50) * 2**20 else "empty"


@pytest.mark.parametrize(
    ("read", "kind", "words"),
    [
        (_raises, "tracebacks", "KeyError"),
        (_refuses_in_two_lines, "tracebacks", "not one line"),
        (_loses, "lost", "2 rows, 1 kept"),
        (_hangs, "limits", "_TooSlow"),
        (_fills_memory, "limits", "peak of"),
    ],
)
def test_every_kind_of_fault_is_counted_and_its_input_is_kept(
    read: Read, kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if read is _hangs:
        monkeypatch.setattr(harness, "SECONDS", 1)
    outcome = run(_bad_reader(read), 1, 1, tmp_path)
    assert getattr(outcome, kind) == 1
    assert words in outcome.faults[0]
    assert len(list((tmp_path / "bad").iterdir())) == 1

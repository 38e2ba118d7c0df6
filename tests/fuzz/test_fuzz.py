"""A short run of the harness, and proof that it notices each kind of fault."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from clm_data.errors import UserError
from clm_data.llm.base import Completion, Usage
from fuzz import harness, readers
from fuzz.harness import CORPUS, Read, Reader, run
from fuzz.inputs import fact
from fuzz.readers import READERS, lost_leaf, lost_of_body


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


def _computes(_: bytes) -> str | None:
    while True:
        pass


def _fills_memory(_: bytes) -> str | None:
    return None if b"x" * (harness.MEGABYTES + 50) * 2**20 else "empty"


@pytest.mark.parametrize(
    ("read", "kind", "words"),
    [
        (_raises, "tracebacks", "KeyError"),
        (_refuses_in_two_lines, "tracebacks", "not one line"),
        (_loses, "lost", "2 rows, 1 kept"),
        (_hangs, "limits", "_TooSlow"),
        (_computes, "limits", "_TooSlow"),
        (_fills_memory, "limits", "peak of"),
    ],
)
def test_every_kind_of_fault_is_counted_and_its_input_is_kept(
    read: Read, kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if read in (_hangs, _computes):
        monkeypatch.setattr(harness, "SECONDS", 0.3)
    outcome = run(_bad_reader(read), 1, 1, tmp_path)
    assert getattr(outcome, kind) == 1
    assert words in outcome.faults[0]
    assert len(list((tmp_path / "bad").iterdir())) == 1


@pytest.mark.parametrize(
    ("given", "read", "words"),
    [
        ({"a": {"b": 1}}, {"a": {}}, "a.b: 1 became None"),
        ({"a": [1, 2]}, {"a": [1]}, "a: [1, 2] became [1]"),
        ([{"a": "no"}], [{"a": False}], "0.a: 'no' became False"),
        ({"a": 1}, {"a": "1", "b": 2}, None),
    ],
)
def test_a_dropped_or_changed_setting_is_noticed(given: Any, read: Any, words: str | None) -> None:
    assert lost_leaf(given, read) == words


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (Completion(text="42", model="m"), None),
        (Completion(text="4", model="m"), "the answer '42' became '4'"),
        (Completion(text="42", model="m", usage=Usage(prompt_tokens=8)), "7 tokens became 8"),
        (Completion(text="", model="m"), "without text"),
    ],
)
def test_a_changed_answer_of_an_endpoint_is_noticed(read: Completion, words: str | None) -> None:
    body = {"choices": [{"message": {"content": "42"}}], "usage": {"prompt_tokens": 7}}
    found = lost_of_body(json.dumps(body).encode(), read)
    assert found == words if words is None else words in str(found)


def test_a_row_that_a_reader_drops_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = READERS["json"].open(tmp_path)
    data = json.dumps([fact(random.Random(1), number) for number in (1, 2)]).encode()
    assert read(data) is None
    whole = readers.candidates_of

    def all_but_the_last(files: Any) -> Any:
        result = whole(files)
        return dataclasses.replace(result, kept=result.kept[:-1], rejected=result.rejected[:-1])

    monkeypatch.setattr(readers, "candidates_of", all_but_the_last)
    assert "2 rows" in str(read(data))

"""Semantic duplicates: which rows are compared, by a stub and by a sentence-transformers model."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clm_data.cli import run
from clm_data.dedup.files.semantic import (
    BATCH_SIZE,
    MAX_ROWS_PER_SUBJECT,
    SemanticDuplicate,
    find_semantic_duplicates,
)
from clm_data.errors import UserError

ROWS = [
    {"p": "法国的首都是", "s": "法国"},
    {"p": "日本的首都是", "s": "日本"},
    {"p": "首都在法国的哪里", "s": "法国"},
    {"p": "按面积法国排名第", "s": "法国"},
]


class LetterCounts:
    """Embeds a text as its counts of some letters, and records the texts of each call."""

    def __init__(self, letters: str) -> None:
        self._letters = letters
        self.batches: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.batches.append(list(texts))
        return np.array([[t.count(x) for x in self._letters] for t in texts], dtype=np.float32)


def test_only_rows_with_the_same_subject_are_compared() -> None:
    embed = LetterCounts("ab")
    rows = [(0, 7, "ab"), (2, 8, "ab"), (3, 7, "aabb"), (5, 7, "a"), (9, 4, "b")]
    found, left_out = find_semantic_duplicates(rows, embed, 0.9)
    assert [(pair.left, pair.right) for pair in found] == [(0, 3)]
    assert found[0].cosine == pytest.approx(1)
    assert left_out == 0
    assert embed.batches == [["ab", "aabb", "a"]]


def test_the_threshold_is_inclusive() -> None:
    rows = [(0, 1, "a"), (1, 1, "aaab")]
    cosine = 3 / 10**0.5
    found = [
        find_semantic_duplicates(rows, LetterCounts("ab"), at)[0]
        for at in (cosine - 1e-6, cosine + 1e-6)
    ]
    assert found == [[SemanticDuplicate(0, 1, pytest.approx(cosine))], []]


def test_distinct_texts_are_embedded_once_in_batches() -> None:
    embed = LetterCounts("ab")
    calls: list[tuple[int, int]] = []
    rows = [(n, n // 2, f"a{n // 4}") for n in range(6 * BATCH_SIZE)]
    found, _ = find_semantic_duplicates(rows, embed, 0.5, lambda *call: calls.append(call))
    wanted = 6 * BATCH_SIZE // 4
    assert sum(map(len, embed.batches)) == wanted
    assert max(map(len, embed.batches)) == BATCH_SIZE
    assert calls[-1] == (wanted, wanted)
    assert len(found) == 3 * BATCH_SIZE


def test_the_model_is_not_called_for_single_rows_or_too_common_subjects() -> None:
    embed = LetterCounts("a")
    assert find_semantic_duplicates([], embed, 0.5) == ([], 0)
    assert find_semantic_duplicates([(0, 1, "a"), (1, 2, "a")], embed, 0.5) == ([], 0)
    common = [(n, 1, "a") for n in range(MAX_ROWS_PER_SUBJECT + 1)]
    assert find_semantic_duplicates(common, embed, 0.5) == ([], 1)
    assert embed.batches == []


def test_a_zero_vector_is_not_a_duplicate() -> None:
    assert find_semantic_duplicates([(0, 1, "x"), (1, 1, "y")], LetterCounts("a"), 0.5) == ([], 0)


def test_vectors_of_different_sizes_are_an_error() -> None:
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.ones((len(texts), len(texts)), dtype=np.float32)

    rows = [(n, 1, str(n)) for n in range(BATCH_SIZE + 1)]
    with pytest.raises(UserError, match="different sizes"):
        find_semantic_duplicates(rows, embed, 0.5)


def command(folder: Path, model: str) -> list[str]:
    """The arguments of a search for semantic duplicates with a local model."""
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), "utf-8")
    found = ["dedup", str(path), "--field", "p", "--subject", "s", "--semantic", model]
    return [*found, "--out", str(folder / "o.jsonl"), "--report", "-", "--json"]


def test_a_missing_package_is_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert run(command(tmp_path, "m")) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "pip install sentence-transformers" in err
    assert "--provider" in err
    assert not (tmp_path / "o.jsonl").exists()


@pytest.fixture(scope="module")
def modules() -> Any:
    """The building blocks of models; skips the test if the package is not installed."""
    return pytest.importorskip(
        "sentence_transformers.sentence_transformer.modules",
        reason="sentence-transformers 6 is not installed",
    )


def test_a_local_model_finds_semantic_duplicates(
    tmp_path: Path, modules: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = {"[UNK]": 0, "首": 1, "都": 2, "面": 3, "积": 4}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    weights = np.array([[0.01, 0.01], [1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
    layer = modules.StaticEmbedding(tokenizer, embedding_weights=weights)
    model = tmp_path / "model"
    SentenceTransformer(modules=[layer], device="cpu").save(str(model))
    assert run(command(tmp_path, str(model))) == 0
    found = json.loads(capfd.readouterr().out)
    assert [[row["row"] for row in pair["rows"]] for pair in found["semantic"]] == [[1, 3]]
    assert found["removed"] == 0
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "t.jsonl").read_bytes()


def test_a_model_that_cannot_be_loaded_is_a_one_line_error(
    tmp_path: Path,
    modules: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    del modules
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run(command(tmp_path, str(tmp_path / "none"))) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "none' cannot be loaded" in err
    assert not (tmp_path / "o.jsonl").exists()

"""Which facts the report shows as examples."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.sweep_folder import write_example_dataset, write_example_sweep

from clm_data.eval.dataset import load_dataset
from clm_data.eval.report.chapters.examples import example_parts
from clm_data.eval.report.evaluation import Evaluation, gives_new_answer
from clm_data.eval.report.parts import NO_VALUE, Example, ExampleGroup
from clm_data.eval.results import FactResult


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_example_dataset(tmp_path / "set")


@pytest.fixture
def evaluation(dataset: Path, tmp_path: Path) -> Evaluation:
    results = write_example_sweep(tmp_path / "out", dataset, sizes=(12,))
    return Evaluation(tmp_path / "out", results)


def examples(evaluation: Evaluation, dataset: Path | None) -> list[Example]:
    records = {} if dataset is None else {r.id: r for r in load_dataset(str(dataset)).records}
    groups = example_parts(evaluation, records)
    return [one for group in groups if isinstance(group, ExampleGroup) for one in group.examples]


def test_examples_are_from_cells_edited_in_one_language(
    evaluation: Evaluation, dataset: Path
) -> None:
    shown = examples(evaluation, dataset)
    assert {example.cell.split()[2] for example in shown} == {"zh", "en"}
    for example in shown:
        assert [side.lang for side in example.sides] == ["zh", "en"]
        assert [side.edited for side in example.sides].count(True) == 1
        assert all(side.prompt and side.before and side.after for side in example.sides)


def test_each_cell_has_at_most_two_examples_of_a_kind(
    evaluation: Evaluation, dataset: Path
) -> None:
    kinds = [(example.group, example.cell) for example in examples(evaluation, dataset)]
    assert max(kinds.count(kind) for kind in kinds) == 2


def test_without_the_dataset_answers_are_shown_without_prompts(evaluation: Evaluation) -> None:
    shown = examples(evaluation, None)
    assert shown
    assert {side.prompt for example in shown for side in example.sides} == {NO_VALUE}
    assert all(side.after for example in shown for side in example.sides)


@pytest.mark.parametrize(
    ("measures", "expected"),
    [
        ({"exact_match": 1.0, "reliability": 0.5}, True),
        ({"exact_match": 0.0, "reliability": 1.0}, False),
        ({"reliability": 1.0}, True),
        ({"reliability": 0.9}, False),
        ({"reliability": None}, None),
    ],
)
def test_free_generation_decides_about_the_new_answer_before_token_accuracy(
    measures: dict[str, float | None], expected: bool | None
) -> None:
    item = FactResult(id="f", domain=None, batch=0, zh=measures, en={})
    assert gives_new_answer(item, "zh") is expected

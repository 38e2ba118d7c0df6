"""The policies against a direct implementation of their definition."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Indel

from clm_data.dedup.files import policies
from clm_data.dedup.files.policies import NO_ID, Selection, TextColumn, select_rows
from clm_data.errors import UserError


def column_of(texts: list[str | None]) -> TextColumn:
    view = TextColumn()
    for text in texts:
        view.add(text)
    return view


def ratio(one: str | None, two: str | None, threshold: str) -> float | None:
    """The similarity of two texts if it is above the threshold, else None."""
    if one is None or two is None:
        return None
    size = len(one) + len(two)
    found = Fraction(size - Indel.distance(one, two), size) if size else Fraction(1)
    return float(found) if found > Fraction(threshold) else None


Removed = dict[int, tuple[int, float]]
Flagged = dict[int, int]


def by_definition(
    columns: list[list[str | None]],
    threshold: str,
    scores: list[float] | None,
    subjects: list[int] | None,
) -> tuple[Removed, Flagged]:
    rows = range(len(columns[0]))
    order = list(rows) if scores is None else sorted(rows, key=lambda row: (-scores[row], row))
    kept: list[int] = []
    removed: Removed = {}
    flagged: Flagged = {}
    for row in order:
        similar = [
            (near, -kept.index(other), other)
            for column in columns
            for other in kept
            if (near := ratio(column[row], column[other], threshold)) is not None
        ]
        same = [
            match
            for match in similar
            if subjects is None or (subjects[row] == subjects[match[2]] and subjects[row] != NO_ID)
        ]
        if same:
            near, _, other = max(same)
            removed[row] = (other, near)
            continue
        if similar:
            flagged[row] = len(similar)
        kept.append(row)
    return removed, flagged


def as_dicts(selection: Selection) -> tuple[Removed, Flagged]:
    removed = {
        each.row: (each.duplicate_of.row, each.duplicate_of.ratio) for each in selection.removed
    }
    return removed, {each.row: each.near_duplicates for each in selection.flagged}


texts = st.one_of(st.none(), st.text("ab中", min_size=1, max_size=12))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[str | None]], list[float], list[int]]:
    count = draw(st.integers(1, 14))
    columns = [
        draw(st.lists(texts, min_size=count, max_size=count))
        for _ in range(draw(st.integers(1, 2)))
    ]
    scores = draw(st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=count, max_size=count))
    subjects = draw(st.lists(st.integers(NO_ID, 2), min_size=count, max_size=count))
    return columns, scores, subjects


@given(tables(), st.sampled_from(["0.5", "0.7", "0.9"]), st.booleans(), st.booleans())
def test_every_policy_matches_its_definition(
    table: tuple[list[list[str | None]], list[float], list[int]],
    threshold: str,
    best: bool,
    with_subjects: bool,
) -> None:
    columns, scores, subjects = table
    given_scores = scores if best else None
    given_subjects = subjects if with_subjects else None
    selection = select_rows(
        [column_of(column) for column in columns],
        float(threshold),
        scores=given_scores,
        subjects=given_subjects,
    )
    removed, flagged = as_dicts(selection)
    expected_removed, expected_flagged = by_definition(
        columns, threshold, given_scores, given_subjects
    )
    assert removed == expected_removed
    assert flagged == (expected_flagged if with_subjects else {})
    assert list(selection.keep) == [row not in removed for row in range(len(columns[0]))]


def test_a_removed_row_does_not_cause_the_removal_of_another() -> None:
    # Rows 0 and 1, and 1 and 2, have a similarity of 0.9; rows 0 and 2 of 0.8.
    chain = ["aaaaaaaaaa", "aaaaaaaaab", "aaaaaaaabb"]
    selection = select_rows([column_of([*chain])], 0.85)
    assert [each.row for each in selection.removed] == [1]


def test_rows_at_exactly_the_threshold_are_kept() -> None:
    texts: list[str | None] = ["aaaaaaaaaa", "aaaaaaaaab"]
    assert not select_rows([column_of(texts)], 0.9).removed
    assert select_rows([column_of(texts)], 0.8999).removed


def test_a_near_duplicate_with_another_subject_is_kept_and_flagged() -> None:
    texts: list[str | None] = [
        "世界上最大的海湾是",
        "世界上最大的海峡是",
        "世界上最大的海湾是",
    ]
    selection = select_rows([column_of(texts)], 0.8, subjects=[0, 1, 0])
    assert [each.row for each in selection.removed] == [2]
    assert [(each.row, each.closest[0].row) for each in selection.flagged] == [(1, 0)]
    assert selection.flagged_pairs == 1


def test_rows_without_text_are_kept() -> None:
    selection = select_rows([column_of([None, None, "x", None])], 0.9)
    assert bytes(selection.keep) == b"\1\1\1\1"


def test_near_duplicates_of_a_flagged_row_are_all_counted_and_the_closest_listed() -> None:
    count = 3_000  # 4.5 million pairs
    selection = select_rows([column_of(["它的首都是"] * count)], 0.9, subjects=list(range(count)))
    assert not selection.removed
    last = selection.flagged[-1]
    assert (last.row, last.near_duplicates) == (count - 1, count - 1)
    assert [other.row for other in last.closest] == list(range(policies.MAX_CLOSEST))


def test_clusters_group_removed_rows_by_the_kept_row() -> None:
    texts: list[str | None] = ["bbbb", "aaaa", "bbbb", "aaaa", "cccc", "bbbb"]
    clusters = list(select_rows([column_of(texts)], 0.9).clusters())
    assert [(c.representative, [r.row for r in c.removed]) for c in clusters] == [
        (0, [2, 5]),
        (1, [3]),
    ]


def test_too_many_pairs_are_a_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "MAX_PAIRS", 5)
    texts: list[str | None] = [f"{'长' * 40}{number}" for number in range(10)]
    with pytest.raises(UserError, match="raise --threshold") as caught:
        select_rows([column_of(texts)], 0.8)
    assert "\n" not in str(caught.value)

from __future__ import annotations

import pytest
from helpers.review_sheets import candidate, candidates

from clm_data.errors import StoreError
from clm_data.records import Candidate, Decision, Verdict
from clm_data.review.decisions import apply_decisions, current_contents, with_fixes

ONE = candidate(1)
FIX = {"zh.target_new": "南山", "en.target_new": "South Hill"}
FIXED = with_fixes(ONE, FIX)


def _decide(
    verdict: Verdict,
    content: Candidate = ONE,
    *,
    note: str = "",
    fixed: dict[str, str] | None = None,
    reviewer: str = "Li Na",
) -> Decision:
    return Decision(
        entry_id=content.id,
        content_hash=content.content_hash,
        verdict=verdict,
        reviewer=reviewer,
        note=note,
        fixed=fixed,
    )


def test_without_decisions_all_candidates_are_kept_unchanged() -> None:
    all_ = candidates(3)
    result = apply_decisions(all_, [])
    assert (list(result.kept), result.rejected, result.status) == (all_, (), {})


def test_accept_sets_the_status_and_changes_no_text() -> None:
    result = apply_decisions([ONE], [_decide("accept")])
    assert result.kept == (ONE,)
    assert result.status == {ONE.id: "accepted"}


def test_reject_gives_a_rejection_with_the_note_and_content() -> None:
    result = apply_decisions(candidates(3), [_decide("reject", note="不是事实")])
    (rejection,) = result.rejected
    assert (rejection.stage, rejection.id, rejection.code, rejection.domain) == (
        "review", ONE.id, "rejected-by-reviewer", "rivers",
    )  # fmt: skip
    assert rejection.problems[0].message == "不是事实"
    assert Candidate.model_validate(rejection.content) == ONE
    assert len(result.kept) + len(result.rejected) == 3
    assert result.status == {}


def test_fix_replaces_only_the_given_texts_and_keeps_the_id() -> None:
    result = apply_decisions([ONE], [_decide("fix", fixed=FIX)])
    (content,) = result.kept
    assert content == FIXED
    assert content.id == ONE.id
    assert content.zh is not None
    assert ONE.zh is not None
    assert content.zh.target_new == "南山"
    assert content.zh.prompt == ONE.zh.prompt
    assert result.status == {ONE.id: "fixed"}
    assert ONE.zh.target_new == "西山"


def test_a_fixed_text_can_be_accepted() -> None:
    result = apply_decisions([ONE], [_decide("fix", fixed=FIX), _decide("accept", FIXED)])
    assert result.kept == (FIXED,)
    assert result.status == {ONE.id: "accepted"}


@pytest.mark.parametrize("verdict", ["accept", "reject"])
def test_a_verdict_on_the_text_before_a_fix_has_no_effect(verdict: Verdict) -> None:
    result = apply_decisions([ONE], [_decide("fix", fixed=FIX), _decide(verdict)])
    assert result.kept == (FIXED,)
    assert result.status == {ONE.id: "fixed"}


def test_a_second_fix_of_the_same_text_has_no_effect() -> None:
    other = _decide("fix", fixed={"zh.target_new": "北山"})
    result = apply_decisions([ONE], [_decide("fix", fixed=FIX), other])
    assert result.kept == (FIXED,)


def test_the_last_decision_on_a_text_wins() -> None:
    accept, reject = _decide("accept"), _decide("reject", reviewer="Wang")
    assert apply_decisions([ONE], [accept, reject]).kept == ()
    assert apply_decisions([ONE], [reject, accept]).status == {ONE.id: "accepted"}


def test_rejecting_a_fixed_entry_reports_the_fixed_text() -> None:
    result = apply_decisions([ONE], [_decide("fix", fixed=FIX), _decide("reject", FIXED)])
    assert Candidate.model_validate(result.rejected[0].content) == FIXED


def test_a_fix_restores_a_rejected_entry() -> None:
    result = apply_decisions([ONE], [_decide("reject"), _decide("fix", fixed=FIX)])
    assert result.status == {ONE.id: "fixed"}


@pytest.mark.parametrize("fixed", [None, {}, {"zh.target_new": "西山"}])
def test_a_fix_that_changes_nothing_has_no_effect(fixed: dict[str, str] | None) -> None:
    assert apply_decisions([ONE], [_decide("fix", fixed=fixed)]).status == {}


def test_a_fix_can_add_a_missing_language() -> None:
    bare = ONE.model_copy(update={"en": None})
    fixed = with_fixes(bare, {"en.prompt": "The source is"})
    assert fixed.en is not None
    assert fixed.en.prompt == "The source is"
    assert fixed.en.subject is None


@pytest.mark.parametrize("name", ["zh.loc", "id", "fr.prompt", "domain"])
def test_only_the_ten_texts_can_be_fixed(name: str) -> None:
    with pytest.raises(StoreError, match=name):
        apply_decisions([ONE], [_decide("fix", fixed={name: "x"})])


def test_decisions_on_unknown_ids_have_no_effect() -> None:
    assert apply_decisions([candidate(2)], [_decide("reject")]).kept == (candidate(2),)


def test_current_contents_include_fixed_and_rejected_entries() -> None:
    two = candidate(2)
    decisions = [_decide("fix", fixed=FIX), _decide("reject", two)]
    assert current_contents([ONE, two], decisions) == {ONE.id: FIXED, two.id: two}

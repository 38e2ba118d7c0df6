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


def test_nothing_decided_leaves_everything_as_it_is() -> None:
    all_ = candidates(3)
    decided = apply_decisions(all_, [])
    assert (list(decided.sifted.kept), decided.sifted.rejected, decided.status) == (all_, (), {})


def test_accept_gives_the_status_and_changes_no_text() -> None:
    decided = apply_decisions([ONE], [_decide("accept")])
    assert decided.sifted.kept == (ONE,)
    assert decided.status == {ONE.id: "accepted"}


def test_reject_sets_the_entry_aside_with_its_note_and_content() -> None:
    decided = apply_decisions(candidates(3), [_decide("reject", note="不是事实")])
    (rejection,) = decided.sifted.rejected
    assert (rejection.stage, rejection.id, rejection.code, rejection.domain) == (
        "review", ONE.id, "rejected-by-reviewer", "rivers",
    )  # fmt: skip
    assert rejection.problems[0].message == "不是事实"
    assert Candidate.model_validate(rejection.content) == ONE
    assert len(decided.sifted.kept) + len(decided.sifted.rejected) == 3
    assert decided.status == {}


def test_fix_replaces_the_named_texts_only_and_keeps_the_id() -> None:
    decided = apply_decisions([ONE], [_decide("fix", fixed=FIX)])
    (content,) = decided.sifted.kept
    assert content == FIXED
    assert content.id == ONE.id
    assert content.zh is not None
    assert ONE.zh is not None
    assert content.zh.target_new == "南山"
    assert content.zh.prompt == ONE.zh.prompt
    assert decided.status == {ONE.id: "fixed"}
    assert ONE.zh.target_new == "西山"


def test_a_later_accept_of_the_fixed_text_counts() -> None:
    decided = apply_decisions([ONE], [_decide("fix", fixed=FIX), _decide("accept", FIXED)])
    assert decided.sifted.kept == (FIXED,)
    assert decided.status == {ONE.id: "accepted"}


@pytest.mark.parametrize("verdict", ["accept", "reject"])
def test_a_verdict_on_a_text_that_was_fixed_since_has_no_effect(verdict: Verdict) -> None:
    decided = apply_decisions([ONE], [_decide("fix", fixed=FIX), _decide(verdict)])
    assert decided.sifted.kept == (FIXED,)
    assert decided.status == {ONE.id: "fixed"}


def test_a_second_fix_of_the_same_old_text_has_no_effect() -> None:
    other = _decide("fix", fixed={"zh.target_new": "北山"})
    decided = apply_decisions([ONE], [_decide("fix", fixed=FIX), other])
    assert decided.sifted.kept == (FIXED,)


def test_the_last_reviewer_wins_on_the_same_text() -> None:
    accept, reject = _decide("accept"), _decide("reject", reviewer="Wang")
    assert apply_decisions([ONE], [accept, reject]).sifted.kept == ()
    assert apply_decisions([ONE], [reject, accept]).status == {ONE.id: "accepted"}


def test_a_rejected_fix_is_set_aside_with_the_fixed_text() -> None:
    decided = apply_decisions([ONE], [_decide("fix", fixed=FIX), _decide("reject", FIXED)])
    assert Candidate.model_validate(decided.sifted.rejected[0].content) == FIXED


def test_a_fix_brings_a_rejected_entry_back() -> None:
    decided = apply_decisions([ONE], [_decide("reject"), _decide("fix", fixed=FIX)])
    assert decided.status == {ONE.id: "fixed"}


@pytest.mark.parametrize("fixed", [None, {}, {"zh.target_new": "西山"}])
def test_a_fix_that_changes_nothing_is_no_verdict(fixed: dict[str, str] | None) -> None:
    assert apply_decisions([ONE], [_decide("fix", fixed=fixed)]).status == {}


def test_a_fix_may_write_the_language_that_was_missing() -> None:
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
    assert apply_decisions([candidate(2)], [_decide("reject")]).sifted.kept == (candidate(2),)


def test_current_contents_hold_fixed_and_rejected_entries() -> None:
    two = candidate(2)
    decisions = [_decide("fix", fixed=FIX), _decide("reject", two)]
    assert current_contents([ONE, two], decisions) == {ONE.id: FIXED, two.id: two}

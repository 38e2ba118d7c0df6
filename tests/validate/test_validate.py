from __future__ import annotations

from helpers.example_candidates import candidate
from hypothesis import given
from hypothesis import strategies as st

from clm_data.records import FACT_FIELDS, Candidate, LooseFact, LooseProbe
from clm_data.validate import RULES, validate


def test_a_valid_candidate_becomes_an_entry_with_its_probe() -> None:
    source = candidate(probes=True, case_id="7")
    result = validate([source])
    [entry] = result.kept
    assert (entry.id, entry.case_id, entry.content_hash) == ("c1", "7", source.content_hash)
    assert entry.probe is not None
    assert entry.probe.en.loc_ans == "88"
    assert (result.rejected, result.warnings) == ((), ())


def test_a_rejection_contains_the_content_and_all_problems_errors_first() -> None:
    broken = candidate(zh_rephrase_prompt="翠翠的故事，写它的人是", en_target_new="shen congwen")
    [rejection] = validate([broken]).rejected
    assert (rejection.stage, rejection.id, rejection.code) == (
        "validate",
        "c1",
        "target-equals-truth",
    )
    assert [p.code for p in rejection.problems] == [
        "target-equals-truth",
        "subject-not-in-rephrase",
    ]
    assert Candidate.model_validate(rejection.content) == broken


def test_warnings_do_not_reject() -> None:
    result = validate([candidate(zh_rephrase_prompt="翠翠的故事，写它的人是")])
    assert [entry.id for entry in result.kept] == ["c1"]
    assert [(id_, p.code) for id_, p in result.warnings] == [("c1", "subject-not-in-rephrase")]


def test_a_bad_probe_does_not_reject_its_entry() -> None:
    result = validate([candidate(zh_loc="《边城》有几章？")])
    assert result.kept[0].probe is None
    [rejection] = result.rejected
    assert (rejection.stage, rejection.id, rejection.code) == (
        "locality",
        "c1/probe",
        "probe-touches-subject",
    )
    assert rejection.content["zh"]["loc"] == "《边城》有几章？"


def test_a_probe_in_one_language_is_rejected_without_its_entry() -> None:
    half = candidate(probes=True).model_copy(update={"zh_probe": None})
    result = validate([half])
    assert result.kept[0].probe is None
    assert [(r.stage, r.code) for r in result.rejected] == [("locality", "empty-field")]


def test_a_probe_is_used_by_one_kept_entry_only() -> None:
    rejected_first = candidate("a", probes=True, zh_prompt="")
    result = validate([rejected_first, candidate("b", probes=True), candidate("c", probes=True)])
    assert [(entry.id, entry.probe is not None) for entry in result.kept] == [
        ("b", True),
        ("c", False),
    ]
    assert [(r.id, r.code) for r in result.rejected] == [
        ("a", "empty-field"),
        ("c/probe", "repeated-probe"),
    ]


def test_problems_between_entries_are_warnings_on_kept_entries() -> None:
    rows = [candidate("a", case_id=1), candidate("b", case_id="1", zh_ground_truth="巴金")]
    result = validate(rows)
    assert len(result.kept) == 2
    assert [(id_, p.code) for id_, p in result.warnings] == [
        ("a", "duplicate-id"),
        ("b", "duplicate-id"),
        ("b", "conflicting-truth"),
    ]


texts = (
    st.none() | st.text(max_size=12) | st.sampled_from(["边城", "Border Town", "1949年", "谁？"])
)
facts = st.none() | st.builds(LooseFact, **dict.fromkeys(FACT_FIELDS, texts))
probes = st.none() | st.builds(LooseProbe, loc=texts, loc_ans=texts)


@given(
    st.lists(st.tuples(facts, facts, probes, probes, st.none() | st.integers() | texts), max_size=4)
)
def test_every_candidate_is_either_kept_or_rejected(
    rows: list[
        tuple[LooseFact | None, LooseFact | None, LooseProbe | None, LooseProbe | None, str]
    ],
) -> None:
    items = [
        candidate(str(number)).model_copy(
            update={"zh": zh, "en": en, "zh_probe": zp, "en_probe": ep, "case_id": case_id}
        )
        for number, (zh, en, zp, ep, case_id) in enumerate(rows)
    ]
    result = validate([*items, candidate("valid")])
    rejected = [r.id for r in result.rejected if r.stage == "validate"]
    assert sorted([*rejected, *(entry.id for entry in result.kept)]) == sorted(
        item.id for item in [*items, candidate("valid")]
    )
    for rejection in result.rejected:
        assert rejection.problems[0].severity == "error"
    for item in items:
        for code, rule in RULES.items():
            assert {problem.code for problem in rule(item)} <= {code}

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from helpers.example_candidates import candidate
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_data.auditing import AuditReport, DuplicateRule, audit, findings
from clm_data.codes import CODES
from clm_data.dedup import deduplicate_entries
from clm_data.records import Problem, Rejection
from clm_data.sources import candidates_of, read_file
from clm_data.validate import validate

ZH = "chinese_fields_with_loc.json"
EN = "english_fields_with_loc.json"
MIXED = "merged_alternate_fields_no_english.json"

# Checked by reading all 300 rows in both languages and every problem behind these counts.
SAMPLE = {
    ("empty-field", "en", "ground_truth"): 18,
    ("subject-not-in-rephrase", "zh", "rephrase_prompt"): 72,
    ("subject-not-in-rephrase", "en", "rephrase_prompt"): 92,
    ("subject-ambiguous", "en", "prompt"): 1,
    ("answer-in-prompt", "en", "prompt"): 1,
    ("answer-in-rephrase", "en", "rephrase_prompt"): 1,
    ("rephrase-equals-prompt", "en", "rephrase_prompt"): 2,
    ("rephrase-near-prompt", "zh", "rephrase_prompt"): 4,
    ("rephrase-near-prompt", "en", "rephrase_prompt"): 30,
    ("mixed-script", "en", "ground_truth"): 3,
    ("traditional-characters", "zh", "rephrase_prompt"): 1,
    ("control-character", "en", "loc"): 1,
    ("stray-whitespace", "zh", "loc"): 37,
    ("stray-whitespace", "en", "loc_ans"): 1,
    ("duplicate-id", None, "id"): 30,
    ("duplicate-fact", "en", "prompt"): 1,
    ("similar-prompt", "en", "prompt"): 3,
    ("conflicting-truth", "zh", "ground_truth"): 1,
    ("conflicting-truth", "en", "ground_truth"): 1,
    ("untranslated-probe", "zh", "loc"): 22,
    ("untranslated-probe", "zh", "loc_ans"): 2,
    ("repeated-probe", "en", "loc"): 1,
    ("probe-touches-subject", "zh", "loc"): 1,
}


def counts(report: AuditReport) -> dict[tuple[str, str | None, str | None], int]:
    return {(p.code, p.lang, p.field): p.count for p in report.problems}


def audited(*files: Path) -> AuditReport:
    found = candidates_of([read_file(file) for file in files])
    return audit(found.kept, unreadable=found.rejected)


def test_the_audit_of_the_sample_matches_a_manual_review(sample_folder: Path) -> None:
    report = audited(sample_folder / ZH, sample_folder / EN)
    assert report.entries == 300
    assert counts(report) == SAMPLE
    ids = {(p.code, p.lang): p.ids for p in report.problems}
    assert ids[("empty-field", "en")] == tuple(range(511, 529))
    assert ids[("mixed-script", "en")] == (8, 12, 33)
    assert ids[("rephrase-equals-prompt", "en")] == (894, 899)
    assert ids[("duplicate-fact", "en")] == (908,)
    assert ids[("answer-in-prompt", "en")] == (89,)
    repeated = ids[("duplicate-id", None)]
    assert sorted(map(int, repeated[:15])) == sorted(map(int, repeated[15:]))
    assert {type(id_) for id_ in repeated[:15]} == {int}
    assert {type(id_) for id_ in repeated[15:]} == {str}


def test_the_mixed_layout_has_the_same_problems(sample_folder: Path) -> None:
    both = audited(sample_folder / ZH, sample_folder / EN)
    assert audited(sample_folder / MIXED).as_json() == both.as_json()


def test_a_monolingual_set_does_not_report_the_other_language_as_missing(
    sample_folder: Path,
) -> None:
    for name, lang in ((ZH, "zh"), (EN, "en")):
        report = audited(sample_folder / name)
        assert report.entries == 300
        assert counts(report) == {key: n for key, n in SAMPLE.items() if key[1] in (lang, None)}


def test_the_json_has_exactly_the_documented_fields() -> None:
    report = audit([candidate("a", case_id=4, en_ground_truth=None), candidate("b")])
    first = report.as_json()["problems"][0]
    assert report.as_json()["entries"] == 2
    assert first == {
        "code": "empty-field",
        "severity": "error",
        "lang": "en",
        "field": "ground_truth",
        "count": 1,
        "ids": [4],
    }


def test_problems_are_sorted_by_code_and_count_each_entry_once() -> None:
    rows = [candidate(str(n), zh_prompt=" 小说《边城》的作者是谁？ ") for n in range(3)]
    report = audit(rows)
    codes = [p.code for p in report.problems]
    assert codes == sorted(codes, key=list(CODES).index)
    found = {(p.code, p.lang): p for p in report.problems}
    assert found[("prompt-not-cloze", "zh")].count == 3
    assert found[("near-duplicate", "zh")].count == 3
    assert found[("near-duplicate", "zh")].ids == ("0", "1", "2")
    assert found[("duplicate-fact", "zh")].ids == ("1", "2")


def test_a_bilingual_set_reports_an_entry_without_one_language() -> None:
    rows = [candidate("a"), candidate("b").model_copy(update={"en": None})]
    assert counts(audit(rows)) == {
        ("empty-field", "en", None): 1,
        ("duplicate-fact", "zh", "prompt"): 1,
        ("near-duplicate", "zh", "prompt"): 1,
    }


def test_the_threshold_applies_to_near_duplicates() -> None:
    rows = [
        candidate("a"),
        candidate("b", zh_prompt="小说《边城》的译者是", en_prompt="Border Town is"),
    ]
    assert ("near-duplicate", "zh", "prompt") not in counts(audit(rows, 0.9))
    assert ("near-duplicate", "zh", "prompt") in counts(audit(rows, 0.8))


def test_unreadable_rows_count_as_entries_with_a_problem() -> None:
    problem = Problem(code="unreadable-answer", message="not an object")
    row = Rejection(stage="parse", id="f.json#2", domain=None, problems=(problem,), content=3)
    report = audit([candidate()], unreadable=[row])
    assert report.entries == 2
    assert counts(report) == {("unreadable-answer", None, None): 1}
    assert report.problems[0].ids == ("f.json#2",)


def test_auditing_nothing_gives_an_empty_report() -> None:
    assert audit([]).as_json() == {"entries": 0, "problems": []}
    assert "No problem" in audit([candidate()]).as_html()


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_html_page_is_self_contained_and_escapes_its_examples() -> None:
    row = candidate("<b>", en_ground_truth="Shen\u200b <script>x</script>\u202e Congwen")
    html = audit([row]).as_html("made & odd")
    page = _Text()
    page.feed(html)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "img" not in page.tags
    assert "⟨U+200B⟩" in page.text
    assert "\u200b" not in html
    assert "\u202e" not in html
    assert "✖ error" in page.text
    assert "made & odd" in page.text
    assert CODES["control-character"].zh in page.text


SUBJECTS = ("边城", "边城外", "湘行")
PROMPTS = (
    "小说《{}》的作者是",
    "小说《{}》的编者是",
    "长篇小说《{}》的作者是",
    "{}的作者是谁？",
    "",
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(SUBJECTS),
            st.sampled_from(PROMPTS),
            st.sampled_from(["The novel {} was written by", "The book {} was written by"]),
        ),
        max_size=8,
    ),
    st.sampled_from(["zh.prompt", "en.prompt", "zh.rephrase_prompt"]),
    st.sampled_from(["keep-first", "by-subject"]),
    st.sets(st.integers(0, 7)),
)
def test_an_entry_has_an_error_exactly_if_the_build_leaves_it_out(
    texts: list[tuple[str, str, str]], field: str, policy: Any, accepted: set[int]
) -> None:
    rows = [
        candidate(
            f"c{number}",
            zh_subject=subject,
            zh_prompt=zh.format(subject),
            en_subject=f"Town {SUBJECTS.index(subject)}",
            en_prompt=en.format(f"Town {SUBJECTS.index(subject)}"),
        )
        for number, (subject, zh, en) in enumerate(texts)
    ]
    rule: dict[str, Any] = {"threshold": 0.8, "field": field, "policy": policy}
    rule["reviewed"] = {f"c{number}" for number in accepted}
    kept = {entry.id for entry in deduplicate_entries(validate(rows).kept, **rule).kept}
    problems = findings(rows, [], DuplicateRule(**rule))
    found = {id_ for id_, problem in problems if problem.severity == "error"}
    assert found == {row.id for row in rows} - kept
    assert bool(audit(rows, **rule).errors) == bool(found)


def test_english_near_duplicates_are_warnings_where_chinese_prompts_are_compared() -> None:
    rows = [
        candidate("a"),
        candidate(
            "b",
            zh_subject="湘行散记",
            zh_prompt="把湘西的见闻写进《湘行散记》的人是",
            zh_rephrase_prompt="《湘行散记》一书出自",
            en_prompt="The novel Border Town was written by a",
        ),
    ]
    assert counts(audit(rows)) == {("similar-prompt", "en", "prompt"): 1}
    assert ("near-duplicate", "en", "prompt") in counts(audit(rows, field="en.prompt"))

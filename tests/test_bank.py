"""All bundled entries are valid, and all deliberate defects are reported with their codes."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from clm_data import bank, sources
from clm_data.bank import BankEntry, Defect
from clm_data.codes import CODES
from clm_data.domain import load_domains
from clm_data.errors import UnknownNameError
from clm_data.languages import normalize_text
from clm_data.parse import parse_entries
from clm_data.probes import BANK, read_probes
from clm_data.records import LANGUAGES, Candidate, Fact, LooseFact, LooseProbe, Origin, Problem
from clm_data.resources import bank_path, resource
from clm_data.validate import validate

ORIGIN = Origin(kind="bank", name="bank-1")
ANSWER_ERRORS = {
    *("unreadable-answer", "empty-field", "subject-not-in-prompt", "answer-in-prompt"),
    *("answer-in-rephrase", "target-equals-truth", "rephrase-equals-prompt", "prompt-not-cloze"),
    *("mixed-script", "wrong-language", "control-character", "length"),
    *("duplicate-fact", "near-duplicate"),
}
ANSWER_WARNINGS = {
    *("subject-not-in-rephrase", "target-near-truth", "rephrase-near-prompt"),
    *("traditional-characters", "stray-whitespace", "number-mismatch", "conflicting-truth"),
}
PAIR_CODES = {"duplicate-fact", "near-duplicate", "conflicting-truth"}


@pytest.fixture(scope="module")
def entries() -> dict[str, tuple[BankEntry, ...]]:
    return {domain: bank.load_domain(domain) for domain in bank.domain_ids()}


@pytest.fixture(scope="module")
def defects() -> tuple[Defect, ...]:
    return bank.load_defects()


def loose(fact: Fact) -> LooseFact:
    return LooseFact(**fact.model_dump())


def candidate(id_: str, zh: LooseFact | None, en: LooseFact | None, domain: str = "d") -> Candidate:
    return Candidate(id=id_, domain=domain, origin=ORIGIN, zh=zh, en=en)


def bank_candidates(entries: dict[str, tuple[BankEntry, ...]]) -> list[Candidate]:
    return [
        candidate(f"{domain}/{number}", loose(entry.zh), loose(entry.en), domain)
        for domain, items in entries.items()
        for number, entry in enumerate(items)
    ]


def test_every_domain_has_enough_entries(entries: dict[str, tuple[BankEntry, ...]]) -> None:
    assert set(entries) == set(load_domains(resource("domains.yaml")))
    assert min(len(items) for items in entries.values()) >= 12
    assert sum(len(items) for items in entries.values()) >= 288
    assert all(entry.basis.strip() for items in entries.values() for entry in items)
    assert not any("\n" in entry.basis for items in entries.values() for entry in items)


def test_every_entry_is_valid_without_warnings(
    entries: dict[str, tuple[BankEntry, ...]],
) -> None:
    result = validate(bank_candidates(entries))
    assert [(r.id, r.problems) for r in result.rejected] == []
    assert {(p.code, p.lang) for _, p in result.warnings} == {("subject-ambiguous", "zh")}
    assert len(result.warnings) == 2, "清明 and 茶馆 are twice in a prompt"


def test_no_two_prompts_are_more_than_0_9_similar(
    entries: dict[str, tuple[BankEntry, ...]],
) -> None:
    from rapidfuzz.distance import Indel

    for lang in LANGUAGES:
        prompts = [normalize_text(c.fact(lang).prompt) for c in bank_candidates(entries)]  # type: ignore[union-attr, arg-type]
        near = [
            pair for pair in combinations(prompts, 2) if Indel.normalized_similarity(*pair) > 0.9
        ]
        assert near == []


def test_subjects_are_unique_within_a_domain(entries: dict[str, tuple[BankEntry, ...]]) -> None:
    for items in entries.values():
        assert Counter(entry.zh.subject for entry in items).most_common(1)[0][1] == 1


def test_worked_examples_are_valid_and_not_in_the_bank(
    entries: dict[str, tuple[BankEntry, ...]],
) -> None:
    domains = load_domains(resource("domains.yaml"))
    examples = [
        candidate(f"{name}/example {n}", loose(example.zh), loose(example.en), name)
        for name, domain in domains.items()
        for n, example in enumerate(domain.examples)
    ]
    result = validate(examples)
    assert [(r.id, r.problems) for r in result.rejected] == []
    assert result.warnings == ()
    prompts = {entry.zh.prompt for items in entries.values() for entry in items}
    assert not prompts & {example.zh.prompt for example in examples if example.zh}


def test_there_are_enough_probes_and_all_are_valid() -> None:
    read = read_probes(BANK)
    assert read.rejected == ()
    probes = read.kept
    assert len(probes) >= 150
    assert len({probe.id for probe in probes}) == len(probes)
    for lang in LANGUAGES:
        questions = [(p.zh if lang == "zh" else p.en).loc for p in probes]
        assert len(set(questions)) == len(questions)
    fact = LooseFact(
        prompt="甲骨文最早发现于",
        subject="甲骨文",
        ground_truth="安阳殷墟",
        target_new="三星堆",
        rephrase_prompt="带字的甲骨文残片出土自",
    )
    english = LooseFact(
        prompt="Oracle bone script was first found at",
        subject="Oracle bone script",
        ground_truth="Yinxu in Anyang",
        target_new="Sanxingdui",
        rephrase_prompt="The place where Oracle bone script came to light is",
    )
    for number, probe in enumerate(probes):
        parts = {
            "zh_probe": LooseProbe(**probe.zh.model_dump()),
            "en_probe": LooseProbe(**probe.en.model_dump()),
        }
        result = validate([candidate(str(number), fact, english).model_copy(update=parts)])
        assert (result.rejected, result.warnings) == ((), ()), probe


def test_the_defects_cover_every_code_that_an_answer_can_cause(defects: tuple[Defect, ...]) -> None:
    planted = Counter(defect.code for defect in defects)
    assert ANSWER_ERRORS | ANSWER_WARNINGS | {"rejected-by-reviewer"} == set(planted)
    assert {code for code in ANSWER_ERRORS if planted[code] < 2} == set()
    assert all(CODES[code].severity == "error" for code in ANSWER_ERRORS)
    assert all(CODES[code].severity == "warning" for code in ANSWER_WARNINGS)
    assert {defect.domain for defect in defects} <= set(bank.domain_ids())
    assert len({defect.domain for defect in defects}) >= 12


def test_each_defect_alone_is_reported_with_its_code_only(defects: tuple[Defect, ...]) -> None:
    for defect in defects:
        if defect.raw is not None:
            continue
        problems = _problems_of([candidate("x", defect.zh, defect.en, defect.domain)], "x")
        expected = set() if _needs_context(defect) else {defect.code}
        assert _main_codes(problems) == expected, (defect, problems)


def test_each_defect_added_to_the_bank_is_reported_and_no_entry_is_rejected(
    entries: dict[str, tuple[BankEntry, ...]], defects: tuple[Defect, ...]
) -> None:
    from clm_data.dedup import deduplicate_entries

    planted = {
        f"defect {number}": defect for number, defect in enumerate(defects) if defect.raw is None
    }
    extra = [candidate(id_, d.zh, d.en, d.domain) for id_, d in planted.items()]
    shipped = bank_candidates(entries)
    valid = validate([*shipped, *extra])
    unique = deduplicate_entries(valid.kept, threshold=0.9, field="zh.prompt")
    codes = {r.id: r.code for r in (*valid.rejected, *unique.rejected)}
    warned: dict[str, set[str]] = {}
    for id_, problem in valid.warnings:
        warned.setdefault(id_, set()).add(problem.code)
    assert not {c.id for c in shipped} & set(codes)
    for id_, defect in planted.items():
        if defect.code == "rejected-by-reviewer":
            assert id_ not in codes
            assert id_ not in warned
        elif CODES[defect.code].severity == "error":
            assert codes[id_] == defect.code
        else:
            assert id_ not in codes
            assert warned[id_] == {defect.code}


def test_each_raw_defect_is_one_unreadable_piece(defects: tuple[Defect, ...]) -> None:
    for defect in defects:
        if defect.raw is not None:
            text = f"[{defect.raw}, {{}}]"
            result = parse_entries(text, domain=defect.domain, label="a", origin=ORIGIN)
            assert result.kept == ()
            assert [r.code for r in result.rejected] == ["unreadable-answer"]


def test_the_sample_file_covers_every_code_of_imported_files() -> None:
    file = sources.read_file(bank_path("published_rows.json"))
    found = sources.candidates_of([file])
    assert found.rejected == ()
    assert len(found.kept) * 2 == len(file.rows)
    result = validate(found.kept)
    assert len(result.kept) == len(found.kept)
    assert {r.code for r in result.rejected} == {
        "untranslated-probe",
        "repeated-probe",
        "probe-touches-subject",
    }
    assert len(result.rejected) == 3
    assert {problem.code for _, problem in result.warnings} == {"duplicate-id"}


def test_the_sample_file_shares_no_rows_with_the_bank(
    entries: dict[str, tuple[BankEntry, ...]],
) -> None:
    from rapidfuzz.distance import Indel

    file = sources.read_file(bank_path("published_rows.json"))
    prompts = [entry.zh.prompt for items in entries.values() for entry in items]
    probes = [probe.zh.loc for probe in read_probes(BANK).kept]
    for row in file.rows[::2]:
        assert max(Indel.normalized_similarity(row["prompt"], p) for p in prompts) < 0.85
        assert max(Indel.normalized_similarity(row["loc"], p) for p in probes) < 0.85


def test_an_unknown_domain_suggests_similar_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean physics"):
        bank.load_domain("physic")


def _problems_of(candidates: list[Candidate], id_: str) -> list[Problem]:
    result = validate(candidates)
    rejected = [p for r in result.rejected if r.id == id_ for p in r.problems]
    return rejected or [problem for i, problem in result.warnings if i == id_]


def _main_codes(problems: list[Problem]) -> set[str]:
    """Codes of the errors or, if there are none, of the warnings."""
    errors = {problem.code for problem in problems if problem.severity == "error"}
    return errors or {problem.code for problem in problems}


def _needs_context(defect: Defect) -> bool:
    """Whether the defect is not detectable on its own."""
    return defect.code in PAIR_CODES or defect.code == "rejected-by-reviewer"

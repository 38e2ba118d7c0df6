"""Every shipped entry is valid; every planted mistake is judged as it says."""

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
FROM_ANSWERS = {
    *("unreadable-answer", "empty-field", "subject-not-in-prompt", "answer-in-prompt"),
    *("answer-in-rephrase", "target-equals-truth", "rephrase-equals-prompt", "prompt-not-cloze"),
    *("mixed-script", "wrong-language", "control-character", "length"),
    *("duplicate-fact", "near-duplicate"),
}
WARNINGS = {
    *("subject-not-in-rephrase", "target-near-truth", "rephrase-near-prompt"),
    *("traditional-characters", "stray-whitespace", "number-mismatch", "conflicting-truth"),
}
ON_PAIRS = {"duplicate-fact", "near-duplicate", "conflicting-truth"}


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


def test_every_entry_passes_validate_without_a_warning(
    entries: dict[str, tuple[BankEntry, ...]],
) -> None:
    sifted = validate(bank_candidates(entries))
    assert [(r.id, r.problems) for r in sifted.rejected] == []
    assert sifted.warnings == ()


def test_no_two_prompts_are_more_than_nine_tenths_similar(
    entries: dict[str, tuple[BankEntry, ...]],
) -> None:
    from rapidfuzz.distance import Indel

    for lang in LANGUAGES:
        prompts = [normalize_text(c.fact(lang).prompt) for c in bank_candidates(entries)]  # type: ignore[union-attr, arg-type]
        near = [
            pair for pair in combinations(prompts, 2) if Indel.normalized_similarity(*pair) > 0.9
        ]
        assert near == []


def test_the_subjects_of_a_domain_differ(entries: dict[str, tuple[BankEntry, ...]]) -> None:
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
    sifted = validate(examples)
    assert [(r.id, r.problems) for r in sifted.rejected] == []
    assert sifted.warnings == ()
    prompts = {entry.zh.prompt for items in entries.values() for entry in items}
    assert not prompts & {example.zh.prompt for example in examples if example.zh}


def test_there_are_probes_enough_and_all_pass() -> None:
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
        sifted = validate([candidate(str(number), fact, english).model_copy(update=parts)])
        assert (sifted.rejected, sifted.warnings) == ((), ()), probe


def test_every_code_that_an_answer_can_bring_is_planted(defects: tuple[Defect, ...]) -> None:
    planted = Counter(defect.code for defect in defects)
    assert FROM_ANSWERS | WARNINGS | {"rejected-by-reviewer"} == set(planted)
    assert {code for code in FROM_ANSWERS if planted[code] < 2} == set()
    assert all(CODES[code].severity == "error" for code in FROM_ANSWERS)
    assert all(CODES[code].severity == "warning" for code in WARNINGS)
    assert {defect.domain for defect in defects} <= set(bank.domain_ids())
    assert len({defect.domain for defect in defects}) >= 12


def test_each_defect_alone_gives_exactly_its_code(defects: tuple[Defect, ...]) -> None:
    for defect in defects:
        if defect.raw is not None:
            continue
        problems = _judge([candidate("x", defect.zh, defect.en, defect.domain)], "x")
        expected = set() if _is_silent(defect) else {defect.code}
        assert _decisive(problems) == expected, (defect, problems)


def test_each_defect_beside_the_bank_gives_its_code_and_harms_no_entry(
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


def test_raw_defects_are_one_unreadable_piece_each(defects: tuple[Defect, ...]) -> None:
    for defect in defects:
        if defect.raw is not None:
            text = f"[{defect.raw}, {{}}]"
            sifted = parse_entries(text, domain=defect.domain, label="a", origin=ORIGIN)
            assert sifted.kept == ()
            assert [r.code for r in sifted.rejected] == ["unreadable-answer"]


def test_the_published_rows_show_every_code_of_an_imported_file() -> None:
    file = sources.read_file(bank_path("published_rows.json"))
    found = sources.candidates_of([file])
    assert found.rejected == ()
    assert len(found.kept) * 2 == len(file.rows)
    sifted = validate(found.kept)
    assert len(sifted.kept) == len(found.kept)
    assert {r.code for r in sifted.rejected} == {
        "untranslated-probe",
        "repeated-probe",
        "probe-touches-subject",
    }
    assert len(sifted.rejected) == 3
    assert {problem.code for _, problem in sifted.warnings} == {"duplicate-id"}


def test_the_published_rows_are_not_in_the_bank(
    entries: dict[str, tuple[BankEntry, ...]],
) -> None:
    from rapidfuzz.distance import Indel

    file = sources.read_file(bank_path("published_rows.json"))
    prompts = [entry.zh.prompt for items in entries.values() for entry in items]
    probes = [probe.zh.loc for probe in read_probes(BANK).kept]
    for row in file.rows[::2]:
        assert max(Indel.normalized_similarity(row["prompt"], p) for p in prompts) < 0.85
        assert max(Indel.normalized_similarity(row["loc"], p) for p in probes) < 0.85


def test_an_unknown_domain_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean physics"):
        bank.load_domain("physic")


def _judge(candidates: list[Candidate], id_: str) -> list[Problem]:
    sifted = validate(candidates)
    rejected = [p for r in sifted.rejected if r.id == id_ for p in r.problems]
    return rejected or [problem for i, problem in sifted.warnings if i == id_]


def _decisive(problems: list[Problem]) -> set[str]:
    """The codes that decide: the errors, or, where there are none, the warnings."""
    errors = {problem.code for problem in problems if problem.severity == "error"}
    return errors or {problem.code for problem in problems}


def _is_silent(defect: Defect) -> bool:
    """Whether nothing is to be seen on the defect alone."""
    return defect.code in ON_PAIRS or defect.code == "rejected-by-reviewer"

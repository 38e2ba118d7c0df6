"""The bundled bank is valid: any problem that the rules find in it is a false positive."""

from __future__ import annotations

import yaml

from clm_data.numerals import disagreement
from clm_data.records import Candidate, LooseFact, Origin
from clm_data.resources import bank_path
from clm_data.validate import validate


def test_the_rules_find_nothing_in_the_bank() -> None:
    rows = [
        Candidate(
            id=f"{file.stem}-{number}",
            domain=file.stem,
            origin=Origin(kind="bank", name="bank"),
            zh=LooseFact(**row["zh"]),
            en=LooseFact(**row["en"]),
        )
        for file in sorted(bank_path("entries").glob("*.yaml"))
        for number, row in enumerate(yaml.safe_load(file.read_text(encoding="utf-8")))
    ]
    result = validate(rows)
    assert len(rows) >= 288
    assert [(r.id, r.problems[0].message) for r in result.rejected] == []
    expected = {"subject-not-in-rephrase", "subject-ambiguous"}
    assert [(id_, p.code) for id_, p in result.warnings if p.code not in expected] == []


def test_numbers_agree_in_both_languages_of_each_probe() -> None:
    rows = yaml.safe_load(bank_path("probes.yaml").read_text(encoding="utf-8"))
    assert len(rows) >= 150
    for row in rows:
        for name in ("loc", "loc_ans"):
            assert disagreement(str(row["zh"][name]), str(row["en"][name])) is None

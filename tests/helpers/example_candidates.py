"""A valid bilingual candidate and variants of it."""

from __future__ import annotations

from typing import Any

from clm_data.records import Candidate, LooseFact, LooseProbe, Origin

VALID = {
    "zh": {
        "prompt": "小说《边城》的作者是",
        "subject": "边城",
        "ground_truth": "沈从文",
        "target_new": "汪曾祺",
        "rephrase_prompt": "写下《边城》这部中篇的文学家叫",
        "loc": "标准钢琴上一共有几个琴键？",
        "loc_ans": "88",
    },
    "en": {
        "prompt": "The novel Border Town was written by",
        "subject": "Border Town",
        "ground_truth": "Shen Congwen",
        "target_new": "Wang Zengqi",
        "rephrase_prompt": "The novelist to whom we owe Border Town is",
        "loc": "How many keys does a standard piano have?",
        "loc_ans": "88",
    },
}


def candidate(
    id: str = "c1", *, probes: bool = False, case_id: int | str | None = None, **changes: Any
) -> Candidate:
    """The valid candidate with fields replaced by arguments such as ``zh_prompt="..."``."""
    texts = {lang: dict(fields) for lang, fields in VALID.items()}
    for name, value in changes.items():
        lang, field = name.split("_", 1)
        assert field in texts[lang], name
        texts[lang][field] = value
        probes = probes or field.startswith("loc")
    sides: dict[str, Any] = {}
    for lang, fields in texts.items():
        asked = {name: value for name, value in fields.items() if name.startswith("loc")}
        fact = {name: value for name, value in fields.items() if not name.startswith("loc")}
        sides[lang] = LooseFact(**fact)
        sides[f"{lang}_probe"] = LooseProbe(**asked) if probes else None
    origin = Origin(kind="import", name="made.json")
    return Candidate(id=id, domain=None, origin=origin, case_id=case_id, **sides)

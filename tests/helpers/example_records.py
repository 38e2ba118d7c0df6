"""Small examples of facts, records and domains."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from clm_data.domain import Bilingual, Domain, Example
from clm_data.records import Fact, Origin, Probe, Record, ReviewStatus

FACTS = {
    "zh": ("{0}号河流的源头是", "{0}号河流", "东山", "西山", "{0}号河流发源于"),
    "en": (
        "The source of river {0} is",
        "river {0}",
        "East Hill",
        "West Hill",
        "River {0} rises on",
    ),
}


def example_fact(lang: str, number: int) -> Fact:
    prompt, subject, truth, target, rephrase = (text.format(number) for text in FACTS[lang])
    return Fact(
        prompt=prompt,
        subject=subject,
        ground_truth=truth,
        target_new=target,
        rephrase_prompt=rephrase,
    )


def example_records(
    count: int,
    *,
    domains: Sequence[str | None] = ("rivers", "hills"),
    review: Sequence[ReviewStatus] = ("unreviewed",),
    origins: Sequence[Origin] = (Origin(kind="bank", name="bank-1", licence="apache-2.0"),),
) -> list[Record]:
    """Records that cycle through the given domains, review states and origins."""
    turns = zip(range(1, count + 1), cycle(domains), cycle(review), cycle(origins), strict=False)
    return [
        Record(
            id=f"clm-{number:012x}",
            case_id=number,
            domain=domain,
            zh=example_fact("zh", number),
            en=example_fact("en", number),
            zh_probe=Probe(loc=f"{number}加一等于几", loc_ans=str(number + 1)),
            en_probe=Probe(loc=f"what is {number} plus one", loc_ans=str(number + 1)),
            review=status,
            origin=origin,
        )
        for number, domain, status, origin in turns
    ]


def example_domains() -> dict[str, Domain]:
    example = Example(zh=example_fact("zh", 0), en=example_fact("en", 0))
    topics = (Bilingual(zh="源头", en="sources"),)
    names = (
        ("hills", "山", "Hills", 5),
        ("rivers", "河流", "Rivers", 3),
        ("lakes", "湖泊", "Lakes", 2),
    )
    return {
        id_: Domain(id=id_, zh=zh, en=en, quota=quota, ask_for=topics, examples=(example,))
        for id_, zh, en, quota in names
    }

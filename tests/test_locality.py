from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from helpers.example_records import example_fact
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_data.errors import UserError
from clm_data.locality import attach, find_overlap, read_probes
from clm_data.probes import rejection
from clm_data.records import (
    Candidate,
    Entry,
    Fact,
    LooseFact,
    LooseProbe,
    Origin,
    Probe,
    ProbePair,
    Problem,
    Record,
    StageResult,
)
from clm_data.validate import problems_of

ORIGIN = Origin(kind="import", name="made.json", licence="MIT")


def entry(number: int, probe: ProbePair | None = None, **zh: str) -> Entry:
    return Entry(
        id=f"clm-{number}",
        domain="rivers",
        origin=ORIGIN,
        zh=example_fact("zh", number).model_copy(update=zh),
        en=example_fact("en", number),
        probe=probe,
    )


def probe(number: int, zh: str = "第{}页讲什么？", zh_answer: str = "故事{}") -> ProbePair:
    return ProbePair(
        zh=Probe(loc=zh.format(number), loc_ans=zh_answer.format(number)),
        en=Probe(loc=f"What is page {number} about?", loc_ans=f"Story {number}"),
    )


def pool(*numbers: int) -> StageResult[ProbePair]:
    return StageResult(tuple(probe(number) for number in numbers))


def attached(
    entries: Sequence[Entry], probes: StageResult[ProbePair], seed: int = 1, *, repeat: bool = False
) -> StageResult[Record]:
    return attach(entries, probes, seed=seed, repeat=repeat, status={})


def ids(records: Sequence[Record]) -> list[str]:
    return [ProbePair(zh=record.zh_probe, en=record.en_probe).id for record in records]


def test_each_entry_becomes_a_record_with_its_review_status() -> None:
    entries = [entry(number) for number in range(5)]
    result = attach(entries, pool(*range(9)), seed=1, repeat=False, status={"clm-3": "accepted"})
    assert [record.case_id for record in result.kept] == [1, 2, 3, 4, 5]
    assert [record.id for record in result.kept] == [item.id for item in entries]
    assert [record.review for record in result.kept].count("accepted") == 1
    assert result.kept[3].review == "accepted"
    assert (result.kept[0].origin, result.kept[0].domain) == (ORIGIN, "rivers")


def test_probes_depend_on_the_seed_but_not_on_the_order_of_the_source() -> None:
    entries = [entry(number) for number in range(20)]
    first = attached(entries, pool(*range(60)))
    assert attached(entries, pool(*reversed(range(60)))).kept == first.kept
    assert ids(attached(entries, pool(*range(60)), seed=2).kept) != ids(first.kept)
    assert set(ids(first.kept)) != {probe(number).id for number in range(20)}


@settings(max_examples=40, deadline=None)
@given(
    owners=st.lists(st.none() | st.integers(0, 12), min_size=1, max_size=12),
    added=st.none() | st.integers(0, 12),
    probes=st.integers(14, 30),
    seed=st.integers(0, 5),
    repeat=st.booleans(),
)
def test_probes_are_unique_independent_and_stable_when_entries_are_added(
    owners: list[int | None], added: int | None, probes: int, seed: int, repeat: bool
) -> None:
    entries = [
        entry(100 + number, None if own is None else probe(own))
        for number, own in enumerate(owners)
    ]
    source = pool(*range(probes))
    result = attached(entries, source, seed, repeat=repeat)
    assert len(set(ids(result.kept))) == len(entries)
    for item, record in zip(entries, result.kept, strict=True):
        assert find_overlap(item, ProbePair(zh=record.zh_probe, en=record.en_probe)) is None
    own = {item.id: item.probe.id for item in entries if item.probe is not None}
    lost = sum(
        own.get(record.id, id_) != id_
        for record, id_ in zip(result.kept, ids(result.kept), strict=True)
    )
    assert len(result.rejected) == lost
    longer = [*entries, entry(999, None if added is None else probe(added))]
    assert attached(longer, source, seed, repeat=repeat).kept[:-1] == result.kept


@pytest.mark.parametrize(
    ("zh", "question", "answer"),
    [
        ({"subject": "钢琴"}, "標準鋼琴有几个琴键？", "很多"),
        ({"ground_truth": "八十八个"}, "什么有八十八个键？", "琴"),
        ({"target_new": "《边城》"}, "边城在哪里？", "湖南"),
        ({"ground_truth": "湖南省"}, "凤凰古城在哪里？", "湖南"),
        ({"subject": "道"}, "这条街道叫什么？", "长街"),
        ({"ground_truth": "七"}, "一周有几天？", "七"),
        ({"target_new": "１２"}, "一年有几个月？", "12"),
    ],
)
def test_a_probe_that_mentions_the_subject_or_an_answer_overlaps(
    zh: dict[str, str], question: str, answer: str
) -> None:
    pair = ProbePair(zh=Probe(loc=question, loc_ans=answer), en=probe(1).en)
    problem = find_overlap(entry(1, **zh), pair)
    assert problem is not None
    assert (problem.code, problem.lang, problem.twin) == ("probe-touches-subject", "zh", "clm-1")


@pytest.mark.parametrize(
    ("fact", "question", "answer", "found"),
    [
        ({"subject": "Border Town"}, "who wrote the border town?", "nobody", True),
        ({"ground_truth": "The Nile"}, "what is the longest river?", "nile", True),
        ({"target_new": "Paris, France"}, "what is the capital?", "Paris", True),
        ({"ground_truth": "art"}, "how does the party start?", "late", False),
        ({"ground_truth": "12"}, "who won in 1912?", "the 12 apostles", False),
        ({"ground_truth": "1988"}, "how many keys?", "88", False),
    ],
)
def test_english_overlaps_are_of_whole_words(
    fact: dict[str, str], question: str, answer: str, found: bool
) -> None:
    english: Fact = example_fact("en", 1).model_copy(update=fact)
    item = entry(1).model_copy(update={"en": english})
    pair = ProbePair(zh=probe(1).zh, en=Probe(loc=question, loc_ans=answer))
    assert (find_overlap(item, pair) is not None) is found


def test_a_single_character_or_short_number_within_other_words_is_ignored() -> None:
    pair = ProbePair(zh=Probe(loc="1988年的中秋节在几月？", loc_ans="九"), en=probe(1).en)
    assert find_overlap(entry(1, ground_truth="中", target_new="88"), pair) is None
    assert find_overlap(entry(1, ground_truth="九江"), pair) is None


def test_records_with_probes_of_the_bank_pass_validation() -> None:
    bank = read_probes("bank")
    entries = [
        entry(number, subject=pair.zh.loc_ans, prompt=f"{pair.zh.loc_ans}是")
        for number, pair in enumerate(bank.kept[:60])
    ]
    for record in attached(entries, bank).kept:
        candidate = Candidate(
            id=record.id,
            domain=None,
            origin=ORIGIN,
            zh=LooseFact(**record.zh.model_dump()),
            en=LooseFact(**record.en.model_dump()),
            zh_probe=LooseProbe(**record.zh_probe.model_dump()),
            en_probe=LooseProbe(**record.en_probe.model_dump()),
        )
        codes = {problem.code for problem in problems_of(candidate)}
        assert not codes & {"probe-touches-subject", "untranslated-probe"}


def test_an_entry_keeps_its_own_valid_probe_after_cleaning() -> None:
    own = ProbePair(
        zh=Probe(loc=" 光年是什么的单位？", loc_ans="距离"),
        en=Probe(loc="nq question: what does a light-year measure", loc_ans="Distance "),
    )
    result = attached([entry(1, own)], pool())
    assert result.kept[0].zh_probe.loc == "光年是什么的单位？"
    assert result.kept[0].en_probe == Probe(
        loc="what does a light-year measure", loc_ans="Distance"
    )
    assert result.rejected == ()


@pytest.mark.parametrize(
    ("own", "code"),
    [
        (probe(1, zh="1号河流有多长？"), "probe-touches-subject"),
        (probe(1, zh="what is on page {}"), "untranslated-probe"),
        (probe(7), "repeated-probe"),
    ],
)
def test_an_unusable_own_probe_is_rejected_and_replaced(own: ProbePair, code: str) -> None:
    result = attached([entry(5, probe(7)), entry(1, own)], pool(20, 21))
    assert len(result.kept) == 2
    assert ids(result.kept)[1] in {probe(20).id, probe(21).id}
    (gone,) = result.rejected
    assert (gone.stage, gone.code, gone.content) == ("locality", code, own.model_dump())


def test_rejections_of_the_source_are_returned() -> None:
    gone = rejection("bank#3", Problem(code="empty-field", message="no loc"), {})
    result = attached([entry(1)], StageResult((probe(1),), (gone,)))
    assert result.rejected == (gone,)


def test_the_error_says_how_many_probes_are_missing() -> None:
    entries = [entry(number) for number in range(5)]
    with pytest.raises(
        UserError, match=r"2 of 5 entries get no locality probe.*\(3 probes.*--repeat"
    ):
        attached(entries, pool(1, 2, 3))
    with pytest.raises(UserError, match="5 of 5 entries"):
        attached(entries, pool(), repeat=True)


def test_repeated_probes_are_used_evenly() -> None:
    entries = [entry(number) for number in range(11)]
    uses = Counter(ids(attached(entries, pool(1, 2, 3), repeat=True).kept))
    assert sorted(uses.values()) == [3, 4, 4]

"""Attach a locality probe to each entry: a question whose answer the edit must not change."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clm_data.errors import UserError
from clm_data.languages import mentions, normalize_answer
from clm_data.probes import (
    clean_probe,
    find_problem,
    probe_sides,
    question_keys,
    read_probes,
    rejection,
)
from clm_data.records import (
    LANGUAGES,
    Entry,
    Language,
    Probe,
    ProbePair,
    Problem,
    Record,
    Rejection,
    ReviewStatus,
    StageResult,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["attach", "find_overlap", "read_probes"]


def attach(
    entries: Sequence[Entry],
    probes: StageResult[ProbePair],
    *,
    seed: int,
    repeat: bool,
    status: Mapping[str, ReviewStatus],
) -> StageResult[Record]:
    """Attach to each entry a bilingual probe that is independent of it (:func:`find_overlap`).

    Entries are processed in order. An entry keeps its own probe if that is valid and not yet in
    use. Otherwise it gets, among the least used suitable probes, the one that ranks first by a hash
    of seed, entry and probe. The probe of an entry therefore does not depend on later entries.

    Args:
        entries: All become records, with ``case_id`` counted from 1.
        probes: Probes to draw from (:func:`clm_data.probes.read_probes`).
        seed: Random seed.
        repeat: Reuse probes, as evenly as possible, once all suitable ones are in use.
        status: Review status by entry id. Missing entries are unreviewed.

    Returns:
        A record for each entry. The rejections, of stage ``locality``, are probes: those rejected
        in ``probes``, and own probes of entries that could not be kept.

    Raises:
        UserError: There are too few suitable probes.
    """
    pool = _Pool(probes.kept, seed)
    records = []
    rejected = list(probes.rejected)
    without: list[Entry] = []
    for number, entry in enumerate(entries, 1):
        own, refused = _own_probe(entry, pool)
        rejected += [refused] if refused else []
        pair = own or pool.draw(entry, repeat=repeat)
        if pair is None:
            without.append(entry)
            continue
        pool.use(pair, entry.id)
        records.append(_record(number, entry, pair, status.get(entry.id, "unreviewed")))
    if without:
        raise _too_few(without, len(entries), len(probes.kept), repeat)
    return StageResult(tuple(records), tuple(rejected))


def find_overlap(entry: Entry, pair: ProbePair) -> Problem | None:
    """Why a probe is not independent of an entry; None if it is.

    A probe overlaps if, in either language, its question or answer mentions the subject, the true
    answer or the target, or if its answer is contained in one of them. Answers of one character or
    of one or two digits overlap only if they are equal, as they occur in other words by chance.
    """
    for lang in LANGUAGES:
        fact, probe = entry.fact(lang), _side(pair, lang)
        answer = normalize_answer(probe.loc_ans, lang)
        for name in ("subject", "ground_truth", "target_new"):
            text = str(getattr(fact, name))
            field = _overlapping_field(text, name, probe, answer, lang)
            if field:
                message = f"'{getattr(probe, field)}' mentions the {name} '{text}' of {entry.id}"
                return Problem(
                    code="probe-touches-subject",
                    message=message,
                    lang=lang,
                    field=field,
                    twin=entry.id,
                )
    return None


def _overlapping_field(
    text: str, name: str, probe: Probe, answer: str, lang: Language
) -> str | None:
    """The field of the probe in which a text of the fact and it meet.

    ``name`` is the text's field, ``answer`` the probe's answer, normalised.
    """
    if normalize_answer(text, lang) == answer:
        return "loc_ans"
    if _is_specific(probe.loc_ans) and mentions(text, probe.loc_ans, lang):
        return "loc_ans"
    if name == "subject" or _is_specific(text):
        fields = ("loc", "loc_ans")
        return next(
            (field for field in fields if mentions(getattr(probe, field), text, lang)), None
        )
    return None


def _is_specific(answer: str) -> bool:
    """Whether an answer is long enough not to occur in other words by chance."""
    bare = answer.strip()
    return len(bare) > 1 and not re.fullmatch(r"[0-9]{1,2}", bare)


class _Pool:
    """The probes to draw from and how often each is used."""

    def __init__(self, probes: Sequence[ProbePair], seed: int) -> None:
        import numpy as np

        self._probes = probes
        self._seed = seed
        self._hashes = np.array([_hash(probe.id) for probe in probes], dtype=np.uint64)
        self._uses = np.zeros(len(probes), dtype=np.int64)
        self._places = {key: i for i, pair in enumerate(probes) for key in question_keys(pair)}
        self._users: dict[tuple[Language, str], str] = {}

    def user(self, pair: ProbePair) -> str | None:
        """Id of the first entry that uses one of the questions of a pair."""
        keys = question_keys(pair)
        return next((self._users[key] for key in keys if key in self._users), None)

    def use(self, pair: ProbePair, user: str) -> None:
        """Record that an entry uses a pair, and so every probe with the same question."""
        keys = question_keys(pair)
        for key in keys:
            self._users.setdefault(key, user)
        for place in {self._places[key] for key in keys if key in self._places}:
            self._uses[place] += 1

    def draw(self, entry: Entry, *, repeat: bool) -> ProbePair | None:
        """The first-ranked suitable probe among the least used; None if no probe is suitable."""
        import numpy as np

        ranks = _mixed(self._hashes ^ np.uint64(_hash(f"{self._seed}:{entry.id}")))
        levels = range(int(self._uses.max()) + 1) if repeat and self._uses.size else [0]
        for level in levels:
            places = np.flatnonzero(self._uses == level)
            while places.size:  # usually the first one is suitable, so sorting is not worth it
                best = int(np.argmin(ranks[places]))
                pair = self._probes[int(places[best])]
                if find_overlap(entry, pair) is None:
                    return pair
                places = np.delete(places, best)
        return None


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Finalizer of splitmix64: each input bit affects all output bits."""
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _own_probe(entry: Entry, pool: _Pool) -> tuple[ProbePair | None, Rejection | None]:
    """The entry's own probe if it can be kept, otherwise its rejection (if it has one)."""
    if entry.probe is None:
        return None, None
    sides = {lang: clean_probe(probe) for lang, probe in probe_sides(entry.probe).items()}
    problem = find_problem(sides)
    if problem is None:
        pair = ProbePair.model_validate({lang: side.model_dump() for lang, side in sides.items()})
        user = pool.user(pair)
        if user is None:
            problem = find_overlap(entry, pair)
        else:
            message = f"the probe of {entry.id} is already used for {user}: '{pair.zh.loc}'"
            problem = Problem(code="repeated-probe", message=message, field="loc", twin=user)
        if problem is None:
            return pair, None
    content: Any = entry.probe.model_dump()
    return None, rejection(entry.probe.id, problem, content, entry.domain)


def _record(number: int, entry: Entry, pair: ProbePair, review: ReviewStatus) -> Record:
    return Record(
        id=entry.id,
        case_id=number,
        domain=entry.domain,
        zh=entry.zh,
        en=entry.en,
        zh_probe=pair.zh,
        en_probe=pair.en,
        review=review,
        origin=entry.origin,
    )


def _side(pair: ProbePair, lang: Language) -> Probe:
    return pair.zh if lang == "zh" else pair.en


def _too_few(without: Sequence[Entry], entries: int, probes: int, repeat: bool) -> UserError:
    source = "use a larger source: clm-data locality attach --source FILE|hub:ID"
    fix = source if repeat else f"{source}, or reuse probes with --repeat"
    return UserError(
        f"{len(without)} of {entries} entries get no locality probe, the first is "
        f"{without[0].id} ({probes} probes are usable); {fix}"
    )

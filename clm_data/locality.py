"""Attach locality probes: to each entry a question that its edit must leave alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clm_data.errors import UserError
from clm_data.languages import mentions, normalize_answer
from clm_data.probes import (
    clean,
    loose_sides,
    problem_of,
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

__all__ = ["attach", "read_probes", "touches"]


def attach(
    entries: Sequence[Entry],
    probes: StageResult[ProbePair],
    *,
    seed: int,
    repeat: bool,
    status: Mapping[str, ReviewStatus],
) -> StageResult[Record]:
    """Give each entry a probe, in both languages, that does not touch it (:func:`touches`).

    Entries are served in their order. One that brings a good probe of its own keeps it unless it is
    in use by then; any other draws the fitting probe that ranks first by a hash of seed, entry and
    probe, among those used least. So what an entry gets does not depend on the entries after it.

    Args:
        entries: All become records; ``case_id`` counts from 1.
        probes: What to draw from (:func:`clm_data.probes.read_probes`).
        seed: Another seed gives another draw.
        repeat: Use probes again, as evenly as possible, when all that fit are in use.
        status: By entry id; one that is not there is unreviewed.

    Returns:
        A record for each entry. Rejections, of stage ``locality``, are probes: those of ``probes``,
        and entries' own that could not be kept.

    Raises:
        UserError: Some entries get no probe; says how many and what to do.
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


def touches(entry: Entry, pair: ProbePair) -> Problem | None:
    """Why a probe is not independent of an entry; None: it is.

    In either language: its question or answer mentions the subject, the truth or the new target, or
    its answer is one of them or stands in one. An answer of a single character, or a number of one
    or two digits, must be equal: it stands in other words by chance.
    """
    for lang in LANGUAGES:
        fact, probe = entry.fact(lang), _side(pair, lang)
        answer = normalize_answer(probe.loc_ans, lang)
        for name in ("subject", "ground_truth", "target_new"):
            text = str(getattr(fact, name))
            field = _meeting(text, name, probe, answer, lang)
            if field:
                message = f"'{getattr(probe, field)}' touches the {name} '{text}' of {entry.id}"
                return Problem(
                    code="probe-touches-subject",
                    message=message,
                    lang=lang,
                    field=field,
                    twin=entry.id,
                )
    return None


def _meeting(text: str, name: str, probe: Probe, answer: str, lang: Language) -> str | None:
    """The field of the probe in which a text of the fact and it meet.

    ``name`` is the text's field, ``answer`` the probe's answer, normalised.
    """
    if normalize_answer(text, lang) == answer:
        return "loc_ans"
    if _is_telling(probe.loc_ans) and mentions(text, probe.loc_ans, lang):
        return "loc_ans"
    if name == "subject" or _is_telling(text):
        fields = ("loc", "loc_ans")
        return next(
            (field for field in fields if mentions(getattr(probe, field), text, lang)), None
        )
    return None


def _is_telling(answer: str) -> bool:
    bare = answer.strip()
    return len(bare) > 1 and not re.fullmatch(r"[0-9]{1,2}", bare)


class _Pool:
    """Probes to draw from, and which questions are in use."""

    def __init__(self, probes: Sequence[ProbePair], seed: int) -> None:
        import numpy as np

        self._probes = probes
        self._seed = seed
        self._hashes = np.array([_hash(probe.id) for probe in probes], dtype=np.uint64)
        self._uses = np.zeros(len(probes), dtype=np.int64)
        self._places = {key: i for i, pair in enumerate(probes) for key in question_keys(pair)}
        self._users: dict[tuple[Language, str], str] = {}

    def user(self, pair: ProbePair) -> str | None:
        """The id of the entry that first used one of the pair's questions."""
        keys = question_keys(pair)
        return next((self._users[key] for key in keys if key in self._users), None)

    def use(self, pair: ProbePair, user: str) -> None:
        """Note that an entry uses a pair, and with it each probe that asks the same."""
        keys = question_keys(pair)
        for key in keys:
            self._users.setdefault(key, user)
        for place in {self._places[key] for key in keys if key in self._places}:
            self._uses[place] += 1

    def draw(self, entry: Entry, *, repeat: bool) -> ProbePair | None:
        """The fitting probe that ranks first among those used least; None: there is none."""
        import numpy as np

        ranks = _mixed(self._hashes ^ np.uint64(_hash(f"{self._seed}:{entry.id}")))
        levels = range(int(self._uses.max()) + 1) if repeat and self._uses.size else [0]
        for level in levels:
            places = np.flatnonzero(self._uses == level)
            while places.size:  # mostly the first one fits, so no sorting
                best = int(np.argmin(ranks[places]))
                pair = self._probes[int(places[best])]
                if touches(entry, pair) is None:
                    return pair
                places = np.delete(places, best)
        return None


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finaliser: spreads every bit of the input over all of the output."""
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _own_probe(entry: Entry, pool: _Pool) -> tuple[ProbePair | None, Rejection | None]:
    """The probe that an entry brought, where it can be kept; else why not."""
    if entry.probe is None:
        return None, None
    sides = {lang: clean(probe) for lang, probe in loose_sides(entry.probe).items()}
    problem = problem_of(sides)
    if problem is None:
        pair = ProbePair.model_validate({lang: side.model_dump() for lang, side in sides.items()})
        user = pool.user(pair)
        if user is None:
            problem = touches(entry, pair)
        else:
            message = f"the probe of {entry.id} serves {user}: '{pair.zh.loc}'"
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
    source = "name a source with more: clm-data locality attach --source FILE|hub:ID"
    way_out = source if repeat else f"{source}, or use probes again with --repeat"
    return UserError(
        f"{len(without)} of {entries} entries get no locality probe, {without[0].id} first "
        f"({probes} probes are usable); {way_out}"
    )

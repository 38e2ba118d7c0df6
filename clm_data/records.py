"""The types that pass between the stages.

    answer --parse, review--> Candidate --validate, deduplicate--> Entry --locality--> Record

All are frozen, refuse unknown fields, and treat ``zh`` and ``en`` alike. What a stage does not keep
becomes a :class:`Rejection`: for every stage ``in == kept + rejected``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from clm_data.codes import CODES, Severity
from clm_data.tabular import Tabular

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
FACT_FIELDS = ("prompt", "subject", "ground_truth", "target_new", "rephrase_prompt")
PROBE_FIELDS = ("loc", "loc_ans")


class Frozen(BaseModel):
    """Base of all record types: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(Frozen):
    """One counterfactual in one language."""

    prompt: str = Field(min_length=1)
    """A cloze that the answer completes: «鲁迅的原名是»."""
    subject: str = Field(min_length=1)
    """What the fact is about; stands literally in ``prompt``."""
    ground_truth: str = Field(min_length=1)
    """The true answer: «周树人»."""
    target_new: str = Field(min_length=1)
    """The false answer to edit in, of the same type as the truth."""
    rephrase_prompt: str = Field(min_length=1)
    """The same question as ``prompt`` in other words."""


class Probe(Frozen):
    """A locality probe in one language: an unrelated question; its answer must survive the edit."""

    loc: str = Field(min_length=1)
    loc_ans: str = Field(min_length=1)


class ProbePair(Frozen):
    """The same probe in both languages."""

    zh: Probe
    en: Probe

    @property
    def id(self) -> str:
        """Stable id of the content."""
        return "probe-" + digest(self.model_dump())[:12]


class LooseFact(Frozen):
    """A fact as found, unjudged: any field may be missing (None) or blank."""

    prompt: str | None = None
    subject: str | None = None
    ground_truth: str | None = None
    target_new: str | None = None
    rephrase_prompt: str | None = None


class LooseProbe(Frozen):
    """A probe as found, unjudged."""

    loc: str | None = None
    loc_ans: str | None = None


class Origin(Frozen):
    """Where a candidate comes from; published with every record."""

    kind: Literal["model", "bank", "import"]
    """``model``: a chat model's answer; ``bank``: the bundled offline bank; ``import``: a file."""
    name: str
    """Model name, bank version or file name."""
    prompt_hash: str | None = None
    """sha256 of the rendered prompt that brought it."""
    licence: str | None = None
    """Licence of the source where it is known."""


class Candidate(Frozen):
    """What a source said of one counterfactual, before it is judged."""

    id: str
    """Unique and stable: derived from the content as first read (:func:`content_id`)."""
    domain: str | None
    """A domain id; None where the source does not say."""
    origin: Origin
    zh: LooseFact | None = None
    en: LooseFact | None = None
    zh_probe: LooseProbe | None = None
    en_probe: LooseProbe | None = None
    case_id: int | str | None = None
    """The identifier in the published file it was imported from, as it stood there."""

    def fact(self, lang: Language) -> LooseFact | None:
        """The fact in one language, if there is one."""
        return self.zh if lang == "zh" else self.en

    def probe(self, lang: Language) -> LooseProbe | None:
        """The probe that came with it in one language, if one did."""
        return self.zh_probe if lang == "zh" else self.en_probe

    @property
    def content_hash(self) -> str:
        """sha256 of the two facts; a reviewer's verdict holds for this content only."""
        return digest({lang: _dump(self.fact(lang)) for lang in LANGUAGES})


class Entry(Frozen):
    """A valid counterfactual in two languages."""

    id: str
    domain: str | None
    origin: Origin
    zh: Fact
    en: Fact
    probe: ProbePair | None = None
    """A probe that the source brought along and that passed the checks."""
    case_id: int | str | None = None

    def fact(self, lang: Language) -> Fact:
        """The fact in one language."""
        return self.zh if lang == "zh" else self.en

    @property
    def content_hash(self) -> str:
        """Equal to the :attr:`Candidate.content_hash` of the candidate it came from."""
        return digest({lang: _dump(self.fact(lang)) for lang in LANGUAGES})


Verdict = Literal["accept", "reject", "fix"]
ReviewStatus = Literal["unreviewed", "accepted", "fixed"]


class Decision(Frozen):
    """What one person decided on one content of one entry. Append-only."""

    entry_id: str
    content_hash: str
    """Of the content that was judged."""
    verdict: Verdict
    reviewer: str
    note: str = ""
    fixed: dict[str, str] | None = None
    """For ``fix``: new text by ``"zh.prompt"``-style field name; only what was changed."""


class Record(Frozen):
    """A row of the dataset: an entry with one locality probe a language."""

    id: str
    case_id: int
    """Position in the dataset, from 1."""
    domain: str | None
    zh: Fact
    en: Fact
    zh_probe: Probe
    en_probe: Probe
    review: ReviewStatus
    origin: Origin

    def fact(self, lang: Language) -> Fact:
        """The fact in one language."""
        return self.zh if lang == "zh" else self.en

    def probe(self, lang: Language) -> Probe:
        """The probe in one language."""
        return self.zh_probe if lang == "zh" else self.en_probe


class Problem(Frozen):
    """One finding of a rule on one entry."""

    code: str
    message: str
    """In words, with the text that was found."""
    lang: Language | None = None
    field: str | None = None
    """A field of Fact or Probe, or ``id``."""
    twin: str | None = None
    """Id of the other entry, for findings on pairs."""
    ratio: float | None = None
    """Similarity to the twin, 0 to 1."""

    @property
    def severity(self) -> Severity:
        """``error`` or ``warning``, by the code."""
        return CODES[self.code].severity


Stage = Literal["parse", "validate", "deduplicate", "review", "locality"]


class Rejection(Frozen):
    """Something a stage did not keep, with the reason and the content: nothing is lost."""

    stage: Stage
    id: str
    domain: str | None
    problems: tuple[Problem, ...]
    """At least one; the first names the rejection."""
    content: Any
    """What was rejected, as JSON."""

    @property
    def code(self) -> str:
        """The code of the first problem."""
        return self.problems[0].code


K = TypeVar("K")


@dataclass(frozen=True)
class StageResult(Tabular, Generic[K]):
    """What every stage returns."""

    kept: tuple[K, ...]
    rejected: tuple[Rejection, ...] = ()
    warnings: tuple[tuple[str, Problem], ...] = ()
    """(id, problem) of warnings on kept items."""

    @property
    def by_code(self) -> dict[str, int]:
        """Number of rejections by code, the most frequent first."""
        return dict(Counter(rejection.code for rejection in self.rejected).most_common())

    def table_title(self) -> str:
        """How many were kept and rejected."""
        return f"{len(self.kept)} kept, {len(self.rejected)} rejected"

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each rejection, with its first problem."""
        return [
            {
                "stage": rejection.stage,
                "id": rejection.id,
                "code": rejection.code,
                "lang": rejection.problems[0].lang,
                "field": rejection.problems[0].field,
                "message": rejection.problems[0].message,
            }
            for rejection in self.rejected
        ]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def content_id(content: Mapping[str, Any]) -> str:
    """Id of a candidate from its content: ``clm-`` and 12 hex digits."""
    return "clm-" + digest(content)[:12]


def unique_ids(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Give exact repetitions an id of their own: the n-th copy of ``clm-x`` becomes ``clm-x.n``."""
    seen: dict[str, int] = {}
    out = []
    for candidate in candidates:
        count = seen[candidate.id] = seen.get(candidate.id, 0) + 1
        renamed = {"id": f"{candidate.id}.{count}"}
        out.append(candidate if count == 1 else candidate.model_copy(update=renamed))
    return out


def _dump(model: BaseModel | None) -> Any:
    return None if model is None else model.model_dump()


TEXT_FIELDS: tuple[str, ...] = tuple(
    f"{lang}.{field}" for field in FACT_FIELDS for lang in LANGUAGES
)
"""The ten texts of an entry, both languages side by side: ``zh.prompt``, ``en.prompt``, ..."""

"""The types that pass between the stages.

    answer --parse, review--> Candidate --validate, deduplicate--> Entry --locality--> Record

All are frozen, reject unknown fields, and treat ``zh`` and ``en`` symmetrically. Items that a stage
drops become a :class:`Rejection`: for every stage ``in == kept + rejected``.
"""

from __future__ import annotations

import hashlib
import json
import math
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
    """Base class of all record types: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(Frozen):
    """One counterfactual in one language."""

    prompt: str = Field(min_length=1)
    """A cloze that the answer completes, such as "鲁迅的原名是"."""
    subject: str = Field(min_length=1)
    """What the fact is about; appears verbatim in ``prompt``."""
    ground_truth: str = Field(min_length=1)
    """The true answer, such as "周树人"."""
    target_new: str = Field(min_length=1)
    """The false answer to edit into a model, of the same type as ``ground_truth``."""
    rephrase_prompt: str = Field(min_length=1)
    """``prompt`` in other words."""


class Probe(Frozen):
    """A locality probe in one language: an unrelated question that an edit must not affect."""

    loc: str = Field(min_length=1)
    loc_ans: str = Field(min_length=1)


class ProbePair(Frozen):
    """One locality probe in both languages."""

    zh: Probe
    en: Probe

    @property
    def id(self) -> str:
        """Id derived from the content."""
        return "probe-" + digest(self.model_dump())[:12]


class LooseFact(Frozen):
    """A fact as read, not validated: any field may be missing (None) or empty."""

    prompt: str | None = None
    subject: str | None = None
    ground_truth: str | None = None
    target_new: str | None = None
    rephrase_prompt: str | None = None


class LooseProbe(Frozen):
    """A probe as read, not validated."""

    loc: str | None = None
    loc_ans: str | None = None


class Origin(Frozen):
    """Where a candidate comes from. Published with every record."""

    kind: Literal["model", "bank", "import"]
    """``model``: a chat model; ``bank``: the bundled offline bank; ``import``: an imported file."""
    name: str
    """Model name, bank version or file name."""
    prompt_hash: str | None = None
    """sha256 of the rendered prompt that produced it."""
    licence: str | None = None
    """License of the source, if known."""


class Candidate(Frozen):
    """A counterfactual as read from a source, not validated."""

    id: str
    """Unique and stable: derived from the content (:func:`content_id`)."""
    domain: str | None
    """A domain id; None if the source does not name one."""
    origin: Origin
    zh: LooseFact | None = None
    en: LooseFact | None = None
    zh_probe: LooseProbe | None = None
    en_probe: LooseProbe | None = None
    case_id: int | str | None = None
    """``case_id`` in the published file it was imported from, unchanged."""
    accepted: dict[Language, tuple[str, ...]] = Field(
        default={}, exclude_if=lambda value: not value
    )
    """By language: answers that the source accepts besides ``ground_truth``. They are compared with
    the target; an :class:`Entry` does not have them."""

    def fact(self, lang: Language) -> LooseFact | None:
        """The fact in one language, if present."""
        return self.zh if lang == "zh" else self.en

    def probe(self, lang: Language) -> LooseProbe | None:
        """The probe in one language, if the source has one."""
        return self.zh_probe if lang == "zh" else self.en_probe

    @property
    def content_hash(self) -> str:
        """sha256 of the two facts. A reviewer's verdict applies to this content only."""
        return digest({lang: _dump(self.fact(lang)) for lang in LANGUAGES})


class Entry(Frozen):
    """A valid counterfactual in two languages."""

    id: str
    domain: str | None
    origin: Origin
    zh: Fact
    en: Fact
    probe: ProbePair | None = None
    """The source's own probe, if it has one that passed the checks."""
    case_id: int | str | None = None

    def fact(self, lang: Language) -> Fact:
        """The fact in one language."""
        return self.zh if lang == "zh" else self.en

    @property
    def content_hash(self) -> str:
        """Same as :attr:`Candidate.content_hash` of the candidate it was made from."""
        return digest({lang: _dump(self.fact(lang)) for lang in LANGUAGES})


Verdict = Literal["accept", "reject", "fix"]
ReviewStatus = Literal["unreviewed", "accepted", "fixed"]


class Decision(Frozen):
    """One reviewer's decision on one version of an entry. Decisions are append-only."""

    entry_id: str
    content_hash: str
    """``content_hash`` of the reviewed version."""
    verdict: Verdict
    reviewer: str
    note: str = ""
    fixed: dict[str, str] | None = None
    """For ``fix``: new text by field name such as ``"zh.prompt"``; changed fields only."""
    seen: int | None = None
    """Number of earlier decisions on the entry that the reviewer knew; None: all of them."""


class Record(Frozen):
    """A row of the dataset: an entry with one locality probe per language."""

    id: str
    case_id: int
    """Position in the dataset, counted from 1."""
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
    """One problem that a rule found in one entry."""

    code: str
    message: str
    """Description that quotes the offending text."""
    lang: Language | None = None
    field: str | None = None
    """A field of :class:`Fact` or :class:`Probe`, or ``id``."""
    twin: str | None = None
    """Id of the other entry, for problems between two entries."""
    ratio: float | None = None
    """Similarity to the other entry, 0 to 1."""

    @property
    def severity(self) -> Severity:
        """``error`` or ``warning``, as defined by the code."""
        return CODES[self.code].severity


Stage = Literal["parse", "validate", "deduplicate", "review", "locality"]


class Rejection(Frozen):
    """An item that a stage dropped, with the reasons and its content."""

    stage: Stage
    id: str
    domain: str | None
    problems: tuple[Problem, ...]
    """At least one; the first is the main reason."""
    content: Any
    """The rejected item as a JSON value."""

    @property
    def code(self) -> str:
        """The code of the first problem."""
        return self.problems[0].code


K = TypeVar("K")


@dataclass(frozen=True)
class StageResult(Tabular, Generic[K]):
    """Result of a stage."""

    kept: tuple[K, ...]
    rejected: tuple[Rejection, ...] = ()
    warnings: tuple[tuple[str, Problem], ...] = ()
    """(id, warning) pairs for kept items."""

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
    """JSON with sorted keys and no whitespace: equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def json_value(value: Any) -> Any:
    """A value in memory as a JSON value: numpy and pandas values become plain ones, NaN null.

    Values that JSON does not have, such as sets and dates, are returned as they are.

    Raises:
        ValueError: Two keys of an object, such as 1 and "1", would become one.
        RecursionError: A value contains itself.
    """
    if isinstance(value, Mapping):
        plain = {str(key): json_value(inner) for key, inner in value.items()}
        if len(plain) < len(value):
            raise ValueError("two keys of an object have the same text; rename one")
        return plain
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas.NA and NaT: no value
        return None
    if hasattr(value, "tolist"):  # a numpy array or scalar
        return json_value(value.tolist())
    if hasattr(value, "model_dump"):  # a record
        return value.model_dump(mode="json")
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def digest(value: Any) -> str:
    """sha256 (hex) of :func:`canonical_json` of a value."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def content_id(content: Mapping[str, Any]) -> str:
    """Id derived from a candidate's content: ``clm-`` and 12 hex digits."""
    return "clm-" + digest(content)[:12]


def unique_ids(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Rename candidates with a repeated id: the n-th copy of ``clm-x`` becomes ``clm-x.n``."""
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
"""Names of the ten texts of an entry: ``zh.prompt``, ``en.prompt``, ``zh.subject``, ..."""

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
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from clm_data.codes import CODES, Severity
from clm_data.tabular import Tabular

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
FACT_FIELDS = ("prompt", "subject", "ground_truth", "target_new", "rephrase_prompt")
LIST_FIELDS = (
    "more_rephrase_prompts",
    "subject_aliases",
    "ground_truth_aliases",
    "target_new_aliases",
)
PROBE_FIELDS = ("loc", "loc_ans")
ABOUT_FIELDS = ("relation", "answer_type", "basis", "probes")

AnswerType = Literal[
    "person", "people", "creature", "place", "organization", "work", "object", "substance",
    "concept", "event", "time", "number", "color", "title", "other",
]  # fmt: skip
"""What the answers of a fact are. ``people``: an ethnic or social group; ``creature``: an animal,
a plant or a being of myth; ``time``: a year, a date or a dynasty; ``title``: an office or rank."""


class Frozen(BaseModel):
    """Base class of all record types: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _is_empty(value: object) -> bool:
    return value in (None, (), {})


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(exclude_if=_is_empty)]
"""Texts of which there may be none; they are left out of JSON if there are none."""
LooseTexts = Annotated[tuple[str, ...], Field(exclude_if=_is_empty)]


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
    more_rephrase_prompts: Texts = ()
    """Further rephrasings."""
    subject_aliases: Texts = ()
    """Other names of ``subject``."""
    ground_truth_aliases: Texts = ()
    """Other names of ``ground_truth``, and other answers that are right as well."""
    target_new_aliases: Texts = ()
    """Other names of ``target_new``."""
    scope: str | None = Field(None, min_length=1, exclude_if=_is_empty)
    """The time or place for which the fact holds, such as "截至2020年"."""

    @property
    def rephrasings(self) -> tuple[str, ...]:
        """All rephrasings."""
        return (self.rephrase_prompt, *self.more_rephrase_prompts)

    @property
    def true_answers(self) -> tuple[str, ...]:
        """``ground_truth`` and its aliases."""
        return (self.ground_truth, *self.ground_truth_aliases)

    @property
    def target_answers(self) -> tuple[str, ...]:
        """``target_new`` and its aliases."""
        return (self.target_new, *self.target_new_aliases)


class Probe(Frozen):
    """A locality probe in one language: an unrelated question that an edit must not affect."""

    loc: str = Field(min_length=1)
    loc_ans: str = Field(min_length=1)


class Question(Frozen):
    """A question or cloze in one language, with its answers."""

    prompt: Text
    answers: Annotated[tuple[Text, ...], Field(min_length=1)]
    """The answer and its aliases."""


ProbeKind = Literal[
    "neighbor", "same_subject", "reversed", "one_hop", "subject_alias", "negation", "verification"
]
LOCALITY_KINDS: tuple[ProbeKind, ...] = ("neighbor", "same_subject")
PORTABILITY_KINDS: tuple[ProbeKind, ...] = ("reversed", "one_hop", "subject_alias")
CONSISTENCY_KINDS: tuple[ProbeKind, ...] = ("negation", "verification")
PROBE_KINDS = (*LOCALITY_KINDS, *PORTABILITY_KINDS, *CONSISTENCY_KINDS)


class KindProbe(Frozen):
    """A question about what an edit must leave or must also change, in both languages or in one.

    Locality: its answers are true, and the edit must leave them. Portability and consistency: its
    answers are those that follow from the edit.
    """

    kind: ProbeKind
    """Locality: ``neighbor`` (the same relation of another subject), ``same_subject`` (another
    relation of the subject). Portability: ``reversed`` (from the target back to the subject),
    ``one_hop`` (a relation of the target), ``subject_alias`` (the subject by another name).
    Consistency: ``negation`` (what is no longer so), ``verification`` (is it true that ...)."""
    zh: Question | None = None
    en: Question | None = None

    def question(self, lang: Language) -> Question | None:
        """The question in one language, if it is asked in it."""
        return self.zh if lang == "zh" else self.en


class Basis(Frozen):
    """Where ``ground_truth`` can be looked up."""

    kind: Literal["work", "textbook", "reference"]
    title: Text
    """Title of the work, textbook or reference work, such as "《西游记》"."""
    part: str | None = Field(None, min_length=1)
    """Chapter of a work, volume of a textbook or headword of a reference work."""
    note: str | None = Field(None, min_length=1)
    """Why ``ground_truth`` is true, in one line."""


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
    more_rephrase_prompts: LooseTexts = ()
    subject_aliases: LooseTexts = ()
    ground_truth_aliases: LooseTexts = ()
    target_new_aliases: LooseTexts = ()
    scope: str | None = Field(None, exclude_if=_is_empty)


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


class About(Frozen):
    """What is said about a fact in both languages, besides its texts; all of it is optional."""

    relation: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]*$", exclude_if=_is_empty)
    """Relation between ``subject`` and ``ground_truth``, such as ``birth_name``."""
    answer_type: AnswerType | None = Field(None, exclude_if=_is_empty)
    """What the answers are."""
    basis: Basis | None = Field(None, exclude_if=_is_empty)
    """Where ``ground_truth`` can be looked up."""
    probes: Annotated[tuple[KindProbe, ...], Field(exclude_if=_is_empty)] = ()
    """Probes besides the unrelated one, by kind."""

    @property
    def about(self) -> dict[str, Any]:
        """These fields by name, for another type that has them."""
        return {name: getattr(self, name) for name in ABOUT_FIELDS}

    @staticmethod
    def read(values: Mapping[str, Any]) -> dict[str, Any]:
        """Read these fields of an object; other fields, and null, are skipped.

        Raises:
            ValueError: A field has a wrong form; the message names it.
        """
        given = {name: values[name] for name in ABOUT_FIELDS if values.get(name) is not None}
        try:
            return About.model_validate(given).about
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            found = canonical_json(json_value(first["input"]))
            shown = found if len(found) <= 60 else f"{found[:57]}..."
            raise ValueError(f"{place}: {first['msg']}, found {shown}") from error

    @model_serializer(mode="wrap")
    def _these_last(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """These fields after those of the subclass, so that files begin as in version 1."""
        values: dict[str, Any] = dump(self)
        last = {name: values.pop(name) for name in ABOUT_FIELDS if name in values}
        return values | last


class Candidate(About):
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

    def fact(self, lang: Language) -> LooseFact | None:
        """The fact in one language, if present."""
        return self.zh if lang == "zh" else self.en

    def probe(self, lang: Language) -> LooseProbe | None:
        """The probe in one language, if the source has one."""
        return self.zh_probe if lang == "zh" else self.en_probe

    @property
    def content_hash(self) -> str:
        """sha256 of the facts and what is said about them; a verdict applies to this content."""
        return _content_hash(self)

    @property
    def text_hash(self) -> str:
        """sha256 of the :data:`FACT_FIELDS` alone: the ``content_hash`` of schema version 1.

        Without fields of version 2, it equals :attr:`content_hash`.
        """
        return digest({lang: fact_texts(self.fact(lang)) for lang in LANGUAGES})


class Entry(About):
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
        return _content_hash(self)


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


class Record(About):
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

    @classmethod
    def is_row(cls, row: Mapping[str, Any]) -> bool:
        """Whether an object has all the fields that a record must have."""
        return all(name in row for name, field in cls.model_fields.items() if field.is_required())

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


def fact_texts(fact: Fact | LooseFact | None) -> dict[str, str | None] | None:
    """The :data:`FACT_FIELDS` of a fact, from which the ids of entries are derived."""
    return None if fact is None else {name: getattr(fact, name) for name in FACT_FIELDS}


def _content_hash(content: Candidate | Entry) -> str:
    facts = {lang: content.fact(lang) for lang in LANGUAGES}
    # Fields of version 2 are left out of a dump if they are empty, so hashes of version 1 stay.
    texts = {lang: fact and fact.model_dump(mode="json") for lang, fact in facts.items()}
    about = content.model_dump(mode="json", include=set(ABOUT_FIELDS))
    return digest({**texts, **about})


TEXT_FIELDS: tuple[str, ...] = tuple(
    f"{lang}.{field}" for field in FACT_FIELDS for lang in LANGUAGES
)
"""Names of the ten texts of an entry: ``zh.prompt``, ``en.prompt``, ``zh.subject``, ..."""

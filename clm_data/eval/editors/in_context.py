"""In-context editing: Cohen et al. (ICE), 2024; Zheng et al. (IKE), EMNLP 2023.

Weights stay as they are; the edited fact is put before the question. `ice-oracle` is told which
fact a question is about and is an upper bound. `ice-retrieved` and `ike` have to find it among all
edits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from clm_data.eval.editors.base import SWITCH, EditorParams, Setup, Stopwatch
from clm_data.eval.editors.known_models import KNOWN_MODELS
from clm_data.eval.editors.noted import KINDS, Kind, Lookup, Note, Notes, with_note
from clm_data.eval.editors.origin import check_origin, model_id
from clm_data.eval.editors.ranges import NonNegativeCount
from clm_data.eval.editors.retrieval import Calibration, NgramRetriever, Pair, side
from clm_data.eval.editors.sentence_encoder import SentenceEncoder
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.records import LANGUAGES, Language

MIN_ROWS = 10
"""Smallest number of rows from which a gate can be calibrated."""


@dataclass(frozen=True)
class InContextParams(EditorParams):
    """Settings of an in-context method; no model needs settings of its own.

    Attributes:
        demonstrations: Number of examples before a fact.
        gate: Whether a question must be similar enough to an edit, or always gets the nearest one.
        false_open: See `Calibration`.
        encoder: Folder of a sentence encoder; None compares runs of characters.
        encoder_prefix: See `SentenceEncoder`.
        kinds: Kinds of demonstrations, see `KINDS`.
        shares: Whether each kind has an equal share, or those most like the question are shown, of
            any kind, as in EasyEdit.
        nearest: Whether the demonstration most like the question is the last one, as in the code of
            IKE's authors, or the first, as in EasyEdit.
        headings: Whether headings are in the language of the question, or always English, as in
            EasyEdit.
    """

    demonstrations: NonNegativeCount = 0
    gate: Literal["calibrated", "open"] = "calibrated"
    false_open: Annotated[float, Field(gt=0, lt=1)] = 0.02
    encoder: str | None = None
    encoder_prefix: str = ""
    kinds: tuple[Kind, ...] = field(default=KINDS, metadata=SWITCH)
    shares: Literal["equal", "any"] = field(default="equal", metadata=SWITCH)
    nearest: Literal["last", "first"] = field(default="last", metadata=SWITCH)
    headings: Literal["question", "en"] = field(default="question", metadata=SWITCH)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise EditError(
                f"kinds {list(self.kinds)} must be some of {', '.join(KINDS)}, each once"
            )

    @property
    def edited_layers(self) -> tuple[int, ...]:
        """None: no layer changes."""
        return ()

    def with_layers(self, layers: tuple[int, ...]) -> Self:
        """Refused.

        Raises:
            EditError: Always.
        """
        raise EditError("in-context methods edit no layers; leave out --layers")


@dataclass(frozen=True)
class IceOracle:
    """Puts the edited fact before every question about its record, locality probes included."""

    params: InContextParams
    setup: Setup

    name: ClassVar[str] = "ice-oracle"
    PARAMS: ClassVar[Mapping[str, InContextParams]] = dict.fromkeys(KNOWN_MODELS, InContextParams())

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Notes | None = None
    ) -> Notes:
        """See `Editor.edit`."""
        return self._noted(model, requests, past, Lookup(headings=self._headings))

    def _noted(
        self,
        model: LoadedModel,
        requests: Sequence[EditRequest],
        past: Notes | None,
        lookup: Lookup,
    ) -> Notes:
        if past is not None:
            check_origin("an edit", past.model, past.origin, model)
        watch = Stopwatch()
        with watch.phase("notes"):
            kept = [request for request in requests if request.target and request.prompt]
            notes = [
                Note(one.id, one.lang, one.prompt, self._sentence(one.prompt, one.target, one.lang))
                for one in kept
            ]
        refused = [one.id for one in requests if not (one.target and one.prompt)]
        if not notes:
            why = f"{refused[0]}: the prompt or the answer is empty" if refused else "no facts"
            raise EditError(f"no fact can be edited: {why}")
        return Notes(
            self.name,
            model.name,
            tuple(notes),
            lookup,
            tuple(note.id for note in notes),
            tuple((one, "the prompt or the answer is empty") for one in refused),
            watch.seconds,
            origin=model_id(model),
        )

    @property
    def _headings(self) -> Language | None:
        return "en" if self.params.headings == "en" else None

    def _sentence(self, prompt: str, answer: str, lang: Language) -> str:
        return f"{prompt}{self.setup.protocol.join(lang)}{answer}"


@dataclass(frozen=True)
class IceRetrieved(IceOracle):
    """Puts the most similar of all edited facts before a question, if it is similar enough.

    Attributes:
        lookup: What `fit` found; None before.
    """

    lookup: Lookup | None = None

    name: ClassVar[str] = "ice-retrieved"

    def fit(self, model: LoadedModel, rows: Sequence[Pair]) -> Self:
        """See `TrainedEditor.fit`: keep the questions for calibration, write the demonstrations."""
        if len(rows) < MIN_ROWS:
            raise EditError(
                f"{self.name} is calibrated on facts that are not edited, and there are "
                f"{len(rows)} of them, fewer than {MIN_ROWS}; edit fewer facts with --facts"
            )
        params = self.params
        retriever: NgramRetriever | SentenceEncoder
        if params.encoder is None:
            retriever = NgramRetriever.of(rows)
        else:
            retriever = SentenceEncoder(params.encoder, params.encoder_prefix)
        calibration = None
        if params.gate == "calibrated":
            calibration = Calibration.on(rows, false_open=params.false_open)
        count = params.demonstrations
        examples = {lang: self._demonstrations(rows, lang) for lang in LANGUAGES} if count else {}
        lookup = Lookup(
            retriever,
            calibration,
            examples,
            count,
            params.kinds,
            params.shares,
            params.nearest,
            self._headings,
        )
        return replace(self, lookup=lookup)

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Notes | None = None
    ) -> Notes:
        """See `Editor.edit`."""
        if self.lookup is None:
            raise EditError(f"{self.name} has to be calibrated first; call fit")
        return self._noted(model, requests, past, self.lookup)

    def _demonstrations(self, rows: Sequence[Pair], lang: Language) -> tuple[str, ...]:
        """For each row, how its note is used: one example of each kind."""
        texts = []
        facts = [side(row, lang) for row in rows]
        for fact, other in zip(facts, [*facts[1:], facts[0]], strict=True):
            note = self._sentence(fact.prompt, fact.target_new, lang)
            answered: dict[Kind, tuple[str, str]] = {
                "copy": (fact.prompt, fact.target_new),
                "update": (fact.rephrase_prompt, fact.target_new),
                "retain": (other.prompt, other.ground_truth),
            }
            for kind in self.params.kinds:
                sentence = self._sentence(*answered[kind], lang)
                texts.append(with_note(note, sentence, self._headings or lang))
        return tuple(texts)


@dataclass(frozen=True)
class Ike(IceRetrieved):
    """As `IceRetrieved`, with demonstrations of when a fact applies and when it does not."""

    name: ClassVar[str] = "ike"
    # EasyEdit, hparams/IKE: k is 16 for every model. The others are our choice: the tiny model's
    # rows are short; those of SmolLM2 were chosen on 40 facts (docs/explanation/editing.md).
    PARAMS: ClassVar[Mapping[str, InContextParams]] = dict.fromkeys(
        KNOWN_MODELS, InContextParams(demonstrations=16)
    ) | {
        "tiny": InContextParams(demonstrations=2),
        "smollm2-135m": InContextParams(demonstrations=8, kinds=("copy", "update")),
    }

"""Edits that are texts: facts that are put before the questions they are about."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from clm_data.eval.editors.edits import (
    EditedModel,
    facts_of,
    facts_of_both,
    metadata_of,
    read_saved,
)
from clm_data.eval.editors.retrieval import (
    Calibration,
    Gate,
    NgramRetriever,
    Retriever,
    similarities,
)
from clm_data.eval.editors.sentence_encoder import SentenceEncoder
from clm_data.eval.editors.tensor_files import save_safetensors
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.languages import LANGUAGE_INFO
from clm_data.records import LANGUAGES, Language

if TYPE_CHECKING:
    from torch import Tensor


Kind = Literal["copy", "update", "retain"]
KINDS: tuple[Kind, ...] = ("copy", "update", "retain")
"""Demonstrations of a fact: its own prompt, a rephrased one, and a prompt that it is not about."""


@dataclass(frozen=True)
class Note:
    """An edited fact as text.

    Attributes:
        id: The edit's id, such as `zh-0001:en`.
        lang: Its language.
        prompt: What questions are compared with.
        sentence: The prompt with the new answer.
    """

    id: str
    lang: Language
    prompt: str
    sentence: str

    @property
    def fact(self) -> str:
        """Id of the record that was edited."""
        return self.id.removesuffix(f":{self.lang}")


@dataclass(frozen=True)
class Lookup:
    """How the note for a question is found; the same for all edits of a sequence.

    Attributes:
        retriever: Compares the question with the prompts of the notes; None for an oracle, which is
            told the fact that a question is about.
        calibration: Decides from what similarity on a note is used; None takes the best note for
            every question.
        demonstrations: Examples of how a note is used, by language of the question: one of each
            kind for a fact, then for the next.
        count: Number of demonstrations that are put before a note.
        kinds: Kinds of the demonstrations.
        shares: Whether each kind has an equal share of them, or only similarity counts.
        nearest: Place of the demonstration that is most like the question.
        headings: Language of the headings; None for that of the question.
    """

    retriever: NgramRetriever | SentenceEncoder | None = None
    calibration: Calibration | None = None
    demonstrations: Mapping[Language, tuple[str, ...]] = field(default_factory=dict)
    count: int = 0
    kinds: tuple[Kind, ...] = KINDS
    shares: Literal["equal", "any"] = "equal"
    nearest: Literal["last", "first"] = "last"
    headings: Language | None = None

    def as_json(self) -> dict[str, Any]:
        """For the metadata of a file."""
        found = self.retriever
        return {
            "kind": type(found).__name__ if found is not None else None,
            "retriever": None if found is None else asdict(found),
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "demonstrations": self.demonstrations,
            "count": self.count,
            "kinds": self.kinds,
            "shares": self.shares,
            "nearest": self.nearest,
            "headings": self.headings,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Lookup:
        """Read what `as_json` returned."""
        settings = value["retriever"]
        retriever: NgramRetriever | SentenceEncoder | None = None
        if value["kind"] == "NgramRetriever":
            retriever = NgramRetriever(
                tuple(settings["columns"]), tuple(settings["idf"]), settings["unseen"]
            )
        elif value["kind"] == "SentenceEncoder":
            retriever = SentenceEncoder(**settings)
        examples = _tuples(value["demonstrations"])
        about = value["calibration"]
        if about is not None:
            texts = {name: _tuples(about[name]) for name in ("prompts", "rephrased")}
            about = Calibration(**{**about, **texts})
        rest = {name: value[name] for name in ("count", "shares", "nearest", "headings")}
        return Lookup(retriever, about, examples, kinds=tuple(value["kinds"]), **rest)


def _tuples(texts: Mapping[Language, Sequence[str]]) -> dict[Language, tuple[str, ...]]:
    return {lang: tuple(of_lang) for lang, of_lang in texts.items()}


def with_note(sentence: str, prompt: str, lang: Language) -> str:
    """A question after a note, with headings in `lang`."""
    info = LANGUAGE_INFO[lang]
    return f"{info.note}{sentence}\n{info.asked}{prompt}"


@dataclass(frozen=True)
class Notes:
    """The edit of an in-context method; an `Edit`.

    Attributes:
        method: Name of the method.
        model: Name of the model.
        notes: The facts, oldest first.
        lookup: How the note for a question is found.
        edited: See `Edit`.
        refused: See `Edit`.
        seconds: See `Edit`.
        steps: See `Edit`.
        origin: See `Edit`.
    """

    method: str
    model: str
    notes: tuple[Note, ...]
    lookup: Lookup
    edited: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    steps: tuple[int, ...] = ()
    origin: str = ""
    arrived: None = None

    def plus(self, later: Notes) -> Notes:
        """The notes of this edit and of a later one; the newer of two with one prompt counts.

        Raises:
            EditError: The edits belong to different models, or find notes in different ways.
        """
        facts = facts_of_both(self, later)
        if self.lookup != later.lookup:
            raise EditError(
                f"edits of {self.method} and {later.method} that find notes in different ways "
                "cannot be added"
            )
        return replace(self, notes=self.notes + later.notes, **facts)

    @contextmanager
    def apply_to(self, model: LoadedModel) -> Iterator[EditedModel]:
        """Rewrite questions; no weight changes."""
        if self.lookup.retriever is None:
            yield OracleModel(model, self.notes, self.lookup.headings)
        else:
            yield NotedModel(model, self.notes, self.lookup, self.lookup.retriever)

    def save(self, path: Path) -> None:
        """Write a safetensors file without tensors; the texts are in its metadata."""
        about = {
            "kind": "notes",
            "notes": [asdict(note) for note in self.notes],
            "lookup": self.lookup.as_json(),
        }
        save_safetensors({}, path, metadata_of(self, about))

    @staticmethod
    def load(path: Path) -> Notes:
        """Read a file that `save` wrote.

        Raises:
            InputFileError: The file cannot be read, or holds something else.
        """
        with read_saved(path, "notes") as (metadata, _):
            notes = tuple(Note(**note) for note in json.loads(metadata["notes"]))
            lookup = Lookup.from_json(json.loads(metadata["lookup"]))
            return Notes(notes=notes, lookup=lookup, **facts_of(metadata))


@dataclass(frozen=True)
class NotedModel:
    """An `EditedModel` that finds the note for a question by its text.

    Attributes:
        base: The network, whose weights are unchanged.
        notes: All notes made so far, oldest first.
        lookup: Calibration and demonstrations.
        retriever: Compares the question with the prompts of the notes.
    """

    base: LoadedModel
    notes: tuple[Note, ...]
    lookup: Lookup
    retriever: Retriever

    @cached_property
    def _known(self) -> tuple[list[Note], Any]:
        """The newest note of each prompt, in an order that does not depend on that of the edits."""
        newest = {(note.lang, note.prompt): note for note in self.notes}
        known = [newest[key] for key in sorted(newest)]
        return known, self.retriever.vectors([note.prompt for note in known])

    @cached_property
    def gates(self) -> dict[tuple[Language, Language], Gate] | None:
        """Gates for these notes, by languages of note and question; None without calibration."""
        if self.lookup.calibration is None:
            return None
        known, _ = self._known
        prompts = {lang: [note.prompt for note in known if note.lang == lang] for lang in LANGUAGES}
        return self.lookup.calibration.gates(self.retriever, prompts)

    @cached_property
    def _examples(self) -> dict[Language, Any]:
        texts = self.lookup.demonstrations
        return {lang: self.retriever.vectors(texts[lang]) for lang in texts}

    def find(self, prompt: str, lang: Language) -> Note | None:
        """The note that a question is about; None if no gate lets it through.

        A question that is the prompt of a note, letter for letter, needs no gate.
        """
        known, index = self._known
        for note in known:
            if (note.lang, note.prompt) == (lang, prompt):
                return note
        found = similarities(self.retriever.vectors([prompt]), index)[0]
        if self.gates is not None:
            lowest = [self.gates[note.lang, lang].similarity for note in known]
            found = np.where(found >= np.array(lowest), found, -np.inf)
        best = int(found.argmax())
        return known[best] if np.isfinite(found[best]) else None

    def rewrite(self, prompt: str, lang: Language) -> str:
        """The prompt after its note and demonstrations; as it is if it is about no edit."""
        note = self.find(prompt, lang)
        if note is None:
            return prompt
        asked = with_note(note.sentence, prompt, self.lookup.headings or lang)
        return "".join(f"{text}\n\n" for text in self._nearest(asked, lang)) + asked

    def _nearest(self, asked: str, lang: Language) -> Sequence[str]:
        """The demonstrations most like a question with its note, in the order of their places."""
        if not self.lookup.count:
            return []
        found = similarities(self.retriever.vectors([asked]), self._examples[lang])[0]
        order = np.argsort(-found, kind="stable")
        if self.lookup.shares == "equal":
            kinds = len(self.lookup.kinds)
            nth = np.empty(len(order), dtype=int)  # how many of its kind are more similar
            for kind in range(kinds):
                of_kind = order[order % kinds == kind]
                nth[of_kind] = np.arange(len(of_kind))
            chosen = order[np.argsort(nth[order], kind="stable")][: self.lookup.count]
            order = chosen[np.argsort(-found[chosen], kind="stable")]
        order = order[: self.lookup.count]
        if self.lookup.nearest == "last":
            order = order[::-1]
        return [self.lookup.demonstrations[lang][i] for i in order]

    def routed(self, prompt: Tensor) -> AbstractContextManager[None]:
        """Changes nothing."""
        return nullcontext()


@dataclass(frozen=True)
class OracleModel:
    """An `Oracle`: it is told which fact a question is about, so its locality means nothing.

    Attributes:
        base: The network, whose weights are unchanged.
        notes: All notes made so far, oldest first.
        headings: See `Lookup`.
    """

    base: LoadedModel
    notes: tuple[Note, ...]
    headings: Language | None = None

    def rewrite(self, prompt: str, lang: Language) -> str:
        """The prompt as it is, because the fact is not known."""
        return prompt

    def rewrite_about(self, prompt: str, lang: Language, fact: str) -> str:
        """The prompt after the note of a fact, in the question's language if there is one."""
        found = {note.lang: note for note in self.notes if note.fact == fact}
        if not found:
            return prompt
        note = found.get(lang, next(iter(found.values())))
        return with_note(note.sentence, prompt, self.headings or lang)

    def routed(self, prompt: Tensor) -> AbstractContextManager[None]:
        """Changes nothing."""
        return nullcontext()

"""How many tokens the facts and questions of a dataset have, by a model's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from clm_data.eval.editors.contexts import Contexts
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.errors import EditError, PlacementError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import EditProtocol
from clm_data.eval.results import EditLanguage
from clm_data.eval.sweep.answers import EXTRA_TOKENS, Question, tokenize_question
from clm_data.eval.sweep.cell import requests_for
from clm_data.languages import LANGUAGE_INFO
from clm_data.records import LANGUAGES, Language, Record


@dataclass(frozen=True)
class FactTokens:
    """Tokens of a fact, in all contexts together unless stated.

    Attributes:
        prompts: Of the prompts up to the subject, without the contexts.
        sentences: Of prompts and answers, without the contexts.
        suffixes: From the subject on, and one of the KL prompt: what a step of the search for the
            target value runs.
        reads: Tokens predicted by a step of that search.
        prompt: Of the prompt without a context, up to the subject.
        sentence: Of the prompt and answer without a context.
        answer: Of the answer.
    """

    prompts: int
    sentences: int
    suffixes: int
    reads: int
    prompt: int
    sentence: int
    answer: int


@dataclass(frozen=True)
class QuestionTokens:
    """Tokens of the questions about a record in one language.

    Attributes:
        read: Of all prompts and answers that are read.
        predicted: Of all answers that are read.
        prompt: Of the prompt that is continued.
        generated: Of its continuation.
    """

    read: int
    predicted: int
    prompt: int
    generated: int


class Texts:
    """The tokens of some records.

    Args:
        model: The model, for its tokenizer.
        records: The records.
        protocol: How prompts and answers are joined and tokenized.
    """

    def __init__(
        self, model: LoadedModel, records: Sequence[Record], protocol: EditProtocol
    ) -> None:
        self._model, self._records, self._protocol = model, records, protocol
        self._facts: dict[tuple[int, EditLanguage], dict[str, FactTokens]] = {}
        self._questions: dict[int, list[QuestionTokens]] = {}

    def facts(self, index: int, language: EditLanguage) -> dict[str, FactTokens]:
        """The edits of a record that can be placed, by id: two for `mix`."""
        if (index, language) not in self._facts:
            requests = requests_for([self._records[index]], language)
            try:
                placed, _ = place_facts(self._model, requests, self._protocol, self._contexts)
            except EditError:
                placed = []
            found = {fact.request.id: self._fact_tokens(fact) for fact in placed}
            self._facts[index, language] = found
        return self._facts[index, language]

    def questions(self, index: int) -> list[QuestionTokens]:
        """The questions about a record, by language."""
        if index not in self._questions:
            record = self._records[index]
            self._questions[index] = [self._question_tokens(record, lang) for lang in LANGUAGES]
        return self._questions[index]

    @cached_property
    def _contexts(self) -> Contexts:
        """The openings of the contexts, which are what differs from one context to the next."""
        languages = {self._protocol.context_lang(lang) for lang in LANGUAGES}
        return Contexts(
            {
                lang: ("{}", *(f"{o}{info.full_stop}{{}}" for o in info.openings))
                for lang in languages
                for info in (LANGUAGE_INFO[lang],)
            }
        )

    def _fact_tokens(self, fact: PlacedFact) -> FactTokens:
        bare, prompt = fact.sentences[0], fact.prompts[0]
        count, after = len(fact.sentences), len(bare.ids) - bare.subject
        return FactTokens(
            prompts=count * (prompt.subject + 1),
            sentences=count * len(bare.ids),
            suffixes=1 + count * after,
            reads=1 + count * len(bare.labels),
            prompt=prompt.subject + 1,
            sentence=len(bare.ids),
            answer=len(bare.labels),
        )

    def _question_tokens(self, record: Record, lang: Language) -> QuestionTokens:
        fact, probe = record.fact(lang), record.probe(lang)
        asked = (
            (fact.prompt, fact.target_new),
            (fact.prompt, fact.ground_truth),
            (fact.rephrase_prompt, fact.target_new),
            (probe.loc, probe.loc_ans),
        )
        read, predicted, prompt, generated = 0, 0, 0, 0
        for number, (text, answer) in enumerate(asked):
            try:
                found = tokenize_question(
                    self._model.tokenizer, Question(lang, text, answer), self._protocol
                )
            except PlacementError:
                continue
            read += len(found.ids)
            predicted += len(found.labels)
            if number < 2:
                prompt = found.prompt
                generated = max(generated, len(found.labels) + EXTRA_TOKENS)
        return QuestionTokens(read, predicted, prompt, generated)

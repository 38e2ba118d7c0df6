"""Rules on one candidate: one small pure function per code, applied to both languages.

A rule looks only at texts that exist; missing and empty fields are reported by ``empty-field``
alone. Everything that differs between languages is defined in :mod:`clm_data.languages`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clm_data import languages, numerals
from clm_data import text as texts
from clm_data.languages import LANGUAGE_INFO, has_han, mentions, occurrences
from clm_data.records import (
    FACT_FIELDS,
    LANGUAGES,
    PROBE_FIELDS,
    Candidate,
    Language,
    LooseFact,
    LooseProbe,
    Problem,
)
from clm_data.text import is_blank, quote
from clm_data.validate.compare import NEAR, gives_away, nearness, same, similarity
from clm_data.validate.form import (
    PROMPTS,
    foreign_words,
    is_foreign,
    is_untranslated,
    why_not_cloze,
)

Rule = Callable[[Candidate], Iterator[Problem]]

_ANSWERS = ("ground_truth", "target_new")


def empty_field(candidate: Candidate) -> Iterator[Problem]:
    """A language or a field that is missing, null or empty."""
    for lang in LANGUAGES:
        fact = candidate.fact(lang)
        if fact is None:
            message = f"the {LANGUAGE_INFO[lang].en} fact is missing"
            yield Problem(code="empty-field", lang=lang, message=message)
        else:
            yield from _empty_fields(fact, FACT_FIELDS, lang)
    if candidate.zh_probe is not None or candidate.en_probe is not None:
        for lang in LANGUAGES:
            probe = candidate.probe(lang) or LooseProbe()
            yield from _empty_fields(probe, PROBE_FIELDS, lang)


def subject_not_in_prompt(candidate: Candidate) -> Iterator[Problem]:
    """The subject must appear verbatim in the prompt, where editors look up its position."""
    return _subject_missing(candidate, "prompt", "subject-not-in-prompt")


def subject_ambiguous(candidate: Candidate) -> Iterator[Problem]:
    """Editors change what a model knows at the subject; its place in the prompt must be clear.

    Which occurrence is edited: see `subject_start` in `clm_data.eval.placement`.
    """
    for lang, subject, text in _pairs(candidate, "subject", "prompt"):
        count = len(occurrences(text, subject))
        if count > 1:
            edited = "first" if has_han(subject) else "last"
            message = f"{quote(subject)} is {count} times in {quote(text)}; the {edited} is edited"
        elif count == 0 and subject in text:
            message = f"{quote(subject)} is only part of a word in {quote(text)}"
        else:
            continue
        yield _problem("subject-ambiguous", message, lang, "prompt")


def subject_not_in_rephrase(candidate: Candidate) -> Iterator[Problem]:
    """A rephrasing may refer to the subject differently, but a reviewer should know."""
    return _subject_missing(candidate, "rephrase_prompt", "subject-not-in-rephrase")


def answer_in_prompt(candidate: Candidate) -> Iterator[Problem]:
    """The prompt contains the true answer or the target (:func:`compare.gives_away`)."""
    return _leaks(candidate, "prompt", "answer-in-prompt")


def answer_in_rephrase(candidate: Candidate) -> Iterator[Problem]:
    """The rephrasing contains the true answer or the target (:func:`compare.gives_away`)."""
    return _leaks(candidate, "rephrase_prompt", "answer-in-rephrase")


def target_equals_truth(candidate: Candidate) -> Iterator[Problem]:
    """The target equals the true answer or another accepted one, possibly in another spelling."""
    for lang, truth, target in _pairs(candidate, "ground_truth", "target_new"):
        equal = next(
            (each for each in _truths(candidate, lang, truth) if same(each, target, lang)), None
        )
        if equal == truth:
            message = f"{quote(target)} is the same as the true answer {quote(truth)}"
            yield _problem("target-equals-truth", message, lang, "target_new")
        elif equal is not None:
            message = (
                f"{quote(target)} is one of the accepted answers: {quote(equal)}, besides "
                f"{quote(truth)}"
            )
            yield _problem("target-equals-truth", message, lang, "target_new")


def target_near_truth(candidate: Candidate) -> Iterator[Problem]:
    """The target and the true answer, or another accepted one, contain each other or nearly agree.

    A negation (对称, 不对称) or different numbers make the two clearly different. Single characters
    are too short to be compared.
    """
    for lang, truth, target in _pairs(candidate, "ground_truth", "target_new"):
        truths = _truths(candidate, lang, truth)
        if any(same(each, target, lang) for each in truths):
            continue
        near = ((each, nearness(each, target, lang)) for each in truths)
        for each, relation in [pair for pair in near if pair[1]][:1]:
            kind = "true answer" if each == truth else "accepted answer"
            message = f"{quote(target)} {relation} the {kind} {quote(each)}"
            yield _problem("target-near-truth", message, lang, "target_new")


def rephrase_equals_prompt(candidate: Candidate) -> Iterator[Problem]:
    """The rephrasing equals the prompt up to character width, case and punctuation."""
    for lang, prompt, rephrase in _pairs(candidate, "prompt", "rephrase_prompt"):
        if same(prompt, rephrase, lang):
            message = f"the rephrasing repeats the prompt {quote(prompt)}"
            yield _problem("rephrase-equals-prompt", message, lang, "rephrase_prompt")


def rephrase_near_prompt(candidate: Candidate) -> Iterator[Problem]:
    """The rephrasing is more than 0.9 similar to the prompt."""
    for lang, prompt, rephrase in _pairs(candidate, "prompt", "rephrase_prompt"):
        ratio = similarity(prompt, rephrase)
        if ratio > NEAR and not same(prompt, rephrase, lang):
            message = f"{quote(rephrase)} is {ratio:.0%} similar to the prompt {quote(prompt)}"
            yield _problem("rephrase-near-prompt", message, lang, "rephrase_prompt")


def prompt_not_cloze(candidate: Candidate) -> Iterator[Problem]:
    """A question, a complete sentence or a blank to fill in, instead of a cloze."""
    for lang, name, text in fact_texts(candidate, PROMPTS):
        fact = candidate.fact(lang)
        found = why_not_cloze(text, (fact.subject if fact else None) or "", lang)
        if found:
            yield _problem("prompt-not-cloze", f"{found}: {quote(text)}", lang, name)


def mixed_script(candidate: Candidate) -> Iterator[Problem]:
    """Han characters in English, untranslated Latin words in Chinese, or a third script.

    Names, abbreviations and units in Latin letters are allowed in Chinese. A text that is entirely
    in the wrong language is reported as ``wrong-language`` instead.
    """
    for lang, name, text in fact_texts(candidate):
        found = foreign_words(text, lang)
        if found and not is_foreign(text, name, lang):
            message = f"{quote(found)} in {LANGUAGE_INFO[lang].en} text {quote(text)}"
            yield _problem("mixed-script", message, lang, name)


def wrong_language(candidate: Candidate) -> Iterator[Problem]:
    """A text that is entirely in another language (:func:`form.is_foreign`)."""
    for lang, name, text in fact_texts(candidate):
        if is_foreign(text, name, lang):
            message = f"not {LANGUAGE_INFO[lang].en}: {quote(text)}"
            yield _problem("wrong-language", message, lang, name)


def traditional_characters(candidate: Candidate) -> Iterator[Problem]:
    """Traditional characters in Chinese text, except those that are standard in names."""
    for lang, name, text in _all_texts(candidate):
        found = languages.traditional_characters(text) if lang == "zh" else []
        if found:
            message = f"{'、'.join(found)} in {quote(text)}"
            yield _problem("traditional-characters", message, lang, name)


def control_character(candidate: Candidate) -> Iterator[Problem]:
    """Invisible characters, which change how a text is tokenized."""
    for lang, name, text in _all_texts(candidate):
        found = texts.control_characters(text)
        if found:
            codes = ", ".join(f"U+{ord(char):04X}" for char in found)
            yield _problem("control-character", f"{codes} in {quote(text)}", lang, name)


def stray_whitespace(candidate: Candidate) -> Iterator[Problem]:
    """Spaces at an end, doubled, full-width, no-break, thin, or between Chinese characters."""
    for lang, name, text in _all_texts(candidate):
        found = texts.stray_whitespace(text)
        if found:
            message = f"{', '.join(found)} in {quote(text)}"
            yield _problem("stray-whitespace", message, lang, name)


def number_mismatch(candidate: Candidate) -> Iterator[Problem]:
    """Numbers and dates in a field that differ between the two languages."""
    for name in (*FACT_FIELDS, *PROBE_FIELDS):
        zh, en = _field(candidate, "zh", name), _field(candidate, "en", name)
        if zh and en and (found := numerals.disagreement(zh, en)):
            numbers = [", ".join(side) or "none" for side in found]
            message = f"zh {numbers[0]}, en {numbers[1]}: {quote(zh)}, {quote(en)}"
            yield Problem(code="number-mismatch", message=message, field=name)


def length(candidate: Candidate) -> Iterator[Problem]:
    """A text longer than the limit for prompts or for answers in its language."""
    for lang, name, text in fact_texts(candidate):
        info = LANGUAGE_INFO[lang]
        limit = info.max_prompt if name in PROMPTS else info.max_answer
        if len(text) > limit:
            message = f"{len(text)} characters, more than {limit}: {quote(text)}"
            yield _problem("length", message, lang, name)


def untranslated_probe(candidate: Candidate) -> Iterator[Problem]:
    """A probe that was not translated into its language (:func:`form.is_untranslated`)."""
    for lang in LANGUAGES:
        for _, name, text in _texts_of(candidate.probe(lang), PROBE_FIELDS, lang):
            if is_untranslated(text, name, lang):
                message = f"not {LANGUAGE_INFO[lang].en}: {quote(text)}"
                yield _problem("untranslated-probe", message, lang, name)


def probe_touches_subject(candidate: Candidate) -> Iterator[Problem]:
    """A probe that mentions the edited subject or an answer, so that the edit may change it."""
    for lang in LANGUAGES:
        fact = candidate.fact(lang) or LooseFact()
        about: dict[str, str | None] = {
            name: getattr(fact, name) for name in ("subject", *_ANSWERS)
        }
        for _, name, text in _texts_of(candidate.probe(lang), PROBE_FIELDS, lang):
            found = [
                f"{kind} {quote(phrase)}"
                for kind, phrase in about.items()
                if phrase is not None and _touches(text, phrase, kind, lang)
            ]
            if found:
                message = f"{' and '.join(found)} in {quote(text)}"
                yield _problem("probe-touches-subject", message, lang, name)


RULES: dict[str, Rule] = {
    "empty-field": empty_field,
    "subject-not-in-prompt": subject_not_in_prompt,
    "subject-not-in-rephrase": subject_not_in_rephrase,
    "subject-ambiguous": subject_ambiguous,
    "answer-in-prompt": answer_in_prompt,
    "answer-in-rephrase": answer_in_rephrase,
    "target-equals-truth": target_equals_truth,
    "target-near-truth": target_near_truth,
    "rephrase-equals-prompt": rephrase_equals_prompt,
    "rephrase-near-prompt": rephrase_near_prompt,
    "prompt-not-cloze": prompt_not_cloze,
    "mixed-script": mixed_script,
    "wrong-language": wrong_language,
    "traditional-characters": traditional_characters,
    "control-character": control_character,
    "stray-whitespace": stray_whitespace,
    "number-mismatch": number_mismatch,
    "length": length,
    "untranslated-probe": untranslated_probe,
    "probe-touches-subject": probe_touches_subject,
}


def problems_of(candidate: Candidate) -> list[Problem]:
    """All problems of one candidate and its probes, in the order of :data:`RULES`."""
    return [problem for rule in RULES.values() for problem in rule(candidate)]


def fact_texts(
    candidate: Candidate, names: tuple[str, ...] = FACT_FIELDS
) -> Iterator[tuple[Language, str, str]]:
    """Yield (language, field, text) for the texts of the facts that are not empty."""
    for lang in LANGUAGES:
        yield from _texts_of(candidate.fact(lang), names, lang)


def _all_texts(candidate: Candidate) -> Iterator[tuple[Language, str, str]]:
    for lang in LANGUAGES:
        yield from _texts_of(candidate.fact(lang), FACT_FIELDS, lang)
        yield from _texts_of(candidate.probe(lang), PROBE_FIELDS, lang)


def _texts_of(
    part: LooseFact | LooseProbe | None, names: tuple[str, ...], lang: Language
) -> Iterator[tuple[Language, str, str]]:
    for name in names if part is not None else ():
        text = getattr(part, name)
        if not is_blank(text):
            yield lang, name, text


def _empty_fields(
    part: LooseFact | LooseProbe, names: tuple[str, ...], lang: Language
) -> Iterator[Problem]:
    for name in names:
        text: str | None = getattr(part, name)
        if is_blank(text):
            message = f"{name} is missing or null" if text is None else f"{name} is {quote(text)}"
            yield _problem("empty-field", message, lang, name)


def _field(candidate: Candidate, lang: Language, name: str) -> str | None:
    part = candidate.fact(lang) if name in FACT_FIELDS else candidate.probe(lang)
    text: str | None = None if part is None else getattr(part, name)
    return text


def _pairs(candidate: Candidate, one: str, other: str) -> Iterator[tuple[Language, str, str]]:
    """Yield (language, first text, second text) if neither is empty."""
    for lang in LANGUAGES:
        first, second = _field(candidate, lang, one), _field(candidate, lang, other)
        if first is not None and second is not None and not is_blank(first) | is_blank(second):
            yield lang, first, second


def _truths(candidate: Candidate, lang: Language, truth: str) -> tuple[str, ...]:
    """The true answer and the other accepted answers, each once."""
    return tuple(dict.fromkeys((truth, *candidate.accepted.get(lang, ()))))


def _subject_missing(candidate: Candidate, name: str, code: str) -> Iterator[Problem]:
    for lang, subject, text in _pairs(candidate, "subject", name):
        if subject not in text:
            message = f"{quote(subject)} is not in {quote(text)}"
            yield _problem(code, message, lang, name)


def _leaks(candidate: Candidate, name: str, code: str) -> Iterator[Problem]:
    for lang, _, text in fact_texts(candidate, (name,)):
        fact = candidate.fact(lang) or LooseFact()
        subject = fact.subject or ""
        found = [
            f"{kind} {quote(answer)}"
            for kind in _ANSWERS
            if (answer := getattr(fact, kind)) and gives_away(text, answer, subject, lang)
        ]
        if found:
            yield _problem(code, f"{' and '.join(found)} in {quote(text)}", lang, name)


def _touches(text: str, phrase: str, kind: str, lang: Language) -> bool:
    if kind == "subject":
        return mentions(text, phrase, lang)
    return gives_away(text, phrase, "", lang) and len(phrase.strip()) > 1


def _problem(code: str, message: str, lang: Language, field: str) -> Problem:
    return Problem(code=code, message=message, lang=lang, field=field)

"""Contexts: short texts put before a prompt while its target value and keys are computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clm_data.eval.errors import EditError
from clm_data.eval.model.batching import padded
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import EditProtocol
from clm_data.languages import LANGUAGE_INFO
from clm_data.records import LANGUAGES, Language


@dataclass(frozen=True)
class Contexts:
    """The contexts of an edit; saved with its results.

    Attributes:
        templates: Language to templates that end in `{}`, the prompt's place; the first is `{}`
            alone. Every language has the same number.
        seed: The seed they were sampled with; None if they were given.
    """

    templates: Mapping[Language, tuple[str, ...]]
    seed: int | None = None

    def __post_init__(self) -> None:
        if len({len(texts) for texts in self.templates.values()}) > 1:
            raise EditError("every language must have the same number of contexts")

    def for_fact(self, protocol: EditProtocol, lang: Language) -> tuple[str, ...]:
        """The templates for a fact in `lang`.

        Raises:
            EditError: There are none in the language that the protocol requires.
        """
        context_lang = protocol.context_lang(lang)
        if context_lang not in self.templates:
            raise EditError(f"no contexts in '{context_lang}'; sample them with sample_contexts")
        return self.templates[context_lang]

    def as_json(self) -> dict[str, Any]:
        """For result files; `contexts_from` reads `templates` back."""
        return {"seed": self.seed, "templates": {k: list(v) for k, v in self.templates.items()}}


def contexts_from(templates: Mapping[Language, Iterable[str]]) -> Contexts:
    """Contexts from given templates.

    Raises:
        EditError: The first template of a language is not `{}`, or one does not end in `{}`.
    """
    by_language = {lang: tuple(texts) for lang, texts in templates.items()}
    for texts in by_language.values():
        if not texts or texts[0] != "{}" or not all(text.endswith("{}") for text in texts):
            raise EditError("contexts must start with the bare {} and all end in {}")
    return Contexts(by_language)


def sample_contexts(
    loaded: LoadedModel,
    protocol: EditProtocol,
    *,
    languages: Iterable[Language] = LANGUAGES,
    seed: int = 42,
    length: int = 10,
) -> Contexts:
    """Sample beginnings of sentences from the model, as MEMIT's code does.

    Top-5 sampling on the CPU with a generator of its own, so equal seeds give equal contexts.

    Args:
        loaded: The unedited model.
        protocol: Decides whether Chinese facts get Chinese or English contexts.
        languages: Languages of the facts.
        seed: Seed of the generator, which is created anew for each language.
        length: Tokens per context, including the opening words.
    """
    context_langs = sorted({protocol.context_lang(lang) for lang in languages})
    return Contexts(
        {lang: ("{}", *_sample(loaded, lang, seed, length)) for lang in context_langs}, seed
    )


def _sample(loaded: LoadedModel, lang: Language, seed: int, length: int) -> list[str]:
    import torch

    tokenizer = loaded.tokenizer
    rows = [list(tokenizer(text)["input_ids"]) for text in LANGUAGE_INFO[lang].openings]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        while min(map(len, rows)) < length:
            logits = loaded.model(input_ids=padded(rows, loaded.device), use_cache=False).logits
            for index, row in enumerate(rows):
                if len(row) >= length:
                    continue
                top = logits[index, len(row) - 1].float().cpu().topk(min(5, logits.shape[-1]))
                drawn = torch.multinomial(top.values.softmax(0), 1, generator=generator)
                row.append(int(top.indices[drawn]))
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    return [_clean(text) + LANGUAGE_INFO[lang].full_stop + "{}" for text in texts]


def _clean(text: str) -> str:
    """One line, without braces and the remains of characters that sampling cut off."""
    for mark in "{}\n\r\ufffd":
        text = text.replace(mark, " ")
    return " ".join(text.split())

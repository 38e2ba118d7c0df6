"""The texts put before a fact while its target value is found."""

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
    """The contexts of an edit; kept with its results.

    Attributes:
        templates: By language: the bare ``{}`` first, then texts that end in ``{}``.
        seed: The seed they were drawn with; None where they were given.
    """

    templates: Mapping[Language, tuple[str, ...]]
    seed: int | None = None

    def __post_init__(self) -> None:
        if len({len(texts) for texts in self.templates.values()}) > 1:
            raise EditError("every language must have equally many contexts")

    def for_fact(self, protocol: EditProtocol, lang: Language) -> tuple[str, ...]:
        """The templates of a fact in one language.

        Raises:
            EditError: There are none in the language that the protocol wants.
        """
        wanted = protocol.context_lang(lang)
        if wanted not in self.templates:
            raise EditError(f"no contexts in '{wanted}'; make them with contexts_for")
        return self.templates[wanted]

    def as_json(self) -> dict[str, Any]:
        """For result files; :func:`given_contexts` reads ``templates`` back."""
        return {"seed": self.seed, "templates": {k: list(v) for k, v in self.templates.items()}}


def given_contexts(templates: Mapping[Language, Iterable[str]]) -> Contexts:
    """Contexts as given, verbatim.

    Raises:
        EditError: The first is not the bare ``{}``, or one does not end in ``{}``.
    """
    kept = {lang: tuple(texts) for lang, texts in templates.items()}
    for texts in kept.values():
        if not texts or texts[0] != "{}" or not all(text.endswith("{}") for text in texts):
            raise EditError("contexts must begin with the bare {} and all end in {}")
    return Contexts(kept)


def contexts_for(
    loaded: LoadedModel,
    protocol: EditProtocol,
    *,
    languages: Iterable[Language] = LANGUAGES,
    seed: int = 42,
    length: int = 10,
) -> Contexts:
    """Let the model begin sentences, in the languages that the protocol wants.

    Top-5 sampling from one generator of its own, on the CPU: equal seeds give equal contexts.

    Args:
        loaded: The unedited model.
        protocol: Says whether Chinese facts get Chinese contexts.
        languages: Languages of the facts.
        seed: Of the sampling.
        length: Tokens of a context, those of its beginning included.
    """
    wanted = sorted({protocol.context_lang(lang) for lang in languages})
    return Contexts({lang: ("{}", *_sampled(loaded, lang, seed, length)) for lang in wanted}, seed)


def _sampled(loaded: LoadedModel, lang: Language, seed: int, length: int) -> list[str]:
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
    said = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    return [_clean(text) + LANGUAGE_INFO[lang].full_stop + "{}" for text in said]


def _clean(text: str) -> str:
    """One line without braces and without the remains of a character cut in two."""
    for mark in "{}\n\r\ufffd":
        text = text.replace(mark, " ")
    return " ".join(text.split())

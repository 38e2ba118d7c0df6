"""Generation with a scripted chat model, on entries about rivers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clm_data.config import GenerationSettings, Settings
from clm_data.domain import Bilingual, Domain, load_domains
from clm_data.generation import GenerationReport
from clm_data.generation.run import run_generation
from clm_data.llm import Completion, Message
from clm_data.prompts import Prompts
from clm_data.resources import resource
from clm_data.store import Store

DOMAINS = load_domains(resource("domains.yaml"))
PROMPTS = Prompts(resource("prompts"))


class ScriptedModel:
    """A chat model whose answers a function gives; it records the requests."""

    provider = "vllm"
    model = "scripted"

    def __init__(self, answer: Callable[[Sequence[Message], int], Completion | Exception]) -> None:
        self._answer = answer
        self.requests: list[list[Message]] = []

    async def complete(self, messages: Sequence[Message]) -> Completion:
        self.requests.append(list(messages))
        answer = self._answer(messages, len(self.requests))
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


def entry(name: str, **zh: str) -> dict[str, Any]:
    """A valid entry about the river of that name (three Han characters)."""
    return {
        "zh": {
            "prompt": f"{name}河的发源地位于",
            "subject": f"{name}河",
            "ground_truth": "昆仑山",
            "target_new": "天目山",
            "rephrase_prompt": f"说到{name}河，它最早的源头在",
        }
        | zh,
        "en": {
            "prompt": f"The river {name.encode().hex()} rises in the",
            "subject": f"river {name.encode().hex()}",
            "ground_truth": "Kunlun Mountains",
            "target_new": "Tianmu Mountains",
            "rephrase_prompt": f"As for the river {name.encode().hex()}, its source lies in the",
        },
    }


NAMES = ["青山绿", "长河落", "孤云野", "清风明", "高原雪", "深谷古", "春江秋", "东溪北"]


def answer_with(*entries: dict[str, Any], **more: Any) -> Completion:
    """An answer with these entries as JSON."""
    text = json.dumps(list(entries), ensure_ascii=False)
    return Completion(text=text, model="scripted", **more)


def generation_settings(**changes: Any) -> GenerationSettings:
    """Settings with few entries per turn."""
    return GenerationSettings(**({"entries_per_turn": 2, "turns": 3} | changes))


def rivers(quota: int = 4) -> Domain:
    """A domain with two topics."""
    pattern = DOMAINS["world_geography"]
    topics = (Bilingual(zh="河", en="rivers"), Bilingual(zh="江", en="streams"))
    return pattern.model_copy(update={"id": "rivers", "quota": quota, "ask_for": topics})


def generate_with(
    model: Any,
    folder: Path,
    domains: Sequence[Domain],
    generation: GenerationSettings | None = None,
    **options: Any,
) -> GenerationReport:
    """Run generation with a model on the store of a folder."""
    settings = Settings(provider=model.provider, generation=generation or generation_settings())
    options.setdefault("settings", settings)
    with Store(f"sqlite:///{folder}/clm.db") as store:

        async def go() -> GenerationReport:
            try:
                return await run_generation(
                    store,
                    model,
                    domains,
                    all_domains=DOMAINS | {domain.id: domain for domain in domains},
                    backoff=0.01,
                    **({"prompts": PROMPTS} | options),
                )
            finally:
                await model.close()

        return asyncio.run(go())

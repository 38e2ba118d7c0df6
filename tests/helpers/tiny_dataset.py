"""A few records, and the configuration of a tiny model that learns them in seconds."""

from __future__ import annotations

from clm_data.eval.model.tiny import TinyConfig
from clm_data.eval.model.tiny_curriculum import Curriculum
from clm_data.records import Fact, Record
from helpers.example_records import example_records

_ANSWERS = {
    "zh": ("东山", "西湖", "南岭", "北原", "金沙", "玉泉", "青海", "白塔"),
    "en": ("Elm", "Oak", "Pine", "Birch", "Ash", "Maple", "Cedar", "Willow"),
}


def _fact(fact: Fact, lang: str, number: int) -> Fact:
    answers = _ANSWERS[lang]
    return fact.model_copy(
        update={
            "ground_truth": answers[number % len(answers)],
            "target_new": answers[(number + 3) % len(answers)],
        }
    )


RECORDS: list[Record] = [
    record.model_copy(
        update={"zh": _fact(record.zh, "zh", number), "en": _fact(record.en, "en", number)}
    )
    for number, record in enumerate(example_records(8))
]
"""Eight records with different answers."""

CONFIG = TinyConfig(
    hidden_size=64,
    intermediate_size=256,
    layers=3,
    heads=2,
    fact_layer=1,
    epochs=40,
    min_steps=120,
    lr=8e-3,
    curriculum=Curriculum(batch_size=24),
)
"""Learns `RECORDS` in a few seconds."""

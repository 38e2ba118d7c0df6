"""The fields in which a rule finds a problem."""

from __future__ import annotations

from typing import Any

from clm_data.validate.rules import RULES
from helpers.example_candidates import candidate


def fields_with(code: str, **changes: Any) -> list[tuple[str | None, str | None]]:
    """(language, field) of each problem with this code in the changed example candidate."""
    return [(problem.lang, problem.field) for problem in RULES[code](candidate(**changes))]

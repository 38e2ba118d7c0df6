"""What happened to an answer, an entry or an imported row, from the request to the dataset."""

from __future__ import annotations

from clm_data.tracing.results import Trace, TracedAnswer, TracedDecision, TracedEntry, TracedRow
from clm_data.tracing.run import trace

__all__ = ["Trace", "TracedAnswer", "TracedDecision", "TracedEntry", "TracedRow", "trace"]

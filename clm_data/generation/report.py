"""What a run of ``generate`` tells afterwards, and what a dry run tells before."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from clm_data.llm import Price
from clm_data.llm.base import Usage


@dataclass(frozen=True)
class DomainReport:
    """One domain in one run.

    Attributes:
        domain: Its id.
        target: Entries wanted in all.
        entries: Entries it has now, after review decisions, validation and deduplication.
        new: How many of them this run brought.
        read: Entries read in this run's answers, unreadable ones included.
        requests: Requests sent, those that were repeated included.
        answers: Answers received.
        stopped: Why the domain stopped, in words.
        lost: What was given up, in words: refused dialogues, and those left for the next run.
    """

    domain: str
    target: int
    entries: int
    new: int
    read: int
    requests: int
    answers: int
    stopped: str
    lost: tuple[str, ...] = ()

    @property
    def rejected(self) -> int:
        """Entries read in this run that did not get into the dataset."""
        return self.read - self.new

    @property
    def share_kept(self) -> float | None:
        """New entries per entry read; None where nothing was read."""
        return self.new / self.read if self.read else None


@dataclass(frozen=True)
class GenerationReport:
    """A whole run.

    Attributes:
        domains: In the order of the domain file.
        usage: Tokens of all answers of this run.
        price: Of the model, where known.
        rate_limits: Answers 429.
        retries: Requests repeated, for whatever reason.
        stopped: Why the whole run stopped early, if it did.
    """

    domains: tuple[DomainReport, ...]
    usage: Usage
    price: Price | None
    rate_limits: int
    retries: int
    stopped: str | None = None

    @property
    def requests(self) -> int:
        """Requests sent, repetitions included."""
        return sum(domain.requests for domain in self.domains)

    @property
    def cost(self) -> float | None:
        """In the price's currency; None where the price is not known."""
        return None if self.price is None else self.price.of(self.usage)

    @property
    def lost(self) -> tuple[str, ...]:
        """Everything that was given up."""
        return tuple(loss for domain in self.domains for loss in domain.lost)

    @property
    def short(self) -> tuple[str, ...]:
        """Domains that have fewer entries than wanted."""
        return tuple(d.domain for d in self.domains if d.entries < d.target)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "domains": [
                asdict(domain)
                | {
                    "rejected": domain.rejected,
                    "yield": domain.share_kept,
                    "lost": list(domain.lost),
                }
                for domain in self.domains
            ],
            "requests": self.requests,
            "usage": self.usage.model_dump(),
            "cost": self.cost,
            "currency": self.price.currency if self.price else None,
            "rate_limits": self.rate_limits,
            "retries": self.retries,
            "stopped": self.stopped,
        }


@dataclass(frozen=True)
class Progress:
    """Where a domain stands, as told while a run goes on.

    Attributes:
        domain: Its id.
        entries: Entries it has, those of unfinished dialogues counted as far as they are read.
        target: Entries wanted.
        requests: Requests sent for it in this run.
        settled: Whether ``entries`` is exact: true between waves.
    """

    domain: str
    entries: int
    target: int
    requests: int
    settled: bool


@dataclass(frozen=True)
class CostEstimate:
    """What a run would send, roughly.

    Attributes:
        prompt: The first request, rendered; None where nothing would be sent.
        missing: Entries wanted and not there, by domain id.
        requests: Requests if every entry is good.
        prompt_tokens: To be sent.
        completion_tokens: To be received, reasoning included.
        price: Of the model, where known.
    """

    prompt: str | None
    missing: dict[str, int]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    price: Price | None

    @property
    def cost(self) -> float | None:
        """In the price's currency; None where the price is not known."""
        if self.price is None:
            return None
        return self.price.of(
            Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)
        )

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "prompt": self.prompt,
            "missing": self.missing,
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": self.cost,
            "currency": self.price.currency if self.price else None,
        }

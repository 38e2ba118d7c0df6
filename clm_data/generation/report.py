"""Reports of a run: the cost estimate before it, progress during it, and the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from clm_data.generation.reasons import Reason, added_reasons
from clm_data.generation.tokens import Tokens
from clm_data.llm import Price
from clm_data.llm.base import Usage
from clm_data.tabular import Tabular


@dataclass(frozen=True)
class DomainReport:
    """One domain in one run.

    Attributes:
        domain: Domain id.
        target: Entries wanted in total.
        entries: Entries after the run, after review, validation and deduplication.
        new: Number of these entries that the run added.
        read: Entries in the answers of this run, including invalid and incomplete ones.
        requests: Requests sent, retries included.
        answers: Answers received.
        stopped: Why the domain stopped.
        lost: Messages about dialogues that were refused, or left unfinished for the next run.
        rejections: Why entries in the answers of this run are not in the dataset. The counts add
            up to :attr:`rejected`.
        failures: Why requests of this run failed; most have been repeated since.
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
    rejections: tuple[Reason, ...] = ()
    failures: tuple[Reason, ...] = ()

    @property
    def rejected(self) -> int:
        """Entries in this run's answers that are not in the dataset."""
        return self.read - self.new

    @property
    def share_kept(self) -> float | None:
        """New entries per entry read; None if none was read."""
        return self.new / self.read if self.read else None


@dataclass(frozen=True)
class GenerationReport(Tabular):
    """A whole run.

    Attributes:
        domains: Reports by domain, in the order of the domain file.
        tokens: Tokens of the answers of this run.
        price: Price of the model; None if not known.
        rate_limits: Number of responses with status 429.
        retries: Number of requests that were repeated.
        stopped: Why the whole run stopped early; None if it did not.
        cut_off: Number of answers that were cut off at the token limit.
        interrupted: Whether the user interrupted the run.
    """

    domains: tuple[DomainReport, ...]
    tokens: Tokens
    price: Price | None
    rate_limits: int
    retries: int
    stopped: str | None = None
    cut_off: int = 0
    interrupted: bool = False

    @property
    def requests(self) -> int:
        """Requests sent, retries included."""
        return sum(domain.requests for domain in self.domains)

    @property
    def usage(self) -> Usage:
        """Total tokens as reported by the endpoint; a count that an answer lacks is None."""
        return self.tokens.total

    @property
    def cost(self) -> float | None:
        """Cost in the currency of the price; None if the price or a count is not known."""
        return None if self.price is None else self.price.of(self.usage)

    @property
    def estimated_cost(self) -> float | None:
        """Cost with an estimate for each missing count; None if the price is not known."""
        return None if self.price is None else self.price.of(self.tokens.estimated)

    @property
    def unanswered(self) -> int:
        """Requests that failed; whether the provider bills them is not known."""
        return self.requests - sum(domain.answers for domain in self.domains)

    @property
    def lost(self) -> tuple[str, ...]:
        """The messages about lost dialogues of all domains."""
        return tuple(loss for domain in self.domains for loss in domain.lost)

    @property
    def short(self) -> tuple[str, ...]:
        """Ids of domains with fewer entries than wanted."""
        return tuple(d.domain for d in self.domains if d.entries < d.target)

    @property
    def rejections(self) -> tuple[Reason, ...]:
        """Why entries were rejected in all domains, the most frequent reason first."""
        return added_reasons(domain.rejections for domain in self.domains)

    @property
    def failures(self) -> tuple[Reason, ...]:
        """Why requests failed in all domains, the most frequent reason first."""
        return added_reasons(domain.failures for domain in self.domains)

    def table_title(self) -> str:
        """Title of the table, with the numbers of domains and requests."""
        return f"generate: {len(self.domains)} domains, {self.requests} requests"

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each domain."""
        left_out = {"rejections", "failures"}
        return [
            {name: value for name, value in asdict(domain).items() if name not in left_out}
            | {"rejected": domain.rejected}
            for domain in self.domains
        ]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
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
            "usage_at_least": self.tokens.at_least.model_dump(),
            "usage_estimated": self.tokens.estimated.model_dump(exclude={"reasoning_tokens"}),
            "answers_without_usage": self.tokens.unreported,
            "cost": self.cost,
            "cost_estimated": self.estimated_cost,
            "currency": self.price.currency if self.price else None,
            "rate_limits": self.rate_limits,
            "retries": self.retries,
            "rejections": [asdict(reason) for reason in self.rejections],
            "failures": [asdict(reason) for reason in self.failures],
            "cut_off": self.cut_off,
            "stopped": self.stopped,
            "interrupted": self.interrupted,
        }


class InterruptedGeneration(KeyboardInterrupt):
    """The user interrupted a run; answers stored until then are kept.

    Attributes:
        report: What the run did until then.
    """

    def __init__(self, report: GenerationReport) -> None:
        super().__init__()
        self.report = report


@dataclass(frozen=True)
class Progress:
    """Progress of one domain during a run.

    Attributes:
        domain: Domain id.
        entries: Entries so far, including those in the answers of unfinished dialogues.
        target: Entries wanted.
        requests: Requests sent for the domain in this run.
        settled: Whether ``entries`` is exact, which it is between batches.
        rejected: Entries in the answers of this run that were rejected so far.
        tokens: Tokens of all answers of the run, over all domains.
        cost: Cost of the run so far, estimated where counts are missing; None if not known.
        seconds_left: Rough time until the domain has its entries; None if not known.
        waiting: Why no request is sent for the next ``wait`` seconds; None if requests are sent.
        wait: Seconds.
    """

    domain: str
    entries: int
    target: int
    requests: int
    settled: bool
    rejected: int = 0
    tokens: Tokens = field(default_factory=Tokens)
    cost: float | None = None
    seconds_left: float | None = None
    waiting: str | None = None
    wait: float = 0.0


@dataclass(frozen=True)
class CostEstimate:
    """A rough estimate of what a run would send and cost.

    Attributes:
        prompt: The first prompt; None if nothing would be sent.
        missing: Number of missing entries by domain id.
        requests: Number of requests if every entry is good.
        prompt_tokens: Tokens to send.
        completion_tokens: Tokens to receive, reasoning included.
        price: Price of the model; None if not known.
    """

    prompt: str | None
    missing: dict[str, int]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    price: Price | None

    @property
    def cost(self) -> float | None:
        """Cost in the currency of the price; None if the price is not known."""
        if self.price is None:
            return None
        return self.price.of(
            Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)
        )

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "prompt": self.prompt,
            "missing": self.missing,
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": self.cost,
            "currency": self.price.currency if self.price else None,
        }

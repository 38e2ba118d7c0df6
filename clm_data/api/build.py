"""Building a dataset: generate or import entries, audit them, attach probes, build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from clm_data import building, generation
from clm_data.api.inputs import (
    Source,
    WorkspaceLike,
    as_workspace,
    check_at_least_one,
    check_text,
    inputs,
    source_files,
)
from clm_data.assemble import assemble, read_candidates
from clm_data.auditing import AuditReport
from clm_data.auditing import audit as audit_candidates
from clm_data.building import BuildReport
from clm_data.config import DedupSettings, LocalitySettings, Workspace, parse_settings
from clm_data.dataset_stats import Stats, statistics
from clm_data.dedup import deduplicate_entries
from clm_data.domain import Domain
from clm_data.errors import ConfigError, InputFileError
from clm_data.generation import CostEstimate, GenerationReport, Progress
from clm_data.locality import attach, read_probes
from clm_data.probes import BANK, HUB_PREFIX
from clm_data.records import Candidate, Entry, Rejection, StageResult
from clm_data.review.decisions import apply_decisions
from clm_data.sources import candidates_of, stored_files
from clm_data.sources.importing import ImportResult
from clm_data.sources.importing import import_files as import_into
from clm_data.sources.notices import Reading, reading_of
from clm_data.tabular import Tabular
from clm_data.tracing import Trace, trace
from clm_data.validate import validate

__all__ = [
    "attach_probes",
    "audit",
    "build",
    "estimate_cost",
    "generate",
    "import_files",
    "show",
    "stats",
]


def generate(
    domains: str | Sequence[str | Domain] = (),
    *,
    count: int | None = None,
    provider: str | None = None,
    model: str | None = None,
    base_url: str | None = None,
    concurrency: int | None = None,
    max_requests: int | None = None,
    max_cost: float | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    workspace: WorkspaceLike = None,
) -> GenerationReport:
    """Ask a model for entries until each domain meets its quota or must stop.

    Answers are stored as they arrive: calling the function again resumes an interrupted run.

    Args:
        domains: Domains or their ids; `"all"` for every domain.
        count: Entries wanted in each domain; default: the domain's quota.
        provider: A name in :data:`clm_data.llm.PROVIDERS`; `offline` answers from the bundled
            bank. Default: the workspace's setting, as for `model` and `base_url`.
        model: Model name.
        base_url: Address of an OpenAI-compatible endpoint.
        concurrency: Maximum requests in flight.
        max_requests: Maximum requests sent by this call.
        max_cost: Maximum cost of this call, in the currency of the model's price.
        progress: Called after each answer and each batch of dialogues, and when the run waits.
        workspace: Created if missing.

    Raises:
        ConfigError: No domain is given, or a limit cannot be checked.
        UnknownNameError: There is no such domain or provider.
        CredentialsError: The key is missing or was refused; stored answers are kept.
        InterruptedGeneration: The user interrupted the run; a KeyboardInterrupt with the report
            so far.
    """
    check_at_least_one(count=count, concurrency=concurrency, max_requests=max_requests)
    opened = as_workspace(workspace, create=True, provider=provider, model=model, base_url=base_url)
    return generation.generate(
        opened,
        **_scope(domains),
        count=count,
        concurrency=concurrency,
        max_requests=max_requests,
        max_cost=max_cost,
        progress=progress,
    )


def estimate_cost(
    domains: str | Sequence[str | Domain] = (),
    *,
    count: int | None = None,
    provider: str | None = None,
    model: str | None = None,
    base_url: str | None = None,
    workspace: WorkspaceLike = None,
) -> CostEstimate:
    """Render the first prompt of :func:`generate` and estimate its cost, without sending it.

    The arguments are those of :func:`generate`. Nothing is stored, and no key is needed.
    """
    check_at_least_one(count=count)
    opened = as_workspace(workspace, create=True, provider=provider, model=model, base_url=base_url)
    return generation.estimate_cost(opened, **_scope(domains), count=count)


def _scope(domains: str | Sequence[str | Domain]) -> dict[str, Any]:
    named = [domains] if isinstance(domains, str) else domains
    ids = [each.id if isinstance(each, Domain) else each for each in named]
    return {"all_domains": True} if ids == ["all"] else {"domains": ids}


def import_files(
    source: Source,
    *,
    format: str | None = None,
    license: str | None = None,
    encoding: str | None = None,
    workspace: WorkspaceLike = None,
) -> ImportResult:
    """Store files or in-memory rows unchanged, skipping what is already stored.

    A file that cannot be read is listed in `ImportResult.failed`, and the others are imported.

    Args:
        source: Files in JSON, JSON Lines or CSV; a list of dicts; or a `datasets.Dataset`.
        format: A name in :data:`clm_data.sources.FORMATS`; default: detected from the fields.
        license: License of the content, if known.
        encoding: Encoding of the files; default: found if it is certain.
        workspace: Created if missing.

    Raises:
        UnknownNameError: There is no such format.
        InputFileError: There are no rows, or the layout of rows in memory is not known.
    """
    check_text(format=format, license=license, encoding=encoding)
    opened = as_workspace(workspace, create=True)
    return import_into(opened, inputs(source), format=format, licence=license, encoding=encoding)


@dataclass(frozen=True)
class Audit(Tabular):
    """The problems in a set of entries, and the entries that would be kept.

    Attributes:
        report: The problems by code, language and field.
        candidates: Everything that could be read.
        unreadable: Everything that could not be read.
        rule: Arguments of :func:`clm_data.dedup.deduplicate_entries`.
        reading: Fields of the files that are not read, and rows that cannot be used.
    """

    report: AuditReport
    candidates: tuple[Candidate, ...]
    unreadable: tuple[Rejection, ...]
    rule: Mapping[str, Any]
    reading: Reading = field(default_factory=Reading)

    def as_json(self) -> dict[str, Any]:
        """The JSON value that ``clm-data audit --json`` prints."""
        read = {"unread": self.reading.unread, "pairing": list(self.reading.pairing)}
        return {**self.report.as_json(), **read}

    def as_html(self, title: str = "Audit") -> str:
        """The page that ``clm-data audit --html`` writes."""
        return self.report.as_html(title, self.reading.notes())

    @property
    def by_code(self) -> dict[str, int]:
        """Findings by code, over languages and fields."""
        counts: Counter[str] = Counter()
        for problem in self.report.problems:
            counts[problem.code] += problem.count
        return dict(counts)

    def entries(self) -> StageResult[Entry]:
        """Validate and deduplicate: `kept` are valid entries, `rejected` the rest with reasons."""
        valid = validate(self.candidates)
        unique = deduplicate_entries(valid.kept, **self.rule)
        rejected = (*self.unreadable, *valid.rejected, *unique.rejected)
        return StageResult(unique.kept, rejected, (*valid.warnings, *unique.warnings))

    def table_title(self) -> str:
        """Title of the table, with the numbers of entries and kinds of problems."""
        return f"Audit: {self.report.entries} entries, {len(self.report.problems)} kinds of problem"

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each code, language and field."""
        return [
            {
                "code": found.code,
                "severity": found.severity,
                "lang": found.lang,
                "field": found.field,
                "count": found.count,
                "example": found.examples[0].message,
            }
            for found in self.report.problems
        ]


def audit(
    source: Source | None = None,
    *,
    format: str | None = None,
    threshold: float | None = None,
    encoding: str | None = None,
    workspace: WorkspaceLike = None,
) -> Audit:
    """List every problem in files, in-memory rows or a workspace, without changing anything.

    The Chinese and the English file of a dataset, given together, make bilingual entries.

    Args:
        source: Files, a list of dicts, or a `datasets.Dataset`; None: everything in the workspace.
        format: A name in :data:`clm_data.sources.FORMATS`; default: detected from the fields.
        threshold: Prompts more similar than this are near-duplicates. Default: the setting of the
            workspace, or 0.9 for a source.
        encoding: Encoding of the files; default: found if it is certain.
        workspace: Audited if there is no source.

    Raises:
        InputFileError: A file is unreadable, or a layout is not known.
    """
    check_text(format=format, encoding=encoding)
    if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
        raise ConfigError(f"threshold is {threshold!r}; pass a similarity from 0 to 1")
    if source is not None:
        files = source_files(source, format, encoding=encoding)
        found, rule = candidates_of(files), DedupSettings().model_dump()
        reading = reading_of(files, found)
    else:
        opened = as_workspace(workspace)
        with opened.open_store() as store:
            read = read_candidates(store, opened.domains())
            reading = reading_of(stored_files(store))
            decided = apply_decisions(read.kept, store.decisions())
        found = StageResult(decided.kept, (*read.rejected, *decided.rejected))
        rule = {**opened.settings.dedup.model_dump(), "reviewed": frozenset(decided.status)}
    if threshold is not None:
        rule["threshold"] = threshold
    report = audit_candidates(found.kept, unreadable=found.rejected, **rule)
    return Audit(report, found.kept, found.rejected, rule, reading)


def show(what: str, *, workspace: WorkspaceLike = None) -> Trace:
    """Show what happened to an entry or an answer, from the request to the dataset.

    Args:
        what: Id of an entry; `DOMAIN/DIALOGUE/TURN` (from 0), as in messages, for an answer and
            what was found in it, rejected objects included; `DOMAIN/DIALOGUE` for all turns; or
            `FILE#ROW` (from 1) for an imported row.
        workspace: Its store is only read. Damaged rows are left out and named in the result.

    Raises:
        UnknownNameError: Nothing has that name; the nearest names are suggested.
        StoreError: The store is missing or cannot be read.
    """
    if not isinstance(what, str) or not what.strip():
        raise ConfigError(f"{what!r} is no name; pass the id of an entry or DOMAIN/DIALOGUE/TURN")
    opened = as_workspace(workspace)
    with opened.open_store() as store:
        return trace(store, what, opened.domains(), opened.settings)


@dataclass(frozen=True)
class ProbeReport:
    """What :func:`attach_probes` found.

    Attributes:
        settings: Section `locality` of `clm.yaml`, as saved.
        usable: Probes of the source that can be used.
        entries: Entries of the workspace, each with a probe.
        rejected: Unusable probes, by code.
    """

    settings: LocalitySettings
    usable: int
    entries: int
    rejected: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            **self.settings.model_dump(),
            "usable": self.usable,
            "entries": self.entries,
            "rejected": dict(self.rejected),
        }


def attach_probes(
    source: str | Path = BANK,
    *,
    seed: int | None = None,
    repeat: bool | None = None,
    encoding: str | None = None,
    workspace: WorkspaceLike = None,
) -> ProbeReport:
    """Choose where locality probes come from, after trying the source on the entries.

    The choice is saved in `clm.yaml`; `build` draws the probes.

    Args:
        source: `bank`, a file or folder (CLM-Bench, Bi-ZsRE, or a list of bilingual probes in YAML
            or JSON), or `hub:ID`.
        seed: Random seed for drawing probes; default: the workspace's setting.
        repeat: Use probes more than once if there are too few; default: the workspace's setting.
        encoding: Encoding of the source's files; default: found if it is certain.
        workspace: See :data:`clm_data.api.inputs.WorkspaceLike`.

    Raises:
        InputFileError: The source does not exist or cannot be read.
        ConfigError: `seed` is not an integer, or `repeat` is not true or false.
        UserError: There are too few probes for the entries.
    """
    check_text(encoding=encoding)
    opened = as_workspace(workspace)
    given = {"source": _probe_source(str(source), opened), "seed": seed, "repeat": repeat}
    values = opened.settings.locality.model_dump() | {"encoding": encoding}
    values |= {name: value for name, value in given.items() if value is not None}
    chosen = parse_settings({"locality": values}, "attach_probes").locality
    probes = read_probes(chosen.source, opened.path, chosen.encoding)
    with opened.open_store() as store:
        assembly = assemble(store, opened.domains(), opened.settings)
    located = attach(
        assembly.entries, probes, seed=chosen.seed, repeat=chosen.repeat, status=assembly.status
    )
    opened.use_locality(chosen)
    codes = Counter(rejection.code for rejection in located.rejected)
    return ProbeReport(chosen, len(probes.kept), len(located.kept), dict(sorted(codes.items())))


def _probe_source(source: str, workspace: Workspace) -> str:
    """The source as `clm.yaml` names it: paths inside the workspace are relative."""
    if source == BANK or source.startswith(HUB_PREFIX):
        return source
    if not source.strip():
        raise InputFileError("the source is empty; pass bank, a file or folder, or hub:ID")
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise InputFileError(f"{source}: no such file; a dataset on the Hub is hub:{source}")
    root = workspace.path.absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def stats(workspace: WorkspaceLike = None) -> Stats:
    """Count what a build would contain now: by domain, review status, source and rejection."""
    opened = as_workspace(workspace)
    found = building.collect_records(opened)
    return statistics(found.kept, found.rejected, found.warnings, opened.domains())


def build(
    out: str | Path | None = None,
    *,
    reviewed_only: bool = False,
    workspace: WorkspaceLike = None,
) -> BuildReport:
    """Build the dataset from everything in the store: Parquet, JSON, card, chart, manifest.

    The same store and settings always give the same files, byte for byte.

    Args:
        out: Folder to write; default: `dataset` in the workspace. An earlier build is replaced.
        reviewed_only: Include only entries that reviewers accepted or fixed.
        workspace: See :data:`clm_data.api.inputs.WorkspaceLike`.

    Raises:
        UserError: There is nothing to build, or `out` contains other files.
    """
    opened = as_workspace(workspace)
    folder = Path(out) if out is not None else opened.path / "dataset"
    return building.build(opened, folder, reviewed_only=reviewed_only)

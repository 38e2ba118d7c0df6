"""Review of a workspace: export a sheet, import completed sheets, count what is reviewed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.assemble import assemble, read_candidates
from clm_data.config import Workspace
from clm_data.domain import load_domains
from clm_data.errors import UnknownNameError
from clm_data.review.decisions import current_contents
from clm_data.review.intake import ImportReport, import_sheet
from clm_data.review.queue import DomainStatus, build_queue, count_by_domain
from clm_data.review.sheet import write_sheet
from clm_data.store import Store
from clm_data.validate import problems_of


@dataclass(frozen=True)
class SheetReport:
    """What :func:`export_sheet` wrote."""

    file: Path
    entries: int
    """Rows of the sheet."""
    too_long: tuple[str, ...] = ()
    """Ids of entries left out because a text is longer than a spreadsheet cell can hold."""

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"file": str(self.file), "entries": self.entries, "too_long": list(self.too_long)}


def export_sheet(
    workspace: Workspace,
    out: Path,
    *,
    domains: Sequence[str] = (),
    include_rejected: bool = False,
    unreviewed_only: bool = True,
    limit: int | None = None,
    encoding: str = "utf-8-sig",
    force: bool = False,
) -> SheetReport:
    """Write a review sheet: one row per entry, both languages, with the problems found.

    Args:
        workspace: The workspace to review.
        out: File to write, ``*.xlsx`` or ``*.csv``.
        domains: Include only these domains; default: all.
        include_rejected: Add entries that the checks rejected and a person could fix.
        unreviewed_only: Leave out entries with a verdict on their current text.
        limit: Maximum number of entries.
        encoding: Encoding of CSV, one of :data:`clm_data.review.sheet.ENCODINGS`.
        force: Replace an existing file, which may contain verdicts.

    Raises:
        UnknownNameError: A domain is neither in the domain file nor in the data.
        UserError: The file exists or cannot be written, or the encoding is not supported.
    """
    known = load_domains(workspace.domains_file)
    with Store(workspace.store_url) as store:
        assembly = assemble(store, known, workspace.settings)
        decisions = store.decisions()
    used = {content.domain for content in assembly.candidates if content.domain}
    _check_domains(domains, known.keys() | used)
    queue = build_queue(
        assembly.entries,
        assembly.warnings,
        assembly.status,
        rejected=assembly.rejected if include_rejected else (),
        contents=current_contents(assembly.candidates, decisions),
        decisions=decisions,
        domains=domains,
        unreviewed_only=unreviewed_only,
        limit=limit,
    )
    write_sheet(queue.items, out, encoding=encoding, force=force)
    return SheetReport(out, len(queue.items), queue.too_long)


def import_sheets(
    workspace: Workspace,
    files: Iterable[Path],
    *,
    reviewer: str | None = None,
    dry_run: bool = False,
    progress: Callable[[Path, ImportReport], None] = lambda _file, _report: None,
) -> dict[Path, ImportReport]:
    """Store the verdicts of completed review sheets, one transaction per sheet.

    Importing a sheet again adds nothing. A row whose entry has changed since the export, or whose
    texts contradict its verdict, is reported and not applied.

    Args:
        workspace: The workspace that the sheets were exported from.
        files: CSV or XLSX files.
        reviewer: Name for rows whose ``reviewer`` column is empty.
        dry_run: Report what would be stored, and store nothing.
        progress: Called with each file and its report.

    Returns:
        The report on each file.

    Raises:
        UserError: A sheet cannot be read, or a verdict has no reviewer. Nothing of that sheet is
            stored; earlier sheets are.
    """
    reports = {}
    with Store(workspace.store_url) as store:
        candidates = read_candidates(store, load_domains(workspace.domains_file)).kept
        for file in files:
            reports[file] = import_sheet(
                store, candidates, file, reviewer=reviewer, check=problems_of, dry_run=dry_run
            )
            progress(file, reports[file])
    return reports


def review_status(workspace: Workspace) -> list[DomainStatus]:
    """Count accepted, fixed, rejected and unreviewed entries by domain, in the file's order."""
    domains = load_domains(workspace.domains_file)
    with Store(workspace.store_url) as store:
        assembly = assemble(store, domains, workspace.settings)
    return count_by_domain(assembly.entries, assembly.status, assembly.rejected, domains)


def _check_domains(names: Iterable[str], known: Iterable[str]) -> None:
    known = set(known)
    for name in names:
        if name not in known:
            raise UnknownNameError("domain", name, known)

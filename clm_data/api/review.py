"""Review by people: sheets out, verdicts in, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.api.inputs import WorkspaceLike, as_workspace, check_at_least_one
from clm_data.assemble import assemble, read_candidates
from clm_data.errors import UnknownNameError
from clm_data.review.decisions import DISPUTE, current_contents
from clm_data.review.intake import ImportReport, import_sheet
from clm_data.review.queue import DomainStatus, build_queue, count_by_domain
from clm_data.review.sheet import write_sheet
from clm_data.tabular import Listing
from clm_data.validate import problems_of

__all__ = ["export_review", "import_review", "review_status"]


@dataclass(frozen=True)
class SheetReport:
    """What :func:`export_review` wrote.

    Attributes:
        file: The sheet.
        entries: Rows of the sheet.
        too_long: Ids of entries left out because a text is longer than a spreadsheet cell can
            hold.
    """

    file: Path
    entries: int
    too_long: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"file": str(self.file), "entries": self.entries, "too_long": list(self.too_long)}


def export_review(
    out: str | Path = "review.xlsx",
    *,
    domains: str | Sequence[str] = (),
    include_rejected: bool = False,
    unreviewed_only: bool = True,
    limit: int | None = None,
    encoding: str = "utf-8-sig",
    force: bool = False,
    workspace: WorkspaceLike = None,
) -> SheetReport:
    """Write a review sheet: one row per entry, both languages, with the problems found.

    Entries on which reviewers disagree come first, with the decisions among the problems.

    Args:
        out: File to write, `*.xlsx` or `*.csv`.
        domains: Include only these domains; default: all.
        include_rejected: Add entries that the checks rejected but a person could fix.
        unreviewed_only: Leave out entries with a verdict on their current text.
        limit: Maximum number of entries.
        encoding: CSV encoding: `utf-8-sig` (opens correctly in Excel), `utf-8` or `gb18030`.
        force: Replace an existing file, which may contain verdicts.
        workspace: See :data:`clm_data.api.inputs.WorkspaceLike`.

    Raises:
        UnknownNameError: A domain is neither in the domain file nor in the data.
        UserError: The file exists or cannot be written, or the encoding is not supported.
    """
    check_at_least_one(limit=limit)
    opened = as_workspace(workspace)
    known = opened.domains()
    wanted = [domains] if isinstance(domains, str) else list(domains)
    with opened.open_store() as store:
        assembly = assemble(store, known, opened.settings)
        decisions = store.decisions()
    _check_domains(wanted, {*known, *(item.domain for item in assembly.candidates if item.domain)})
    queue = build_queue(
        assembly.entries,
        assembly.warnings,
        assembly.status,
        rejected=[each for each in assembly.rejected if include_rejected or each.code == DISPUTE],
        contents=current_contents(assembly.candidates, decisions),
        decisions=decisions,
        domains=wanted,
        unreviewed_only=unreviewed_only,
        limit=limit,
    )
    write_sheet(queue.items, Path(out), encoding=encoding, force=force)
    return SheetReport(Path(out), len(queue.items), queue.too_long)


def import_review(
    files: str | Path | Sequence[str | Path],
    *,
    reviewer: str | None = None,
    encoding: str | None = None,
    dry_run: bool = False,
    progress: Callable[[Path, ImportReport], None] = lambda _file, _report: None,
    workspace: WorkspaceLike = None,
) -> dict[Path, ImportReport]:
    """Store the verdicts of completed review sheets, one transaction per sheet.

    Importing a sheet again adds nothing. A verdict contrary to one that its reviewer did not know
    is stored as well, and the entry stays out of builds until someone settles it. A row whose entry
    has changed since the export, or whose texts contradict its verdict, is reported and not
    applied.

    Args:
        files: Completed sheets, CSV or XLSX.
        reviewer: Reviewer's name for rows with an empty `reviewer` column.
        encoding: Encoding of CSV sheets, such as `gb18030` or `big5`; default: the one that is
            certain. A sheet of an uncertain encoding is refused.
        dry_run: Report what would be stored, without storing it.
        progress: Called with each file and its report.
        workspace: The workspace that the sheets were exported from.

    Returns:
        The report on each file.

    Raises:
        UserError: A sheet cannot be read, or a verdict has no reviewer. That sheet is not stored;
            earlier sheets are.
    """
    opened = as_workspace(workspace)
    reports = {}
    with opened.open_store() as store:
        candidates = read_candidates(store, opened.domains()).kept
        for file in map(Path, [files] if isinstance(files, str | Path) else files):
            reports[file] = import_sheet(
                store,
                candidates,
                file,
                reviewer=reviewer,
                check=problems_of,
                dry_run=dry_run,
                encoding=encoding,
            )
            progress(file, reports[file])
    return reports


def review_status(workspace: WorkspaceLike = None) -> Listing[DomainStatus]:
    """Count accepted, fixed, rejected and unreviewed entries by domain, in the file's order."""
    opened = as_workspace(workspace)
    domains = opened.domains()
    with opened.open_store() as store:
        assembly = assemble(store, domains, opened.settings)
    counts = count_by_domain(assembly.entries, assembly.status, assembly.rejected, domains)
    return Listing(counts, "review")


def _check_domains(names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError("domain", name, known)

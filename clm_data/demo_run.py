"""The full pipeline, offline on bundled data: ``clm-data demo``.

The steps are the same as with a real model; only the provider differs. Running the demo again on
the same folder resumes it; completed steps are not repeated.
"""

from __future__ import annotations

import csv
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from clm_data import bank, sources
from clm_data.assemble import assemble
from clm_data.building import CHART_NAME, REJECTED_NAME, BuildReport, build, collect
from clm_data.codes import CODES
from clm_data.config import CONFIG_NAME, Workspace, make_folder, open_workspace
from clm_data.errors import ConfigError
from clm_data.files import atomic_file
from clm_data.generation import generate
from clm_data.log import Log
from clm_data.records import Problem, Rejection
from clm_data.resources import bank_path
from clm_data.review.intake import import_sheet
from clm_data.review.queue import build_queue
from clm_data.review.sheet import write_sheet
from clm_data.store import Store

_REVIEW_CODE = "rejected-by-reviewer"

_CONFIG = f"""\
# Workspace of the demo. All data comes from the bank that ships with clm-data.
provider: offline
dataset:
  name: clm-demo
  title: clm-data demo
  licence: {bank.BANK_LICENSE}
"""


def run_demo(folder: Path, log: Log, program: str = "clm-data") -> BuildReport:
    """Generate, import, review and build in a new workspace.

    Args:
        folder: Folder of the workspace. It is created, or an earlier demo in it is resumed.
        log: Called with lines of output.
        program: Command name for the examples at the end.

    Raises:
        ConfigError: The folder is a workspace that the demo did not create.
    """
    workspace = _workspace(folder)
    log(f"1. generate: {len(workspace.domains())} domains, answered by the bundled bank")
    _generate(workspace, log)
    with workspace.open_store() as store:
        log("2. import: a small file in the published CLM-Bench layout")
        _import(store)
        log("3. review: a sheet is exported and imported again with a reviewer's verdicts")
        _review(workspace, store, log)
    log("4. build")
    report = build(workspace, workspace.path / "dataset")
    for line in report.summary():
        log(line)
    collected = collect(workspace)
    warned = [problem for _, problem in collected.assembly.warnings]
    _show_codes(collected.rejected, warned, log)
    _show_next(folder, log, shlex.quote(program), collected.rejected)
    return report


def _workspace(folder: Path) -> Workspace:
    file = folder / CONFIG_NAME
    if not file.exists():
        make_folder(folder)
        with atomic_file(file) as draft:
            draft.write_text(_CONFIG, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != _CONFIG:
        raise ConfigError(f"{folder} is another workspace; choose a new folder: clm-data demo DIR")
    return open_workspace(folder, environ={})


def _generate(workspace: Workspace, log: Log) -> None:
    report = generate(workspace, all_domains=True)
    new = sum(domain.new for domain in report.domains)
    log(f"   {report.requests} requests, {new} new entries in {len(report.domains)} domains")


def _import(store: Store) -> None:
    file = sources.read_file(bank_path("published_rows.json"))
    store.add_source(file.name, file.format, file.sha256, bank.BANK_LICENSE, file.rows)


def _review(workspace: Workspace, store: Store, log: Log) -> None:
    """Export a sheet, reject the errors in it that only a person can find, and import it."""
    sheet = workspace.path / "review.csv"
    domains = workspace.domains()
    assembly = assemble(store, domains, workspace.settings)
    queue = build_queue(assembly.entries, assembly.warnings, assembly.status)
    write_sheet(queue.items, sheet, force=True)
    wrong = {d.zh.prompt for d in bank.load_defects() if d.code == _REVIEW_CODE and d.zh}
    _reject(sheet, wrong)
    report = import_sheet(store, assembly.candidates, sheet, reviewer="demo")
    log(f"   {len(queue.items)} rows exported, {report.applied['reject']} rejected by the reviewer")


def _reject(sheet: Path, prompts: Collection[str | None]) -> None:
    """Write the verdict ``reject`` into the rows with these Chinese prompts."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names, rows = list(reader.fieldnames or ()), list(reader)
    for row in rows:
        if row["zh_prompt"] in prompts:
            row |= {"verdict": "reject", "note": "事实有误 (the ground truth is wrong)"}
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _show_codes(rejected: Iterable[Rejection], warned: Iterable[Problem], log: Log) -> None:
    """Log how often each code was reported."""
    errors = Counter(code for r in rejected for code in {problem.code for problem in r.problems})
    warnings = Counter(problem.code for problem in warned)
    for severity, counts in (("error", errors), ("warning", warnings)):
        log(f"{severity}s by code:")
        for name, code in CODES.items():
            if code.severity == severity:
                log(f"  {counts[name]:4}  {name:24} {code.zh}")


def _show_next(folder: Path, log: Log, program: str, rejected: Sequence[Rejection]) -> None:
    dataset = folder / "dataset"
    log("results:")
    log(f"  {dataset / 'README.md'}  the dataset card")
    log(f"  {dataset / CHART_NAME}  chart of entries by domain")
    log(f"  {dataset / REJECTED_NAME}  rejected entries with reasons")
    log(f"  {folder / 'review.csv'}  the review sheet")
    log("next steps:")
    command = f"{program} --workspace {shlex.quote(str(folder))}"
    log(f"  {command} audit --html audit.html")
    for each in rejected[:1]:
        log(f"  {command} show {each.id}")
    log(f"  {command} push-to-hub me/demo --dry-run")
    log(f"  {program} init my-dataset   (with a real model: docs/how-to/real-model.md)")

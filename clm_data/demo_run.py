"""The whole way on the bundled bank, offline: what ``make demo`` runs.

Every step is the one a user takes with a real model; only the provider differs. Running it again on
the same folder continues where it stopped and changes nothing that is done.
"""

from __future__ import annotations

import asyncio
import csv
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from clm_data import bank, sources
from clm_data.assemble import assemble
from clm_data.building import CHART_NAME, REJECTED_NAME, BuildReport, build, collect
from clm_data.codes import CODES
from clm_data.config import CONFIG_NAME, Workspace, open_workspace
from clm_data.errors import ConfigError
from clm_data.generation.run import run_generation
from clm_data.llm import open_model
from clm_data.prompts import Prompts
from clm_data.records import Problem, Rejection
from clm_data.resources import bank_path
from clm_data.review.intake import import_sheet
from clm_data.review.queue import build_queue
from clm_data.review.sheet import write_sheet
from clm_data.store import Store

Say = Callable[[str], None]

_FOR_PEOPLE = "rejected-by-reviewer"

_CONFIG = f"""\
# The demo's workspace: everything comes from the bank that ships with clm-data.
provider: offline
dataset:
  name: clm-demo
  title: clm-data demo
  licence: {bank.BANK_LICENSE}
"""


def run_demo(folder: Path, say: Say, program: str = "clm-data") -> BuildReport:
    """Generate, import, review and build in a workspace of its own.

    Args:
        folder: Made if absent; an earlier demo's is continued.
        say: Takes lines for people.
        program: How this program is called, for the commands to try next.

    Raises:
        ConfigError: The folder is a workspace of somebody else's.
    """
    workspace = _workspace(folder)
    with workspace.open_store() as store:
        say("1. generate: 24 domains, asked of the bundled bank as of any model")
        _generate(workspace, store, say)
        say("2. import: a small file in the layout in which CLM-Bench is published")
        _import(store)
        say("3. review: a sheet goes out, and comes back with what only a person can see")
        _review(workspace, store, say)
    say("4. build")
    report = build(workspace, workspace.path / "dataset")
    for line in report.summary():
        say(line)
    collected = collect(workspace)
    warned = [problem for _, problem in collected.assembly.warnings]
    _show_codes(collected.rejected, warned, say)
    _show_next(folder, say, shlex.quote(program))
    return report


def _workspace(folder: Path) -> Workspace:
    file = folder / CONFIG_NAME
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(_CONFIG, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != _CONFIG:
        raise ConfigError(f"{folder} is a workspace already; name another: clm-data demo DIR")
    return open_workspace(folder, environ={})


def _generate(workspace: Workspace, store: Store, say: Say) -> None:
    domains = workspace.domains()
    report = asyncio.run(
        run_generation(
            store,
            open_model(workspace.settings),
            list(domains.values()),
            all_domains=domains,
            settings=workspace.settings,
            prompts=Prompts(workspace.prompts_folder),
        )
    )
    new = sum(domain.new for domain in report.domains)
    say(f"   {report.requests} requests, {new} new entries in {len(report.domains)} domains")


def _import(store: Store) -> None:
    file = sources.read_file(bank_path("published_rows.json"))
    store.add_source(file.name, file.format, file.sha256, bank.BANK_LICENSE, file.rows)


def _review(workspace: Workspace, store: Store, say: Say) -> None:
    """Export a sheet, reject in it what the bank planted for a person to find, import it."""
    sheet = workspace.path / "review.csv"
    domains = workspace.domains()
    assembly = assemble(store, domains, workspace.settings)
    queue = build_queue(assembly.entries, assembly.warnings, assembly.status)
    write_sheet(queue.items, sheet, force=True)
    wrong = {d.zh.prompt for d in bank.load_defects() if d.code == _FOR_PEOPLE and d.zh}
    _reject(sheet, wrong)
    report = import_sheet(store, assembly.candidates, sheet, reviewer="demo")
    say(f"   {len(queue.items)} rows out; {report.applied['reject']} came back rejected")


def _reject(sheet: Path, prompts: Collection[str | None]) -> None:
    """Write the verdict ``reject`` into the rows with one of these Chinese prompts."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names, rows = list(reader.fieldnames or ()), list(reader)
    for row in rows:
        if row["zh_prompt"] in prompts:
            row |= {"verdict": "reject", "note": "事实有误 (the truth is not true)"}
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _show_codes(rejected: Iterable[Rejection], warned: Iterable[Problem], say: Say) -> None:
    """Every code and how often it struck."""
    errors = Counter(code for r in rejected for code in {problem.code for problem in r.problems})
    warnings = Counter(problem.code for problem in warned)
    for severity, counts in (("error", errors), ("warning", warnings)):
        say(f"{severity}s by code:")
        for name, code in CODES.items():
            if code.severity == severity:
                say(f"  {counts[name]:4}  {name:24} {code.zh}")


def _show_next(folder: Path, say: Say, program: str) -> None:
    dataset = folder / "dataset"
    say("look at:")
    say(f"  {dataset / 'README.md'}  the card")
    say(f"  {dataset / CHART_NAME}  entries by domain")
    say(f"  {dataset / REJECTED_NAME}  what was not kept, and why")
    say(f"  {folder / 'review.csv'}  the sheet that reviewers get")
    say("then:")
    there = f"{program} --workspace {shlex.quote(str(folder))}"
    say(f"  {there} audit --html audit.html")
    say(f"  {there} push-to-hub me/demo --dry-run")
    say(f"  {program} init my-dataset   and a real model: docs/how-to/real-model.md")

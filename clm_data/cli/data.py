"""Commands that bring data in and out: import, export, locality attach."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clm_data.cli.app import app
from clm_data.cli.common import JsonFlag, State, note, open_store, print_json, print_table, say

if TYPE_CHECKING:
    from clm_data.config import Workspace
    from clm_data.store import Store

locality_app = typer.Typer(
    help="Where the locality probes come from.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(locality_app, name="locality")


@app.command("import")
def import_files(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="JSON, JSON Lines or CSV files.")],
    format: Annotated[
        str | None, typer.Option("--format", help="Format of the files; default: recognised.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence of the content, where you know it.")
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Take files into the store: CLM-Bench, EasyEdit, CounterFact, ZsRE, Bi-ZsRE, CSV, our own.

    No row is altered or dropped, and a file that is there already is not added again. A file that
    cannot be read is reported, the others are taken.

    Example: `clm-data import chinese_fields_with_loc.json english_fields_with_loc.json`
    """
    from clm_data.errors import InputFileError
    from clm_data.sources import stored_candidates

    state: State = ctx.obj
    with open_store(state.workspace(create=True)) as store:
        results = []
        for file in files:
            try:
                results.append(_import_one(store, file, format, licence))
            except InputFileError as error:
                results.append({"file": str(file), "error": str(error)})
        found = len(stored_candidates(store).kept)
    broken = [result for result in results if "error" in result]
    if json:
        print_json({"files": results, "candidates": found})
        return 2 if broken else 0
    rows = [[r["file"], r["format"], r["rows"], r["state"]] for r in results if "rows" in r]
    if rows:
        print_table("imported", ["file", "format", "rows", "state"], rows)
    for result in broken:
        note(f"error: {result['error']}")
    say(f"imported files hold {found} candidates; next: clm-data audit")
    return 2 if broken else 0


@app.command()
def export(
    ctx: typer.Context,
    *,
    out: Annotated[Path, typer.Option("--out", help="New or empty folder to write.")],
    format: Annotated[
        str, typer.Option("--format", help="clm-bench, jsonl, csv or easyedit.")
    ] = "clm-bench",
    unchecked: Annotated[
        bool,
        typer.Option("--unchecked", help="The imported CLM-Bench rows as they came, all of them."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files of equal names in a folder with files.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Write the records, those that `build` would write, in a format others read.

    Example: `clm-data export --format easyedit --out easyedit`
    """
    from clm_data.errors import UnknownNameError, UserError
    from clm_data.exporting import CLM_BENCH, EXPORTERS, write_folder

    if format not in EXPORTERS:
        raise UnknownNameError("export format", format, EXPORTERS)
    if unchecked and format != CLM_BENCH:
        raise UserError(f"--unchecked goes with --format {CLM_BENCH} only; leave one of them out")
    state: State = ctx.obj
    workspace = state.workspace()
    if unchecked:
        texts, counts = _unchecked(workspace)
    else:
        from clm_data.building import collect_records

        records = collect_records(workspace).kept
        if not records:
            raise UserError("no records to export; see what is missing with: clm-data audit")
        texts = EXPORTERS[format](records)
        counts = dict.fromkeys(texts, len(records))
    write_folder(out, texts, force=force)
    if json:
        print_json({"folder": str(out), "files": counts})
        return
    for name, count in counts.items():
        say(f"{out / name}: {count} {'rows' if unchecked else 'records'}")


@locality_app.command()
def attach(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Option("--source", help="A file or folder, hub:ID of a dataset, or bank.")
    ],
    seed: Annotated[int | None, typer.Option(help="Another seed draws other probes.")] = None,
    repeat: Annotated[
        bool | None,
        typer.Option("--repeat/--no-repeat", help="Use probes again when there are too few."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Choose the source of locality probes, after trying it on the entries there are.

    The choice is kept in `clm.yaml`; `build` draws from it. Sources: CLM-Bench, Bi-ZsRE, and lists
    of bilingual probes in YAML or JSON.

    Example: `clm-data locality attach --source bi_zsre.json --seed 7`
    """
    from collections import Counter

    from clm_data.assemble import assemble
    from clm_data.config import save_locality
    from clm_data.domain import load_domains
    from clm_data.locality import attach as attach_probes
    from clm_data.locality import read_probes

    state: State = ctx.obj
    workspace = state.workspace()
    given = {"source": _from_workspace(source, workspace.path), "seed": seed, "repeat": repeat}
    chosen = workspace.settings.locality.model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )
    probes = read_probes(chosen.source, workspace.path)
    with open_store(workspace) as store:
        assembly = assemble(store, load_domains(workspace.domains_file), workspace.settings)
    located = attach_probes(
        assembly.entries, probes, seed=chosen.seed, repeat=chosen.repeat, status=assembly.status
    )
    save_locality(workspace.path, chosen)
    codes = Counter(rejection.code for rejection in located.rejected)
    result = {
        **chosen.model_dump(),
        "usable": len(probes.kept),
        "entries": len(located.kept),
        "rejected": dict(sorted(codes.items())),
    }
    if json:
        print_json(result)
        return
    refused = ", ".join(f"{count} {code}" for code, count in sorted(codes.items())) or "none"
    say(f"{chosen.source}: {len(probes.kept)} usable probes; rejected: {refused}")
    say(f"each of {len(located.kept)} entries has one; kept in {workspace.path / 'clm.yaml'}")


def _import_one(
    store: Store, file: Path, format: str | None, licence: str | None
) -> dict[str, Any]:
    from clm_data.sources import read_file

    source = read_file(file, format, licence)
    new = store.add_source(source.name, source.format, source.sha256, licence, source.rows)
    return {
        "file": str(file),
        "format": source.format,
        "rows": len(source.rows),
        "state": "new" if new else "already there",
    }


def _unchecked(workspace: Workspace) -> tuple[dict[str, str], dict[str, int]]:
    """(texts, row counts) by file name; says on stderr what is not among them."""
    from clm_data.errors import UserError
    from clm_data.exporting import is_published, json_text, published_rows
    from clm_data.layouts import PUBLISHED_FILES
    from clm_data.sources import stored_files

    with open_store(workspace) as store:
        files = stored_files(store)
    rows = published_rows(files)
    if not rows:
        raise UserError("no CLM-Bench file was imported; bring one in with: clm-data import FILE")
    others = sum(not is_published(file) for file in files)
    if others:
        note(f"{others} imported files of other formats are not in this export")
    for name in PUBLISHED_FILES:
        if name not in rows:
            note(f"{name} is not written: only one language was imported")
    counts = {name: len(part) for name, part in rows.items()}
    return {name: json_text(part) for name, part in rows.items()}, counts


def _from_workspace(source: str, folder: Path) -> str:
    """A path as the workspace sees it: relative where it lies inside; other sources as they are."""
    from clm_data.errors import InputFileError
    from clm_data.probes import BANK, HUB_PREFIX

    if source == BANK or source.startswith(HUB_PREFIX):
        return source
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise InputFileError(f"{source}: no such file; a dataset on the Hub is hub:{source}")
    root = folder.absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

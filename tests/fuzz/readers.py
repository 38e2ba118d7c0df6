"""The table of readers: how inputs are made, how they are read, and what must not get lost."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.review_sheets import ReviewFolder, candidates

from clm_data.assemble import read_candidates
from clm_data.brackets import Node, match_brackets
from clm_data.config import open_workspace
from clm_data.dedup.files.arrow_tables import ParquetTable
from clm_data.domain import load_domains
from clm_data.eval.recipe import read_recipe
from clm_data.files import read_yaml
from clm_data.llm.address import parse_address
from clm_data.llm.base import Completion
from clm_data.llm.openai_compatible import OpenAICompatibleModel
from clm_data.llm.transport import Endpoint
from clm_data.parse import find_objects, parse_entries
from clm_data.reasoning import split_reasoning
from clm_data.records import Origin
from clm_data.resources import resource
from clm_data.review.queue import item_of
from clm_data.review.sheet import write_csv, write_xlsx
from clm_data.sources import candidates_of, read_file
from clm_data.sources.notices import reading_of
from clm_data.store import NewDialogue, NewRequest, RequestOutcome, Store
from clm_data.store_check import check_store
from fuzz import inputs
from fuzz.harness import Read, Reader

_ORIGIN = Origin(kind="model", name="m")
_MARK = re.compile(r"标记\d+。")
_MARK_OF_FIELD = re.compile(
    rf"[\"'](?:{'|'.join(inputs.FIELDS)})[\"']\s*[:：]\s*[\"'][^\"']*?(标记\d+。)"
)


def _answers(_: Path) -> Read:
    def read(data: bytes) -> str | None:
        text = data.decode("utf-8", "replace")
        found = find_objects(text)
        result = parse_entries(text, domain="d", label="a", origin=_ORIGIN)
        if len(result.kept) + len(result.rejected) != len(found):
            return (
                f"{len(found)} objects, {len(result.kept)} + {len(result.rejected)} in the result"
            )
        answer = split_reasoning(text)[0]
        out = "".join(candidate.model_dump_json() for candidate in result.kept)
        out += "".join(str(rejection.content) for rejection in result.rejected)
        seen = set(_MARK.findall(out))
        for marks in map(_MARK_OF_FIELD.findall, _objects_of(answer)):
            if marks and not seen.intersection(marks):
                return f"the entry with {marks[0]} is neither kept nor rejected"
        return None

    return read


def _objects_of(text: str) -> list[str]:
    """The texts of objects that are not in another one and directly name a field of a fact."""
    waiting: list[Node] = match_brackets(text)[::-1]
    parts = []
    while waiting:
        node = waiting.pop()
        own = text[node.start : node.children[0].start if node.children else node.stop]
        if node.bracket == "{" and re.search(r"[\"'](zh|en)?_?prompt[\"']\s*[:：]", own):
            parts.append(text[node.start : node.stop])
        else:
            waiting += node.children[::-1]
    return parts


def _bodies(_: Path) -> Read:
    loop = asyncio.new_event_loop()
    sent = {"body": b""}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                await reader.readexactly(int(size[1]) if size else 0)
                body = sent["body"]
                status = b"200 OK" if len(body) % 9 else b"400 Bad Request"
                kind = b"application/json" if len(body) % 11 else b"text/html; charset=x"
                writer.write(
                    b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
                    % (status, kind, len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    port = server.sockets[0].getsockname()[1]
    address = parse_address(f"http://127.0.0.1:{port}/v1")
    model = OpenAICompatibleModel(Endpoint("custom", address, None, None), "m", timeout=9)

    def read(data: bytes) -> str | None:
        sent["body"] = data
        completion = loop.run_until_complete(model.complete([{"role": "user", "content": "?"}]))
        return lost_of_body(data, completion)

    return read


def lost_of_body(data: bytes, completion: Completion) -> str | None:
    """What the answer of a body lacks, or has although the body does not."""
    if not completion.text and not completion.reasoning:
        return "an answer without text"
    if len(data) % 9 == 0:
        return "an answer with status 400"
    try:
        body = json.loads(data)
    except ValueError:
        return "an answer in a body that is not JSON"
    content = body["choices"][0]["message"].get("content")
    if isinstance(content, str) and content.strip() and completion.text != content:
        return f"the answer {content[:40]!r} became {completion.text[:40]!r}"
    usage = body.get("usage")
    sent = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    known = completion.usage.prompt_tokens
    return None if known is None or known == sent else f"{sent!r} tokens became {known}"


def _file(name: str, check: Callable[[Path], str | None]) -> Callable[[Path], Read]:
    """A reader of a file of this name."""

    def opened(folder: Path) -> Read:
        path = folder / name

        def read(data: bytes) -> str | None:
            path.write_bytes(data)
            return check(path)

        return read

    return opened


def _source(path: Path) -> str | None:
    file = read_file(path)
    result = candidates_of([file])
    text = "".join(c.model_dump_json() for c in result.kept)
    text += "".join(str(r.content) for r in result.rejected)
    found = len(result.kept) + len(result.rejected)
    rows = len(file.rows)
    fewest = (rows + 1) // 2 if file.format == "clm-bench-mix" else rows
    if found < fewest:
        return f"{rows} rows, {found} kept or rejected"
    unread = reading_of([file]).unread
    for mark in () if unread else _marks_of(path.read_bytes()):
        if mark not in text:
            return f"{mark} is in the file and in no candidate or rejection"
    return None


def _marks_of(data: bytes) -> set[str]:
    """The marks in a file, by whichever encoding shows some."""
    encodings = ("utf-8", "utf-16", "gb18030")
    return next(
        filter(None, (set(_MARK.findall(data.decode(e, "replace"))) for e in encodings)), set()
    )


def _settings(path: Path) -> str | None:
    settings = open_workspace(path.parent, environ={}).settings
    return lost_leaf(read_yaml(path) or {}, settings.model_dump(mode="json"))


def _domains(path: Path) -> str | None:
    domains = load_domains(path).values()
    return lost_leaf(read_yaml(path), [domain.model_dump(mode="json") for domain in domains])


def _recipe(path: Path) -> str | None:
    return lost_leaf(read_yaml(path), read_recipe(str(path)).model_dump(mode="json"))


def lost_leaf(given: Any, read: Any, place: str = "") -> str | None:
    """The first value of a YAML file that its reader dropped or changed."""
    if isinstance(given, dict) and isinstance(read, dict):
        lost = (lost_leaf(value, read.get(key), f"{place}.{key}") for key, value in given.items())
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        pairs = zip(given, read, strict=True)
        lost = (lost_leaf(*pair, f"{place}.{at}") for at, pair in enumerate(pairs))
    else:
        same = given == read or str(given) == str(read)
        if isinstance(given, int | float) and isinstance(read, float):
            same = float(given) == read
        return None if same else f"{place[1:]}: {given!r} became {read!r}"
    return next(filter(None, lost), None)


def _parquet(path: Path) -> str | None:
    import pyarrow.parquet as pq

    read = ParquetTable(path).read(["prompt"], lambda done, total: None)
    texts = [text for _, (text,) in read]
    if len(texts) != len(_PROMPTS) and (rows := pq.read_metadata(path).num_rows) != len(texts):
        return f"{rows} rows, {len(texts)} read"
    changed = set(texts) - set(_PROMPTS)
    return f"the texts {changed} were never written" if changed else None


def _store(path: Path) -> str | None:
    """Everything that was stored is read, or damage is reported, at the latest by the check."""
    with Store(f"sqlite:///{path}") as store:
        found = _content(store)
        if found == _STORED or check_store(store).damaged:
            return None
    return f"neither damaged nor what was stored: {str(found)[:200]}"


def _content(store: Store) -> list[Any]:
    read = read_candidates(store, {})
    rows = [store.source_rows(source.id) for source in store.sources()]
    return [len(store.dialogues()), len(read.kept), read.rejected, rows, store.decisions()]


def _sheets(name: str) -> Callable[[Path], Read]:
    def opened(folder: Path) -> Read:
        review = ReviewFolder(folder, candidates(3))

        def read(data: bytes) -> str | None:
            report = review.import_rows(data, name=name, dry_run=True)
            counted = sum(report.applied.values()) + report.repeated + report.undecided
            seen = counted + len({issue.row for issue in (*report.unknown, *report.conflicts)})
            return None if seen >= report.rows else f"{report.rows} rows, {seen} in the report"

        return read

    return opened


def _decided_sheet() -> bytes:
    return write_csv([item_of(content) for content in candidates(3)])


_PROMPTS = ["鲁迅的原名是", "老舍的原名是"] * 40


def _parquet_file() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    rows = {"prompt": _PROMPTS, "n": list(range(len(_PROMPTS)))}
    pq.write_table(pa.table(rows), out, write_page_checksum=True)
    return out.getvalue()


_STORED: list[Any] = []
"""What is read of the undamaged store."""


def _store_file() -> bytes:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "clm.db"
        with Store(f"sqlite:///{path}") as store:
            dialogue = NewDialogue("d", 0, 0, "custom", "m", prompt="p", prompt_hash="h", wanted=2)
            store.add_dialogues([dialogue])
            (id_,) = store.write([NewRequest(1, 0, [{"role": "user", "content": "?"}])])
            answer = {"text": inputs.answer(5).decode("utf-8", "replace"), "model": "m"}
            store.write([RequestOutcome(id_, completion=answer, error=None)])
            rows: list[Any] = [{"prompt": "鲁迅的原名是", "subject": "鲁迅", "case_id": 1}]
            store.add_source("f.json", "clm-bench-zh", "0" * 64, None, rows)
            _STORED.extend(_content(store))
        with sqlite3.connect(path) as db:
            db.execute("VACUUM")
        db.close()
        return path.read_bytes()


_SETTINGS = b"""\
provider: custom
model: m
base_url: http://127.0.0.1:1/v1
generation: {entries_per_turn: 2, turns: 1, concurrency: 1, timeout: 10}
dedup:
  threshold: 0.9
"""


def _first_domain() -> bytes:
    text = (resource("domains.yaml")).read_text(encoding="utf-8")
    return text[text.index("- id: ") :].partition("\n- id: ")[0].encode()


def _readers() -> list[Reader]:
    sheet, book = _decided_sheet(), write_xlsx([item_of(c) for c in candidates(3)], "读我")
    recipe = (resource("eval", "recipes") / "table1.yaml").read_bytes()
    return [
        Reader("answers", inputs.answer, _answers, 40),
        Reader("bodies", inputs.body, _bodies, 8),
        Reader("json", inputs.rows_json, _file("rows.json", _source), 10),
        Reader("jsonl", inputs.rows_jsonl, _file("rows.jsonl", _source), 10),
        Reader("csv", inputs.table_csv, _file("rows.csv", _source), 10),
        Reader("sheets-csv", inputs.damaged_file(sheet), _sheets("sheet.csv"), 6),
        Reader("sheets-xlsx", inputs.damaged_zip(book), _sheets("sheet.xlsx"), 2),
        Reader("settings", inputs.damaged_file(_SETTINGS), _file("clm.yaml", _settings), 6),
        Reader("domains", inputs.damaged_file(_first_domain()), _file("d.yaml", _domains), 4),
        Reader("recipes", inputs.damaged_file(recipe), _file("r.yaml", _recipe), 3),
        Reader("parquet", inputs.damaged_file(_parquet_file()), _file("r.parquet", _parquet), 3),
        Reader("stores", inputs.damaged_file(_store_file()), _file("clm.db", _store), 2),
    ]


READERS = {reader.name: reader for reader in _readers()}

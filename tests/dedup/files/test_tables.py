"""Reading cells of files, and copying selected rows unchanged."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clm_data
from clm_data.dedup.files.open_table import open_table
from clm_data.dedup.files.tables import MISSING, Table, lookup
from clm_data.errors import InputFileError, UnknownNameError, UserError


def check_progress(done: int, total: int) -> None:
    assert done <= total


def cells(table: Table, *fields: str) -> list[tuple[Any, ...]]:
    return [values for _, values in table.read(fields, check_progress)]


def written(table: Table, keep: list[int], folder: Path) -> bytes:
    out = folder / "out"
    table.write(keep, out, check_progress)
    return out.read_bytes()


def opened(folder: Path, name: str, content: bytes) -> Table:
    path = folder / name
    path.write_bytes(content)
    return open_table(str(path))


def test_jsonl_lines_are_copied_byte_for_byte(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"a": "x",  "n": 1e400}\r\n\n{"a":"\\u4e2d\\ud800"}\n  {"a":null}'
    table = opened(tmp_path, "t.jsonl", content)
    assert cells(table, "a", "b") == [("x", MISSING), ("中\ud800", MISSING), (None, MISSING)]
    assert written(table, [0, 1, 1], tmp_path) == (
        b'\xef\xbb\xbf{"a":"\\u4e2d\\ud800"}\n  {"a":null}'
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_csv_records_are_copied_byte_for_byte(tmp_path: Path, encoding: str) -> None:
    records = [
        '题目,"备\n注"\r\n',
        '"一,\r\n二",x\r\n',
        '三,"say ""hi"""\n',
        '"四"\n',
    ]
    table = opened(tmp_path, "t.csv", "".join(records).encode(encoding))
    assert cells(table, "题目", "备\n注") == [
        ("一,\r\n二", "x"),
        ("三", 'say "hi"'),
        ("四", MISSING),
    ]
    expected = (records[0] + records[1] + records[3]).encode(encoding)
    assert written(table, [1, 0, 1], tmp_path) == expected


@given(
    rows=st.lists(st.lists(st.text('a,"\n\r中;', max_size=5), min_size=2, max_size=2), max_size=6),
    data=st.data(),
)
def test_any_csv_is_read_and_copied(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("csv")

    def line(row: list[str]) -> str:
        return ",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\r\n"

    table = opened(folder, "t.csv", ("p,q\r\n" + "".join(map(line, rows))).encode())
    assert cells(table, "p", "q") == [tuple(row) for row in rows]
    keep = data.draw(st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows)))
    kept = [line(row) for row, wanted in zip(rows, keep, strict=True) if wanted]
    assert written(table, keep, folder).decode() == "p,q\r\n" + "".join(kept)


def test_csv_cells_can_have_any_size(tmp_path: Path) -> None:
    table = opened(tmp_path, "t.csv", f"p,q\n{'长' * 300_000},1\n".encode())
    assert len(cells(table, "p")[0][0]) == 300_000


def test_elements_of_a_json_list_are_copied_byte_for_byte(tmp_path: Path) -> None:
    content = b'[\n  {"a": 1.0},\n  {"a": "\\u4e2d"} ,\n  {"b":[1, 2]}\n]\n'
    table = opened(tmp_path, "t.json", content)
    assert cells(table, "a") == [(1.0,), ("中",), (MISSING,)]
    assert written(table, [1, 1, 1], tmp_path) == content
    assert written(table, [0, 1, 0], tmp_path) == b'[\n  {"a": "\\u4e2d"}\n]\n'
    assert json.loads(written(table, [1, 0, 1], tmp_path)) == [{"a": 1.0}, {"b": [1, 2]}]
    assert json.loads(written(table, [0, 0, 0], tmp_path)) == []


def test_parquet_output_has_the_schema_and_values_of_the_input(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows: list[dict[str, Any]] = [
        {
            "zh": {"prompt": f"第{n}题", "tags": ["x", None]},
            "n": n,
            "price": Decimal("1.50"),
            "raw": b"\x00",
        }
        for n in range(40_000)
    ]
    schema = pa.schema(
        [
            ("zh", pa.struct([("prompt", pa.large_string()), ("tags", pa.list_(pa.string()))])),
            ("n", pa.int32()),
            ("price", pa.decimal128(5, 2)),
            ("raw", pa.binary()),
        ],
        metadata={"made": "here"},
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path, compression="zstd")
    source_table = open_table(str(path))
    assert cells(source_table, "zh.prompt", "n")[39_999] == ("第39999题", 39_999)
    keep = [int(n % 3 != 0) for n in range(40_000)]
    out = tmp_path / "out.parquet"
    source_table.write(keep, out, check_progress)
    found = pq.read_table(out)
    source = pq.read_table(path)
    assert found.schema.equals(source.schema, check_metadata=True)
    assert found.equals(source.filter(pa.array([bool(wanted) for wanted in keep])))
    assert pq.ParquetFile(out).metadata.row_group(0).column(0).compression == "ZSTD"
    source_table.write([0] * 40_000, out, check_progress)
    assert pq.read_table(out).num_rows == 0


def test_a_column_with_a_dot_in_its_name_takes_precedence_over_a_path() -> None:
    assert lookup({"zh.prompt": 1, "zh": {"prompt": 2}}, "zh.prompt") == 1
    assert lookup({"zh": {"prompt": {"x": 2}}}, "zh.prompt.x") == 2
    assert lookup({"zh": None}, "zh.prompt") is MISSING
    assert lookup({"zh": "text"}, "zh.prompt") is MISSING


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("rows.dat", b'{"a": 1}\n', "jsonl"),
        ("rows.dat", b' [{"a": 1}]', "json"),
        ("rows.json", b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n', "jsonl"),
        ("rows.tsv", b"[a]\tb\n", "csv"),
        ("rows", b"a;b\n", "csv"),
    ],
)
def test_the_format_is_detected_from_file_name_and_content(
    tmp_path: Path, name: str, content: bytes, format: str
) -> None:
    assert opened(tmp_path, name, content).format == format


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "t.jsonl:2: not valid JSON"),
        ("t.jsonl", b'{"a": 1}\n[1]\n', "t.jsonl:2: a row must be an object"),
        ("t.jsonl", b'{"a": "\xff"}\n', "t.jsonl:1: not UTF-8"),
        ("t.jsonl", b"[" * 200_000, "t.jsonl:1: not valid JSON"),
        ("t.json", b'[{"a": 1} {"a": 2}]', "t.json:1: not valid JSON: a comma"),
        ("t.json", b'[{"a": 1},\n{"a": }]', "t.json:2: not valid JSON"),
        ("t.json", b'[{"a": 1}', "not valid JSON"),
        ("t.json", b'[{"a": 1}] {}', "after the end"),
        ("t.json", b"[3]", "row 1: a row must be an object"),
        ("t.json", b'"a"', "expected a JSON list"),
        ("t.csv", b'a,b\n"x\n', "t.csv:2: not valid CSV"),
        ("t.csv", b"a,b\n1,2,3\n", "t.csv:2: 3 cells for 2 columns"),
        ("t.csv", b"a,a\n1,2\n", "appears twice"),
        ("t.csv", b"a,b\n\xff\xff\xff\n", "nor does it read as GB18030"),
        ("t.parquet", b"PAR1 no parquet", "not a readable Parquet file"),
    ],
)
def test_malformed_files_are_one_line_errors(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(InputFileError) as caught:
        cells(opened(tmp_path, name, content), "a")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_column_suggests_similar_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean prompt"):
        cells(opened(tmp_path, "t.csv", b"prompt,b\n1,2\n"), "promt")
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"zh": [{"prompt": "x"}]}), path)
    for wrong in ("zh.promt", "zh.prompt.x", "en"):
        with pytest.raises(UnknownNameError, match="zh"):
            cells(open_table(str(path)), wrong)


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.json"])
def test_a_file_that_changed_between_reading_and_writing_is_an_error(
    tmp_path: Path, name: str
) -> None:
    content = {"t.jsonl": b'{"a":1}\n', "t.csv": b"a\n1\n", "t.json": b'[{"a":1}]'}[name]
    table = opened(tmp_path, name, content)
    with pytest.raises(InputFileError, match="has changed"):
        written(table, [1, 1], tmp_path)


def test_a_missing_file_or_unknown_format_is_an_error(tmp_path: Path) -> None:
    for name in ("no.jsonl", "no.parquet", "no.csv", "no"):
        with pytest.raises(InputFileError, match="no such file"):
            cells(open_table(str(tmp_path / name)), "a")
    with pytest.raises(UserError):
        cells(open_table(str(tmp_path)), "a")
    with pytest.raises(UnknownNameError):
        open_table("x", "xlsx")


def _parquet(path: Path, *columns: Any, names: list[str]) -> Path:
    pq.write_table(pa.table(list(columns), names=names), path)
    return path


TEXTS = ["甲乙丙丁戊己", "甲乙丙丁戊己", "完全不同的题目"]


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.jsonl", "x.json", "x"])
def test_the_content_says_that_a_file_is_parquet(tmp_path: Path, name: str) -> None:
    path = _parquet(tmp_path / name, pa.array(TEXTS).dictionary_encode(), names=["p"])
    report = clm_data.deduplicate(path, "p")
    assert (len(report.kept), len(report.removed)) == (2, 1)


def test_the_content_says_that_a_file_named_parquet_is_json(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_text(json.dumps([{"p": text} for text in TEXTS]))
    assert len(clm_data.deduplicate(path, "p").kept) == 2


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.jsonl", gzip.compress(b'{"p": "a"}', mtime=0), "gunzip"),
        ("x.csv", b"PK\x03\x04rest", "XLSX"),
        ("x.jsonl", b'{"p": "a"}\n{"p": "a", "p": "b"}\n', "x.jsonl:2: .*'p' appears twice"),
        ("x.json", b'[{"p": "a"},\n{"p": "a", "p": "b"}]', "x.json:2: .*'p' appears twice"),
        ("x.parquet", b"PAR1 cut off", "not a readable Parquet file"),
    ],
)
def test_a_file_that_would_be_misread_is_refused(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputFileError, match=message) as caught:
        clm_data.deduplicate(path, "p")
    assert "\n" not in str(caught.value)


def test_parquet_with_other_columns_is_one_line(tmp_path: Path) -> None:
    twice = _parquet(tmp_path / "a", pa.array(TEXTS), pa.array(TEXTS), names=["p", "p"])
    nested = _parquet(tmp_path / "b", pa.array([{"a": ["x"]}]), names=["p"])
    zero = _parquet(tmp_path / "c", pa.array([], pa.string()), names=["p"])
    for path, message in ((twice, "appears twice"), (nested, "row 1"), (zero, "no rows")):
        with pytest.raises(InputFileError, match=message):
            clm_data.deduplicate(path, "p")


def test_a_changed_text_in_a_parquet_file_with_checksums_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    options = dict.fromkeys(("use_dictionary", "write_statistics"), False)
    options |= {"compression": "none", "write_page_checksum": True}
    pq.write_table(pa.table({"p": ["river", "hill"]}), path, **options)
    assert cells(open_table(str(path)), "p") == [("river",), ("hill",)]
    path.write_bytes(path.read_bytes().replace(b"river", b"raven", 1))
    with pytest.raises(InputFileError, match=r"x\.parquet"):
        cells(open_table(str(path)), "p")


def test_damage_of_a_parquet_file_is_one_line(tmp_path: Path) -> None:
    columns = pa.array(TEXTS * 5), pa.array([1] * 15)
    path = _parquet(tmp_path / "x.parquet", *columns, names=["p", "q"])
    data = path.read_bytes()
    messages = []
    for place in range(4, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xF1]) + data[place + 1 :])
        try:
            clm_data.deduplicate(path, "p")
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert not any("\n" in message for message in messages)

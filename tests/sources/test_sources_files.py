from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clm_data
from clm_data.errors import InputFileError, UserError
from clm_data.files import read_bytes
from clm_data.sources.files import read_rows

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def written(folder: Path, data: bytes | str, name: str = "file.json") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.text(), JSON_VALUES, min_size=1), min_size=1, max_size=5))
def test_json_and_json_lines_give_the_same_unaltered_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    as_list = read_rows(written(folder, json.dumps(rows, ensure_ascii=True)))
    lines = "\n".join(json.dumps(row) for row in rows)
    as_lines = read_rows(written(folder, lines, "file.jsonl"))
    assert as_list.rows == rows
    assert as_lines.rows == rows
    assert [list(row) for row in as_list.rows] == [list(row) for row in rows]


def test_types_nulls_and_order_are_preserved(tmp_path: Path) -> None:
    text = '[{"case_id": 1, "b": null, "a": " x "}, {"case_id": "1"}, 5]'
    raw = read_rows(written(tmp_path, text))
    assert json.dumps(raw.rows) == text
    assert raw.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_a_byte_order_mark_is_ignored_and_a_single_object_is_one_row(tmp_path: Path) -> None:
    assert read_rows(written(tmp_path, b'\xef\xbb\xbf{"prompt": "a"}')).rows == [{"prompt": "a"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_is_read_in_every_encoding_and_with_every_delimiter(
    tmp_path: Path, encoding: str, delimiter: str
) -> None:
    text = f'zh_prompt{delimiter}en_prompt\r\n"长江,的;\n源头"{delimiter}"A ""river"""\r\n\r\n'
    raw = read_rows(written(tmp_path, text.encode(encoding), "x.csv"))
    assert raw.is_csv
    assert raw.rows == [{"zh_prompt": "长江,的;\n源头", "en_prompt": 'A "river"'}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"[]", "contains no rows"),
        (b'[{"a": 1},\n{"a": }]', r"file\.json:2: row 2: not valid JSON"),
        (b'{"a": 1}\n{"a": \n', r"file\.json:2: row 2: not valid JSON"),
        ('[\n"长'.encode("gb18030"), r"file\.json is not UTF-8 \(line 2\)"),
        (b'[{"a": 1, "a": 2}]', "'a' appears twice"),
        (b'[{"a": NaN}]', "row 1: a: NaN is not a JSON value; write null"),
        (b'[{"a": "x"}, {"a": "\\ud83d"}]', "row 2 contains an invalid character"),
        (b"just words", "starts with 'just words'; expected a JSON list"),
        (b"a,b\n1,2,3\n", r"file\.json:2: row 1: 3 cells for 2 columns"),
        (b'a,b\n1,"2\n', r"file\.json:2: row 1: not valid CSV"),
        (b"a,a\n1,2\n", "appears twice in the header"),
        (b"a,b\n\xff\xff\n", r"is not UTF-8 \(line 2\), nor does it read as GB18030"),
    ],
)
def test_the_error_on_an_invalid_file_is_one_line_with_the_place(
    tmp_path: Path, data: bytes, message: str
) -> None:
    with pytest.raises(InputFileError, match=message) as caught:
        read_rows(written(tmp_path, data))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such file"):
        read_rows(tmp_path / "none.json")
    with pytest.raises(InputFileError, match="is a folder; name a file in it"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"a": 1},\n{"a": 2, "b": NaN}\n]', r":3: row 2: b: NaN .*write null"),
        ('[{"a": {"c": [1, Infinity]}}]', r":1: row 1: a\.c\[1\]: Infinity"),
        ('{"a": 1}\n\n{"b": -Infinity}\n', r":3: row 2: b: -Infinity"),
        ('[\n{"a": 1},\n\n{"b": 1, "b": 1}]', r":4: row 2: .*'b' appears twice.*keep one"),
        ('{"a": 1}\n{"b": {"c": 1, "c": 2}}', r":2: row 2: .*'c' appears twice"),
        ('[{"a": 1}\n{"a": 2}]', r":2: after row 1: not valid JSON"),
        ('[{"a": 1},\n{"a": "x}]', r":2: row 2: not valid JSON: Unterminated"),
        ('[{"a": 1}, ' + "[" * 200_000, r"row 2: .*nested too deeply"),
        ('[{"a": 1}] trailing', r":1: after row 1: not valid JSON"),
        ("zh,en\na,b\n\nc,d,e\n", r":4: row 2: 3 cells for 2 columns"),
        ("zh,en,zh\na,b,c\n", r"'zh' \(columns 1 and 3\); rename one"),
        ("zh,en\na,b\nc," + "d" * 140_000 + "\n", r":3: row 2: .*a cell of .*shorten it"),
    ],
)
def test_a_message_names_line_row_and_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputFileError, match=message) as caught:
        read_rows(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_line_that_names_a_separator_is_no_header(tmp_path: Path) -> None:
    assert read_rows(written(tmp_path, "sep=;\nzh;en\na,b;c\n")).rows == [{"zh": "a,b", "en": "c"}]
    with pytest.raises(InputFileError, match=r":3: row 1: 3 cells"):
        read_rows(written(tmp_path, "sep=;\nzh;en\na;b;c\n"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(b'[{"a": 1}]', mtime=0), "gunzip"),
        (bz2.compress(b'[{"a": 1}]'), "bunzip2"),
        (lzma.compress(b'[{"a": 1}]'), "unxz"),
        (b"PK\x03\x04rest", "XLSX"),
        (b"PAR1rest", "Parquet"),
        (b"a,b\x00\n1,2\n", "NUL byte"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_to_do(
    tmp_path: Path, data: bytes, message: str
) -> None:
    with pytest.raises(InputFileError, match=message) as caught:
        read_rows(written(tmp_path, data))
    assert "\n" not in str(caught.value)


def test_devices_and_pipes_are_refused_and_links_are_followed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    for path in (Path("/dev/zero"), Path("/dev/null"), pipe):
        with pytest.raises(InputFileError, match="not a regular file"):
            read_rows(path)
    link = tmp_path / "link.json"
    link.symlink_to(written(tmp_path, '[{"a": 1}]'))
    assert read_rows(link).rows == [{"a": 1}]


def test_a_file_has_a_size_limit(tmp_path: Path) -> None:
    path = written(tmp_path, b"x" * (2**20 + 1))
    with pytest.raises(InputFileError, match="larger than 1 MB; split it"):
        read_bytes(path, limit=2**20)
    assert len(read_bytes(path, limit=2**20 + 1)) == 2**20 + 1


ROW = "zh_prompt,zh_subject,zh_target_new,zh_loc,en_loc\n{}\n"
CELLS = "黃河的源頭在,黃河,青海,鋼琴有幾個鍵,How many keys"


@pytest.mark.parametrize("encoding", ["big5", "utf-16", "utf-16-le", "gb18030"])
def test_a_given_encoding_decides(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path, ROW.format(CELLS).encode(encoding), "x.csv")
    expected = CELLS.split(",")
    assert [list(row.values()) for row in read_rows(path, encoding).rows] == [expected]
    (found,) = clm_data.audit(path, encoding=encoding).candidates
    assert (found.zh and found.zh.prompt) == expected[0]
    workspace = clm_data.init(tmp_path / "w")
    result = clm_data.import_files(path, encoding=encoding, workspace=workspace)
    assert result.files[0].reading.candidates == 1
    with pytest.raises(InputFileError, match="not valid UTF-8"):
        read_rows(path, "utf-8")
    with pytest.raises(UserError, match="encoding 'utf-88' is not known"):
        read_rows(path, "utf-88")
    if not encoding.startswith("utf"):
        out = tmp_path / "out.csv"
        found_by = clm_data.deduplicate(path, "zh_prompt", encoding=encoding, out=out)
        assert found_by.kept[0]["zh_prompt"] == expected[0]
        assert out.read_bytes() == path.read_bytes()

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_data.errors import InputFileError
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
        (b'[{"a": 1},\n{"a": }]', r"file\.json:2: not valid JSON"),
        (b'{"a": 1}\n{"a": \n', r"file\.json:2: not valid JSON"),
        ('[\n"长'.encode("gb18030"), r"file\.json:2: not UTF-8 text; save the JSON as UTF-8"),
        (b'[{"a": 1, "a": 2}]', "'a' appears twice"),
        (b'[{"a": NaN}]', "NaN is not a JSON number"),
        (b'[{"a": "x"}, {"a": "\\ud83d"}]', "row 2 contains an invalid character"),
        (b"just words", "starts with 'just words'; expected a JSON list"),
        (b"a,b\n1,2,3\n", r"file\.json:2: 3 cells for 2 columns"),
        (b'a,b\n1,"2\n', r"file\.json:2: not valid CSV"),
        (b"a,a\n1,2\n", "appears twice in the header"),
        (b"a,b\n\xff\xff\n", "not UTF-8 text, and not GB18030"),
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
    with pytest.raises(InputFileError, match="cannot be read"):
        read_rows(tmp_path)

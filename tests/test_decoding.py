"""Text files are decoded with certainty, or refused with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from clm_data.decoding import decode, garbled
from clm_data.errors import InputFileError, UserError

CHINESE = "zh_prompt,zh_target_new\n红楼梦的作者是,曹雪芹\n世界上最高的山峰位于,中国和尼泊尔\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030", "gbk"])
def test_chinese_in_the_common_encodings_is_read(encoding: str) -> None:
    assert decode(CHINESE.encode(encoding), name="f.csv") == CHINESE


@pytest.mark.parametrize("file", sorted(Path("clm_data/bank/entries").glob("*.yaml")), ids=str)
def test_every_domain_of_the_bank_reads_as_gb18030_and_is_not_garbled(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert decode(text.encode("gb18030"), name=file.name) == text
    assert decode(text.encode("utf-8"), name=file.name) == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("prompt,name\nThe author is,Gabriel García Márquez\nThe city is,Málaga\n", "cp1252"),
        ("name\ncafé\nMüller\n", "latin-1"),
        ("name\nGdańsk, Łódź, Kraków\n", "cp1250"),
        ("prompt\nСтолица России — это город Москва\n", "cp1251"),
        ("prompt\nАвтор романа Война и мир родился в Ясной Поляне\n", "koi8-r"),
        ("prompt\n대한민국의 수도는 서울이다. 세종대왕은 한글을 창제하였다.\n", "cp949"),
        ("prompt\n日本の首都は東京です。吾輩は猫である。\n", "cp932"),
        ("prompt\n日本の首都は東京です。吾輩は猫である。\n", "euc-jp"),
        ("prompt\n紅樓夢的作者是曹雪芹,世界上最高的山是珠穆朗瑪峰\n", "cp950"),
        ("prompt\nΗ πρωτεύουσα της Ελλάδας είναι η Αθήνα\n", "cp1253"),
        ("a,b\n茅盾,北京\n", "gb18030"),  # four characters are too few to be certain
        (CHINESE, "utf-16-le"),
        (CHINESE, "utf-16-be"),
    ],
)
def test_an_uncertain_encoding_is_refused_unless_the_user_names_it(
    text: str, encoding: str
) -> None:
    data = text.encode(encoding)
    with pytest.raises(InputFileError, match=r"f\.csv.*line \d.*save it as .CSV UTF-8. or \.xlsx"):
        decode(data, name="f.csv")
    assert decode(data, name="f.csv", encoding=encoding) == text


def test_the_line_and_the_reason_are_named() -> None:
    data = "name\nGabriel García Márquez\nÉtude by Frédéric\n".encode("cp1252")
    with pytest.raises(InputFileError, match=r"\(line 2\).*lone Han .*inside Latin words"):
        decode(data, name="people.csv")


def test_a_named_encoding_is_strict_and_names_the_line() -> None:
    with pytest.raises(InputFileError, match=r"not valid CP932 \(line 2"):
        decode(b"ok\n\x81", name="f.csv", encoding="cp932")
    for wrong in ("no-such-encoding", "base64", "zip"):
        with pytest.raises(UserError, match="is not known"):
            decode(b"x", name="f.csv", encoding=wrong)


@pytest.mark.parametrize("text", ["GarcÃ­a", "caf\u00c3\u00a9", "ï¼Œ", "鐨勪綔鑰�", "绾㈡ゼ姊"])
def test_utf8_that_was_read_in_another_code_page_and_saved_is_refused(text: str) -> None:
    assert garbled(text) is not None
    with pytest.raises(InputFileError, match="line 2 is garbled"):
        decode(f"name\n{text}\n".encode(), name="f.csv")
    assert text in decode(f"name\n{text}\n".encode(), name="f.csv", encoding="utf-8")


@pytest.mark.parametrize("text", ["São Paulo", "ÂNGELA", "naïve", "愛麗絲夢遊仙境", "饕餮魑魅魍魉"])
def test_unusual_but_right_text_is_not_called_garbled(text: str) -> None:
    assert garbled(text) is None


def test_a_text_known_to_the_caller_decides_for_a_code_page() -> None:
    text = "紅樓夢的作者是,曹雪芹\n"
    known = lambda decoded: float("紅樓夢" in decoded)  # noqa: E731
    assert decode(text.encode("cp950"), name="f.csv", known=known) == text
    with pytest.raises(InputFileError, match="the Chinese in this file is garbled"):
        decode("红楼梦".encode("cp949", "replace") + b"\xb0\xa1", name="f.csv", known=known)

"""Decodes text files of users; what is not certain is refused, never guessed.

A byte-order mark decides, then strict UTF-8. Other bytes are taken for GB18030 only if the result
looks like Chinese: GB18030 accepts almost any bytes, so that it decodes proves nothing. The result
must consist of the characters of GB 2312, mostly of its level 1 (the 3,755 common ones, sorted by
sound), and contain enough of the most frequent ones. Korean, Russian and western text read as
GB18030 have none of these properties.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

from clm_data.errors import InputFileError, UserError

Recognize = Callable[[str], float]
"""The share, from 0 to 1, of the expected texts that a decoded file contains."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
_CODE_PAGES = ("gb18030", "cp950", "cp932", "cp949", "cp1252")
_RECOGNIZED = 0.5
"""Minimum share of expected texts that decides for a code page."""

_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LONE_HAN = re.compile(
    "(?<=[a-zA-Z])([\u3400-\u9fff])(?=[a-z])|(?<=[a-z])([\u3400-\u9fff])(?=\\W|$)"
)
_NOT_CHINESE = re.compile("[\u3041-\u30ff\uac00-\ud7a3\u0400-\u04ff\ue000-\uf8ff]")
_FREQUENT = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里"
    "用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实"
    "日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政"
    "美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员"
    "解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件"
    "计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象"
    "完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运六始建石"
    "首都属位于官语言母国家城市作者诗人著名河流湖岛洲古朝帝写歌曲电影演员公司总部创"
)  # fmt: skip
_MINIMUM_HAN = 4
_WESTERN = re.compile("[\u00c2-\u00f4][\u0080-\u00bf\u0152-\u0178\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]+")  # noqa: E501  # fmt: skip
_WIDE_RUN = re.compile("[^\x00-\x7f]{2,}")


def decode(
    data: bytes, *, name: str, encoding: str | None = None, known: Recognize | None = None
) -> str:
    """Decode the bytes of a text file, without its byte-order mark.

    Args:
        data: The bytes.
        name: Name of the file in messages.
        encoding: Encoding that the user gave; it decides, and an undecodable byte is an error.
        known: Recognizes the expected text. A code page whose text is recognized is accepted.

    Raises:
        InputFileError: The encoding is not certain, a byte is invalid in it, or the text is
            garbled: UTF-8 that was read in another code page and saved again.
        UserError: There is no such encoding.
    """
    if encoding is not None:
        return _given(data, name, encoding)
    for mark, marked in _MARKS:
        if data.startswith(mark):
            return _strict(data[len(mark) :], name, marked)
    at = data.find(b"\x00")
    if at >= 0:
        raise InputFileError(
            f"{name} contains a NUL byte (line {_line(data, at)}): UTF-16 without a byte-order "
            'mark, or not a text file; save it as "CSV UTF-8" or .xlsx, or give --encoding'
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _in_code_page(data, name, _line(data, error.start), known)
    _check_not_garbled(text, name)
    return text


def check_encoding(encoding: str) -> str:
    """The normalized name of a text encoding.

    Raises:
        UserError: Python has no text encoding of this name.
    """
    try:
        "".encode(encoding)  # fails for codecs that are no text encodings
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise UserError(
            f"encoding '{encoding}' is not known; use for example utf-8, gb18030, big5 or cp1252"
        ) from error


def garbled(text: str) -> str | None:
    """The part of a text that is UTF-8 read in another code page, with the code page; or None.

    For example ``Ã©`` is é read as cp1252, and ``鐨勪綔鑰`` is 的作者 read as GBK.
    """
    for found in _WESTERN.finditer(text):
        if _as_utf8(found[0], "cp1252") is not None:
            return f"{found[0]} (UTF-8 read as cp1252)"
    for found in _WIDE_RUN.finditer(text):
        run = found[0].split("\ufffd")[0]  # lost bytes: what follows is out of step
        han = _HAN.findall(run)
        if not han or sum(map(_is_level_one, han)) > len(han) / 2:
            continue
        restored = _as_utf8(run, "gb18030")
        if restored and all(map(_is_chinese, restored)):
            return f"{found[0][:20]} (UTF-8 read as GBK)"
    return None


def _given(data: bytes, name: str, encoding: str) -> str:
    encoding = check_encoding(encoding)
    for mark, marked in _MARKS:
        if data.startswith(mark) and marked.startswith(encoding.removesuffix("-sig")):
            return _strict(data[len(mark) :], name, marked)
    return _strict(data, name, encoding)


def _strict(data: bytes, name: str, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputFileError(
            f"{name} is not valid {encoding.upper()} (line {_line(data, error.start)}: "
            f'{error.reason}); save it as "CSV UTF-8" or .xlsx'
        ) from error


def _in_code_page(data: bytes, name: str, line: int, known: Recognize | None) -> str:
    for encoding in _CODE_PAGES if known is not None else ():
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if known is not None and known(text) >= _RECOGNIZED:
            return text
    remedy = 'save it as "CSV UTF-8" or .xlsx, or give --encoding'
    try:
        text = data.decode("gb18030")
        reason = _not_chinese(text)
    except UnicodeDecodeError:
        reason = "it contains other bytes"
    if reason is not None and known is not None:
        raise InputFileError(
            f"{name}: the Chinese in this file is garbled (saved in another code page; line "
            f"{line} is not UTF-8, nor is the file GB18030: {reason}): {remedy}"
        )
    if reason is not None:
        raise InputFileError(
            f"{name} is not UTF-8 (line {line}), nor does it read as GB18030 Chinese ({reason}): "
            f"{remedy}, for example cp1252 or big5"
        )
    return text


def _not_chinese(text: str) -> str | None:
    """Why a text decoded as GB18030 is probably not Chinese; None if it certainly is."""
    lone = [char for pair in _LONE_HAN.findall(text) for char in pair if char]
    lone = [char for char in lone if not _is_level_one(char)]
    if lone:
        word = "character" if len(lone) == 1 else "characters"
        return f"{len(lone)} lone Han {word} inside Latin words"
    foreign = len(_NOT_CHINESE.findall(text))
    han = _HAN.findall(text)
    if len(han) < _MINIMUM_HAN:
        return f"only {len(han)} Han characters, too few to tell"
    wide = sum(char > "\x7f" for char in text)
    common = sum(map(_is_level_one, han))
    late = sum(b"\xc9" <= _gb2312(char)[:1] <= b"\xd7" for char in han)
    frequent = sum(char in _FREQUENT for char in han)
    if foreign > wide / 20:
        return f"it would have {foreign} characters of other scripts"
    if common < 0.8 * len(han) or len(han) < wide / 3:
        return f"only {common} of {wide} characters would be common Han characters"
    wanted = 0.6 if len(han) < 6 else 0.3 if len(han) < 40 else 0.2
    if frequent < wanted * len(han):
        return f"only {frequent} of {len(han)} Han characters would be frequent ones"
    if late < 0.15 * len(han):
        return "all characters would be from one half of GB 2312, as in Korean text"
    return None


def _check_not_garbled(text: str, name: str) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        part = None if line.isascii() else garbled(line)
        if part is not None:
            raise InputFileError(
                f"{name}: line {number} is garbled: {part}; open the original file and save it as "
                '"CSV UTF-8" or .xlsx, or give --encoding utf-8 if the text is right'
            )


def _as_utf8(text: str, encoding: str) -> str | None:
    """The text whose UTF-8 bytes read in an encoding give this text; None if there is none.

    Up to two bytes at the end may be lost.
    """
    try:
        data = text.encode(encoding)
    except UnicodeEncodeError:
        return None
    for lost in range(3):
        try:
            return data[: len(data) - lost].decode("utf-8") or None
        except UnicodeDecodeError:
            continue
    return None


def _is_chinese(char: str) -> bool:
    return _is_level_one(char) or "\u3000" <= char <= "\u303f" or "\uff00" <= char <= "\uff5e"


def _is_level_one(char: str) -> bool:
    return b"\xb0" <= _gb2312(char)[:1] <= b"\xd7"


def _gb2312(char: str) -> bytes:
    return char.encode("gb2312", "ignore")


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1

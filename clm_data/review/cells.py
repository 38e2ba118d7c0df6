"""Encodes texts as spreadsheet cells so that every text survives a round trip through Excel or WPS.

Encoding writes characters that a sheet cannot hold as Office does (``_x000D_`` for a carriage
return), and prefixes texts that a spreadsheet would evaluate as a formula or rewrite as a date or a
number with an apostrophe. Decoding undoes both. Texts that already look encoded are escaped too, so
decoding an encoded text always gives the same text.
"""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal

MAX_CELL = 32_767
"""Maximum characters of a cell in Excel and WPS."""

_UNSAFE = "\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff"
_CONTROL = re.compile(f"[{_UNSAFE}]")
_LITERAL_ESCAPE = re.compile(f"_(?=x[0-9A-Fa-f]{{4}}[_{_UNSAFE}])")
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")

_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_MONTH = (
    "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    "sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(rf"(?:\d|{_MONTH}|[-/:,.\s年月日])+", re.IGNORECASE)
_DATE_PART = re.compile(rf"\d+|{_MONTH}", re.IGNORECASE)
_DATE_MARK = re.compile(rf"[-/:年月]|{_MONTH}", re.IGNORECASE)
_REWRITTEN_NUMBER = re.compile(
    r"0\d+(?:\.\d+)?|\d+\.\d*0|\d{12,}(?:\.\d+)?|\d+(?:\.\d+)?e[+-]?\d+|true|false", re.IGNORECASE
)
_PLAIN_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?")
_SCIENTIFIC = re.compile(r"[+-]?\d(?:\.\d+)?e[+-]?\d+", re.IGNORECASE)
_EXCEL_DATE = re.compile(
    rf"(?:\d{{1,2}}-)?{_MONTH}(?:-\d{{2,4}})?|\d{{1,2}}月\d{{1,2}}日"
    r"|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?: \d{1,2}:\d{2}(?::\d{2})?)?|\d{1,2}:\d{2}(?::\d{2})?"
    r"|\d{5}(?:\.\d+)?",
    re.IGNORECASE,
)
_EXCEL_ERROR = re.compile(r"#(?:NAME\?|VALUE!|REF!|DIV/0!|N/A|NUM!|NULL!|SPILL!|#+)")


def encode(text: str) -> str:
    """Encode a text for a cell; :func:`decode` returns exactly this text."""
    safe = _LITERAL_ESCAPE.sub("_x005F_", text)
    safe = _CONTROL.sub(lambda found: f"_x{ord(found[0]):04X}_", safe)
    return "'" + safe if _needs_apostrophe(safe.lstrip("'")) else safe


def decode(cell: str) -> str:
    """Decode a cell; cells that were not written by :func:`encode` rarely change."""
    if cell.startswith("'") and _needs_apostrophe(cell.lstrip("'")):
        cell = cell[1:]
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), cell)


def new_text(old: str, returned: str) -> str:
    """The reviewer's text, given the exported text and the decoded cell of the returned sheet.

    If only line endings differ, this is ``old``. If the export added an apostrophe and the text
    after it was edited, the apostrophe is removed.
    """
    if _lines(returned) == _lines(old):
        return old
    guarded = encode(old).startswith("'") and not old.startswith("'")
    text = returned[1:] if guarded and returned.startswith("'") else returned
    return old if _lines(text) == _lines(old) else text


def damage(old: str, new: str) -> str | None:
    """Describe how a spreadsheet program seems to have changed ``old``; None if it did not."""
    old, new = old.strip(), new.strip()
    if _EXCEL_ERROR.fullmatch(new) and not _EXCEL_ERROR.fullmatch(old):
        return "the spreadsheet replaced it by an error value"
    if _SCIENTIFIC.fullmatch(new) and _PLAIN_NUMBER.fullmatch(old):
        return "a long number was changed to scientific notation"
    if _PLAIN_NUMBER.fullmatch(old) and _PLAIN_NUMBER.fullmatch(new) and _same_number(old, new):
        return "a number lost zeros or digits"
    if _is_date(old) and _is_rewritten_date(old, new):
        return "a date or a pair of numbers was reformatted"
    if new in {"TRUE", "FALSE"} and old.upper() == new:
        return "a word was changed to a boolean"
    if _lost_characters(old, new):
        return 'characters became question marks; save as "CSV UTF-8" or .xlsx'
    return None


def _needs_apostrophe(text: str) -> bool:
    bare = text.strip()
    return bool(_FORMULA.match(text) or _REWRITTEN_NUMBER.fullmatch(bare) or _is_date(bare))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_date(text: str) -> bool:
    """Whether a spreadsheet may read it as a date or time: two or more parts and a separator."""
    if not (_DATE.fullmatch(text) and _DATE_MARK.search(text)):
        return False
    parts = _DATE_PART.findall(text)
    return len(parts) >= 2 and all(len(part) <= 4 or part.isalpha() for part in parts)


def _is_rewritten_date(old: str, new: str) -> bool:
    if not _EXCEL_DATE.fullmatch(new) or ("月" in old and "月" in new):
        return False
    if _PLAIN_NUMBER.fullmatch(new):
        return True  # the serial number of a date
    return not _date_parts(old) - _date_parts(new)


def _date_parts(text: str) -> Counter[int]:
    """The numbers in a date, with months as numbers and years as two digits."""
    return Counter(
        int(part) % 100 if part.isdecimal() else _MONTHS.index(part.casefold()[:3]) + 1
        for part in _DATE_PART.findall(text)
    )


def _same_number(old: str, new: str) -> bool:
    if old == new:
        return False
    old_digits, new_digits = old.lstrip("+-0").split(".")[0], new.lstrip("+-0").split(".")[0]
    same_length = len(old_digits) == len(new_digits) > 15
    rounded = same_length and new_digits[:14] == old_digits[:14] and not new_digits[15:].strip("0")
    return Decimal(old) == Decimal(new) or rounded


def _lost_characters(old: str, new: str) -> bool:
    """Whether ``new`` is ``old`` after saving in a Windows encoding that lacks characters."""
    if old == new or "?" not in new:
        return False
    wide = re.sub("[\U00010000-\U0010ffff]", "\ufffd\ufffd", old)
    return any(
        text.encode(encoding, "replace").decode(encoding) == new
        for text in (old, wide)
        for encoding in ("gbk", "cp1252", "latin-1", "ascii", "cp932", "cp949", "cp950")
    )

"""Brackets and strings in text that is almost JSON.

A quotation mark opens a string only where JSON allows one, and closes it only before text that may
follow a string in JSON. Unescaped, single and Chinese quotation marks are therefore tolerated. In
valid JSON, even if truncated, exactly the brackets of JSON are found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(r"[^\s]")
_GOES_ON = (
    r"(?=\s*[,}\]:｝］]|\s*//|\s*/\*|[ \t]*[\r\n]|\s*\Z"
    r"|\s*，\s*[\"'“{｛]|\s*：\s*[\"'“{｛\[［\d])"
)
IN_STRING = {
    '"': re.compile(rf'\\.|"{_GOES_ON}', re.DOTALL),
    "'": re.compile(rf"\\.|'{_GOES_ON}", re.DOTALL),
    "“": re.compile(r"\\.|[”\"](?=\s*(?:[,}\]:，：｝］]|\Z))", re.DOTALL),
}
"""An escape or closing mark inside a string, by the opening mark."""
_INNER_MARK = re.compile(r"\\.|\"", re.DOTALL)
BEFORE_STRING = frozenset("{[,:，：")
_ASCII = str.maketrans("｛｝［］", "{}[]")
"""Full-width brackets, which are syntax outside of strings."""


@dataclass(eq=False)
class Node:
    """A pair of brackets; ``closed`` is false if the closing bracket is missing before ``stop``."""

    bracket: str
    start: int
    stop: int
    closed: bool = False
    children: list[Node] = field(default_factory=list)


def _tokens(text: str, *, inside: bool) -> Iterator[tuple[str, int, int]]:
    """Split a text into strings and single non-whitespace characters.

    Args:
        text: Any text.
        inside: Whether the text starts within brackets. There are no strings outside of brackets.

    Yields:
        (character, start, end). For strings, the opening mark is doubled.
    """
    depth = int(inside)
    before = ""
    at = 0
    while token := _TOKEN.search(text, at):
        mark, at = token.group().translate(_ASCII), token.end()
        if mark in IN_STRING and depth and before in BEFORE_STRING:
            at = end_of_string(text, at, IN_STRING[mark])
            yield mark * 2, token.start(), at
        else:
            depth += (mark in "{[") - (mark in "}]" and depth > 0)
            yield mark, token.start(), at
        before = mark


def match_brackets(text: str) -> list[Node]:
    """The brackets of a text as trees. Brackets in strings are ignored."""
    roots: list[Node] = []
    stack: list[Node] = []
    opened = {"{": 0, "[": 0}
    for mark, start, end in _tokens(text, inside=False):
        if mark in ("{", "["):
            node = Node(mark, start, len(text))
            opened[mark] += 1
            (stack[-1].children if stack else roots).append(node)
            stack.append(node)
        elif mark in ("}", "]"):
            _close(stack, opened, "{" if mark == "}" else "[", end)
    return roots


def _close(stack: list[Node], opened: dict[str, int], bracket: str, at: int) -> None:
    """Close the innermost open bracket of a kind. Brackets opened after it stay unclosed."""
    while opened[bracket]:
        node = stack.pop()
        opened[node.bracket] -= 1
        if node.bracket == bracket:
            node.stop, node.closed = at, True
            return
        node.stop = at - 1


def is_deep(root: Node, limit: int) -> bool:
    """Whether brackets are nested more than ``limit`` deep."""
    level, depth = [root], 0
    while level:
        depth += 1
        if depth > limit:
            return True
        level = [child for node in level for child in node.children]
    return False


def end_of_string(text: str, at: int, inside: re.Pattern[str]) -> int:
    """Position after the string that starts before ``at``; the end of the text if unclosed."""
    for mark in inside.finditer(text, at):
        if not mark.group().startswith("\\"):
            return mark.end()
    return len(text)


def as_json(text: str) -> str:
    """Normalize quotation marks, commas and colons to those of JSON, and drop trailing commas.

    json-repair does the rest, but would end a string at a nested quotation mark.
    """
    out: list[str] = []
    last = 0
    for mark, start, end in _tokens(text, inside=True):
        if start > last and mark not in "}]":
            out.append(" ")
        last = end
        if len(mark) == 2:
            out.append('"' + _INNER_MARK.sub(_escaped, text[start + 1 : end - 1]) + '"')
            continue
        if mark in "}]" and out and out[-1] == ",":
            out.pop()
        out.append({"，": ",", "：": ":"}.get(mark, mark))
    return "".join(out)


def _escaped(mark: re.Match[str]) -> str:
    return {"\\'": "'", '"': '\\"'}.get(mark.group(), mark.group())

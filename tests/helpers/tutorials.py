"""Runs the code blocks of Markdown pages, in order, as a reader would."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_MATCHES = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the line it starts on."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(text)
    ]


class Reader:
    """Somebody who types what pages show, in one shell and one Python session.

    A `text` block after an executed block shows its output; `...` matches anything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def follow(self, page: Path) -> int:
        """Run every block of a page; returns how many were run."""
        count, output = 0, None
        for block in blocks_of(page):
            place = f"{page.name}, line {block.line}"
            if block.language in ("bash", "console", "python"):
                run = self._python if block.language == "python" else self._shell
                output = run(block.text, place)
                count += 1
            elif block.language == "text" and output is not None:
                matches = doctest.OutputChecker().check_output(block.text, output, _MATCHES)
                assert matches, f"{place}: the page shows\n{block.text}\nthe code prints\n{output}"
                output = None
        return count

    def _shell(self, script: str, place: str) -> str:
        lines = [line.removeprefix("$ ") for line in script.splitlines()]
        where = self.folder / ".where"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join([*lines, f"pwd > '{where}'"])],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, f"{place}: {done.stderr or done.stdout}"
        folder = where.read_text(encoding="utf-8").strip()
        where.unlink()
        self.folder = Path(folder)
        return done.stdout

    def _python(self, code: str, place: str) -> str:
        output = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(output):
            exec(compile(code, place, "exec"), self.names)
        return output.getvalue()

    @staticmethod
    def _environment() -> dict[str, str]:
        """This environment, with the programs of this Python first and no way to the Hub."""
        programs = str(Path(sys.executable).parent)
        path = os.pathsep.join([programs, os.environ.get("PATH", "")])
        return {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}

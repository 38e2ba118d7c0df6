"""The running driver: one process, which keeps a model loaded between edits."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clm_data.eval.easyedit.found import (
    PROTOCOL,
    TIMEOUT_VARIABLE,
    EasyEdit,
    last_line,
    parse_answer,
    process_environment,
)
from clm_data.eval.errors import EditError

_LOG = "log.txt"


class DriverProcess:
    """A driver that answers requests, in a folder that it works in.

    Args:
        environment: The environment with EasyEdit.
        folder: Its working directory: it reads the model there and writes weight changes.
    """

    def __init__(self, environment: EasyEdit, folder: Path) -> None:
        self.environment, self.folder = environment, folder
        self._name = f"EasyEdit {environment.version}"
        try:
            self._process = subprocess.Popen(
                environment.command("serve"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                cwd=folder,
                env=process_environment(),
            )
        except OSError as error:
            raise EditError(f"{self._name}: cannot be started: {error.strerror}") from error
        self._end = weakref.finalize(self, _end, self._process)
        self._late = False

    def ask(self, command: str, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            EditError: The driver reports an error, ended, or took too long; one line, which ends
                with the last line that EasyEdit printed.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._limited():
            try:
                message = {"protocol": PROTOCOL, "command": command, **request}
                stdin.write(json.dumps(message) + "\n")
                stdin.flush()
                line = stdout.readline()
            except OSError:
                line = ""
        answer = parse_answer(line)
        if answer is None:
            self.close()
            reason = f"ended with {_exit(self._process.returncode)}"
            if self._late:
                reason = (
                    f"no answer within {self.environment.timeout:g} seconds ({TIMEOUT_VARIABLE})"
                )
            raise EditError(self._message(reason, self._printed()))
        if answer["status"] != "ok":
            raise EditError(self._message(answer["message"], answer["printed"]))
        return answer

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Kill the process if an answer takes longer than the environment's timeout."""
        if self.environment.timeout is None:
            yield
            return
        timer = threading.Timer(self.environment.timeout, self._kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _kill(self) -> None:
        self._late = True
        self._process.kill()

    @property
    def alive(self) -> bool:
        """Whether the process can answer."""
        return self._end.alive

    def close(self) -> None:
        """End the process."""
        self._end()

    def _message(self, reason: str, printed: str) -> str:
        said = f"; it last printed: {printed}" if printed and printed not in reason else ""
        return f"{self._name}: {reason}{said}"

    def _printed(self) -> str:
        try:
            text = (self.folder / _LOG).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return last_line(text.replace("\r", "\n"))


def _end(process: subprocess.Popen[str]) -> None:
    """End a driver: close its input, and kill it if it does not end by itself."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"

"""The command line: parse arguments, call one function of `clm_data`, print, set the exit code.

Each module has the commands of one help panel and imports what it needs inside the command, so
that `clm-data --help` loads no heavy packages. Exit codes: 0 for success, 1 if
`--strict` is used and something was dropped or wrong, 2 for an error that the user can fix, 130 if
interrupted (state is kept).
"""

from __future__ import annotations

import io
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from clm_data.cli.terminal import printable
from clm_data.errors import StoppedError, UserError

_INTERRUPTED = 130
"""Exit code after Ctrl-C."""
_SECONDS_TO_END = 5.0
"""Time in which a further Ctrl-C is ignored."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `clm-data`: run a command and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal can encode it
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _FirstInterrupt())
    code = run(argv)
    # The outcome is printed: Ctrl-C while Python shuts down does not change it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An interrupt that passed through an exec() of a string, as when a dataclass is defined, makes
    # Python end itself by SIGINT instead of with the exit code; the next exec() forgets it.
    exec("")
    sys.exit(code)


class _FirstInterrupt:
    """Handler of SIGINT: the first interrupts the command; its end only if it hangs."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        if time.monotonic() - self._last > _SECONDS_TO_END:
            self._last = time.monotonic()
            raise KeyboardInterrupt


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. An error that the user can fix prints as one line."""
    try:
        from clm_data.cli.commands import app

        code = app(args=argv, prog_name="clm-data", standalone_mode=False)
    except StoppedError as error:
        print(f"interrupted; {error}", file=sys.stderr)
        return _INTERRUPTED
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted; finished work is kept, run the command again", file=sys.stderr)
        return _INTERRUPTED
    except OSError as error:
        return _fail(_system_error(error))
    except Exception as error:
        # A usage error. Its class is private to typer in some versions and click's in others, so
        # it is recognized by its method.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        if not message:  # no command was given, and the help has been printed
            return 2
        return _fail(f"{message} Try: clm-data {_command_of(error)}--help")
    if code == _INTERRUPTED:
        print("interrupted; finished work is kept, run the command again", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _fail(message: str) -> int:
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2


def _system_error(error: OSError) -> str:
    """The reason and the path of an error that no command expected."""
    place = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{place}{reason}; check the path, its permissions and the free space"


def _command_of(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    path = str(context.command_path) if context is not None else ""
    words = path.split()[1:]
    return " ".join(words) + " " if words else ""

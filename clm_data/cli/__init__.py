"""The command line: parse arguments, call one function of `clm_data`, print, set the exit code.

Each module has the commands of one help panel and imports what it needs inside the command, so
that `clm-data --help` loads no heavy packages. Exit codes: 0 for success, 1 if
`--strict` is used and something was dropped or wrong, 2 for an error that the user can fix, 130 if
interrupted (state is kept).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from clm_data.errors import StoppedError, UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `clm-data`: run a command and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal can encode it
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. An error that the user can fix prints as one line."""
    try:
        from clm_data.cli.commands import app

        code = app(args=argv, prog_name="clm-data", standalone_mode=False)
    except StoppedError as error:
        print(f"interrupted; {error}", file=sys.stderr)
        return 130
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted; finished work is kept, run the command again", file=sys.stderr)
        return 130
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
    if code == 130:
        print("interrupted; finished work is kept, run the command again", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
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

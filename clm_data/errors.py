"""The error hierarchy.

    ClmDataError
    ├── UserError                can be fixed by the user: printed as one line, exit code 2
    │   ├── ConfigError          clm.yaml, domains.yaml, a template or a flag is wrong
    │   ├── InputFileError       a file cannot be read or written, or has the wrong format
    │   ├── UnknownNameError     a name is not registered; suggests similar names
    │   ├── MissingExtraError    an optional dependency is not installed
    │   ├── CredentialsError     a key or token is missing or was rejected
    │   ├── StoreError           the store cannot be opened, is in use, or has another version
    │   │   └── DamagedStoreError  rows of the store are not what was written
    │   ├── EvaluationError      all cells of an evaluation failed
    │   ├── PublishError         the Hub rejected a request or cannot be reached
    │   └── StoppedError         interrupted by the user: exit code 130
    └── ChatError                a call of a chat model failed
        ├── RateLimitError       429: pause all requests, then retry
        ├── TransientError       timeout, 5xx or broken connection: retry
        └── PermanentError       retrying would give the same error
            └── ModeratedError   a content filter or the model refused this prompt

Exceptions of other libraries are wrapped with ``raise ... from``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_NAMED = 5
"""Damaged rows that a message names."""


class ClmDataError(Exception):
    """Base class of all errors that this package raises."""


class UserError(ClmDataError):
    """An error the user can fix. The message says what is wrong, where, and how to fix it."""


class ConfigError(UserError):
    """A setting, domain file or prompt template is wrong."""


class InputFileError(UserError):
    """A file cannot be read or written, or does not have the expected format."""


class UnknownNameError(UserError):
    """A name that is not registered. The message suggests similar names.

    Args:
        kind: What the name is of.
        name: The name.
        known: The names that exist.
        otherwise: Said if no name is similar; default: the names that exist.
        note: Said in any case.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], *, otherwise: str = "", note: str = ""
    ) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = otherwise or f"known: {', '.join(names)}"
        hint = (f"did you mean {', '.join(close)}?" if close else hint) + (note and f"; {note}")
        super().__init__(f"unknown {kind} '{name}'; {hint}")


class MissingExtraError(UserError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'clm-data[{extra}]'")


class CredentialsError(UserError):
    """A key or token is missing or was rejected."""


class StoreError(UserError):
    """The store cannot be opened, is in use, or has another schema version."""


class DamagedStoreError(StoreError):
    """Rows of the store are not what was written. Nothing is left out in silence.

    Args:
        store: The store, without a password.
        rows: The damaged rows, each named as a person would.
    """

    def __init__(self, store: str, rows: Sequence[str]) -> None:
        self.rows = tuple(rows)
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        super().__init__(
            f"{f'store {store}' if store else 'the store'} is damaged: "
            f"{', '.join(rows[:_NAMED])}{more}; clm-data doctor lists all, "
            "clm-data store restore puts a backup in its place"
        )


class EvaluationError(UserError):
    """All cells of an evaluation failed."""


class PublishError(UserError):
    """The Hub rejected a request or cannot be reached."""


class StoppedError(UserError):
    """The user interrupted a command. The message says what has been saved."""


class ChatError(ClmDataError):
    """A call to a chat model failed."""


class RateLimitError(ChatError):
    """The endpoint limits the number of requests or tokens.

    Args:
        message: Message of the endpoint.
        retry_after: Seconds to wait, if the endpoint specified it.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TransientError(ChatError):
    """A timeout, a 5xx response or a broken connection. A retry may succeed."""


class PermanentError(ChatError):
    """A retry would fail again: a bad request, a dialogue that is too long, a body over a limit."""


class ModeratedError(PermanentError):
    """A content filter, or the model itself, refused this prompt; others may be answered."""

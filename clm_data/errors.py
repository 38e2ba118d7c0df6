"""The one error tree.

    ClmDataError
    ├── UserError                what the user can mend: printed as one line, exit code 2
    │   ├── ConfigError          clm.yaml, domains.yaml, a template or a flag is wrong
    │   ├── InputFileError       a file that was given cannot be read as what it should be
    │   ├── UnknownNameError     a name is not in a registry; suggests its neighbours
    │   ├── MissingExtraError    an optional dependency is not installed
    │   ├── CredentialsError     a key or token is missing or refused
    │   ├── StoreError           the store cannot be opened, is in use, or is of another version
    │   ├── EvaluationError      not one cell of an evaluation could be computed
    │   ├── PublishError         the Hub refused, or cannot be reached
    │   └── StoppedError         interrupted; says what is there now: exit code 130
    └── ChatError                one call of a chat model failed
        ├── RateLimitError       429: everybody should pause, then ask again
        ├── TransientError       time-out, 5xx, broken connection: ask again
        └── PermanentError       asking again gives the same answer

Foreign exceptions are wrapped with ``raise ... from``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClmDataError(Exception):
    """Base of every error this package raises on purpose."""


class UserError(ClmDataError):
    """Something the user can mend; the message says what, where and how."""


class ConfigError(UserError):
    """A setting, domain file or template is wrong."""


class InputFileError(UserError):
    """A given file cannot be read as what it should be."""


class UnknownNameError(UserError):
    """A name that is not in a registry."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(names)}"
        super().__init__(f"unknown {kind} '{name}'; {hint}")


class MissingExtraError(UserError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'clm-data[{extra}]'")


class CredentialsError(UserError):
    """A key or token is missing, or was refused."""


class StoreError(UserError):
    """The store cannot be opened or is of another version."""


class EvaluationError(UserError):
    """Not one cell of an evaluation could be computed."""


class PublishError(UserError):
    """The Hub refused an upload, or cannot be reached."""


class StoppedError(UserError):
    """Interrupted by the user, in a command that says itself what is there now."""


class ChatError(ClmDataError):
    """One call of a chat model failed."""


class RateLimitError(ChatError):
    """The endpoint asks for a pause (429).

    Args:
        message: What the endpoint said.
        retry_after: Seconds it asked for, where it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TransientError(ChatError):
    """A time-out, a 5xx or a broken connection: the same call may succeed."""


class PermanentError(ChatError):
    """The same call would fail again (400, 404, 422, content filter)."""

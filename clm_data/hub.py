"""Client for one repository on the Hub. Every failure is a one-line error."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clm_data.errors import CredentialsError, InputFileError, PublishError
from clm_data.manifest import MANIFEST_NAME, read_manifest
from clm_data.text import mask

if TYPE_CHECKING:
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import HfHubHTTPError

TOKENS_PAGE = "https://huggingface.co/settings/tokens"
_TIMEOUT = 15.0
"""Timeout in seconds."""


@dataclass(frozen=True)
class Snapshot:
    """Current state of a repository."""

    private: bool
    commit: str
    files: dict[str, str]
    """By path, the sha256 of an LFS file or the git blob id of any other file."""
    previous: tuple[str, ...]
    """The manifest in the repository and the paths it lists. Empty if it has no manifest."""


class Repository:
    """A repository of a dataset or a model, which may not exist yet.

    Args:
        repo_id: ``NAMESPACE/NAME``.
        token: Hub token. None for anonymous access.
        endpoint: URL of the Hub. Defaults to ``HF_ENDPOINT``, then to the public Hub.
        kind: What it holds.

    Raises:
        PublishError: ``repo_id`` is not valid. All methods raise it if the Hub rejects a request
            or cannot be reached, and :class:`CredentialsError` if the Hub rejects the token.
    """

    def __init__(
        self,
        repo_id: str,
        token: str | None,
        endpoint: str | None = None,
        kind: Literal["dataset", "model"] = "dataset",
    ) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        if repo_id.count("/") != 1:
            raise PublishError(
                f"'{repo_id}' is not a repository id; include your user or organization name: "
                "NAMESPACE/NAME"
            )
        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            raise PublishError(f"'{repo_id}' is not a repository id: {error}") from error
        self.id = repo_id
        self.kind = kind
        self.has_token = token is not None
        self._secrets = (token,) if token else ()
        self._api = HfApi(endpoint=endpoint, token=token or False, library_name="clm-data")

    @property
    def url(self) -> str:
        """Web page of the repository."""
        folder = "datasets/" if self.kind == "dataset" else ""
        return f"{self._api.endpoint}/{folder}{self.id}"

    def snapshot(self) -> Snapshot | None:
        """The current state; None if the repository does not exist or the token cannot see it."""
        from huggingface_hub import RepoFile
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._errors():
            try:
                info = self._info()
            except RepositoryNotFoundError as error:
                if self.has_token and error.response.status_code != 404:
                    raise
                return None
            commit = str(info.sha)
            tree = self._api.list_repo_tree(
                self.id, recursive=True, revision=commit, repo_type=self.kind
            )
            files = {file.path: _digest(file) for file in tree if isinstance(file, RepoFile)}
            previous = self._previous(commit) if MANIFEST_NAME in files else ()
        return Snapshot(bool(info.private), commit, files, previous)

    def _info(self, revision: str | None = None) -> Any:
        return self._api.repo_info(
            self.id, revision=revision, repo_type=self.kind, timeout=_TIMEOUT
        )

    def _previous(self, commit: str) -> tuple[str, ...]:
        with tempfile.TemporaryDirectory() as scratch:
            self._api.hf_hub_download(
                self.id, MANIFEST_NAME, repo_type=self.kind, revision=commit, local_dir=scratch
            )
            try:
                return (MANIFEST_NAME, *read_manifest(Path(scratch)).files)
            except InputFileError:
                return ()  # a manifest.json of another program

    def tagged_commit(self, tag: str) -> str | None:
        """The commit that a tag marks; None if there is no such tag."""
        with self._errors():
            refs = self._api.list_repo_refs(self.id, repo_type=self.kind)
            if tag not in {ref.name for ref in refs.tags}:
                return None
            return str(self._info(tag).sha)

    def create(self, *, private: bool) -> None:
        """Create the repository. If not private, the default of the namespace applies."""
        with self._errors():
            self._api.create_repo(self.id, private=private or None, repo_type=self.kind)

    def commit(
        self, folder: Path, add: Iterable[str], remove: Iterable[str], *, message: str, parent: str
    ) -> str:
        """Add and remove files in one commit on top of ``parent`` and return its id.

        Large files are sent by Xet, or by LFS if the Hub has no Xet, as mirrors and Hubs of
        organizations may not.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        added, removed = list(add), list(remove)

        def send() -> str:
            operations: list[Any] = [
                CommitOperationAdd(path_in_repo=path, path_or_fileobj=folder / path)
                for path in added
            ]
            operations += [CommitOperationDelete(path_in_repo=path) for path in removed]
            info = self._api.create_commit(
                self.id,
                operations,
                commit_message=message,
                repo_type=self.kind,
                parent_commit=parent,
            )
            return str(info.oid)

        with self._errors():
            try:
                return send()
            except (OSError, RuntimeError, ValueError) as error:
                if not _is_missing_xet(error):
                    raise
            with _without_xet():
                return send()

    def tag(self, tag: str, commit: str) -> None:
        """Create a tag for a commit."""
        with self._errors():
            self._api.create_tag(self.id, tag=tag, revision=commit, repo_type=self.kind)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]

        try:
            yield
        except HfHubHTTPError as error:
            raise self._refusal(error) from error
        except (TransportError, OSError) as error:
            raise PublishError(
                f"cannot reach {self._api.endpoint}: {_line(error)}; "
                "check the network, then push again"
            ) from error
        except (ValueError, RuntimeError) as error:
            cause = error.__cause__
            if isinstance(cause, HfHubHTTPError):  # upload threads wrap the error of the Hub
                raise self._refusal(cause) from error
            raise PublishError(
                f"{self._api.endpoint} did not accept {self.id}: {_line(cause or error)}"
            ) from error

    def _refusal(self, error: HfHubHTTPError) -> PublishError | CredentialsError:
        status = error.response.status_code
        said = mask(_one_line(error.server_message or ""), self._secrets)
        message = f" ({said})" if said else ""
        if status == 401:
            return CredentialsError(
                f"the Hub rejected the token{message}; "
                f"create one with write permission: {TOKENS_PAGE}"
            )
        owner = self.id.split("/", maxsplit=1)[0]
        advice = {
            403: f"the token has no write permission for {owner}; use one that has",
            404: f"check that {owner} exists and that the token has access to it",
            409: "it exists but the token has no access, or someone is changing it right now",
            412: "someone else has pushed to it; check the repository, then push again",
            429: "too many requests; wait a few minutes, then push again",
        }.get(status, "push again later" if status >= 500 else "see the message of the Hub")
        return PublishError(f"the Hub answered {status} for {self.id}{message}: {advice}")


def _is_missing_xet(error: BaseException) -> bool:
    """Whether an upload failed because the Hub has no route for Xet tokens."""
    return "/xet-write-token/" in str(error) and "404" in str(error)


@contextmanager
def _without_xet() -> Iterator[None]:
    """Let the client upload by LFS."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _digest(file: RepoFile) -> str:
    return file.lfs.sha256 if file.lfs is not None else file.blob_id


def _line(error: BaseException) -> str:
    return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())

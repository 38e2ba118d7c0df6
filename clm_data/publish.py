"""Push a built dataset to the Hub.

A push makes one commit with the files that differ from the repository, or none if nothing differs.
Files of an earlier push that the dataset no longer has are removed. Other files in the repository
are not touched.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from clm_data.building import REJECTED_NAME
from clm_data.errors import CredentialsError, InputFileError, PublishError
from clm_data.files import sha256_file
from clm_data.hub import TOKENS_PAGE, Repository, Snapshot
from clm_data.manifest import MANIFEST_NAME, read_manifest
from clm_data.records import Frozen
from clm_data.tabular import Tabular
from clm_data.version import __version__

Change = Literal["new", "changed", "same", "unknown"]

_TAG = re.compile(
    r"(?![-./])(?!.*(?:\.\.|//|/\.|@\{|\.lock(?:/|$)))[^\x00-\x20\x7f~^:?*\[\\]+(?<![./])"
)
"""Names that ``git check-ref-format`` accepts."""


class PushFile(Frozen):
    """A file of the dataset and how it differs from the repository."""

    path: str
    size: int
    """In bytes."""
    sha256: str
    change: Change
    """Compared to the repository before the push. ``unknown`` if it could not be read."""


class PushReport(Frozen, Tabular):
    """What a push changed, or what it would change if it is a dry run."""

    repo: str
    url: str
    visibility: Literal["public", "private"]
    """Of the repository, or of the new one if it does not exist or cannot be read."""
    tag: str | None
    dry_run: bool
    remote: str
    """State of the repository: ``present``, ``absent``, or why it could not be read."""
    files: tuple[PushFile, ...]
    removed: tuple[str, ...]
    """Paths of an earlier push that the dataset no longer has."""
    left_out: tuple[str, ...]
    """Files in the folder that are not pushed."""
    changed: bool
    """Whether anything differs from the repository."""
    commit: str | None
    """The commit with this dataset. None in a dry run if there is no such commit yet."""

    def as_json(self) -> dict[str, Any]:
        """The JSON value that ``clm-data push-to-hub --json`` prints."""
        return self.model_dump(mode="json")

    def table_title(self) -> str:
        """Repository, visibility and commit."""
        done = "dry run" if self.dry_run else f"commit {self.commit}"
        return f"{self.repo} ({self.visibility}): {done}"

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each file."""
        return [file.model_dump(mode="json") for file in self.files]


def push_to_hub(
    dataset_dir: Path | str,
    repo_id: str,
    *,
    private: bool = False,
    tag: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
    endpoint: str | None = None,
    rejected: bool = True,
) -> PushReport:
    """Push a folder written by ``clm-data build`` to a dataset repository.

    Args:
        dataset_dir: The folder.
        repo_id: ``NAMESPACE/NAME``. The repository is created if it does not exist.
        private: Create the repository as private. An existing one keeps its visibility.
        tag: Tag for the commit.
        token: Hub token. Defaults to ``HF_TOKEN``, then to the token of ``hf auth login``.
        dry_run: Change nothing. Works without a token and without a network.
        endpoint: URL of the Hub. Defaults to ``HF_ENDPOINT``, then to the public Hub.
        rejected: Also push ``rejected.jsonl``, the rejected items with reasons.

    Raises:
        InputFileError: The folder is incomplete, was changed after the build, or does not load.
        CredentialsError: There is no token, or the Hub rejected it.
        PublishError: The namespace does not exist, permission is missing, the Hub cannot be
            reached, the repository is public although ``private`` is set, or the tag is taken or
            has a name that Git refuses.
    """
    if tag is not None and not _TAG.fullmatch(tag):
        raise PublishError(f"{tag!r} cannot be the name of a tag in Git; choose one such as v1.0")
    folder = Path(dataset_dir)
    paths = _checked_paths(folder, rejected=rejected)
    token = token or _find_token(required=not dry_run)
    repository = Repository(repo_id, token, endpoint)
    _check_loads(folder)
    report, current = _plan(repository, folder, paths, private=private, tag=tag, dry_run=dry_run)
    tagged = _tagged_commit(repository, report) if current is not None else None
    return report if dry_run else _push(report, repository, folder, current, tagged)


def push_model(
    folder: Path, repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Push a model folder to a model repository in one commit; returns its web page.

    Files that the repository has besides those of the folder stay.

    Args:
        folder: The folder.
        repo_id: ``NAMESPACE/NAME``. The repository is created if it does not exist.
        private: Create the repository as private.
        token: Hub token. Defaults to ``HF_TOKEN``, then to the token of ``hf auth login``.

    Raises:
        CredentialsError: There is no token, or the Hub rejected it.
        PublishError: See :func:`push_to_hub`.
    """
    repository = Repository(repo_id, token or _find_token(required=True), kind="model")
    current = repository.snapshot()
    if current is not None and private and not current.private:
        raise _public(repository)
    current = current or _created(repository, private=private)
    paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    message = f"Edited with clm-data {__version__}"
    repository.commit(folder, add=paths, remove=(), message=message, parent=current.commit)
    return repository.url


def _public(repository: Repository) -> PublishError:
    return PublishError(
        f"{repository.id} exists and is public; make it private in its settings on the Hub, "
        "or push without --private"
    )


def _created(repository: Repository, *, private: bool) -> Snapshot:
    """The state of a repository that is created now."""
    repository.create(private=private)
    current = repository.snapshot()
    if current is None:
        raise PublishError(f"{repository.id} was created but is not visible yet; push again")
    return current


def _plan(
    repository: Repository,
    folder: Path,
    paths: Sequence[str],
    *,
    private: bool,
    tag: str | None,
    dry_run: bool,
) -> tuple[PushReport, Snapshot | None]:
    """Compare the folder with the repository, without changing anything."""
    remote, current = _read_remote(repository, must_reach=not dry_run)
    if current is not None and private and not current.private:
        raise _public(repository)
    removed = _obsolete(paths, current)
    files = tuple(_compare(folder, path, remote, current) for path in paths)
    changed = bool(removed) or any(file.change != "same" for file in files)
    report = PushReport(
        repo=repository.id,
        url=repository.url,
        visibility="private" if (current.private if current else private) else "public",
        tag=tag,
        dry_run=dry_run,
        remote=remote,
        files=files,
        removed=removed,
        left_out=_left_out(folder, paths),
        changed=changed,
        commit=current.commit if current is not None and not changed else None,
    )
    return report, current


def _tagged_commit(repository: Repository, report: PushReport) -> str | None:
    """The commit with the tag; None if the tag does not exist.

    Raises:
        PublishError: The tag marks a commit with other content.
    """
    tagged = repository.tagged_commit(report.tag) if report.tag else None
    if tagged is not None and tagged != report.commit:
        raise PublishError(
            f"tag '{report.tag}' of {report.repo} already marks commit {tagged[:8]}, which has "
            "different content; choose another tag with --tag"
        )
    return tagged


def _push(
    report: PushReport,
    repository: Repository,
    folder: Path,
    current: Snapshot | None,
    tagged: str | None,
) -> PushReport:
    """Create the repository, the commit and the tag unless they exist already."""
    current = current or _created(repository, private=report.visibility == "private")
    commit = report.commit or repository.commit(
        folder,
        add=[file.path for file in report.files if file.change != "same"],
        remove=report.removed,
        message=f"Dataset built by clm-data {__version__}",
        parent=current.commit,
    )
    if report.tag and tagged is None:
        repository.tag(report.tag, commit)
    visibility = "private" if current.private else "public"
    return report.model_copy(update={"commit": commit, "visibility": visibility})


def _checked_paths(folder: Path, *, rejected: bool) -> list[str]:
    """Paths to push, after checking every file against the manifest."""
    manifest = read_manifest(folder)
    for path, sha256 in manifest.files.items():
        file = folder / path
        if not file.resolve().is_relative_to(folder.resolve()):
            raise InputFileError(f"{file} is outside the dataset; run clm-data build again")
        if not file.is_file():
            raise InputFileError(f"{file} is missing; run clm-data build again")
        if sha256_file(file) != sha256:
            raise InputFileError(
                f"{file} was changed after the build ({MANIFEST_NAME} has a different sha256); "
                "run clm-data build again"
            )
    listed = {*manifest.files, MANIFEST_NAME}
    return sorted(listed if rejected else listed - {REJECTED_NAME})


def _left_out(folder: Path, paths: Iterable[str]) -> tuple[str, ...]:
    existing = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return tuple(sorted(existing.difference(paths)))


def _check_loads(folder: Path) -> None:
    """Load every configuration of the card with the datasets library."""
    from datasets.inspect import get_dataset_config_names
    from datasets.load import load_dataset
    from datasets.utils import logging as log
    from datasets.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    verbosity, was_quiet = log.get_verbosity(), are_progress_bars_disabled()
    log.set_verbosity(logging.ERROR)
    disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
            for name in get_dataset_config_names(str(folder)):
                load_dataset(str(folder), name, split="test", cache_dir=cache)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputFileError(
            f"{folder} does not load as a dataset: {reason}; run clm-data build again"
        ) from error
    finally:
        log.set_verbosity(verbosity)
        if not was_quiet:
            enable_progress_bars()


def _find_token(*, required: bool) -> str | None:
    from huggingface_hub import get_token

    try:
        token = get_token()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CredentialsError(f"the Hub token cannot be read: {reason}; set HF_TOKEN") from error
    if token is None and required:
        raise CredentialsError(
            "no Hub token; set HF_TOKEN or run 'hf auth login' "
            f"(a token with write permission: {TOKENS_PAGE})"
        )
    return token


def _read_remote(repository: Repository, *, must_reach: bool) -> tuple[str, Snapshot | None]:
    """The state of the repository for the report, and its content if it can be read."""
    try:
        current = repository.snapshot()
    except (PublishError, CredentialsError) as error:
        if must_reach:
            raise
        return f"not read: {error}", None
    if current is not None:
        return "present", current
    return "absent" if repository.has_token else "absent, or private: no token given", None


def _compare(folder: Path, path: str, remote: str, current: Snapshot | None) -> PushFile:
    data = (folder / path).read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    blob_id = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    change: Change
    if current is None:
        change = "new" if remote.startswith("absent") else "unknown"
    elif path not in current.files:
        change = "new"
    else:
        change = "same" if current.files[path] in (sha256, blob_id) else "changed"
    return PushFile(path=path, size=len(data), sha256=sha256, change=change)


def _obsolete(paths: Iterable[str], current: Snapshot | None) -> tuple[str, ...]:
    """Files of an earlier push that the dataset no longer has."""
    if current is None:
        return ()
    return tuple(sorted((set(current.previous) & set(current.files)).difference(paths)))

"""Pushing a built dataset to the Hub.

Only what differs from the repository is sent, in one commit; a second push of the same content
sends nothing. What an earlier push brought and the dataset no longer has is removed; what others
put into the repository stays.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from clm_data import __version__
from clm_data.building import REJECTED_NAME
from clm_data.errors import CredentialsError, InputFileError, PublishError
from clm_data.files import sha256_file
from clm_data.hub import TOKENS_PAGE, Repository, Snapshot
from clm_data.manifest import MANIFEST_NAME, read_manifest
from clm_data.records import Frozen
from clm_data.tabular import Tabular

Change = Literal["new", "changed", "same", "unknown"]


class PushFile(Frozen):
    """One file of the dataset and what a push does with it."""

    path: str
    size: int
    """Bytes."""
    sha256: str
    change: Change
    """Against the repository before the push; ``unknown`` where that could not be read."""


class PushReport(Frozen, Tabular):
    """What a push did, or in a dry run would do."""

    repo: str
    url: str
    visibility: Literal["public", "private"]
    """As it is; as it is to be made where there is no repository, or none that is seen."""
    tag: str | None
    dry_run: bool
    remote: str
    """What was found there: ``present``, ``absent``, or why it could not be read."""
    files: tuple[PushFile, ...]
    removed: tuple[str, ...]
    """Paths of an earlier push that the dataset no longer has."""
    left_out: tuple[str, ...]
    """Paths in the folder that are not pushed."""
    changed: bool
    """Whether there was, or would be, anything to commit."""
    commit: str | None
    """The commit that holds the dataset; None in a dry run where none does yet."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return self.model_dump(mode="json")

    def table_title(self) -> str:
        """The repository and what happened to it."""
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
    """Push a folder made by ``clm-data build``: card, all configurations, JSON files, manifest.

    Args:
        dataset_dir: The folder.
        repo_id: ``NAMESPACE/NAME``; made where it does not exist.
        private: Make it private. A repository that exists keeps its visibility.
        tag: Tag for the commit that holds the dataset.
        token: The Hub's token; None: ``HF_TOKEN``, or the one that ``hf auth login`` stored.
        dry_run: Change nothing; needs neither a token nor a network.
        endpoint: The Hub's address; None: ``HF_ENDPOINT``, or the public one.
        rejected: Push ``rejected.jsonl`` too: what was left out, and why.

    Raises:
        InputFileError: The folder is incomplete, changed since it was built, or does not load.
        CredentialsError: No token, or it was refused.
        PublishError: No such namespace, no permission, no network, a public repository where a
            private one is asked for, or a tag that marks something else.
    """
    folder = Path(dataset_dir)
    paths = _checked_paths(folder, rejected=rejected)
    token = token or _found_token(required=not dry_run)
    repository = Repository(repo_id, token, endpoint)
    _check_loads(folder)
    remote, there = _look(repository, must_reach=not dry_run)
    if there is not None and private and not there.private:
        raise PublishError(
            f"{repo_id} exists and is public; make it private in its settings on the Hub, "
            "or push without --private"
        )
    removed = _obsolete(paths, there)
    files = tuple(_compare(folder, path, remote, there) for path in paths)
    changed = bool(removed) or any(file.change != "same" for file in files)
    report = PushReport(
        repo=repo_id,
        url=repository.url,
        visibility="private" if (there.private if there else private) else "public",
        tag=tag,
        dry_run=dry_run,
        remote=remote,
        files=files,
        removed=removed,
        left_out=_left_out(folder, paths),
        changed=changed,
        commit=there.commit if there is not None and not changed else None,
    )
    marked = _marked(repository, report) if there is not None else None
    return report if dry_run else _carry_out(report, repository, folder, there, marked)


def _marked(repository: Repository, report: PushReport) -> str | None:
    """The commit that the tag marks; None where it marks none yet.

    Raises:
        PublishError: It marks a commit that does not hold the dataset.
    """
    marked = repository.tagged_commit(report.tag) if report.tag else None
    if marked is not None and marked != report.commit:
        raise PublishError(
            f"tag '{report.tag}' of {report.repo} already marks commit {marked[:8]}, which does "
            "not hold this content; choose another with --tag"
        )
    return marked


def _carry_out(
    report: PushReport,
    repository: Repository,
    folder: Path,
    there: Snapshot | None,
    marked: str | None,
) -> PushReport:
    """Make the repository, the commit and the tag, each only where it is missing."""
    if there is None:
        repository.create(private=report.visibility == "private")
        there = repository.snapshot()
        if there is None:
            raise PublishError(f"{report.repo} was made but cannot be seen yet; push again")
    commit = report.commit or repository.commit(
        folder,
        add=[file.path for file in report.files if file.change != "same"],
        remove=report.removed,
        message=f"Dataset built by clm-data {__version__}",
        parent=there.commit,
    )
    if report.tag and marked is None:
        repository.tag(report.tag, commit)
    visibility = "private" if there.private else "public"
    return report.model_copy(update={"commit": commit, "visibility": visibility})


def _checked_paths(folder: Path, *, rejected: bool) -> list[str]:
    """What to push, once every file is seen to be as the manifest says it was built."""
    manifest = read_manifest(folder)
    for path, sha256 in manifest.files.items():
        file = folder / path
        if not file.is_file():
            raise InputFileError(f"{file} is missing; run clm-data build again")
        if sha256_file(file) != sha256:
            raise InputFileError(
                f"{file} was changed after it was built ({MANIFEST_NAME} has another sha256); "
                "run clm-data build again"
            )
    listed = {*manifest.files, MANIFEST_NAME}
    return sorted(listed if rejected else listed - {REJECTED_NAME})


def _left_out(folder: Path, paths: Iterable[str]) -> tuple[str, ...]:
    here = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return tuple(sorted(here.difference(paths)))


def _check_loads(folder: Path) -> None:
    """Load every configuration that the card names, as a user will."""
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


def _found_token(*, required: bool) -> str | None:
    from huggingface_hub import get_token

    try:
        token = get_token()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CredentialsError(f"no Hub token can be had: {reason}; set HF_TOKEN") from error
    if token is None and required:
        raise CredentialsError(
            "no Hub token; set HF_TOKEN or run 'hf auth login' "
            f"(a token with write permission: {TOKENS_PAGE})"
        )
    return token


def _look(repository: Repository, *, must_reach: bool) -> tuple[str, Snapshot | None]:
    """What is there in words, and what is there where it can be read."""
    try:
        there = repository.snapshot()
    except (PublishError, CredentialsError) as error:
        if must_reach:
            raise
        return f"not read: {error}", None
    if there is not None:
        return "present", there
    return "absent" if repository.has_token else "absent, or private: no token given", None


def _compare(folder: Path, path: str, remote: str, there: Snapshot | None) -> PushFile:
    data = (folder / path).read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    blob_id = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    change: Change
    if there is None:
        change = "new" if remote.startswith("absent") else "unknown"
    elif path not in there.files:
        change = "new"
    else:
        change = "same" if there.files[path] in (sha256, blob_id) else "changed"
    return PushFile(path=path, size=len(data), sha256=sha256, change=change)


def _obsolete(paths: Iterable[str], there: Snapshot | None) -> tuple[str, ...]:
    if there is None:
        return ()
    return tuple(sorted((set(there.previous) & set(there.files)).difference(paths)))

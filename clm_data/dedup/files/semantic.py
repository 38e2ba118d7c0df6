"""Semantic duplicates: rows of one subject with similar meaning, according to an embedding model.

They are searched among the kept rows and only reported, never removed. Rows of different subjects
are not compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from clm_data.dedup.join.all_pairs import Progress
from clm_data.errors import ChatError, ConfigError, RateLimitError, TransientError, UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clm_data.llm import Endpoint

Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]
"""Maps n texts to an array of n vectors, one per row."""
BATCH_SIZE = 64
"""Texts per call of the embedding model."""
MAX_ROWS_PER_SUBJECT = 2_000
"""Subjects with more rows are skipped: such a subject is not specific, and cost is quadratic."""
_TIMEOUT = 120.0
_ATTEMPTS = 5
_MAX_PAUSE = 60.0
"""Seconds; if an endpoint asks for a longer pause, it is an error."""
_MAX_REASON = 200
"""Characters of another library's error shown in ours."""


class SemanticDuplicate(NamedTuple):
    """Two kept rows of one subject with similar meaning; ``left < right``.

    Attributes:
        left: Position of the earlier row.
        right: Position of the later row.
        cosine: Cosine of their embeddings, -1 to 1.
    """

    left: int
    right: int
    cosine: float


def find_semantic_duplicates(
    rows: Sequence[tuple[int, int, str]],
    embed: Embed,
    threshold: float,
    progress: Progress | None = None,
) -> tuple[list[SemanticDuplicate], int]:
    """Pairs of rows of one subject whose embeddings have at least a given cosine.

    Subjects with one row, or more than :data:`MAX_ROWS_PER_SUBJECT`, are not embedded.

    Args:
        rows: (position, subject id, text) of each row, in source order.
        embed: Called with at most :data:`BATCH_SIZE` distinct texts.
        threshold: Minimum cosine, inclusive.
        progress: Called with the number of texts embedded so far, and in all.

    Returns:
        The pairs, and the number of subjects with more than :data:`MAX_ROWS_PER_SUBJECT` rows.
    """
    groups: dict[int, list[tuple[int, str]]] = {}
    for row, subject, text in rows:
        groups.setdefault(subject, []).append((row, text))
    compared = [group for group in groups.values() if 1 < len(group) <= MAX_ROWS_PER_SUBJECT]
    left_out = sum(len(group) > MAX_ROWS_PER_SUBJECT for group in groups.values())
    texts = list(dict.fromkeys(text for group in compared for _, text in group))
    if not texts:
        return [], left_out
    vectors = _unit_vectors(texts, embed, progress)
    position = {text: index for index, text in enumerate(texts)}
    found: list[SemanticDuplicate] = []
    for group in compared:
        members = vectors[[position[text] for _, text in group]]
        found.extend(_close_pairs(group, members @ members.T, threshold))
    return sorted(found), left_out


def _close_pairs(
    group: Sequence[tuple[int, str]], cosines: NDArray[np.float32], threshold: float
) -> Iterator[SemanticDuplicate]:
    import numpy as np

    for left, right in np.argwhere(np.triu(cosines >= threshold, 1)).tolist():
        yield SemanticDuplicate(group[left][0], group[right][0], float(cosines[left, right]))


def _unit_vectors(
    texts: Sequence[str], embed: Embed, progress: Progress | None
) -> NDArray[np.float32]:
    """One embedding per text, scaled to length 1."""
    import numpy as np

    batches = []
    for start in range(0, len(texts), BATCH_SIZE):
        batches.append(embed(texts[start : start + BATCH_SIZE]))
        if progress:
            progress(min(start + BATCH_SIZE, len(texts)), len(texts))
    if len({batch.shape[1] for batch in batches}) > 1:
        raise UserError("the embedding model returned vectors of different sizes; use another one")
    vectors = np.concatenate(batches)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


def open_embedder(model: str | None, provider: str | None, base_url: str | None) -> Embed | None:
    """The embedding model of a provider or endpoint, or a local one if neither is given.

    Args:
        model: Name of the model; None for no model.
        provider: A provider of :mod:`clm_data.llm`.
        base_url: Address of an OpenAI-compatible endpoint.

    Raises:
        UserError: The model cannot be loaded, or a provider is given without a model.
    """
    if model is None:
        if provider is not None or base_url is not None:
            raise ConfigError("--provider and --base-url require --semantic MODEL")
        return None
    if provider is None and base_url is None:
        return local_embedder(model)
    from clm_data.config import Settings
    from clm_data.llm import endpoint

    return remote_embedder(
        model, endpoint(Settings(provider=provider or "custom", base_url=base_url))
    )


def local_embedder(model: str) -> Embed:
    """A model run by sentence-transformers on this machine.

    Raises:
        UserError: The package is not installed, or the model cannot be loaded.
    """
    try:
        sentence_transformers: Any = import_module("sentence_transformers")
    except ImportError as error:
        raise UserError(
            "sentence-transformers is not installed; run: pip install sentence-transformers, "
            "or use an endpoint with --provider or --base-url"
        ) from error
    try:
        encoder = sentence_transformers.SentenceTransformer(model)
    except Exception as error:  # sentence-transformers passes on the exceptions of its back ends
        reason = " ".join(str(error).split())[:_MAX_REASON]
        raise UserError(f"the embedding model '{model}' cannot be loaded: {reason}") from error

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        vectors = encoder.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    return embed


def remote_embedder(model: str, endpoint: Endpoint) -> Embed:
    """A model behind an endpoint with OpenAI's embeddings API.

    The returned function raises CredentialsError if access is refused, and UserError for other
    failures of a request.
    """

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        body = {"model": model, "input": list(texts), "encoding_format": "float"}
        with ThreadPoolExecutor(1) as pool:  # the caller's thread may have a running event loop
            response = pool.submit(lambda: asyncio.run(_request(endpoint, body))).result()
        return _vectors(response, len(texts), endpoint.address.shown)

    return embed


async def _request(endpoint: Endpoint, body: Mapping[str, Any]) -> Any:
    """Send a request, again after passing failures."""
    from clm_data.llm.transport import Transport

    transport = Transport(endpoint, _TIMEOUT)
    try:
        for attempt in range(_ATTEMPTS):
            try:
                return await transport.post("/embeddings", body)
            except (RateLimitError, TransientError) as error:
                pause = getattr(error, "retry_after", None)
                if attempt == _ATTEMPTS - 1 or (pause or 0) > _MAX_PAUSE:
                    raise
                await asyncio.sleep(0.5 * 2**attempt if pause is None else pause)
    except ChatError as error:
        reason = f"{endpoint.address.shown}: no embeddings: {error}; nothing was written"
        raise UserError(reason) from error
    finally:
        await transport.close()
    raise AssertionError  # the last attempt returns or raises


def _vectors(response: Any, count: int, url: str) -> NDArray[np.float32]:
    """The vectors of a response, in the order of the texts."""
    import numpy as np

    try:
        rows = sorted(response["data"], key=lambda row: row["index"])
        vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{url} did not return embeddings; check the model") from error
    if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
        raise UserError(f"{url} did not return one embedding per text; check the model")
    return vectors

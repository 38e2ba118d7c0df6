"""Semantic twins: rows of one subject that ask the same in other words, by an embedding model.

Found among the rows that stay, and only reported: a model's nearness is an opinion, not a reason to
remove. Rows of different subjects are never compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from clm_data.errors import CredentialsError, UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clm_data.llm import Endpoint

Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]
"""Texts to a row of numbers each."""
AT_ONCE = 64
"""Texts in one request."""
MOST_OF_A_SUBJECT = 2_000
"""Rows of one subject that are compared at most; a commoner subject tells nothing."""
_TIMEOUT = 120.0
_SHOWN = 200


class SemanticTwin(NamedTuple):
    """Two rows that stay, of one subject; ``left < right``.

    Attributes:
        left: Position of the earlier.
        right: Position of the later.
        cosine: Of the angle between their embeddings, -1 to 1.
    """

    left: int
    right: int
    cosine: float


def semantic_twins(
    texts: Sequence[tuple[int, int, str]],
    embed: Embed,
    threshold: float,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[SemanticTwin], int]:
    """Pairs of rows of one subject whose embeddings are at least so close.

    A subject that one row alone has costs nothing. One of more than :data:`MOST_OF_A_SUBJECT` rows
    is left out.

    Args:
        texts: (row, subject, text) of each row to look at, in the order of the file.
        embed: Called with at most :data:`AT_ONCE` different texts.
        threshold: Cosine, itself included.
        progress: Told how many of how many texts are embedded.

    Returns:
        The pairs, and how many subjects were left out.
    """
    groups: dict[int, list[tuple[int, str]]] = {}
    for row, subject, text in texts:
        groups.setdefault(subject, []).append((row, text))
    compared = [rows for rows in groups.values() if 1 < len(rows) <= MOST_OF_A_SUBJECT]
    left_out = sum(len(rows) > MOST_OF_A_SUBJECT for rows in groups.values())
    wanted = list(dict.fromkeys(text for rows in compared for _, text in rows))
    if not wanted:
        return [], left_out
    vectors = _embedded(wanted, embed, progress)
    place = {text: index for index, text in enumerate(wanted)}
    found: list[SemanticTwin] = []
    for rows in compared:
        own = vectors[[place[text] for _, text in rows]]
        found.extend(_close(rows, own @ own.T, threshold))
    return sorted(found), left_out


def _close(
    rows: Sequence[tuple[int, str]], cosines: NDArray[np.float32], threshold: float
) -> Iterator[SemanticTwin]:
    import numpy as np

    for left, right in np.argwhere(np.triu(cosines >= threshold, 1)).tolist():
        yield SemanticTwin(rows[left][0], rows[right][0], float(cosines[left, right]))


def _embedded(
    texts: Sequence[str], embed: Embed, progress: Callable[[int, int], None] | None
) -> NDArray[np.float32]:
    """A row of length 1 for each text."""
    import numpy as np

    parts = []
    for top in range(0, len(texts), AT_ONCE):
        parts.append(embed(texts[top : top + AT_ONCE]))
        if progress:
            progress(min(top + AT_ONCE, len(texts)), len(texts))
    if len({part.shape[1] for part in parts}) > 1:
        raise UserError("the embedding model gave vectors of several sizes; name another one")
    vectors = np.concatenate(parts)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


def local_embedder(model: str) -> Embed:
    """A model that sentence-transformers runs here.

    Raises:
        UserError: It is not installed, or cannot load the model.
    """
    try:
        encoders: Any = import_module("sentence_transformers")
    except ImportError as error:
        raise UserError(
            "sentence-transformers is not installed; run: pip install sentence-transformers, "
            "or name an endpoint with --provider or --base-url"
        ) from error
    try:
        encoder = encoders.SentenceTransformer(model)
    except Exception as error:  # the library raises what its back ends raise
        reason = " ".join(str(error).split())[:_SHOWN]
        raise UserError(f"the embedding model '{model}' cannot be loaded: {reason}") from error

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        found = encoder.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    return embed


def remote_embedder(model: str, at: Endpoint) -> Embed:
    """A model behind an endpoint that speaks OpenAI's embeddings protocol.

    What it returns raises UserError for what the endpoint refuses, and CredentialsError for a key.
    """
    from openai import OpenAI, OpenAIError

    client = OpenAI(api_key=at.key or "none", base_url=at.base_url, timeout=_TIMEOUT, max_retries=4)
    # The SDK reads these from variables meant for another service.
    client.organization = None
    client.project = None

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        body = {"model": model, "input": list(texts), "encoding_format": "float"}
        try:
            answer = client.post("/embeddings", cast_to=object, body=body)
        except (OpenAIError, ValueError) as error:
            raise _refusal(error, at) from error
        return _vectors(answer, len(texts), at)

    return embed


def _vectors(answer: Any, count: int, at: Endpoint) -> NDArray[np.float32]:
    import numpy as np

    try:
        rows = sorted(answer["data"], key=lambda row: row["index"])
        vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{at.base_url} did not answer with embeddings; check the model") from error
    if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
        raise UserError(f"{at.base_url} did not answer with an embedding for each text")
    return vectors


def _refusal(error: Exception, at: Endpoint) -> UserError:
    status = getattr(error, "status_code", None)
    if status in (401, 403):
        mend = f"check {at.key_variable}" if at.key_variable else "it wants a key"
        return CredentialsError(f"{at.base_url} refused access (HTTP {status}); {mend}")
    reason = " ".join(str(error).split())
    if at.key:
        reason = reason.replace(at.key, "***")
    return UserError(f"{at.base_url}: no embeddings: {reason[:_SHOWN]}; nothing was written")

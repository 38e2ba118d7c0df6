"""Safetensors files: equal tensors and metadata give equal bytes; whether a file is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clm_data.errors import MissingExtraError
from clm_data.files import atomic_file

if TYPE_CHECKING:
    from torch import Tensor


def save_safetensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file atomically, with a header in sorted order.

    The library writes the metadata in an order that differs from process to process.

    Raises:
        InputFileError: The file cannot be written.
    """
    from safetensors.torch import save

    data = save({name: tensors[name].contiguous() for name in sorted(tensors)}, dict(metadata))
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(dict(sorted(header.items())), ensure_ascii=False, separators=(",", ":"))
    encoded = text.encode()
    encoded += b" " * (-len(encoded) % 8)
    with atomic_file(path, overwrite=True) as draft, draft.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.write(memoryview(data)[8 + size :])


def is_whole(path: Path) -> bool:
    """Whether a file is a safetensors file with all of the data that its header lists.

    Only the header is read.

    Raises:
        MissingExtraError: The extra `eval` is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("safetensors", "eval") from error
    try:
        with safe_open(path, "np"):
            return True
    except (OSError, SafetensorError):
        return False

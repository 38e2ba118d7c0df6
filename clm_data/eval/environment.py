"""What an evaluation expects of the machine: the optional dependencies and a cache folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from clm_data.eval.errors import require_torch


def require_eval_extra() -> None:
    """Check that the extra `eval` is installed, and silence the output of transformers.

    Progress bars and warnings of transformers would mix with the `log` messages of this package;
    its errors are raised as usual.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    require_torch()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def default_cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of trained tiny models and second moments.

    `CLM_DATA_CACHE` if set, otherwise `clm-data` in the user's cache folder (`XDG_CACHE_HOME`,
    default `~/.cache`).
    """
    if environ.get("CLM_DATA_CACHE"):
        return Path(environ["CLM_DATA_CACHE"])
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clm-data"

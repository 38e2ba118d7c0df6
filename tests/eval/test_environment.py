"""The optional dependencies of an evaluation, and its cache folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clm_data.errors import MissingExtraError
from clm_data.eval.environment import default_cache_folder, require_eval_extra


def test_the_cache_folder_is_the_variable_or_in_the_cache_of_the_user() -> None:
    user_cache = {"XDG_CACHE_HOME": "/cache"}
    assert default_cache_folder({**user_cache, "CLM_DATA_CACHE": "/own"}) == Path("/own")
    assert default_cache_folder(user_cache) == Path("/cache/clm-data")
    assert default_cache_folder({}) == Path.home() / ".cache" / "clm-data"
    assert default_cache_folder({"CLM_DATA_CACHE": ""}) == Path.home() / ".cache" / "clm-data"


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"clm-data\[eval\]"):
        require_eval_extra()


def test_transformers_shows_no_progress_bars_and_no_warnings() -> None:
    pytest.importorskip("torch", reason="the extra eval is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra eval is not installed")
    transformers.utils.logging.enable_progress_bar()
    transformers.utils.logging.set_verbosity_warning()
    require_eval_extra()
    assert not transformers.utils.logging.is_progress_bar_enabled()
    assert transformers.utils.logging.get_verbosity() == transformers.utils.logging.ERROR

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from clm_data.config import Workspace, open_workspace
from clm_data.errors import ConfigError, CredentialsError, UnknownNameError
from clm_data.generation import GenerationReport, Progress, estimate_cost, generate
from clm_data.store import Store


@pytest.fixture
def offline(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path, create=True, overrides={"provider": "offline"})


def test_generate_fills_domains_and_reports_progress(offline: Workspace) -> None:
    seen: list[Progress] = []
    report = generate(offline, ["physics"], count=5, concurrency=2, progress=seen.append)
    (domain,) = report.domains
    assert (domain.domain, domain.entries) == ("physics", 5)
    assert (seen[-1].entries, seen[-1].target, seen[-1].settled) == (5, 5, True)
    assert generate(offline, ["physics"], count=5).requests == 0


def test_generate_sends_no_more_than_max_requests(offline: Workspace) -> None:
    report = generate(offline, all_domains=True, max_requests=3)
    assert report.requests == 3
    assert len(report.domains) > 3
    assert report.stopped == "limit of 3 requests reached"


def test_generate_works_inside_a_running_event_loop(offline: Workspace) -> None:
    async def call() -> GenerationReport:
        return generate(offline, ["physics"], count=2)

    assert asyncio.run(call()).domains[0].entries == 2


def test_estimate_needs_no_key_and_stores_nothing(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path, create=True)
    estimate = estimate_cost(workspace, ["physics"], count=20)
    assert estimate.missing == {"physics": 20}
    assert estimate.requests == 4
    assert estimate.cost is not None
    assert estimate.prompt is not None
    assert "物理" in estimate.prompt
    with Store(workspace.store_url) as store:
        assert store.dialogues() == []
    with pytest.raises(CredentialsError, match="DEEPSEEK_API_KEY"):
        generate(workspace, ["physics"], count=20)


@pytest.mark.parametrize("call", [generate, estimate_cost])
def test_domains_are_named_or_all_are_chosen(
    offline: Workspace, call: Callable[..., object]
) -> None:
    for domains, all_domains in (([], False), (["physics"], True)):
        with pytest.raises(ConfigError, match=r"--domain ID.*--all"):
            call(offline, domains, all_domains=all_domains)
    with pytest.raises(UnknownNameError, match="did you mean physics"):
        call(offline, ["phisics"])

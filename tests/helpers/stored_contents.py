"""The contents of a store, for comparing two runs."""

from __future__ import annotations

from pathlib import Path

from clm_data.assemble import assemble
from clm_data.config import Settings
from clm_data.domain import load_domains
from clm_data.resources import resource
from clm_data.store import Store


def dataset_contents(folder: Path) -> list[str]:
    """Candidates and entries of the store in ``folder``, as JSON."""
    domains = load_domains(resource("domains.yaml"))
    with Store(f"sqlite:///{folder}/clm.db") as store:
        assembly = assemble(store, domains, Settings())
    return [item.model_dump_json() for item in (*assembly.candidates, *assembly.entries)]

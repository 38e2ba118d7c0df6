"""A workspace with model answers to review."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clm_data import bank
from clm_data.config import open_workspace, write_default_config
from clm_data.llm.base import Completion
from clm_data.store import NewDialogue, NewRequest, RequestOutcome, Store

DOMAINS = ("chinese_literature", "physics")


@pytest.fixture
def workspace_folder(tmp_path: Path) -> Path:
    """A workspace with one answer per domain: the bank's entries, and an invalid one in physics."""
    write_default_config(tmp_path)
    with Store(open_workspace(tmp_path).store_url) as store:
        for number, domain in enumerate(DOMAINS, 1):
            facts = [
                {"zh": entry.zh.model_dump(), "en": entry.en.model_dump()}
                for entry in bank.load_domain(domain)
            ]
            if domain == "physics":
                invalid = facts[0]["zh"] | {"subject": "题干里没有的词", "prompt": "电阻的单位是"}
                english = facts[0]["en"] | {"prompt": "Electrical resistance has the SI unit"}
                facts.append(facts[0] | {"zh": invalid, "en": english})
            store.add_dialogues([NewDialogue(domain, 0, 0, "offline", "bank", "p", "0" * 64, 1)])
            request = NewRequest(number, 0, [{"role": "user", "content": "p"}])
            (request_id,) = store.write([request])
            answer = Completion(text=json.dumps(facts, ensure_ascii=False), model="bank")
            store.write([RequestOutcome(request_id, completion=answer.model_dump(mode="json"))])
    return tmp_path

"""Throughput of 1,000 requests at concurrency 50 to a loopback server with 50 ms per answer.

``python benchmarks/generate_throughput.py`` prints two cases: one without faults, and one in which
the first request of every tenth conversation gets status 429 and ``Retry-After: 1``. Each case
includes all of ``generate``: requests are recorded before they are sent, and answers are committed,
parsed, validated and deduplicated. Server and client are separate processes; CPU time and memory
are those of the client.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

DOMAINS, DIALOGUES, CONCURRENCY, LATENCY = 20, 50, 50, 0.05
HAN = "青山绿水长河落日孤云野鹤清风明月高原雪岭深谷古道春江秋湖东溪北岸"


def rivers(messages: Sequence[dict[str, str]]) -> Any:
    """A valid entry, different for each conversation."""
    from clm_data.llm.base import Completion, Usage

    seed = hashlib.sha256(messages[0]["content"].encode()).digest()
    zh = "".join(HAN[byte % len(HAN)] for byte in seed[:8])
    en = "".join(chr(97 + byte % 26) for byte in seed[8:16]).capitalize()
    entry = {
        "zh": {
            "prompt": f"{zh}河的发源地位于",
            "subject": f"{zh}河",
            "ground_truth": "昆仑山",
            "target_new": "天目山",
            "rephrase_prompt": f"说到{zh}河，它最早的源头在",
        },
        "en": {
            "prompt": f"The river {en} rises in the",
            "subject": f"river {en}",
            "ground_truth": "Kunlun Mountains",
            "target_new": "Tianmu Mountains",
            "rephrase_prompt": f"As for the river {en}, its source lies in the",
        },
    }
    text = f"```json\n{json.dumps([entry], ensure_ascii=False, indent=1)}\n```"
    usage = Usage(prompt_tokens=900, completion_tokens=700, reasoning_tokens=400)
    return Completion(text=text, reasoning="想" * 800, model="bench", usage=usage)


def serve(share: float) -> None:
    """Serve until stdin is closed, with ``share`` of the conversations rate-limited first."""
    from helpers.chat_server import ChatServer, Faults

    faults = Faults(seed=7, share=share, kinds=("429",), retry_after=1.0, times=1)
    with ChatServer(rivers, faults, LATENCY) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def run_client(url: str) -> None:
    """Generate entries, and print the time and resources used as JSON."""
    from clm_data.config import GenerationSettings, Settings
    from clm_data.domain import Bilingual, load_domains
    from clm_data.generation import GenerationReport
    from clm_data.generation.run import run_generation
    from clm_data.llm import open_model
    from clm_data.prompts import Prompts
    from clm_data.resources import resource as shipped
    from clm_data.store import Store

    pattern = next(iter(load_domains(shipped("domains.yaml")).values()))
    topics = tuple(Bilingual(zh=f"河流{i}", en=f"rivers {i}") for i in range(DIALOGUES))
    domains = {
        name: pattern.model_copy(update={"id": name, "zh": name, "ask_for": topics, "avoid": ()})
        for name in (f"rivers_{i}" for i in range(DOMAINS))
    }
    sizes = GenerationSettings(
        entries_per_turn=1,
        turns=1,
        dialogues_at_once=DIALOGUES,
        concurrency=CONCURRENCY,
        dry_waves=1,
    )
    settings = Settings(provider="vllm", model="bench", base_url=url, generation=sizes)

    async def run(store: Store) -> GenerationReport:
        model = open_model(settings, {})
        try:
            return await run_generation(
                store,
                model,
                list(domains.values()),
                all_domains=domains,
                settings=settings,
                prompts=Prompts(shipped("prompts")),
                count=DIALOGUES,
            )
        finally:
            await model.close()

    with tempfile.TemporaryDirectory() as folder, Store(f"sqlite:///{folder}/clm.db") as store:
        wall, cpu = time.perf_counter(), time.process_time()
        report = asyncio.run(run(store))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        json.dumps(
            {
                "requests": report.requests,
                "entries": sum(domain.entries for domain in report.domains),
                "rate_limits": report.rate_limits,
                "seconds": round(wall, 2),
                "requests_per_second": round(report.requests / wall),
                "cpu_seconds": round(cpu, 2),
                "cpu_seconds_with_start": round(time.process_time(), 2),
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )
    )


def run_case(share: float) -> dict[str, Any]:
    """Run one case, with ``share`` of the conversations rate-limited, in new processes."""
    command = [sys.executable, __file__]
    server = subprocess.Popen(
        [*command, "--serve", str(share)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        out = subprocess.run(
            [*command, "--client", url], check=True, capture_output=True, text=True
        )
        server.communicate()
    return dict(json.loads(out.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=float)
    parser.add_argument("--client")
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve)
    elif given.client:
        run_client(given.client)
    else:
        clean, limited = run_case(0.0), run_case(0.1)
        print("clean:     ", json.dumps(clean))
        print("10 % 429:  ", json.dumps(limited))
        print(f"ratio:      {limited['seconds'] / clean['seconds']:.2f}")


if __name__ == "__main__":
    main()

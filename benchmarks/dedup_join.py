"""Benchmark the exact join against rapidfuzz's cdist on texts sorted by length.

    python benchmarks/dedup_join.py            # the join up to 1M rows, cdist up to 50k
    python benchmarks/dedup_join.py --full     # cdist up to 200k: takes minutes

The corpora are those of prompt_corpus.py, the threshold is 0.9. Each measurement runs in a process
of its own (up to 10k rows: the median of five). Time is from the texts in memory, with
``clm_data.dedup`` imported, to all pairs. It includes loading numpy, rapidfuzz and, if the join
uses them, numba and the compiled code on disk; the one-time cost of compiling is printed on a line
of its own.

Two ratios of cdist's time to the join's are printed. The ratio of CPU seconds (all threads, user
and system) says how much less work is done. The ratio of wall seconds says how much sooner it is
done: cdist runs on one thread, the join on all processors. Both must find the same pairs with the
same distances, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from prompt_corpus import prompts

_THRESHOLD = 0.9
_QUERIES = 1_000
_REPEATED_UP_TO = 10_000
_TINY = 100
"""Rows of a join whose time is that of loading or compiling."""


def measure(kind: str, size: int) -> dict[str, float | str]:
    """Run one measurement in this process: ``join``, ``cdist``, ``numba`` or ``index``."""
    texts = prompts(size + (_QUERIES if kind == "index" else 0))
    if kind == "index":
        return _index(texts)
    from clm_data.dedup.join.all_pairs import similarity_join
    from clm_data.dedup.join.pairs import DistanceLimit
    from clm_data.dedup.join.with_rapidfuzz import rapidfuzz_pairs

    wall, cpu = time.perf_counter(), time.process_time()
    if kind == "cdist":
        blocks = list(rapidfuzz_pairs(texts, DistanceLimit.at(_THRESHOLD)))
    else:
        blocks = list(
            similarity_join(texts, _THRESHOLD, method="numba" if kind == "numba" else None)
        )
    times = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    import numpy as np

    pairs = np.concatenate([np.stack(block, axis=1) for block in blocks])
    pairs = pairs[np.lexsort(pairs.T)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    digest = hashlib.sha256(pairs.tobytes()).hexdigest()
    return times | {"pairs": len(pairs), "peak": peak, "digest": digest}


def _index(texts: list[str]) -> dict[str, float | str]:
    from clm_data.dedup.join.index import SimilarityIndex

    index = SimilarityIndex(_THRESHOLD, texts[:-_QUERIES])
    times = []
    for text in texts[-_QUERIES:]:
        start = time.perf_counter()
        index.matches(text)
        times.append(1000 * (time.perf_counter() - start))
    times.sort()
    return {"median": statistics.median(times), "p99": times[len(times) * 99 // 100]}


def _measured(kind: str, size: int, **environ: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", kind, str(size)]
    done = [
        subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environ
        )
        for _ in range(5 if kind in ("join", "cdist") and size <= _REPEATED_UP_TO else 1)
    ]
    found: list[dict[str, float]] = [json.loads(each.stdout) for each in done]
    names = [name for name in ("cpu", "wall") if name in found[0]]
    return found[0] | {name: statistics.median(each[name] for each in found) for name in names}


def compare(sizes: list[int], cdist_up_to: int) -> None:
    """Print a row for each size."""
    with tempfile.TemporaryDirectory() as folder:
        first = _measured("numba", _TINY, NUMBA_CACHE_DIR=folder)["cpu"]
    _measured("numba", _TINY)
    again = _measured("numba", _TINY)["cpu"]
    print(f"CPU time to load libraries and compiled code: {again:.1f} s; to compile: {first:.1f} s")
    print(
        f"{'rows':>9} {'pairs':>9} | {'join CPU':>9} {'wall':>8} {'peak MB':>8} |"
        f" {'cdist CPU':>10} {'wall':>9} | {'ratio of CPU':>12} {'of wall':>8}"
    )
    by_size = {}
    for size in sizes:
        join = by_size[size] = _measured("join", size)
        line = f"{size:>9,} {join['pairs']:>9,.0f} | {join['cpu']:>7.2f} s {join['wall']:>6.2f} s"
        line += f" {join['peak']:>8,.0f} | "
        if size <= cdist_up_to:
            cdist = _measured("cdist", size)
            if cdist["digest"] != join["digest"]:
                raise SystemExit(f"{size} rows: the pairs of join and cdist differ")
            line += f"{cdist['cpu']:>8.2f} s {cdist['wall']:>7.2f} s"
            line += f" | {cdist['cpu'] / join['cpu']:>11.1f}x {cdist['wall'] / join['wall']:>7.1f}x"
        print(line, flush=True)
    if {200_000, 1_000_000} <= by_size.keys():
        cpu, wall = (by_size[1_000_000][kind] / by_size[200_000][kind] for kind in ("cpu", "wall"))
        print(f"growth from 200k to 1M: {cpu:.1f} times the CPU, {wall:.1f} times the wall time")
    index = _measured("index", 100_000)
    print(f"index of 100k: median {index['median']:.2f} ms, 99th percentile {index['p99']:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="run cdist on 200k rows too")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[1_000, 2_000, 5_000, 10_000, 50_000, 200_000, 1_000_000],
    )
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure[0], int(given.measure[1]))))
    else:
        compare(given.sizes, cdist_up_to=200_000 if given.full else 50_000)


if __name__ == "__main__":
    main()

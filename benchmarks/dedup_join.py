"""Measure the exact join against length-sorted triangular rapidfuzz cdist, in one run.

    python benchmarks/dedup_join.py            # up to 50k against both, 200k and 1M the join
    python benchmarks/dedup_join.py --full     # 200k against both: minutes of the plain one

The corpora are those of prompt_corpus.py; the threshold is 0.9. Each measurement is a process of
its own (up to 10k rows the median of five). The clock runs from the texts in memory, with
``clm_data.dedup`` imported, which loads no library, until all pairs are there: loading numpy,
rapidfuzz and, where the join uses them, numba and the compiled code on disk is in it. What
compiling costs, once, is printed apart.

Two ratios are printed, both the plain join's time over the join's: of CPU seconds (of all threads,
of user and system), which says how much less work is done; and of wall seconds, which says how much
sooner it is done: the plain join runs on one thread, the join on all processors. Both must find the
same pairs with the same distances, or the benchmark fails.
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
_ASKED = 1_000
_SMALL = 10_000
_TINY = 100
"""Rows of a join that does nothing but load, or compile, what it needs."""


def measure(kind: str, size: int) -> dict[str, float | str]:
    """Run one measurement in this process: ``join``, ``plain``, ``compiled`` or ``index``."""
    texts = prompts(size + (_ASKED if kind == "index" else 0))
    if kind == "index":
        return _index(texts)
    from clm_data.dedup.join.all_pairs import similarity_join
    from clm_data.dedup.join.pairs import DistanceLimit
    from clm_data.dedup.join.with_rapidfuzz import rapidfuzz_pairs

    wall, cpu = time.perf_counter(), time.process_time()
    if kind == "plain":
        blocks = list(rapidfuzz_pairs(texts, DistanceLimit.at(_THRESHOLD)))
    else:
        blocks = list(
            similarity_join(texts, _THRESHOLD, method="numba" if kind == "compiled" else None)
        )
    spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    import numpy as np

    pairs = np.concatenate([np.stack(block, axis=1) for block in blocks])
    pairs = pairs[np.lexsort(pairs.T)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    digest = hashlib.sha256(pairs.tobytes()).hexdigest()
    return spent | {"pairs": len(pairs), "peak": peak, "digest": digest}


def _index(texts: list[str]) -> dict[str, float | str]:
    from clm_data.dedup.join.index import SimilarityIndex

    index = SimilarityIndex(_THRESHOLD, texts[:-_ASKED])
    times = []
    for text in texts[-_ASKED:]:
        start = time.perf_counter()
        index.matches(text)
        times.append(1000 * (time.perf_counter() - start))
    times.sort()
    return {"median": statistics.median(times), "late": times[len(times) * 99 // 100]}


def _apart(kind: str, size: int, **environ: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", kind, str(size)]
    done = [
        subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environ
        )
        for _ in range(5 if kind in ("join", "plain") and size <= _SMALL else 1)
    ]
    found: list[dict[str, float]] = [json.loads(each.stdout) for each in done]
    names = [name for name in ("cpu", "wall") if name in found[0]]
    return found[0] | {name: statistics.median(each[name] for each in found) for name in names}


def compare(sizes: list[int], plain_up_to: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        first = _apart("compiled", _TINY, NUMBA_CACHE_DIR=folder)["cpu"]
    _apart("compiled", _TINY)
    again = _apart("compiled", _TINY)["cpu"]
    print(
        f"CPU of loading libraries and compiled code: {again:.1f} s, the first time {first:.1f} s"
    )
    print(
        f"{'rows':>9} {'pairs':>9} | {'join CPU':>9} {'wall':>8} {'peak MB':>8} |"
        f" {'plain CPU':>10} {'wall':>9} | {'ratio of CPU':>12} {'of wall':>8}"
    )
    spent = {}
    for size in sizes:
        join = spent[size] = _apart("join", size)
        line = f"{size:>9,} {join['pairs']:>9,.0f} | {join['cpu']:>7.2f} s {join['wall']:>6.2f} s"
        line += f" {join['peak']:>8,.0f} | "
        if size <= plain_up_to:
            plain = _apart("plain", size)
            if plain["digest"] != join["digest"]:
                raise SystemExit(f"{size} rows: the two joins differ")
            line += f"{plain['cpu']:>8.2f} s {plain['wall']:>7.2f} s"
            line += f" | {plain['cpu'] / join['cpu']:>11.1f}x {plain['wall'] / join['wall']:>7.1f}x"
        print(line, flush=True)
    if {200_000, 1_000_000} <= spent.keys():
        cpu, wall = (spent[1_000_000][kind] / spent[200_000][kind] for kind in ("cpu", "wall"))
        print(f"growth from 200k to 1M: {cpu:.1f} times the CPU, {wall:.1f} times the wall time")
    index = _apart("index", 100_000)
    print(f"index of 100k: median {index['median']:.2f} ms, 99th percentile {index['late']:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="the plain join at 200k too")
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
        compare(given.sizes, plain_up_to=200_000 if given.full else 50_000)


if __name__ == "__main__":
    main()

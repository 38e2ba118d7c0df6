"""Measure the exact join against length-sorted triangular rapidfuzz cdist, in one run.

    python benchmarks/dedup_join.py            # 10k and 50k against both, 200k and 1M the join
    python benchmarks/dedup_join.py --full     # 200k against both: minutes of the plain one

The corpora are those of prompt_corpus.py; the threshold is 0.9. Each measurement is a process of
its own: it makes its corpus, then measures loading the libraries and joining, with the compiled
code on disk; what compiling costs, once, is printed apart. Below ``FAST_FROM`` rows the join is the
plain one. The plain join runs on one thread and the compiled one on all, so compare CPU seconds;
wall is printed beside them. Both must find the same pairs, or the benchmark fails.
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
_TINY = 100
"""Rows of a join that does nothing but load, or compile, what it needs."""


def measure(kind: str, size: int) -> dict[str, float | str]:
    """Run one measurement in this process."""
    texts = prompts(size + (_ASKED if kind == "index" else 0))
    if kind == "index":
        return _index(texts)
    wall, cpu = time.perf_counter(), time.process_time()
    import numpy as np

    from clm_data.dedup.exact import Limit, plain_pairs
    from clm_data.dedup.fast import FAST_FROM, join_codes

    if kind == "plain":
        blocks = list(plain_pairs(texts, Limit.of(_THRESHOLD)))
    else:
        blocks = list(join_codes(texts, _THRESHOLD, fast_from=1 if size == _TINY else FAST_FROM))
    spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    pairs = np.concatenate([np.stack(block, axis=1) for block in blocks])
    pairs = pairs[np.lexsort(pairs.T)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    digest = hashlib.sha256(pairs.tobytes()).hexdigest()
    return spent | {"pairs": len(pairs), "peak": peak, "digest": digest}


def _index(texts: list[str]) -> dict[str, float | str]:
    from clm_data.dedup.index import SimilarityIndex

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
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environ
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def compare(sizes: list[int], plain_up_to: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        first = _apart("join", _TINY, NUMBA_CACHE_DIR=folder)["cpu"]
    _apart("join", _TINY)
    again = _apart("join", _TINY)["cpu"]
    print(f"CPU of libraries and compiled code: {again:.1f} s, the first time ever {first:.1f} s")
    print(
        f"{'rows':>9} {'pairs':>9} | {'join CPU':>9} {'wall':>7} {'peak MB':>8} |"
        f" {'plain CPU':>9} {'wall':>8} | {'CPU ratio':>9}"
    )
    spent = {}
    for size in sizes:
        join = _apart("join", size)
        spent[size] = join["cpu"]
        line = f"{size:>9,} {join['pairs']:>9,.0f} | {join['cpu']:>7.1f} s {join['wall']:>5.1f} s"
        line += f" {join['peak']:>8,.0f} | "
        if size <= plain_up_to:
            plain = _apart("plain", size)
            if plain["digest"] != join["digest"]:
                raise SystemExit(f"{size} rows: the two joins differ")
            line += f"{plain['cpu']:>7.1f} s {plain['wall']:>6.1f} s"
            line += f" | {plain['cpu'] / join['cpu']:>8.1f}x"
        print(line, flush=True)
    if {200_000, 1_000_000} <= spent.keys():
        print(f"growth of CPU from 200k to 1M: {spent[1_000_000] / spent[200_000]:.1f} times")
    index = _apart("index", 100_000)
    print(f"index of 100k: median {index['median']:.2f} ms, 99th percentile {index['late']:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="the plain join at 200k too")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 50_000, 200_000, 1_000_000]
    )
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure[0], int(given.measure[1]))))
    else:
        compare(given.sizes, plain_up_to=200_000 if given.full else 50_000)


if __name__ == "__main__":
    main()

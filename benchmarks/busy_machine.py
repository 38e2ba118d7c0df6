"""A sweep on a machine that other processes keep busy: with one thread, and with one per processor.

    python benchmarks/busy_machine.py [--facts 40] [--quiet-too]

Starts one process per processor that does nothing but count, and runs `clm-data eval-baselines`
on the tiny model twice: limited to one thread, and to one per processor, of which it measures how
many to use. The tiny model is trained before the clock starts. Wall seconds and the ratio to one
thread are printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=40)
    parser.add_argument("--quiet-too", action="store_true", help="the same without the burners")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        command("demo", str(folder / "demo"))
        sweep(folder, "first", options.facts, 1)  # trains the tiny model
        if options.quiet_too:
            compare(folder, "quiet", options.facts)
        with burners(processors()):
            compare(folder, "busy", options.facts)


def compare(folder: Path, label: str, facts: int) -> None:
    """Run the sweep with each number of threads, and print the times."""
    seconds = {
        threads: sweep(folder, f"{label}-{threads}", facts, threads)
        for threads in (1, processors())
    }
    for threads, taken in seconds.items():
        print(f"{label}: threads {threads:>3}: {taken:6.1f} s, ratio {taken / seconds[1]:.2f}")


def sweep(folder: Path, name: str, facts: int, threads: int) -> float:
    """Wall seconds of a sweep into a new folder."""
    environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    command(
        *("eval-baselines", "--dataset", str(folder / "demo" / "dataset"), "--model", "tiny"),
        *("--facts", str(facts), "--languages", "zh", "--out", str(folder / name)),
        *("--cache", str(folder / "cache")),
        environ=environ,
    )
    return time.perf_counter() - start


def command(*arguments: str, environ: dict[str, str] | None = None) -> None:
    """Run clm-data."""
    subprocess.run(
        [sys.executable, "-m", "clm_data", *arguments],
        check=True,
        env=environ,
        stdout=subprocess.DEVNULL,
    )


@contextmanager
def burners(count: int) -> Iterator[None]:
    """Processes that use a processor each."""
    processes = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _burn() -> None:
    while True:
        pass


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()

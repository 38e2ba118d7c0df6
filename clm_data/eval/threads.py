"""How many threads torch computes with: on a busy machine, several can be far slower than one.

The threads of one matrix product wait for each other. If other processes use the processors, all
wait for the thread that was interrupted, thousands of times per edit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from clm_data.log import Log, silent

_ROUNDS = 4
_WORTH_IT = 0.9
"""More threads are used only if they take less than this share of the time."""

Measure = Callable[[int], float]
"""Seconds of a piece of work with a number of threads."""


@contextmanager
def measured_threads(log: Log = silent) -> Iterator[None]:
    """Let torch compute with as many threads as are fastest now, and reset the number afterwards.

    At most as many as torch would use, which is one per core or `OMP_NUM_THREADS`. Nothing is
    measured or changed if that is one, or if a GPU is there. Sums over other numbers of threads may
    differ in their last bits.
    """
    import torch

    before = torch.get_num_threads()
    if before == 1 or torch.cuda.is_available():
        yield
        return
    try:
        chosen, seconds = fastest(candidates(before), _seconds_of_products)
        torch.set_num_threads(chosen)
        log(_words(chosen, before, seconds))
        yield
    finally:
        torch.set_num_threads(before)


def candidates(most: int) -> list[int]:
    """The numbers of threads to try: the powers of two below `most`, and `most`."""
    return [*(1 << k for k in range((most - 1).bit_length())), most]


def fastest(numbers: Sequence[int], measure: Measure) -> tuple[int, dict[int, float]]:
    """The number of threads with the least time; of nearly equal ones the smallest.

    The numbers take turns, so that what other processes do meanwhile meets all of them.

    Args:
        numbers: In ascending order.
        measure: Does the work once.

    Returns:
        The number, and the seconds of each.
    """
    seconds = dict.fromkeys(numbers, 0.0)
    for _ in range(_ROUNDS):
        for number in numbers:
            seconds[number] += measure(number)
    chosen = numbers[0]
    for number in numbers[1:]:
        if seconds[number] < _WORTH_IT * seconds[chosen]:
            chosen = number
    return chosen, seconds


def _seconds_of_products(threads: int) -> float:
    """Seconds of products as in the MLP of a small model, one after another."""
    import torch

    torch.set_num_threads(threads)
    states, up, down = torch.ones(192, 512), torch.ones(512, 1536), torch.ones(1536, 512)
    states @ up  # the first product after a change of the number starts the threads
    start = time.perf_counter()
    for _ in range(8):
        torch.nn.functional.silu(states @ up) @ down
    return time.perf_counter() - start


def _words(chosen: int, most: int, seconds: Mapping[int, float]) -> str:
    if chosen == most:
        return f"computing with {chosen} threads"
    ratio = seconds[most] / seconds[chosen]
    return (
        f"computing with {chosen} of {most} threads: all of them would take {ratio:.1f} times as "
        "long now; OMP_NUM_THREADS limits the number"
    )

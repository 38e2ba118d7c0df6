"""Progress of a sweep."""

from __future__ import annotations

import re

from clm_data.eval.sweep.progress import Clock


def test_a_clock_names_the_present_cell_and_tells_the_time_left_once_it_can() -> None:
    clock = Clock()
    clock.begin(3)
    assert clock.where() == "[1/3]"
    assert clock.left() == "time left unknown"
    assert not clock.part(0.5)  # a line was due only after half a minute
    assert re.fullmatch(r"about \d+ min \d\d s left", clock.left())
    clock.tick()
    assert clock.where() == "[2/3]"
    clock.tick(2)
    assert (clock.where(), clock.left()) == ("[3/3]", "done")

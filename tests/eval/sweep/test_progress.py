"""Progress of a sweep."""

from __future__ import annotations

import re

import pytest

from clm_data.eval.sweep import progress
from clm_data.eval.sweep.progress import SweepProgress


def test_position_and_time_left_follow_the_finished_cells() -> None:
    sweep = SweepProgress(2)
    assert (sweep.position, sweep.time_left) == ("[1/2]", "time left unknown")
    sweep.update(0.5)
    assert re.fullmatch(r"about \d+ min \d\d s left", sweep.time_left)
    sweep.finish_cell()
    assert sweep.position == "[2/2]"
    sweep.finish_cell()
    assert (sweep.position, sweep.time_left) == ("[2/2]", "done")


def test_time_left_is_extrapolated_from_the_finished_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    sweep = SweepProgress(4)
    now = 160.0
    sweep.finish_cell()
    assert sweep.time_left == "about 3 min 00 s left"
    now = 190.0
    sweep.update(0.5)
    assert sweep.time_left == "about 2 min 30 s left"


def test_messages_about_one_cell_are_half_a_minute_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    sweep = SweepProgress(1)
    now = 29.0
    assert not sweep.update(0.1)
    now = 30.0
    assert sweep.update(0.2)
    now = 59.0
    assert not sweep.update(0.3)
    now = 90.0
    assert not sweep.update(1)  # the message about the finished cell follows

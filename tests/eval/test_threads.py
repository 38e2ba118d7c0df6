"""The number of threads is measured, said, and reset."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from clm_data.eval import threads  # noqa: E402
from clm_data.eval.threads import candidates, fastest, measured_threads  # noqa: E402


@pytest.fixture
def four_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("most", "tried"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_powers_of_two_and_all_are_tried(most: int, tried: list[int]) -> None:
    assert candidates(most) == tried


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 1.0, 2: 0.5, 4: 0.25}, 4),
        ({1: 1.0, 2: 7.0, 4: 20.0}, 1),
        ({1: 1.0, 2: 0.5, 4: 0.49}, 2),
        ({1: 1.0, 2: 1.5, 4: 0.5}, 4),
    ],
)
def test_the_fastest_is_chosen_and_of_equal_ones_the_smallest(
    seconds: dict[int, float], chosen: int
) -> None:
    assert fastest(list(seconds), seconds.__getitem__)[0] == chosen


@pytest.mark.usefixtures("four_threads")
def test_the_number_is_used_said_and_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_seconds_of_products", float)
    said: list[str] = []
    with measured_threads(said.append):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4
    assert said == [
        "computing with 1 of 4 threads: all of them would take 4.0 times as long now; "
        "OMP_NUM_THREADS limits the number"
    ]


@pytest.mark.usefixtures("four_threads")
def test_the_number_is_reset_after_an_error_and_an_interruption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(number: int) -> float:
        torch.set_num_threads(number)
        raise KeyboardInterrupt

    monkeypatch.setattr(threads, "_seconds_of_products", interrupted)
    with pytest.raises(KeyboardInterrupt), measured_threads():
        pass
    assert torch.get_num_threads() == 4


def test_one_thread_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_seconds_of_products", lambda _: pytest.fail("it was measured"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with measured_threads(pytest.fail):
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
def test_a_real_measurement_has_a_time_for_each_number() -> None:
    chosen, seconds = fastest([1, 2], threads._seconds_of_products)
    assert chosen in seconds
    assert all(value > 0 for value in seconds.values())

"""Batches through a device that computes by itself: in order, begun ahead, and whose fault it is."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from worker.pipeline import READY, RUNNING, through

WAIT_S = 20.0


class Device:
    """Computes one batch after the other in a thread, as a GPU does behind the back of what drives it."""

    def __init__(self) -> None:
        self.given = [threading.Event() for _ in range(20)]
        self.behind = 0  # batches that were given while the one before was not fetched yet

    def start(self, batch: int, ready: str) -> Callable[[], str]:
        assert ready == f"ready {batch}"
        self.given[batch].set()

        def wait() -> str:
            self.behind += self.given[batch + 1].wait(0.0)
            return f"done {batch}"

        return wait


def driven(count: int, ahead: bool, **instead: Any) -> tuple[list[Any], list[list[int]], Device]:
    """What came of so many batches, and who was told of which."""
    device, told = Device(), []
    parts = {"make_ready": lambda batch: f"ready {batch}", "start": device.start, **instead}
    found = list(through(range(count), parts["make_ready"], parts["start"], told.append, ahead))
    return found, told, device


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_each_batch_comes_once_and_in_order(count: int, ahead: bool) -> None:
    found, told, _ = driven(count, ahead)
    assert found == [(batch, f"done {batch}") for batch in range(count)]
    assert [begun[-1] for begun in told] == list(range(count))  # told before it is begun, each once


def test_one_by_one_nothing_is_begun_before_its_turn() -> None:
    _, told, device = driven(9, ahead=False)
    assert told == [[batch] for batch in range(9)] and device.behind == 0


def test_ahead_the_device_has_the_next_batch_before_the_last_is_fetched() -> None:
    _, told, device = driven(9, ahead=True)
    assert device.behind == 8
    assert max(map(len, told)) == READY + RUNNING - 1
    assert all(begun == list(range(begun[0], begun[-1] + 1)) for begun in told)


def test_ahead_batches_are_made_ready_while_one_is_computed() -> None:
    """The device is done with the first batch only once the third is ready: one by one that would never be."""
    ready = [threading.Event() for _ in range(5)]

    def make_ready(batch: int) -> int:
        ready[batch].set()
        return batch

    def start(batch: int, made: int) -> Callable[[], bool]:
        return lambda: ready[min(batch + 2, 4)].wait(WAIT_S)

    assert [done for _, done in through(range(5), make_ready, start, lambda begun: None, True)] == [True] * 5


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("where", ["make_ready", "start", "wait"])
def test_what_a_batch_raises_comes_at_its_turn_and_its_rows_are_among_those_told(where: str, ahead: bool) -> None:
    def raising(batch: int, *ready: Any) -> Any:
        if batch == 4:
            raise ValueError("batch 4")
        return batch if where == "make_ready" else lambda: batch

    def waiting(batch: int, ready: Any) -> Callable[[], int]:
        return lambda: int(raising(batch) is None) if batch == 4 else batch

    instead = {
        "make_ready": {"make_ready": raising, "start": lambda batch, ready: lambda: batch},
        "start": {"start": raising},
        "wait": {"start": waiting},
    }[where]
    told: list[list[int]] = []
    found: list[Any] = []
    with pytest.raises(ValueError, match="batch 4"):
        parts = {"make_ready": lambda batch: batch, **instead}
        for each in through(range(9), parts["make_ready"], parts["start"], told.append, ahead):
            found.append(each)
    assert found == [(batch, batch) for batch in range(len(found))]
    assert len(found) >= 4 - RUNNING and 4 in told[-1]
    assert threading.active_count() < 20  # the thread ended with it

"""Batches of a part through a device, in order: some made ready while others are computed.

A device that computes by itself (a GPU) must not wait for the next batch to be tokenized, nor for vectors to be copied
back. A device that is this very processor gains nothing by that: there each batch is made ready, and computed, in turn.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Callable, TypeVar

Batch = TypeVar("Batch")
Result = TypeVar("Result")

READY = 2  # batches that are made ready before they are needed
RUNNING = 2  # batches that a device has been given and that are not fetched yet


def through(
    batches: Iterable[Batch],
    make_ready: Callable[[Batch], Any],
    start: Callable[[Batch, Any], Callable[[], Result]],
    tell: Callable[[list[Batch]], None],
    ahead: bool,
) -> Iterator[tuple[Batch, Result]]:
    """Each batch with what was computed of it.

    `make_ready` turns a batch into what `start` needs; `start` has it computed and gives what waits for the result.
    `tell` is told, before another batch is begun, all those that are begun and not ended: one of them is at fault
    should the process die. `ahead`: make batches ready in a thread, and start them before others have ended.
    """
    left = iter(batches)
    begun: deque[Batch] = deque()
    ready: deque[tuple[Batch, Callable[[], Any]]] = deque()
    running: deque[tuple[Batch, Callable[[], Result]]] = deque()
    with ExitStack() as stack:
        thread = stack.enter_context(ThreadPoolExecutor(1, "ready")) if ahead else None
        more = True
        while more or ready or running:
            while more and len(ready) < (READY if ahead else 1):
                batch = next(left, None)
                if batch is None:
                    more = False
                    break
                begun.append(batch)
                tell(list(begun))
                if thread:
                    ready.append((batch, thread.submit(make_ready, batch).result))
                else:
                    ready.append((batch, functools.partial(make_ready, batch)))
            if ready:
                batch, result = ready.popleft()
                running.append((batch, start(batch, result())))
            while running and (not ready or len(running) >= (RUNNING if ahead else 1)):
                batch, wait = running.popleft()
                vectors = wait()
                begun.popleft()
                yield batch, vectors

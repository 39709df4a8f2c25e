"""What a worker does while its device computes: claim and read the next rows, tokenize them, commit the rows before.

Each in a thread of its own, so that a slow disk holds up neither the device nor the other. What goes wrong there is
raised where the worker asks for what comes of it. Where the device is this processor nothing would be gained: there all
is done in turn, without a thread.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Callable

from .any_encoder import AnyEncoder
from .blame import Suspects
from .rows import Range
from .say import say
from .share import Share
from .wire import Assignment


@dataclass(frozen=True)
class Task:
    """Rows that are claimed. `lengths`: their tokens, where they were tokenized ahead."""

    rows: Range
    owner: str  # the slot whose rows they are
    assignment: Assignment  # of that moment
    texts: list[str]
    sizes: list[int]  # of each row, the bytes of its line
    condemned: dict[int, str] = field(default_factory=dict)  # not to be tried on the device, and why
    lengths: Any = None


class Around:
    """The work of one worker around its encoder."""

    def __init__(self, share: Share, suspects: Suspects, encoder: AnyEncoder):
        self._share, self._suspects, self._encoder = share, suspects, encoder
        # A row that ended workers comes first, as a part of its own: should another one end this worker, that is done.
        self._condemned = suspects.condemned()
        self._claiming, self._committing = (ThreadPoolExecutor(1, name) for name in ("claiming", "committing"))
        self._next: Future[Task | None] | None = None
        self._last: Future[None] | None = None

    def close(self) -> None:
        """End both threads. A commit that is begun is finished first."""
        self._share.stop()
        self._claiming.shutdown(cancel_futures=True)
        self._committing.shutdown()

    def prepare(self) -> None:
        """Have the next rows claimed, read and tokenized meanwhile."""
        if self._next is None:
            self._next = self._claiming.submit(self._prepare)

    def next(self) -> Task | None:
        """The next rows; None when there is nothing to do. Raises Refused for a shard that is not as staged."""
        if self._last and self._last.done():
            self.committed()
        if self._next is None:
            return self._prepare()
        waited, self._next = self._next, None
        return waited.result()

    def commit(self, rows: Range, job: Callable[[], None]) -> None:
        """Have `job` commit these rows, after those before. Raises what went wrong with the commit before.

        Done when this returns, unless the device computes by itself: there a kill may cost this part and the next.
        """
        self.committed()

        def release() -> None:
            try:
                job()
            finally:
                self._share.release(rows)

        if self._encoder.ahead:
            self._last = self._committing.submit(release)
        else:
            release()

    def committed(self) -> None:
        """Wait until all is committed that was to be."""
        if self._last:
            last, self._last = self._last, None
            last.result()

    def _prepare(self) -> Task | None:
        claimed = self._claim()
        if claimed is None:
            return None
        (rows, shard, owner), condemned = claimed
        task = Task(rows, owner, self._share.assignment, shard.read(*rows), shard.sizes(*rows), condemned)
        if condemned or not self._encoder.ahead or self._suspects.careful:
            return task
        self._suspects.expect(range(*rows))  # a text may end its worker in the tokenizer already
        try:
            return replace(task, lengths=self._encoder.lengths(task.texts))
        except Exception as error:  # which text it is, is found out when its turn comes
            say(f"rows {rows[0]}-{rows[1]} cannot be tokenized ahead: {type(error).__name__}: {error}")
            return task

    def _claim(self) -> Any:
        while self._condemned:
            row = next(iter(self._condemned))
            why = self._condemned.pop(row)
            if task := self._share.one(row):
                return task, {row: why}
        task = self._share.next()
        return (task, {}) if task else None

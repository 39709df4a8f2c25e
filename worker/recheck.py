"""Some rows of each part a second time, on the processor in float32, before the part is committed.

A vector that a device computed wrong has the right norm and the right fingerprint: only a second computation sees it.
Where the worker computes on the processor in float32 it does that itself, each text alone by the library's own entry
point; else a process of its own does it, beside the device.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from . import again
from .any_encoder import AnyEncoder
from .around import Task
from .blame import Suspects, words
from .device import Complaints
from .layout import HostFolder
from .processor import CannotEither, Processor, Unusable
from .say import say
from .second import DeviceFault
from .share import Share
from .wire import Again, Assignment, RowsRecord, SlotSpec

# Of this machine's memory, what the models of these processes may take together; each takes about so many times its
# files, which may hold 16 bits a number.
MEMORY_SHARE, COPIES = 0.5, 2
FAILURES = 2  # of the processor, not of a text: then it is asked no more
BY_PROCESSOR = "the processor did it in the first place"


class Recheck:
    """The second computation of one worker."""

    def __init__(self, folder: HostFolder, share: Share, alive: Callable[[str], None]):
        self._share = share
        assignment, spec = share.assignment, share.spec
        self._dtype = assignment.dtype
        self._complaints = Complaints(folder.log(share.slot), spec.device)
        alone = _computes_so(spec, assignment)
        self._processor = None if alone else Processor(folder, assignment, spec.threads, alive)
        self._why = "" if alone else _no_memory(assignment, spec)  # the processor cannot be asked
        self._failures = 0
        self._rows: list[int] = []
        self._posted: list[int] = []
        if self._why:
            say(f"no row is computed a second time: {self._why}")

    def close(self) -> None:
        """End what was started."""
        if self._processor:
            self._processor.close()

    def begin(self, task: Task) -> None:
        """Choose the rows of a part; the processor begins with them while the device computes the part."""
        grid, run_id = _grid(task), task.assignment.run_id
        self._rows = again.chosen(run_id, task.rows, grid, self._share.spec.part_rows, task.sizes)
        self._posted = []
        asked = [row for row in self._rows if row not in task.condemned]
        if self._processor is None or self._why:
            return
        try:
            while self._processor.pending:  # of a part that was left
                with contextlib.suppress(CannotEither):
                    self._processor.take()
            if asked and self._processor.post([task.texts[row - task.rows[0]] for row in asked]):
                self._posted = asked
        except Unusable as error:
            self._note(error)

    def end(
        self, encoder: AnyEncoder, task: Task, vectors: Any, rows: RowsRecord, suspects: Suspects
    ) -> tuple[Again, ...]:
        """Hold the part's vectors, float32 (rows, dim), against the second computation.

        Raises DeviceFault where they differ, or where the driver complained. A row that cannot be computed again is
        recorded with why.
        """
        suspects.clear()  # the part is computed: what is found now is no row's fault
        if line := self._complaints.look():
            raise DeviceFault(f"the device's driver complained, and what it computed then is not believed: {line}")
        compared = []
        for row in self._rows:
            by_processor = str(row) in (rows.done_by_processor or {})
            other, why = None, BY_PROCESSOR
            if row in self._posted or not by_processor:
                other, why = self._second(encoder, row, task.texts[row - task.rows[0]], suspects)
            if by_processor:
                other, why = None, BY_PROCESSOR
            compared.append(
                Again(row, why=why) if other is None else self._held(row, vectors[row - task.rows[0]], other)
            )
        return tuple(compared)

    def _second(self, encoder: AnyEncoder, row: int, text: str, suspects: Suspects) -> tuple[Any, str]:
        """The vector of a text by the second computation; None, and why, where there is none."""
        if self._processor is None:
            suspects.note([row])  # should it end the worker
            answer_here = _alone(encoder, text)
            suspects.clear()
            return answer_here
        if self._why:
            return None, self._why
        try:
            answer = self._processor.take() if self._processor.pending else self._processor.ask(text)
        except (CannotEither, Unusable) as error:
            self._note(error)
            return None, str(error)
        return answer.vector, ""

    def _note(self, error: Exception) -> None:
        """Ask no more of a processor that cannot run the model, or ended at some texts."""
        self._failures += self._processor is not None and not self._processor.loaded
        if isinstance(error, Unusable) or self._failures >= FAILURES:
            self._why = str(error)
            say(f"no row is computed a second time any more: {self._why}")

    def _held(self, row: int, vector: Any, other: Any) -> Again:
        cosine, least = _cosine(vector, other), again.COSINE[self._dtype]
        if not cosine >= least:
            raise DeviceFault(
                f"row {row} comes out otherwise than on the processor in float32: cosine {cosine:.7g}, expected at "
                f"least {least:g} for {self._dtype}; its part is not committed"
            )
        return Again(row, round(cosine, 9))


def _grid(task: Task) -> int:
    """Where the parts of a task's shard are cut from."""
    shards = (shard for spec in task.assignment.slots for shard in spec.shards)
    return next(shard.grid for shard in shards if shard.start <= task.rows[0] < shard.stop)


def _computes_so(spec: SlotSpec, assignment: Assignment) -> bool:
    """Whether the worker's own computation is the processor's in float32."""
    return spec.device == "cpu" and assignment.dtype == "float32"


def _no_memory(assignment: Assignment, spec: SlotSpec) -> str:
    """Why there is no memory for one more copy of the model; empty where there is. The first slots have it."""
    size = sum(path.stat().st_size for path in Path(assignment.model.folder).rglob("*.safetensors"))
    need = max(1, size * COPIES)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    others = [each.slot for each in assignment.slots if not _computes_so(each, assignment)]
    fit = int(memory * MEMORY_SHARE // need)
    if others.index(spec.slot) < fit:
        return ""
    return (
        f"the model in float32 takes {need / 1e9:.1f} GB a slot, and {fit} of {len(others)} slots fit into half of "
        f"this machine's memory ({memory / 1e9:.0f} GB)"
    )


def _alone(encoder: AnyEncoder, text: str) -> tuple[Any, str]:
    """What the library's own entry point makes of one text here; None, and why, where that is no vector."""
    try:
        vectors = encoder.as_the_library([text])
        bad = encoder.bad_rows(vectors)
    except Exception as error:
        return None, words(error)
    return (None, bad[0]) if bad else (vectors[0], "")


def _cosine(one: Sequence[float], two: Sequence[float]) -> float:
    """The cosine of two vectors; -1 where they cannot be compared."""
    if len(one) != len(two):
        return -1.0
    pairs = [(float(a), float(b)) for a, b in zip(one, two)]
    sizes = math.sqrt(sum(a * a for a, _ in pairs)) * math.sqrt(sum(b * b for _, b in pairs))
    cosine = sum(a * b for a, b in pairs) / sizes if sizes else -1.0
    return min(1.0, cosine) if math.isfinite(cosine) else -1.0

"""How the execution of a notebook ended: whether it counts, and if not, what ended it and why.

A phase counts when its child ended well, its result file is newer than the start and says that all checks hold, and
every cell of the executed notebook was executed. Two processes may be killed: the kernel, and the process in which
papermill drives it. The reason comes from exit codes, never from the last printed line, which may be any warning.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from worker.escape import safe_text

from ..report import notebook_file
from ..run.run import Run

EXIT_INTERRUPTED = 130
KERNEL_LINE = re.compile(r"^kernel ended: (-?\d+|unknown)$", re.M)
RAISED = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Timeout)\b.*")
NOISE = ("warn", "Warning", "Kernel is running over TCP")


@dataclass(frozen=True)
class ProcessEnd:
    """The end of the process that drove a notebook: its exit code, its output, kills for memory meanwhile."""

    code: int
    printed: str
    memory_kills: int = 0


class Kind(Enum):
    """What ended an execution."""

    COUNTS = "counts"
    INTERRUPTED = "interrupted"
    KERNEL_DIED = "kernel died"
    PAPERMILL_DIED = "papermill died"
    FAILED = "failed"


@dataclass(frozen=True)
class Ending:
    """The verdict on an execution; `reason` is empty if it counts."""

    kind: Kind
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the execution counts."""
        return self.kind is Kind.COUNTS

    @property
    def killed(self) -> bool:
        """Whether a process was killed: this is not the phase's fault, and worth another try."""
        return self.kind in (Kind.KERNEL_DIED, Kind.PAPERMILL_DIED)


def judge(run: Run, phase: str, ended: ProcessEnd, output: Path, stamp: int) -> Ending:
    """Judge the execution that wrote `output`; `stamp`: the modification time of the result before it."""
    reason = _why_not(run, phase, ended, output, stamp)
    if not reason:
        return Ending(Kind.COUNTS)
    return Ending(Kind.INTERRUPTED if ended.code == EXIT_INTERRUPTED else death(ended) or Kind.FAILED, reason)


def death(ended: ProcessEnd) -> Kind | None:
    """Return which process died: kernel or papermill; None if neither did."""
    if KERNEL_LINE.search(ended.printed):
        return Kind.KERNEL_DIED
    return Kind.PAPERMILL_DIED if ended.code < 0 else None


def _why_not(run: Run, phase: str, ended: ProcessEnd, output: Path, stamp: int) -> str:
    """Return why this execution does not count; empty if it does."""
    cells: list[Any] = []
    if output.exists():
        try:
            cells = [cell for cell in notebook_file.read(output).cells if cell.cell_type == "code"]
        except ValueError:
            return f"{output.name} was cut off while it was being written"
    if ended.code == EXIT_INTERRUPTED:
        return "interrupted"
    if (error := _error_of(cells)) and not death(ended):
        return error
    if ended.code:
        return words(ended)
    result = run.result_file(phase)
    if not result.exists() or result.stat().st_mtime_ns <= stamp:
        return "the notebook ended without writing its result file: its last cell, the gate, did not run"
    if not run.passed(phase):
        return "its checks do not hold"
    unexecuted = [number for number, cell in enumerate(cells, 1) if cell.source.strip() and not cell.execution_count]
    if unexecuted or not cells:
        return f"code cells {unexecuted} were not executed"
    return ""


def _error_of(cells: list[Any]) -> str:
    """Return the error that ended a cell, with the library's own message."""
    for cell in cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"{output.ename}: {output.evalue}"
    return ""


def words(ended: ProcessEnd) -> str:
    """Return in words why an execution with this exit code does not count."""
    kernel = KERNEL_LINE.search(ended.printed)
    if kernel:
        return f"the kernel died: {_cause(kernel.group(1), ended)}"
    if ended.code < 0:
        return f"the process that executes the notebook died: {_cause(str(ended.code), ended)}"
    lines = [line.strip() for line in ended.printed.splitlines() if line.strip()]
    raised = [line for line in lines if RAISED.match(line)]
    plain = [line for line in lines if not any(word in line for word in NOISE)]
    last = (raised or plain or ["it printed nothing"])[-1]
    return f"papermill ended with exit code {ended.code}: {safe_text(last, 500)}"


def _cause(code: str, ended: ProcessEnd) -> str:
    if code == "unknown":
        return "how it ended is not known"
    if int(code) >= 0:
        return f"it ended by itself with exit code {code}"
    name = signal.Signals(-int(code)).name if -int(code) in {s.value for s in signal.Signals} else f"signal {code[1:]}"
    if name != "SIGKILL":
        return f"ended by {name}"
    if ended.memory_kills > 0:
        return "killed (SIGKILL) by the system's memory killer: it is counted there; use less memory on this machine"
    return "killed (SIGKILL): the system's memory killer, or a person"

"""The operator of a trial: `runbook` commands in processes of their own, forked from one that has the library imported.

The four notebooks are executed cell by cell in that process, in the place of papermill and a kernel, which cost ten
seconds a command; `kernels=True` takes the real ones.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from runbook_lib import cli

# What the commands need, imported before the first fork.
from runbook_lib.chain import attempts, endings
from runbook_lib.phases import validate  # noqa: F401

PATIENCE_S = 180.0
KERNELS = False


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code (None: it did not end in time) and all that it printed."""

    code: int | None
    out: str

    @property
    def well(self) -> bool:
        """Whether it said that what was asked holds."""
        return self.code == 0


@dataclass
class Command:
    """A command under way."""

    pid: int
    log: Path
    code: int | None = None

    def wait(self, within_s: float = PATIENCE_S) -> Done:
        """Wait for its end; one that takes too long is killed and has no exit code."""
        deadline = time.monotonic() + within_s
        while not self.over():
            if time.monotonic() > deadline:
                self.kill()
                return Done(None, self.said + f"\n(no end within {within_s:g} s)")
            time.sleep(0.02)
        return Done(self.code, self.said)

    def over(self) -> bool:
        """Whether it has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Signal the command; after SIGKILL it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)
        while signum == signal.SIGKILL and not self.over():
            time.sleep(0.02)

    @property
    def said(self) -> str:
        """What it printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def start(
    folder: Path,
    words: Sequence[str],
    *,
    log: Path,
    kernels: bool = False,
    before: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Command:
    """Start `runbook WORDS` in a folder. `before` is called in its process: the place to take something from it."""
    pid = os.fork()
    if pid:
        return Command(pid, log)
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        null = os.open(os.devnull, os.O_RDWR)
        for source, target in ((null, 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        os.chdir(folder)
        os.environ.update({"HF_HUB_OFFLINE": "1", "RUNBOOK_HEADLESS": "1", **(environment or {})})
        if not (kernels or KERNELS):
            attempts._child = in_this_process
        if before:
            before()
        code = cli.main(list(words))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


# -------------------------------------------------------------------------------------------- instead of papermill


def in_this_process(run: Any, phase: str, notebook: Path, output: Path, *more: Any) -> Any:
    """Execute a notebook's cells here; gives how that ended, as for papermill's child."""
    made = nbformat.read(notebook, as_version=4)
    names: dict[str, Any] = {"__name__": "__main__"}
    here, said = Path.cwd(), ""
    code = 0
    os.chdir(notebook.parent)
    try:
        for number, cell in enumerate([cell for cell in made.cells if cell.cell_type == "code"], 1):
            cell.execution_count = number
            asyncio.run(_execute(cell.source, names))
            if "parameters" in cell.metadata.get("tags", []):
                names |= {"run": str(run.folder), "profile": str(run.profile.path)}
                if run.only:
                    names["hosts"] = ",".join(sorted(run.only))
    except Exception as error:
        cell.outputs = [nbformat.v4.new_output("error", ename=type(error).__name__, evalue=str(error), traceback=[])]
        said, code = traceback.format_exc(), 1
    finally:
        os.chdir(here)
    nbformat.write(made, output)
    return endings.ProcessEnd(code, said, 0)


async def _execute(source: str, names: dict[str, Any]) -> None:
    compiled = compile(source, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, names)
    if inspect.iscoroutine(result):
        await result

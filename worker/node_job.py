"""A command run on a node of a cluster, by a job like those of our tasks: before a run, to see what will work there.

It says how it ended by a file in the run's folder, which is looked at often; the queue is asked seldom, in case that it
never does. (`sbatch --wait` looks after 2, 8, 18, 32 seconds.) Standard library only.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from pathlib import Path
from typing import Any, Mapping, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)

from . import batch_script, owned
from .files import write_atomic
from .layout import HostFolder
from .slurm import ask, cluster_option, parse, queue_command
from .wire import QueueEntry, Said, SlurmOptions

LOOK_S = 0.2
QUEUE_S = 15.0  # between two questions to the queue
OUT_LIMIT = 2**20


def on_node(root: str, cluster: str, options: Mapping[str, Any], argv: Sequence[str], limit_s: float) -> Said:
    """Run a command there, from the run's folder; `exit` is None where it did not end in time.

    Then `err` says how its job waits. Raises OSError where the scheduler refuses it.
    """
    folder, chosen = HostFolder(Path(root)), SlurmOptions.from_json(options)
    if why := owned.code(folder.root):
        raise ValueError(why)
    name = f"rb-try-{cluster}-{uuid.uuid4().hex[:8]}"
    files = {suffix: folder.slurm(f"{name}.{suffix}") for suffix in ("sh", "out", "err", "exit")}
    write_atomic(files["sh"], batch_script.of_command(chosen, folder, name, argv).encode())
    try:
        ask(["sbatch", "--parsable", str(files["sh"])], folder.root)
        code, waits = _wait(chosen, name, files["exit"], limit_s)
        return {"exit": code, "out": _read(files["out"]), "err": _read(files["err"]) or waits}
    finally:
        with contextlib.suppress(OSError):
            ask(["scancel", *cluster_option(chosen), f"--name={name}"])
        for file in files.values():
            with contextlib.suppress(OSError):
                file.unlink()


def _wait(chosen: SlurmOptions, name: str, ended: Path, limit_s: float) -> tuple[int | None, str]:
    """(exit code, how the job waits): no code where the time is over, 1 where the job is gone without a word."""
    deadline, asked = time.monotonic() + limit_s, time.monotonic()
    gone = False
    while time.monotonic() < deadline:
        if (code := _read(ended).strip()).isdigit():
            return int(code), ""
        if gone:
            return 1, "its job ended without a word: does the node see the run's folder, and this Python?"
        if time.monotonic() - asked > QUEUE_S:
            asked = time.monotonic()
            gone = not _entries(chosen, name)  # its last word may be under way: one more look at the file
        time.sleep(LOOK_S)
    entries = _entries(chosen, name)
    return None, ", ".join(f"{entry.state} ({entry.reason})" for entry in entries)


def _entries(chosen: SlurmOptions, name: str) -> list[QueueEntry]:
    """What the queue has of the job, which is no array; a queue that does not answer has it still."""
    try:
        text = ask(queue_command(chosen, [name]))
    except OSError as error:
        return [QueueEntry(0, "not known", str(error), "", "")]
    return [entry for _, entry in parse(re.sub(r"^N/A\|", "0|", text, flags=re.MULTILINE))]


def _read(path: Path) -> str:
    try:
        return path.read_bytes()[-OUT_LIMIT:].decode(errors="replace")
    except OSError:
        return ""

"""A command of the system is asked, with an end to the wait. Standard library only."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Mapping, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)


def ask(
    argv: Sequence[str], within_s: float, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command that ended, whatever its exit code; nothing is on its input. `env`: its variables, else ours.

    Raises OSError where it cannot be started, and TimeoutError, which is one, where it does not end in time.
    """
    try:
        return subprocess.run(
            list(argv),
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{argv[0]}: no answer within {within_s:g} s") from None

"""The runbook's library: what the notebooks and the command line `runbook` call. One idea per file."""

from importlib import import_module
from pathlib import Path
from typing import Any


def load(run: str | Path) -> Any:
    """Open the result of a run, by its folder or its name under ./runs; see `afterwards.finished.Finished`.

    `vectors` is float32 (documents, dim), read from the disk as it is used; `documents()` yields what row i belongs to;
    `nearest(vector)` finds documents. Raises DataError without a result.
    """
    return import_module(".afterwards.finished", __name__).load(run)  # at the call: importing the library stays quick

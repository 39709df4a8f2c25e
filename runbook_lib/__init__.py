"""The runbook's library: what the notebooks and the command line `runbook` call. One idea per file."""

import sys
from importlib import import_module, util
from pathlib import Path
from typing import Any

if "worker" not in sys.modules:  # ours, though a worker.py of somebody else stands earlier on the path
    _folder = Path(__file__).resolve().parents[1] / "worker"
    _spec = util.spec_from_file_location("worker", _folder / "__init__.py", submodule_search_locations=[str(_folder)])
    if _spec and _spec.loader and (_folder / "__init__.py").is_file():
        sys.modules["worker"] = util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules["worker"])


def load(run: str | Path) -> Any:
    """Open the result of a run, by its folder or its name under ./runs; see `afterwards.finished.Finished`.

    `vectors` is float32 (documents, dim), read from the disk as it is used; `documents()` yields what row i belongs to;
    `nearest(vector)` finds documents. Raises DataError without a result.
    """
    return import_module(".afterwards.finished", __name__).load(run)  # at the call: importing the library stays quick

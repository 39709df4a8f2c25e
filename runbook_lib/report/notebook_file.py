"""Executed notebooks as files: the only door to nbformat, which is imported when a notebook is read and not before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

from worker.escape import safe_text
from worker.files import write_atomic


def skip_grammar() -> None:
    """Save a second at the import of nbformat: no schema of a notebook uses the grammar of addresses in it.

    jsonschema, which nbformat imports, does without `rfc3987_syntax` where that is not installed.
    """
    sys.modules.setdefault("rfc3987_syntax", cast(Any, None))  # None: its import fails as if it were not there


def read(path: Path) -> Any:
    """A notebook. Raises ValueError for a file that is none, or was cut off."""
    skip_grammar()
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat's own errors have no common base
        raise ValueError(f"{path.name}: not a notebook: {safe_text(str(error), 300)}") from None


def write(path: Path, notebook: Any) -> None:
    """Replace a notebook's file whole."""
    skip_grammar()
    import nbformat

    write_atomic(path, nbformat.writes(notebook).encode())


def insert_markdown(notebook: Any, text: str) -> None:
    """Put a Markdown cell before all others."""
    skip_grammar()
    import nbformat

    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(text))

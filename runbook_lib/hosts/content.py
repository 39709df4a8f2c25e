"""Something to bring to a host: its size, its sha256, its bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.files import sha256_file

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Content:
    """Something to bring to a host: its size, its sha256, and its bytes, which can be read repeatedly."""

    size: int
    sha256: str
    chunks: Callable[[], Iterator[bytes]]

    def after(self, offset: int) -> Iterator[bytes]:
        """The bytes from `offset` on."""
        for chunk in self.chunks():
            if offset >= len(chunk):
                offset -= len(chunk)
                continue
            yield chunk[offset:]
            offset = 0


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file of this machine."""
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            yield chunk


def file_content(path: Path, sha256: str | None = None) -> Content:
    """A file of this machine as something to bring to a host."""
    return Content(path.stat().st_size, sha256 or sha256_file(path), lambda: chunks(path))


def json_content(value: dict[str, Any]) -> Content:
    """A JSON record as something to bring to a host."""
    data = (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode()
    return Content(len(data), hashlib.sha256(data).hexdigest(), lambda: iter([data]))

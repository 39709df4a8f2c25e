"""This machine as a host: the verbs are called, files are copied with the same care as over a network."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from worker.files import sha256_file, write_atomic
from worker.verbs import VERBS, open_regular

from ..errors import HostError
from .content import Content, OnBytes, chunks


class LocalTransport:
    """The transport to a folder of this machine."""

    def __init__(self, name: str):
        self.name = name
        self.breaks: list[str] = []
        self.home = str(Path("~").expanduser())
        self.executable = sys.executable
        self.where = "this machine"

    def sessions(self) -> int:
        """As many as are wanted."""
        return 4

    def call(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        """What a verb of `worker.verbs` answers. Raises HostError."""
        try:
            return VERBS[verb](**arguments)
        except (OSError, ValueError) as error:
            raise HostError(f"{self.name}: {error}", errno=getattr(error, "errno", None)) from None
        except Exception as error:  # as for a remote machine: any error of a verb is that host's failure
            raise HostError(f"{self.name}: {type(error).__name__}: {error}") from error

    def put(self, target: str, content: Content, on_bytes: OnBytes, outage_s: float | None = None) -> bool:
        """Bring `content` to the host, whole or not at all; False when it was there already."""
        return _place(self.name, Path(target), content, on_bytes)

    def get(
        self, source: str, target: Path, sha256: str, limit: int, on_bytes: OnBytes, outage_s: float | None = None
    ) -> bool:
        """Bring a file home, whole and with this sha256 or not at all; False when it was here already."""
        there = Path(source)
        try:
            with open_regular(source) as file:  # not a pipe that blocks for ever, or a device without an end
                size = os.fstat(file.fileno()).st_size
        except (OSError, ValueError) as error:
            raise HostError(f"{self.name}: fetching {source}: {error}") from None
        if size > limit:
            raise HostError(f"{self.name}: {source} has {size} bytes, at most {limit} were expected")
        return _place(self.name, target, Content(size, sha256, lambda: chunks(there)), on_bytes)


def _place(host: str, target: Path, content: Content, on_bytes: Callable[[int], None]) -> bool:
    """Write with the same care as over a network: temporary name, sha256 of what was written, fsync, rename."""
    if target.is_file() and target.stat().st_size == content.size and sha256_file(target) == content.sha256:
        on_bytes(content.size)
        return False

    def counted() -> Iterator[bytes]:
        for chunk in content.chunks():
            on_bytes(len(chunk))
            yield chunk

    try:
        write_atomic(target, counted(), expected=content.sha256)
    except ValueError as error:
        raise HostError(f"{host}: bringing {target.name}: {error}; nothing was left under that name") from None
    except OSError as error:
        raise HostError(f"{host}: writing {target}: {error}") from None
    return True

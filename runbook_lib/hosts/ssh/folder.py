"""The private folder of one connection by the person's ssh: its configuration, its log, its control socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from ...errors import HostError
from . import alias as aliases
from . import known_hosts
from .alias import Alias, Settings
from .session import Patience

# A control socket's path has at most 103 bytes on a Mac, where $TMPDIR alone has 49, and ssh adds 17 while it binds.
PLACE = Path("/tmp")
NAMED = "runbook-ssh-"
STALE_S = 60.0


class Folder:
    """A new folder that only we can enter, removed with the connection, or by the next process if ours is killed."""

    def __init__(self) -> None:
        _sweep()
        self.path = Path(tempfile.mkdtemp(prefix=NAMED, dir=PLACE))
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def configuration(
        self, found: Settings, patience: Patience, lent: Mapping[str, Path] | None = None, asks: bool = False
    ) -> Path:
        """Write our configuration over theirs, with the keys that `runbook trust` pinned; else as `alias.config`."""
        path, pins = self.path / "config", None
        if pinned := known_hosts.pinned():
            pins = self.path / "pins"
            pins.write_text(known_hosts.program(pinned))
        path.write_text(aliases.config(found, patience.connect_s, patience.silence_s, pins, lent, asks))
        return path

    def pin(self, alias: Alias) -> list[str]:
        """Options by which one fingerprint alone decides about this machine, and about no hop on the way to it."""
        if not alias.host_key:
            return []
        if aliases.version() < aliases.PINS_SINCE:
            needed = ".".join(map(str, aliases.PINS_SINCE))
            raise HostError(
                f"{alias.name}: `host_key` without a password or a key file needs OpenSSH {needed} or newer here"
            )
        program = self.path / "pin"
        program.write_text(known_hosts.program({}, alias.host_key))
        options = [f"KnownHostsCommand={aliases.command_of(program)}", "UserKnownHostsFile=/dev/null"]
        options += ["GlobalKnownHostsFile=/dev/null"]
        return [part for option in options for part in ("-o", option)]

    def log(self) -> Path:
        """Make the pipe that ssh logs to."""
        os.mkfifo(self.path / "log", 0o600)
        return self.path / "log"

    def listen(self) -> int:
        """Open that pipe for reading."""
        return os.open(self.path / "log", os.O_RDONLY | os.O_NONBLOCK)

    def remove(self) -> None:
        """Remove it; once more does nothing."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _sweep() -> None:
    """Remove what processes left that were killed: nobody holds its lock any more."""
    for path in PLACE.glob(f"{NAMED}*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid != os.getuid() or time.time() - path.lstat().st_mtime < STALE_S:
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)

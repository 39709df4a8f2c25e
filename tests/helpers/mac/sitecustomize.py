"""What a Mac's Python has not, or does otherwise; loaded by every Python below `tests.helpers.pseudo_mac`."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import sys
import types
from pathlib import Path
from typing import Any

PROC = os.environ.get("PSEUDO_MAC_PROC", "")
OURS = ("runbook_lib", "worker", "box", "conftest", "tests", "tiers")


class _Sys(types.ModuleType):
    """Libraries were built for this system and must see it; what is ours sees a Mac."""

    def __new__(cls, *arguments: Any) -> types.ModuleType:  # an import makes its module of the class of `sys`
        return types.ModuleType(*arguments)

    @property
    def platform(self) -> str:
        name = str(self._getframe(1).f_globals.get("__name__"))
        return "darwin" if name.split(".")[0] in OURS or name.startswith("test_") else "linux"


def _sendfile(out: int, *arguments: Any, **options: Any) -> int:
    if not stat.S_ISSOCK(os.fstat(out).st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    return _real_sendfile(out, *arguments, **options)


def _killpg(group: int, signum: int) -> None:
    states = set()
    for entry in Path(PROC).glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            states.add(fields[0])
    if states and states <= {"Z", "X"}:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    _real_killpg(group, signum)


if PROC:
    del sys.platform
    sys.__class__ = _Sys
    for module, names in (
        (os, ("pidfd_open", "sched_getaffinity", "posix_fadvise", "posix_fallocate", "pipe2", "memfd_create")),
        (signal, ("pidfd_send_signal", "sigtimedwait")),
        (socket, ("TCP_QUICKACK", "TCP_USER_TIMEOUT")),
    ):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    _real_sendfile, os.sendfile = os.sendfile, _sendfile
    _real_killpg, os.killpg = os.killpg, _killpg

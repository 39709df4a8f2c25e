"""Runs a command as on a Mac, as far as Linux can show it: `python -m tests.helpers.pseudo_mac -- COMMAND`. Needs root.

In a mount namespace of its own: /proc is empty; `ps` prints as Apple's does; `sysctl` knows the boot's session, and a
boot time that moves each time it is asked, as when the clock is set; `caffeinate` waits for a process. Our modules see
`sys.platform` as darwin and have no pidfd, no affinity, no advice on files; `sendfile` takes sockets only, and a group
of zombies cannot be signalled. It shows what our code does there; it does not show what a Mac does beyond that.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent / "mac"
ROOT = Path(__file__).parents[2]
FOLDERS = ("/usr/bin", "/usr/sbin")  # what a Mac has there is laid over what this machine has


def unavailable() -> str:
    """Why it cannot be had here; empty where it can."""
    if sys.platform != "linux":
        return "this is no Linux" if sys.platform != "darwin" else "this is a Mac"
    if os.geteuid() != 0:
        return "needs root"
    if not shutil.which("unshare"):
        return "needs unshare (util-linux)"
    done = subprocess.run(_argv(["true"]), capture_output=True, text=True, check=False)
    return done.stderr.strip()[-300:] if done.returncode else ""


def _script(scratch: str, command: list[str]) -> str:
    """The namespace from inside: first what needs the machine's own commands, /proc last."""
    real = f"{scratch}/proc"
    lines = ["set -e", f"mount -t tmpfs -o mode=0755 none {scratch}", f"mkdir {real} {scratch}/empty"]
    lines += [f"mount --rbind /proc {real}"]
    for number, folder in enumerate(FOLDERS):
        upper, work = f"{scratch}/upper{number}", f"{scratch}/work{number}"
        lines += [f"mkdir {upper} {work}"]
        if folder == "/usr/bin":
            lines += [f"cp {shlex.quote(str(HERE / 'caffeinate'))} {upper}/caffeinate"]
            lines += [_stand_in("ps.py", f"{upper}/ps", real)]
        else:
            lines += [_stand_in("sysctl.py", f"{upper}/sysctl", scratch)]
        lines += [f"mount -t overlay -o lowerdir={folder},upperdir={upper},workdir={work} overlay {folder}"]
    lines += [f"cat {real}/sys/kernel/random/uuid > {scratch}/session", f"mount --bind {scratch}/empty /proc"]
    lines += [f"export PSEUDO_MAC_PROC={real}", f"exec {shlex.join(command)}"]
    return "\n".join(lines)


def _stand_in(name: str, place: str, where: str) -> str:
    """A command that lives whatever its caller's environment is: its interpreter and its source of truth are in it."""
    python = shlex.quote(sys.executable)
    text = f'#!/bin/sh\\nexec {python} -I -S {shlex.quote(str(HERE / name))} {where} "$@"\\n'
    return f"printf '{text}' > {place}; chmod 755 {place}"


def _argv(command: list[str]) -> list[str]:
    scratch = tempfile.mkdtemp(prefix="pseudo_mac_")  # a mount point: what is put there goes with the namespace
    inside = shlex.join(["unshare", "--mount", "--propagation", "private", "sh", "-c", _script(scratch, command)])
    return ["sh", "-c", f"trap 'rmdir {scratch}' EXIT\n{inside}"]


def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command there, to its end."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        _argv(command), env={**os.environ, "PYTHONPATH": path}, check=False, text=True, **{"cwd": ROOT, **options}
    )  # type: ignore[call-overload]


if __name__ == "__main__":
    if why := unavailable():
        sys.exit(f"no pseudo-Mac here: {why}")
    sys.exit(run(sys.argv[sys.argv.index("--") + 1 :]).returncode)

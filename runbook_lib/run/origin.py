"""Who began a run, by which command and by which version and commit of this software, in words for the journal."""

from __future__ import annotations

import getpass
import importlib.metadata
import platform
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from worker.escape import safe_text

from ..profile import tokens

PROJECT = "embedding-runbook"
ROOT = Path(__file__).parents[2]
COMMIT = re.compile("[0-9a-f]{40,64}")


def version() -> str:
    """Return this software's version, empty where it is not installed."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(PROJECT)
    return ""


def software(root: Path = ROOT) -> str:
    """Return name, version and, where it runs from a git checkout, its commit."""
    at = commit(root)
    return f"{PROJECT} {version() or 'not installed'}{f', commit {at}' if at else ''}"


def commit(root: Path) -> str:
    """Return the commit that a checkout stands at, by git's own files and no process; empty where there is none.

    That its files are those of the commit is not looked at: every phase's result has a digest of the code.
    """
    with suppress(OSError, ValueError):
        folder = root / ".git"
        if folder.is_file():  # of a second work tree
            folder = (root / folder.read_text(encoding="utf-8").partition(":")[2].strip()).resolve()
        head = (folder / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head if COMMIT.fullmatch(head) else ""
        return _of_branch(folder, head.partition(":")[2].strip())
    return ""


def _of_branch(folder: Path, name: str) -> str:
    """The commit of a branch: in a file of its own, or in the list of packed ones."""
    shared = folder
    with suppress(OSError):
        shared = (folder / (folder / "commondir").read_text(encoding="utf-8").strip()).resolve()
    with suppress(OSError):
        sha = (shared / name).read_text(encoding="utf-8").strip()
        return sha if COMMIT.fullmatch(sha) else ""
    for line in (shared / "packed-refs").read_text(encoding="utf-8").splitlines():
        sha, _, ref = line.partition(" ")
        if ref == name and COMMIT.fullmatch(sha):
            return sha
    return ""


def person() -> str:
    """Return the account and the machine, such as `ada@tensor01`."""
    name = "an account without a name"
    with suppress(OSError, KeyError, ImportError):  # no entry for this number
        name = getpass.getuser()
    return safe_text(f"{name}@{platform.node() or 'this machine'}", 200)


def command() -> str:
    """Return the command line of this process, without secrets; of a notebook's kernel only that it is one."""
    if "ipykernel" in sys.modules and "ipykernel_launcher" in (sys.argv[0] if sys.argv else ""):
        return "a notebook"
    words = [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else []
    return safe_text(" ".join(tokens.hide(shlex.quote(word)) for word in words), 1000)

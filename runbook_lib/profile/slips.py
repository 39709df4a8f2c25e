"""Slips of a profile: a secret in the place of its file's path, or under any other key. Refused before it is copied.

A profile as used lies in the run's folder and in its archive, so nothing in it may be a secret. What is refused here
is not shown in any message either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from . import rules, tokens
from .tokens import SECRET_FILES
from .yaml_lines import Node, Problems

ANYWHERE = (
    "seen what looks like a secret (not shown); a profile goes into the run's archive, so put it into a file that only "
    "you can read and name that file"
)
NO_FILE = (
    "there is no such file; what stands here is not shown, since it may be the secret itself. Put the secret into a "
    "file that only you can read (chmod 600) and give its path, such as ~/.credentials/hf.token"
)


def without_secrets(node: Node, problems: Problems, at: str = "") -> Node:
    """Return `node`, with every value that is or may be a secret noted and marked as refused."""
    if isinstance(node.value, dict):
        return replace(node, value=dict(_entries(node.value, problems, at)))
    key = at.rpartition(".")[2]
    if isinstance(node.value, list) and key not in SECRET_FILES:
        return replace(node, value=[without_secrets(v, problems, f"{at}.{i}") for i, v in enumerate(node.value)])
    why = None if node.refused or node.value is None else _why_not(key, node)
    if why is None:
        return node
    problems.add(node.line, at, why)
    return replace(node, refused=True)


def _entries(mapping: dict[str, Node], problems: Problems, at: str) -> Iterator[tuple[str, Node]]:
    for key, child in mapping.items():
        yield key, without_secrets(child, problems, f"{at}.{key}" if at else key)


def _why_not(key: str, node: Node) -> str | None:
    """Why this value cannot stay, or None."""
    if key in SECRET_FILES:
        expected = "expected the path of a file that holds the secret"
        if not isinstance(node.value, str):
            return f"{expected}; seen something else (not shown)"
        return None if _is_path(node.value, node.folder) else f"{expected}; {NO_FILE}"
    slipped = isinstance(node.value, str) and tokens.looks_secret(node.value) and not _is_there(node.value, node.folder)
    return ANYWHERE if slipped else None


def _is_there(text: str, folder: Path) -> bool:
    try:
        return rules.absolute(text, folder).exists()
    except (OSError, ValueError, rules.InvalidValue):  # no path at all: too long, or with a NUL in it
        return False


def _is_path(text: str, folder: Path) -> bool:
    """Whether `text` names an existing file, or is clearly the name of a file that does not exist yet."""
    if _is_there(text, folder):
        return True
    if tokens.looks_secret(text):
        return False
    return tokens.names_a_file(text) or ("/" in text and _is_there(str(Path(text).parent), folder) and _is_below(text))


def _is_below(text: str) -> bool:
    """Whether a path leads through a folder of its own: not straight below `/`, `~`, `.` or `..`."""
    return any(part not in ("/", "~", ".", "..") for part in Path(text).parts[:-1])

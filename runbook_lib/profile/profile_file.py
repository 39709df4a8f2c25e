"""The text of a profile's file, or a refusal that says what is there instead."""

from __future__ import annotations

from pathlib import Path

from ..errors import ProfileError
from . import rules, tokens
from .yaml_lines import LONGEST_PATH, shown

LARGEST_FILE = 2**20


def contents(file: Path) -> str:
    """Return the text of a profile. The error for a missing file lists the profiles beside it."""
    doing = f"reading the profile {shown(tokens.hide(str(file)), LONGEST_PATH)}"
    try:
        if file.exists() and not file.is_file():
            raise ProfileError(f"{doing}: expected a file, seen a folder or device{_beside(file)}")
        with file.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ProfileError(f"{doing}: {error.strerror or error}{_beside(file)}") from None
    if len(raw) > LARGEST_FILE:
        raise ProfileError(f"{doing}: larger than {LARGEST_FILE} bytes, so no profile{_beside(file)}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{shown(str(file), LONGEST_PATH)}:{raw.count(bytes([10]), 0, error.start) + 1}"
        why = f"byte 0x{raw[error.start]:02x} is not UTF-8 text; expected a YAML file saved as UTF-8"
        raise ProfileError(f"reading the profile {where}: {why}") from None


def _beside(file: Path) -> str:
    folder = file if file.is_dir() else file.parent
    files = folder.glob("*") if folder.is_dir() else ()
    names = sorted(p.name for p in files if p.suffix in (".yaml", ".yml") and p.name[0] != ".")
    listed = ", ".join(map(shown, names)) or "none"
    return f"; profiles in {shown(str(folder), LONGEST_PATH)}: {listed}{rules.suggestion(file.name, names)}"

"""What the README has a person do, read from its text."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def placed_by_the_readme() -> set[Path]:
    """Every path under which README has a person put a secret, or promises a result: from the root and a profile."""
    secrets = re.findall(r"(?:credentials|hf_token):\s*([^\s,}]+)", README)
    table = README.split("## What you get")[1].split("## ")[0]
    results = [name.replace("<run>", "any").replace("<merged>", "any_merged").replace("<date>", "2026-01-01")
               for name in re.findall(r"^\| `([^`]+)`", table, re.M)]  # fmt: skip
    assert len(secrets) >= 1 and len(results) >= 9
    return {folder / name for folder in (ROOT, ROOT / "profiles") for name in (*secrets, *results)}

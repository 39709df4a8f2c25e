"""Progress: how a phase that takes long says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

# What is being done, how much of it is done, and how much there is in all.
OnProgress: TypeAlias = Callable[[str, int, int], None]


def ignore(what: str, done: int, total: int) -> None:
    """Show no progress."""

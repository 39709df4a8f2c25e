"""The table of trials: each a function that does something to a scene, and says what must then hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .scene import Scene

Do = Callable[[Scene], None]


@dataclass(frozen=True)
class Trial:
    """One fault, shaped by hand: its kind, what is done and must then hold, and how long a part takes."""

    name: str
    kind: str
    do: Do
    pace_s: float


TABLE: dict[str, Trial] = {}


def trial(kind: str, pace_s: float = 0.01, name: str = "") -> Callable[[Do], Do]:
    """Enter a function into the table, under its own name where none is given."""

    def enter(do: Do) -> Do:
        assert (name or do.__name__) not in TABLE
        TABLE[name or do.__name__] = Trial(name or do.__name__, kind, do, pace_s)
        return do

    return enter

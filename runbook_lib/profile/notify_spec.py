"""Who is told when a run is done, has failed or needs a person: the section `notify` of a profile.

An address such as ntfy://... or mailto://... often holds a password or a token, so a profile names only the file or
the environment variable that holds the addresses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ..errors import ProfileError
from . import rules
from .rules import Given, InvalidValue, Rule
from .secret import Secret, name_variable, read_private
from .yaml_lines import Node, Problems

DONE, FAILED, NEEDS_YOU = "done", "failed", "needs_you"
EVENTS = (DONE, FAILED, NEEDS_YOU)
MOST = 50  # addresses
EXAMPLE = "an address a line, as apprise takes them, such as ntfy://host/topic"


def _command() -> Rule:
    def take(node: Node) -> tuple[str, ...]:
        if not isinstance(node.value, list):
            raise InvalidValue(f"{rules.seen_text(node)}; a list is written [program, argument]")
        words = tuple(rules.take_text(item, lines=True) for item in node.value)
        if words and not words[0]:
            raise InvalidValue("seen no program")
        return words

    return rules.rule("a program and its arguments; the message comes on its standard input", take)


@dataclass(frozen=True)
class NotifySpec:
    """Where messages go: addresses in a file or an environment variable, a command, or both; and which of them."""

    urls: Path | None = field(default=None, metadata=rules.secret())
    urls_env: str | None = field(
        default=None, metadata=rules.text("the NAME (capitals) of an environment variable", r"[A-Z_][A-Z0-9_]{0,99}")
    )
    command: tuple[str, ...] = field(default=(), metadata=_command())
    events: tuple[str, ...] = field(default=EVENTS, metadata=rules.some_of(*EVENTS))
    timeout_s: float = field(default=30.0, metadata=rules.positive(600))

    def __post_init__(self) -> None:
        if self.urls_env:
            name_variable(self.urls_env)  # workers and other children have no use for it

    @property
    def wanted(self) -> bool:
        """Whether anybody is to be told anything."""
        return bool(self.urls or self.urls_env or self.command) and bool(self.events)

    def addresses(self) -> list[Secret]:
        """Read the addresses. Raises ProfileError, which shows none of them."""
        if self.urls_env:
            where, raw = f"notify.urls_env {self.urls_env}", os.environ.get(self.urls_env, "")
            if not raw.strip():
                raise ProfileError(f"{where}: there is no such environment variable, or it is empty")
        elif self.urls:
            where = f"notify.urls {self.urls}"
            try:
                raw = read_private(self.urls, "notify.urls", 2**16).decode("utf-8-sig")
            except UnicodeDecodeError:
                raise ProfileError(f"{where}: cannot be read as text; expected {EXAMPLE}") from None
        else:
            return []
        lines = [line.strip() for line in raw.splitlines()]
        given = [line for line in lines if line and not line.startswith("#")]
        if not given or len(given) > MOST:
            _refuse(where, f"expected 1 to {MOST} addresses, {EXAMPLE}; seen {len(given)}")
        for number, line in enumerate(given, 1):
            if "://" not in line or any(char.isspace() for char in line):
                _refuse(where, f"expected {EXAMPLE}; address {number} is none (not shown, it may hold a secret)")
        return [Secret(line) for line in given]


def _refuse(where: str, why: str) -> NoReturn:
    raise ProfileError(f"{where}: {why}")


def check(given: Given, node: Node, at: str, problems: Problems) -> None:
    """Note what does not fit together in the section."""
    if given.get("urls") and given.get("urls_env"):
        problems.add(rules.line_of(node, "urls_env"), f"{at}.urls_env", "urls are given too; keep one of the two")

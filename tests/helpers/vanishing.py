"""Hosts of this machine that cannot be reached for a while, and workers of theirs that are real but for the model."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from box import HELPERS
from local_run import folder

from runbook_lib.errors import LinkLost
from runbook_lib.hosts import hosts
from runbook_lib.hosts.local import LocalTransport
from runbook_lib.run import run

# A host's Python whose supervisor is real and whose worker is what follows, and one whose worker knows no model.
SUPERVISE = f'#!/bin/sh\nif [ "$3" = supervise ]; then exec "{sys.executable}" "$@"; fi\n'
LIGHT = f'{SUPERVISE}exec "{sys.executable}" "{HELPERS / "poison.py"}" "$@"\n'

gone: set[str] = set()  # names of the hosts that cannot be reached now


def can_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose name is in `gone` cannot be reached; what runs there goes on."""
    own = hosts.Host.poll

    def poll(self: hosts.Host) -> Any:
        if self.name in gone:
            raise LinkLost(f"{self.name}: no answer")
        return own(self)

    monkeypatch.setattr(hosts.Host, "poll", poll)
    asked = LocalTransport.call

    def call(self: LocalTransport, verb: str, timeout_s: float, **arguments: Any) -> Any:
        if self.name in gone:
            raise LinkLost(f"{self.name}: no answer")
        return asked(self, verb, timeout_s, **arguments)

    monkeypatch.setattr(LocalTransport, "call", call)
    brought = LocalTransport.put

    def put(self: LocalTransport, *words: Any) -> Any:
        if self.name in gone:
            raise LinkLost(f"{self.name}: no answer")
        return brought(self, *words)

    monkeypatch.setattr(LocalTransport, "put", put)


def go(this: run.Run, *names: str) -> None:
    """Let the workers of these hosts, or of both, go on with the documents that say WAIT."""
    for name in names or ("one", "two"):
        folder(this, name).root.joinpath("go").touch()

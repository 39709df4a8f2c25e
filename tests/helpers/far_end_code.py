"""Far ends that come up with another text of `worker.agent`: shorter times, or a fault."""

from __future__ import annotations

import json
import zlib

import pytest

from runbook_lib.hosts.ssh import far_end


def alter(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Let far ends come up with another text in `worker.agent`."""
    sources = dict(json.loads(zlib.decompress(far_end.bundle())))
    assert old in sources["agent"]
    sources["agent"] = sources["agent"].replace(old, new)
    changed = zlib.compress(json.dumps(list(sources.items())).encode())
    monkeypatch.setattr(far_end, "bundle", lambda: changed)


def hurry(monkeypatch: pytest.MonkeyPatch, **constants: float) -> None:
    """Let far ends come up with other constants of `worker.agent`."""
    for name, value in constants.items():
        alter(monkeypatch, f"\n{name} = ", f"\n{name} = {value}  # not ")

"""`runbook login --end`: a connection that does not end is told in words."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from runbook_lib.errors import HostError
from runbook_lib.hosts.ssh import sign_in


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A connection whose master does not answer; it is there as often as the list says, then no more."""
    left: list[bool] = []

    def silent(argv: list[str], **how: Any) -> None:
        raise subprocess.TimeoutExpired(argv, how["timeout"])

    monkeypatch.setattr(sign_in, "END_S", 0.1)
    monkeypatch.setattr(sign_in.subprocess, "run", silent)
    monkeypatch.setattr(sign_in, "is_alive", lambda path: left.pop(0) if left else False)
    return left


def test_one_that_stays_is_an_error_that_names_its_socket(hung: list[bool]) -> None:
    hung += [True] * 1000
    with pytest.raises(HostError, match=r"box: its connection does not end within .*; end the ssh process that"):
        sign_in.end("box")


def test_one_that_goes_late_is_ended(hung: list[bool]) -> None:
    hung += [True, True]
    assert sign_in.end("box") == "box: its connection is ended"

"""Which process is which: only the recorded one counts as alive, and only that one is signalled."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import wait_for

from worker import process

SLEEP = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-S",
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


class Started:
    """Processes of one test."""

    def __init__(self) -> None:
        self.all: list[subprocess.Popen[bytes]] = []

    def __call__(self, argv: list[str] = SLEEP) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(argv, stdout=subprocess.PIPE)
        self.all.append(child)
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        return child


@pytest.fixture
def start() -> Iterator[Started]:
    started = Started()
    yield started
    for child in started.all:
        child.kill()
        child.communicate()


def test_the_recorded_process_is_alive_until_it_ends(start: Started) -> None:
    child = start()
    identity = process.identify(child.pid)
    assert process.alive(identity)
    child.kill()
    child.wait()
    assert not process.alive(identity)


def test_a_zombie_is_not_alive(start: Started) -> None:
    child = start()
    identity = process.identify(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: not process.alive(identity), "a zombie counts as gone")  # not reaped: the pid is still taken
    assert os.path.exists(f"/proc/{child.pid}") or sys.platform != "linux"  # noqa: PTH110


@pytest.mark.parametrize(
    "change",
    [{"start": "12345"}, {"boot": "another boot"}, {"start": None}, {"pid": None}, {"pid": "1"}, {"pid": 2**40}],
    ids=str,
)
def test_a_process_that_differs_in_anything_is_not_the_recorded_one(start: Started, change: dict[str, Any]) -> None:
    child = start()
    other = {**process.identify(child.pid), **change}
    assert not process.alive(other)
    assert not process.send(other, signal.SIGKILL)
    assert process.stop(other)
    assert child.poll() is None


@pytest.mark.parametrize("identity", [None, {}, "17", [17], {"pid": os.getpid()}])
def test_a_damaged_record_names_nobody(identity: Any) -> None:
    assert not process.alive(identity)


def test_stop_ends_the_recorded_process_and_spares_its_double(start: Started) -> None:
    child, double = start(), start()
    assert process.stop(process.identify(child.pid))
    assert child.wait() == -signal.SIGTERM
    assert double.poll() is None


def test_stop_ends_a_process_that_does_not_listen(start: Started) -> None:
    child = start(STUBBORN)
    assert process.stop(process.identify(child.pid), grace_s=0.2)
    assert child.wait() == -signal.SIGKILL


def test_stop_ends_a_stopped_process(start: Started) -> None:
    child = start()
    os.kill(child.pid, signal.SIGSTOP)
    assert process.stop(process.identify(child.pid), grace_s=0.2)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, None])
def test_an_old_kernel_without_pidfd_still_stops_the_process(
    start: Started, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    """Taking its refusal for "gone" would leave workers running."""

    def refuse(pid: int) -> int:
        raise OSError(number, "no pidfd here") if number else AttributeError("pidfd_open")

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    child = start()
    assert process.stop(process.identify(child.pid))
    assert child.wait() == -signal.SIGTERM


def test_somebody_elses_process_is_not_reported_as_stopped(start: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*args: object) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(signal, "pidfd_send_signal", forbid, raising=False)
    monkeypatch.setattr(os, "kill", forbid)
    assert not process.stop(process.identify(start().pid))

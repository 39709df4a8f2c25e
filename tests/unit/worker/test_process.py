"""Which process is which: only the recorded one counts as alive, and only that one is signalled."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from worker import locks, process
from worker.encode import take_lock

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


@pytest.mark.process
def test_the_recorded_process_is_alive_until_it_ends(start: Started) -> None:
    child = start()
    identity = process.identify(child.pid)
    assert process.alive(identity)
    child.kill()
    child.wait()
    assert not process.alive(identity)


@pytest.mark.process
def test_a_zombie_is_not_alive(start: Started) -> None:
    child = start()
    identity = process.identify(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: not process.alive(identity), "a zombie counts as gone")  # not reaped: the pid is still taken
    assert os.path.exists(f"/proc/{child.pid}") or sys.platform != "linux"  # noqa: PTH110


@pytest.mark.process
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


@pytest.mark.process
def test_stop_ends_the_recorded_process_and_spares_its_double(start: Started) -> None:
    child, double = start(), start()
    assert process.stop(process.identify(child.pid))
    assert child.wait() == -signal.SIGTERM
    assert double.poll() is None


@pytest.mark.process
def test_stop_ends_a_process_that_does_not_listen(start: Started) -> None:
    child = start(STUBBORN)
    assert process.stop(process.identify(child.pid), grace_s=0.2)
    assert child.wait() == -signal.SIGKILL


@pytest.mark.process
def test_stop_ends_a_stopped_process(start: Started) -> None:
    child = start()
    os.kill(child.pid, signal.SIGSTOP)
    assert process.stop(process.identify(child.pid), grace_s=0.2)


@pytest.mark.process
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


@pytest.mark.process
def test_somebody_elses_process_is_not_reported_as_stopped(start: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*args: object) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(signal, "pidfd_send_signal", forbid, raising=False)
    monkeypatch.setattr(os, "kill", forbid)
    assert not process.stop(process.identify(start().pid))


# ------------------------------------------------------------------------------- where there is no /proc, as on a Mac

UUID = "9F2C6F0E-4E0C-4B1B-9C47-2A4E8E1B6D11"


class Asked:
    """Stands in for `subprocess.run`: what a Mac's own commands answer, and what was asked of them."""

    def __init__(self, **answers: Any):
        self.answers: dict[str, Any] = {"sysctl": (0, f"{UUID}\n", ""), "ps": (1, "", ""), **answers}
        self.asked: list[tuple[list[str], dict[str, str]]] = []

    def __call__(self, argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append((argv, options["env"]))
        answer = self.answers[argv[0].rpartition("/")[2]]
        if isinstance(answer, BaseException):
            raise answer
        return subprocess.CompletedProcess(argv, *answer)


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Asked]]:
    """`mac(ps=..., sysctl=...)`: from now on this machine has no /proc, and its commands answer so."""

    def elsewhere(*parts: Any) -> Path:
        return Path(*(str(part).replace("/proc", "/nothing-here") for part in parts))

    def answering(**answers: Any) -> Asked:
        asked = Asked(**answers)
        monkeypatch.setattr(process, "Path", elsewhere)
        monkeypatch.setattr(subprocess, "run", asked)
        monkeypatch.setattr(process, "sys", types.SimpleNamespace(platform="darwin"))
        return asked

    process._boot_by_sysctl.cache_clear()
    yield answering
    process._boot_by_sysctl.cache_clear()


LSTART = "Ss+  Sun Nov 29 13:55:02 2026\n"
SILENT = subprocess.TimeoutExpired(["ps"], 10.0)
ALIVE = {"pid": 70, "start": "Sun Nov 29 13:55:02 2026", "boot": UUID}


def test_on_a_mac_a_process_is_told_by_the_boot_session_and_the_time_of_the_world(mac: Callable[..., Asked]) -> None:
    asked = mac(ps=(0, LSTART, ""))
    assert process.identify(70) == ALIVE and process.alive(ALIVE)
    sysctl = [argv for argv, _ in asked.asked if argv[0] != "ps"]
    assert sysctl == [["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]]  # once, by its path, and never the boot time
    assert all(env["TZ"] == "UTC0" and env["LC_ALL"] == "C" for argv, env in asked.asked if argv[0] == "ps")


@pytest.mark.parametrize(
    "answer", [(1, "", ""), (0, "Z    Sun Nov 29 13:55:02 2026\n", ""), (0, LSTART.replace(":02", ":03"), "")], ids=str
)
def test_on_a_mac_an_ended_process_a_zombie_and_another_one_are_not_alive(
    mac: Callable[..., Asked], answer: Any
) -> None:
    mac(ps=answer)
    assert not process.alive(ALIVE)


@pytest.mark.parametrize(
    "answer", [SILENT, BlockingIOError(35, "no more processes"), (-9, "", ""), (1, "", "ps: no room\n")], ids=str
)
def test_a_system_that_does_not_answer_neither_buries_a_process_nor_has_one_signalled(
    mac: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    mac(ps=answer)
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, signum: sent.append(pid))
    assert process.alive(ALIVE)
    assert not process.send(ALIVE, signal.SIGKILL)
    assert not process.stop(ALIVE, grace_s=0.0)  # never "it is gone"
    assert sent == []
    with pytest.raises(process.NotKnown):
        process.identify(70)


def test_a_mac_whose_sysctl_is_silent_once_is_asked_again_and_the_answer_is_kept(mac: Callable[..., Asked]) -> None:
    asked = mac(sysctl=SILENT, ps=(0, LSTART, ""))
    assert process.alive(ALIVE)
    asked.answers["sysctl"] = (0, f"{UUID}\n", "")
    assert process.boot_id() == UUID
    asked.answers["sysctl"] = SILENT
    assert process.boot_id() == UUID


def test_a_mac_without_sysctl_still_tells_processes_by_their_start(mac: Callable[..., Asked]) -> None:
    mac(sysctl=FileNotFoundError(2, "no such file"), ps=(0, LSTART, ""))
    assert process.identify(70) == {**ALIVE, "boot": ""}


# -------------------------------------------------------------------------------------------- who holds which lock


@pytest.fixture(params=["proc", "no proc"])
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what /proc shows, and without."""
    if request.param == "no proc":
        monkeypatch.setattr(process, "_in_proc", lambda *args: [])


HOLD = "import sys; sys.path.insert(0, sys.argv[1])\nfrom pathlib import Path\nfrom worker.encode import take_lock\n"
HOLD += "import time\nlock = take_lock(Path(sys.argv[2]), verb=sys.argv[3], host=sys.argv[4])\n"
HOLD += "print('up', flush=True); time.sleep(600)"


def holding(lock: Path, verb: str = "encode", host: str = "here") -> list[str]:
    return [sys.executable, "-c", HOLD, str(Path(__file__).parents[3]), str(lock), verb, host]


@pytest.mark.process
def test_who_holds_a_lock_is_found_by_what_it_wrote_there(start: Started, tmp_path: Path, anywhere: None) -> None:
    locks = tmp_path / "progress"
    above = start(holding(locks / "host_here.lock", "supervise"))
    below = start(holding(locks / "cluster0_gpu0.lock"))
    start(holding(locks / "cluster1_gpu0.lock", host="there"))  # of another host that shares the folder
    found = {each.process["pid"]: each.verb for each in process.running(str(tmp_path), "here")}
    assert found == {above.pid: "supervise", below.pid: "encode"}
    assert all(process.stop(each.process) for each in process.running(str(tmp_path), "here"))
    below.wait()
    assert process.running(str(tmp_path), "here") == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "here", "verb": "encode", "process": 7}', "\0" * 1024])
def test_a_lock_that_says_nothing_true_names_nobody(tmp_path: Path, text: str, anywhere: None) -> None:
    lock = tmp_path / "progress" / "cluster0_gpu0.lock"
    fd = locks.take(lock)
    assert fd is not None
    lock.write_text(text)
    assert locks.held(lock) and process.running(str(tmp_path), "here") == []
    os.close(fd)


def test_what_a_lock_says_counts_only_while_it_is_held(tmp_path: Path, anywhere: None) -> None:
    lock = tmp_path / "progress" / "cluster0_gpu0.lock"
    fd = take_lock(lock, verb="encode", host="here")
    assert fd is not None
    assert [each.process["pid"] for each in process.running(str(tmp_path), "here")] == [os.getpid()]
    os.close(fd)
    assert process.running(str(tmp_path), "here") == []


def test_a_pipe_or_a_link_in_place_of_a_lock_holds_nobody_up(tmp_path: Path, anywhere: None) -> None:
    (tmp_path / "progress").mkdir()
    os.mkfifo(tmp_path / "progress" / "cluster0_gpu0.lock")
    (tmp_path / "progress" / "cluster0_gpu1.lock").symlink_to("nowhere")
    assert process.running(str(tmp_path), "here") == []


def test_who_looks_at_a_lock_does_not_keep_it_from_its_next_holder(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.touch()
    looking = os.open(lock, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.2, os.close, [looking]).start()
    fd = locks.take(lock)
    assert fd is not None
    assert locks.take(lock) is None
    os.close(fd)

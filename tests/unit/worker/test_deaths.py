"""A death is told as what it is: out of memory only where the system says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker import deaths
from worker.deaths import MemoryWatch, memory_kills, named_by_the_kernel, reason_for


@pytest.mark.parametrize(
    ("code", "more", "said"),
    [
        (-9, {}, "killed (SIGKILL): the system's memory killer, or a person"),
        (-9, {"by_memory": "x"}, "killed (SIGKILL) by the system's memory killer: out of memory (x)"),
        (-11, {}, "killed by SIGSEGV"),
        (-99, {}, "killed by 99"),
        (1, {}, "exit code 1"),
        (
            5,
            {"full": True},
            "disk full: its last words could not be written either (exit code 5)",
        ),
        (None, {}, "ended (taken over from an earlier supervisor: exit code not known)"),
    ],
)
def test_an_exit_code_in_words(code: int | None, more: dict[str, object], said: str) -> None:
    assert reason_for(code, **more) == said  # type: ignore[arg-type]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What the system counts; nothing in the kernel's log."""
    found: list[int | None] = [3]
    monkeypatch.setattr(deaths, "memory_kills", lambda: found[0])
    monkeypatch.setattr(deaths, "named_by_the_kernel", lambda pid: False)
    return found


def test_a_kill_that_the_system_counted_explains_one_death_and_no_more(counts: list[int | None]) -> None:
    watch = MemoryWatch()
    assert not watch.killed(1)
    counts[0] = 4
    assert watch.killed(1) and not watch.killed(2)
    counts[0] = 6  # two at once
    watch.look()
    assert watch.killed(1) and watch.killed(2) and not watch.killed(3)


def test_an_old_kill_explains_nothing(counts: list[int | None], monkeypatch: pytest.MonkeyPatch) -> None:
    watch = MemoryWatch()
    counts[0] = 4
    watch.look()
    later = deaths.time.monotonic() + deaths.JUST_NOW_S + 1
    monkeypatch.setattr(deaths.time, "monotonic", lambda: later)
    assert not watch.killed(1)


def test_where_the_system_counts_nothing_nothing_is_claimed(counts: list[int | None]) -> None:
    counts[0] = None
    watch = MemoryWatch()
    counts[0] = 7
    assert not watch.killed(1)


@pytest.mark.parametrize("text", ["oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", "low 0\noom 9\noom_kill 7\n"])
def test_both_versions_of_control_groups_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "memory.events").write_text(text)
    monkeypatch.setattr(deaths, "_memory_files", lambda: [tmp_path / "none", tmp_path / "memory.events"])
    assert memory_kills() == 7
    monkeypatch.setattr(deaths, "_memory_files", lambda: [tmp_path / "none"])
    assert memory_kills() is None


@pytest.mark.process
def test_the_kernels_log_names_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "dmesg"
    script.write_text("#!/bin/sh\necho '[1.0] Memory cgroup out of memory: Killed process 4242 (python)'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert named_by_the_kernel(4242) and not named_by_the_kernel(424) and not named_by_the_kernel(42421)
    script.write_text("#!/bin/sh\nexit 1\n")
    assert not named_by_the_kernel(4242)

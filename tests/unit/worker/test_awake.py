"""This machine does not fall asleep by itself while a local host has work, and says so where it may."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from box import MakeBox, script
from waiting import wait_for

from runbook_lib.hosts import inventory
from runbook_lib.profile.profile import HostSpec
from runbook_lib.run.checks import Checks
from worker import awake, process

ROOT = Path(__file__).parents[3]
HOLD = "import sys, time; from worker import awake; awake.hold(lambda text: print(text, flush=True)); time.sleep(600)"
linux = pytest.mark.skipif(sys.platform != "linux", reason="holds a Mac awake otherwise: tests/helpers/mac")


def stand_in(folder: Path, *lines: str) -> dict[str, str]:
    """A `systemd-inhibit` first in PATH that does these lines; its arguments and its pid are in the file `asked`."""
    folder.mkdir(exist_ok=True)
    note = f'echo $$ "$@" > "{folder}/asked.new"; mv "{folder}/asked.new" "{folder}/asked"'
    script(folder / "systemd-inhibit", "\n".join(["#!/bin/sh", note, *lines]) + "\n")
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


COMMAND = 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"'  # as the real one: options, then a command


def holder(folder: Path) -> process.Identity:
    wait_for(lambda: (folder / "asked").exists(), "it is asked to hold the machine awake")
    return process.identify(int((folder / "asked").read_text().split()[0]))


@pytest.mark.process
@linux
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_machine_is_held_awake_until_the_process_ends_however_it_ends(tmp_path: Path, how: int) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], cwd=ROOT, env=stand_in(tmp_path / "bin", COMMAND)) as child:
        held = holder(tmp_path / "bin")
        assert process.alive(held)
        said = (tmp_path / "bin" / "asked").read_text()
        assert "--what=sleep:idle" in said and "--mode=block" in said
        child.send_signal(how)
        wait_for(lambda: not process.alive(held), "nothing holds it any longer")


@pytest.mark.process
@linux
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            ["echo 'Failed to inhibit: Access denied' >&2", "exit 1"],
            "systemd-inhibit has ended (Failed to inhibit: Acc",
        ),
        (["exit 3"], "systemd-inhibit has ended (exit code 3)"),
    ],
)
def test_where_it_does_not_work_the_log_says_so(tmp_path: Path, lines: list[str], words: str) -> None:
    env = stand_in(tmp_path / "bin", *lines)
    with subprocess.Popen([sys.executable, "-c", HOLD], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert words in child.stdout.readline()
        child.kill()


def test_where_there_is_nothing_to_ask_the_log_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(awake, "CAFFEINATE", str(tmp_path / "caffeinate"))
    awake.hold(said.append)
    assert "may fall asleep" in said[0]


@pytest.mark.process
@linux
@pytest.mark.parametrize("local", [True, False])
def test_a_supervisor_of_a_local_host_holds_it_awake_while_there_is_work(
    make_box: MakeBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    monkeypatch.setenv("PATH", stand_in(tmp_path / "bin", COMMAND)["PATH"])
    box = make_box(["WAIT one", "two"], light=True, keep_awake=local)
    supervisor = box.supervisor()
    wait_for(box.at_hand, "a worker is at work")
    assert (tmp_path / "bin" / "asked").exists() is local
    held = holder(tmp_path / "bin") if local else None
    assert process.alive(held) is local
    box.go()
    assert box.end(supervisor) == 0
    wait_for(lambda: not process.alive(held), "nothing holds it any longer")


# ------------------------------------------------------------------------------------------------------------ battery


def supply(folder: Path, name: str, **values: str) -> None:
    (folder / name).mkdir(parents=True)
    for key, value in values.items():
        (folder / name / key).write_text(f"{value}\n")


@pytest.mark.parametrize(("online", "expected"), [("0", True), ("1", False), (None, None)])
def test_a_laptop_on_its_battery_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: str | None, expected: bool | None
) -> None:
    supply(tmp_path, "BAT0", type="Battery", online="0")
    if online is not None:
        supply(tmp_path, "AC", type="Mains", online=online)
    monkeypatch.setattr(awake, "SUPPLIES", tmp_path)
    monkeypatch.setattr(awake, "sys", types.SimpleNamespace(platform="linux"))
    assert awake.on_battery() is expected


@pytest.mark.process
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Now drawing from 'Battery Power'\\n -InternalBattery-0 (id=1)\\t81%; discharging; 4:02 remaining", True),
        ("Now drawing from 'AC Power'\\n -InternalBattery-0 (id=1)\\t100%; charged", False),
        ("", None),
    ],
)
def test_a_macbook_on_its_battery_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: bool | None
) -> None:
    monkeypatch.setattr(awake, "PMSET", script(tmp_path / "pmset", f'#!/bin/sh\nprintf "{said}\\n"\n'))
    monkeypatch.setattr(awake, "sys", types.SimpleNamespace(platform="darwin"))
    assert awake.on_battery() is expected


def test_a_machine_that_tells_nothing_is_on_no_battery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awake, "SUPPLIES", tmp_path / "nothing")
    monkeypatch.setattr(awake, "PMSET", str(tmp_path / "nothing"))
    assert awake.on_battery() is None


@pytest.mark.parametrize(("kind", "warned"), [("local", True), ("ssh", False)])
def test_preflight_warns_of_a_battery_where_this_machine_computes(
    monkeypatch: pytest.MonkeyPatch, kind: str, warned: bool
) -> None:
    monkeypatch.setattr(awake, "on_battery", lambda: True)
    checks = Checks("hosts")
    inventory._power(checks, HostSpec("here", kind))
    assert checks.ok and [check.warn for check in checks] == [True] * warned

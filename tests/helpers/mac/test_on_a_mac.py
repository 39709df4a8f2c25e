"""Run by tests/process/test_pseudo_mac.py only: one program's record of a process must be true for the next program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from worker import making, process

ROOT = Path(__file__).parents[3]
if not os.environ.get("PSEUDO_MAC_PROC"):
    pytest.skip("only on the pseudo-Mac", allow_module_level=True)


def other_program(code: str, **variables: str) -> Any:
    """What a program of its own finds out."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json, os\nfrom worker import process, verbs\nprint(json.dumps({code}))"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]]), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "600"])
    yield child
    child.kill()
    child.wait()


def test_this_is_a_mac() -> None:
    assert sys.platform == "darwin" and not list(Path("/proc").iterdir()) and not hasattr(os, "pidfd_open")
    assert Path(process.__file__).is_relative_to(ROOT)


def test_a_record_holds_after_the_clock_was_set(sleeper: subprocess.Popen[bytes]) -> None:
    record = other_program(f"process.identify({sleeper.pid})")
    assert process.alive(record)
    assert other_program(f"process.alive({record})") is True


def test_a_record_holds_after_a_flight(sleeper: subprocess.Popen[bytes]) -> None:
    record = other_program(f"process.identify({sleeper.pid})", TZ="Europe/Berlin")
    assert other_program(f"process.alive({record})", TZ="Asia/Tokyo") is True


def test_stop_says_gone_only_when_it_is(sleeper: subprocess.Popen[bytes]) -> None:
    record = other_program(f"process.identify({sleeper.pid})", TZ="Europe/Berlin")
    assert other_program(f"process.stop({record})", TZ="Asia/Tokyo") is True
    assert sleeper.wait(10) == -15


def test_a_worker_without_a_report_is_found_by_its_lock(tmp_path: Path) -> None:
    lock = tmp_path / "progress" / "cluster0_gpu0.lock"
    hold = "import sys, time; from pathlib import Path; from worker.encode import take_lock; lock = take_lock("
    hold += "Path(sys.argv[1]), verb='encode', host='here'); print('up', flush=True); time.sleep(600)"
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    with subprocess.Popen([sys.executable, "-c", hold, str(lock)], env=variables, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == b"up\n"
            found = other_program(f"verbs.running({str(tmp_path)!r}, 'here')")
            assert [each["process"]["pid"] for each in found] == [child.pid]
            assert process.stop(found[0]["process"])
        finally:
            child.kill()


def test_what_runs_from_a_folder_is_told(tmp_path: Path) -> None:
    program = tmp_path / "half made" / "bin" / "sleep"
    program.parent.mkdir(parents=True)
    shutil.copy("/usr/bin/sleep", program)
    child = subprocess.Popen([str(program), "600"])
    try:
        assert making.running_from(program.parents[1]) == [child.pid]
        assert making.running_from(tmp_path / "half") == []
    finally:
        child.kill()
        child.wait()


def test_the_machine_is_held_awake_as_long_as_we_live() -> None:
    hold = "from worker import awake; awake.hold(print); print('up', flush=True); import time; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"

        def holders() -> list[int]:
            lines = process.command_lines() or {}
            return [pid for pid, line in lines.items() if f"/usr/bin/caffeinate -i -w {child.pid}" in line]

        wait_for(holders, "caffeinate")
        child.kill()
        child.wait()
        wait_for(lambda: not holders(), "its end with us")

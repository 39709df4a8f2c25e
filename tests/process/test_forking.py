"""A process that `forking.python()` starts is like one that this Python starts, but for the time of its imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import forking
import forking_client
import pytest
from waiting import wait_for

from worker import process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks after imports are safe on Linux only")
WAY = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONUNBUFFERED")}
# A package that is found where the process stands, in place of ours: it tells of its place, and ends as it is told.
TELLS = """
import atexit, json, os, signal, sys, threading, time
atexit.register(print, "at exit")
said = dict(folder=os.getcwd(), words=sys.argv[1:], file=sys.argv[0], path=sys.path[0], variables=dict(os.environ))
said.update(umask=os.umask(0), leads=os.getsid(0) == os.getpid(), read=sys.stdin.read(), name=__name__)
said.update(loaded=sorted(name for name in sys.modules if name.partition(".")[0] in ("worker", "runbook_lib")))
said.update(interrupt=str(signal.getsignal(signal.SIGINT)), bytecode=sys.dont_write_bytecode, prefix=sys.prefix)
print(json.dumps(said, sort_keys=True))
print("error", file=sys.stderr)
threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
exec(sys.argv[2])
"""
SLEEPS = "open('pid', 'w').write(str(os.getpid())); os.rename('pid', 'up'); time.sleep(600)"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "__init__.py").touch()
    (tmp_path / "worker" / "__main__.py").write_text(TELLS)
    return tmp_path


@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize(
    "does",
    [
        "pass", "sys.exit(3)", "sys.exit('why')", "1 / 0", "raise KeyboardInterrupt", "os._exit(7)",
        "print(flush=True); os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGSEGV)",
    ],
)  # fmt: skip
def test_it_has_the_place_of_the_other_and_ends_as_it(place: Path, does: str, session: bool) -> None:
    def ended(python: str) -> tuple[int, dict[str, Any], list[str], str]:
        done = subprocess.run(
            [python, "-m", "worker", "probe", does, "ß"],
            cwd=place, env={**WAY, "MINE": "ü"}, input="read this", capture_output=True, text=True, check=False,
            start_new_session=session, umask=0o027,
        )  # fmt: skip
        first, *more = done.stdout.splitlines() or ["{}"]
        return done.returncode, json.loads(first), more, done.stderr.splitlines()[-1]

    plain, forked = ended(sys.executable), ended(forking.python())
    assert forked[1].get("read") == "read this" or does.startswith("os.")
    assert forked == plain


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_for_the_process_that_waits_ends_both(place: Path, signum: int) -> None:
    argv = [forking.python(), "-m", "worker", "warm", SLEEPS]
    with subprocess.Popen(
        argv, cwd=place, env=WAY, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        wait_for((place / "up").exists, "it is up")
        identity = process.identify(int((place / "up").read_text()))
        assert identity["pid"] != child.pid and process.alive(identity)
        child.send_signal(signum)
        assert child.wait(60) == -signum
    wait_for(lambda: not process.alive(identity), "its end")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("-m worker recompute --threads 2", "worker"),
        ("-m worker encode --slot a", ""),  # its supervisor knows its pid
        ("tests/helpers/wrong_slot.py -m worker warm", "worker"),
        ("tests/helpers/wrong_slot.py -m worker encode", ""),
        ("-m papermill a.ipynb", "driver"),
        ("benchmarks/all.py --quick", "driver"),
        ("benchmarks/ways.py encode", "worker"),
        ("-c pass", ""),
        ("-m", ""),
        ("", ""),
    ],
)
def test_from_which_process_words_are_forked(words: str, kind: str) -> None:
    assert forking_client.of_kind(words.split(), forking.VERBS) == kind


def test_the_libraries_are_there_before_it_begins_and_ours_are_not(place: Path) -> None:
    def before(*words: str) -> list[bool]:
        code = "print(json.dumps([name in sys.modules for name in ('torch', 'papermill', 'worker.layout')]))"
        (place / "worker" / "__main__.py").write_text(f"import json, sys\n{code}\n")
        (place / "ipykernel_launcher.py").write_text(f"import json, sys\n{code}\n")
        argv = [forking.python(), *words]
        found: list[bool] = json.loads(subprocess.run(argv, cwd=place, env=WAY, capture_output=True, check=True).stdout)
        return found

    for verb in forking.VERBS:
        assert before("-m", "worker", verb) == [True, False, False], verb
    assert before("-m", "ipykernel_launcher", "-f") == [False, True, False]
    assert before("-m", "worker", "encode") == [False, False, False]  # plainly


def test_what_it_starts_goes_the_same_way(place: Path) -> None:
    (place / "worker" / "__main__.py").write_text("import sys; print(sys.executable)")
    argv = [forking.python(), "-m", "worker", "probe"]
    done = subprocess.run(argv, cwd=place, env=WAY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == forking.python()

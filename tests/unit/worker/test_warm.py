"""The warm process: what it forks is a worker like one started plainly, and whatever becomes of it no row is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from box import HOST, SLOT, Box, MakeBox, script, waiting
from local_run import executable
from waiting import wait_for

from worker import process, starting
from worker.process import start_time

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only"),
]
BOTH = ("cluster0_gpu0", "cluster0_gpu1")
HOW_FORKED = """
import json, os, torch
with open("how.json", "w") as file:
    how = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE")}
    json.dump({**how, "threads": torch.get_num_threads(), "session": os.getsid(0) == os.getpid()}, file)
"""


def words(pid: int) -> list[str]:
    """The command line of a process, without what its room leaves empty at the end."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")


def parent(pid: int) -> int:
    """The pid of a process's parent."""
    return int(stat(pid)[1])


def stat(pid: int) -> list[str]:
    """Its state, its parent and so on, as proc(5) has them."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def pipes(pid: int) -> set[str]:
    """The pipes that a process has open."""
    return {link for path in Path(f"/proc/{pid}/fd").iterdir() if (link := str(path.readlink())).startswith("pipe:")}


def at_work(box: Box, *slots: str) -> list[int]:
    """The pids of these slots' workers, once each waits at a row of its second part."""
    wait_for(lambda: all(box.at_hand(slot) for slot in slots) and len(box.parts()) == len(slots), "one part and a bit")
    pids = [box.alone(slot) for slot in slots]
    assert all(pids)
    return [pid for pid in pids if pid]


def warm_process(box: Box, worker: int) -> int:
    """The warm process that forked this worker."""
    above = parent(worker)
    assert "warm" in words(above) and str(box.root) in words(above)
    return above


def test_a_hosts_workers_are_forked_from_one_process_and_look_as_if_started_plainly(make_box: MakeBox) -> None:
    box = make_box(waiting(6, 14), slots=2, light=True)
    supervisor = box.supervisor()
    first, second = at_work(box, *BOTH)
    above = warm_process(box, first)
    assert warm_process(box, second) == above and parent(above) == supervisor.pid
    for pid, slot in ((first, BOTH[0]), (second, BOTH[1])):
        line = words(pid)
        assert line[line.index("-m") :] == [
            "-m",
            "worker",
            "encode",
            "--root",
            str(box.root),
            "--host",
            HOST,
            "--slot",
            slot,
        ]
        assert os.getsid(pid) == pid
        files = {number: (Path(f"/proc/{pid}/fd") / number).resolve() for number in "012"}
        assert files == {"0": Path(os.devnull), "1": box.folder.log(slot), "2": box.folder.log(slot)}
        assert pipes(above) and not pipes(pid) & pipes(above)
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert len(box.sums()) == 4 and box.exits() == []
    wait_for(lambda: start_time(above) is None, "the warm process ends with its supervisor")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
def test_how_a_forked_worker_ended_is_known_and_the_next_one_is_forked_too(make_box: MakeBox, signum: int) -> None:
    box = make_box(waiting(6), light=True)
    supervisor = box.supervisor()
    (first,) = at_work(box, SLOT)
    above = warm_process(box, first)
    os.kill(first, signum)
    wait_for(lambda: box.alone() not in (None, first), "the next one")
    again = box.alone()
    assert again is not None and parent(again) == above
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert [entry["code"] for entry in box.exits()] == [-signum]
    assert len(box.sums()) == 4


def test_its_bytes_are_those_of_a_worker_that_was_started_plainly(make_box: MakeBox, tiny_bert: Path) -> None:
    forked, plain = (make_box(waiting(), slots=2, model=tiny_bert) for _ in range(2))
    code = plain.root / "worker" / "starting.py"
    text = code.read_text()
    code.write_text(text.replace('if sys.platform != "linux":', "if True:"))
    assert code.read_text() != text
    for box in (forked, plain):
        child = box.start("supervise", python=sys.executable)
        assert box.end(child) == 0, box.logs()
    assert "warm process" not in plain.logs()
    assert forked.sums() == plain.sums() and len(forked.sums()) == 4


def test_a_forked_worker_has_the_threads_and_the_device_of_its_slot(make_box: MakeBox, tiny_bert: Path) -> None:
    box = make_box(waiting(), model=tiny_bert)
    (spec,) = box.assignment["slots"]
    box.save(slots=[{**spec, "threads": 2}])
    code = box.root / "worker" / "part.py"
    code.write_text(f"{code.read_text()}\n{HOW_FORKED.replace('how.json', str(box.root / 'how.json'))}")
    encode = box.root / "worker" / "encode.py"  # imported late, so that what it sees is what an encoder sees
    encode.write_text(
        encode.read_text()
        .replace("from .part import encode_part\n", "")
        .replace(
            "    left_to_others: dict[int, str] = {}\n", "    from .part import encode_part\n    left_to_others = {}\n"
        )
    )
    assert box.end(box.start("supervise", python=sys.executable)) == 0, box.logs()
    told = json.loads((box.root / "how.json").read_text())
    assert told["threads"] == 2 and told["OMP_NUM_THREADS"] == "2" and told["HF_HUB_OFFLINE"] == "1" and told["session"]


WAITS = """    began = time.monotonic()
    from pathlib import Path

    while any("WAIT" in text for text in texts) and not Path("go").exists():
        suspects.note([start])
        time.sleep(0.02)
"""
NOTED = """

_without_note = _load


def _load(*given: Any) -> Any:
    import os

    with open("loads", "a") as file:
        file.write(f"{os.getpid()}\\n")
    return _without_note(*given)
"""


def test_workers_on_the_processor_share_the_model_that_was_loaded_before_they_were_forked(
    make_box: MakeBox, tiny_bert: Path
) -> None:
    """Until a file of it is another one: then a worker loads what lies there."""
    box = make_box(waiting(6, 14), slots=2, model=Path(shutil.copytree(tiny_bert, tiny_bert.parent / "shared")))
    code = box.root / "worker" / "text_model.py"
    code.write_text(code.read_text() + NOTED)
    encode = box.root / "worker" / "part.py"  # with the real encoder, a text that says WAIT waits too
    encode.write_text(encode.read_text().replace("    began = time.monotonic()\n", WAITS, 1))
    supervisor = box.start("supervise", python=sys.executable)
    first, _ = at_work(box, *BOTH)
    loads = box.root / "loads"
    assert loads.read_text().split() == [str(warm_process(box, first))]
    os.utime(tiny_bert.parent / "shared" / "model.safetensors", (1, 1))
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(loads.read_text().split()) == 2, "a worker loads it")
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert len(box.sums()) == 4


# ----------------------------------------------------------------------------------------------- whatever becomes of it


def test_when_it_is_killed_its_workers_go_on_and_the_next_one_comes_from_a_new_one(make_box: MakeBox) -> None:
    box = make_box(waiting(6, 14), slots=2, light=True)
    supervisor = box.supervisor()
    first, second = at_work(box, *BOTH)
    above = warm_process(box, first)
    os.kill(above, signal.SIGKILL)
    wait_for(lambda: start_time(above) is None, "it is gone")
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: box.alone(BOTH[1]) not in (None, second), "the next one")
    again = box.alone(BOTH[1])
    assert again is not None and box.alone(BOTH[0]) == first
    assert warm_process(box, again) != above
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert len(box.sums()) == 4 and len(box.exits(BOTH[1])) == 1 and box.exits(BOTH[0]) == []


def test_when_it_hangs_an_end_is_seen_and_the_next_worker_starts_without_it(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box(waiting(6), light=True)
    code = box.root / "worker" / "starting.py"
    code.write_text(code.read_text().replace("FORK_S = 10.0", "FORK_S = 0.5"))
    supervisor = box.start("supervise", python=box.assignment["python"])
    (first,) = at_work(box, SLOT)
    above = warm_process(box, first)
    os.kill(above, signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: box.alone() not in (None, first), "the next one")
    again = box.alone()
    assert again is not None and parent(again) == supervisor.pid and start_time(above) is None
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert len(box.sums()) == 4
    assert "did not fork" in box.logs()


def test_one_that_is_stopped_before_it_begins_ends_with_its_supervisor_too(tmp_path: Path) -> None:
    python = executable(tmp_path / "python", "#!/bin/sh\nkill -STOP $$\n")
    code = (
        "import sys, time; from pathlib import Path; from worker import layout, starting\n"
        "warm = starting.Warm(layout.HostFolder(Path(sys.argv[1])), 'one'); warm.ready(sys.argv[2])\n"
        "print(warm._child.pid, flush=True); time.sleep(60)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path), str(python)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout
        pid = int(supervisor.stdout.readline())
        stopped = process.identify(pid)
        wait_for(lambda: stat(pid)[0] == "T", "it is stopped")
        supervisor.kill()
    wait_for(lambda: not process.alive(stopped), "its end")


@pytest.mark.parametrize("stopped", [False, True])
def test_when_its_supervisor_is_killed_it_ends_and_its_workers_go_on(make_box: MakeBox, stopped: bool) -> None:
    box = make_box(waiting(6), light=True, look_s=600)
    supervisor = box.supervisor()
    (first,) = at_work(box, SLOT)
    above = warm_process(box, first)
    if stopped:
        os.kill(above, signal.SIGSTOP)
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: start_time(above) is None, "it ends")
    assert box.alone() == first
    again = box.supervisor()  # takes over the worker, whose end nobody else will tell
    wait_for(lambda: "taken over" in box.logs(), "it is taken over")
    box.go()
    assert box.end(again) == 0, box.logs()
    assert len(box.sums()) == 4


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        ("exit 1", "it ended before it was ready"),
        ("""echo '{{"unfit": "ImportError: no such library"}}'""", "warm process: ImportError: no such library"),
        ("echo Welcome to this cluster", "expected a line of JSON"),
        ("sleep 600", "are not imported within 1 s"),
    ],
)
def test_where_it_cannot_serve_each_worker_starts_plainly(make_box: MakeBox, commands: str, reason: str) -> None:
    box = make_box(waiting(), light=True)
    light = box.assignment["python"]
    warm_only = commands.format(light=light)
    box.save(
        python=script(box.root / "python", f'#!/bin/sh\n[ $3 = warm ] && {{ {warm_only}; exit; }}\nexec {light} "$@"\n')
    )
    code = box.root / "worker" / "starting.py"
    code.write_text(code.read_text().replace("IMPORT_S = 120.0", "IMPORT_S = 1.0"))
    assert box.end(box.start("supervise", python=light)) == 0, box.logs()
    assert len(box.sums()) == 4 and box.exits() == []
    assert reason in box.logs() and "each worker imports the libraries itself" in box.logs()


def test_while_the_libraries_are_imported_a_slot_is_starting_and_not_restarting(make_box: MakeBox) -> None:
    box = make_box(waiting(), light=True)
    light = box.assignment["python"]
    hold = f'[ $3 = warm ] && while [ ! -e {box.root}/go ]; do sleep 0.05; done\nexec {light} "$@"\n'
    box.save(python=script(box.root / "python", f"#!/bin/sh\n{hold}"))
    supervisor = box.supervisor()
    wait_for(lambda: box.supervised().get("state") == "running", "it says that it is at it")
    assert box.supervised()["process"] is None and box.parts() == []
    box.go()
    assert box.end(supervisor) == 0, box.logs()
    assert len(box.sums()) == 4


# ----------------------------------------------------------------------------------------------- where a fork is unsafe


def unfit_after(statement: str) -> str:
    """What a fresh interpreter, which does this first, says of forking."""
    code = f"from worker import warm\n{statement}\nprint(warm.unfit())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_it_does_not_fork_from_several_threads_or_with_a_gpu_in_use(tmp_path: Path) -> None:
    assert unfit_after("") == ""
    thread = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    assert "found 2" in unfit_after(thread)
    library = tmp_path / "libcuda.so.1"  # what the driver's library is called when it is loaded
    library.write_bytes(b"\0" * 4096)
    mapped = (
        f"import mmap; file = open({str(library)!r}, 'rb'); held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)"
    )
    assert "touched the GPU" in unfit_after(mapped)


def test_the_libraries_themselves_leave_one_thread_and_no_gpu_touched() -> None:
    """In the environment that workers are given for it; so the warm process is of use."""
    names = dict.fromkeys(starting.THREADS, "1")
    code = "import pyarrow; from worker import encoder, warm; print(warm.unfit())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **names, **starting.ALWAYS}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == ""


def test_a_name_that_does_not_fit_is_left_as_it_is() -> None:
    """Nothing is written past the words that a process was started with."""
    code = (
        "import sys; from pathlib import Path; from worker import warm\n"
        "line = lambda: Path('/proc/self/cmdline').read_bytes()\n"
        "before = line(); warm.name_process(['encode', '--slot', 'x' * 500]); assert line() == before\n"
        "warm.name_process(['encode']); print(line())"
    )
    argv = [sys.executable, "-c", code, "-m", "worker", "warm", "--room", "." * 8]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    line = done.stdout.strip().partition("print(line())")[2]
    assert line.startswith("\\x00-m\\x00worker\\x00encode\\x00\\x00") and "warm" not in line

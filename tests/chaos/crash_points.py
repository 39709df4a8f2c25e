"""End a process by SIGKILL at every call that changes a file, start it again, and look whether all is well.

    python tests/chaos/crash_points.py                     every scene, every call, and the middle of every write
    python tests/chaos/crash_points.py --scene part        one of: part, journal, new-run, landing, plan
    python tests/chaos/crash_points.py --strace            a worker as launch starts it, ended by strace (Linux)
    python tests/chaos/crash_points.py --fault ENOSPC      no kill: the call fails, and all later ones that take room
    python tests/chaos/crash_points.py --control direct    break the product on purpose: the verdict must be red

A scene is one thing the product does: it is done once undisturbed, and its calls are counted. Then, for each call n, it
is done again in a fresh folder by a process that dies just before n (and, where n writes, once more when half of it is
written); what lies there is checked; the product is started again as an operator would; and it is checked again, by
code that shares nothing with the product. The last line has the figures; the exit code is 0 when every point recovered.

A killed process loses nothing that it gave to the system: that a fsync is missing, only power_cut.py can show.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HELPERS = HERE.parent / "helpers"
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # children are forked: no threads of others in the parent
sys.path[1:1] = [str(HELPERS), str(HERE.parents[1])]

import made_up  # noqa: E402
import numpy.random  # noqa: E402, F401  (now, and not by each child)
import poison  # noqa: E402
from recorder import Call, Checker, Tap, journal_problems, one_of  # noqa: E402

from runbook_lib.phases import download, probing, staging  # noqa: E402
from runbook_lib.profile import profile  # noqa: E402
from runbook_lib.run import journal, model, opening, run  # noqa: E402
from worker import canaries, encode, layout, process, progress, second  # noqa: E402
from worker.files import sha256_file, sync_folder, write_atomic, write_json  # noqa: E402
from worker.wire import PartRecord  # noqa: E402

# Else it would be the clock that decides which calls there are: whether canaries are computed at the end, and how often
# the heartbeat is written.
AT_END = canaries.AT_END = 1e9
progress.HEARTBEAT_S = 1e9

Ack = Callable[..., None]
HOST, SLOT = "here", "cluster0_gpu0"
LIMIT_S = 120.0  # for a child, on a machine that has much else to do


# ------------------------------------------------------------------------------------------------------------ scenes


@dataclass(frozen=True)
class Truth:
    """What undisturbed runs gave."""

    parts: Checker
    plans: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    """One thing the product does, in a folder; `recover` is what starting again does, `check` judges what is there."""

    what: str
    prepare: Callable[[Path], None]
    act: Callable[[Path, Ack], None]
    recover: Callable[[Path], None]
    check: Callable[[Path, Truth, list[Any], bool], list[str]]


def open_run(root: Path) -> run.Run:
    """The run in a scene's folder, which is a copy: its host works in that folder too."""
    (folder,) = (root / "runs").iterdir()
    found = opening.open_folder(folder)
    spec = replace(found.profile.hosts[0], workdir=str(root / "host"))
    return run.Run(found.folder, replace(found.profile, hosts=(spec,)))


def host_folder(root: Path) -> layout.HostFolder:
    """The run's folder on the host."""
    (folder,) = (root / "host").iterdir()
    return layout.HostFolder(folder)


def staged(root: Path) -> None:
    """A run of ten rows in three parts, its shard brought to the host by the product's own launch."""
    made_up.run_folder(root, count=9, slots=1, part_rows=4)
    words = {"name": "owner/model", "revision": "0" * 40, "template": "{text}", "question_template": "{text}"}
    nothing_to_send = model.Model(
        folder=root, files=(), digest="1" * 64, dim=8, normalises=True, max_tokens=16, architecture="", **words
    )
    model.resolve = lambda *args: nothing_to_send
    probing.ensure_tried = lambda *args: None  # no model is tried: there is none
    checks = staging.stage(open_run(root))
    assert checks.ok, checks
    light_model()
    # The known texts are on file, so that no worker starts a process for them: that one has another model.
    assert second.learn(host_folder(root).root, HOST, 1) == 0


def light_model() -> None:
    """The model of tests/helpers/poison.py in the place of one that needs torch."""
    stand_in = types.ModuleType("worker.encoder")
    stand_in.Encoder, stand_in.RowError = poison.Encoder, poison.RowError
    sys.modules["worker.encoder"] = stand_in


def encode_all(root: Path, ack: Ack) -> None:
    """The worker, whole, but for its model."""
    light_model()
    commit = encode.commit

    def committed(folder: Any, vectors: Any, record: Any) -> None:
        commit(folder, vectors, record)
        ack("part", record.start, record.stop)

    encode.commit = committed
    code = encode.run(host_folder(root).root, HOST, SLOT)
    assert code == 0, f"the worker ended with {code}"


def encoded(root: Path) -> None:
    staged(root)
    in_child(lambda: encode_all(root, lambda *said: None), root / "log").must_be_well()
    (root / "log").unlink()


def collect(root: Path, ack: Ack) -> None:
    """Every part home, as the monitor does it; one stream, so that the calls come in the same order each time."""
    download.STREAMS = 1
    fetch = download._fetch

    def fetched(this: Any, host: Any, a_plan: Any, prints: Any, start: int, stop: int, *more: Any) -> None:
        fetch(this, host, a_plan, prints, start, stop, *more)
        ack("part", start, stop)

    download._fetch = fetched
    found = download.collect(open_run(root))
    assert (found.rows, found.refused, found.failures) == (10, (), ()), found


def torn(root: Path) -> None:
    """A run whose last writer was killed in the middle of a line."""
    staged(root)
    with open_run(root).journal.path.open("ab") as file:
        file.write(b'{"seq": 2, "at": "2026-01-01T00:00:00.000+00:00", "event": "chaos", "mark"')


def append(root: Path, ack: Ack, marks: Sequence[Any] = (1, 2, 3)) -> None:
    """Lines longer than a sector too: on a disk, they can be torn in the middle."""
    for number, mark in enumerate(marks, 1):
        open_run(root).journal.write("chaos", mark=mark, text="Žižkov " * (40 * number))
        ack("event", mark)


def new_run(root: Path, ack: Ack) -> None:
    """What the first command does: make the run's folder, or find it, and write to its journal."""
    this = opening.current(profile.load(root / "profile.yaml"), new=True)
    ack("run")
    this.journal.write("chaos", mark=1)
    ack("event", 1)


def new_run_again(root: Path) -> None:
    this = opening.current(profile.load(root / "profile.yaml"), new=True)
    this.journal.write("chaos", mark="last")


def only_a_profile(root: Path) -> None:
    made_up.run_folder(root, count=9, slots=1)
    shutil.rmtree(root / "runs")


def save_plans(root: Path, ack: Ack, epochs: Sequence[int] = (2, 3)) -> None:
    this = open_run(root)
    for epoch in epochs:
        replace(this.plan(), epoch=epoch).save(this.plan_file)
        ack("plan", epoch)


def plan_again(root: Path) -> None:
    assert open_run(root).plan().epoch in (1, 2, 3)
    save_plans(root, lambda *said: None, (3,))


def _acked(acks: list[Any], kind: str) -> list[Any]:
    return [said[1:] for said in acks if said[0] == kind]


def check_host(root: Path, truth: Truth, acks: list[Any], ended: bool) -> list[str]:
    return _check_parts(next((root / "host").iterdir()) / "parts", truth, acks, ended)


def check_home(root: Path, truth: Truth, acks: list[Any], ended: bool) -> list[str]:
    there = truth.parts.every_row_once(next((root / "host").iterdir()) / "parts")
    return there + _check_parts(next((root / "runs").iterdir()) / "parts", truth, acks, ended)


def _check_parts(parts: Path, truth: Truth, acks: list[Any], ended: bool) -> list[str]:
    whole = truth.parts.every_row_once(parts) if ended else truth.parts.final_names(parts)
    return whole + truth.parts.still_there(parts, _acked(acks, "part"))


def check_journal(root: Path, truth: Truth, acks: list[Any], ended: bool) -> list[str]:
    marks = [mark for (mark,) in _acked(acks, "event")]
    folders = sorted((root / "runs").glob("*"))
    if _acked(acks, "run") and [(folder / "profile.yaml").is_file() for folder in folders] != [True]:
        return [f"the run was acknowledged; now there are {len(folders)}, or it has no profile"]
    found = [journal_problems(folder / "journal.jsonl", marks, ended) for folder in folders]
    return sum(found, [] if folders or not marks else ["no run's folder, with an acknowledged event"])


def check_plan(root: Path, truth: Truth, acks: list[Any], ended: bool) -> list[str]:
    epochs = [1, *(epoch for (epoch,) in _acked(acks, "plan")), *([3] if ended else [])]
    return one_of(next((root / "runs").iterdir()) / "plan.json", truth.plans, max(epochs) - 1)


def nobody(*said: Any) -> None:
    """Tell nobody."""


SCENES = {
    "part": Scene(
        "a worker commits three parts", staged, encode_all, lambda root: encode_all(root, nobody), check_host
    ),
    "journal": Scene(
        "three events are appended", torn, append, lambda root: append(root, nobody, ("last",)), check_journal
    ),
    "new-run": Scene("a run's folder and journal are begun", only_a_profile, new_run, new_run_again, check_journal),
    "landing": Scene("three parts come home", encoded, collect, lambda root: collect(root, nobody), check_home),
    "plan": Scene("the plan is replaced twice", staged, save_plans, plan_again, check_plan),
}


# ---------------------------------------------------------------------------------------------------------- controls


def everywhere(old: Any, new: Any) -> None:
    """Put `new` in the place of `old` wherever the product has it under a name."""
    for module in list(sys.modules.values()):
        if module.__name__.split(".")[0] in ("worker", "runbook_lib"):
            for name, value in list(vars(module).items()):
                if value is old:
                    setattr(module, name, new)


def without_fsync() -> None:
    """The bytes of a file are not waited for; folders are."""
    sync = os.fsync
    os.fsync = lambda fd: sync(fd) if os.path.isdir(f"/proc/self/fd/{fd}") else None  # noqa: PTH112


def without_folder_fsync() -> None:
    """A rename is not waited for."""
    sync = os.fsync
    os.fsync = lambda fd: None if os.path.isdir(f"/proc/self/fd/{fd}") else sync(fd)  # noqa: PTH112


def direct() -> None:
    """No temporary name: the bytes go to the final one."""

    def write(path: Path, data: Any, mode: int = 0o600, expected: str | None = None) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in [data] if isinstance(data, bytes) else data:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
        return sha256_file(path)

    everywhere(write_atomic, write)


def record_first() -> None:
    """The commit stands before what it commits."""

    def commit(folder: layout.HostFolder, vectors: Any, record: PartRecord) -> None:
        raw = b"".join(encode.npy_chunks(vectors))
        path = folder.part(record.start, record.stop)
        stated = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
        write_json(path.with_suffix(".json"), {**record.to_json(), **stated})
        write_atomic(path, raw)

    encode.commit = commit


def torn_line_stays() -> None:
    """The journal goes on behind a half line."""

    def write(self: journal.Journal, event: str, **fields: Any) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        before = hashlib.sha256(lines[-1]).hexdigest() if lines else journal.FIRST
        record = {"seq": len(lines), "event": event, **fields, "prev": before}
        with self.path.open("ab") as file:
            file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    journal.Journal.write = write


CONTROLS = {
    "fsync": without_fsync,
    "folder-fsync": without_folder_fsync,
    "direct": direct,
    "record-first": record_first,
    "torn-line": torn_line_stays,
}


# --------------------------------------------------------------------------------------------------------- processes


@dataclass(frozen=True)
class Ended:
    """How a child ended: its wait status, and what it had to say."""

    status: int
    said: str

    @property
    def killed(self) -> bool:
        """By SIGKILL, as was meant."""
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL

    def must_be_well(self) -> None:
        """Raises when it was not."""
        if self.status:
            raise AssertionError(f"a child ended with status {self.status}:\n{self.said}")


def in_child(do: Callable[[], Any], log: Path) -> Ended:
    """Do it in a process of its own, forked from this one: libraries are loaded once. Its output goes to `log`."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            do()
            code = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    deadline = time.monotonic() + LIMIT_S
    pause = 0.0005
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)  # our own child, not yet waited for: the pid is still its
            os.waitpid(child, 0)
            return Ended(-1, f"not within {LIMIT_S:g} s: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(pause)
        pause = min(0.01, pause * 1.5)
    return Ended(done[1], log.read_text(errors="replace")[-4000:])


@dataclass(frozen=True)
class Stage:
    """A scene with its first state, its truth and its calls; disturbed runs happen in fresh copies below `work`."""

    name: str
    work: Path
    control: str = ""
    fault: str = ""

    @property
    def scene(self) -> Scene:
        """What happens here."""
        return SCENES[self.name]

    @property
    def base(self) -> Path:
        """The first state."""
        return self.work / f"{self.name}-base"

    def place(self) -> Path:
        """Where it happens: always the same folder, empty, since a run knows the folder that it was made in."""
        place = self.work / self.name / "root"
        shutil.rmtree(place.parent, ignore_errors=True)
        place.parent.mkdir()
        return place

    def fresh(self, bundle: bool = False) -> Path:
        """A copy of the first state; with the worker's own code only where a worker is started by command."""
        place = self.place()
        shutil.copytree(self.base, place, ignore=None if bundle else shutil.ignore_patterns("worker", "__pycache__"))
        return place

    def act(self, place: Path, kill_at: int = 0, half: bool = False) -> tuple[Ended, list[Any]]:
        """Let it happen, up to call `kill_at`; gives how it ended and what had been acknowledged."""
        told = place.parent / "acks"

        def do() -> None:
            acks = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            tap = Tap(place, kill_at, half, self.fault)
            tap.install()
            if self.control:
                CONTROLS[self.control]()

            def ack(*said: Any) -> None:
                tap.ack(*said)
                os.write(acks, json.dumps(said).encode() + b"\n")

            self.scene.act(place, ack)
            calls = pickle.dumps(tap.calls)
            os.write(os.open(place.parent / "calls", os.O_WRONLY | os.O_CREAT, 0o600), calls)

        ended = in_child(do, place.parent / "log")
        return ended, [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []

    def record(self) -> list[Call]:
        """The calls of an undisturbed run, with what they wrote."""
        place = self.fresh()
        self.act(place)[0].must_be_well()
        calls: list[Call] = pickle.loads((place.parent / "calls").read_bytes())
        return calls

    def judge(self, place: Path, truth: Truth, acks: list[Any], rebooted: bool = False) -> list[str]:
        """What is wrong: with what lies there now; with starting again; with what lies there then."""
        found = [f"at once: {problem}" for problem in self.scene.check(place, truth, acks, False)]

        def again() -> None:
            if self.control:
                CONTROLS[self.control]()
            if rebooted:
                process.boot_id = lambda: "after the cut"
            self.scene.recover(place)

        ended = in_child(again, place.parent / "log")
        if ended.status:
            found.append(f"starting again: status {ended.status}: {ended.said.strip().splitlines()[-1:]}")
        return found + [f"in the end: {problem}" for problem in self.scene.check(place, truth, acks, True)]


def set_up(name: str, work: Path, control: str = "", fault: str = "") -> tuple[Stage, Truth]:
    """The scene's first state, made by the product, and what an undisturbed run of the unbroken product gives."""
    stage = Stage(name, work, control, fault)
    stage.base.mkdir()
    in_child(lambda: stage.scene.prepare(stage.base), work / "log").must_be_well()
    place = stage.fresh()
    if name in ("part", "landing"):
        in_child(lambda: encode_all(place, nobody), work / "log").must_be_well()
        return stage, Truth(Checker.of(next((place / "host").iterdir()) / "parts"))
    plans = []
    for epoch in (1, 2, 3) if name == "plan" else ():
        in_child(lambda epoch=epoch: save_plans(place, nobody, (epoch,)), work / "log").must_be_well()
        plans.append(next((place / "runs").glob("*/plan.json")).read_bytes())
    return stage, Truth(Checker({}), plans)


# ------------------------------------------------------------------------------------------------------ crash points


def points(calls: Sequence[Call]) -> Iterator[tuple[int, bool, Call]]:
    """Every call, and once more the middle of it where it writes."""
    counted = [call for call in calls if call.kind != "ack"]
    for n, call in enumerate(counted, 1):
        yield n, False, call
        if call.kind == "write" and len(call.data) > 1:
            yield n, True, call


def crash(stage: Stage, truth: Truth, n: int, half: bool) -> list[str]:
    """What is wrong after a kill, or a failing call, at one point."""
    place = stage.fresh()
    ended, acks = stage.act(place, n, half)
    found = (
        []
        if ended.killed or (stage.fault and ended.status != -1)
        else [f"not ended at call {n}: status {ended.status}: {ended.said[-500:]}"]
    )
    return found + stage.judge(place, truth, acks)


def enumerate_scene(name: str, work: Path, control: str = "", every: int = 1, fault: str = "") -> dict[str, Any]:
    """Each crash point of a scene (or each `every`-th): how many there are, which did not recover."""
    stage, truth = set_up(name, work, control, fault)
    calls = stage.record()
    bad, tried = [], 0
    wanted = [point for point in points(calls) if not (fault and point[1])]  # a call fails as a whole
    for n, half, call in wanted[::every]:
        tried += 1
        if problems := crash(stage, truth, n, half):
            where = f"{'in' if half else 'before'} call {n} ({call.kind} {call.path})"
            bad.append({"scene": name, "point": where, "problems": problems})
    kinds = sorted({call.kind for call in calls} - {"ack"})
    counts = {kind: sum(call.kind == kind for call in calls) for kind in kinds}
    return {"scene": name, "points": tried, "calls": counts, "bad": bad}


# ------------------------------------------------------------------------------------------------------------ strace

CHANGING = "openat,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"
CHANGING += ",rmdir,ftruncate,truncate,link,linkat,symlink,symlinkat,copy_file_range,sendfile,fallocate"
LINE = re.compile(r"^(\d+) +(\w+)\((.*)")


def strace_works() -> str:
    """Empty where strace is here and may trace; else a sentence that says why not."""
    if not (tool := shutil.which("strace")):
        return "strace is not on this machine (Debian and Ubuntu: apt-get install strace)"
    done = subprocess.run([tool, "-f", "-o", os.devnull, "true"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"strace may not trace here: {done.stderr.strip()[-200:]}"


def traced_worker(place: Path, inject: str = "") -> tuple[int, str]:
    """The worker by its command, with the light encoder, under strace: its exit status, and the calls in plain text."""
    root, log = host_folder(place).root, place.parent / "strace"
    code = root / "worker" / "canaries.py"
    code.write_text(re.sub(r"^AT_END = .*$", f"AT_END = {AT_END}", code.read_text(), flags=re.MULTILINE))
    argv = ["strace", "-f", "-y", "-s", "8", "-o", str(log), "-e", f"trace={CHANGING}"]
    argv += ["-e", f"inject={inject}"] if inject else []
    argv += [sys.executable, "-B", str(HELPERS / "poison.py"), "-m", "worker", "encode"]
    argv += ["--root", str(root), "--host", HOST, "--slot", SLOT]
    with (place.parent / "log").open("ab") as out:
        done = subprocess.run(argv, cwd=root, stdout=out, stderr=out, stdin=subprocess.DEVNULL, timeout=LIMIT_S)
    return done.returncode, log.read_text(errors="replace")


def traced_calls(place: Path, text: str) -> list[tuple[str, int, str]]:
    """(call, its number among the main thread's calls of that name, line) of each that changes a file in the folder."""
    main, seen, found = text.split(None, 1)[0], {}, []
    for line in text.splitlines():
        match = LINE.match(line)
        if not match or match.group(1) != main:
            continue
        name, rest = match.group(2), match.group(3)
        seen[name] = seen.get(name, 0) + 1
        failed = re.search(r"= -1 E[A-Z]+", rest)
        if failed or str(place) not in rest or (name == "openat" and not re.search(r"O_CREAT|O_TRUNC", rest)):
            continue
        found.append((name, seen[name], rest))
    return found


def strace_points(work: Path, every: int = 1, first: int = 0) -> dict[str, Any]:
    """End a real worker by strace at every changing call of its main thread (or each `every`-th, from `first` on)."""
    stage, truth = set_up("part", work)
    place = stage.fresh(bundle=True)
    code, text = traced_worker(place)
    assert code == 0, f"the undisturbed worker ended with {code}: {(place.parent / 'log').read_text()[-2000:]}"
    calls = traced_calls(place, text)
    bad, tried = [], 0
    for n, (name, number, line) in list(enumerate(calls, 1))[first::every]:
        tried += 1
        again = stage.fresh(bundle=True)
        code, text = traced_worker(again, f"{name}:signal=KILL:when={number}")
        problems = [] if code in (-signal.SIGKILL, 128 + signal.SIGKILL) else [f"not ended: exit status {code}"]
        reached = len(traced_calls(again, text))
        problems += [] if reached == n else [f"ended at changing call {reached}, and not {n}: point missed"]
        acks = [["part", *map(int, rows)] for rows in _said_committed(again.parent / "log")]
        if problems := problems + stage.judge(again, truth, acks):
            bad.append({"scene": "strace", "point": f"before {name} number {number}: {line}", "problems": problems})
    counts = {name: sum(call[0] == name for call in calls) for name in sorted({call[0] for call in calls})}
    return {"scene": "strace", "points": tried, "calls": counts, "bad": bad}


STRACE_KINDS = {
    "openat": ("create", "cut"),
    "write": ("write",),
    "pwrite64": ("write",),
    "fsync": ("sync", "sync_folder"),
    "rename": ("rename",),
}
STRACE_KINDS |= {"unlink": ("unlink",), "mkdir": ("mkdir",), "rmdir": ("rmdir",), "ftruncate": ("cut",)}


def compare(work: Path) -> int:
    """Whether the recorder, in a forked worker, sees the calls that the kernel sees of a real one: each, in order."""
    stage, _ = set_up("part", work)
    ours = [(call.kind, Path(call.path).parent.name) for call in stage.record() if call.kind != "ack"]
    place = stage.fresh(bundle=True)
    _, text = traced_worker(place)
    theirs = traced_calls(place, text)
    for n, ((kind, folder), (name, _, line)) in enumerate(zip(ours, theirs, strict=False), 1):
        if kind not in STRACE_KINDS.get(name, ()) or f"/{folder}/" not in line.replace(">", "/").replace('"', "/"):
            print(f"call {n}: recorded {kind} in {folder}, strace saw {name}({line}")
            return 1
    print(f"calls that change files: {len(ours)} recorded, {len(theirs)} seen by strace")
    return 0 if len(ours) == len(theirs) > 0 else 1


def _said_committed(log: Path) -> list[tuple[str, str]]:
    """The ranges that the worker's log says are committed: said after the commit, so they must be there."""
    return re.findall(r"committed rows (\d+)-(\d+):", log.read_text(errors="replace"))


# -------------------------------------------------------------------------------------------------------------- main


def work_folder() -> tempfile.TemporaryDirectory[str]:
    """In memory where that is possible: a kill, unlike a power cut, leaves what was written, on a disk or not."""
    shared = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="crash-", dir=shared if os.access(shared, os.W_OK) else None)


def show(results: Sequence[dict[str, Any]], as_json: bool, what: str) -> int:
    """Print the figures; give the exit code."""
    bad = [entry for result in results for entry in result["bad"]]
    total = sum(result["points"] for result in results)
    if as_json:
        print(json.dumps({"results": list(results), "points": total, "bad": len(bad)}))
        return 1 if bad else 0
    for result in results:
        counts = ", ".join(f"{count} {kind}" for kind, count in result["calls"].items())
        print(f"{result['scene']:8} {result['points']:5} {what}, {len(result['bad'])} bad; calls: {counts}")
    for entry in bad[:20]:
        print(f"BAD {entry['scene']}, {entry['point']}: {'; '.join(entry['problems'][:4])}")
    print(f"{what}: {total - len(bad)} of {total} recovered, {len(bad)} bad")
    return 1 if bad else 0


def main() -> int:
    """The command line."""
    gc.freeze()  # so that a forked child's collector does not copy what it only looks at
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", choices=SCENES, action="append", help="only this one; may be given again")
    parser.add_argument("--control", choices=CONTROLS, default="", help="break this in the product: must end red")
    parser.add_argument("--fault", choices=("EIO", "ENOSPC"), default="", help="let the call fail instead of the kill")
    parser.add_argument("--strace", action="store_true", help="end a real worker by strace instead")
    parser.add_argument("--every", type=int, default=1, help="only each n-th point (default: all)")
    parser.add_argument("--first", type=int, default=0, help="with --strace: leave out this many points before")
    parser.add_argument("--compare", action="store_true", help="only hold our own count of calls against strace's")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args()
    if (args.strace or args.compare) and (why := strace_works()):
        parser.exit(2, f"{why}\n")
    with work_folder() as folder:
        work = Path(folder)
        if args.compare:
            return compare(work)
        if args.strace:
            return show([strace_points(work, args.every, args.first)], args.json, "crash points")
        names = args.scene or list(SCENES)
        results = [enumerate_scene(name, work, args.control, args.every, args.fault) for name in names]
        return show(results, args.json, "crash points")


if __name__ == "__main__":
    sys.exit(main())

"""The faults: name, numbers in the reliability study's catalogue, weight in the mix, and what each does to a history.

A fault takes a scene and dice and tells what it did; nothing when there was no victim, and then it does not count.
What is damaged is written down, so that the checker does not blame the product for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import processes

if TYPE_CHECKING:
    from .history import Scene
    from .zygote import Ordered

Do = Callable[["Scene", random.Random], str]
DRIVEN = 4  # what a second driver leaves with
EARLIER = "chaos-20200101-000000"  # a run that was finished long ago
ALONE_S = 10.0  # for workers to see that their supervisor is gone


@dataclass(frozen=True)
class Fault:
    """One kind of fault. `idle`: it also has victims when nobody works any more; `early`: before anybody works;
    `late`: it has none before the end.
    """

    name: str
    numbers: tuple[int, ...]
    weight: float
    do: Do
    idle: bool = False
    early: bool = False
    late: bool = False


TABLE: dict[str, Fault] = {}


def fault(
    *numbers: int, weight: float, idle: bool = False, early: bool = False, late: bool = False
) -> Callable[[Do], Do]:
    """Enter a function into the table under its own name."""

    def enter(do: Do) -> Do:
        TABLE[do.__name__] = Fault(do.__name__, numbers, weight, do, idle, early, late)
        return do

    return enter


# --------------------------------------------------------------------------------------------------------- processes


def _kill(victims: Sequence[processes.Process]) -> str:
    hit = [each for each in victims if processes.signal_it(each, signal.SIGKILL)]
    return ", ".join(f"{each.option('--slot') or each.option('--host')} {each.pid}" for each in hit)


@fault(1, 38, weight=40)
def kill_worker(scene: Scene, dice: random.Random) -> str:
    """SIGKILL to a worker."""
    return _kill(scene.some("encode", dice))


@fault(17, 26, weight=7)
def kill_supervisor(scene: Scene, dice: random.Random) -> str:
    """SIGKILL to a supervisor; its workers live on."""
    return _kill(scene.some("supervise", dice))


@fault(17, weight=3)
def kill_host(scene: Scene, dice: random.Random) -> str:
    """SIGKILL to all processes of a host at once."""
    name = dice.choice(scene.names)
    everybody = [each for each in scene.processes() if each.option("--host") == name]
    # The supervisor first, or it starts another worker meanwhile.
    return _kill(sorted(everybody, key=lambda each: each.kind != "supervise"))


@fault(1, weight=2)
def kill_warm(scene: Scene, dice: random.Random) -> str:
    """SIGKILL to the process from which a host's workers are forked; they live on."""
    return _kill(scene.some("warm", dice))


@fault(40, weight=1)
def stop_warm(scene: Scene, dice: random.Random) -> str:
    """SIGSTOP to it, for good; not in its first moments, when it has not asked yet to end with its supervisor."""
    asked = [each for each in scene.some("warm", dice) if processes.ignores(each, signal.SIGINT)]
    hit = [each for each in asked if processes.signal_it(each, signal.SIGSTOP)]
    return ", ".join(f"{each.option('--host')} {each.pid}" for each in hit)


@fault(57, 58, weight=3, early=True)
def kill_driver(scene: Scene, dice: random.Random) -> str:
    """SIGKILL to the operator's process."""
    return scene.kill_driver()


@fault(3, 57, weight=2, early=True)
def kill_driver_torn(scene: Scene, dice: random.Random) -> str:
    """The same, and the last line of its journal is torn."""
    said, run = scene.kill_driver(), scene.run
    if said and run and (run / "journal.jsonl").exists() and not scene.busy_verbs():
        path = run / "journal.jsonl"
        tail = path.read_bytes().splitlines(keepends=True)[-1:]
        if tail and len(tail[0]) > 2:
            os.truncate(path, path.stat().st_size - dice.randrange(1, len(tail[0])))
    return said


@fault(58, weight=1, early=True)
def interrupt_driver(scene: Scene, dice: random.Random) -> str:
    """Ctrl-C."""
    return scene.kill_driver(signal.SIGINT)


@fault(17, 57, weight=1)
def kill_everything(scene: Scene, dice: random.Random) -> str:
    """The driver and all hosts."""
    return " ".join(filter(None, (scene.kill_driver(), _kill(scene.processes()[::-1]))))


@fault(40, weight=3)
def stop_a_while(scene: Scene, dice: random.Random) -> str:
    """SIGSTOP to a worker, a supervisor or the driver, SIGCONT a moment later."""
    victims = [*scene.some(dice.choice(("encode", "supervise")), dice)]
    for each in victims:
        if processes.signal_it(each, signal.SIGSTOP):
            time.sleep(dice.uniform(0.05, 0.3))
            processes.signal_it(each, signal.SIGCONT)
            return f"{each.kind} {each.pid}"
    return ""


@fault(56, weight=1, early=True)
def sleep_driver(scene: Scene, dice: random.Random) -> str:
    """The operator's machine sleeps for a moment."""
    driver = scene.driver
    if driver is None or not scene.signal_driver(signal.SIGSTOP):
        return ""
    time.sleep(dice.uniform(0.1, 0.5))
    scene.signal_driver(signal.SIGCONT)
    return f"driver {driver.pid}"


@fault(15, weight=6)
def second_worker(scene: Scene, dice: random.Random) -> str:
    """Another worker for a slot that has one: it must leave for as long as the first works."""
    first = next((each for each in scene.some("encode", dice) if scene.working(each)), None)
    if first is None or not (second := scene.start_stray(first)):
        return ""
    scene.wait(lambda: scene.reports(first) == second or processes.state_of(second) in ("", "Z"), 20.0)
    if scene.reports(first) == second and scene.goes_on(first):
        scene.blame(f"a second worker of {first.option('--slot')} was let in beside {first.pid}")
    return f"{first.option('--slot')}: {second}"


@fault(15, weight=1)
def stray_worker(scene: Scene, dice: random.Random) -> str:
    """A worker that no supervisor started takes the slot of one that is killed at the same moment."""
    for first in scene.some("encode", dice):
        if processes.signal_it(first, signal.SIGKILL):
            scene.start_stray(first)
            return first.option("--slot")
    return ""


@fault(15, weight=1)
def second_supervisor(scene: Scene, dice: random.Random) -> str:
    """Another supervisor of a host that has one: it must leave."""
    for first in scene.some("supervise", dice):
        started = scene.start_stray(first)
        return f"{first.option('--host')}: {started}" if started else ""
    return ""


@fault(59, weight=1.5, early=True)
def second_driver(scene: Scene, dice: random.Random) -> str:
    """A second operator on the same run: refused for as long as the first is there."""
    first = scene.driver
    if first is None or not scene.holds(first):
        return ""
    second = scene.order("drive")
    while scene.holds(first):
        if (code := scene.wait_end(second, 0.02)) is not None or scene.reached(second, "in"):
            if scene.holds(first) and code != DRIVEN:
                scene.blame(f"a second driver was let in beside {first.pid} (exit {code})")
            break
    if second.over.is_set():
        return f"exit {second.status}"
    scene.adopt(second)
    return "it took over"


def _led(scene: Scene, name: str) -> bool:
    """Whether a host has a supervisor, or nobody who needs one."""
    return scene.supervised(name) or not scene.works(name)


@fault(26, weight=2)
def kill_supervisor_alone(scene: Scene, dice: random.Random) -> str:
    """SIGKILL to a supervisor, and to the driver: its workers must bring another one, while they have work."""
    for first in scene.some("supervise", dice):
        name, driver = first.option("--host"), scene.kill_driver()
        if _kill([first]) and not scene.wait(partial(_led, scene, name), ALONE_S):
            scene.blame(f"the workers of {name} work on for {ALONE_S:g} s without a supervisor")
        return f"{name} {first.pid} {driver}"
    return ""


# ------------------------------------------------------------------------------------------------- requests, records


@fault(58, weight=1)
def ask_restart(scene: Scene, dice: random.Random) -> str:
    """`runbook restart RUN SLOT` beside the driver."""
    slot = f"cluster{dice.randrange(len(scene.names))}_gpu{dice.randrange(scene.slots)}"
    return f"{slot}, exit {scene.wait_end(scene.order('restart', slot), 40.0)}" if scene.roots() else ""


@fault(58, weight=0.7)
def ask_stop(scene: Scene, dice: random.Random) -> str:
    """`runbook stop RUN` beside the driver."""
    return f"exit {scene.wait_end(scene.order('stop'), 60.0)}" if scene.roots() else ""


@fault(58, weight=2)
def restart_file(scene: Scene, dice: random.Random) -> str:
    """A request to start a slot anew, as it lies on the host."""
    for each in scene.some("encode", dice):
        (each.place / "progress" / f"{each.option('--slot')}.restart").write_text('{"restart": true}\n')
        return each.option("--slot")
    return ""


GARBAGE = (b"", b"{", b"\x00" * 64, b'{"exits": 7, "slots": []}', b'{"process": {"pid": 1e999}}', b"[1]", b"\xff\xfe{}",
           b'{"exits": [{"reason": NaN}]}', b'{"rows": "all", "deaths": -1}', b"[" * 5000)  # fmt: skip


@fault(52, weight=3)
def garbage_report(scene: Scene, dice: random.Random) -> str:
    """A report of a worker or a supervisor, or the list of exits, is overwritten with something else."""
    found = [path for root in scene.roots() for path in sorted((root / "progress").glob("*.json"))]
    if not found:
        return ""
    path = dice.choice(found)
    path.write_bytes(dice.choice(GARBAGE))
    return path.name


@fault(52, weight=1.5)
def garbage_assignment(scene: Scene, dice: random.Random) -> str:
    """What a host is to do is overwritten with something else, or gone; sometimes its supervisor dies with it."""
    found = [path for root in scene.roots() for path in sorted((root / "hosts").glob("*.json"))]
    if not found:
        return ""
    path, what = dice.choice(found), dice.choice((*GARBAGE, b'{"slots": [{}]}', b'{"slots": 7}', None))
    if what is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(what)
    return f"{path.name} {kill_supervisor(scene, dice) if dice.random() < 0.4 else ''}"


@fault(43, weight=1)
def stale_suspects(scene: Scene, dice: random.Random) -> str:
    """A list of suspects from long ago, of rows that are somebody else's, or of this very boot."""
    for each in scene.some("encode", dice):
        slot, boot = each.option("--slot"), Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        rows = [dice.randrange(scene.rows) for _ in range(3)]
        value = {"rows": rows, "deaths": 2, "boot": dice.choice((boot, "another"))}
        (each.place / "progress" / f"{slot}.suspects.json").write_text(json.dumps(value))
        return slot + " " + _kill([each])
    return ""


@fault(17, weight=2.5)
def reused_pid(scene: Scene, dice: random.Random) -> str:
    """The pid on file is somebody else's today; then the supervisor is killed, or asked for a new worker."""
    for each in scene.some("encode", dice):
        slot, progress = each.option("--slot"), each.place / "progress"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        victim = {"pid": dice.choice(scene.decoys).pid, "start": "12345", "boot": boot}
        _kill([each])
        (progress / f"{slot}.json").write_text(json.dumps({"process": victim, "state": "running", "slot": slot}))
        (progress / f"{slot}.restart").write_text("{}")
        return f"{slot}: {victim['pid']}"
    return ""


# ------------------------------------------------------------------------------------------------- parts on the host


def _fresh(scene: Scene, dice: random.Random) -> Path | None:
    """The record of a part on a host, rather one that is not home yet."""
    found = [path for root in scene.roots() for path in scene.records(root / "parts")]
    home = scene.home_names()
    away = [path for path in found if path.name not in home]
    return dice.choice(away or found) if found else None


def _damage(path: Path, how: str, dice: random.Random) -> None:
    """Flip a bit, cut off the end, empty or remove a file; by a whole new file, as some disks and some people do."""
    if how == "gone":
        path.unlink(missing_ok=True)
        return
    raw = bytearray(path.read_bytes())
    if how == "flip" and raw:
        raw[dice.randrange(len(raw) * 3 // 4, len(raw))] ^= 1 << dice.randrange(8)
    aside = path.with_name(f".{path.name}.chaos.part")
    aside.write_bytes(raw[: {"cut": len(raw) // 2, "empty": 0}.get(how, len(raw))])
    aside.replace(path)


def _damaging(scene: Scene, dice: random.Random, path: Path | None, suffix: str, how: str) -> str:
    if path is None:
        return ""
    with contextlib.suppress(FileNotFoundError):
        scene.spare(path)
        _damage(path.with_suffix(suffix), how, dice)
        return f"{path.with_suffix(suffix).name} of {path.parents[2].name}"
    return ""


@fault(9, weight=6)
def flip_part(scene: Scene, dice: random.Random) -> str:
    """A bit of an array on a host."""
    return _damaging(scene, dice, _fresh(scene, dice), ".npy", "flip")


@fault(11, weight=3)
def spoil_part(scene: Scene, dice: random.Random) -> str:
    """An array on a host is cut, emptied, or gone."""
    return _damaging(scene, dice, _fresh(scene, dice), ".npy", dice.choice(("cut", "empty", "gone")))


@fault(11, 52, weight=3)
def spoil_record(scene: Scene, dice: random.Random) -> str:
    """A record on a host is flipped, cut, emptied, or gone."""
    return _damaging(scene, dice, _fresh(scene, dice), ".json", dice.choice(("flip", "cut", "empty", "gone")))


def _part(path: Path) -> tuple[dict[str, Any], np.ndarray] | None:
    """Record and vectors of a part; None where another fault was there before."""
    try:
        record, vectors = json.loads(path.read_bytes()), np.load(path.with_suffix(".npy"))
    except (OSError, ValueError, EOFError):
        return None
    return (record, vectors) if isinstance(vectors, np.ndarray) else None


def _npy(vectors: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(vectors))
    return file.getvalue() + vectors.tobytes()


def _plant(scene: Scene, path: Path, record: dict[str, Any], vectors: np.ndarray) -> None:
    """Put another part in the place of this one: whole, and in agreement with its record."""
    _plant_raw(scene, path, record, _npy(np.ascontiguousarray(vectors, np.float32)))


def _plant_raw(scene: Scene, path: Path, record: dict[str, Any], raw: bytes) -> None:
    record = {**record, "sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    scene.spare(path)
    path.unlink(missing_ok=True)
    path.with_suffix(".npy").write_bytes(raw)
    aside = path.with_name(f".{path.name}.chaos.part")
    aside.write_text(json.dumps(record, sort_keys=True))
    aside.replace(path)


EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


@fault(12, weight=2)
def empty_zip(scene: Scene, dice: random.Random) -> str:
    """In the place of an array 22 bytes that numpy opens as an archive of nothing; the record agrees."""
    path = _fresh(scene, dice)
    if path is None or (part := _part(path)) is None:
        return ""
    _plant_raw(scene, path, part[0], EMPTY_ZIP)
    return path.name


@fault(12, weight=2)
def nan_part(scene: Scene, dice: random.Random) -> str:
    """In the place of its vectors an array has NaN; the sums in its record agree."""
    path = _fresh(scene, dice)
    if path is None or (part := _part(path)) is None:
        return ""
    _plant(scene, path, part[0], part[1] * np.float32("nan"))
    return path.name


STRANGE: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "run": lambda record: {**record, "run": "another-run"},
    "corpus": lambda record: {**record, "corpus": "0" * 64},
    "model": lambda record: {**record, "model": {**record["model"], "digest": "0" * 64}},
    "revision": lambda record: {**record, "model": {**record["model"], "revision": "other"}},
    "dtype": lambda record: {**record, "dtype": "float16"},
    "prompt": lambda record: {**record, "prompt": "query: {text}"},
}


def _stranger(scene: Scene, dice: random.Random, path: Path | None) -> str:
    part = _part(path) if path else None
    if path is None or part is None:
        return ""
    record, vectors = part
    what = dice.choice(sorted(STRANGE))
    _plant(scene, path, STRANGE[what](record), -vectors)
    return f"another {what}: {path.name}"


@fault(12, weight=4)
def stranger_part(scene: Scene, dice: random.Random) -> str:
    """A whole part of another run, corpus, model, dtype or prompt under the right name, with other vectors."""
    return _stranger(scene, dice, _fresh(scene, dice))


@fault(12, 16, weight=3)
def misplaced_part(scene: Scene, dice: random.Random) -> str:
    """A whole part of this very run under the name of other rows, its record changed to agree."""
    path, other = _fresh(scene, dice), _fresh(scene, dice)
    if path is None or other is None or path.name == other.name:
        return ""
    if (part := _part(other)) is None:
        return ""
    record, vectors = part
    start, stop = (int(word) for word in path.stem.split("_")[1:])
    if len(vectors) != stop - start:
        return ""
    _plant(scene, path, {**record, "start": start, "stop": stop, "truncated": [], "redone_float32": []}, vectors)
    return f"{other.name} as {path.name}"


@fault(2, weight=2, idle=True)
def leave_temporary(scene: Scene, dice: random.Random) -> str:
    """Temporary files of somebody who was killed, on a host and at home."""
    for root in [*scene.roots(), *([scene.run] if scene.run else [])]:
        name = f".rows_{dice.randrange(scene.rows):09d}_{scene.rows:09d}.npy.{dice.randrange(16**8):08x}.part"
        for folder in (root / "parts", root / "incoming" / "one"):
            if folder.is_dir():
                (folder / name).write_bytes(b"half of a part")
    return "some" if scene.roots() else ""


# ------------------------------------------------------------------------------------------- what a host has or lacks


@fault(5, 6, weight=2)
def full_disk(scene: Scene, dice: random.Random) -> str:
    """The files of a worker may not grow any more."""
    return scene.tell_a_worker("small", dice)


@fault(8, weight=1)
def parts_no_folder(scene: Scene, dice: random.Random) -> str:
    """Where the parts were, there is a file for a moment: nothing can be read or written there."""
    roots = [root for root in scene.roots() if (root / "parts").is_dir()]
    if not roots:
        return ""
    parts = dice.choice(roots) / "parts"
    with scene.aside(parts):
        with contextlib.suppress(OSError):
            parts.write_bytes(b"")
        time.sleep(dice.uniform(0.05, 0.3))
    return parts.parents[1].name


@fault(8, weight=1)
def host_folder_gone(scene: Scene, dice: random.Random) -> str:
    """The run's folder on a host goes (unmounted) and comes back."""
    if not (roots := scene.roots()):
        return ""
    root = dice.choice(roots)
    with scene.aside(root):
        time.sleep(dice.uniform(0.1, 0.6))
    return root.parent.name


@fault(14, weight=2)
def damage_shard(scene: Scene, dice: random.Random) -> str:
    """A text in a shard file on a host is another one; still well-formed, and of the same length."""
    found = [path for root in scene.roots() for path in sorted((root / "shards").glob("*.jsonl"))]
    if not found:
        return ""
    path = dice.choice(found)
    lines = path.read_bytes().split(b"\n")
    for at in range(0, len(lines), 2):
        lines[at] = lines[at].replace(b"word", b"WORD")
    aside = path.with_name(f".{path.name}.chaos.part")
    aside.write_bytes(b"\n".join(lines))
    aside.replace(path)
    return path.name + " " + _kill([p for p in scene.processes() if p.option("--slot") and p.place in path.parents])


@fault(14, weight=0.5)
def shard_gone(scene: Scene, dice: random.Random) -> str:
    """A shard file on a host is gone."""
    found = [path for root in scene.roots() for path in sorted((root / "shards").glob("*.jsonl"))]
    if not found:
        return ""
    path = dice.choice(found)
    path.unlink(missing_ok=True)
    return path.name + " " + _kill([p for p in scene.processes() if p.option("--slot") and p.place in path.parents])


def _edit(scene: Scene, dice: random.Random, name: str) -> str:
    found = [root / "worker" / name for root in scene.roots() if (root / "worker" / name).exists()]
    if not found:
        return ""
    path = dice.choice(found)
    path.write_bytes(b"raise SystemExit('edited')\n" + path.read_bytes())
    return path.parents[2].name


@fault(64, weight=0.7)
def edit_code(scene: Scene, dice: random.Random) -> str:
    """The worker's code on a host is not what was sent: whoever encodes ends at once."""
    return _edit(scene, dice, "batches.py")


@fault(64, weight=1)
def edit_supervisor(scene: Scene, dice: random.Random) -> str:
    """The same of the supervisor's code; with its death the host has nobody who could start."""
    return " ".join(filter(None, (_edit(scene, dice, "supervise.py"), kill_supervisor(scene, dice))))


# ------------------------------------------------------------------------------------------------------- the encoder


@fault(41, 42, weight=2)
def nan_vector(scene: Scene, dice: random.Random) -> str:
    """A vector comes out as NaN once."""
    return scene.tell_a_worker("nan", dice)


@fault(43, 37, weight=2)
def crash_in_batch(scene: Scene, dice: random.Random) -> str:
    """A batch ends its worker once."""
    return scene.tell_a_worker("crash", dice)


@fault(40, weight=0.4)
def hang_in_batch(scene: Scene, dice: random.Random) -> str:
    """A worker stops for ever in a batch."""
    return scene.tell_a_worker("hang", dice)


def _device(scene: Scene, dice: random.Random, mode: str) -> str:
    """One device of the history behaves like this for good: its rows are for the others to do."""
    if any((scene.root_of(name) / "modes.json").exists() for name in scene.names):
        return ""
    number = dice.randrange(len(scene.names))
    slot = f"cluster{number}_gpu{dice.randrange(scene.slots)}"
    (scene.root_of(scene.names[number]) / "modes.json").write_text(json.dumps({slot: mode}))
    victims = [each for each in scene.processes() if each.option("--slot") == slot]
    return f"{slot} {_kill(victims) if mode == 'hang-load' else ''}"


@fault(41, 42, weight=1)
def nan_device(scene: Scene, dice: random.Random) -> str:
    """A device gives NaN for whatever it is asked, from now on."""
    return _device(scene, dice, "nan")


@fault(40, weight=1)
def hanging_load(scene: Scene, dice: random.Random) -> str:
    """On a device a model never loads, from now on."""
    return _device(scene, dice, "hang-load")


# ---------------------------------------------------------------------------------------------------------- at home


def _at_home(scene: Scene, dice: random.Random) -> Path | None:
    found = scene.records(scene.run / "parts") if scene.run else []
    return dice.choice(found) if found else None


@fault(10, weight=2, idle=True)
def flip_home(scene: Scene, dice: random.Random) -> str:
    """A bit of an array that came home."""
    return _damaging(scene, dice, _at_home(scene, dice), ".npy", "flip")


@fault(10, 11, weight=1.5, idle=True)
def spoil_home(scene: Scene, dice: random.Random) -> str:
    """An array or a record at home is cut, emptied, or gone."""
    suffix, how = dice.choice((".npy", ".json")), dice.choice(("cut", "empty", "gone"))
    return _damaging(scene, dice, _at_home(scene, dice), suffix, how)


@fault(12, weight=1, idle=True)
def stranger_home(scene: Scene, dice: random.Random) -> str:
    """A part of another run, corpus, model, dtype or prompt under the right name at home."""
    return _stranger(scene, dice, _at_home(scene, dice))


@fault(10, weight=1.5, idle=True, late=True)
def harm_before_merge(scene: Scene, dice: random.Random) -> str:
    """Parts at home are flipped or gone between their coming and the merge."""
    hold = scene.folder / "hold"
    hold.touch()
    try:
        driver = _collected(scene)
        path = _at_home(scene, dice) if driver else None
        if driver is None or path is None:
            return ""
        how = dice.choice(("flip", "gone"))
        if how == "gone":
            _damage(path, how, dice)
        said = _damaging(scene, dice, path, ".npy", how)
    finally:
        hold.unlink(missing_ok=True)
    scene.wait_end(driver, 60.0)
    return f"{said}: {how}"


def _collected(scene: Scene) -> Ordered | None:
    """A driver that has collected and does not merge yet."""
    for _ in range(5):
        driver = scene.driver or scene.run_again()
        scene.wait(lambda driver=driver: scene.phase(driver) == "collected" or driver.over.is_set(), 60.0)
        if not driver.over.is_set():
            return driver
    return None


@fault(13, weight=1, idle=True)
def edit_corpus(scene: Scene, dice: random.Random) -> str:
    """Two documents of the source change places; whoever starts meanwhile must refuse; then they are put back."""
    source, run = scene.folder / "corpus.jsonl", scene.run
    if run is None or not (run / "corpus" / "corpus.json").exists():
        return ""
    before = source.read_bytes()
    lines = before.splitlines(keepends=True)
    at = dice.randrange(len(lines) - 1)
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    scene.kill_driver()
    source.write_bytes(b"".join(lines))
    try:
        meanwhile = scene.order("drive")
        scene.wait(lambda: scene.reached(meanwhile, "planned") or scene.ended(meanwhile) is not None, 30.0)
        if scene.reached(meanwhile, "planned"):
            scene.blame("a corpus that changed was not refused")
            scene.kill(meanwhile)
    finally:
        source.write_bytes(before)
    scene.wait_end(meanwhile, 30.0)
    return f"documents {at} and {at + 1}"


@fault(10, weight=1, idle=True, late=True)
def lose_result(scene: Scene, dice: random.Random) -> str:
    """A file of the result is gone after all was well."""
    if driver := scene.driver:
        scene.wait_end(driver, 60.0)
    if (run := scene.run) is None:
        return ""
    found = [run / "merged" / name for name in ("embeddings.npy", "articles.jsonl")]
    found = [path for path in [*found, scene.founding, *scene.records(run / "parts")[:1]] if path.exists()]
    if not found:
        return ""
    path = dice.choice(found)
    path.unlink()
    scene.judged = True
    return path.name


@fault(58, weight=1.5, early=True)
def edit_profile(scene: Scene, dice: random.Random) -> str:
    """The operator edits what cannot change a vector, and gives the same command again: the same run goes on."""
    path = scene.folder / "profile.yaml"
    aside = path.with_name(f".{path.name}.edited")
    key = dice.choice(("slow_rows_per_s", "deadline_s", "stuck_s"))
    text = re.sub(rf", {key}: [0-9]+", "", path.read_text())
    text = text.replace("interval_s: 0.1", f"interval_s: 0.1, {key}: {dice.randint(500, 900)}")
    aside.write_text(text)
    aside.replace(path)
    scene.kill_driver()
    return key


@fault(60, weight=1, early=True)
def stale_clock(scene: Scene, dice: random.Random) -> str:
    """The clock was ahead when an earlier run of this profile ended: this one is not the latest by any date."""
    earlier = scene.folder / "runs" / EARLIER
    if not earlier.is_dir():
        return ""
    at = time.time() + dice.choice((3600, 86400, 10 * 365 * 86400))
    for path in (*earlier.rglob("*"), earlier):
        os.utime(path, (at, at))
    return scene.kill_driver() or "nobody drives"


@fault(10, weight=0.5, idle=True, late=True)
def flip_merged(scene: Scene, dice: random.Random) -> str:
    """A bit of the merged matrix."""
    path = scene.run / "merged" / "embeddings.npy" if scene.run else None
    if path is None or not path.exists() or scene.driver is not None:
        return ""
    _damage(path, "flip", dice)
    scene.judged = True
    return path.name

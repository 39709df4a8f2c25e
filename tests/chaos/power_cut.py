"""Cut the power, in thought, at every moment of what the product does to files, and look whether it recovers.

    python tests/chaos/power_cut.py --states 2000 --seed 1      two thousand different states, over all scenes
    python tests/chaos/power_cut.py --scene journal             one of: part, journal, new-run, landing, plan
    python tests/chaos/power_cut.py --control folder-fsync      break the product on purpose: the verdict must be red

The calls of an undisturbed run are recorded with their data (crash_points.py has the scenes). A state is what a disk
may hold when the power goes after call k. What a disk may do is taken wider than what any one file system does:

    a file's bytes   as of its last fsync for certain; what was written or cut after it is lost, kept, kept in front,
                     zeros of the right length, or a mixture of new, old and zero sectors of 512 bytes
    a name           made, moved or removed: for certain once its own folder was fsynced; before that undone or kept,
                     each by itself, so in any order. A file moved to another folder may stand under both names
    a folder         is a name too: lost with all that is in it, as long as the folder above was not fsynced

Each state is laid out in a folder and checked, the product is started again as after a reboot, and it is checked again
by code that shares nothing with the product. What had been acknowledged before k must be there. The last line has the
figures; the exit code is 0 when no state was bad. A bad state is printed with scene, seed and number, to be made again.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crash_points import CONTROLS, SCENES, Stage, Truth, set_up, show, work_folder
from recorder import Call

SECTOR = 512
ENDINGS = ("lost", "kept", "front", "zeros", "sectors")
ORDERS = ("lost", "kept", "each", "front")
TRIES = 300  # draws in a row that give no new state: then there are no more of this scene, or too few to wait for

Tree = dict[str, bytes | None]  # name -> bytes; None for a folder


@dataclass(frozen=True)
class Disk:
    """The first state and the calls after it: what may be on the disk at any moment."""

    first: Tree
    calls: Sequence[Call]

    @classmethod
    def of(cls, stage: Stage) -> Disk:
        """Record a scene."""
        place = stage.fresh()
        first: Tree = {
            str(path.relative_to(place)): None if path.is_dir() else path.read_bytes()
            for path in sorted(place.rglob("*"))
        }
        return cls(first, stage.record())

    def state(self, cut: int, draw: random.Random, order: str, ending: str) -> Tree:
        """A state when the power goes after `cut` calls; `order` and `ending` say how names and bytes fare."""
        done = self.calls[:cut]
        numbers = {name: n for n, name in enumerate(files_first(self.first), 1)}
        names: dict[str, int | None] = {name: numbers.get(name) for name in self.first}
        known = {n: self.first[name] for name, n in numbers.items()}
        for kept in self._names_kept(done, draw, order):
            _apply(names, kept)
        found: Tree = {}
        for name, number in sorted(names.items()):
            above = str(Path(name).parent)
            if above == "." or (above in found and found[above] is None):
                found[name] = None if number is None else self._bytes(done, number, known, draw, ending)
        return found

    def _names_kept(self, done: Sequence[Call], draw: random.Random, order: str) -> Iterator[tuple[Call, bool]]:
        """The calls on names that reached the disk, each with whether a moved file's old name is gone there."""
        loose = [n for n, call in enumerate(done) if call.kind in NAMING and not _pinned(done, n, _home(call))]
        front = draw.randint(0, len(loose))
        kept = {
            n
            for at, n in enumerate(loose)
            if order == "kept" or (order == "each" and draw.random() < 0.5) or (order == "front" and at < front)
        }
        for n, call in enumerate(done):
            if call.kind in NAMING and (n in kept or n not in loose):
                same = Path(call.path).parent == Path(call.target).parent
                gone = same or _pinned(done, n, str(Path(call.path).parent)) or order != "each" or draw.random() < 0.5
                yield call, gone

    @staticmethod
    def _bytes(
        done: Sequence[Call], number: int, known: dict[int, bytes | None], draw: random.Random, ending: str
    ) -> bytes:
        """The bytes of a file: as of its last fsync, then whatever became of the rest."""
        own = [call for call in done if call.file == number and call.kind in ("write", "cut", "sync")]
        last = max((n for n, call in enumerate(own) if call.kind == "sync"), default=-1)
        safe = _written(known.get(number) or b"", own[: last + 1])
        late = [call for call in own[last + 1 :] if call.kind != "sync"]
        if not late:
            return safe
        how = draw.choice(ENDINGS) if ending == "any" else ending
        return _torn(safe, late, how, draw)


def files_first(first: Tree) -> list[str]:
    """The files of the first state, in the order in which the recorder numbers them."""
    return sorted(name for name, raw in first.items() if raw is not None)


NAMING = ("create", "mkdir", "rename", "unlink", "rmdir")


def _home(call: Call) -> str:
    """The folder that has to be fsynced for the call to be certain."""
    return str(Path(call.target or call.path).parent)


def _pinned(done: Sequence[Call], n: int, folder: str) -> bool:
    return any(later.kind == "sync_folder" and later.path == folder for later in done[n + 1 :])


def _apply(names: dict[str, int | None], kept: tuple[Call, bool]) -> None:
    call, gone = kept
    if call.kind == "create":
        names[call.path] = call.file
    elif call.kind == "mkdir":
        names[call.path] = None
    elif call.kind == "rename":
        names[call.target] = call.file
        if gone and names.get(call.path) == call.file:
            del names[call.path]
    else:
        names.pop(call.path, None)


def _written(raw: bytes, calls: Sequence[Call]) -> bytes:
    for call in calls:
        if call.kind == "write":
            raw = raw[: call.offset].ljust(call.offset, b"\0") + call.data + raw[call.offset + len(call.data) :]
        elif call.kind == "cut":
            raw = raw[: call.offset].ljust(call.offset, b"\0")
    return raw


def _torn(safe: bytes, late: Sequence[Call], how: str, draw: random.Random) -> bytes:
    """What may be left of writes that nobody waited for."""
    full = _written(safe, late)
    low = min(call.offset for call in late)
    if how == "lost":
        return safe
    if how == "kept":
        return full
    if how == "front":  # some of the calls, the last of them not whole
        first = late[: draw.randint(0, len(late) - 1) + 1]
        before, end = _written(safe, first[:-1]), first[-1]
        if end.kind != "write":
            return before
        size = draw.choice([draw.randint(0, len(end.data)), len(end.data) // 2, len(end.data) - 1])
        return _written(before, [Call("write", end.path, end.file, end.offset, end.data[:size])])
    if how == "zeros":  # the length came through, the bytes did not
        return full[:low] + bytes(len(full) - low)
    mixed = bytearray(draw.choice([full, full, safe]))
    for start in range(low // SECTOR * SECTOR, len(mixed), SECTOR):
        source = draw.choice([full, safe, b""])
        for at in range(max(start, low), min(start + SECTOR, len(mixed))):
            mixed[at] = source[at] if at < len(source) else 0
    return bytes(mixed)


def acked(calls: Sequence[Call]) -> list[list[Any]]:
    """What had been acknowledged."""
    return [list(call.said) for call in calls if call.kind == "ack"]


def lay_out(tree: Tree, place: Path) -> None:
    """Make a state's folders and files."""
    place.mkdir()
    for name, raw in tree.items():  # sorted: a folder before what is in it
        if raw is None:
            (place / name).mkdir(mode=0o700)
        else:
            (place / name).write_bytes(raw)
            (place / name).chmod(0o600)


def states(disk: Disk, seed: str) -> Iterator[tuple[int, Tree]]:
    """Different states without end: the plain ones of each moment first, then drawn ones. Equal ones come once."""
    draw, seen, in_vain = random.Random(seed), set(), 0
    plain = [(k, order, ending) for k in range(len(disk.calls) + 1) for order, ending in PLAIN]
    draw.shuffle(plain)
    while in_vain < TRIES:
        if plain:
            cut, order, ending = plain.pop()
        else:
            cut, order, ending = draw.randint(1, len(disk.calls)), draw.choice(ORDERS), "any"
        tree = disk.state(cut, draw, order, ending)
        key = hashlib.sha256(repr((sorted(tree.items()), acked(disk.calls[:cut]))).encode()).digest()
        in_vain = 0 if key not in seen or plain else in_vain + 1
        if key not in seen:
            seen.add(key)
            yield cut, tree


PLAIN = [("lost", "lost"), ("kept", "lost"), ("kept", "zeros"), ("lost", "kept")]


def judge(stage: Stage, truth: Truth, disk: Disk, cut: int, tree: Tree) -> list[str]:
    """What is wrong with one state."""
    place = stage.place()
    lay_out(tree, place)
    return stage.judge(place, truth, acked(disk.calls[:cut]), rebooted=True)


def cut_scenes(names: Sequence[str], work: Path, wanted: int, seed: int, control: str = "") -> list[dict[str, Any]]:
    """Judge `wanted` different states over these scenes in turn; fewer where there are no more."""
    stages, results = {}, {}
    for name in names:
        stage, truth = set_up(name, work, control)
        disk = Disk.of(stage)
        stages[name] = (stage, truth, disk, states(disk, f"{seed} {name}"))
        results[name] = {"scene": name, "points": 0, "calls": {"recorded": len(disk.calls)}, "bad": []}
    open_ones = list(names)
    while open_ones and sum(result["points"] for result in results.values()) < wanted:
        name = open_ones.pop(0)
        stage, truth, disk, more = stages[name]
        if (found := next(more, None)) is None:
            continue
        open_ones.append(name)
        cut, tree = found
        result = results[name]
        result["points"] += 1
        if problems := judge(stage, truth, disk, cut, tree):
            last = next((call for call in reversed(disk.calls[:cut]) if call.kind != "ack"), None)
            where = f"seed {seed}, state {result['points']}: after call {cut}"
            where += f" ({last.kind} {last.target or last.path})" if last else ""
            result["bad"].append({"scene": name, "point": where, "problems": problems})
    return list(results.values())


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=1000, help="how many different states in all (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="which of them (default: 1)")
    parser.add_argument("--scene", choices=SCENES, action="append", help="only this one; may be given again")
    parser.add_argument("--control", choices=CONTROLS, default="", help="break this in the product: must end red")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args()
    with work_folder() as folder:
        results = cut_scenes(args.scene or list(SCENES), Path(folder), args.states, args.seed, args.control)
        return show(results, args.json, f"power-cut states (seed {args.seed})")


if __name__ == "__main__":
    sys.exit(main())

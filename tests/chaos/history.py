"""A history: from a seed a corpus, two hosts of two slots, and faults at moments; played against real processes.

The only thing that the operator in it ever does is to give the same command again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runbook_lib.profile import profile
from runbook_lib.run import opening, run

from . import checker, network, processes, real
from .driver import CRASHED, DONE
from .faults import EARLIER, TABLE
from .machines import Machines
from .zygote import Ordered, Zygote

NAMES, SLOTS = ("one", "two"), 2
WORDS = ("lake", "iron", "sonnet", "comet", "ferry", "violin", "glacier", "lantern", "cactus", "harbour", "quartz")
RUNS_TO_END = 8  # how often the command may be given after the last fault
SETTLE_S = 30.0  # for the last supervisors to see that all is done
LOSES_PARTS = {"host_folder_gone": 60, "parts_no_folder": 20, "spoil_record": 4, "edit_code": 4, "reboot": 4}
MOVES = ("long_silence", "power_off", "power_off_and_cut")  # all that is not home yet may be done elsewhere


@dataclass(frozen=True)
class Size:
    """How large a history is; a part takes `pace_s`, and a driver that takes `patience_s` without a fault hangs."""

    rows: int = 1536
    part_rows: int = 16
    faults: int = 36
    gap_s: float = 0.08
    pace_s: float = 0.06
    patience_s: float = 120.0
    tier: str = "A"  # from B on the hosts are reached over SSH, in C the model is real

    @property
    def weights(self) -> dict[str, float]:
        """The mix of this tier: how often a fault comes, against the others."""
        table = {name: fault.weight for name, fault in TABLE.items()}
        return {"A": table, "B": table | network.WEIGHTS, "C": network.REAL}[self.tier]


SIZES = {
    "A": Size(),
    "B": Size(tier="B"),
    "C": Size(rows=2000, faults=10, gap_s=5.0, patience_s=400.0, tier="C"),
}


@dataclass(frozen=True)
class Event:
    """A fault, so long after the one before; `pick` chooses its victim, whatever became of the others."""

    gap_s: float
    fault: str
    pick: int


@dataclass(frozen=True)
class History:
    """What is played: all of it follows from the seed, but for who is hit, which the moment decides."""

    seed: int
    size: Size
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Outcome:
    """How it ended."""

    history: History
    verdict: checker.Verdict
    done: tuple[tuple[float, str, str], ...]
    runs: int
    wall_s: float
    folder: Path

    @property
    def ok(self) -> bool:
        """Whether every promise held."""
        return self.verdict.ok


def make(seed: int, size: Size | None = None, mix: Mapping[str, float] | None = None) -> History:
    """The history of a seed. `mix`: fault -> weight, where it is not the table's."""
    size, dice = size or Size(), random.Random(seed)
    weights = mix or size.weights
    names = dice.choices(list(weights), list(weights.values()), k=size.faults)
    names.sort(key=lambda name: TABLE[name].late)
    events = [Event(round(dice.expovariate(1 / size.gap_s), 3), name, dice.randrange(2**32)) for name in names]
    return History(seed, size, tuple(events))


def texts_of(seed: int, rows: int) -> list[str]:
    """Texts, all different, of a few lengths."""
    dice = random.Random(f"texts {seed}")
    return [f"{row} word " + " ".join(dice.choices(WORDS, k=dice.choice((3, 3, 3, 9)))) for row in range(rows)]


def lay_out(folder: Path, history: History, texts: list[str], weak: str, machines: Machines | None) -> None:
    """The operator's folder: corpus, model, profile, and the script that stands in for the hosts' Python."""
    lines = [json.dumps({"id": f"d{row}", "title": f"T{row}", "text": text}) for row, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("".join(line + "\n" for line in lines))
    if history.size.tier == "C":
        python, model = Path(sys.executable), f"name: {real.MODEL}"
    else:
        python, model = _stand_in(folder, history, weak), "name: ./model, prompt: '', question_prompt: ''"
    ways = {
        name: f"kind: ssh, credentials: {machines.hosts[name].credentials}" if machines else "kind: local"
        for name in NAMES
    }
    hosts = "".join(
        f"  - {{name: {name}, {way}, slots: {SLOTS}, device: cpu, threads: 1, "
        f"workdir: {folder / 'hosts' / name}, environment: {python}}}\n"
        for name, way in ways.items()
    )
    silent = f", unreachable_s: {network.SILENT_S}" if machines else ""
    (folder / "profile.yaml").write_text(
        f"run: chaos\ncorpus: {{path: corpus.jsonl}}\nmodel: {{{model}}}\n"
        f"part_rows: {history.size.part_rows}\nmonitor: {{interval_s: 0.1, first_progress_s: 6{silent}}}\n"
        f"hosts:\n{hosts}"
    )


def _stand_in(folder: Path, history: History, weak: str) -> Path:
    """What the hosts of tiers A and B have as their Python, and a model that needs no torch."""
    write_model(folder / "model")
    python = folder / "python"
    words = [sys.executable, "-B", "-I", "-S", Path(__file__).with_name("host_python.py"), Path(np.__file__).parents[1]]
    quoted = " ".join(f"'{word}'" for word in [*words, history.size.pace_s, weak])
    python.write_text(f'#!/bin/sh\ncase "$1" in -m) exec {quoted} "$@";; *) exec \'{sys.executable}\' "$@";; esac\n')
    python.chmod(0o755)
    return python


def write_model(folder: Path) -> None:
    """The files of a model as far as they are read without torch."""
    kinds = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    files = {
        "modules.json": [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds],
        "1_Pooling/config.json": {"word_embedding_dimension": 32},
        "config.json": {"model_type": "bert", "max_position_embeddings": 512},
        "sentence_bert_config.json": {"max_seq_length": 64},
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    (folder / "model.safetensors").write_bytes(b"weights")


# -------------------------------------------------------------------------------------------------------- the scene


@dataclass
class Scene:
    """A history while it is played: where everything is, who lives, what was done. Faults act on it."""

    folder: Path
    history: History
    zygote: Zygote
    weak: str = "-"
    machines: Machines | None = None  # where hosts are reached over SSH
    names: tuple[str, ...] = NAMES
    slots: int = SLOTS
    done: list[tuple[float, str, str]] = field(default_factory=list)
    blames: list[str] = field(default_factory=list)
    runs: int = 0
    began: float = field(default_factory=time.monotonic)
    _driver: Ordered | None = None
    _killed: set[int] = field(default_factory=set)
    _orders: list[Ordered] = field(default_factory=list)
    _strays: list[subprocess.Popen[bytes]] = field(default_factory=list)
    spared: dict[Path, set[str]] = field(default_factory=dict)
    decoys: list[subprocess.Popen[bytes]] = field(default_factory=list)
    sums: dict[Path, str] = field(default_factory=dict)
    losses: int = 0
    judged: bool = False  # the last end of a driver
    texts: list[str] = field(default_factory=list)
    wanted: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))  # the vectors of the texts

    # ------------------------------------------------------------------------------------------------ where things are

    @property
    def rows(self) -> int:
        """Rows of the corpus."""
        return self.history.size.rows

    @property
    def run(self) -> Path | None:
        """The run's folder, once there is one."""
        return max(self.folders(), default=None)

    def folders(self) -> list[Path]:
        """The folders of runs that were begun in this history."""
        found = [path.parent for path in (self.folder / "runs").glob("chaos-*/profile.yaml")]
        return [path for path in found if path.name != EARLIER]

    @property
    def founding(self) -> Path:
        """The result as one pickle."""
        return self.folder / "embeddings" / "chaos_merged.pkl"

    def supervised(self, name: str) -> bool:
        """Whether a host has a supervisor."""
        return any(each.kind == "supervise" and each.option("--host") == name for each in self.processes())

    def works(self, name: str) -> bool:
        """Whether a host has a worker that can do something: one that hangs cannot."""
        workers = [each for each in self.processes() if each.kind == "encode" and each.option("--host") == name]
        return any(processes.state_of(each.pid) != "T" for each in workers)

    def root_of(self, name: str) -> Path:
        """The runs' folder of a host."""
        return self.folder / "hosts" / name

    def epoch(self) -> int:
        """The number of the plan's revision; 0 without one."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads((self.run / "plan.json").read_bytes())["epoch"])
        return 0

    def roots(self) -> list[Path]:
        """The run's folder on each host that has one."""
        run = self.run
        found = [self.root_of(name) / run.name for name in self.names] if run else []
        return [root for root in found if root.is_dir()]

    def records(self, parts: Path) -> list[Path]:
        """The records in a folder of parts, the newest last."""
        found = []
        with contextlib.suppress(OSError):
            for path in parts.iterdir():
                if checker.PART.fullmatch(path.name):
                    with contextlib.suppress(OSError):
                        found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]

    def home_names(self) -> set[str]:
        """Names of the records that are home."""
        return {path.name for path in self.records(self.run / "parts")} if self.run else set()

    def spare(self, path: Path) -> None:
        """This part is damaged by us: nobody is to blame for what it is."""
        self.spared.setdefault(path.parent, set()).add(path.stem)

    def blame(self, what: str) -> None:
        """A promise that did not hold."""
        self.blames.append(what)

    @contextlib.contextmanager
    def aside(self, path: Path) -> Iterator[None]:
        """Take a folder away for a while; what takes its place meanwhile is gone when it is back."""
        away = path.with_name(f"{path.name}.away")
        path.rename(away)
        try:
            yield
        finally:
            while True:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                with contextlib.suppress(OSError):  # somebody may be writing into it at this moment
                    path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    away.rename(path)
                    break

    # ------------------------------------------------------------------------------------------------------ who lives

    def processes(self) -> list[processes.Process]:
        """Workers and supervisors of this history."""
        return processes.working_in(self.folder / "hosts")

    def some(self, kind: str, dice: random.Random) -> list[processes.Process]:
        """One process of a kind that lives, waiting a moment for one where somebody should work."""
        found: list[processes.Process] = []

        def look() -> bool:
            found[:] = [each for each in self.processes() if each.kind == kind]
            return bool(found) or self.finished()

        self.wait(look, 1.0)
        return [dice.choice(found)] if found else []

    def working(self, process: processes.Process) -> str | None:
        """Since when this process works on its slot, by its own word; None when it does not at this moment."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            path = process.place / "progress" / f"{process.option('--slot')}.json"
            report = json.loads(path.read_bytes())
            alive = processes.start_of(process.pid) == report["process"]["start"]
            if alive and report["process"]["pid"] == process.pid and report["state"] == "running":
                return str(report["process"]["start"])
        return None

    def reports(self, process: processes.Process) -> int:
        """The pid that the report of this worker's slot names; 0 where it names none."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            path = process.place / "progress" / f"{process.option('--slot')}.json"
            return int(json.loads(path.read_bytes())["process"]["pid"])
        return 0

    def goes_on(self, process: processes.Process) -> bool:
        """Whether this worker computes another part from now on."""
        log = process.place / "encoded.log"
        before = checker.parts_of(log, process.pid)
        return self.wait(lambda: checker.parts_of(log, process.pid) > before, 3.0)

    def start_stray(self, like: processes.Process) -> int:
        """Start a process as that one was started, by nobody's order; gives its pid."""
        with contextlib.suppress(OSError):
            child = subprocess.Popen(
                like.words, cwd=like.place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            self._strays.append(child)
            return child.pid
        return 0

    def tell_a_worker(self, what: str, dice: random.Random) -> str:
        """Leave an order to the next worker of a host that computes (see host_python.py)."""
        found = self.some("encode", dice)
        for each in found:
            with contextlib.suppress(OSError):
                (each.place / f"chaos.{what}").touch()
                return each.place.parent.name
        return ""

    # ----------------------------------------------------------------------------------------------------- the driver

    @property
    def driver(self) -> Ordered | None:
        """The operator's process while it lives."""
        return self._driver if self._driver and not self._driver.over.is_set() else None

    def order(self, do: str, *words: str) -> Ordered:
        """Give a command of the operator's."""
        made = self.zygote.order(self.folder, do, *words, broken=self.weak)
        self._orders.append(made)
        return made

    def run_again(self) -> Ordered:
        """What the operator does."""
        self._judge_end()
        self.runs += 1
        self.judged = False
        self._driver = self.order("chain" if self.history.size.tier == "C" else "drive")
        return self._driver

    def adopt(self, order: Ordered) -> None:
        """Another process is the driver from now on."""
        self._driver = order

    def busy_verbs(self) -> bool:
        """Whether other commands of the operator's are under way."""
        return any(not each.over.is_set() for each in self._orders)

    def signal_driver(self, signum: int) -> bool:
        """Signal the driver."""
        driver = self.driver
        words = processes.words_of(driver.pid) if driver else ()
        return bool(driver and words and processes.signal_it(processes.Process(driver.pid, words), signum))

    def kill_driver(self, signum: int = signal.SIGKILL) -> str:
        """Kill the driver and see it gone."""
        driver = self.driver
        if driver is None or not self.signal_driver(signum):
            return ""
        self._killed.add(driver.pid)
        driver.over.wait(60)
        return f"driver {driver.pid} in {self.phase(driver) or 'its beginning'}"

    def kill(self, order: Ordered) -> None:
        """Kill another process of the operator's."""
        self._killed.add(order.pid)
        words = processes.words_of(order.pid)
        if words:
            processes.signal_it(processes.Process(order.pid, words), signal.SIGKILL)

    def phases(self, order: Ordered) -> list[str]:
        """How far a driver came, by its own word."""
        found = []
        with contextlib.suppress(OSError):
            for line in (self.folder / "drivers.log").read_text().splitlines():
                with contextlib.suppress(ValueError):
                    said = json.loads(line)
                    if said["pid"] == order.pid:
                        found.append(said["phase"])
        return found

    def phase(self, order: Ordered | None = None) -> str:
        """The last phase of a driver, or of the present one."""
        order = order or self.driver
        return (self.phases(order) or [""])[-1] if order else ""

    def reached(self, order: Ordered, phase: str) -> bool:
        """Whether a driver came so far."""
        return phase in self.phases(order)

    def holds(self, order: Ordered) -> bool:
        """Whether this driver has the run for itself at this moment."""
        said = self.phases(order)
        return "in" in said and "merged" not in said and processes.state_of(order.pid) not in ("", "Z")

    def ended(self, order: Ordered) -> int | None:
        """The exit status of a process that ended."""
        return order.status if order.over.is_set() else None

    def wait_end(self, order: Ordered, within_s: float) -> int | None:
        """Wait for a process to end and give its status; None when it takes longer."""
        order.over.wait(within_s)
        return self.ended(order)

    def wait(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Wait until something holds; False when it takes too long."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def finished(self) -> bool:
        """Whether the last driver ended well, and nobody works any more."""
        ended = self._driver is not None and self.ended(self._driver) == DONE
        return ended and not self.processes()

    # ------------------------------------------------------------------------------------------------------- the play

    def prepare(self) -> None:
        """Put somebody else's processes and files beside the run's."""
        for name in self.names:
            mine = self.root_of(name) / "somebody-else" / "parts" / "rows_000000000_000000016.npy"
            mine.parent.mkdir(parents=True)
            for path in (mine, mine.with_suffix(".json"), self.root_of(name) / "thesis.txt"):
                path.write_text(f"{name} {path.name}")
                self.sums[path] = hashlib.sha256(path.read_bytes()).hexdigest()
            self.decoys.append(processes.decoy(self.root_of(name) / "any"))
        path = self.folder / "runs" / "notes.txt"
        path.parent.mkdir()
        if any(event.fault == "stale_clock" for event in self.history.events):
            self.finish_one_before()
        path.write_text("mine")
        self.sums[path] = hashlib.sha256(b"mine").hexdigest()

    def finish_one_before(self) -> None:
        """A run of the same profile that ended well before this history begins."""
        earlier = opening.create(profile.load(self.folder / "profile.yaml"), EARLIER)
        earlier.save_result(run.PHASES[-1], ok=True, checks=[])

    def play(self) -> None:
        """Every event in turn; afterwards the command is given until it says that all is well.

        Meanwhile the work goes slower: on a quick machine it would be over before most of them came.
        """
        slow = self.folder / "hosts" / "slow"
        slow.touch()
        self.run_again()
        for event in self.history.events:
            time.sleep(event.gap_s)
            if self.blames:
                return
            if TABLE[event.fault].late:
                slow.unlink(missing_ok=True)
            self._strike(event)
        slow.unlink(missing_ok=True)
        self._bring_to_an_end()

    def _strike(self, event: Event) -> None:
        fault = TABLE[event.fault]
        if not fault.idle and self.finished():
            return
        if self.driver is None:
            self.run_again()
        if not fault.early and self.history.size.tier == "C":  # a kernel and a model take their time to begin
            self.wait(lambda: bool(self.processes()) or self.driver is None, 90.0)
        elif not fault.early:
            self.wait(lambda: bool(self.roots()) or self.driver is None, 20.0)
        for _ in range(4):
            said = ""
            with contextlib.suppress(FileNotFoundError):  # its victim went at that moment
                said = fault.do(self, random.Random(event.pick))
            if said:
                self.done.append((time.monotonic() - self.began, fault.name, said))
                every = self.rows // self.history.size.part_rows
                self.losses += every if fault.name in MOVES else LOSES_PARTS.get(fault.name, 2)
                break
            if self.finished():
                break
            time.sleep(0.1)  # no victim yet
        self._look()

    def _look(self) -> None:
        """At any moment: no final name over anything half or wrong."""
        run = self.run
        for root in [*self.roots(), *([run] if run else [])]:
            self.blames += checker.parts(root / "parts", self.spared.get(root / "parts", ()))

    def _judge_end(self) -> None:
        """A driver that said that all is well must have been right, whatever is done to its result later."""
        last = self._driver
        if last is None or last.pid in self._killed or self.judged:
            return
        self.judged = True
        if last.status == DONE and self.run:
            found = self._merged()
            if not found.ok:
                self.blame(f"driver {last.pid} said that all is well: {found}")
        if last.status == CRASHED or (last.status or 0) < 0:
            self.blame(f"the driver ended with a traceback (exit {last.status}), see driver.log")

    def _merged(self) -> checker.Verdict:
        least = real.LEAST if self.history.size.tier == "C" else 0.0
        return checker.merged(self.run / "merged", self.texts, self.wanted, least)

    def _bring_to_an_end(self) -> None:
        patience_s = self.history.size.patience_s
        for each in self._orders:
            each.over.wait(patience_s)
        if self.driver and self.wait_end(self.driver, patience_s) is None:
            self.blame(f"the driver does not end: {patience_s:g} s after the last fault it is in {self.phase()}")
            self.kill_driver()
            return
        self._judge_end()
        for _ in range(RUNS_TO_END):
            if self.wait_end(self.run_again(), patience_s) is None:
                self.blame(f"the driver does not end: given again, it is in {self.phase()} after {patience_s:g} s")
                self.kill_driver()
                return
            self._judge_end()
            if self.blames or (self._driver and self._driver.status == DONE):
                return
        self.blame(f"given {RUNS_TO_END} times after the last fault, the command still refuses: see driver.log")

    def verdict(self, texts: list[str]) -> checker.Verdict:
        """What the checker finds."""
        run = self.run
        if run is None:
            return checker.Verdict(lost=len(texts), broken=(*self.blames, "there is no run"))
        found = self._merged()
        broken = [*self.blames, *found.broken, *checker.journal(run / "journal.jsonl"), *checker.untouched(self.sums)]
        broken += checker.founding(self.founding, run / "merged")
        if len(self.folders()) > 1:
            broken += [f"{len(self.folders())} runs were begun for one"]
        given_up = [path.stem for root in [run, *self.roots()] for path in root.glob("quarantine/row_*.json")]
        broken += [f"given up, and nothing was wrong with it: {name}" for name in sorted(set(given_up))]
        broken += checker.parts(run / "parts")
        if self.history.size.tier == "C":
            broken += real.differs(run / "merged" / "embeddings.npy")
        for root in self.roots():
            broken += checker.parts(root / "parts", self.spared.get(root / "parts", ()))
            broken += checker.strangers(root / "parts")
        if not self.wait(lambda: not self.processes(), SETTLE_S):
            broken += [f"left over: {' '.join(each.words[-6:])}" for each in self.processes()]
        broken += [f"somebody else's process was ended: {each.pid}" for each in self.decoys if each.poll() is not None]
        broken += self._done_again()
        return checker.Verdict(found.lost, found.wrong, found.doubled, tuple(broken))

    def _done_again(self) -> list[str]:
        """A death costs its worker one part at most, damage the parts that it hit; more was done again for nothing."""
        logs = [root / "encoded.log" for root in self.roots()]
        rows = sum(checker.rows_encoded(log) for log in logs)
        workers = sum(checker.workers(log) for log in logs)
        allowed = self.rows + 2 * self.history.size.part_rows * (workers + self.losses)
        return [f"{rows} rows were computed for {self.rows}, {allowed} allowed"] if rows > allowed else []

    def clean_up(self) -> None:
        """End what is left; only this history's."""
        for each in self._orders:
            if not each.over.is_set():
                self.kill(each)
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            for each in left[::-1]:
                processes.end(each)
            time.sleep(0.02)
        for child in [*self.decoys, *self._strays]:
            child.kill()
            child.wait()


def play(history: History, folder: Path, zygote: Zygote, weak: str = "-") -> Outcome:
    """Play a history in an empty folder and judge it; the folder goes when all is well."""
    folder.mkdir(parents=True)
    if history.size.tier == "C":
        texts, wanted = real.texts(history.size.rows), real.vectors(history.size.rows)
    else:
        texts = texts_of(history.seed, history.size.rows)
        wanted = checker.expected(texts)
    with Machines(folder / "fleet", NAMES) if history.size.tier != "A" else contextlib.nullcontext() as machines:
        lay_out(folder, history, texts, weak, machines)
        scene = Scene(folder, history, zygote, weak, machines, texts=texts, wanted=wanted)
        try:
            scene.prepare()
            scene.play()
            verdict = scene.verdict(texts)
        finally:
            scene.clean_up()
    outcome = Outcome(history, verdict, tuple(scene.done), scene.runs, time.monotonic() - scene.began, folder)
    if outcome.ok:
        shutil.rmtree(folder)
    else:
        (folder / "history.json").write_text(json.dumps(as_json(outcome), indent=1))
    return outcome


def as_json(outcome: Outcome) -> dict[str, object]:
    """An outcome for whoever looks into it."""
    events = [[event.gap_s, event.fault, event.pick] for event in outcome.history.events]
    done = [[round(at, 3), name, said] for at, name, said in outcome.done]
    return {"seed": outcome.history.seed, "verdict": str(outcome.verdict), "done": done, "events": events}


def without(history: History, dropped: Collection[int]) -> History:
    """The same history with some events left out; their time still passes."""
    kept, waiting = [], 0.0
    for number, event in enumerate(history.events):
        if number in dropped:
            waiting += event.gap_s
        else:
            kept.append(Event(round(event.gap_s + waiting, 3), event.fault, event.pick))
            waiting = 0.0
    return History(history.seed, history.size, tuple(kept))

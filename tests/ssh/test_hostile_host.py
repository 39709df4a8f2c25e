"""A host that lies: nothing it says becomes a crash, a path, markup, a terminal's escape or an endless wait."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import os
import random
import re
import shutil
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleet
import made_up
import numpy as np
import pytest
import wired
from hosts_by_ssh import linked

from runbook_lib.errors import HostError
from runbook_lib.hosts import hosts, inventory
from runbook_lib.phases import download, launch, monitor
from runbook_lib.phases.reported import first_rows, slot_states
from runbook_lib.profile import profile
from runbook_lib.report import clean, status
from runbook_lib.run import opening, plan
from runbook_lib.run.checks import Checks
from runbook_lib.show import panel, pictures
from runbook_lib.slots.snapshot import Snapshot
from runbook_lib.slots.watcher import Watcher
from worker import environment, machine, process
from worker.files import write_json
from worker.layout import HostFolder
from worker.snapshot import snapshot
from worker.wire import Reading, SupervisorReport, WorkerReport

EVIL = "\x1b]0;evil\x07\x1b[2J<script>alert(1)</script>\r\n\x9b31m\u202e\ud800 'quoted' \"twice\""
# Whatever moves a cursor, changes a title, turns the direction of writing or cannot be written at all.
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
ROUNDS = 3000


def safe(text: str) -> bool:
    return not RAW.search(text) and bool(text.encode())


def safe_page(html: str) -> bool:
    return safe(html) and "<script" not in html


# ------------------------------------------------------------------------------------------ a way that lies


class Liar:
    """A way to a host that answers as a test says, as it comes off a wire."""

    home, executable, where = "/home/me", "/usr/bin/python3", "me@there"

    def __init__(self, **answers: Any):
        self.answers = {"unclaimed": "", **answers}
        self.asked: list[str] = []

    def sessions(self) -> int:
        return 4

    def call(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        self.asked.append(verb)
        return json.loads(json.dumps(self.answers.get(verb)))

    def put(self, *arguments: Any) -> bool:
        raise AssertionError("nothing is to be sent")

    get = put


NOT_JSON_NUMBERS = [math.inf, -math.inf]  # 1e999 becomes one; NaN is refused by the wire
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**30, 10**400, -(10**20), 0.5, -0.5, 1e-320, 1e13, 1e300),
    *NOT_JSON_NUMBERS,
    *(EVIL, EVIL, EVIL, 1e-320, 1e13, True, None),
    *("", "running", "done", "dead", EVIL, "x" * 3000, "../../etc/passwd", "cluster0_gpu0", "\n", "9" * 500),
    *([], {}, [[]], [None], [1, 2], [2, 1], [[0, 10**9]], ["x"], {"a": 1}, {"pid": 1}, {"state": EVIL}, {"reason": 7}),
    *([{"reason": EVIL}], {"process": {"pid": True}}, {"slots": []}, {EVIL: EVIL}, {"pid": 7, "start": EVIL}),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a JSON value, whole branches too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutated(value: Any, chance: random.Random) -> Any:
    """A copy of a JSON value in which one to three things are others, gone, or under another name."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        *path, key = max(chance.choices(list(places(value)), k=2), key=len)  # rather a leaf than a branch
        at = value
        for step in path:
            at = at[step]
        kind = chance.random()
        if kind < 0.8:
            at[key] = copy.deepcopy(chance.choice(VALUES))
        elif kind < 0.9 or not isinstance(at, dict):
            del at[key]
        else:
            at[chance.choice((EVIL, "", "cluster0_gpu1", "x" * 300))] = at.pop(key)
        if not list(places(value)):
            break
    return value


# ------------------------------------------------------------------------------------------ readings


def reported(folder: HostFolder, host: str, slot: str) -> None:
    """A folder as a worker at work and its supervisor leave it."""
    me = process.identify(os.getpid())
    numbers = {"rows_in_part": 2, "rows_committed": 5, "loaded_s": 3.25, "processing_time": 12.5, "rate": 0.4}
    times = {"heartbeat": 7, "heartbeat_at": time.time(), "started_at": time.time(), "ended_at": time.time()}
    report = {"state": "running", "device": "cpu", "process": me, "part": [5, 10], "broken": "", **numbers, **times}
    write_json(folder.progress(slot), {"slot": slot, "host": host, "run": "t", "epoch": 1, **report})
    exits = [{"at": time.time(), "code": 1, "reason": "exit code 1", "left": 5, "deaths": 1}]
    write_json(folder.exits(slot), {"slot": slot, "exits": exits})
    slots = {slot: {"state": "running", "process": me, "deaths": 1, "wait_s": 0.0}}
    heard = {"heartbeat_at": time.time(), "working": True, "gpus": "", "gpus_at": 0.0}
    write_json(folder.supervisor(host), {"host": host, "process": me, "slots": slots, **heard})


def assigned(folder: HostFolder, host: str, *slots: plan.Slot) -> None:
    entries = [wired.slot(slot.slot, (slot.start, slot.stop)) for slot in slots]
    write_json(folder.assignment(host), wired.assignment(entries))


class Two:
    """A run on a host that lies and on an honest one, with a slot each."""

    def __init__(self, tmp_path: Path, keys: str = "device: cpu"):
        entries = "".join(f"  - {{name: {name}, kind: ssh, slots: 1, {keys}}}\n" for name in ("liar", "honest"))
        text = f"run: t\ncorpus: {{path: c.jsonl}}\nmodel: {{name: /nowhere}}\nhosts:\n{entries}"
        (tmp_path / "p.yaml").write_text(text)
        self.run = opening.create(profile.load(tmp_path / "p.yaml"))
        names = ("liar", "honest")
        slots = tuple(plan.Slot(f"cluster{i}_gpu0", n, 0, "cpu", 1, 10 * i, 10 * i + 10) for i, n in enumerate(names))
        model = plan.ModelIdentity("m", "r", "d", 4, True)
        self.plan = plan.Plan(self.run.name, 1, 18, 2, "c", model, "float32", "{text}", "{text}", None, 5, slots)
        self.plan.save(self.run.plan_file)
        self.liar, self.honest = Liar(alive=True), Liar(alive=True)
        for entry, way in zip(self.run.hosts, (self.liar, self.honest), strict=True):
            hosts._hosts[entry, self.run.name] = hosts.Host(entry, self.run.name, way)
        self.host = hosts.connect(self.run.hosts[0], self.run.name)
        self.true: list[dict[str, Any]] = []  # what each would truly say
        for slot, way in zip(self.plan.slots, (self.liar, self.honest), strict=True):
            folder = HostFolder(tmp_path / slot.host)
            assigned(folder, slot.host, slot)
            reported(folder, slot.host, slot.slot)
            write_json(folder.part(slot.start, slot.start + 5).with_suffix(".json"), {})
            write_json(folder.quarantined(slot.start + 7), {})
            way.answers["poll"] = json.loads(json.dumps(snapshot(folder.root, slot.host)))
            self.true.append(way.answers["poll"])


@pytest.fixture(autouse=True)
def own_hosts() -> Iterator[None]:
    before = dict(hosts._hosts)
    yield
    hosts._hosts.clear()
    hosts._hosts.update(before)


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def check_shown(this: Two, state: Snapshot) -> None:
    """Everything that shows a state shows it, and nothing that a host said comes out raw."""
    assert safe(panel.progress_text(state))
    assert safe_page(panel.progress_html(state))
    form = status.founding_form(this.plan, state)
    assert safe(json.dumps(form, ensure_ascii=False, allow_nan=False))
    verdict = monitor.finished(state)
    assert safe(repr(verdict)) and safe_page(verdict._repr_html_()) and safe_page(verdict.grid()._repr_html_())


def test_what_is_accepted_of_a_reading_can_be_judged_and_shown_and_hides_no_other_host(two: Two) -> None:
    chance = random.Random(53)
    going_on = Watcher(two.run, two.plan)
    refused = accepted = 0
    whole = changed(two.true[0], "committed", [[0, 10]])
    for turn in range(ROUNDS):
        two.liar.answers["poll"] = mutated(whole if turn % 3 == 2 else two.true[0], chance)
        try:
            reading = two.host.poll()
        except HostError as error:
            refused += 1
            assert str(error).startswith("liar: its reading is invalid (") and safe(str(error))
            state = going_on.poll()
            assert any("liar: its reading is invalid (" in alert for alert in state.alerts)
            assert state.slots[0].state in ("unreachable", "done", "not launched")
        else:
            accepted += 1
            checks = Checks("slots")
            for look in (slot_states, first_rows):
                for slot, (ok, words) in look(reading).items():
                    checks.add(slot, ok, words)
            assert safe(repr(checks)) and safe_page(checks._repr_html_())
            assert all(isinstance(found["pid"], int) for found in two.host.workers(reading))
            state = (going_on if turn % 2 else Watcher(two.run, two.plan)).poll()
        assert (state.slots[1].slot, state.slots[1].host) == ("cluster1_gpu0", "honest")
        assert state.slots[1].state in ("running", "done")
        check_shown(two, state)
    assert refused > ROUNDS // 4 and accepted > ROUNDS // 4, (refused, accepted)


def changed(reading: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The reading with another value at a path such as `slots.cluster0_gpu0.alive`."""
    found = copy.deepcopy(reading)
    *steps, last = path.split(".")
    at = found
    for step in steps:
        at = at[step]
    at[last] = value
    return found


REPORT = "slots.cluster0_gpu0.report."


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("now", math.inf, "now: inf"),
        ("now", 1e12, "now: 1000000000000.0"),
        ("now", [[]], "now: a list of 1"),
        ("assigned", 1, "assigned: 1"),
        ("slots", {"../../x": {}}, "slot's name: '../../x'"),
        ("slots", {"a\x1b": {}}, r"slot's name: 'a\x1b'"),
        ("committed", [[5, 3]], "committed: a list of 2"),
        ("committed", [[0, 10**10]], "committed: 10000000000"),
        ("committed", [[True, 5]], "committed: True"),
        ("committed", [[0, 1]] * (10**6 + 1), "committed: a list of 1000001"),
        ("quarantined", [-1], "quarantined: -1"),
        ("quarantined", ["7"], "quarantined: '7'"),
        ("supervisor", None, "supervisor process: None"),
        ("supervisor", {"process": {"pid": True}}, "supervisor pid: True"),
        ("supervisor.slots", {"s": {"state": "\x1b[2J"}}, r"supervisor state: '\x1b[2J'"),
        ("supervisor.slots", {"s": {"process": "1234"}}, "supervisor process: '1234'"),
        ("supervisor.gpus", ["GPU-1"], "supervisor gpus: a list of 1"),
        (f"{REPORT}rate", -2.0, "cluster0_gpu0 rate: -2.0, expected rows a second"),
        ("slots.cluster0_gpu0.ranges", [[-1, 2]], "cluster0_gpu0 ranges: -1"),
        ("slots.cluster0_gpu0.ranges", None, "cluster0_gpu0 ranges: None"),
        ("slots.cluster0_gpu0.exits", [{"reason": None}], "cluster0_gpu0 reason: None"),
        ("slots.cluster0_gpu0.exits", [{"reason": "x" * 2**19}], "cluster0_gpu0 exits: '524288 characters'"),
        (f"{REPORT}heartbeat_at", -1.0, "cluster0_gpu0 heartbeat_at: -1.0"),
        (f"{REPORT}heartbeat_at", "now", "cluster0_gpu0 heartbeat_at: 'now'"),
        (f"{REPORT}ended_at", 1e14, "cluster0_gpu0 ended_at"),
        (f"{REPORT}processing_time", 1e-320, "cluster0_gpu0 processing_time"),
        (f"{REPORT}rows_in_part", True, "cluster0_gpu0 rows_in_part: True"),
        (f"{REPORT}rows_committed", 1.5, "cluster0_gpu0 rows_committed: 1.5"),
        (f"{REPORT}state", "running\x9b31m", r"cluster0_gpu0 state: 'running\x9b31m'"),
        (f"{REPORT}state", "<script>", "cluster0_gpu0 state: '<script>'"),
        (f"{REPORT}process", {"pid": 2**40}, "cluster0_gpu0 pid: 1099511627776"),
        (f"{REPORT}process", {"pid": 7, "start": [1]}, "cluster0_gpu0 start: a list of 1"),
        (f"{REPORT}more", {"a": [[[[[[[[[[1]]]]]]]]]]}, "cluster0_gpu0 report: 'nested too deep'"),
        (f"{REPORT}more", 2**70, "cluster0_gpu0 report: 1180591620717411303424"),
    ],
)
def test_a_field_that_cannot_be_true_is_named_with_its_host(two: Two, path: str, value: Any, named: str) -> None:
    two.liar.answers["poll"] = changed(two.true[0], path, value)
    with pytest.raises(HostError) as caught:
        two.host.poll()
    said = str(caught.value).replace("\\\\", "\\")
    assert said.startswith("liar: its reading is invalid (") and named in said, said
    assert len(said) < 500 and safe(said)


def test_what_a_worker_and_a_supervisor_say_in_words_is_shown_and_is_no_markup(two: Two) -> None:
    lie = changed(two.true[0], f"{REPORT}device", EVIL)
    lie = changed(lie, "slots.cluster0_gpu0.exits", [{"reason": EVIL}])
    two.liar.answers["poll"] = changed(lie, "slots.cluster0_gpu0.alive", False)
    two.liar.answers["tail"] = EVIL
    two.liar.answers["follow"] = {"text": EVIL, "offset": 9}
    state = Watcher(two.run, two.plan).poll()
    assert state.slots[0].state == "starting" and "evil" in state.slots[0].reason
    check_shown(two, state)
    page = pictures.progress_html(state, pictures.progress_png(state))
    assert safe_page(page) and "&lt;script&gt;" in page
    folder = two.host.folder
    assert safe(two.host.tail(folder.log("cluster0_gpu0"))) and "evil" in two.host.tail(folder.log("cluster0_gpu0"))
    assert safe(two.host.follow(folder.log("cluster0_gpu0"), 0)[0])
    checks = launch.verify(two.run, within_s=0.0)
    assert checks.ok  # the honest host's slot is well: what ails another one is a warning
    assert "! liar: cluster0_gpu0" in repr(checks) and "evil" in repr(checks)
    assert safe(repr(checks)) and safe_page(checks._repr_html_())


@pytest.mark.parametrize("lie", [None, 7, "x", [], {}, {"files": 7}, {"files": [[1, 2, 3]]}, {"files": {"a": 1}}])
def test_an_answer_of_another_shape_is_refused_whatever_was_asked(two: Two, lie: Any) -> None:
    for verb in ("run", "follow", "start", "listing", "facts", "find_environment"):
        two.liar.answers[verb] = lie
    host, folder = two.host, two.host.folder
    asked: list[Callable[[], Any]] = [
        lambda: host.run(["true"], 1.0),
        lambda: host.follow(folder.log("x"), 0),
        lambda: host.start(["true"], folder.log("x"), folder.root),
        host.files,
        host.environment,
        lambda: host.facts("t"),
    ]
    for ask in asked[: 5 if isinstance(lie, dict) else 6]:  # facts are judged one by one
        with pytest.raises(HostError, match=r"^liar: "):
            ask()


@pytest.mark.parametrize(
    "lie",
    [None, {}, 7, [7], [{}], [{"verb": "encode"}], [{"verb": "init", "process": {"pid": 1}}]]
    + [[{"verb": "encode", "process": {"pid": pid}}] for pid in (0, -1, True, "1", 1e9, 2**31)],
)
def test_what_runs_there_is_named_by_pids_that_can_be(two: Two, lie: Any) -> None:
    """They are asked to end: 0 and -1 are groups of processes, or all."""
    two.liar.answers["running"] = lie
    with pytest.raises(HostError, match=r"^liar: its answer about what runs there is invalid"):
        two.host.living(Reading.from_json(two.true[0]))
    two.liar.answers["running"] = [{"verb": "supervise", "process": {"pid": 70, "start": "1", "boot": "b"}}]
    supervisors, _ = two.host.living(Reading.from_json(two.true[0]))
    assert 70 in [identity["pid"] for identity in supervisors]


@pytest.mark.parametrize("lie", [7, [[[]]], {"a": 1}, True, "AAAA\x1b", "ä"])
def test_bytes_sums_and_logs_that_are_none_do_no_harm(two: Two, lie: Any) -> None:
    two.liar.answers.update(read=lie, sha256=lie, tail=lie)
    with contextlib.suppress(HostError):
        assert isinstance(two.host.read(two.host.folder.root), bytes)
    assert two.host.sha256(two.host.folder.root) != "0" * 64
    assert safe(two.host.tail(two.host.folder.root))


@pytest.mark.parametrize("home", ["", "relative", "/home/\x1b[2Jme", "/a\nb", "/\ud800", "/" + "x" * 5000])
def test_a_home_folder_that_cannot_be_is_not_taken_for_one(two: Two, home: str) -> None:
    two.liar.home, two.liar.executable = home, home
    with pytest.raises(HostError, match=r"^liar: sent something invalid as its home folder") as caught:
        two.host.folder  # noqa: B018
    assert safe(str(caught.value))
    with pytest.raises(HostError, match=r"^liar: sent something invalid as its Python"):
        two.host.python  # noqa: B018


def test_names_in_a_listing_are_shown_safely_and_are_never_paths(two: Two) -> None:
    names = ["parts/\x1b[2J", "a\nb\tc", "-rf", "\ud800", "<script>", "\u202etxt", "x" * 4000]
    two.liar.answers["listing"] = {"files": [[name, 5] for name in names]}
    two.honest.answers["listing"] = {"files": []}
    (found,) = clean.leftovers(two.run)
    assert found.files == () and all(safe(str(path)) and "\n" not in str(path) for path in found.strangers)
    assert [str(path) for path in found.strangers[:3]] == ["parts/\\x1b[2J", "a\\nb\\tc", "-rf"]
    for name in ("../x", "/etc/passwd", "a/../../b", "", None, 7, ["a"]):
        two.liar.answers["listing"] = {"files": [[name, 5]]}
        with pytest.raises(HostError, match="lists a file that cannot be below the folder"):
            clean.leftovers(two.run)
    for size in (-1, True, 1.5, 2**70, "5"):
        two.liar.answers["listing"] = {"files": [["a", size]]}
        with pytest.raises(HostError, match="lists a file that cannot be below the folder"):
            clean.leftovers(two.run)


@pytest.mark.parametrize("lie", [None, 7, [], {}, True, ["ours"]])
def test_whose_a_folder_is_is_told_in_words_or_not_believed(two: Two, lie: Any) -> None:
    two.liar.answers.update(unclaimed=lie, listing={"files": [["parts/rows_000000000_000000004.npy", 5]]})
    two.honest.answers["listing"] = {"files": []}
    with pytest.raises(HostError, match="liar: its answer about the run's folder is invalid"):
        clean.leftovers(two.run)


# ------------------------------------------------------------------------------------------ what a machine says

CARDS = "".join(
    f"{i}, GPU-{i}0000000-0000-0000-0000-000000000000, NVIDIA A100, 40960, 4, 550.54.14, 0, 30, 50.0, Disabled, 0, "
    "Default\n"
    for i in range(2)
)
NVIDIA = {
    "gpus": {"out": CARDS, "err": "", "exit": 0},
    "list": {"out": "GPU 0: NVIDIA A100 (UUID: GPU-00000000-0000-0000-0000-000000000000)\n", "err": "", "exit": 0},
    "apps": {"out": "", "err": "", "exit": 0},
}
LIBRARIES = {
    "versions": {"torch": "2.13.0", "sentence_transformers": "5.1.0"},
    "cuda_build": "12.8",
    "gpus": [{"uuid": f"GPU-{i}0000000-0000-0000-0000-000000000000", "error": ""} for i in range(2)],
}


def test_whatever_a_machine_says_of_itself_becomes_checks_and_facts_that_can_be_kept(tmp_path: Path) -> None:
    two = Two(tmp_path, "device: cuda, environment: venv")
    said = {**json.loads(json.dumps(machine.facts(str(tmp_path / "work"), False, "t"))), "nvidia": NVIDIA}
    found = environment.find("venv", str(tmp_path / "work"), "0" * 64)
    two.honest.answers.update(facts=said, find_environment=found)
    two.liar.answers.update(facts=said, find_environment=found)
    checks, before = inventory.take(two.run)
    assert checks.ok and [gpu["index"] for gpu in before["liar"]["gpus"]] == [0, 1], checks
    chance = random.Random(60)
    broken = 0
    for turn in range(1000):
        two.liar.answers.update(facts=said, find_environment=found)
        verb = "find_environment" if turn % 5 == 4 else "facts"
        two.liar.answers[verb] = mutated(two.liar.answers[verb], chance)
        checks, facts = inventory.take(two.run)
        assert safe(repr(checks)) and safe_page(checks._repr_html_()) and safe_page(checks.grid()._repr_html_())
        assert all(check.ok for check in checks if check.where == "honest"), checks
        json.dumps(facts, ensure_ascii=False, allow_nan=False).encode()  # they are kept in a file
        broken += not checks.ok
        if "liar" in facts:
            assert 1 <= facts["liar"]["cores"] <= 4096 and "shared" not in facts["liar"]
            libraries = Checks("libraries")
            inventory.judge_libraries(libraries, two.run.hosts[0], facts["liar"], mutated(LIBRARIES, chance))
            assert safe(repr(libraries)) and safe_page(libraries._repr_html_())
    assert 50 < broken < 900


def test_nobody_shares_a_folder_with_itself_or_by_a_made_up_mark(tmp_path: Path) -> None:
    two = Two(tmp_path)
    said = json.loads(json.dumps(machine.facts(str(tmp_path / "work"), False, "t")))
    two.honest.answers["facts"] = said
    for seen in (["made-up"], [["a"]], 7, {"a": 1}, [None]):
        two.liar.answers["facts"] = {**said, "seen": seen}
        assert "shared" not in inventory.take(two.run)[1]["liar"]
    token: list[str] = []

    class Mirror(Liar):
        def call(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
            token[:] = [arguments.get("token", "")]
            return {**said, "seen": token} if verb == "facts" else None

    hosts._hosts[two.run.hosts[0], two.run.name] = hosts.Host(two.run.hosts[0], two.run.name, Mirror())
    assert "shared" not in inventory.take(two.run)[1]["liar"]


# ------------------------------------------------------------------------------------------ files on a real host


class Planted:
    """A run's folder on a real host, as seen from outside it, and the host over its connection."""

    def __init__(self, box: fleet.Host, host: hosts.Host):
        self.host, self.box = host, box
        self.root = box.home / "hostile" / "r"
        self.folder = HostFolder(self.root)
        self.there = host.folder  # the same, as the host calls it
        self.precious = box.home / "precious"

    def anew(self) -> None:
        for path in (self.root, self.precious):
            shutil.rmtree(path, ignore_errors=True)
        slots = [plan.Slot(f"cluster0_gpu{i}", "tensor01", i, "cpu", 1, 10 * i, 10 * i + 10) for i in range(2)]
        assigned(self.folder, "tensor01", *slots)
        for slot in slots:
            reported(self.folder, "tensor01", slot.slot)
        for folder in (self.folder.parts, self.folder.quarantine, self.folder.log("x").parent, self.precious):
            folder.mkdir()
        (self.precious / "file").write_text('{"state": "mine"}')

    def peak_mib(self) -> int:
        """The most memory that the far end had so far."""
        with self.host.transport.link.session() as session:  # type: ignore[attr-defined]
            pid = self.box.outside(session.hello.pid)
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


@pytest.fixture(scope="module")
def box(ssh_fleet: fleet.Fleet) -> Iterator[Planted]:
    machine = ssh_fleet.hosts["tensor01"]
    with linked(machine, workdir="~/hostile") as host:
        yield Planted(machine, host)


@pytest.fixture
def planted(box: Planted) -> Planted:
    box.anew()
    return box


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    """Endless zeros; where this account may make no device, by a link to one."""
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def link(path: Path) -> None:
    path.symlink_to(os.path.relpath("precious/file", "hostile/r/parts"))


def endless_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**30)


ODD = [pipe, device, folder, link, endless_link, sparse]


@pytest.mark.parametrize(
    "text",
    [
        b'{"state": "running", "heartbeat_at": NaN}',
        b'{"state": "running", "heartbeat_at": 1e999}',
        b'{"heartbeat_at": ' + b"9" * 5000 + b"}",
        b'{"state": "dead", "state": "running"}',
        b'{"device": "\\ud800\\udc00\\ud800", "reason": "\\u009b31m\\u202e"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[]",
        b'{"state": "run',
        b"\xff\xfe\x00",
        b"",
    ],
    ids=lambda text: repr(text[:30]),
)
def test_a_report_that_is_none_leaves_a_sane_reading(planted: Planted, text: bytes) -> None:
    planted.folder.progress("cluster0_gpu0").write_bytes(text)
    planted.folder.exits("cluster0_gpu0").write_bytes(text)
    planted.folder.supervisor("tensor01").write_bytes(text)
    reading = planted.host.poll()
    assert list(reading.slots) == ["cluster0_gpu0", "cluster0_gpu1"]
    assert reading.slots["cluster0_gpu1"].report.state == "running"
    assert not reading.slots["cluster0_gpu0"].alive and not reading.supervisor_alive
    assert not slot_states(reading)["cluster0_gpu0"][0]


@pytest.mark.parametrize("odd", ODD)
def test_a_report_that_is_no_plain_file_is_not_waited_for_and_leaves_a_sane_reading(
    planted: Planted, odd: Callable[[Path], None]
) -> None:
    for path in (
        planted.folder.progress("cluster0_gpu0"),
        planted.folder.exits("cluster0_gpu0"),
        planted.folder.supervisor("tensor01"),
    ):
        path.unlink()
        odd(path)
    reading = planted.host.poll()
    report = reading.slots["cluster0_gpu0"].report
    assert report.unreadable and replace(report, unreadable=None) == WorkerReport()
    assert reading.slots["cluster0_gpu0"].exits == ()
    assert reading.supervisor.unreadable and replace(reading.supervisor, unreadable=None) == SupervisorReport.blank()
    assert reading.slots["cluster0_gpu1"].report.state == "running"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"heartbeat_at": -5}, "cluster0_gpu0 heartbeat_at: -5"),
        ({"heartbeat_at": 1e14}, "cluster0_gpu0 heartbeat_at"),
        ({"rows_in_part": True}, "cluster0_gpu0 rows_in_part: True"),
        ({"rows_committed": 10**12}, "cluster0_gpu0 rows_committed"),
        ({"process": {"pid": int("9" * 400), "start": "1", "boot": "b"}}, "cluster0_gpu0 report: 9999"),
        ({"process": [1]}, "cluster0_gpu0 process: a list of 1"),
        ({"state": "\x1b[2J"}, "cluster0_gpu0 state"),
        ({"more": [[[[[[[[[[[[1]]]]]]]]]]]]}, "cluster0_gpu0 report: 'nested too deep'"),
        ({"reason": "x" * 2**19}, "cluster0_gpu0 report: '524288 characters'"),
    ],
)
def test_a_report_that_cannot_be_true_is_refused_by_host_and_field(
    planted: Planted, value: dict[str, Any], named: str
) -> None:
    write_json(planted.folder.progress("cluster0_gpu0"), value)
    with pytest.raises(HostError, match=rf"^tensor01: its reading is invalid \({re.escape(named)}"):
        planted.host.poll()


@pytest.mark.parametrize("slots", [7, {"a": 1}, [7], [{}], [wired.slot("../../x", (0, "9"))]])
def test_a_host_whose_assignment_is_none_counts_as_never_launched(planted: Planted, slots: Any) -> None:
    write_json(planted.folder.assignment("tensor01"), {**wired.assignment([]), "slots": slots})
    found = planted.host.poll()
    assert not found.assigned and found.slots == {}


def test_an_assignment_of_very_many_ranges_is_one(tmp_path: Path) -> None:
    """As rows move, ranges become more; a limit other than the worker's would launch that host again and again."""
    folder, rows = HostFolder(tmp_path), range(0, 600_000, 20)
    ranges = [(row, row + 10) for row in rows]
    write_json(folder.assignment("one"), wired.assignment([wired.slot("cluster0_gpu0", *ranges)]))
    assert folder.assignment("one").stat().st_size > 3 * 2**20
    found = snapshot(tmp_path, "one")
    assert found["assigned"] and len(found["slots"]["cluster0_gpu0"]["ranges"]) == len(rows)


def test_a_slot_named_as_a_path_is_refused(planted: Planted) -> None:
    entry = wired.slot("../../../precious/file", (0, 9))
    write_json(planted.folder.assignment("tensor01"), wired.assignment([entry]))
    with pytest.raises(HostError, match=r"slot's name: '\.\./\.\./\.\./precious/file'"):
        planted.host.poll()


NAMES = ["-rf", "a\nb", "\x1b]0;evil\x07", "rows_000000000_000000005.json\n", "rows_0_5.json", "ROWS_000000000_1.json",
         "rows_000000005_000000005.json", "rows_000000009_000000003.json", "rows_000000000_000000005.json.part",
         " rows_000000000_000000005.json", "rows_٠٠٠٠٠٠٠٠٠_٠٠٠٠٠٠٠٠٥.json", "row_000000001.json ", "$(touch PWNED)",
         "<script>alert(1)<", "row_-00000001.json", "..json", "x" * 255]  # fmt: skip


def test_names_of_other_shapes_count_for_nothing_and_are_listed_safely(planted: Planted) -> None:
    for name in NAMES:
        (planted.folder.parts / name).write_bytes(b"{}")
        (planted.folder.quarantine / name).write_bytes(b"{}")
    (Path(os.fsdecode(bytes(planted.folder.parts))) / os.fsdecode(b"\xff\xfe.json")).write_bytes(b"{}")
    (planted.folder.parts / "rows_000000000_000000005.json").write_bytes(b"{}")
    (planted.folder.quarantine / "row_000000007.json").write_bytes(b"{}")
    reading = planted.host.poll()
    assert (reading.committed, reading.quarantined) == (((0, 5),), (7,))
    listed = [path for path, _ in planted.host.files()]
    assert len([path for path in listed if path.startswith(("parts/", "quarantine/"))]) == 2 * len(NAMES) + 3
    assert all(safe(path) and "\n" not in path for path in listed)
    assert "parts/\\x1b]0;evil\\x07" in listed and "parts/a\\nb" in listed and "parts/-rf" in listed
    planted.host.remove(planted.there.root)
    assert not planted.root.exists() and (planted.precious / "file").exists()
    assert not list(planted.box.home.rglob("PWNED"))


def test_what_is_removed_lies_inside_wherever_links_lead(planted: Planted) -> None:
    planted.folder.parts.rmdir()
    planted.folder.parts.symlink_to("../../precious")
    for path in (
        planted.there.parts / "file",
        planted.there.root / ".." / ".." / "precious",
        planted.there.parts / "..",
    ):
        with pytest.raises(HostError, match=r"^tensor01: refused to remove"):
            planted.host.remove(path)
    planted.host.remove(planted.there.parts)  # the link itself
    assert (planted.precious / "file").exists()
    (planted.root / "inside").symlink_to("../../precious")
    planted.host.remove(planted.there.root)
    assert not planted.root.exists() and (planted.precious / "file").exists()


def test_a_log_full_of_escapes_is_shown_as_text(planted: Planted) -> None:
    raw = (
        b"\x1b]0;evil\x07\x1b[2J\x1b]8;;http://x\x1b\\click\r100%\rdone\x9b31m\xc2\x9b31m\xe2\x80\xae\xff<script>\x00\n"
    )
    planted.folder.log("cluster0_gpu0").write_bytes(raw * 50)
    log = planted.there.log("cluster0_gpu0")
    for text in (planted.host.tail(log), planted.host.follow(log, 0)[0], planted.host.follow(log, -40)[0]):
        assert safe(text) and "script" in text


def test_a_log_of_one_endless_line_costs_no_memory_on_either_side(planted: Planted) -> None:
    with planted.folder.log("cluster0_gpu0").open("wb") as file:
        file.write(b"x" * 2**20)
        file.truncate(100 * 2**20)
        file.seek(0, os.SEEK_END)
        file.write(b"\x1b[31mend")
    sparse(planted.folder.parts / "rows_000000000_000000005.npy")
    log, part = planted.there.log("cluster0_gpu0"), planted.there.part(0, 5)
    tracemalloc.start()
    try:
        tail = planted.host.tail(log, 5)
        text, offset = planted.host.follow(log, 0)
        with pytest.raises(HostError, match="larger than 1000000 bytes"):
            planted.host.read(part, limit=1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert tail.endswith("\\x1b[31mend") and safe(tail) and len(tail) < 20_000
    assert text == "x" * 2**16 and offset == 2**16
    assert peak < 20e6 and planted.peak_mib() < 150


@pytest.mark.parametrize("odd", ODD)
def test_a_log_or_a_part_that_is_no_plain_file_is_refused_at_once(
    planted: Planted, odd: Callable[[Path], None], tmp_path: Path
) -> None:
    odd(planted.folder.parts / "log")
    odd(planted.folder.part(0, 5))
    odd(planted.folder.part(0, 5).with_suffix(".json"))
    host, log, part = planted.host, planted.there.parts / "log", planted.there.part(0, 5)
    asked = [lambda: host.read(part.with_suffix(".json"), limit=1000)]
    asked += [lambda: host.get(part, tmp_path / "home", "0" * 64, limit=1000)]
    if odd is not sparse:
        asked += [lambda: host.tail(log), lambda: host.follow(log, 0)]
        assert host.sha256(part) is None
    for ask in asked:
        with pytest.raises(HostError, match=r"^tensor01: "):
            ask()
    assert not (tmp_path / "home").exists()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0
    assert host.poll().committed == ((0, 5),)


# ------------------------------------------------------------------------------------------ forged parts


class Forged:
    """A made-up run whose only host is a real one, and its parts there."""

    def __init__(self, tmp_path: Path, box: fleet.Host, host: hosts.Host):
        self.made = made_up.run_folder(tmp_path)
        self.run = self.made.run
        hosts._hosts[self.run.hosts[0], self.run.name] = hosts.Host(host.spec, self.run.name, host.transport)
        self.folder = HostFolder(box.home / "hostile" / self.run.name)
        shutil.rmtree(self.folder.root, ignore_errors=True)

    def commit(self, start: int, stop: int, **changes: Any) -> Path:
        record = self.made.record(start, stop, **changes)
        made_up.commit(self.folder, start, self.made.vectors[start:stop], record)
        return self.folder.part(start, stop)

    def home(self) -> list[str]:
        return sorted(path.name for path in self.run.local.parts.iterdir())


@pytest.fixture
def forged(tmp_path: Path, ssh_fleet: fleet.Fleet) -> Iterator[Forged]:
    box = ssh_fleet.hosts["tensor01"]
    with linked(box, name="here", workdir="~/hostile") as host:
        yield Forged(tmp_path, box, host)


def test_a_host_that_says_done_with_forged_parts_is_not_believed(forged: Forged) -> None:
    honest = forged.commit(18, 21)
    forged.commit(0, 4).unlink()  # a record without its array
    array = forged.commit(4, 8)
    array.write_bytes(array.read_bytes()[:-1] + b"\x01")
    forged.commit(8, 10, fingerprints=["0" * 32] * 2)
    forged.commit(10, 14, corpus="c" * 64)
    forged.commit(14, 18).unlink()
    folder(forged.folder.part(14, 18))
    precious = forged.folder.root.parent.parent / "precious"
    precious.mkdir(exist_ok=True)
    (precious / "file").write_text("{}")
    oddities = {(2, 3): folder, (6, 7): link, (7, 8): sparse, (11, 12): endless_link}
    for (start, stop), odd in oddities.items():
        odd(forged.folder.part(start, stop).with_suffix(".json"))
    forged.folder.part(0, 999_999_999).with_suffix(".json").write_text(
        json.dumps({**forged.made.record(0, 4), "start": 0, "stop": 999_999_999, "sha256": "0" * 64, "bytes": 10**12})
    )
    told: list[int] = []
    found = download.collect(forged.run, lambda what, done, total: told.append(done))
    assert (found.rows, found.new, found.failures) == (3, 1, ())
    assert len(found.refused) == 5 + len(oddities) + 1 and all(map(safe, found.refused))
    assert forged.home() == [honest.with_suffix(".json").name, honest.name]
    assert not download.complete(forged.run).ok
    left = sorted(path.name for path in forged.folder.parts.iterdir())
    assert left == forged.home()  # what was refused is gone there: its rows are done again
    assert (precious / "file").read_text() == "{}"
    assert not list((forged.run.folder / "incoming").rglob("*.npy"))
    assert max(told) < 10_000


@pytest.mark.parametrize("odd", [pipe, device])
def test_a_part_that_is_a_pipe_or_a_device_is_refused_once_and_gone(
    forged: Forged, odd: Callable[[Path], None]
) -> None:
    forged.commit(0, 4).unlink()
    odd(forged.folder.part(0, 4))
    odd(forged.folder.part(4, 8).with_suffix(".json"))
    found = download.collect(forged.run)
    assert (found.rows, found.new, found.failures, len(found.refused)) == (0, 0, (), 2)
    assert list(forged.folder.parts.iterdir()) == []


HEADERS = [
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 8), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 8), }",
    b"{[]: 1}",
    b"'''",
    b"  1\n 2",
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: repr(header[-30:]))
def test_an_array_with_a_header_that_numpy_stumbles_over_is_refused(forged: Forged, header: bytes) -> None:
    array = forged.commit(0, 4)
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + bytes(128)
    array.write_bytes(raw)
    forged.made.change_record(array, bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    found = download.collect(forged.run)
    assert (found.rows, found.new, found.failures, len(found.refused)) == (0, 0, (), 1)


@pytest.mark.parametrize("norms", [["x"] * 4, [None] * 4, 7, {"a": 1}, [[1.0]] * 4, [10**400] * 4, [1.0] * 9])
def test_norms_that_are_none_are_refused_and_do_not_blind_the_monitor(forged: Forged, norms: Any) -> None:
    forged.commit(0, 4, norms=norms)
    found = download.collect(forged.run)
    assert Watcher(forged.run, forged.made.plan).poll().norms is not None
    assert (found.rows, found.new, found.failures, len(found.refused)) == (0, 0, (), 1)


def test_an_array_larger_than_its_rows_is_refused_before_it_is_fetched(forged: Forged) -> None:
    array = forged.commit(0, 4)
    raw = array.read_bytes() + bytes(2**20)
    array.write_bytes(raw)
    forged.made.change_record(array, bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    told: list[int] = []
    found = download.collect(forged.run, lambda what, done, total: told.append(done))
    assert max(told, default=0) == 0
    assert (found.rows, found.new, found.failures, len(found.refused)) == (0, 0, (), 1)


def test_rows_beyond_the_plan_never_come_home(forged: Forged) -> None:
    rows = {"fingerprints": ["0" * 32] * 23, "tokens": [1] * 23, "norms": [1.0] * 23}
    record = {**forged.made.record(18, 21), **rows}
    values = np.zeros((23, made_up.DIM), np.float32)
    made_up.commit(forged.folder, 18, values, {**record, "truncated": []})
    found = download.collect(forged.run)
    assert (found.rows, found.new, found.failures) == (0, 0, ()) and "rows: 18-41" in found.refused[0]


# ------------------------------------------------------------------------------------------ a far end that is not ours

FAR_END = """#!{python}
import json, os, sys
source, out = os.fdopen(0, "rb"), os.fdopen(1, "wb", 0)
nonce, size = source.readline().split()
source.read(int(size))
lies = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lies.json")))
frame = lambda text: out.write(b"%d\\n%s" % (len(text.encode()), text.encode()))
out.write(b"\\n" + nonce + b"\\n")
frame(lies["hello"])
while head := source.readline():
    frame(lies.get(json.loads(source.read(int(head)))["do"], '{{"ok": null}}'))
"""
HELLO = {"ok": {"home": "/home/me", "executable": "/usr/bin/python3", "pid": 1, "python": [3, 11, 0]}}


@pytest.mark.parametrize(
    ("lies", "named"),
    [
        ({"poll": '{"ok": {"now": 1e999}}'}, "answers with something that is no JSON"),
        ({"poll": '{"ok": {"now": NaN}}'}, "answers with something that is no JSON"),
        ({"poll": '{"ok": ' + "[" * 200_000}, "answers with something that is no JSON"),
        ({"poll": '{"ok": ' + "9" * 5000 + "}"}, "answers with something that is no JSON"),
        ({"poll": "[]"}, "answers with something that is no answer"),
        ({"poll": json.dumps({"error": EVIL})}, "\\x1b]0;evil\\x07"),
        ({"poll": json.dumps({"error": [[EVIL]]})}, "evil"),
        ({"hello": json.dumps({"ok": {**HELLO["ok"], "home": EVIL}})}, "sent something invalid as its home folder"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_far_end_that_lies_harms_no_other_host(
    ssh_fleet: fleet.Fleet, planted: Planted, tmp_path: Path, lies: dict[str, str], named: str
) -> None:
    bad, good = ssh_fleet.hosts.values()
    python = bad.home / "liar" / "python"
    python.parent.mkdir(exist_ok=True)
    python.write_text(FAR_END.format(python=sys.executable))
    python.chmod(0o755)
    (python.parent / "lies.json").write_text(json.dumps({"hello": json.dumps(HELLO), **lies}))
    this = Two(tmp_path)
    with linked(bad, workdir="~/w") as liar, linked(good, workdir="~/w") as honest:
        liar.transport.link.python = "~/liar/python"  # type: ignore[attr-defined]
        for entry, host in zip(this.run.hosts, (liar, honest), strict=True):
            hosts._hosts[entry, this.run.name] = host
        found = hosts.side_by_side(this.run, lambda host: host.poll())
        state = Watcher(this.run, this.plan).poll()
    assert isinstance(found["honest"], Reading) and isinstance(found["liar"], HostError)
    assert str(found["liar"]).startswith("tensor01: ") and named in str(found["liar"]) and safe(str(found["liar"]))
    assert [slot.state for slot in state.slots] == ["unreachable", "not launched"]
    assert len(state.alerts) == 1 and "tensor01" in state.alerts[0]
    check_shown(this, state)

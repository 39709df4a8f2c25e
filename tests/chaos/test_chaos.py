"""A little chaos with fixed seeds, and the suite's own sense of sight; the other seeds are `make chaos`."""

import ast
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import fleet
import forking
import numpy as np
import pytest
from waiting import wait_for

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.chaos import checker, history, network, processes  # noqa: E402
from tests.chaos.broken import MECHANISMS  # noqa: E402
from tests.chaos.controls import CUTS  # noqa: E402
from tests.chaos.faults import TABLE  # noqa: E402
from tests.chaos.shrink import shrink  # noqa: E402

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc")


def chaos(*words):
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos", *words], cwd=ROOT, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, env={**os.environ, "CHAOS_PYTHON": forking.python()},
    )  # fmt: skip


def test_whatever_is_killed_or_damaged_the_same_command_gives_every_row(tmp_path):
    done = chaos("--seeds", "100-101", "--jobs", "2", "--no-shrink", "--folder", str(tmp_path / "chaos"))
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    faults = re.match(r"faults (\d+), seeds 2, rows lost 0, wrong 0, doubled 0, .*manual steps 0", last)
    assert faults and int(faults.group(1)) >= 50, last
    assert not (tmp_path / "chaos").exists()


@pytest.mark.skipif(bool(fleet.available("loopback")), reason="needs OpenSSH's server")
def test_the_same_holds_for_machines_whose_network_fails_and_whose_power_goes(tmp_path):
    words = ("--tier", "B", "--faults", "14", "--mix", ",".join([*network.WEIGHTS, "kill_worker"]), "--jobs", "2")
    done = chaos("--seeds", "200-201", *words, "--no-shrink", "--folder", str(tmp_path / "chaos"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows lost 0, wrong 0, doubled 0, other promises broken 0" in done.stdout.splitlines()[-1]


def test_whoever_ends_it_leaves_no_process_behind(tmp_path):
    top = tmp_path / "chaos"
    begun = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", "--seeds", "1-4", "--folder", str(top)], cwd=ROOT,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with begun:
        wait_for(lambda: processes.working_in(top), "workers work")
        begun.terminate()
        said = begun.communicate(timeout=60)[0]
    assert begun.returncode == 143 and "ended by SIGTERM" in said, said
    wait_for(lambda: not processes.working_in(top), "they are gone", 10)


@pytest.mark.parametrize("name", ["no-identity", "no-process-identity", "no-journal-chain"])
def test_without_one_of_its_safety_mechanisms_the_suite_goes_red(tmp_path, name):
    mix = ",".join(MECHANISMS[name].mix)
    words = ("--mix", mix, "--faults", "12", "--break", name, "--no-shrink", "--folder", str(tmp_path / "chaos"))
    done = chaos("--seeds", "900-901", "--jobs", "2", *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL seed 90" in done.stdout


def patched():
    """The dotted name of everything that broken.py puts something else in the place of, after its function's name."""
    for function in ast.parse((ROOT / "tests" / "chaos" / "broken.py").read_text()).body:
        nodes = list(ast.walk(function)) if isinstance(function, ast.FunctionDef) else []
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        modules = {a.asname or a.name: f"{node.module}.{a.name}" for node in imports for a in node.names}
        for node in nodes:
            first, _, rest = ast.unparse(node).partition(".")
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and first in modules:
                yield f"{function.name} {modules[first]}.{rest}"


@pytest.mark.parametrize("name", [*patched()])
def test_what_a_control_takes_out_is_there(name):
    """Else nothing is taken out, or all dies of a wrong name: that the suite goes red then shows nothing."""
    pkgutil.resolve_name(name.split()[1])


def test_a_seed_gives_the_same_history_and_every_fault_is_in_the_mix():
    assert history.make(7) == history.make(7) != history.make(8)
    drawn = {event.fault for seed in range(200) for event in history.make(seed).events}
    assert drawn == {name for name, fault in TABLE.items() if fault.weight}


def test_the_page_of_what_was_tried_names_every_control():
    told = set(re.findall(r"^\| (no-[a-z-]+) \|", (ROOT / "docs" / "chaos.md").read_text(encoding="utf-8"), re.M))
    assert told == {*MECHANISMS, *(f"no-{name}" for name in CUTS)}


def test_shrinking_leaves_the_faults_that_are_needed():
    whole = history.make(3)
    needed = {whole.events[5].pick, whole.events[20].pick}
    least = shrink(whole, lambda candidate: needed <= {event.pick for event in candidate.events})
    assert {event.pick for event in least.events} == needed
    assert sum(event.gap_s for event in least.events) <= sum(event.gap_s for event in whole.events)


@pytest.fixture
def result(tmp_path):
    """A merged result as it should be, and the texts it is of."""
    texts = history.texts_of(1, 12)
    np.save(tmp_path / "embeddings.npy", checker.expected(texts))
    lines = [
        {"row": row, "id": f"d{row}", "fingerprint": checker.hashlib.sha256(text.encode()).hexdigest()[:32]}
        for row, text in enumerate(texts)
    ]
    (tmp_path / "articles.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = {"parts": [{"rows": [0, 5]}, {"rows": [5, 12]}, {"rows": []}], "outputs": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path, texts


def judged(result):
    folder, texts = result
    found = checker.merged(folder, texts, checker.expected(texts))
    return found.lost, found.wrong, found.doubled


def test_the_checker_counts_rows_lost_wrong_and_doubled(result):
    folder, _ = result
    assert judged(result) == (0, 0, 0)
    matrix = np.load(folder / "embeddings.npy")
    np.save(folder / "embeddings.npy", matrix[[1, 0, *range(2, 12)]])
    assert judged(result) == (0, 2, 0)
    np.save(folder / "embeddings.npy", matrix[:9])
    assert judged(result) == (3, 0, 0)
    matrix[3, 3] = np.nextafter(matrix[3, 3], np.float32(2))
    np.save(folder / "embeddings.npy", matrix)
    (folder / "manifest.json").write_text(json.dumps({"parts": [{"rows": [0, 6]}, {"rows": [5, 12]}], "outputs": {}}))
    assert judged(result) == (0, 1, 1)


def test_the_checker_sees_a_line_of_a_journal_that_was_changed(tmp_path):
    lines, before = [], "0" * 64
    for seq in range(3):
        lines.append(json.dumps({"seq": seq, "event": "x", "prev": before}) + "\n")
        before = checker.hashlib.sha256(lines[-1].encode()).hexdigest()
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(lines))
    assert checker.journal(path) == []
    path.write_text("".join(lines).replace('"x"', '"y"', 1))
    assert checker.journal(path) == ["journal line 2 does not follow from the line before"]
    path.write_text("".join(lines)[:-5])
    assert checker.journal(path) == ["journal line 3 is none"]

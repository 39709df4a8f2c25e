"""Each benchmark still runs at its smallest size, ends with exit code 0 and prints its figures."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import forking
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Its smallest size, and words of the figures that it prints; {} is an empty folder.
SMALLEST = {
    "merge_scale": (
        ["--documents", "40", "--dim", "8", "--rounds", "1", "--folder", "{}/merge"],
        "both merged files load as the same dict: True",
    ),
    "transfer": (["--quick", "--rounds", "1", "--mode", "loopback", "--rtt-ms", "2", "--folder", "{}"], "down 8 x"),
    "packing": (["--texts", "12", "--rounds", "1", "--max-tokens", "32"], "packed "),
    "device_waits": (["--texts", "60", "--part-rows", "20", "--rounds", "1"], "the device computes"),
    "limits": (["--quick", "--rounds", "1", "--threads", "1"], "GFLOP/s, threads 1"),
    "scale/measure": (["--fleets", "2000x16", "--rows", "400", "--results", "{}/found.json"], "merge_again"),
    "scale/simulate": (["--rows", "40000", "--hosts", "4", "--slots", "2", "--lost", "0.25"], '"above_ideal": '),
    "faults": (["--seeds", "1", "--documents", "60", "--drawn", "5", "--kinds", "verdict"], "| the printed verdict |"),
    "verify_scale": (["--documents", "3000", "--dim", "32", "--characters", "400"], '"ok": true'),
    "kill_cost": (["--folder", "{}/kills", "--kills", "1", "--documents", "200"], "same parts, byte for byte: True"),
}
# Real runs of minutes, or what needs a browser: held alive to where their work begins. remote_poll has its own test.
STARTED = ("console", "kill_matrix", "remote_poll", "restart", "whole_run", "peers", "uneven_hosts", "all")
STARTED += ("clean_runs", "fenced")
# What these share, and what all.py is made of; test_benchmarks_all.py holds it.
PARTS = ("edits", "encoding", "forging", "harms", "measuring", "models", "page", "pictures", "rows", "sleeping")
PARTS += ("ways", "work", "worker_harms", "scale/curves", "scale/fleet", "scale/steps", "scale/whole")


@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_runs_at_its_smallest_size_and_prints_its_figures(name: str, tmp_path: Path) -> None:
    if name == "kill_cost" and not Path("/proc/self/stat").exists():
        pytest.skip("it finds processes through /proc")
    if name == "transfer" and shutil.which("sshd") is None and not Path("/usr/sbin/sshd").exists():
        pytest.skip("no OpenSSH server here")
    options, figures = SMALLEST[name]
    argv = [forking.python(), str(BENCHMARKS / f"{name}.py"), *(option.format(tmp_path) for option in options)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert figures in done.stdout


@pytest.mark.parametrize("name", STARTED)
def test_a_benchmark_that_takes_minutes_starts_and_says_what_it_takes(name: str) -> None:
    argv = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr[-2000:]


def test_clean_runs_go_on_where_they_were_and_a_failed_check_is_told(tmp_path: Path) -> None:
    line = '{"case": ["short", "gemma", "float32", 2, true], "failed": %s}\n'
    for failed, code in (("[]", 0), ('["FAILED parts"]', 1)):
        (tmp_path / "kept").write_text(line % "[]" + line % failed)
        argv = [sys.executable, str(BENCHMARKS / "clean_runs.py"), "--runs", "2", "--results", str(tmp_path / "kept")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr[-2000:]
        assert f"{code} of 2 clean runs with a failed check" in done.stdout and "slots: 2 2" in done.stdout
        assert ("(at most 77.6 % of such runs, 95 %)" in done.stdout) == (code == 0)


def test_every_benchmark_is_held_alive() -> None:
    found = {path.relative_to(BENCHMARKS).with_suffix("").as_posix() for path in BENCHMARKS.rglob("*.py")}
    assert found == {*SMALLEST, *STARTED, *PARTS}

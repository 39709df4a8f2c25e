"""Everything killed, one worker killed, all stopped in the middle of a run: the same command gives the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys

import forking
import pytest
from small_run import DEMO, digest, make_profile, runbook, runbook_here, undisturbed
from waiting import wait_for

from runbook_lib.phases import workers
from runbook_lib.run import opening
from worker import process
from worker.layout import HostFolder


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The digest of the vectors of a run that nothing disturbed."""
    return undisturbed(tmp_path_factory).digest


def test_everything_killed_in_the_middle_and_the_same_command_gives_the_same_bytes(reference, tmp_path):
    path = make_profile(tmp_path / "killed")
    command = [sys.executable, "-m", "runbook_lib.cli", "run", str(path)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = wait_for(lambda: sorted((path.parent / "shared").glob("*/parts/*.json")), "a part", 120)
    reports = [json.loads(path.read_text()) for path in parts[0].parents[1].glob("progress/*.json")]
    victims = [report["process"] for report in reports if "process" in report]
    assert len(victims) == 4  # two workers, two supervisors
    os.kill(driver.pid, signal.SIGKILL)
    for victim in victims:
        process.send(victim, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not any(process.alive(victim) for victim in victims), "all are dead", 120)

    said = runbook("run", path, cwd=path.parent)
    (folder,) = (path.parent / "runs").iterdir()
    this = opening.open_folder(folder)
    assert "01_preflight: its result holds, not run again" in said
    assert digest(this) == reference
    assert this.finished


def test_a_worker_killed_while_watched_is_one_incident_with_its_cause_and_its_end(tmp_path):
    path = make_profile(tmp_path / "incident")
    shutil.copy(DEMO / "corpus.jsonl", path.parent / "corpus.jsonl")  # long enough to be watched
    command = [forking.python(), "-m", "runbook_lib.cli", "run", str(path)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = wait_for(lambda: next((path.parent / "runs").glob("*/journal.jsonl"), None), "a journal", 120).parent
    this = opening.open_folder(folder)
    wait_for(lambda: next(this.journal.events("watching"), None), "it watches", 120)
    victim = json.loads(HostFolder(path.parent / "shared" / this.name).progress("cluster0_gpu0").read_text())["process"]
    assert process.send(victim, signal.SIGKILL)
    assert driver.wait(600) == 0
    (began,) = (event for event in this.journal.events("slot in trouble") if event["slot"] == "cluster0_gpu0")
    assert (began["verdict"], began["host"]) == ("died", "one")  # no memory killer was counted there
    assert "killed (SIGKILL): the system's memory killer, or a person" in began["cause"]
    (ended,) = (event for event in this.journal.events("slot recovered") if event["slot"] == "cluster0_gpu0")
    assert 0.2 < ended["seconds_lost"] < 60 and ended["rows_again"] <= 8
    log = (this.notes / "failures.log").read_text()
    assert "slot in trouble: slot: cluster0_gpu0; host: one; verdict: died; cause: killed (SIGKILL)" in log
    assert "slot recovered: " in log
    runbook_here("verify", this.folder, cwd=path.parent)


def test_a_stopped_run_says_so_and_goes_on_with_the_same_command(reference, tmp_path):
    path = make_profile(tmp_path / "stopped")
    command = [forking.python(), "-m", "runbook_lib.cli", "run", str(path)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: sorted((path.parent / "shared").glob("*/parts/*.json")), "a part", 120)
    (folder,) = (path.parent / "runs").iterdir()
    assert workers.stop(opening.open_folder(folder)).ok
    said, _ = driver.communicate(timeout=600)
    this = opening.open_folder(folder)
    if driver.returncode:  # it may have been done before the stop arrived
        assert "stopped" in said
        runbook("run", path, cwd=path.parent)
    assert digest(this) == reference

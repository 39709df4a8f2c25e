"""A third machine is added at 30 % of a real run that a command drives: it shares the rest, and the bytes are equal."""

import os
import signal
import subprocess

import forking
import pytest
import yaml
from small_run import DEMO, digest, make_profile, runbook
from waiting import wait_for

from runbook_lib.hosts import hosts
from runbook_lib.run import opening
from worker.layout import committed

COUNT, JOINS_AT = 360, 0.3


def prepared(folder):
    """The small run's profile with more documents, and a folder of its own for each host."""
    file = make_profile(folder)
    lines = (DEMO / "corpus.jsonl").read_text().splitlines(keepends=True)
    (folder / "corpus.jsonl").write_text("".join(lines[:COUNT]))
    value = yaml.safe_load(file.read_text())
    for host in value["hosts"]:
        host["workdir"] = host["name"]
    file.write_text(yaml.safe_dump(value))
    return file


def only_run(folder):
    (found,) = (folder / "runs").iterdir()
    return opening.open_folder(found)


def signal_workers(this, number):
    for spec in this.profile.hosts:
        host = hosts.connect(spec, this.name)
        for identity in host.workers(host.poll()):
            os.kill(identity["pid"], number)


def rows_there(folder, name):
    found = list((folder / "runs").glob("*"))
    parts = folder / name / found[0].name / "parts" if found else folder
    return sum(stop - start for start, stop in committed(parts)) if parts.is_dir() else 0


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The digest of the run without the third machine."""
    here = tmp_path_factory.mktemp("two")
    runbook("run", prepared(here), cwd=here)
    return digest(only_run(here))


def test_a_third_machine_shares_the_rest_and_the_bytes_are_those_of_the_run_without_it(alone, tmp_path):
    file = prepared(tmp_path)
    words = [forking.python(), "-m", "runbook_lib.cli", "run", str(file)]
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    wait_for(lambda: rows_there(tmp_path, "one") + rows_there(tmp_path, "two") >= JOINS_AT * COUNT, "30 % is done", 240)
    this = only_run(tmp_path)
    signal_workers(this, signal.SIGSTOP)  # the next commands take longer to start than the rows to compute
    value = yaml.safe_load(file.read_text())
    value["hosts"].append({**value["hosts"][0], "name": "three", "workdir": "three"})
    file.write_text(yaml.safe_dump(value))
    said = runbook("run", file, cwd=tmp_path, code=1)
    assert "is being driven already (by process" in said and "--take-over" in said and "hosts.three" in said
    assert "three" not in [spec.name for spec in only_run(tmp_path).profile.hosts], "nothing was changed"
    with (tmp_path / "second.log").open("w") as log:
        second = subprocess.Popen(
            [*words, "--take-over"], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    wait_for(lambda: list(this.journal.events("host joined")), "three joined", 240)
    wait_for(lambda: rows_there(tmp_path, "three"), "three has computed something", 240)
    signal_workers(this, signal.SIGCONT)
    assert second.wait(300) == 0, (tmp_path / "second.log").read_text()
    assert first.wait(60) == 130
    done = only_run(tmp_path)
    (joined,) = done.journal.events("host joined")
    assert joined["host"] == "three" and joined["rows"] > 0
    assert digest(done) == alone
    assert "FAILED" not in runbook("verify", done.folder, cwd=tmp_path)
    assert "three joined" in (done.report / "report.html").read_text()

"""What a run was made with: this machine, the hosts by their own word, the code, and the model's files."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

import made_up
import pytest

from runbook_lib import records
from runbook_lib.report import made_with
from runbook_lib.report.made_with import MadeWith, ModelFiles
from runbook_lib.run import origin


@pytest.fixture
def found(tmp_path: Path) -> MadeWith:
    run = made_up.run_folder(tmp_path, count=4).run
    run.save_json("hosts.json", {"hosts": {"here": {"system": "Linux 6", "device": "cpu"}}})
    answer = {"python": "3.11.7", "device": "cpu (AVX2)", "packages": {"torch": "2.13.0\x1b[31m"}}
    run.save_json("probe_here.json", {"host": "here", "answer": answer})
    run.save_json(made_with.MODEL, {"name": "owner/model", "licence": "mit", "files": {"model.safetensors": "0" * 64}})
    written = records.read(MadeWith, made_with.write(run))
    assert written == made_with.gather(run)
    assert written is not None
    return written


def test_all_packages_of_this_machine_are_there_with_their_versions(found: MadeWith) -> None:
    assert found.here.packages["numpy"] == importlib.metadata.version("numpy")
    assert len(found.here.packages) > 20


def test_a_host_is_described_by_its_probe_safe_to_print(found: MadeWith) -> None:
    here = found.hosts["here"]
    assert (here.system, here.python, here.devices) == ("Linux 6", "3.11.7", ("cpu (AVX2)",))
    assert here.packages == {"torch": "2.13.0\\x1b[31m"}


@pytest.mark.parametrize("told", [["torch"], "torch", 5])
def test_a_host_whose_packages_are_no_list_of_versions_stops_no_seal(tmp_path: Path, told: object) -> None:
    run = made_up.run_folder(tmp_path, count=4).run
    run.save_json("hosts.json", {"hosts": {"here": {"device": "cpu"}}})
    run.save_json("probe_here.json", {"host": "here", "answer": {"packages": told, "versions": {"torch": "2.13.0"}}})
    assert made_with.gather(run).hosts["here"].packages == {"torch": "2.13.0"}


def test_the_model_is_what_preflight_found(found: MadeWith) -> None:
    assert found.model == ModelFiles("owner/model", "", "", "mit", {"model.safetensors": "0" * 64})


@pytest.mark.process
def test_the_commit_is_that_of_this_checkout_and_is_kept_once(tmp_path: Path) -> None:
    run = made_up.run_folder(tmp_path, count=4).run
    made_with.keep_source(run)
    made_with.keep_source(run)
    assert len(list(run.journal.events("record written"))) == 1
    found = made_with.gather(run).source
    argv = ["git", "-C", str(origin.ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert found.commit == (done.stdout.strip() if done.returncode == 0 else "")
    assert (found.dirty is None) == (not found.commit)
    assert found.version == importlib.metadata.version(origin.PROJECT)


def test_of_a_run_of_before_less_is_known_and_nothing_fails(tmp_path: Path) -> None:
    run = made_up.run_folder(tmp_path, count=4).run
    assert made_with.gather(run).model == ModelFiles() and made_with.gather(run).hosts == {}

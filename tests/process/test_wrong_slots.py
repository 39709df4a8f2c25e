"""A slot that computes wrong is fenced, others do its rows, and the run ends right by itself."""

from __future__ import annotations

import json
from pathlib import Path

import forking
import numpy as np
import pytest
from small_run import by_the_library, make_profile, runbook
from wrong_slot import host_python

from runbook_lib.run import opening
from runbook_lib.run.run import Run
from worker.files import read_json
from worker.layout import committed


def made(folder: Path, harm: str, others: int = 1) -> Path:
    """The profile of a run on two hosts: the second one's slot does this harm."""
    profile = make_profile(folder)
    text = profile.read_text().replace("slots: 1, device: cpu, threads: 1, workdir: shared}", "SLOT}")
    text = text.replace("SLOT}", f"slots: {others}, device: cpu, threads: 1, workdir: one}}", 1)
    python = host_python(folder, harm, forking.python())
    text = text.replace("SLOT}", f"slots: 1, device: cpu, threads: 1, workdir: two, environment: {python}}}")
    profile.write_text(text)
    return profile


def ended(profile: Path, code: int = 0) -> tuple[Run, str]:
    said = runbook("run", profile, cwd=profile.parent, code=code)
    (folder,) = (profile.parent / "runs").iterdir()
    return opening.open_folder(folder), said


def far_off(this: Run) -> float:
    """How far the worst row of the result is from the library's own vector: 1 - cosine."""
    expected = by_the_library(this.profile.corpus.path)
    found = np.load(this.merged / "embeddings.npy").astype(np.float64)
    return float((1 - (found * expected).sum(axis=1)).max())


def test_what_the_audit_finds_is_done_again_by_another_host_and_the_run_ends_right(tmp_path: Path) -> None:
    this, said = ended(made(tmp_path, "noise"))
    assert "fenced" in said and "All checks hold" in said
    assert far_off(this) < 1e-6
    (fenced,) = this.journal.events("slot fenced")
    assert fenced["slot"] == "cluster1_gpu0" and "is off by" in fenced["reason"]
    records = [read_json(this.local.part(*part).with_suffix(".json")) for part in committed(this.local.parts)]
    assert {record["slot"] for record in records} == {"cluster0_gpu0"}
    assert sum(1 for _ in this.journal.events("audit drawn")) == 2
    assert "cluster1_gpu0" in (this.report / "report.html").read_text()
    checks = json.loads((this.report / "validation.json").read_text())["checks"]
    assert any(each["name"] == "slots that were found wrong" and each["warn"] for each in checks)
    assert "FAILED" not in runbook("verify", this.folder, cwd=this.folder)


@pytest.mark.parametrize("harm", ["noise"])
def test_where_no_other_slot_is_left_the_run_stops_and_says_so(tmp_path: Path, harm: str) -> None:
    profile = made(tmp_path, harm)
    lines = [line for line in profile.read_text().splitlines() if "name: one," not in line]
    profile.write_text("\n".join(lines) + "\n")
    this, said = ended(profile, code=1)
    assert "rows computed again after all parts were home" in said and "off by" in said
    assert not list(this.journal.events("slot fenced"))


def test_what_known_texts_show_is_fenced_before_its_first_part_counts(tmp_path: Path) -> None:
    this, said = ended(made(tmp_path, "noise", others=2))
    (fenced,) = this.journal.events("slot fenced")
    assert fenced["slot"] == "cluster1_gpu0" and "otherwise than on 2 of 2 other slots" in fenced["reason"]
    assert far_off(this) < 1e-6 and "All checks hold" in said
    assert sum(1 for _ in this.journal.events("audit drawn")) == 1  # nothing was left for it to find
    assert not any(event["phase"] == "04_merge_validate" for event in this.journal.events("phase failed"))
    checks = {each["name"]: each for each in json.loads((this.report / "validation.json").read_text())["checks"]}
    assert "cluster1_gpu0" in checks["known texts alike on every slot"]["seen"]
    assert "FAILED" not in runbook("verify", this.folder, cwd=this.folder)

"""A batch of each slot done again by another one: the same bits from a clean run, and what was changed is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from small_run import make_profile, runbook

from runbook_lib.corpus import corpus
from runbook_lib.errors import DataError
from runbook_lib.phases import audit, doubled, elsewhere
from runbook_lib.result.audited import ELSEWHERE
from runbook_lib.result.figures import Figures
from runbook_lib.result.merged import Merged
from runbook_lib.run import opening
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import Run

pytestmark = pytest.mark.usefixtures("forks")
SLOTS = ("cluster0_gpu0", "cluster1_gpu0")
PARTNERS = dict(zip(SLOTS, reversed(SLOTS), strict=True))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of this module alone: its hosts' folders are needed, and another's are taken away."""
    profile = make_profile(tmp_path_factory.mktemp("doubled"))
    runbook("run", profile, cwd=profile.parent)
    (folder,) = (profile.parent / "runs").iterdir()
    return folder


def drawn(this: Run, monkeypatch: pytest.MonkeyPatch) -> doubled.Drawn:
    """What comes of it when the folders of this machine count as two machines."""
    monkeypatch.setattr(elsewhere, "partners", lambda *a: PARTNERS)
    manifest = Merged(this.merged).manifest()
    assert manifest is not None
    return doubled.twice(this, this.plan(), corpus.load(this.corpus), manifest.parts, "5eed" * 16)


def test_a_clean_run_gives_the_same_bits_and_one_changed_bit_is_seen(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = opening.open_folder(finished)
    found = drawn(this, monkeypatch)
    assert {(each.slot, each.by, each.error) for each in found.batches} == {(a, b, "") for a, b in PARTNERS.items()}
    assert all(each.rows and each.equal == each.rows and each.furthest == 0.0 for each in found.batches)
    assert not any(each.exact for each in found.batches)  # a processor promises no bits
    checks = Checks("a")
    doubled.tell(checks, found, {})
    assert checks.ok and not checks.failed and "2 of 2 slots" in checks.items[0].seen
    copy = Run(shutil.copytree(finished, tmp_path / "copy" / finished.name), this.profile)
    for each in found.batches:
        path = copy.local.parts / each.part
        vectors = np.load(path)
        if each.slot == SLOTS[0]:
            vectors.view(np.uint32)[:, 3] ^= 1  # the last bit of one number of each row
        else:
            vectors += 1e-2  # what the audit would call wrong
        np.save(path, vectors)
    harmed = {each.slot: each for each in drawn(copy, monkeypatch).batches}
    assert harmed[SLOTS[0]].equal == 0 and not harmed[SLOTS[0]].far
    far = harmed[SLOTS[1]]
    assert set(far.far) and far.rows == len(far.far)
    for right, ok in ({}, False), (dict.fromkeys(far.far, True), True), (dict.fromkeys(far.far, False), False):
        checks = Checks("a")
        doubled.tell(checks, doubled.Drawn("", (far,)), right)
        assert checks.ok is ok and f"{SLOTS[1]} ({far.part}) and {SLOTS[0]} differ" in checks.items[0].seen


def test_rows_that_this_machine_cannot_compute_are_computed_by_other_slots(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = Run(shutil.copytree(finished, tmp_path / finished.name), opening.open_folder(finished).profile)
    monkeypatch.setattr(elsewhere, "partners", lambda *a: PARTNERS)
    monkeypatch.setattr(audit, "model_at_hand", _gone)
    checks = Checks("a")
    shown = audit.after_all_parts(this, Merged(this.merged), checks, Figures(), True).audit
    assert checks.ok and shown is not None and shown.where == ELSEWHERE and shown.share_at_most == 0.0  # all rows
    assert shown.uniform == this.plan().rows and shown.furthest is not None and shown.furthest < 1e-9
    path = this.merged / "embeddings.npy"
    vectors = np.load(path)
    vectors[[3, 50]] = vectors[[50, 3]]
    np.save(path, vectors)
    checks = Checks("a")
    shown = audit.after_all_parts(this, Merged(this.merged), checks, Figures(), True).audit
    assert shown is not None and shown.wrong == 2 and not this.plan().fences  # two slots differ: nobody is blamed
    assert "row 3 is off by" in str(list(checks)) and "row 50 is off by" in str(list(checks))


def _gone(*_: object) -> None:
    raise DataError("no such folder")


def test_where_a_host_cannot_do_it_that_is_said_and_nobody_is_blamed(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = opening.open_folder(finished)
    monkeypatch.setattr(elsewhere, "WITHIN_S", 0.01)
    found = drawn(this, monkeypatch)
    assert all(each.error for each in found.batches)
    checks = Checks("a")
    doubled.tell(checks, found, {})
    assert checks.ok and checks.items[0].warn and "not done: " in checks.items[0].seen

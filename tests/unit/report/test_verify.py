"""The verifier of one file: alone with Python and numpy, and of the same verdict as `runbook verify`."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import forking
import pytest
import real_run

from runbook_lib.report import verification, verify
from runbook_lib.result import done_twice
from runbook_lib.run import fences
from runbook_lib.run.run import PHASES, Run

ROOT = Path(__file__).parents[3]
FILE = Path(verify.__file__)
sys.path.append(str(ROOT / "benchmarks"))

import edits  # noqa: E402
import faults  # noqa: E402

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A sealed and signed run of the real model, and the reviewer's allowed signers."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    signers = folder / "allowed_signers"
    signers.write_text(f"owner {(folder / 'key.pub').read_text()}")
    with forking.own_python():
        return real_run.sealed(folder / "sealed", folder / "key"), signers


def alone(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the file from elsewhere, by an interpreter that finds nothing of ours."""
    code = [sys.executable, "-I", str(FILE), str(folder), *argv]
    return subprocess.run(code, capture_output=True, text=True, cwd=folder.parent, check=False)


def test_a_whole_archive_holds_and_what_was_not_looked_at_is_said(whole: tuple[Run, Path]) -> None:
    run, signers = whole
    done = alone(run.folder, "--allowed-signers", str(signers))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Run {run.name}, 60 documents, signed by owner: every byte is the sealed one" in done.stdout
    assert "Not looked at here:" in done.stdout and "FAILED" not in done.stdout


def test_it_imports_python_and_numpy_only() -> None:
    names = re.findall(r"^(?:import|from) ([a-z_]+)", FILE.read_text(), re.M)
    assert {*names} - {"numpy", "__future__"} <= {*sys.stdlib_module_names}


def test_the_archive_has_a_copy_and_the_release_notes_have_its_sum(whole: tuple[Run, Path]) -> None:
    sha256 = hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert hashlib.sha256((whole[0].folder / "verify.py").read_bytes()).hexdigest() == sha256
    assert f"sha256 `{sha256}`" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_bytes_that_are_no_archive_are_a_failure_in_words(tmp_path: Path) -> None:
    (tmp_path / "no").mkdir()
    done = alone(tmp_path / "no")
    assert done.returncode == 1 and "FAILED everything can be read" in done.stdout and not done.stderr


@pytest.mark.parametrize(("fenced", "said"), [("", "FAILED"), ("there_gpu0", "ok"), ("another", "FAILED")])
def test_rows_that_two_slots_did_differently_are_settled_when_one_of_them_is_fenced(
    whole: tuple[Run, Path], tmp_path: Path, fenced: str, said: str
) -> None:
    copy = Run(tmp_path / "copy", whole[0].profile)
    shutil.copytree(whole[0].folder, copy.folder)
    two = {"slot": "here_gpu0", "by": "there_gpu0"}
    copy.journal.write(done_twice.EVENT, host="there", start=0, stop=8, furthest=0.5, **two)
    if fenced:
        copy.journal.write(fences.FENCED, slot=fenced, host="there", reason="off")
    assert done_twice.check(copy.journal, "float32").ok is (said == "ok")
    assert re.search(rf"^{said} +rows that came home twice agree", alone(copy.folder).stdout, re.M)


def test_a_result_without_a_check_is_none(whole: tuple[Run, Path], tmp_path: Path) -> None:
    copy = Run(tmp_path / "copy", whole[0].profile)
    shutil.copytree(whole[0].folder, copy.folder)
    copy.save_result(PHASES[0], ok=True, checks=[])
    assert "01_preflight: has no check" in alone(copy.folder).stdout


# Each kind plainly and with all records made to agree; the ways between for some of them, as each takes seconds.
BETWEEN = [mode for mode in faults.MODES if mode not in ("plainly", "and the journal")]
CASES = [(edit, mode) for edit in edits.ARCHIVE for mode in ("plainly", "and the journal")]
CASES += [(edit, BETWEEN[number % len(BETWEEN)]) for number, edit in enumerate(edits.ARCHIVE)]


@pytest.mark.parametrize(("edit", "mode"), CASES, ids=[f"{edit.name}, {mode}" for edit, mode in CASES])
def test_its_verdict_is_that_of_runbook_verify(
    whole: tuple[Run, Path], edit: edits.Edit, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, signers = whole
    copy = Run(tmp_path / "copy", replace(run.profile, signing_key=None))
    shutil.copytree(run.folder, copy.folder)
    before = faults.forging.sums(copy)
    edit.do(copy)
    faults.hide(copy, mode, before)
    given = signers if mode == faults.MODES[-1] else None
    theirs = verification.verify(copy, signers=given)
    argv = ["verify.py", str(copy.folder), *(["--allowed-signers", str(given)] if given else [])]
    monkeypatch.setattr(sys, "argv", argv)
    assert (verify.main() == 0) == theirs.ok, theirs
    if mode == "plainly" or given:
        assert not theirs.ok

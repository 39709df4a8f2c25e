"""The list of sums is signed with the operator's own key, and verified with keys that only the reviewer brings."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import made_up
import pytest

from runbook_lib import cli
from runbook_lib.errors import DataError
from runbook_lib.report import archive, gate, report, signature, verification, verify
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import PHASES, Run
from worker.files import sha256_file

pytestmark = pytest.mark.process


def new_key(folder: Path, name: str, passphrase: str = "") -> Path:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(folder / name)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return folder / name


def alone(run: Run, signers: Path | None) -> subprocess.CompletedProcess[str]:
    """What the verifier of one file says."""
    code = [sys.executable, "-I", verify.__file__, str(run.folder)]
    code += ["--allowed-signers", str(signers)] if signers else []
    return subprocess.run(code, capture_output=True, text=True, check=False)


def allowed(folder: Path, **keys: Path) -> Path:
    path = folder / "allowed_signers"
    path.write_text("".join(f"{name} {key.with_suffix('.pub').read_text()}" for name, key in keys.items()))
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "mallory"):
        new_key(folder, name)
    return folder


@pytest.fixture(scope="module")
def signed_once(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Run:
    made = made_up.run_folder(tmp_path_factory.mktemp("signed"), count=8)
    made.commit_all()
    this = replace(made.run, profile=replace(made.run.profile, signing_key=keys / "alice"))
    for phase in PHASES[:3]:
        checks = Checks("a fact")
        checks.add("a fact", True, "seen")
        gate.gate(this, phase, checks)
    this.save_json("hosts.json", {"hosts": {}})
    done = made_up.published(this)
    gate.gate(this, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    report.seal(this)
    return this


@pytest.fixture
def this(signed_once: Run, tmp_path: Path) -> Run:
    shutil.copytree(signed_once.folder, tmp_path / signed_once.name)
    return Run(tmp_path / signed_once.name, signed_once.profile)


def the_check(run: Run, signers: Path | None = None) -> tuple[bool, str]:
    (check,) = [check for check in verification.verify(run, signers=signers) if check.name == signature.NAME]
    return check.ok, check.seen


def test_the_signer_is_named_by_the_reviewers_own_file(this: Run, keys: Path, tmp_path: Path) -> None:
    ok, seen = the_check(this, allowed(tmp_path, **{"alice@lab": keys / "alice"}))
    assert ok and "good, by alice@lab with ED25519 key SHA256:" in seen
    said = verification.verify(this, signers=allowed(tmp_path, alice=keys / "alice")).stamp
    assert ", signed by alice with " in said


def test_without_such_a_file_only_the_key_is_named(this: Run) -> None:
    ok, seen = the_check(this)
    assert ok and "SHA256:" in seen and "--allowed-signers" in seen


def test_a_stranger_is_refused(this: Run, keys: Path, tmp_path: Path) -> None:
    ok, _ = the_check(this, allowed(tmp_path, mallory=keys / "mallory"))
    assert not ok


@pytest.mark.parametrize("how", ["a new list", "signed by another", "no signature", "a file of the archive", "cut"])
def test_whoever_makes_the_list_anew_cannot_sign_it(this: Run, keys: Path, tmp_path: Path, how: str) -> None:
    """Somebody with the archive, the software and all time, but without the key."""
    signers = allowed(tmp_path, alice=keys / "alice")
    if how == "a file of the archive":
        signers = allowed(this.folder, alice=keys / "alice")
    elif how == "cut":
        signature.file_of(this).write_bytes(signature.file_of(this).read_bytes()[:100])
    else:
        (this.notes / "failures.log").write_text("all was well\n")
        archive.write_sums(this)
        if how == "signed by another":
            signature.sign(replace(this, profile=replace(this.profile, signing_key=keys / "mallory")))
        elif how == "no signature":
            signature.sign(replace(this, profile=replace(this.profile, signing_key=None)))
            assert not signature.file_of(this).exists()
    ok, _ = the_check(this, signers)
    assert not ok


@pytest.mark.parametrize("file", ["notes/failures.log", "report/one_more.html"])
@pytest.mark.parametrize("trusted", [True, False])
def test_a_line_added_to_the_journal_vouches_for_no_file_of_a_signed_run(
    this: Run, keys: Path, tmp_path: Path, file: str, trusted: bool
) -> None:
    """Anybody can add a line that follows the sealed ones, without touching the signed list."""
    signers = allowed(tmp_path, alice=keys / "alice") if trusted else None
    (this.folder / file).write_text("all was well\n")
    this.journal.write("record written", wrote={file: sha256_file(this.folder / file)})
    failed = verification.verify(this, signers=signers).failed
    assert [(check.name, check.seen) for check in failed] == [(archive.CHANGED, file)]
    shown = alone(this, signers)
    assert shown.returncode == 1 and f"{file}: written after the list was signed" in shown.stdout


def test_an_unsigned_run_says_so_on_the_first_line_of_its_report(this: Run, keys: Path) -> None:
    page = (this.report / "report.html").read_text()
    assert "<body>" in page and page.partition("<header>")[2].startswith("<p>Signed with ED25519 SHA256:")
    unsigned = replace(this, profile=replace(this.profile, signing_key=None))
    report.seal(unsigned)
    assert (this.report / "report.html").read_text().partition("<header>")[2].startswith("<p>Not signed: ")
    assert the_check(this) == (True, "there is none")
    assert ", not signed; " in verification.verify(this).stamp


@pytest.mark.parametrize("how", ["a passphrase", "no such key", "no key"])
def test_a_key_that_cannot_sign_is_told_before_the_seal(this: Run, tmp_path: Path, how: str) -> None:
    path = tmp_path / "nowhere"
    if how == "a passphrase":
        path = new_key(tmp_path, "locked", "a long passphrase")
    elif how == "no key":
        path.write_text("not a key")
        path.chmod(0o600)
    before = sha256_file(this.sums), sha256_file(this.journal.path)
    with pytest.raises(DataError, match="was not sealed"):
        report.seal(replace(this, profile=replace(this.profile, signing_key=path)))
    assert (sha256_file(this.sums), sha256_file(this.journal.path)) == before


def test_the_command_ends_with_one_sentence(
    this: Run, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signers = allowed(tmp_path, alice=keys / "alice")
    assert cli.main(["verify", str(this.folder), "--allowed-signers", str(signers)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert ", signed by alice with ED25519 key SHA256:" in last and "Not proved: " in last and last.endswith(".")
    assert "who made this" not in last
    (this.notes / "failures.log").write_text("all was well\n")
    assert cli.main(["verify", str(this.folder), "--allowed-signers", str(signers)]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"Run {this.plan().run}: NOT PROVED: ")


def test_a_signature_that_was_taken_away_is_missed_by_the_sealing(this: Run) -> None:
    signature.file_of(this).unlink()
    ok, seen = the_check(this)
    assert not ok and "there is none, and the sealing says it was signed with ED25519 SHA256:" in seen


def test_another_key_than_the_sealing_names_is_told_to_those_who_bring_none(this: Run, keys: Path) -> None:
    signature.sign(replace(this, profile=replace(this.profile, signing_key=keys / "mallory")))
    ok, seen = the_check(this)
    assert not ok and "; the sealing says it was signed with ED25519 SHA256:" in seen

"""A verification's result for programs: the steps that hold, signed with the reviewer's key."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import validators

from runbook_lib.report import signature, svr, verification
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import Run
from worker.files import sha256_file


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "SHA256SUMS").write_text("the list\n")
    return Run(tmp_path / "run", None)  # type: ignore[arg-type]


def checks(**more: bool) -> Checks:
    found = Checks("verify")
    found.add("every file as listed", True, "the same sha256 for each")
    found.add(verification.STORED, True, "15 groups")
    found.add(verification.ONCE_MORE, True, "not at hand", warn=True)
    found.add(signature.NAME, True, "good, by alice with ED25519 key SHA256:x")
    for name, ok in more.items():
        found.add(name, ok, "seen")
    return found


def test_what_holds_is_a_property_and_a_warning_is_none() -> None:
    found = svr.properties(checks(), Path("signers"))
    wanted = ("BYTES_AS_SEALED", "FIGURES_FOLLOW_FROM_FILES", "SIGNED_BY_A_KEY_THAT_WAS_BROUGHT")
    assert found == [f"EMBEDDING_RUNBOOK_{name}" for name in wanted]


def test_a_signature_that_nobody_vouches_for_is_none() -> None:
    assert not any("SIGNED" in name for name in svr.properties(checks(), None))


def test_with_a_failed_check_nothing_is_verified() -> None:
    assert svr.properties(checks(another=False), Path("signers")) == []


@pytest.mark.process
def test_the_statement_is_of_the_list_and_signed(run: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    path, signed = svr.write(tmp_path / "result.json", run, checks(), None, key)
    statement = json.loads(path.read_text())
    assert statement["predicateType"] == "https://in-toto.io/attestation/svr/v0.1"
    assert statement["subject"] == [{"name": "SHA256SUMS", "digest": {"sha256": sha256_file(run.sums)}}]
    assert set(statement["predicate"]) == {"verifier", "timeCreated", "properties", "sentence"}
    signers = tmp_path / "signers"
    signers.write_text(f"me {key.with_suffix('.pub').read_text()}")
    argv = ["ssh-keygen", "-Y", "verify", "-n", signature.NAMESPACE, "-f", str(signers), "-I", "me", "-s", str(signed)]
    with path.open("rb") as given:
        assert subprocess.run(argv, stdin=given, capture_output=True, check=False).returncode == 0


@pytest.mark.process
def test_it_is_one_of_in_toto(run: Run, tmp_path: Path) -> None:
    (path,) = svr.write(tmp_path / "result.json", run, checks(), None, None)
    validators.statement(path)

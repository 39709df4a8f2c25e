"""The result of a verification for programs: an in-toto statement with a Simple Verification Result (in-toto.io).

Its subject is the archive's list of sums, its properties are the steps that hold; there are none if a check failed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from worker.files import sha256_file, write_atomic

from ..result import texts_again
from ..run.checks import Checks
from ..run.run import Run
from . import archive, signature, verification, witness
from .descriptions import BUILDER, STATEMENT

PREDICATE = "https://in-toto.io/attestation/svr/v0.1"
PREFIX = "EMBEDDING_RUNBOOK_"
STEPS = {  # of a check by its name -> the property that it gives where it holds without a warning
    archive.LISTED: "BYTES_AS_SEALED",  # with --quick the check has another name
    verification.STORED: "FIGURES_FOLLOW_FROM_FILES",
    verification.DRAWN: "AUDIT_DRAWN_AFTER_ALL_PARTS",
    verification.ONCE_MORE: "ROWS_COMPUTED_AGAIN",
    texts_again.SOURCE: "DOCUMENTS_AS_IN_SOURCE",
    witness.NAME: "SEAL_KEPT_BY_ALL_HOSTS",
}


def write(path: Path, run: Run, checks: Checks, signers: Path | None, key: Path | None) -> list[Path]:
    """Write the result under `path`, sign it with `key` if there is one, and return what was written.

    Raises DataError if it cannot be signed, OSError if it cannot be written.
    """
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": run.sums.name, "digest": {"sha256": sha256_file(run.sums)}}],
        "predicateType": PREDICATE,
        "predicate": {
            "verifier": {"id": f"{BUILDER}:verify:1"},
            "timeCreated": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "properties": properties(checks, signers),
            "sentence": checks.stamp,
        },
    }
    write_atomic(path, json.dumps(statement, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))
    return [path, *([signature.sign_file(path, key)] if key else [])]


def properties(checks: Checks, signers: Path | None) -> list[str]:
    """Return what is verified, in the words of programs."""
    if checks.failed:
        return []
    verified = [name for check in checks if not check.warn and (name := STEPS.get(check.name))]
    signed = [check for check in checks if check.name == signature.NAME and check.seen.startswith("good, by ")]
    verified += ["SIGNED_BY_A_KEY_THAT_WAS_BROUGHT"] if signed and signers else []
    return [f"{PREFIX}{name}" for name in verified]

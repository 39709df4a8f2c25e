"""The signature of the list of sums, by the operator's own SSH key: `ssh-keygen` signs and verifies, nothing else does.

Whoever verifies brings the keys that he trusts, as a file in the form of ssh's `allowed_signers`. One that lies in the
archive is refused: it would be the word of whoever made the archive.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from worker.escape import safe_text

from ..errors import DataError
from ..result.sealed import SEALED, SIGNATURE
from ..run.checks import Checks
from ..run.run import Run

NAME = "signature of the list"
NAMESPACE = "embedding-runbook"
WHOSE = "; whose key it is --allowed-signers FILE says"
SIGN_S = 60.0
NOT_SIGNED = (
    "Not signed: whoever may write all of its files may write a new list of sums too (signing_key in the profile)"
)


def file_of(run: Run) -> Path:
    """Return where the signature is: beside the list, and in no list."""
    return run.sums.with_name(f"{run.sums.name}{SIGNATURE}")


def in_words(run: Run) -> str:
    """Return by whom a run is to be signed, for the first line of its report."""
    key = run.profile.signing_key
    try:
        return f"Signed with {fingerprint(key)}: {file_of(run).name}" if key else NOT_SIGNED
    except DataError as error:
        return f"Not signed: {error}"


def fingerprint(key: Path) -> str:
    """Return the kind and fingerprint of a key. Raises DataError if it is none."""
    words = _keygen(["-l", "-f", str(key)], f"reading the signing key {key}").split()
    return f"{words[-1].strip('()')} {words[1]}" if len(words) >= 3 else safe_text(" ".join(words), 200)


def try_key(run: Run) -> None:
    """Sign something with the profile's key, if there is one: a run is not sealed to find then that it cannot be used.

    A key with a passphrase has to be in an ssh-agent, and its public file be named. Raises DataError.
    """
    key = run.profile.signing_key
    if key is not None:
        with tempfile.TemporaryDirectory() as folder:
            trial = Path(folder, "trial")
            trial.write_bytes(b"trial")
            doing = f"signing_key {key} cannot sign, so run {run.name} was not sealed"
            _keygen(["-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(trial)], doing)


def sign(run: Run) -> None:
    """Sign the list with the profile's key, or take away what signed an earlier one if there is no key.

    Raises DataError.
    """
    target, key = file_of(run), run.profile.signing_key
    target.unlink(missing_ok=True)
    if key is not None:
        doing = f"{run.sums} is sealed and could not be signed with {key}"
        _keygen(["-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(run.sums)], doing)


def sign_file(path: Path, key: Path) -> Path:
    """Sign any file with a key, and return where the signature is. Raises DataError."""
    target = path.with_name(f"{path.name}{SIGNATURE}")
    target.unlink(missing_ok=True)
    _keygen(["-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(path)], f"signing {path} with {key}")
    return target


def check(checks: Checks, run: Run, signers: Path | None) -> None:
    """Verify the signature by the reviewer's `signers`; without them only say which key it was made with."""
    there = file_of(run).is_file()
    if signers is not None and signers.resolve().is_relative_to(run.folder.resolve()):
        remedy = "bring a file of your own: this one is the word of whoever made the archive"
        checks.add(NAME, False, f"{signers} lies in the archive itself", "", remedy)
    elif not there:
        remedy = "have its owner sign it: signing_key in the profile, runbook report"
        if stated := _stated(run):
            checks.add(NAME, False, f"there is none, and the sealing says it was signed with {stated}", "", remedy)
        else:
            checks.add(NAME, signers is None, "there is none", "", remedy)
    else:
        try:
            said, stated = _signed_by(run, signers), _stated(run)
            other = signers is None and stated and stated.split()[-1] not in said
            more = f"; the sealing says it was signed with {stated}" if other else ""
            checks.add(NAME, not other, said + more, "", "ask its owner for the archive again")
        except DataError as error:
            checks.add(NAME, False, error, "a signature of the list as it is", "ask its owner for the archive again")


def claimed(run: Run) -> bool:
    """Return whether there is a signature, or the sealing says that there was one."""
    return file_of(run).is_file() or bool(_stated(run))


def _stated(run: Run) -> str:
    """Return the key that the last sealing names; empty if it names none, as in earlier versions."""
    sealings = list(run.journal.events(SEALED))
    return safe_text(str(sealings[-1].get("signed") or ""), 200) if sealings else ""


def _signed_by(run: Run, signers: Path | None) -> str:
    given = ["-n", NAMESPACE, "-s", str(file_of(run))]
    doing = f"verifying {file_of(run).name}"
    if signers is None:
        said = _keygen(["-Y", "check-novalidate", *given], doing, run.sums)
        return f"good, by {said.rpartition(' with ')[2]}{WHOSE}"
    found = _keygen(["-Y", "find-principals", "-s", str(file_of(run)), "-f", str(signers)], doing).splitlines()
    if not found:
        raise DataError(f"{doing}: the key is not in {signers}")
    said = _keygen(["-Y", "verify", *given, "-f", str(signers), "-I", found[0]], doing, run.sums)
    return f"good, by {found[0]} with {said.rpartition(' with ')[2]}"


def _keygen(argv: Sequence[str], doing: str, stdin: Path | None = None) -> str:
    """Run ssh-keygen, which may ask nobody, and return what it printed. Raises DataError."""
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}
    try:
        with (stdin or Path(os.devnull)).open("rb") as given:
            done = subprocess.run(
                ["ssh-keygen", *argv], stdin=given, capture_output=True, timeout=SIGN_S, env=environment,
                start_new_session=True, check=False,
            )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise DataError(f"{doing}: ssh-keygen: {safe_text(str(error), 200)}; install OpenSSH 8.2 or newer") from None
    out, err = (safe_text(raw.decode(errors="replace").strip(), 1000) for raw in (done.stdout, done.stderr))
    if done.returncode:
        raise DataError(f"{doing}: {' / '.join([*err.splitlines(), *out.splitlines()][:3]) or 'ssh-keygen refused'}")
    return out

"""The host keys that we trust. A host that shows any other key is refused.

Files are read line by line, as OpenSSH reads them: names, wildcards, negations, hashed names, @revoked. A line that
cannot be read is ignored, and the others still count. There is also a file of our own, the pins: `NAME SHA256:...`,
written by `runbook trust`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from worker.escape import safe_text
from worker.files import write_atomic

from ...errors import ProfileError
from ...profile import rules
from ...profile.secret import read_private
from .login import FINGERPRINT, Login, public_key
from .login import fingerprint as fingerprint
from .refused import HostKeyRefused

PINS = "RUNBOOK_TRUSTED_HOSTS"
NAME = re.compile(r"(?![-#@|])[^\s,*?!]{1,255}")
LARGEST_FILE = 16 * 2**20
MOST_NOTES = 3
# Key types in the order they are asked for, each with the signatures that prove it; never SHA-1.
PROOFS = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
# Where OpenSSH's server keeps its keys.
ITS_FILES = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}


@dataclass(frozen=True)
class KnownKey:
    """A key of the host in a known_hosts file."""

    file: Path
    line: int
    key_type: str
    blob: bytes
    revoked: bool

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Pin:
    """A fingerprint in our own file."""

    where: str
    fingerprint: str


@dataclass(frozen=True)
class HostKeys:
    """The known keys of one host; `revoked` ones are not in `trusted`. `notes`: about lines that were left out."""

    login: Login
    trusted: tuple[KnownKey, ...]
    revoked: tuple[KnownKey, ...]
    pin: Pin | None
    notes: tuple[str, ...]

    def types(self) -> tuple[str, ...]:
        """Return the signatures to ask the host for, best first: those of the known keys; empty if any will do."""
        pinned = self.login.host_key
        wanted = {key.key_type for key in self.trusted if pinned in (None, fingerprint(key.blob))}
        return tuple(proof for key_type, proofs in PROOFS.items() if key_type in wanted for proof in proofs)

    def check(self, key_type: str, blob: bytes) -> None:
        """Raise HostKeyRefused unless the key that the host offers is trusted. A revoked key never is."""
        offered = fingerprint(blob)
        for key in self.revoked:
            if key.blob == blob:
                self._refuse(
                    f"the host key of {self.login.known_as}, {key_type} {offered}, is revoked ({key.where}), so "
                    "nothing was sent to it. Whoever has that key can pose as this machine: ask its owner for a new one"
                )
        if self.login.host_key:
            if offered != self.login.host_key:
                self._changed(key_type, offered, [f"{self.login.host_key} (`host_key` in its credentials file)"])
        elif not (self.pin and self.pin.fingerprint == offered) and all(key.blob != blob for key in self.trusted):
            known = [f"{key.key_type} {fingerprint(key.blob)} ({key.where})" for key in self.trusted]
            known += [f"{self.pin.fingerprint} ({self.pin.where})"] if self.pin else []
            if known:
                self._changed(key_type, offered, known)
            self._unknown(key_type, offered)

    def _unknown(self, key_type: str, offered: str) -> NoReturn:
        self._refuse(
            f"the host key of {self.login.known_as} is not known here, so nothing was sent to it: seen {key_type} "
            f"{offered}. Compare it with what the machine's owner says ({there(key_type)}). If it is the same:\n"
            f"    runbook trust {shlex.quote(self.login.known_as)} {offered}"
        )

    def _changed(self, key_type: str, offered: str, known: list[str]) -> NoReturn:
        # OpenSSH would ask about a key of another type; here no person can answer, and an impostor can choose the type.
        types = {key.key_type for key in self.trusted}
        new = ", of a type not known for it" if types and key_type not in types else ""
        self._refuse(
            f"the host key of {self.login.known_as} is not the one known, so nothing was sent to it: expected "
            f"{' or '.join(known)}; seen {key_type} {offered}{new}. Either the machine was set up anew, or another one "
            f"answers in its place: ask its owner ({there(key_type)}). Only if the change is meant: "
            f"{self._remedy(offered)}"
        )

    def _remedy(self, offered: str) -> str:
        if self.login.host_key:
            return "put the new fingerprint into the credentials file"
        name = shlex.quote(self.login.known_as)
        files = dict.fromkeys(shlex.quote(str(key.file)) for key in self.trusted)
        ways = [f"remove the old key, ssh-keygen -R {name} -f {file} (or edit that line)" for file in files]
        return ", and ".join([*ways, f"runbook trust {name} {offered}"] if self.pin else ways)

    def _refuse(self, why: str) -> NoReturn:
        more = len(self.notes) - MOST_NOTES
        notes = [*self.notes[:MOST_NOTES], *([f"and {more} more such lines"] if more > 0 else [])]
        raise HostKeyRefused(safe_text("\n".join([f"{self.login.name}: {why}", *notes]), 20_000))


def of(login: Login) -> HostKeys:
    """Return the known keys of a login's host. Raises ProfileError for a file of pins with an invalid line."""
    known: list[KnownKey] = []
    notes: list[str] = []
    for file in login.known_hosts:
        for number, line in _lines(file, notes):
            _take(login.known_as, file, number, line, known, notes)
    revoked = {key.blob: key for key in known if key.revoked}
    trusted = tuple(key for key in known if key.blob not in revoked)
    return HostKeys(login, trusted, tuple(revoked.values()), _pins().get(login.known_as.lower()), tuple(notes))


def there(key_type: str) -> str:
    """The command that shows a machine's key to its owner."""
    kind = ITS_FILES.get(key_type, "ecdsa" if key_type.startswith("ecdsa-") else "*")
    return f"there: ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub"


# ---------------------------------------------------------------------------------------------- known_hosts files


def _lines(file: Path, notes: list[str]) -> Iterator[tuple[int, str]]:
    """The numbered lines of a file; a missing file has none, one that cannot be read is noted."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                notes.append(f"{file}: left out, since it is no plain file")
                return
            with open(fd, "rb", closefd=False) as stream:
                raw = stream.read(LARGEST_FILE + 1)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return
    except OSError as error:
        notes.append(f"{file}: left out, since it cannot be read ({error.strerror})")
        return
    if len(raw) > LARGEST_FILE:
        notes.append(f"{file}: left out, since it is larger than {LARGEST_FILE} bytes")
        return
    for number, line in enumerate(raw.split(b"\n"), 1):
        yield number, line.decode(errors="replace").strip(" \t\r")


def _take(name: str, file: Path, number: int, line: str, known: list[KnownKey], notes: list[str]) -> None:
    """Add what one line of a known_hosts file says about the host `name`."""
    if not line or line.startswith("#"):
        return
    where = f"{file}:{number}"
    words = re.split(r"[ \t]+", line)
    marker, *fields = words if line.startswith("@") else ("", *words)
    blob = public_key(fields[1], fields[2]) if len(fields) >= 3 else None
    if blob is None or marker not in ("", "@revoked", "@cert-authority"):
        notes.append(f"{where}: left out, since it is no line of a known_hosts file")
    elif not _is_meant(name, fields[0]):
        return
    elif marker == "@cert-authority":
        notes.append(f"{where}: @cert-authority is not supported, so host certificates do not count")
    else:
        known.append(KnownKey(file, number, fields[1], blob, marker == "@revoked"))


def _is_meant(name: str, patterns: str) -> bool:
    """Whether the first field of a line means the host `name`. A negated pattern that matches overrules the others."""
    if patterns.startswith("|"):
        return _is_hash(name, patterns)
    matched = False
    for pattern in patterns.lower().split(","):
        if _matches(name.lower(), pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            matched = True
    return matched


def _matches(name: str, pattern: str) -> bool:
    """`*` is any text, `?` one character, all else itself: brackets too. A regular expression could take for ever."""
    ends = {0}  # how much of the name the pattern may have used up so far
    for sign in pattern:
        if sign == "*":
            ends = set(range(min(ends), len(name) + 1))
        else:
            ends = {end + 1 for end in ends if end < len(name) and sign in ("?", name[end])}
        if not ends:
            return False
    return len(name) in ends


def _is_hash(name: str, text: str) -> bool:
    """Whether `|1|salt|hash` is the hash of `name`."""
    try:
        _, version, salt, digest = text.split("|")
        key, expected = base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True)
    except (ValueError, binascii.Error):
        return False
    return version == "1" and hmac.compare_digest(
        hmac.digest(key, name.encode(errors="surrogateescape"), "sha1"), expected
    )


# ---------------------------------------------------------------------------------------------- our own pins


def pins_file() -> Path:
    """The file of our own pins."""
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    try:
        return Path(os.environ.get(PINS) or f"{folder}/runbook/trusted_hosts").expanduser().absolute()
    except RuntimeError:
        raise ProfileError(f"trusted hosts: no home folder for their file; name one in {PINS}") from None


def trust(name: str, fingerprint: str) -> Path:
    """Trust a host's key from now on, in place of an older pin of that name; return the file of pins.

    `name` is the one of the message that refused the key: a host, or [host]:port. Raises ProfileError.
    """
    if not NAME.fullmatch(name) or rules.UNWANTED.search(name):
        raise ProfileError(
            f"trusting {safe_text(name)!r}: expected one host as the message names it: host, [host]:port"
        )
    if not FINGERPRINT.fullmatch(fingerprint):
        raise ProfileError(
            f"trusting {name}: expected SHA256: and 43 characters of base64; seen {safe_text(fingerprint, 80)!r}"
        )
    file, name = pins_file(), name.lower()
    pin = _pins().get(name)
    if pin is None or pin.fingerprint != fingerprint:
        kept = [line for line in _pin_lines(file) if line.lower().split()[:1] != [name]]
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(file, "".join(f"{line}\n" for line in [*kept, f"{name} {fingerprint}"]).encode(), 0o600)
    return file


def program(pinned: Mapping[str, str], always: str = "") -> str:
    """Return a shell program for ssh's KnownHostsCommand, which names what is known of a machine: here, what is pinned.

    ssh calls it while a machine shows its key, so it needs the fingerprint only, and works behind any number of hops.
    `always`: a fingerprint that counts for any name.
    """
    cases = [shlex.quote(f"{name} {key}") for name, key in pinned.items()] + ([f'*" {always}"'] if always else [])
    lines = "".join(f'{case}) echo "$1 $3 $4";;\n' for case in cases)
    return f'case "$1 $2" in\n{lines}esac\n'


def pinned() -> dict[str, str]:
    """Return the pinned fingerprints by host name."""
    return {name: pin.fingerprint for name, pin in _pins().items()}


def _pins() -> dict[str, Pin]:
    """Return our pins by host name. One invalid line spoils the file: its writer may have added others."""
    pins: dict[str, Pin] = {}
    file = pins_file()
    for number, line in enumerate(_pin_lines(file), 1):
        where, fields = f"{file}:{number}", line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != 2 or not NAME.fullmatch(fields[0]) or not FINGERPRINT.fullmatch(fields[1]):
            raise ProfileError(safe_text(f"{where}: expected `NAME SHA256:...`; mend or remove that line"))
        if (name := fields[0].lower()) in pins:
            raise ProfileError(safe_text(f"{where}: {name} stands there twice; keep one of the two"))
        pins[name] = Pin(where, fields[1])
    return pins


def _pin_lines(file: Path) -> list[str]:
    if not os.path.lexists(file):
        return []
    raw = read_private(file, "trusted hosts")
    try:
        return raw.decode().rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise ProfileError(f"{file}:{number}: expected `NAME SHA256:...`, seen bytes that are no text") from None

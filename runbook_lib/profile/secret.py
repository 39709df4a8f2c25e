"""Secrets: text that shows as `***`, a filter that takes it out of other text, and files that only we can read."""

from __future__ import annotations

import base64
import errno
import html
import json
import os
import re
import shlex
import stat
import weakref
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, quote_plus

from worker.escape import safe_text

from ..errors import ProfileError

SHOWN = "***"
SHORTEST = 4  # shorter ones occur in ordinary words, and hiding those would make messages unreadable
ALLOW_OPEN = "RUNBOOK_ALLOW_OPEN_SECRETS"


class Secret:
    """A text that is never shown, pickled or written as JSON; `reveal` gives it to the one call that needs it."""

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: str):
        self._value = value
        _known[id(self)] = self

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return SHOWN

    def __format__(self, spec: str) -> str:
        return SHOWN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled or copied")


# By identity: two equal secrets are two entries, so that one can be freed while the other is in use.
_known: weakref.WeakValueDictionary[int, Secret] = weakref.WeakValueDictionary()


_named: set[str] = set()


def name_variable(name: str) -> None:
    """From now on the environment variable of this name is taken for one that holds secrets, whatever its value."""
    _named.add(name)


def variables() -> list[str]:
    """Return our environment variables that hold a secret; no process that we start may inherit them."""
    values = {secret.reveal() for secret in list(_known.values())}
    return [name for name, value in os.environ.items() if value in values or name in _named]


def redact(text: str) -> str:
    """`text` without any secret in use: as it is, and as JSON, Python, HTML, a URL or base64 would write it."""
    values = {secret.reveal() for secret in list(_known.values())}
    forms = {form for value in values if len(value) >= SHORTEST for form in _forms(value)}
    # The longest first: a secret may hold another one.
    pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.sub(pattern, SHOWN, text) if pattern else text


def _forms(value: str) -> set[str]:
    raw = value.encode("utf-8", "surrogatepass")
    urls = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    escaped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    escaped |= {html.escape(value), html.escape(value, quote=False)}
    lower = {re.sub("%..", lambda code: code[0].lower(), url) for url in urls}
    return {value, *urls, *lower, *escaped, *_base64(raw)}


def _base64(raw: bytes) -> set[str]:
    """Base64 of the secret alone, and the characters it has in common with any longer text that holds it."""
    forms = set()
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw).decode()
        inside = text[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]  # the others depend on what stands beside it
        forms |= {inside, inside.translate(_URL_SAFE)}
    text = base64.b64encode(raw).decode()
    return {*forms, *(form.translate(table) for form in (text, text.rstrip("=")) for table in ({}, _URL_SAFE))}


_URL_SAFE = str.maketrans("+/", "-_")


def read_private(path: Path, what: str, limit: int = 2**20) -> bytes:
    """Read a file that belongs to us and that only we can read. `what` names it in the ProfileError otherwise.

    The open file is checked, not its name, so nobody can replace it between the check and the reading.
    """
    path = path.absolute()
    lenient = os.environ.get(ALLOW_OPEN) == "1"
    # O_NONBLOCK: opening a FIFO without it waits for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | (0 if lenient else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags)
        try:
            _judge(path, what, os.fstat(fd), lenient)
            with open(fd, "rb", closefd=False) as file:
                raw = file.read(limit + 1)
        finally:
            os.close(fd)
    except FileNotFoundError:
        _refuse(path, what, "there is no such file")
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            real = shlex.quote(os.path.realpath(path))
            _refuse(path, what, f"expected the file itself, seen a symbolic link; name {real}", allowable=True)
        if error.errno == errno.ENXIO:
            _refuse(path, what, "expected a plain file, seen a socket or device")
        _refuse(path, what, f"cannot be read ({error.strerror}); mend it: chmod 600 {shlex.quote(str(path))}")
    if len(raw) > limit:
        _refuse(path, what, f"larger than {limit} bytes, so not what it should be")
    return raw


def _judge(path: Path, what: str, status: os.stat_result, lenient: bool) -> None:
    quoted = shlex.quote(str(path))
    if stat.S_ISDIR(status.st_mode):
        _refuse(path, what, "expected a file, seen a folder")
    if not stat.S_ISREG(status.st_mode):
        _refuse(path, what, "expected a plain file, seen a FIFO or device")
    if not lenient and status.st_uid != os.geteuid():
        why = f"belongs to another user (number {status.st_uid}), who can change it"
        _refuse(path, what, f'{why}; make it yours: sudo chown "$(id -un)" {quoted}', allowable=True)
    if not lenient and status.st_mode & 0o077:
        _refuse(path, what, f"other users can get at it; close it: chmod 600 {quoted}", allowable=True)


def _refuse(path: Path, what: str, why: str, allowable: bool = False) -> NoReturn:
    way_out = f" (if this is meant, set {ALLOW_OPEN}=1 in the environment)" if allowable else ""
    raise ProfileError(safe_text(f"{what} {path}: {why}{way_out}", 9000)) from None

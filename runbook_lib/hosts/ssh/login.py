"""How to log in to a machine: by a credentials file with a password or a key, or as the person's own ssh does it.

Nothing is sent to any machine here, and no value of a credentials file is ever part of a message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ProfileError
from ...profile import rules
from ...profile.profile import HostSpec
from ...profile.secret import Secret, read_private
from .alias import HOP, Alias, Settings, hop_of, one, path_of, settings, where

DEFAULT_PORT = 22
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]", re.ASCII)  # 256 bits end on 4 of 6 bits
ADDRESS = re.compile(r"(?!-)[\w.:%-]{1,255}")
# Capitals only, so that a passphrase given in place of a variable's name is hardly ever accepted, and shown.
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)
KEYS = {
    "address": "a host name or an IP address",
    "username": "the account's name",
    "password": "text",
    "port": "a whole number from 1 to 65535",
    "key_filename": "the path of a private key file",
    "passphrase_env": "the NAME (capitals) of the environment variable that holds the key's passphrase",
    "host_key": "SHA256: and 43 characters, or a public key: its type and its base64",
    "proxy_jump": "[user@]host[:port], several separated by commas",
}
KINDS: dict[type, str] = {
    **dict.fromkeys((int, float), "another number"),
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "an object",
}
REQUIRED = ("address", "username")
# The known hosts of a machine without an ssh client, as `ssh -G` would print them.
NO_CLIENT = {
    "userknownhostsfile": ["~/.ssh/known_hosts ~/.ssh/known_hosts2"],
    "globalknownhostsfile": ["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"],
}


@dataclass(frozen=True)
class Login:
    """How to reach a machine and to log in there with what a credentials file gives: a key, then a password.

    `host_key` is a fingerprint that alone decides. `known_as` is the name to look up in `known_hosts`. `jump` is the
    hop to go through first, by the person's own ssh.
    """

    name: str
    address: str
    port: int
    username: str
    password: Secret | None
    key: Path | None
    passphrase: Secret | None
    host_key: str | None
    known_hosts: tuple[Path, ...]
    known_as: str
    jump: Alias | None


def of(spec: HostSpec) -> Login | Alias:
    """Return how to log in to a host of a profile. Raises ProfileError for its files."""
    if spec.credentials:
        return _by_credentials(spec.name, spec.credentials)
    return Alias(spec.name, spec.ssh or spec.name)


def told(access: Login | Alias) -> str:
    """In words who logs in where, and by what. Raises Refused for what ssh refuses of its configuration."""
    if isinstance(access, Alias):
        return f"{where(access)} by your own ssh ({access.by_hand})"
    by = [*([str(access.key)] if access.key else []), *["a password"] * (access.password is not None)]
    return f"{access.username}@{access.address} by {', '.join(by)}"


def fingerprint(blob: bytes) -> str:
    """The fingerprint of a public key as OpenSSH writes it: SHA256: and base64 without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def public_key(key_type: str, text: str) -> bytes | None:
    """The bytes of a public key given as its type and base64, None where these do not make one."""
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    start = len(key_type).to_bytes(4, "big") + key_type.encode(errors="replace")
    return blob if key_type and blob.startswith(start) and len(blob) > len(start) else None


# ---------------------------------------------------------------------------------------------- a credentials file


def _by_credentials(name: str, path: Path) -> Login | Alias:
    """Return what a file says. One that names neither a password nor a key leaves that to the person's own ssh."""
    place = f"{name}: credentials file {path}"
    given = _read(place, read_private(path, f"{name}: credentials file"))
    address, port, username = given["address"], given.get("port", DEFAULT_PORT), given["username"]
    key = _key_file(name, place, given["key_filename"], path.parent) if "key_filename" in given else None
    host_key = _pin(place, given["host_key"]) if "host_key" in given else None
    jumps = given.get("proxy_jump", "none")
    jumps = "" if jumps.lower() == "none" else jumps
    if key is None and "password" not in given:
        return Alias(name, address, username, port, tuple(jumps.split(",")) if jumps else (), host_key)
    chosen = settings(Alias(name, address)) or NO_CLIENT
    return Login(
        name=name,
        address=address,
        port=port,
        username=username,
        password=Secret(given["password"]) if "password" in given else None,
        key=key,
        passphrase=_passphrase(place, given),
        host_key=host_key,
        known_hosts=_known_hosts(chosen),
        known_as=_known_as(chosen, address, port),
        jump=hop_of(name, jumps) if jumps else None,
    )


def _read(where: str, raw: bytes) -> dict[str, Any]:
    """The keys of a credentials file, each of its type. Messages name keys and lines, never values."""
    try:
        given = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=lambda pairs: _once(where, pairs))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ProfileError(f"{where}: line {line} is not UTF-8 text; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        spot = f"line {error.lineno}, column {error.colno}"
        raise ProfileError(f"{where}: not JSON from {spot} on (a comma or a quote?); {_example()}") from None
    except (ValueError, RecursionError):
        raise ProfileError(f"{where}: not usable as JSON; {_example()}") from None
    if not isinstance(given, dict):
        raise ProfileError(f"{where}: expected a JSON object; {_example()}")
    for key in given:
        if key not in KEYS:
            shown = f"key `{key}`" if key.isidentifier() and len(key) < 40 else "a key that is no plain word"
            hint = rules.suggestion(key, KEYS)
            known = f"{hint} Known" if hint else "; known"
            raise ProfileError(f"{where}: unknown {shown}{known} are: {', '.join(KEYS)}")
    for key in REQUIRED:
        if key not in given:
            raise ProfileError(f"{where}: without `{key}`; {_example()}")
    for key, value in given.items():
        _check(where, key, value)
    if "passphrase_env" in given and "key_filename" not in given:
        raise ProfileError(f"{where}: `passphrase_env` without `key_filename`; name the key it belongs to")
    return given


def _once(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    given = dict(pairs)
    if len(given) < len(pairs):
        raise ProfileError(f"{where}: a key stands there twice; keep one of the two")
    return given


def _example() -> str:
    return 'expected {"address": ..., "username": ..., "password": ...}'


def _check(where: str, key: str, value: object) -> None:
    expected = f"{where}: `{key}`: expected {KEYS[key]}"
    if key == "port":
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
            raise ProfileError(f"{expected}; seen {_kind(value)}")
        return
    if not isinstance(value, str) or not value:
        raise ProfileError(f"{expected}; seen {_kind(value)}")
    if rules.UNWANTED.search(value):
        raise ProfileError(f"{expected}; seen text with a control character or a line break in it")
    if key in ("address", "username") and value.startswith("-"):
        raise ProfileError(f"{expected}; seen text that starts with `-`")
    if key == "address" and not ADDRESS.fullmatch(value):
        why = "the account goes into `username`" if "@" in value else "letters, digits and . : % _ - only"
        raise ProfileError(f"{expected}; seen other characters: {why}")
    if key == "proxy_jump" and value.lower() != "none" and not all(map(HOP.fullmatch, value.split(","))):
        raise ProfileError(f"{expected}; seen other text")
    if key == "passphrase_env" and not VARIABLE.fullmatch(value):
        raise ProfileError(f"{expected}; seen no such name (not shown, in case it is the passphrase)")


def _kind(value: object) -> str:
    return "empty text" if value == "" else KINDS.get(type(value), "null")


def _key_file(name: str, where: str, text: str, folder: Path) -> Path:
    try:
        path = rules.absolute(text, folder)
    except rules.InvalidValue:
        raise ProfileError(f"{where}: `key_filename`: there is no such home folder") from None
    read_private(path, f"{name}: private key file")
    return path


def _passphrase(where: str, given: Mapping[str, Any]) -> Secret | None:
    if "passphrase_env" not in given:
        return None
    variable = given["passphrase_env"]
    if not (value := os.environ.get(variable)):
        raise ProfileError(
            f"{where}: `passphrase_env`: the environment variable {variable} is not set or empty; set it"
        )
    return Secret(value)


def _pin(where: str, text: str) -> str:
    if FINGERPRINT.fullmatch(text):
        return text
    fields = text.split()
    blob = public_key(fields[0], fields[1]) if len(fields) > 1 else None
    if blob is None:
        raise ProfileError(f"{where}: `host_key`: expected {KEYS['host_key']}; seen other text")
    return fingerprint(blob)


def _known_hosts(settings: Settings) -> tuple[Path, ...]:
    # ssh separates the paths by blanks, without quotes; a blank not followed by / or ~ belongs to the path.
    lists = [one(settings, key) for key in ("userknownhostsfile", "globalknownhostsfile")]
    paths = [text for found in lists for text in re.split(r" (?=[/~])", found) if text not in ("", os.devnull)]
    return tuple(map(path_of, paths))


def _known_as(settings: Settings, address: str, port: int) -> str:
    if alias := one(settings, "hostkeyalias"):
        return alias
    return address.lower() if port == DEFAULT_PORT else f"[{address.lower()}]:{port}"

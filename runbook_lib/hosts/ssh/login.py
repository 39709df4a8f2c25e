"""How to log in to a machine: from a credentials file, or from the ssh client's own configuration.

`ssh -G` is asked rather than the configuration read: only the client knows its Include and Match. Nothing is sent to
any machine here, and no value of a credentials file is ever part of a message.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from worker.escape import safe_text

from ...errors import HostError, ProfileError
from ...profile import rules
from ...profile.profile import HostSpec
from ...profile.secret import Secret, read_private, redact

CONFIG = "RUNBOOK_SSH_CONFIG"
SSH_TIMEOUT_S = 10
MOST_HOPS = 8
DEFAULT_PORT = 22
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]", re.ASCII)  # 256 bits end on 4 of 6 bits
ADDRESS = re.compile(r"(?!-)[\w.:%-]{1,255}")
# Capitals only, so that a passphrase given in place of a variable's name is hardly ever accepted, and shown.
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)
HOP = re.compile(
    r"(?:ssh://)?(?:(?P<user>(?!-)[^\s:]+)@)?(?P<host>\[[\w.:%-]+\]|(?!-)[\w.%-]+)(?::(?P<port>[1-9]\d{0,4}))?/?",
    re.ASCII,
)
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
# The settings of a machine without an ssh client, as `ssh -G` would print them.
NO_CLIENT = {
    "identityfile": ["~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519"],
    "userknownhostsfile": ["~/.ssh/known_hosts ~/.ssh/known_hosts2"],
    "globalknownhostsfile": ["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"],
}
NO_SSH = "there is no ssh client here to ask; install one (OpenSSH), or give the host a `credentials` file"

Settings = Mapping[str, Sequence[str]]
Machine = tuple[str, int, str]  # address, port, account


@dataclass(frozen=True)
class Login:
    """How to reach a machine and to log in there.

    `keys` are tried in their order. One whose name ends in .pub is a public key: the agent has its private half.
    `only_keys`: of the agent's keys only those that `keys` name. `agent_socket` None is the one of SSH_AUTH_SOCK.
    `host_key` is a fingerprint that alone decides. `known_as` is the name to look up in `known_hosts`. `proxy_command`
    is ready for a shell. `jump` is the hop to go through first, which may itself have one.
    """

    name: str
    address: str
    port: int
    username: str
    password: Secret | None
    keys: tuple[Path, ...]
    passphrase: Secret | None
    use_agent: bool
    only_keys: bool
    agent_socket: str | None
    host_key: str | None
    known_hosts: tuple[Path, ...]
    known_as: str
    proxy_command: str | None
    jump: Login | None


def of(spec: HostSpec) -> Login:
    """Return how to log in to a host of a profile. Raises ProfileError for its files, HostError for ssh's errors."""
    if spec.credentials:
        return _by_credentials(spec.name, spec.credentials)
    return _by_alias(spec.name, _Hop(spec.ssh or spec.name))


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


def _by_credentials(name: str, path: Path) -> Login:
    where = f"{name}: credentials file {path}"
    given = _read(where, read_private(path, f"{name}: credentials file"))
    address, port = given["address"], given.get("port", DEFAULT_PORT)
    tokens = {"h": address, "p": str(port), "r": given["username"], "n": address}
    settings = _settings(name, _Hop(address)) or NO_CLIENT
    keys: tuple[Path, ...] = ()
    if "key_filename" in given:
        keys = (_key_file(name, where, given["key_filename"], path.parent),)
    chosen = bool(keys) or "password" in given
    use_agent, agent_socket = (False, None) if chosen else _agent(settings)
    jump = given.get("proxy_jump")
    return Login(
        name=name,
        address=address,
        port=port,
        username=given["username"],
        password=Secret(given["password"]) if "password" in given else None,
        # If one of them is given nothing else is tried: every failed attempt counts towards locking the account.
        keys=keys if chosen else _identity_files(name, settings, tokens),
        passphrase=_passphrase(where, given),
        use_agent=use_agent,
        only_keys=chosen or _is_set(settings, "identitiesonly"),
        agent_socket=agent_socket,
        host_key=_pin(where, given["host_key"]) if "host_key" in given else None,
        known_hosts=_known_hosts(settings),
        known_as=_known_as(settings, address, port),
        proxy_command=None,
        jump=_through(name, jump, ((address.lower(), port, given["username"]),), (address,)) if jump else None,
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
    if "passphrase_env" in given and "password" in given and "key_filename" not in given:
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


# ---------------------------------------------------------------------------------------------- the ssh client


@dataclass(frozen=True)
class _Hop:
    """A destination on ssh's command line, with its options there."""

    host: str
    user: str = ""
    port: int | None = None
    jumps: tuple[str, ...] = ()

    def argv(self) -> list[str]:
        """Return the command `ssh -G` for this hop; its options overrule the configuration."""
        config = os.environ.get(CONFIG)
        options = ["-F", str(_path(config))] if config else []
        options += ["-l", self.user] if self.user else []
        options += ["-p", str(self.port)] if self.port else []
        options += ["-J", ",".join(self.jumps)] if self.jumps else []
        return ["ssh", "-G", *options, "--", self.host]


def _by_alias(name: str, hop: _Hop, passed: tuple[Machine, ...] = (), route: tuple[str, ...] = ()) -> Login:
    """Return how ssh would reach a destination; `passed`: the machines on the way from the last back to this."""
    settings = _settings(name, hop)
    if settings is None:
        raise HostError(f"{name}: {NO_SSH}")
    address, username, port = (_one(settings, key) for key in ("hostname", "user", "port"))
    if not ADDRESS.fullmatch(address) or not username or username.startswith("-") or not port.isdecimal():
        raise HostError(f"{name}: `ssh -G` gives no usable hostname, user and port for {safe_text(hop.host)}")
    here = (address.lower(), int(port), username)
    route = (*route, safe_text(hop.host))
    if here in passed:
        raise HostError(f"{name}: ProxyJump goes in a circle: {' -> '.join(route)}; mend it in the ssh configuration")
    if len(passed) > MOST_HOPS:
        raise HostError(f"{name}: ProxyJump goes through more than {MOST_HOPS} machines: {' -> '.join(route)}")
    tokens = {"h": address, "p": port, "r": username, "n": hop.host.rpartition("@")[2]}
    use_agent, agent_socket = _agent(settings)
    jumps, command = _one(settings, "proxyjump"), _one(settings, "proxycommand")
    return Login(
        name=name,
        address=address,
        port=int(port),
        username=username,
        password=None,
        keys=_identity_files(name, settings, tokens),
        passphrase=None,
        use_agent=use_agent,
        only_keys=_is_set(settings, "identitiesonly"),
        agent_socket=agent_socket,
        host_key=None,
        known_hosts=_known_hosts(settings),
        known_as=_known_as(settings, address, int(port)),
        proxy_command=_expand(name, "ProxyCommand", command, tokens, shell=True) or None,
        jump=_through(name, jumps, (*passed, here), route) if jumps else None,
    )


def _through(name: str, jumps: str, passed: tuple[Machine, ...], route: tuple[str, ...]) -> Login | None:
    """Return the last of a list of hops. As in ssh, the hops before it are its own list; the first has its own."""
    if jumps.lower() == "none":
        return None
    *before, last = jumps.split(",")
    hop = HOP.fullmatch(last)
    if not hop:
        raise HostError(f"{name}: ProxyJump: expected {KEYS['proxy_jump']}; seen {safe_text(jumps)}")
    host = hop["host"].strip("[]")
    through = _Hop(host, hop["user"] or "", int(hop["port"]) if hop["port"] else None, tuple(before))
    return _by_alias(f"{name.partition(', jump host ')[0]}, jump host {host}", through, passed, route)


def _ask_ssh(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SSH_TIMEOUT_S,
        start_new_session=True,  # `Match exec` cannot ask questions on this terminal
        check=False,
    )


def _settings(name: str, hop: _Hop) -> Settings | None:
    """Return the output of `ssh -G` for a destination, by keyword; None without an ssh client."""
    argv = hop.argv()
    try:
        done = _ask_ssh(argv)
        if done.returncode and b"usekeychain" in done.stderr.lower():
            # An option of Apple's ssh, but another ssh is first in PATH. Only then: this replaces the user's own list.
            argv = [argv[0], "-o", "IgnoreUnknown=UseKeychain", *argv[1:]]
            done = _ask_ssh(argv)
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        why = f"did not answer within {SSH_TIMEOUT_S} s (a Match or a name look-up in the ssh configuration?)"
        raise HostError(f"{name}: `ssh -G` {why}", argv=argv) from None
    except OSError as error:
        raise HostError(f"{name}: ssh cannot be started ({error.strerror})", argv=argv) from None
    if done.returncode:
        tail = safe_text(redact(done.stderr.decode(errors="replace").strip()))
        why = tail or f"exit code {done.returncode}"
        raise HostError(f"{name}: `ssh -G` refuses: {why}", argv=argv, exit_code=done.returncode, tail=tail)
    settings: dict[str, list[str]] = {}
    for line in os.fsdecode(done.stdout).split("\n"):
        key, _, value = line.partition(" ")
        settings.setdefault(key.lower(), []).append(value)
    return settings


def _one(settings: Settings, key: str) -> str:
    """The value of a setting, empty where it is not set."""
    value = next(iter(settings.get(key, ())), "")
    return "" if value.lower() == "none" else value


def _is_set(settings: Settings, key: str) -> bool:
    return _one(settings, key) in ("yes", "true")


def _agent(settings: Settings) -> tuple[bool, str | None]:
    """Whether to ask an agent, and at which socket."""
    place = next(iter(settings.get("identityagent", ())), "SSH_AUTH_SOCK")
    if place == "SSH_AUTH_SOCK":
        return True, None
    if place.startswith("$"):
        place = os.environ.get(place[1:].strip("{}"), "none")
    return place.lower() != "none", None if place.lower() == "none" else str(_path(place))


def _identity_files(name: str, settings: Settings, tokens: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the identity files that exist, each a file that only we can read, or else its public half."""
    paths = []
    for text in settings.get("identityfile", ()):
        if text.lower() == "none":
            continue
        path = _path(_expand(name, "IdentityFile", text, tokens)).absolute()
        public = path.with_name(f"{path.name}.pub")
        if path.suffix == ".pub" or not os.path.lexists(path):
            paths += [half for half in (path, public) if half.suffix == ".pub" and half.is_file()]
        else:
            read_private(path, f"{name}: private key file")
            paths.append(path)
    return tuple(dict.fromkeys(paths))


def _known_hosts(settings: Settings) -> tuple[Path, ...]:
    # ssh separates the paths by blanks, without quotes; a blank not followed by / or ~ belongs to the path.
    lists = [_one(settings, key) for key in ("userknownhostsfile", "globalknownhostsfile")]
    paths = [text for one in lists for text in re.split(r" (?=[/~])", one) if text not in ("", os.devnull)]
    return tuple(map(_path, paths))


def _path(text: str) -> Path:
    """A path from home where it starts with ~; as it stands where there is no such home."""
    with suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)


def _known_as(settings: Settings, address: str, port: int) -> str:
    if alias := _one(settings, "hostkeyalias"):
        return alias
    return address.lower() if port == DEFAULT_PORT else f"[{address.lower()}]:{port}"


def _expand(name: str, setting: str, text: str, tokens: Mapping[str, str], shell: bool = False) -> str:
    """Fill in ssh's %-tokens and ${VARIABLES}, which `ssh -G` leaves in; HostError for one that it cannot."""
    here = socket.gethostname()
    known = {"%": "%", "d": str(_path("~")), "i": str(os.getuid()), "l": here, "L": here.split(".")[0], **tokens}

    def fill(match: re.Match[str]) -> str:
        if match["variable"] and shell:
            return match[0]  # the shell will fill it in
        if match["variable"]:
            value = os.environ.get(match["variable"])
        else:
            value = getpass.getuser() if match["token"] == "u" else known.get(match["token"])
        if value is None:
            _refuse(name, setting, f"{match[0]} cannot be filled in here")
        if shell and match["token"] != "%" and not re.fullmatch(r"(?!-)[\w.:@%/+=\[\]-]*", value):
            _refuse(name, setting, f"what {match[0]} stands for has characters in it that a shell would take apart")
        return value

    return re.sub(r"%(?P<token>.)|\$\{(?P<variable>\w+)\}", fill, text)


def _refuse(name: str, setting: str, why: str) -> NoReturn:
    raise HostError(f"{name}: {setting} in the ssh configuration: {why}; write it out there")

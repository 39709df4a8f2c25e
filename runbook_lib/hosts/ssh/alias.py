"""A machine as the person's own ssh knows it, and how that ssh is asked: its settings, a configuration over theirs.

Nothing of their configuration is interpreted here but what `ssh -G` says of it. Ours stands in front of it and includes
it: ssh takes the first value that it finds, and hands this file on to jump hosts, which see no option of our command.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from worker.escape import safe_text

from ...errors import LinkLost
from ...profile.secret import redact
from .refused import Refused

CONFIG = "RUNBOOK_SSH_CONFIG"
SYSTEM = Path("/etc/ssh/ssh_config")
ASK_S = 10.0
MOST_HOPS = 8
NO_SSH = (
    "there is no ssh client here to ask; install one (OpenSSH), or give the host a `credentials` file with a password "
    "or a key"
)
HOP = re.compile(
    r"(?:ssh://)?(?:(?P<user>(?!-)[^\s:]+)@)?(?P<host>\[[\w.:%-]+\]|(?!-)[\w.%-]+)(?::(?P<port>[1-9]\d{0,4}))?/?",
    re.ASCII,
)
# What holds whatever theirs says: it trusts no unknown key, it forwards and writes nothing. By the version of OpenSSH
# that knows the keyword.
OURS = {
    (7, 3): (
        *("StrictHostKeyChecking yes", "NoHostAuthenticationForLocalhost no", "UpdateHostKeys no"),
        *("ControlMaster no", "ClearAllForwardings yes"),
        *("ForwardX11 no", "ForwardAgent no", "Tunnel no", "PermitLocalCommand no", "RequestTTY no", "EscapeChar none"),
    ),
    (7, 6): ("RemoteCommand none",),
    (8, 7): ("SessionType default", "StdinNull no", "ForkAfterAuthentication no"),
}
ALONE = ("BatchMode yes", "NumberOfPasswordPrompts 0", "LogLevel DEBUG1")
WITH_A_PERSON = ("BatchMode no", "NumberOfPasswordPrompts 3", "LogLevel INFO")
BACKSLASHES_SINCE = (8, 7)
PINS_SINCE = (8, 5)  # KnownHostsCommand
APPLE = "IgnoreUnknown UseKeychain"

Settings = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Alias:
    """What stands on ssh's command line for a machine. `name` is for messages; a `host_key`, a fingerprint, decides."""

    name: str
    host: str
    user: str = ""
    port: int | None = None
    jumps: tuple[str, ...] = ()
    host_key: str | None = None

    def argv(self) -> list[str]:
        """Return the destination with its options, the last arguments in front of a command."""
        options = ["-l", self.user] if self.user else []
        options += ["-p", str(self.port)] if self.port else []
        options += ["-J", ",".join(self.jumps)] if self.jumps else []
        return [*options, "--", self.host]

    @property
    def by_hand(self) -> str:
        """The command that a person would type."""
        config = ["-F", os.environ[CONFIG]] if os.environ.get(CONFIG) else []
        return shlex.join(["ssh", *config, *(part for part in self.argv() if part != "--")])


def hop_of(name: str, jumps: str) -> Alias:
    """Return the last of a ProxyJump's list. As in ssh, those before it are its own list; the first has its own."""
    *before, last = jumps.split(",")
    hop = HOP.fullmatch(last)
    if not hop:
        raise Refused(f"{name}: ProxyJump: expected [user@]host[:port], several by commas; seen {safe_text(jumps)}")
    host, port = hop["host"].strip("[]"), int(hop["port"]) if hop["port"] else None
    return Alias(f"{name.partition(', jump host ')[0]}, jump host {host}", host, hop["user"] or "", port, tuple(before))


def settings(alias: Alias) -> Settings | None:
    """Return the output of `ssh -G` by keyword, None without an ssh client.

    Raises Refused for what ssh refuses, LinkLost for what may pass.
    """
    config = os.environ.get(CONFIG)
    argv = ["ssh", "-G", *(["-F", str(path_of(config))] if config else []), *alias.argv()]
    try:
        done = _ask(argv)
        if done.returncode and b"usekeychain" in done.stderr.lower():
            # An option of Apple's ssh, but another ssh is first in PATH. Only then: this replaces the user's own list.
            done = _ask([argv[0], "-o", APPLE.replace(" ", "="), *argv[1:]])
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        why = f"did not answer within {ASK_S:g} s (a Match or a name look-up in the ssh configuration?)"
        raise LinkLost(f"{alias.name}: `ssh -G` {why}") from None
    except OSError as error:
        raise Refused(f"{alias.name}: ssh cannot be started ({error.strerror})") from None
    if done.returncode:
        tail = safe_text(redact(done.stderr.decode(errors="replace").strip()))
        why = tail or f"exit code {done.returncode}"
        if b"could not resolve host" in done.stderr.lower():  # it asks for canonical names, and the network may be away
            raise LinkLost(f"{alias.name}: `ssh -G`: {why}")
        raise Refused(f"{alias.name}: `ssh -G` refuses: {why}")
    by_key: dict[str, list[str]] = {}
    for line in os.fsdecode(done.stdout).split("\n"):
        key, _, value = line.partition(" ")
        by_key.setdefault(key.lower(), []).append(value)
    if done.args[1] == "-o":
        by_key[APPLE] = []
    return by_key


def asked(alias: Alias) -> tuple[Settings, list[Alias]]:
    """Return its settings and its hops. Raises Refused without an ssh client, and for a way that goes in a circle."""
    chosen = settings(alias)
    if chosen is None:
        raise Refused(f"{alias.name}: {NO_SSH}")
    return chosen, _hops(alias, chosen)


def one(chosen: Settings, key: str) -> str:
    """The value of a setting, empty where it is not set."""
    value = next(iter(chosen.get(key, ())), "")
    return "" if value.lower() == "none" else value


def where(alias: Alias) -> str:
    """The account and the address that ssh would go to, in words."""
    chosen, _ = asked(alias)
    port = one(chosen, "port")
    return f"{one(chosen, 'user')}@{one(chosen, 'hostname')}" + ("" if port in ("", "22") else f":{port}")


def _hops(alias: Alias, chosen: Settings) -> list[Alias]:
    """Refuse a ProxyJump in a circle: ssh starts one more of itself for each hop, without end."""
    route, passed, name, hops = [alias.host], [alias.argv()], alias.name, []
    while jumps := one(chosen, "proxyjump"):
        if not HOP.fullmatch(jumps.rpartition(",")[2]):
            break  # ssh says what it thinks of it
        alias = hop_of(name, jumps)
        hops.append(alias)
        chosen = settings(alias) or {}
        route.append(alias.host)
        shown = safe_text(" -> ".join(route))
        if alias.argv() in passed:
            raise Refused(f"{name}: ProxyJump goes in a circle: {shown}; mend it in the ssh configuration")
        if len(passed) > MOST_HOPS:
            raise Refused(f"{name}: ProxyJump goes through more than {MOST_HOPS} machines: {shown}")
        passed.append(alias.argv())
    return hops


# ---------------------------------------------------------------------------------------------- our configuration


@cache
def version() -> tuple[int, int]:
    """The version of this machine's OpenSSH client; 7.3, the lowest that will do, where it does not say."""
    with suppress(OSError, subprocess.SubprocessError):
        printed = _ask(["ssh", "-V"]).stderr.decode(errors="replace")
        if match := re.match(r"OpenSSH_(?:for_Windows_)?(\d+)\.(\d+)", printed):
            return int(match[1]), int(match[2])
    return (7, 3)


def config(
    chosen: Settings,
    connect_s: float,
    silence_s: float,
    pins: Path | None = None,
    lent: Mapping[str, Path] | None = None,
    asks: bool = False,
) -> str:
    """Return our configuration over theirs.

    `pins`: a program that prints the keys pinned by us. `lent`: control sockets of hops that a person has logged in to.
    `asks`: a person is there to answer.
    """
    lines = [APPLE] if APPLE in chosen else []
    for hop, path in (lent or {}).items():
        lines += [f"Match originalhost {hop}", f"ControlPath {path}"]
    lines += ["Match all", *(WITH_A_PERSON if asks else ALONE)]
    lines += [line for since, more in OURS.items() if version() >= since for line in more]
    lines += [f"ConnectTimeout {max(1, round(connect_s))}", "ServerAliveCountMax 3"]
    lines += [f"ServerAliveInterval {max(1, round(silence_s / 3))}"]
    if pins and version() >= PINS_SINCE and not one(chosen, "knownhostscommand"):
        lines += [f"KnownHostsCommand {command_of(pins)}"]
    return "".join(f"{line}\n" for line in [*lines, *_theirs()])


def command_of(pins: Path) -> str:
    """The value of KnownHostsCommand for a program of `known_hosts.program`."""
    return f"/bin/sh {pins} %H %f %t %K"


def _theirs() -> Iterator[str]:
    chosen = os.environ.get(CONFIG)
    for path in (path_of(chosen).absolute(),) if chosen else ("~/.ssh/config", SYSTEM):
        text = re.sub(r"([*?\[\]\\])", r"\\\1", str(path))  # ssh takes the path for a pattern
        if version() >= BACKSLASHES_SINCE:  # within quotes
            text = text.replace("\\", "\\\\").replace('"', '\\"')
        yield f'Match all\nInclude "{text}"'


def environment() -> dict[str, str]:
    """The environment of an ssh that cannot ask: not in a window either."""
    mine = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
    if version() < (8, 4):  # does not know this word
        mine.pop("DISPLAY", None)
        mine.pop("SSH_ASKPASS", None)
    return mine


def _ask(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=ASK_S,
        start_new_session=True,  # `Match exec` cannot ask questions on this terminal
        check=False,
    )


def path_of(text: str) -> Path:
    """A path, from home where it starts with ~; as it stands where there is no such home."""
    with suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)

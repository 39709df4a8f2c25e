"""Why a login by the person's own ssh failed, as an error with the next step, from what its log says (`ssh_log`)."""

from __future__ import annotations

import re
import shlex

from worker.escape import safe_text

from ...errors import HostError, LinkLost
from . import known_hosts
from .alias import PINS_SINCE, Alias, Settings, one, version
from .refused import HostKeyRefused, LoginRefused, TurnedAway
from .ssh_log import Account

ASKS = ("password", "keyboard-interactive")  # ways to log in that ask a person


def why(alias: Alias, chosen: Settings, own: Account, aside: Account, late: str = "") -> HostError:
    """Return the error for a login that failed. `aside`: what hops and proxies said; `late`: that no answer came.

    What is aside counts only until the last machine's own key exchange ended: later it may be that machine's banner.
    """
    hop = not own.connected and not own.key_refused
    log = aside if hop and (aside.key_refused or aside.denied) else own
    if log.key_refused:
        return HostKeyRefused(safe_text(f"{alias.name}: {_host_key(alias, log)}", 20_000))
    if log.denied or (own.connected and (own.more_wanted or "authentication" in own.farewell.lower())):
        return LoginRefused(_login(alias, log))
    proxy = next((key for key in ("ProxyCommand", "ProxyJump") if one(chosen, key.lower())), "")
    words = own.farewell or own.last_words
    if proxy and hop and aside.last_words:  # ssh itself knows only that it was closed
        words = f"its proxy said: {aside.last_words}"
    place = f"{alias.name}: reaching {_address(alias, chosen)}{f' by its {proxy}' if proxy else ''}: "
    if late:
        return LinkLost(f"{place}{late}{f' ({words})' if words else ''}")
    if own.turned_away and not proxy:
        return TurnedAway(f"{place}closed before it said anything ({words})")
    return LinkLost(f"{place}{words or 'ssh ended without a word'}")


def _address(alias: Alias, chosen: Settings) -> str:
    return f"{one(chosen, 'hostname') or alias.host} port {one(chosen, 'port') or 22}"


def _login(alias: Alias, log: Account) -> str:
    offered = ", ".join(log.offered) or "nothing: no key that could be read, no agent"
    remarks = [*([f"the server: {log.farewell}"] if log.farewell else []), *(f"there: {text}" for text in log.remarks)]
    remarks += [word for word in log.words if not re.match(r"\S+: Permission denied|Authenticated", word)][-3:]
    text = f"{alias.name}: {log.machine or alias.host} does not let you in; offered: {offered}"
    text += f" ({'; '.join(remarks)})" if remarks else ""
    text += f"; it takes: {log.methods}" if log.methods else ""
    if "too many" in log.farewell.lower():
        text += ". Name the one key in your ssh configuration: IdentityFile, and IdentitiesOnly yes"
    if any("-CERT " in line for line in log.offered):
        text += ". A certificate was offered: see until when it holds, ssh-keygen -L -f FILE"
    if log.more_wanted or set(ASKS) & set(log.methods.split(",")):
        text += ". Where it asks for a password or a second factor, "
        if alias.argv() == ["--", alias.host]:
            text += f"answer once: `runbook login {shlex.quote(alias.host)}`; what starts after that goes through it"
        else:
            text += "make it an alias of your ssh configuration, name that as `ssh` of the host, and `runbook login` it"
    return f"{text}. Try by hand: {alias.by_hand}"


def _host_key(alias: Alias, log: Account) -> str:
    name = log.known_as or log.machine or alias.host
    kind, seen = log.key or ("a key", "that ssh did not name")
    pins = known_hosts.pinned() if version() >= PINS_SINCE else {}  # an older ssh cannot be told of them
    pin = alias.host_key or pins.get(name.lower())
    there = known_hosts.there(kind.removesuffix("-cert-v01@openssh.com"))
    nothing = "so nothing was sent to it"
    where = ", ".join(log.offending)
    if log.revoked:
        return (
            f"the host key of {name}, {kind} {seen}, is revoked{f' ({where})' if where else ''}, {nothing}. Whoever "
            "has that key can pose as this machine: ask its owner for a new one"
        )
    if log.changed or log.offending or pin:
        expected = f"that of {where}" if where else pin or "the one known"
        return (
            f"the host key of {name} is not the one known, {nothing}: expected {expected}; seen {kind} {seen}. Either "
            "the machine was set up anew, or another one answers in its place: ask its owner "
            f"({there}). Only if the change is meant: {_forget(alias, log, name, seen)}"
        )
    return (
        f"the host key of {name} is not known here, {nothing}: seen {kind} {seen}. Compare it with what the machine's "
        f"owner says ({there}). If it is the same, {_trust(alias, name, seen)}"
    )


def _trust(alias: Alias, name: str, seen: str) -> str:
    if version() < PINS_SINCE:
        return f"say yes once to: {alias.by_hand}"
    return f"say so:\n    runbook trust {shlex.quote(name)} {seen}\nor say yes once to: {alias.by_hand}"


def _forget(alias: Alias, told: Account, name: str, seen: str) -> str:
    if alias.host_key:
        return "put the new fingerprint into the credentials file"
    files = dict.fromkeys(place.rpartition(":")[0] for place in told.offending)
    ways = [f"remove the old key, ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(file)}" for file in files]
    return ", and ".join([*ways, _trust(alias, name, seen)])

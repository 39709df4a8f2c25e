"""The seal's sum as the hosts keep it: witnesses whom an archive made anew does not persuade.

After each sealing every machine gets a line in `<workdir>/seals/<run id>.jsonl`, which no `clean` removes. Whoever
verifies may ask them, by logins of his own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from worker.escape import safe_text
from worker.files import sha256_file
from worker.layout import seals_file

from ..errors import RunbookError
from ..hosts import hosts as machines
from ..hosts.content import Content
from ..records import parse
from ..run.checks import Checks
from ..run.run import Run

T = TypeVar("T")
NAME = "the hosts keep the same seal"
LINES = 400  # of the last seals
REMEDY = "ask its owner which of the two is true: somebody sealed again elsewhere, or changed what a host keeps"


@dataclass(frozen=True)
class Kept:
    """A seal that a host was told of: the sum of the list, and when."""

    list: str
    at: str


def keep(run: Run) -> list[str]:
    """Have each machine keep the sum of the list as it is; return in words which could not."""
    if not run.id or not run.sums.is_file():
        return []
    seal = Kept(sha256_file(run.sums), datetime.now(UTC).isoformat(timespec="seconds"))

    def tell(host: machines.Host) -> None:
        before = _kept(run, host)
        if before[-1:] != [replace(seal, at=before[-1].at if before else "")]:
            host.put(_path(run, host), _content([*before, seal]))

    return [safe_text(f"{name}: {error}", 300) for name, error in _each(run, tell).failures.items()]


def check(checks: Checks, run: Run) -> None:
    """Ask all machines of the profile, and say who keeps this seal, who another, and who could not be asked."""
    if not run.id:
        checks.add(NAME, True, "the run has no id: hosts of its version were told nothing", "", warn=True)
        return
    own = sha256_file(run.sums) if run.sums.is_file() else ""
    answers = _each(run, lambda host: _kept(run, host))
    here = {spec.name for spec in run.profile.hosts if spec.is_here}
    agree = [f"{name}{' (this machine)' if name in here else ''}" for name, kept in answers.ok.items()
             if kept and kept[-1].list == own]  # fmt: skip
    wrong = [_otherwise(name, kept, own) for name, kept in answers.ok.items() if kept and kept[-1].list != own]
    silent = [f"{name} was told of none" for name, kept in answers.ok.items() if not kept]
    silent += [safe_text(f"{name} could not be asked: {error}", 200) for name, error in answers.failures.items()]
    words = [f"it is kept by {', '.join(agree)}"] * bool(agree) + wrong + silent
    checks.add(NAME, not wrong, "; ".join(words), "the same sum", REMEDY if wrong else "", warn=bool(silent))


def _otherwise(name: str, kept: list[Kept], own: str) -> str:
    earlier = [each.at for each in kept if each.list == own]
    was = f"this one was sealed before it, at {earlier[-1]}" if earlier else "and never was told of this one"
    return f"{name} keeps another, sealed at {kept[-1].at}, {was}"


def _each(run: Run, do: Callable[[machines.Host], T]) -> machines.Results[T]:
    """Ask one host of each machine that is reached as one."""
    first = {spec.reached: spec for spec in reversed(run.profile.hosts)}
    return machines.side_by_side(replace(run, only=frozenset(spec.name for spec in first.values())), do)


def _path(run: Run, host: machines.Host) -> Path:
    return seals_file(host.workdir, run.id)


def _kept(run: Run, host: machines.Host) -> list[Kept]:
    """Return the seals that a host was told of, the last one last. Raises RunbookError for what is none."""
    lines = host.tail(_path(run, host), LINES).splitlines()
    try:
        seals = [parse(Kept, json.loads(line), f"{host.name}: {_path(run, host)}") for line in lines]
    except ValueError as error:
        raise RunbookError(f"{host.name}: {_path(run, host)}: {safe_text(str(error), 200)}") from None
    return [Kept(safe_text(each.list, 64), safe_text(each.at, 40)) for each in seals]


def _content(kept: list[Kept]) -> Content:
    data = "".join(json.dumps({"at": each.at, "list": each.list}) + "\n" for each in kept).encode()
    return Content(len(data), hashlib.sha256(data).hexdigest(), lambda: iter([data]))

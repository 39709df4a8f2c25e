"""A host's answers, parsed and checked before they are used: they may be damaged, or forged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from worker.environment import Found
from worker.escape import safe_text
from worker.fields import ENTRIES, STATE, WireError, is_count, refuse, shown
from worker.wire import Limits, Reading, Running, Submitted

from ..errors import HostError, InvalidReading, RunbookError
from ..profile.rules import UNWANTED
from . import bounds


def reading(value: Any, host: str, placed: bool = False) -> Reading:
    """Check a reading (`worker.snapshot.snapshot`). Raises InvalidReading naming the field that cannot be true.

    `placed`: by a scheduler, whose word is in it then; no other host has a say in it.
    """
    try:
        for name, record in _records(value):
            _bounded(record, name)
        answer = Reading.from_json(value)
        if answer.supervisor_alive and not answer.supervised.process:
            raise refuse("supervisor", "process", None, "one: it may have to be stopped")
        if placed and answer.queued is None:
            raise refuse("", "queued", None, "what its scheduler says")
    except WireError as why:
        raise InvalidReading(
            f"{host}: its reading is invalid ({why}); nothing was taken from it. Look at that machine: a disk that "
            "fails, or somebody who writes into the run's folder"
        ) from None
    return answer if placed else replace(answer, queued=None)


def readings(value: Any, cluster: str, names: Sequence[str]) -> dict[str, Reading | RunbookError]:
    """Check the readings of a cluster's tasks, by host: an invalid one is that host's failure alone."""
    if not isinstance(value, dict):
        raise InvalidReading(f"{cluster}: its readings are invalid ({shown(value)}); nothing was taken from them")
    checked: dict[str, Reading | RunbookError] = {}
    for name in names:
        try:
            checked[name] = reading(value.get(name), name, placed=True)
        except InvalidReading as error:
            checked[name] = error
    return checked


def submitted(value: Any, cluster: str) -> Submitted:
    """Check an answer of `worker.slurm.submit`."""
    answer = value if isinstance(value, dict) else {}
    there, lists = answer.get("there"), [answer.get(key) for key in ("submitted", "given_up")]
    good = all(isinstance(each, list) and all(is_count(number, ENTRIES) for number in each) for each in lists)
    if not isinstance(there, dict) or not good:
        raise HostError(f"{cluster}: its answer about the tasks that were submitted is invalid: {shown(value)}")
    words = {safe_text(str(task), 20): safe_text(str(why), 300) for task, why in there.items()}
    return Submitted(submitted=list(lists[0] or ()), there=words, given_up=list(lists[1] or ()))


def limits(value: Any, cluster: str) -> Limits:
    """Check an answer of `worker.slurm.limits`."""
    answer = value if isinstance(value, dict) else {}
    version, limit, partitions = (answer.get(key) for key in ("version", "array_limit", "partitions"))
    good = isinstance(version, str) and isinstance(partitions, list) and (limit is None or is_count(limit))
    if not good or not all(isinstance(name, str) for name in partitions or ()):
        raise HostError(f"{cluster}: its answer about its limits is invalid: {shown(value)}")
    names = [safe_text(name, 100) for name in partitions or ()]
    return Limits(version=safe_text(str(version), 50), array_limit=limit, partitions=names)


def _records(value: Any) -> Iterator[tuple[str, object]]:
    """Yield what workers and supervisors wrote, from a reading that may have any shape."""
    if not isinstance(value, dict):
        return
    slots = value.get("slots")
    for slot, entry in slots.items() if isinstance(slots, dict) else ():
        for name in ("report", "exits") if isinstance(entry, dict) else ():
            yield f"{slot} {name}", entry.get(name)
    for name in ("supervisor", "given_up", "queued"):
        yield name, value.get(name)


def _bounded(value: object, name: str) -> None:
    """Refuse a value that is too large, even where we use none of it: no honest host writes one."""
    if odd := bounds.problem(value):
        raise refuse("", name, odd, "a JSON value of bounded size")


# ---------------------------------------------------------------------------------------------- other answers


def path(value: object, host: str, what: str) -> str:
    """Check a path from a host: absolute, and of the characters that a path in a profile may have."""
    if isinstance(value, str) and value.startswith("/") and len(value) < 4096 and not UNWANTED.search(value):
        return value
    raise HostError(f"{host}: sent something invalid as {what}: {shown(value, 200)}")


def environment(value: Any, host: str) -> Found:
    """Check an answer of `worker.environment.find`."""
    answer = value if isinstance(value, dict) else {}
    texts = (answer.get(name) for name in ("python", "why", "tool", "log"))
    state = answer.get("state")
    if not (isinstance(state, str) and STATE.fullmatch(state) and all(isinstance(text, str) for text in texts)):
        raise HostError(f"{host}: its answer about its environment is invalid: {shown(value)}")
    for name in ("python", "log"):
        if answer[name] or (name == "python" and state in ("ready", "foreign")):
            path(answer[name], host, f"its environment's {name}")
    python, record, log = answer["python"], answer.get("record"), answer["log"]
    why, tool = safe_text(answer["why"]), safe_text(answer["tool"])
    return Found(python=python, state=state, why=why, tool=tool, record=record, log=log)


def completed(value: object, host: str) -> tuple[int | None, str, str]:
    """How a command ended there (None: it did not), and what it printed on either stream, safe to print."""
    answer = value if isinstance(value, dict) else {}
    code, out, err = (answer.get(name) for name in ("exit", "out", "err"))
    if not (code is None or type(code) is int) or not isinstance(out, str) or not isinstance(err, str):
        raise HostError(f"{host}: its answer about a command is invalid: {shown(value)}")
    return code, safe_text(out, 2**20), safe_text(err, 2**20)


def piece(value: object, host: str, offset: int) -> tuple[str, int]:
    """A piece of a log, safe to print, and where the next one begins: never before `offset`."""
    answer = value if isinstance(value, dict) else {}
    text, behind = answer.get("text"), answer.get("offset")
    if not isinstance(text, str) or type(behind) is not int or not 0 <= behind < 2**63:
        raise HostError(f"{host}: its answer about a log is invalid: {shown(value)}")
    return safe_text(text, 100_000), max(offset, behind)


def running(value: Any, host: str) -> list[Running]:
    """Check an answer of `worker.process.running`."""
    try:
        if not isinstance(value, list) or len(value) > 2 * ENTRIES:
            raise refuse("", "what runs there", value, "a list")
        for each in value:
            _bounded(each, "what runs there")
        return [Running.from_json(each, "", "what runs there") for each in value]
    except WireError as why:
        raise HostError(f"{host}: its answer about what runs there is invalid ({why})") from None


def files(value: object, host: str) -> list[tuple[str, int]]:
    """(path below a folder, bytes) of each file in a listing. A name is shown safely, and never used as one."""
    listed = value.get("files") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        raise HostError(f"{host}: its list of files is invalid: {shown(value)}")
    entries = []
    for item in listed:
        name, size = item if isinstance(item, (list, tuple)) and len(item) == 2 else (item, 0)
        if not isinstance(name, str) or not _inside(name) or type(size) is not int or not 0 <= size < 2**63:
            raise HostError(f"{host}: lists a file that cannot be below the folder: {shown(name, 200)}")
        entries.append((safe_text(name, 4096).replace("\n", "\\n").replace("\t", "\\t"), size))
    return entries


def _inside(name: str) -> bool:
    """Whether a file name from a host can be a path below a folder."""
    return 0 < len(name) < 4096 and name[0] != "/" and ".." not in name.split("/")

"""A machine's GPUs, judged by its nvidia-smi output: which can be used, why others cannot, what a person can do.

The shapes of odd answers are from public reports: `[N/A]`, `[Not Supported]`, `[GPU requires reset]`, `ERR!`, lost
cards, and whole messages in place of a table. The input comes from another machine: nothing in it is trusted.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from worker.escape import safe_text
from worker.machine import APP_FIELDS, BASIC_FIELDS, GPU_FIELDS, SAMPLE_FIELDS

GPU_LIMIT = 64
USER_LIMIT = 64
TEXT_LIMIT = 2**16
WORD_LIMIT = 200
NAMED = 5  # lines that are not understood
DIVIDED = "MIG is on: its MIG devices are used instead"  # the only trouble that needs no repair
USED_UNSEEN_MIB = 1024  # more than a driver keeps for itself on an idle card

_ID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
UUID = re.compile(f"GPU-{_ID}|MIG-{_ID}|MIG-GPU-{_ID}/[0-9]{{1,2}}/[0-9]{{1,2}}")  # the last before driver 470
NUMBER = re.compile("([0-9]{1,12}(?:[.][0-9]{1,9})?) *(?:MiB|%|W|C)?")
DEAD = re.compile("requires reset|ERR!|is lost")
CARD = re.compile(r"GPU ([0-9]{1,3}): (.*) \(UUID: ([^()]*)\)")
MIG = re.compile(r"MIG ([0-9a-zA-Z.+-]{1,40}) +Device +[0-9]{1,3}: \(UUID: ([^()]*)\)")

# What a person can do, by the driver's message; the first match counts.
REMEDIES = (
    ("version mismatch", "its driver was upgraded while the old one was loaded: reboot that machine"),
    ("communicate with the NVIDIA driver", "the driver is not loaded: reboot that machine, or ask its admin"),
    ("requires reset", "its admin can reset the card, or reboot; until then lower `slots`"),
    (
        "device handle|is lost|ERR!",
        "a card is off the bus: its admin can reboot; until then lower `slots`",
    ),
    ("Failed to initialize NVML", "in a container: restart it, it lost its devices; else ask that machine's admin"),
    ("No devices|named no GPU", "no GPU is visible to this account: ask for access, or set `device: cpu`"),
    ("not found|couldn't find", "install the NVIDIA driver there, or set `device: cpu` for this host"),
    ("did not answer", "a card or its driver hangs: ask that machine's admin, a reboot helps"),
    ("no MIG device", "its admin can make MIG devices (nvidia-smi mig -cgi), or turn MIG off"),
    ("Prohibited", "its admin can allow work on it: nvidia-smi -c 0"),
)

# The oldest driver for Linux that runs every build of a CUDA major version, as NVIDIA publishes them. A compatibility
# package can make older ones work, so only a matrix product on the card has the last word.
OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}


class User(NamedTuple):
    """A process on a GPU, as the driver reports it: in a container we cannot look up its pid."""

    pid: int
    name: str
    mib: int | None


class Sample(NamedTuple):
    """One reading of a GPU; None for what the driver does not report."""

    utilization: int | None
    used_mib: int | None
    temperature: int | None
    watts: float | None


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG device of it. None stands for what the driver does not report.

    `trouble` is why it cannot be used, `warning` what else to know. `users` None means unknown, not idle.
    """

    index: int
    uuid: str
    name: str
    total_mib: int | None = None
    used_mib: int | None = None
    driver: str = ""
    utilization: int | None = None
    temperature: int | None = None
    watts: float | None = None
    trouble: str = ""
    warning: str = ""
    users: tuple[User, ...] | None = None


@dataclass(frozen=True)
class Inventory:
    """A machine's GPUs, the driver's complaint in its own words, and what a person should do about it.

    GPUs without trouble can be used whatever the complaint: one lost card does not spoil the others.
    """

    gpus: tuple[Gpu, ...]
    complaint: str
    remedy: str
    withheld: str = ""  # which were not given to this account, in words; they are not among `gpus`
    unknown: tuple[str, ...] = ()  # lines of the list that are not understood


@dataclass(frozen=True)
class _CommandOutput:
    """The output of one command; `exit` is None when it did not end, or when that is unknown."""

    out: str
    err: str
    exit: int | None
    lost: Mapping[int, str]


@dataclass(frozen=True)
class _Card:
    """A line of `nvidia-smi -L`, with the MIG devices under it: (profile, UUID)."""

    name: str
    uuid: str
    migs: list[tuple[str, str]]


def inventory(nvidia: object) -> Inventory:
    """Judge `nvidia` of a host's facts (see `worker.machine.facts`). Raises nothing, whatever the host sent."""
    asked, listed, apps = (_output(nvidia, key) for key in ("gpus", "list", "apps"))
    rows, strays = _rows(asked.out)
    cards, unknown = _cards(listed.out)
    complaint = _complaint(asked, strays, bool(rows))
    users = _users(apps)
    devices: dict[str, Gpu] = {}
    for index in sorted({*rows, *cards, *asked.lost}):
        card = cards.get(index)
        if index in rows:
            gpu = _judge(index, rows[index], users)
        else:
            name, uuid = (card.name, card.uuid) if card else ("", "")
            why = asked.lost.get(index) or complaint or "the driver lists it and says nothing of it"
            gpu = Gpu(index, uuid if UUID.fullmatch(uuid) else "", name, trouble=why)
        on = rows.get(index, {}).get("mig.mode.current") == "Enabled"
        for each in _devices(gpu, card.migs if card else [], on, users):
            devices.setdefault(each.uuid or f"{index} {each.name}", each)  # a UUID named twice is one GPU
    gpus, withheld = _given(tuple(devices.values())[:GPU_LIMIT], _output(nvidia, "visible"))
    words = [complaint, *(gpu.trouble for gpu in gpus if gpu.trouble != DIVIDED)]
    return Inventory(gpus, complaint, next(filter(None, map(_remedy, words)), ""), withheld, unknown)


def _given(gpus: tuple[Gpu, ...], visible: _CommandOutput) -> tuple[tuple[Gpu, ...], str]:
    """Leave only the GPUs that CUDA_VISIBLE_DEVICES names, if it is set, as CUDA reads it: up to the first mistake."""
    if visible.exit != 0:
        return gpus, ""
    wanted: dict[str, Gpu] = {}
    for word in map(str.strip, visible.out.split(",")):
        named = [gpu for gpu in gpus if _names(word, gpu)]
        if not named or len({gpu.index for gpu in named}) > 1:  # -1, an index that is not there, half of two UUIDs
            break
        usable = [gpu for gpu in named if gpu.trouble != DIVIDED]  # CUDA opens the first MIG device of a card
        wanted.update((gpu.uuid or f"{gpu.index} {gpu.name}", gpu) for gpu in (usable or named)[:1])
    left = tuple(gpu for gpu in gpus if gpu in wanted.values())
    away = [str(gpu.index) for gpu in gpus if gpu not in left and gpu.trouble != DIVIDED]
    variable = f"CUDA_VISIBLE_DEVICES={_word(visible.out)}"
    return left, f"{variable}: of {len(left) + len(away)} GPUs {len(left)} are this account's" if away else ""


def _names(word: str, gpu: Gpu) -> bool:
    if re.fullmatch("[0-9]{1,3}", word):
        return int(word) == gpu.index
    return word.startswith(("GPU-", "MIG-")) and len(word) > len("GPU-") and gpu.uuid.startswith(word)


def driver_fits(driver: str, cuda_build: str | None) -> str:
    """Why this driver is too old for a torch built with that CUDA, in a sentence; empty when it is not, or unknown."""
    build = re.match("([0-9]{1,3})[.]", f"{cuda_build or ''}.")
    oldest = OLDEST_DRIVER.get(int(build[1])) if build else None
    if oldest is None or not re.fullmatch("[0-9]{1,5}([.][0-9]{1,5}){1,3}", driver):
        return ""
    if _version(driver) >= _version(oldest):
        return ""
    return (
        f"driver {driver} is older than {oldest}, the oldest for CUDA {cuda_build}: "
        "install a torch built for an older CUDA (docs/corpus.md: which torch), or ask for a newer driver"
    )


def samples(text: str) -> dict[str, Sample]:
    """The readings in the text of `worker.machine.gpu_sample`, by UUID; invalid lines are left out."""
    by_uuid = {}
    for line in text[:TEXT_LIMIT].splitlines():
        values = _fields(line)
        if len(values) == len(SAMPLE_FIELDS) and UUID.fullmatch(uuid := _uuid(values[0])):
            by_uuid[uuid] = Sample(_whole(values[1]), _whole(values[2]), _whole(values[3]), _number(values[4]))
    return dict(list(by_uuid.items())[:GPU_LIMIT])


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _number(text: str) -> float | None:
    match = NUMBER.fullmatch(text)
    return float(match[1]) if match else None


def _whole(text: str) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _uuid(text: str) -> str:
    """A card's UUID as CUDA takes it; small boards (Jetson) leave its first word out."""
    return f"GPU-{text}" if re.fullmatch(_ID, text) else text


def _word(text: str, limit: int = WORD_LIMIT) -> str:
    return safe_text(text, limit).strip()


def _fields(line: str) -> list[str]:
    try:
        return [value.strip() for value in next(csv.reader([line], skipinitialspace=True), [])]
    except csv.Error:
        return []


def _output(nvidia: object, key: str) -> _CommandOutput:
    answer = nvidia.get(key) if isinstance(nvidia, Mapping) else None
    answer = answer if isinstance(answer, Mapping) else {}
    out, err = (value[:TEXT_LIMIT] if isinstance(value := answer.get(name), str) else "" for name in ("out", "err"))
    code = answer.get("exit")
    lost = answer.get("lost")
    why = {
        int(index): _word(text, 500)
        for index, text in list(lost.items() if isinstance(lost, Mapping) else ())[:GPU_LIMIT]
        if isinstance(index, str) and re.fullmatch("[0-9]{1,3}", index) and isinstance(text, str)
    }
    return _CommandOutput(out, err, code if type(code) is int else None, why)


def _rows(text: str) -> tuple[dict[int, dict[str, str]], list[str]]:
    """The rows of the table by index, each {field: value}, and the invalid lines."""
    rows: dict[int, dict[str, str]] = {}
    strays = []
    for line in filter(None, map(str.strip, text.splitlines())):
        values = _fields(line)
        fields: Sequence[str] = GPU_FIELDS if len(values) >= len(GPU_FIELDS) else BASIC_FIELDS
        if values[:1] == ["index"]:
            continue  # a header
        if len(values) < len(fields) or not re.fullmatch("[0-9]{1,3}", values[0]):
            # A card in trouble may give the same word in every field: it is kept once.
            strays.append(_word(values[0] if len(set(values)) == 1 and values[0] else line, 500))
            continue
        behind = len(fields) - 3
        values = [
            values[0],
            _uuid(values[1]),
            ", ".join(values[2:-behind]),
            *values[-behind:],
        ]  # a name may hold commas
        rows.setdefault(int(values[0]), dict(zip(fields, map(_word, values), strict=True)))
    return rows, strays


def _cards(text: str) -> tuple[dict[int, _Card], tuple[str, ...]]:
    """What `nvidia-smi -L` lists, by index, and the lines that are not understood."""
    cards: dict[int, _Card] = {}
    unknown = []
    last: _Card | None = None
    for line in map(str.strip, text.splitlines()):
        if card := CARD.fullmatch(line):
            last = cards.setdefault(int(card[1]), _Card(_word(card[2]), _uuid(card[3]), []))
        elif (mig := MIG.fullmatch(line)) and last:
            last.migs.append((mig[1], mig[2]))
        elif cards and line:  # before the first card it is the complaint of a driver, which the table tells too
            unknown.append(_word(line))
    return cards, tuple(unknown[:NAMED])


def _complaint(asked: _CommandOutput, strays: list[str], rows: bool) -> str:
    if strays and asked.exit is not None:
        return strays[0]
    if asked.exit == 0:
        return "" if rows else "nvidia-smi named no GPU"
    silent = "gave no answer" if asked.exit is None else f"ended with exit code {asked.exit} and said nothing"
    first = next(filter(None, map(str.strip, asked.err.splitlines())), f"nvidia-smi {silent}")
    return _word(first, 500)


def _remedy(words: str) -> str:
    if not words:
        return ""
    fitting = (remedy for pattern, remedy in REMEDIES if re.search(pattern, words))
    return next(fitting, "run nvidia-smi on that machine, and show its admin what it says")


def _users(apps: _CommandOutput) -> dict[str, list[User]] | None:
    """Return the processes by the UUID of their GPU; None when the command failed or its output is not understood."""
    if apps.exit != 0:
        return None
    by_uuid: dict[str, list[User]] = {}
    for line in filter(None, map(str.strip, apps.out.splitlines())):
        values = _fields(line)
        if values[:1] == ["gpu_uuid"] or line.startswith("No running"):
            continue
        values[:1] = map(_uuid, values[:1])
        if len(values) < len(APP_FIELDS) or not UUID.fullmatch(values[0]) or not re.fullmatch("[0-9]{1,10}", values[1]):
            return None
        users = by_uuid.setdefault(values[0], [])
        if len(users) < USER_LIMIT:
            users.append(User(int(values[1]), _word(", ".join(values[2:-1])), _whole(values[-1])))
    return by_uuid


def _judge(index: int, row: Mapping[str, str], users: Mapping[str, list[User]] | None) -> Gpu:
    uuid = row["uuid"] if UUID.fullmatch(row["uuid"]) else ""
    used = _whole(row["memory.used"])
    there = None if users is None else tuple(users.get(uuid, ()))
    return Gpu(
        index=index,
        uuid=uuid,
        name=row["name"],
        total_mib=_whole(row["memory.total"]),
        used_mib=used,
        driver=row["driver_version"],
        utilization=_whole(row.get("utilization.gpu", "")),
        temperature=_whole(row.get("temperature.gpu", "")),
        watts=_number(row.get("power.draw", "")),
        trouble=_trouble(row),
        warning="; ".join(_warnings(row, used, there)),
        users=there,
    )


def _trouble(row: Mapping[str, str]) -> str:
    for field, value in row.items():
        # A sensor that fails is no trouble; a card that cannot say who it is or what memory it has is.
        if DEAD.search(value) or ("Unknown Error" in value and field in BASIC_FIELDS):
            return value
    if not UUID.fullmatch(row["uuid"]):
        return _nameless(row["uuid"])
    if row.get("compute_mode") == "Prohibited":
        return "compute mode Prohibited: nothing may run on it"
    return ""


def _nameless(uuid: str) -> str:
    return f"its UUID is {_word(uuid) or 'empty'}: nothing can be started on it by name"


def _warnings(row: Mapping[str, str], used: int | None, users: tuple[User, ...] | None) -> Iterator[str]:
    errors = _whole(row.get("ecc.errors.uncorrected.volatile.total", ""))
    if errors:
        yield f"{errors} uncorrected memory errors (ECC) since its driver was loaded"
    if row.get("compute_mode", "").startswith("Exclusive"):
        yield f"compute mode {row['compute_mode']}: one process at a time"
    for field in ("utilization.gpu", "temperature.gpu", "power.draw"):
        if "Unknown Error" in row.get(field, ""):
            yield f"{field}: {row[field]}"
    if users is None:
        yield "who uses it is not known"
    elif not users and (used or 0) > USED_UNSEEN_MIB and row.get("mig.mode.current") != "Enabled":
        yield f"{used} MiB are in use and no process is shown: somebody outside this container, or a dead process"


def _devices(
    gpu: Gpu, migs: Sequence[tuple[str, str]], on: bool, users: Mapping[str, list[User]] | None
) -> Iterator[Gpu]:
    """The card, or with MIG the card as unusable and its MIG devices as GPUs of their own."""
    if not migs and not on:
        yield gpu
        return
    yield replace(gpu, trouble=gpu.trouble or (DIVIDED if migs else "MIG is on, and there is no MIG device of it"))
    for profile, uuid in migs:
        known = UUID.fullmatch(uuid) is not None
        there = None if users is None else tuple(users.get(uuid, ()))
        warnings = [gpu.warning]
        if gpu.users:  # some drivers list processes by card, not by MIG device
            warnings.append("its card has processes, and which MIG device they use is not known")
        yield Gpu(
            index=gpu.index,
            uuid=uuid if known else "",
            name=_word(f"{gpu.name} MIG {profile}"),
            driver=gpu.driver,
            trouble=gpu.trouble or ("" if known else _nameless(uuid)),
            warning="; ".join(filter(None, warnings)),
            users=there,
        )

"""The facts of each host, and whether it can be used: all hosts are asked at once, and their answers judged here.

One host that cannot be reached hides no other. The facts that the plan and the launch need come beside the checks.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from worker import awake
from worker.allotted import OF_TASK
from worker.device import NEW
from worker.environment import Found
from worker.escape import safe_text
from worker.fields import shown

from ..errors import HostError, LinkLost, RunbookError
from ..profile.profile import HostSpec
from ..run.checks import Checks
from ..run.machine_facts import MachineFacts, UsableGpu
from ..run.run import Run
from . import gpus, together
from . import hosts as machines
from .environments import is_made_by_us

CLOCK_S = 60.0  # a difference to warn about; nothing is computed from two clocks
# The lowest versions a worker was tested with (all but torch by the tests). This project's own venv requires more.
LOWEST = {"torch": "2.6", "sentence-transformers": "5.1", "transformers": "4.41"}
CORES = 4096  # more than a machine has


@dataclass
class _Observation:
    """One host's answer about itself (nothing in it is trusted), and what its connection allows."""

    answer: Mapping[str, Any]
    where: str
    sessions: int
    python: str = ""
    not_ours: str = ""  # why the run's folder there is not its own
    clock_s: float | None = None  # how far its clock is from ours
    own: frozenset[int] = frozenset()  # the pids of this run's workers there
    environment: Found | None = None


def take(run: Run) -> tuple[Checks, dict[str, MachineFacts]]:
    """Look at every host of the run: (checks, host -> facts). Raises nothing for a host that fails."""
    checks = Checks("Every host can be reached and will do")
    tokens = {spec.name: f"{secrets.token_hex(6)}-{number}" for number, spec in enumerate(run.profile.hosts)}
    first = replace(run, only=frozenset(specs[0].name for specs in together.groups(run.hosts)))
    results = machines.side_by_side(first, lambda host: _look(run, host, tokens[host.name]))
    names = {token: name for name, token in tokens.items()}
    facts: dict[str, MachineFacts] = {}
    # Before the first launch a wrong address is a mistake; later an unreachable host must not stop the others.
    wait = run.launched and run.profile.policy_for("unreachable") == "auto" and bool(results.ok)
    known = run.plan().hosts if wait and run.plan_file.exists() else []
    for specs in together.groups(run.hosts):
        spec = specs[0]
        result = results[spec.name]
        if isinstance(result, RunbookError):
            tolerated = spec.name in known and isinstance(result, LinkLost)
            checks.add(
                "reachable", tolerated, result, "reachable", _way_out(result), where=spec.reached, warn=tolerated
            )
            continue
        known_facts = _judge(checks, spec, result, names)
        if spec.is_task:
            known_facts.update(_by_profile(spec))
        facts.update({each.name: known_facts.copy() for each in specs})
        _untried(checks, spec, run.profile.model.dtype)
    for name, sharers in _shared(facts).items():
        checks.add("folder", True, f"shared with {', '.join(sharers)}", where=name, warn=True)
        facts[name]["shared"] = sharers
    machines.side_by_side(
        first, lambda host: host.transport.call("unmark", 30.0, workdir=str(host.workdir), token=tokens[host.name])
    )
    return checks, facts


def _by_profile(spec: HostSpec) -> MachineFacts:
    """What a task is given, as far as the profile says it: the login node's own is nothing to go by."""
    gpus_given = [env_gpu(place) for place in range(spec.slots or 0)] if spec.device == "cuda" else []
    return {"cores": (spec.threads or 1) * (spec.slots or 1), "gpus": gpus_given}


def env_gpu(place: int) -> UsableGpu:
    """A GPU of a task, by its place in it: which card it is, the scheduler says when the task begins."""
    return {"index": place, "uuid": f"{OF_TASK}{place}", "name": "", "driver": "", "total_mib": None}


def _way_out(error: RunbookError) -> str:
    if isinstance(error, LinkLost):
        return "is it on, is its address right, is a VPN needed? By hand: ssh to it"
    return "see the message" if isinstance(error, HostError) else "mend the profile or the file it names"


def _look(run: Run, host: machines.Host, token: str) -> _Observation:
    asked = time.time()
    answer = host.facts(token)
    answered = time.time()
    observed = _Observation(answer, host.transport.where, host.transport.sessions())
    if answer.get("writable") is True:
        observed.not_ours = host.unclaimed(run.id)
    now = _number(answer.get("now"), 1e11)
    if now is not None:
        # As if read in the middle: the error is at most half the time that the question took.
        observed.clock_s = round(now - (asked + answered) / 2, 3)
    if (
        host.spec.device == "cuda" and not host.spec.is_task and answer.get("writable") is True
    ):  # else its folder cannot be read either
        reading = host.poll()
        living = [entry.worker.process for entry in reading.slots.values() if entry.alive]
        observed.own = frozenset(process["pid"] for process in living if process)
    if is_made_by_us(host.spec.environment):
        observed.environment = host.environment()
        observed.python = observed.environment["python"]
    else:
        observed.python = host.python
    return observed


def _judge(checks: Checks, spec: HostSpec, observed: _Observation, names: Mapping[str, str]) -> MachineFacts:
    """Add the checks of one host that answered; return the facts that later steps need."""
    answer, name = observed.answer, spec.reached
    facts: MachineFacts = {
        "workdir": _text(answer.get("workdir")),
        "python": observed.python,
        "device": spec.device,
        "system": ", ".join(filter(None, (_text(answer.get("system")), _text(answer.get("chip"))))),
        "memory_bytes": _number(answer.get("memory_bytes"), 2**63),
        "cores": max(1, int(_number(answer.get("cores"), CORES) or 1)),
        "free_bytes": _number(answer.get("free_bytes"), 2**63),
        "clock_s": observed.clock_s,
        "gpus": [],
        "unit": False,
        "made": observed.environment is None or observed.environment["state"] in ("ready", "foreign"),
        "saw": [names[token] for token in _list(answer.get("seen")) if isinstance(token, str) and token in names],
    }
    version = ".".join(_text(part) for part in _list(answer.get("python"))[:3])
    checks.add("reachable", True, f"{observed.where}, Python {_text(version)}, {facts['cores']} cores", where=name)
    why_not = _text(answer.get("why_not")) or "cannot be written"
    remedy = "make it yours alone and writable, or choose another `workdir`"
    if allotted := _text(answer.get("limits")):
        checks.add("limits", True, f"this account may use {allotted}", where=name)
    writable = answer.get("writable") is True
    checks.add("working folder", writable, facts["workdir"] if writable else why_not,
               "writable", remedy, where=name)  # fmt: skip
    if why := observed.not_ours:
        checks.add("run's folder", False, why, "not there yet, or this run's own", "see the message", where=name)
    if (offset := facts["clock_s"]) is not None and abs(offset) > CLOCK_S:
        checks.add("clock", True, f"{offset:+.0f} s from here", where=name, warn=True)
    _environment(checks, spec, observed)
    _logout(checks, spec, answer, facts)
    _power(checks, spec)
    if observed.sessions == 1:
        checks.add("sessions", True, "1 for a connection (MaxSessions): one thing at a time", where=name, warn=True)
    if spec.device == "cuda" and not spec.is_task:
        _gpus(checks, spec, answer, facts, observed.own)
    return facts


def _environment(checks: Checks, spec: HostSpec, observed: _Observation) -> None:
    environment = observed.environment
    if environment is None:
        return
    state, why = _text(environment["state"]), _text(environment["why"])
    ok = state in ("ready", "foreign", "absent", "creating", "failed")
    words = {"absent": "not there yet: 02_launch makes it", "creating": "is being made", "foreign": "there already"}
    text = words.get(state, state) + (f"; {why}" if why and state in ("failed", "unusable") else "")
    checks.add(f"environment {spec.environment}", ok, text, "ready, or one that can be made", why, spec.name,
               warn=state in ("failed", "creating"))  # fmt: skip
    if spec.environment != "venv" and state == "absent" and not environment["tool"]:
        remedy = "install one, or use `environment: venv`, or give the path of a Python"
        checks.add("conda", False, "no conda, mamba or micromamba found", "one of them", remedy, spec.name)


def _logout(checks: Checks, spec: HostSpec, answer: Mapping[str, Any], facts: MachineFacts) -> None:
    """Check whether a log-out there ends what the login started, and how to avoid that."""
    if spec.is_here or spec.is_task or answer.get("kills_user_processes") is not True:
        return
    unit = answer.get("linger") is True and answer.get("systemd_run") is True
    facts["unit"] = unit
    text = "ends all processes; workers run as a systemd unit of the user" if unit else "ends all processes"
    checks.add("log-out", unit, text, "leaves processes alone, or linger is on",
               "loginctl enable-linger (or ask the admin: KillUserProcesses=no)", spec.name)  # fmt: skip


def _power(checks: Checks, spec: HostSpec) -> None:
    """Warn if this machine runs on battery: workers stand still while it sleeps."""
    if spec.computes_here and awake.on_battery():
        checks.add("power", True, "on battery", "plugged in: workers stand still while this machine sleeps",
                   "plug it in, and leave the lid open", spec.name, warn=True)  # fmt: skip


def _untried(checks: Checks, spec: HostSpec, dtype: str) -> None:
    """Say of a device that this software was never run on, and of a dtype that is worse there."""
    if spec.device not in NEW:
        return
    text = (
        f"{spec.device}: this software was never run on such hardware; what it computes is held against the processor"
    )
    checks.add("device", True, text, where=spec.name, warn=True)
    if dtype == "bfloat16":
        remedy = "`dtype: float32`: bfloat16 saves memory there and no time, and has faults that float32 has not"
        checks.add("dtype", True, f"{dtype} on {spec.device}", "float32", remedy, spec.name, warn=True)


def _gpus(checks: Checks, spec: HostSpec, answer: Mapping[str, Any], facts: MachineFacts, own: frozenset[int]) -> None:
    """Check the GPUs; store the usable ones in `facts`, the free ones first.

    `own`: the pids of this run's workers there, which are no reason to wait.
    """
    inventory = gpus.inventory(answer.get("nvidia"))

    def others(gpu: gpus.Gpu) -> list[gpus.User]:
        return [user for user in gpu.users or () if user.pid not in own]

    if inventory.withheld:
        checks.add("GPUs given", True, inventory.withheld, where=spec.name)
    for line in inventory.unknown:
        checks.add("nvidia-smi -L", True, f"a line that is not understood: {line}", where=spec.name, warn=True)
    usable = [gpu for gpu in inventory.gpus if not gpu.trouble]
    for gpu in inventory.gpus:
        if gpu.trouble:
            checks.add(f"GPU {gpu.index}", True, f"left out: {gpu.trouble}", "", "", spec.name, warn=True)
        elif gpu.warning:
            checks.add(f"GPU {gpu.index}", True, gpu.warning, where=spec.name, warn=True)
    # Stable: in order of index; taken ones last, whole cards before slices of one.
    free = sorted(usable, key=lambda gpu: (bool(others(gpu)), gpu.uuid.startswith("MIG-")))
    if spec.slots is None:  # auto: only free ones, if there is one
        for gpu in [gpu for gpu in free if others(gpu) and not others(free[0])]:
            text = f"left out: taken by {_users(others(gpu))}"
            checks.add(f"GPU {gpu.index}", True, text, where=spec.name, warn=True)
            free.remove(gpu)
    wanted = spec.slots or max(1, len(free))
    taken = [gpu for gpu in free[:wanted] if others(gpu)]
    if taken:
        who = "; ".join(f"GPU {gpu.index}: {_users(others(gpu))}" for gpu in taken)
        remedy = "wait, agree with their owners, or lower `slots` to the number of free GPUs"
        checks.add("GPUs free", False, f"taken by other processes: {who}", f"{wanted} free GPUs", remedy, spec.name)
    text = _named(usable) or inventory.complaint or "none"
    enough = len(usable) >= wanted and bool(usable)
    remedy = inventory.remedy or "lower `slots` of this host"
    checks.add("GPUs", enough, text, f"{spec.slots or 'some'} that work", remedy, spec.name)
    facts["gpus"] = [
        {"index": gpu.index, "uuid": gpu.uuid, "name": gpu.name, "driver": gpu.driver, "total_mib": gpu.total_mib}
        for gpu in free
    ]


def _named(usable: list[gpus.Gpu]) -> str:
    """GPUs in words: how many of each kind, with their indices and memory."""
    kinds: dict[str, list[gpus.Gpu]] = {}
    for gpu in usable:
        room = f" of {gpu.total_mib / 1024:.0f} GiB" if gpu.total_mib else ""
        kinds.setdefault(f"{gpu.name}{room}", []).append(gpu)
    return "; ".join(
        f"{len(own)} x {kind} (index {', '.join(str(g.index) for g in own)})" for kind, own in kinds.items()
    )


def _users(users: list[gpus.User]) -> str:
    return ", ".join(f"{user.name} (pid {user.pid}, {user.mib or '?'} MiB)" for user in users[:3])


def _shared(facts: Mapping[str, MachineFacts]) -> dict[str, list[str]]:
    """Return host -> the others with the same folder. Of two, at least the later one saw the other's mark."""
    pairs = {(name, other) for name, each in facts.items() for other in each["saw"] if other in {*facts} - {name}}
    both = {name: sorted({o for n, o in pairs if n == name} | {n for n, o in pairs if o == name}) for name in facts}
    return {name: others for name, others in both.items() if others}


def _text(value: object) -> str:
    return safe_text(value, 500) if isinstance(value, str) else "" if value is None else shown(value)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object, most: float) -> Any:
    """A number from 0 to `most`; None for anything else, NaN too."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most
    return value if good else None


def _is_older(version: str, least: str) -> bool:
    """Whether a version is below another one, by the first two numbers."""
    own, lowest = ([int(number) for number in re.findall(r"[0-9]{1,9}", text)[:2]] for text in (version, least))
    return bool(own) and own < lowest


def judge_libraries(checks: Checks, spec: HostSpec, facts: MachineFacts, answer: Mapping[str, Any]) -> bool:
    """Check what `worker devices` found with the Python of a host: libraries, and one matrix product on each GPU.

    Return whether the libraries are there.
    """
    remedy = "install them there (docs/corpus.md: which torch), or `environment: venv` to have one made"
    if answer.get("error"):
        checks.add(
            "libraries", False, _text(answer["error"]), "torch and sentence-transformers import", remedy, spec.name
        )
        return False
    versions = answer.get("versions")
    named = dict(list(versions.items())[:20]) if isinstance(versions, dict) else {}
    old = [f"{name}>={least}" for name, least in LOWEST.items() if _is_older(_text(named.get(name, least)), least)]
    listed = ", ".join(f"{name} {_text(version)}" for name, version in named.items())
    checks.add("libraries", True, listed, ", ".join(old), remedy, spec.name, warn=bool(old))
    if spec.device in NEW:
        wrong = _text(answer.get("product", "its worker does not say"))
        remedy = "another version of torch or of the system; or `device: cpu` for this host"
        text = wrong or "a matrix product came out right"
        checks.add("GPU computes", not wrong, text, "a right product", remedy, spec.name)
    if spec.device != "cuda" or spec.is_task:
        return True
    driver = next((gpu["driver"] for gpu in facts["gpus"]), "")
    build = answer.get("cuda_build")
    if too_old := gpus.driver_fits(driver, build if isinstance(build, str) else None):
        checks.add("driver", False, too_old, "one that fits torch", "install the torch build of that driver", spec.name)
    worked = {_text(gpu.get("uuid")): gpu for gpu in _list(answer.get("gpus")) if isinstance(gpu, dict)}
    wanted = facts["gpus"][: spec.slots or len(facts["gpus"])]
    for gpu in wanted:
        if gpu["uuid"].startswith("MIG-"):  # one process sees one of them only
            checks.add(f"GPU {gpu['index']} computes", True, "MIG: tried by its worker", where=spec.name, warn=True)
            continue
        result = worked.get(gpu["uuid"], {"error": "torch does not see it"})
        ok = not result.get("error")
        text = "a matrix product came out right" if ok else _text(result.get("error"))
        checks.add(
            f"GPU {gpu['index']} computes", ok, text, "a right product", "nvidia-smi there; reset or reboot", spec.name
        )
    return True

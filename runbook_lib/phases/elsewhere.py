"""Rows computed again on another slot than the one that did them: on another machine, or by another GPU.

Which slot does whose is chosen here: one of the same kind where there is one, which must give the same bits. What runs
there is `worker/double.py`, once a slot, when all parts are home and the workers have ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.escape import safe_text
from worker.wire import Doubled, PartAgain, PartRecord, PartsAgain

from ..errors import HostError, RunbookError
from ..hosts import hosts as machines
from ..hosts.bundle import bring_bundle
from ..hosts.content import json_content
from ..run import fences
from ..run.opening import limited
from ..run.plan import Plan
from ..run.run import Run

WITHIN_S = 600.0  # for all that one slot is asked, loading included
LIMIT = 2**28  # bytes of an answer


@dataclass(frozen=True)
class Kind:
    """What decides the bits of a slot's vectors, by the record of a part of its."""

    device: str
    torch: str
    threads: int | None

    @classmethod
    def of(cls, record: PartRecord) -> Kind:
        """Of a slot that did this part; only a processor's sums depend on its threads."""
        device = record.device or ""
        return cls(device, record.torch or "", record.threads if device.startswith("cpu") else None)

    @property
    def exact(self) -> bool:
        """Whether slots of this kind give the same bits: a processor promises none."""
        return self.device.startswith("cuda")


def partners(run: Run, plan: Plan, kinds: Mapping[str, Kind]) -> dict[str, str]:
    """Return slot -> the slot that does its rows again; none for a slot without another machine or GPU beside it.

    One of its kind comes first, then one on another machine. A machine is given as few slots to load as will do.
    """
    specs = {spec.name: spec for spec in run.profile.hosts}
    able = [slot for slot in plan.slots if slot.slot in kinds and slot.host in specs]
    able = [slot for slot in able if slot.slot not in fences.behind(plan.fences)]

    def machine(host: str) -> str:
        spec = specs[host]
        return spec.name if spec.is_task else "this machine" if spec.computes_here else spec.reached

    order = sorted({machine(slot.host) for slot in able})
    chosen = {}
    for slot in able:
        mine, near = machine(slot.host), order.index(machine(slot.host))
        others = [
            (kinds[other.slot] != kinds[slot.slot], machine(other.host) == mine,
             (order.index(machine(other.host)) - near) % len(order), other.index, other.slot)
            for other in able
            if machine(other.host) != mine or (other.gpu and slot.gpu and other.gpu != slot.gpu)
        ]  # fmt: skip
        if others:
            chosen[slot.slot] = min(others)[-1]
    return chosen


def ask(run: Run, plan: Plan, orders: Mapping[str, Sequence[PartAgain]]) -> dict[str, Doubled | str]:
    """Have slots compute what each is asked, hosts side by side; return slot -> the answer, or why there is none."""
    hosts = {slot.slot: slot.host for slot in plan.slots}
    answers: dict[str, Doubled | str] = {}

    def one(host: machines.Host) -> dict[str, Doubled | str]:
        bring_bundle(host)
        return {slot: _one(host, slot, orders[slot]) for slot in orders if hosts[slot] == host.name}

    names = {hosts[slot] for slot in orders}
    if not names:
        return answers
    for name, result in machines.side_by_side(limited(run, ",".join(names)), one).items():
        if isinstance(result, dict):
            answers.update(result)
        else:
            answers.update(dict.fromkeys([slot for slot in orders if hosts[slot] == name], str(result)))
    return answers


def _one(host: machines.Host, slot: str, parts: Sequence[PartAgain]) -> Doubled | str:
    folder = host.folder
    order, answer = folder.doubled(slot), folder.doubled_answer(slot)
    try:
        host.put(order, json_content(PartsAgain(tuple(parts)).to_json()))
        argv = [host.python, "-m", "worker", "double", "--root", str(folder.root), "--host", host.name, "--slot", slot]
        done = host.run_there(argv, WITHIN_S, folder.root)
        if done.exit_code != 0:
            last_lines = " / ".join(done.err.strip().splitlines()[-3:])
            raise HostError(f"{host.name}: {last_lines or f'exit code {done.exit_code}'}")
        doubled = Doubled.from_json(json.loads(host.read(answer, LIMIT)), f"{host.name}: {answer.name}:")
        for path in (order, answer):
            host.remove(path)
    except (RunbookError, ValueError) as error:
        return safe_text(str(error), 500)
    return doubled

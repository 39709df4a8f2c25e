"""Launch: bring shards, worker and model to each host, start its supervisor, see every slot report in.

Safe to repeat at any moment: what is staged and whole is not sent again, and a living supervisor is left alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection
from typing import Any

from worker.layout import FORMAT, count, missing

from . import corpus as corpora
from . import hosts as machines
from . import model as models
from .checks import Checks
from .errors import HostError, RunbookError
from .plan import Plan, Slot
from .run import Run

Report = Callable[[str, int, int], None]


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def stage(run: Run, on_progress: Report = _silent) -> Checks:
    """Send each host its shards, the worker and the model, once; nothing else, and nothing twice.

    `on_progress(host, bytes so far, bytes in all)` is called while it works.
    """
    plan, corpus = run.plan(), corpora.load(run.corpus)
    model = models.resolve(run.profile.model, models.read_token(run.profile.hf_token))
    checks = Checks("Every host has its shards, the worker and the model")
    if model.digest != plan.model.digest:
        checks.add("model", False, model.digest[:16], plan.model.digest[:16], "the model changed: start a new run")
        return checks
    results = machines.side_by_side(
        run.profile, run.name, lambda host: _stage_host(run, host, plan, corpus, model, on_progress)
    )
    for name, result in results.items():
        if isinstance(result, RunbookError):
            checks.add("staged", False, result, "shards, worker, model", "see the message", where=name)
        else:
            checks.add("staged", True, result, where=name)
            run.journal.write("staged", host=name, what=result)
    return checks


def _stage_host(
    run: Run, host: machines.Local, plan: Plan, corpus: corpora.Corpus, model: models.Model, on_progress: Report
) -> str:
    slots = plan.of_host(host.name)
    if not slots:
        return "no rows for this host: nothing staged"
    offsets = corpus.offsets()
    total = model.bytes + sum(int(offsets[slot.stop] - offsets[slot.start]) for slot in slots)
    sent = 0

    def moved(n: int) -> None:
        nonlocal sent
        sent += n
        on_progress(host.name, min(sent, total), total)

    folder = host.folder
    new = 0
    for relative, source in machines.bundle_files():
        new += host.put(folder.root / relative, machines.file_content(source))
    place = host.workdir / "models" / model.digest[:32]
    for file in model.files:
        new += host.put(place / file.path, machines.file_content(model.folder / file.path, file.sha256), moved)
    shards = {slot.slot: _put_shard(host, slot, corpus, moved) for slot in slots}
    assignment = {
        "format": FORMAT,
        "run": run.name,
        "host": host.name,
        "plan": plan.sha256,
        **{key: getattr(plan, key) for key in ("epoch", "corpus", "dtype", "prompt", "question_prompt", "max_tokens")},
        "model": {
            "folder": str(place),
            "name": plan.model.name,
            "revision": plan.model.revision,
            "digest": plan.model.digest,
        },
        "python": host.python,
        "slots": [
            {
                "slot": slot.slot,
                "device": slot.device,
                "gpu": slot.gpu,
                "threads": slot.threads,
                "start": slot.start,
                "stop": slot.stop,
                "part_rows": plan.part_rows,
                "shard_sha256": shards[slot.slot],
            }
            for slot in slots
        ],
    }
    host.put(folder.assignment(host.name), machines.json_content(assignment))
    return f"{len(slots)} shards, worker, model ({model.bytes / 1e6:.0f} MB): {total / 1e6:.1f} MB, {new} files new"


def _put_shard(host: machines.Local, slot: Slot, corpus: corpora.Corpus, moved: Callable[[int], None]) -> str:
    """Cut a slot's rows out of the numbered corpus and send them; give their sha256."""
    digest = hashlib.sha256()
    size = 0
    for chunk in corpus.copy_rows(slot.start, slot.stop):
        digest.update(chunk)
        size += len(chunk)
    content = machines.Content(size, digest.hexdigest(), lambda: corpus.copy_rows(slot.start, slot.stop))
    host.put(host.folder.shard(slot.slot), content, moved)
    return content.sha256


def start(run: Run, *, retry_given_up: bool = True, only: Collection[str] | None = None) -> Checks:
    """Start the supervisor of each host that has rows left and none alive; a living one is reported and left alone.

    Rows that were given up get one more chance, unless `retry_given_up` is False. `only` names the hosts meant.
    """
    plan = run.plan()
    checks = Checks("Every host's supervisor runs")

    def one(host: machines.Local) -> str:
        meant = only is None or host.name in only
        return _start_host(host, plan, retry_given_up) if meant else "left as it is"

    for name, result in machines.side_by_side(run.profile, run.name, one).items():
        if isinstance(result, RunbookError):
            checks.add("supervisor", False, result, "running", "see the message", where=name)
        else:
            checks.add("supervisor", True, result, where=name)
            if result.startswith("started"):
                run.journal.write("supervisor started", host=name, seen=result)
    return checks


def _start_host(host: machines.Local, plan: Plan, retry_given_up: bool) -> str:
    slots = plan.of_host(host.name)
    seen = host.poll()
    given_up = [] if retry_given_up else [(row, row + 1) for row in seen["quarantined"]]
    left = sum(count(missing(slot.start, slot.stop, [*seen["committed"], *given_up])) for slot in slots)
    if not left:
        return "no rows left for this host"
    if not seen["assigned"]:
        raise HostError(f"{host.name}: nothing is staged; run launch.stage first")
    if seen["supervisor_alive"]:
        return f"runs already (pid {seen['supervisor']['process']['pid']}), {left} rows left"
    host.remove(host.folder.stop_request(host.name))
    if retry_given_up:
        for row in seen["quarantined"]:
            host.remove(host.folder.quarantined(row))
    argv = [host.python, "-m", "worker", "supervise", "--root", str(host.folder.root), "--host", host.name]
    identity = host.start(argv, host.folder.log(f"host_{host.name}"), host.folder.root)
    return f"started (pid {identity['pid']}), {left} rows left"


def verify(run: Run, within_s: float | None = None, on_progress: Report = _silent) -> Checks:
    """Wait until every slot has reported in: alive and loading or running, or done. Names those that have not."""
    return _until(run, "Every slot reports in", "a report", _slot_states, within_s, on_progress)


def first_progress(run: Run, within_s: float | None = None, on_progress: Report = _silent) -> Checks:
    """Wait until every slot that still has rows encodes, or has committed some. Names those that do not."""
    return _until(run, "Every slot produces", "rows", _first_rows, within_s, on_progress)


def _until(
    run: Run,
    title: str,
    wanted: str,
    look: Callable[[dict[str, Any]], dict[str, tuple[bool, str]]],
    within_s: float | None,
    on_progress: Report,
) -> Checks:
    """Read all hosts until `look` is content with every slot or the time is over; say of each slot what was seen."""
    plan = run.plan()
    within_s = run.profile.monitor.first_progress_s if within_s is None else within_s
    deadline = time.monotonic() + within_s
    expected = {slot.slot: slot.host for slot in plan.slots if slot.rows}
    seen = {slot: (False, "no report") for slot in expected}
    while True:
        for name, reading in machines.side_by_side(run.profile, run.name, lambda host: host.poll()).items():
            if isinstance(reading, dict):
                seen.update(look(reading))
            else:
                seen.update({slot: (False, str(reading)) for slot, host in expected.items() if host == name})
        content = sum(seen[slot][0] for slot in expected)
        on_progress("slots", content, len(expected))
        if content == len(expected) or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    checks = Checks(title)
    for slot, host in expected.items():
        ok, what = seen[slot]
        checks.add(slot, ok, what, f"{wanted} within {within_s:g} s", f"runbook logs {run.name} {slot}", where=host)
    return checks


def _slot_states(reading: dict[str, Any]) -> dict[str, tuple[bool, str]]:
    """slot -> (reported in, in words)."""
    found = {}
    for slot, entry in reading["slots"].items():
        report = entry["report"] or {}
        whole = not missing(entry["start"], entry["stop"], reading["committed"])
        state = report.get("state", "no report")
        ok = whole or (entry["alive"] and state in ("starting", "loading model", "running"))
        last = entry["exits"][-1]["reason"] if entry["exits"] and not ok else ""
        found[slot] = (ok, "all rows committed" if whole else f"{state}{': ' + last if last else ''}")
    return found


def _first_rows(reading: dict[str, Any]) -> dict[str, tuple[bool, str]]:
    found = {}
    for slot, entry in reading["slots"].items():
        report = entry["report"] or {}
        left = count(missing(entry["start"], entry["stop"], reading["committed"]))
        rows = entry["stop"] - entry["start"] - left
        running = entry["alive"] and report.get("state") == "running"
        loaded = f"model loaded in {report['loaded_s']} s, " if report.get("loaded_s") else ""
        found[slot] = (rows > 0 or running, f"{loaded}{rows} of {entry['stop'] - entry['start']} rows committed")
    return found


def stop(run: Run) -> Checks:
    """Stop this run's supervisors and workers, and nobody else's; committed rows stay."""
    checks = Checks("Workers stopped")

    def one(host: machines.Local) -> str:
        seen = host.poll()
        if not seen["assigned"]:
            return "nothing was staged here"
        host.put(host.folder.stop_request(host.name), machines.json_content({"stop": True}))
        if seen["supervisor_alive"]:
            # It stops its workers itself, each with ten seconds of grace.
            host.stop(seen["supervisor"]["process"], 10.0 + 12.0 * len(seen["slots"]))
        survivors = host.workers(host.poll())
        for identity in survivors:  # their supervisor was dead already
            host.stop(identity)
        left = [identity["pid"] for identity in host.workers(host.poll())]
        if left:
            raise HostError(f"{host.name}: processes {left} did not end")
        return "stopped" if seen["supervisor_alive"] or survivors else "nothing was running"

    for name, result in machines.side_by_side(run.profile, run.name, one).items():
        failed = isinstance(result, RunbookError)
        checks.add("stopped", not failed, result, "no process of this run", "look at that machine", where=name)
    run.journal.write("workers stopped", seen=json.loads(json.dumps({c.where: c.seen for c in checks})))
    return checks

"""Launch: bring shards, worker and model to each host, start its supervisor, see every slot report in.

Safe to repeat at any moment: what is staged and whole is not sent again, and a living supervisor is left alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker import verbs
from worker.layout import FORMAT, Range, count, missing, safe_text

from . import corpus as corpora
from . import environments, gpus
from . import hosts as machines
from . import model as models
from .checks import Checks
from .errors import HostError, LinkLost, ProfileError, RunbookError
from .plan import Plan, Slot
from .reach.secret import redact
from .run import PHASES, Run, limited

RESTART_S = 30.0  # for a supervisor to end a worker and start the next
FETCH_S = 600.0  # for a host to fetch the model, and for each byte of it as long as on a slow line
SLOWEST_BYTES_S = 100_000.0
FETCH_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # between the tries when the link to it breaks meanwhile

Report = Callable[[str, int, int], None]


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def prepare(run: Run, on_progress: Report = _silent) -> Checks:
    """See to it that each host has the Python environment that the profile names; made once, then reused.

    Two hosts that share a folder make it once. It is never changed or deleted here: workers may run in it.
    """
    checks = Checks("Every host has its Python environment")
    results = machines.side_by_side(run, lambda host: _prepare_host(run, host, on_progress))
    for name, result in results.items():
        if isinstance(result, RunbookError):
            _failed(run, checks, "environment", name, results, "ready")
        else:
            checks.add("environment", True, result, where=name)
    return checks


class _NotStaged(HostError):
    """A host that answers and was given nothing to do: it could not be reached when the others were."""

    def __init__(self, host: str):
        super().__init__(f"{host}: nothing is staged; run launch.stage first")


_AWAY = (LinkLost, _NotStaged)


def _failed(run: Run, checks: Checks, what: str, name: str, results: Mapping[str, Any], expected: str) -> None:
    """A host that failed. One that is, or was, away is only told of, where others are there and somebody will act."""
    verdict = "unreachable" if isinstance(results[name], LinkLost) else "dead"
    lenient = isinstance(results[name], _AWAY) and run.profile.policy_for(verdict) == "auto"
    if lenient and any(not isinstance(result, RunbookError) for result in results.values()):
        wait = f"Its rows wait; silent for {run.profile.monitor.unreachable_s:g} s, they move to others"
        then = wait if verdict == "unreachable" else "It was away; 03_monitor launches it"
        checks.add(what, True, f"{results[name]}. {then}", expected, "03_monitor goes on", name, warn=True)
    else:
        checks.add(what, False, results[name], expected, "see the message; the log is on that host", where=name)


def _prepare_host(run: Run, host: machines.Host, on_progress: Report) -> str:
    kind = host.spec.environment
    if not environments.is_made_by_us(kind):
        return f"uses {host.python}"
    found = host.environment()
    if found["state"] in ("absent", "failed"):
        _begin_environment(host)
        run.journal.write("environment begun", host=host.name, kind=kind)
        found = {**found, "state": "creating"}
    waited, quiet = 0, 0
    while found["state"] in ("creating", "absent"):  # absent: it has not come to its lock yet
        time.sleep(0.5)
        waited, quiet = waited + 1, quiet + 1 if found["state"] == "absent" else 0
        on_progress(f"{host.name}: {last_line(host, found)}", waited, 0)
        if quiet > 60:
            raise HostError(f"{host.name}: making the environment {kind} did not begin; its log: {found['log']}")
        found = host.environment()
    if found["state"] not in ("ready", "foreign"):
        raise HostError(f"{host.name}: environment {kind}: {found['why']}")
    made = "made now" if waited else "there already"
    return f"{kind} {made}: {found['python']}"


def last_line(host: machines.Host, found: Mapping[str, Any]) -> str:
    """The last line of an environment's log, short."""
    lines = host.tail(Path(str(found["log"])), 1).splitlines() if found.get("log") else []
    return lines[-1][:60] if lines else "making its environment"


def _begin_environment(host: machines.Host) -> None:
    """Bring what the environment is made from, then start its making: detached, so that a broken link stops nothing."""
    order = environments.order(host.spec)
    machines.bring_bundle(host)
    wheels = host.workdir / "environments" / f"wheels-{order.digest[:16]}"
    for path, sha256 in order.wheels:
        host.put(wheels / path.name, machines.file_content(path, sha256))
    spec = host.folder.root / "hosts" / f"{host.name}.environment.json"
    value = {
        "kind": host.spec.environment,
        "workdir": str(host.workdir),
        "digest": order.digest,
        "requirements": order.requirements,
        "wheels": str(wheels) if order.wheels else None,
    }
    host.put(spec, machines.json_content(value))
    argv = [host.way.executable, "-m", "worker", "environment", "--spec", str(spec)]
    host.start(argv, host.folder.log(f"environment_{host.name}"), host.folder.root)


def stage(run: Run, on_progress: Report = _silent, only: Collection[str] | None = None) -> Checks:
    """Send each host its shards, the worker and the model, once; nothing else, and nothing twice.

    `on_progress(host, bytes so far, bytes in all)` is called while it works. `only` names the hosts meant.
    """
    plan, corpus = run.plan(), corpora.load(run.corpus)
    model = models.resolve(run.profile.model, models.read_token(run.profile.hf_token))
    checks = Checks("Every host has its shards, the worker and the model")
    if model.digest != plan.model.digest:
        checks.add("model", False, model.digest[:16], plan.model.digest[:16], "the model changed: start a new run")
        return checks

    def one(host: machines.Host) -> str:
        meant = only is None or host.name in only
        return _stage_host(run, host, plan, corpus, model, on_progress) if meant else "left as it is"

    results = machines.side_by_side(run, one)
    for name, result in results.items():
        if isinstance(result, RunbookError):
            _failed(run, checks, "staged", name, results, "shards, worker, model")
        elif only is None or name in only:
            checks.add("staged", True, result, where=name)
            run.journal.write("staged", host=name, what=result)
    return checks


def _stage_host(
    run: Run, host: machines.Host, plan: Plan, corpus: corpora.Corpus, model: models.Model, on_progress: Report
) -> str:
    slots = plan.of_host(host.name)
    if not slots:
        return "no rows for this host: nothing staged"
    offsets = corpus.offsets()
    files = sorted({found for slot in slots for found in plan.files(slot)})
    total = model.bytes + sum(int(offsets[stop] - offsets[start]) for start, stop in files)
    sent = 0

    def moved(n: int) -> None:
        nonlocal sent
        sent += n
        on_progress(host.name, min(sent, total), total)

    folder = host.folder
    new = machines.bring_bundle(host)
    place = host.workdir / "models" / model.digest[:32]
    for file in model.files:
        if file.path not in model.remote:
            new += host.put(place / file.path, machines.file_content(model.folder / file.path, file.sha256), moved)
    if model.remote:
        new += _fetch_there(run, host, model, place)
        moved(sum(file.bytes for file in model.files if file.path in model.remote))
    shards = {file: _put_shard(host, file, corpus, moved) for file in files}
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
        "stuck_s": run.profile.monitor.stuck_s,
        "slots": [
            {
                "slot": slot.slot,
                "device": slot.device,
                "gpu": slot.gpu,
                "threads": slot.threads,
                "part_rows": plan.part_rows,
                "shards": [_shard(plan, slot, rows, shards) for rows in plan.ranges(slot)],
            }
            for slot in slots
        ],
    }
    host.put(folder.assignment(host.name), machines.json_content(assignment))
    return f"{len(files)} shards, worker, model ({model.bytes / 1e6:.0f} MB): {total / 1e6:.1f} MB, {new} files new"


def _fetch_there(run: Run, host: machines.Host, model: models.Model, place: Path) -> int:
    """Have a host fetch from the hub what is not here; gives how many files were new there."""
    token = models.read_token(run.profile.hf_token)
    order = models.fetch_order(model, place, token)
    argv = [host.python, "-m", "worker", "fetch"]
    limit_s = FETCH_S + sum(file.bytes for file in model.files if file.path in model.remote) / SLOWEST_BYTES_S
    for pause_s in (*FETCH_PAUSES_S, None):
        try:
            done = host.run(argv, limit_s, cwd=host.folder.root, secret_input=order)
            break
        except LinkLost:  # the fetching may go on there; asked again, it waits for that, or goes on where it was
            if pause_s is None:
                raise
            time.sleep(pause_s)
    said = redact((done.err if done.exit_code else done.out).strip()).splitlines()[-1:]
    if done.exit_code:
        why = said[0] if said else f"exit code {done.exit_code}"
        raise HostError(f"{host.name}: fetching the model there: {why}", argv=argv, exit_code=done.exit_code)
    try:
        return int(json.loads(said[0])["new"])
    except (ValueError, TypeError, KeyError, IndexError):
        raise HostError(f"{host.name}: says of the model that it fetched what cannot be") from None


def _shard(plan: Plan, slot: Slot, rows: Range, sums: Mapping[Range, str]) -> dict[str, Any]:
    """What an assignment says of rows to do: where their parts are cut, and which file holds them."""
    start, stop = rows
    file = next(file for file in plan.files(slot) if file[0] <= start and stop <= file[1])
    return {"start": start, "stop": stop, "grid": plan.grid(start), "file": list(file), "sha256": sums[file]}


def _put_shard(host: machines.Host, rows: Range, corpus: corpora.Corpus, moved: Callable[[int], None]) -> str:
    """Cut rows out of the numbered corpus and send them; give their sha256."""
    start, stop = rows
    digest = hashlib.sha256()
    size = 0
    for chunk in corpus.copy_rows(start, stop):
        digest.update(chunk)
        size += len(chunk)
    content = machines.Content(size, digest.hexdigest(), lambda: corpus.copy_rows(start, stop))
    host.put(host.folder.shard(start, stop), content, moved)
    return content.sha256


def start(run: Run, *, retry_given_up: bool = True, only: Collection[str] | None = None) -> Checks:
    """Start the supervisor of each host that has rows left and none alive; a living one is reported and left alone.

    Rows that were given up get one more chance, unless `retry_given_up` is False. `only` names the hosts meant.
    """
    plan = run.plan()
    units = {name for name, facts in run.host_facts().items() if facts.get("unit")}
    checks = Checks("Every host's supervisor runs")

    def one(host: machines.Host) -> str:
        meant = only is None or host.name in only
        return _start_host(host, plan, retry_given_up, host.name in units) if meant else "left as it is"

    results = machines.side_by_side(run, one)
    for name, result in results.items():
        if isinstance(result, RunbookError):
            _failed(run, checks, "supervisor", name, results, "running")
        else:
            checks.add("supervisor", True, result, where=name)
            if result.startswith("started"):
                run.journal.write("supervisor started", host=name, seen=result)
    return checks


def _start_host(host: machines.Host, plan: Plan, retry_given_up: bool, as_unit: bool) -> str:
    slots = plan.of_host(host.name)
    seen = host.poll()
    given_up = [] if retry_given_up else [(row, row + 1) for row in seen["quarantined"]]
    settled = [*seen["committed"], *given_up]
    left = sum(_left(plan, slot, settled) for slot in slots)
    if not left:
        return "no rows left for this host"
    if not seen["assigned"]:
        raise _NotStaged(host.name)
    if seen["supervisor_alive"]:
        return f"runs already (pid {seen['supervisor']['process']['pid']}), {left} rows left"
    host.remove(host.folder.stop_request(host.name))
    if retry_given_up:
        for row in seen["quarantined"]:
            host.remove(host.folder.quarantined(row))
    argv = [host.python, "-m", "worker", "supervise", "--root", str(host.folder.root), "--host", host.name]
    unit = f"runbook-{plan.run}-{host.name}" if as_unit else ""
    try:
        identity = host.start(argv, host.folder.log(f"host_{host.name}"), host.folder.root, unit)
    except LinkLost:
        # Whether it was started is not known. It is looked at, and a second one would leave by itself (its lock).
        again = _supervisor_there(host)
        if again is None:
            identity = host.start(argv, host.folder.log(f"host_{host.name}"), host.folder.root, unit)
        else:
            identity = again
    _wait_for_its_report(host, identity)
    return f"started (pid {identity['pid']}), {left} rows left"


def start_unseen(run: Run, only: Collection[str]) -> None:
    """Start the supervisor of hosts whose reading cannot be true: who writes it anew may be dead.

    Where one lives, this one leaves at once (its lock); where it was told to stop it stops.
    """

    def one(host: machines.Host) -> None:
        if host.name in only:
            argv = [host.python, "-m", "worker", "supervise", "--root", str(host.folder.root), "--host", host.name]
            host.start(argv, host.folder.log(f"host_{host.name}"), host.folder.root)

    machines.side_by_side(run, one)


def _left(plan: Plan, slot: Slot, have: Iterable[Sequence[int]]) -> int:
    """How many of a slot's rows nobody of `have` has."""
    ranges = [(low, high) for low, high in have]
    return sum(count(missing(start, stop, ranges)) for start, stop in plan.ranges(slot))


def _wait_for_its_report(host: machines.Host, identity: Mapping[str, Any], within_s: float = 10.0) -> None:
    """Wait until a new supervisor has reported: before, what its predecessor left on file speaks for it."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if ((host.poll()["supervisor"] or {}).get("process") or {}).get("pid") == identity["pid"]:
            return
        time.sleep(0.1)


def _supervisor_there(host: machines.Host, within_s: float = 5.0) -> dict[str, Any] | None:
    """The living supervisor of a host, given a moment to write its first report."""
    deadline = time.monotonic() + within_s
    while True:
        seen = host.poll()
        if seen["supervisor_alive"]:
            return dict(seen["supervisor"]["process"])
        if time.monotonic() > deadline:
            return None
        time.sleep(0.5)


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
    meant = {spec.name for spec in run.hosts}
    expected = {slot.slot: slot.host for slot in plan.used if slot.host in meant}
    seen = {slot: (False, "no report") for slot in expected}
    over: set[str] = set()
    while True:
        readings = machines.side_by_side(run, _poll_staged)
        for name, reading in readings.items():
            if isinstance(reading, dict):
                seen.update(look(reading))
                over = {slot for slot in over if expected.get(slot) != name} | _over(reading)
            else:
                mine = {slot for slot, host in expected.items() if host == name}
                seen.update(dict.fromkeys(mine, (False, str(reading))))
                over |= mine if isinstance(reading, _AWAY) else set()
        content = sum(seen[slot][0] for slot in expected)
        on_progress("slots", content, len(expected))
        if all(seen[slot][0] or slot in over for slot in expected) or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    checks = Checks(title)
    for slot, host in expected.items():
        ok, what = seen[slot]
        if isinstance(readings[host], _AWAY):
            _failed(run, checks, slot, host, readings, wanted)
            continue
        if not ok:
            what += _last_words(run, host, slot)
        checks.add(slot, ok, what, f"{wanted} within {within_s:g} s", f"runbook logs {run.name} {slot}", where=host)
    return checks


def _poll_staged(host: machines.Host) -> dict[str, Any]:
    reading = host.poll()
    if not reading["assigned"]:
        raise _NotStaged(host.name)
    return reading


def _last_words(run: Run, name: str, slot: str) -> str:
    """The last line of a slot's log, as evidence."""
    spec = next(spec for spec in run.profile.hosts if spec.name == name)
    try:
        host = machines.connect(spec, run.name)
        lines = host.tail(host.folder.log(slot), 1).strip()
    except RunbookError:
        return ""
    return f"; its log ends: {lines[:200]}" if lines else "; its log is empty"


def _over(reading: dict[str, Any]) -> set[str]:
    """The slots for which waiting is in vain: their host was told to stop, or its supervisor gave them up."""
    supervised = (reading["supervisor"] or {}).get("slots") or {}
    return {
        slot
        for slot, entry in reading["slots"].items()
        if not entry["alive"]
        and (reading["stop_requested"] or (supervised.get(slot) or {}).get("state") in ("fenced", "stopped"))
    }


def _slot_states(reading: dict[str, Any]) -> dict[str, tuple[bool, str]]:
    """slot -> (reported in, in words)."""
    found = {}
    for slot, entry in reading["slots"].items():
        report = entry["report"] or {}
        whole = not _rows_left(reading, entry)[0]
        state = report.get("state", "no report")
        ok = whole or (entry["alive"] and state in ("starting", "loading model", "running"))
        last = entry["exits"][-1]["reason"] if entry["exits"] and not ok else ""
        if ok and state == "loading model" and (held := _gpu_mib(reading, entry)):
            state += f", its GPU holds {held} MiB"
        found[slot] = (ok, "all rows committed" if whole else f"{state}{': ' + last if last else ''}")
    return found


def _rows_left(reading: dict[str, Any], entry: dict[str, Any]) -> tuple[int, int]:
    """How many of a slot's rows are left, by its host's own reading, and how many it has."""
    have = [(low, high) for low, high in reading["committed"]]
    return (
        sum(count(missing(low, high, have)) for low, high in entry["ranges"]),
        sum(high - low for low, high in entry["ranges"]),
    )


def _gpu_mib(reading: dict[str, Any], entry: dict[str, Any]) -> int | None:
    """The memory in use on a slot's GPU, by its supervisor's last look: while a model loads it is the sign of it."""
    sample = gpus.samples(str((reading["supervisor"] or {}).get("gpus") or "")).get(str(entry.get("gpu")))
    return sample.used_mib if sample else None


def _first_rows(reading: dict[str, Any]) -> dict[str, tuple[bool, str]]:
    found = {}
    for slot, entry in reading["slots"].items():
        report = entry["report"] or {}
        left, rows = _rows_left(reading, entry)
        rows -= left
        running = entry["alive"] and report.get("state") == "running"
        loaded = f"model loaded in {report['loaded_s']} s, " if report.get("loaded_s") else ""
        found[slot] = (rows > 0 or running or not left, f"{loaded}{rows} of {rows + left} rows committed")
    return found


def stop(run: Run) -> Checks:
    """Stop this run's supervisors and workers, and nobody else's; committed rows stay."""
    checks = Checks("Workers stopped")

    def one(host: machines.Host) -> str:
        seen = host.poll()
        supervisors, workers = host.living(seen)
        if not (seen["assigned"] or seen["supervisor"] or supervisors or workers):  # what is on file may be overwritten
            return "nothing was staged here"
        host.put(host.folder.stop_request(host.name), machines.json_content({"stop": True}))
        for identity in supervisors:  # it stops its workers itself, each with ten seconds of grace
            host.stop(identity, 10.0 + 12.0 * max(len(workers), len(seen["slots"])))
        survivors = [identity for group in host.living(host.poll()) for identity in group]
        for identity in survivors:  # their supervisor was dead already
            host.stop(identity)
        if left := [identity["pid"] for group in host.living(host.poll()) for identity in group]:
            raise HostError(f"{host.name}: processes {left} did not end")
        return "stopped" if supervisors or survivors else "nothing was running"

    for name, result in machines.side_by_side(run, one).items():
        failed = isinstance(result, RunbookError)
        checks.add("stopped", not failed, result, "no process of this run", "look at that machine", where=name)
    run.journal.write("workers stopped", seen=json.loads(json.dumps({c.where: c.seen for c in checks})))
    return checks


def restart(run: Run, what: str = "all") -> Checks:
    """Stop and start workers from what they committed: `all` of the hosts meant, a host's, or a slot's; no others.

    Raises ProfileError for what is neither a host nor a slot of this run and these hosts.
    """
    if what in {spec.name for spec in run.hosts}:
        run = limited(run, what)
    elif what != "all":
        return _restart_slot(run, what)
    checks = Checks("Workers restarted")
    checks.extend(stop(run))
    if checks.ok and any(run.journal.events("staged")):  # one may have been away at the launch, or have lost a file
        checks.extend(stage(run))
    if checks.ok:
        checks.extend(start(run))
    return checks


def from_scratch(run: Run) -> Checks:
    """Stop all workers, set aside all that was computed, here and on the hosts, and start again from row zero.

    Nothing is deleted: the old parts lie in `aside/<time>/` of the run's folders. The plan stays, and what was staged.
    """
    checks = Checks("Started from scratch")
    checks.extend(stop(run))
    if not checks.ok:
        return checks
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = ["parts", "quarantine"]
    for name, result in machines.side_by_side(run, lambda host: host.set_aside(names, stamp)).items():
        failed = isinstance(result, RunbookError)
        checks.add("old parts", not failed, result, "set aside", "see the message; nothing was started", where=name)
    if checks.ok:
        results = [f"report/{run.result_file(phase).name}" for phase in PHASES[1:]]
        moved = verbs.set_aside(str(run.folder), [*names, "incoming", "merged", *results], stamp)
        checks.add("old parts", True, f"set aside: {', '.join(moved) or 'nothing was there'}")
        run.journal.write("started from scratch", aside=f"aside/{stamp}")
        checks.extend(start(run))
    return checks


def _restart_slot(run: Run, name: str) -> Checks:
    """One slot's worker, by its supervisor; where none lives, by a new one, which takes over the others."""
    slots = {slot.slot: slot for slot in run.plan().used if slot.host in {spec.name for spec in run.hosts}}
    if name not in slots:
        known = ", ".join([*slots, *(spec.name for spec in run.hosts)])
        raise ProfileError(f"no slot or host {safe_text(name)!r} in this run; there are: {known}, all")
    spec = next(spec for spec in run.hosts if spec.name == slots[name].host)
    checks, host = Checks("Worker restarted"), machines.connect(spec, run.name)
    seen = _poll_staged(host)
    if not _left(run.plan(), slots[name], seen["committed"]):
        checks.add(name, True, "no rows left for it", where=host.name)
        return checks
    before = _worker_of(seen, name)
    host.put(host.folder.restart_request(name), machines.json_content({"restart": True}))
    started = [] if seen["supervisor_alive"] else list(start(run, retry_given_up=False, only={host.name}))
    checks.extend(started)
    deadline = time.monotonic() + RESTART_S
    while (now := _worker_of(host.poll(), name)) in (None, before) and time.monotonic() < deadline:
        time.sleep(0.3)
    anew = now not in (None, before)
    said = f"a new worker, pid {now[0]}" if now and anew else f"no new worker within {RESTART_S:g} s"
    checks.add(name, anew, said, "a new worker", f"runbook logs {run.name} {name}", where=host.name)
    run.journal.write("worker restarted" if anew else "restart failed", slot=name, host=host.name, seen=said)
    return checks


def _worker_of(reading: Mapping[str, Any], slot: str) -> tuple[int, Any] | None:
    """The process that the supervisor of a reading has for a slot: its pid and start."""
    found = (((reading["supervisor"] or {}).get("slots") or {}).get(slot) or {}).get("process") or {}
    return (found["pid"], found.get("start")) if found.get("pid") else None

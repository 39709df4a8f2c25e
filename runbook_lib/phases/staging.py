"""Staging: bring the Python environment, the worker, the model and the shards to each host.

Can be repeated at any time: a file that is complete there is not sent again.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from worker.rows import Range
from worker.wire import Assignment, EnvironmentOrder, ModelFiles, ShardSpec, SlotSpec

from ..corpus import corpus as corpora
from ..errors import HostError, LinkLost
from ..hosts import environments
from ..hosts import hosts as machines
from ..hosts.bundle import bring_bundle
from ..hosts.content import Content, file_content, json_content
from ..hosts.scheduler import options_of
from ..profile.profile import HostSpec
from ..run import fences
from ..run import model as models
from ..run.checks import Checks
from ..run.plan import Plan, Slot
from ..run.run import Run
from ..slots import incidents, states
from . import probing, sent_model
from .progress import OnProgress, ignore

LOOKS = 6  # of a task's supervisor at its files between two heartbeats


def prepare(run: Run, on_progress: OnProgress = ignore) -> Checks:
    """Make sure that each host has the Python environment of the profile; it is made once, then reused.

    Two hosts with a shared folder make it once. It is never changed or deleted here: workers may run in it.
    """
    checks = Checks("Every host has its Python environment")
    results = machines.side_by_side(run, lambda host: _prepare_host(run, host, on_progress))
    for name, result in results.items():
        if name in results.failures:
            add_failure(run, checks, "environment", name, results, "ready")
        else:
            checks.add("environment", True, result, where=name)
    return checks


class NotStaged(HostError):
    """A host answers but has no assignment: it could not be reached when the others got theirs."""

    def __init__(self, host: str):
        super().__init__(f"{host}: nothing is staged; launch it first")


AWAY = (LinkLost, NotStaged)


def add_failure(run: Run, checks: Checks, what: str, name: str, results: machines.Results[Any], expected: str) -> None:
    """Add a failed check for a host, or a warning if other hosts answer and the recovery will handle it."""
    if not isinstance(results[name], NotStaged):
        incidents.host_failed(run, name, what, results[name])
    verdict = states.UNREACHABLE if isinstance(results[name], LinkLost) else states.DEAD
    lenient = isinstance(results[name], AWAY) and run.profile.policy_for(verdict) == "auto"
    if lenient and results.ok:
        wait = f"Its rows wait; silent for {run.profile.monitor.unreachable_s:g} s, they move to others"
        then = wait if verdict == states.UNREACHABLE else "It was away; 03_monitor launches it"
        checks.add(what, True, f"{results[name]}. {then}", expected, "03_monitor goes on", name, warn=True)
    else:
        checks.add(what, False, results[name], expected, "see the message; the log is on that host", where=name)


def _prepare_host(run: Run, host: machines.Host, on_progress: OnProgress) -> str:
    kind = host.spec.environment
    if not environments.is_made_by_us(kind):
        return f"uses {host.python}"
    environment = host.environment()
    if environment["state"] in ("absent", "failed"):
        _begin_environment(run, host)
        run.journal.write("environment begun", host=host.name, environment=kind)
        environment = {**environment, "state": "creating"}
    waited, quiet = 0, 0
    while environment["state"] in ("creating", "absent"):  # absent: it has not taken its lock yet
        time.sleep(0.5)
        waited, quiet = waited + 1, quiet + 1 if environment["state"] == "absent" else 0
        on_progress(f"{host.name}: {last_line(host, environment)}", waited, 0)
        if quiet > 60:
            raise HostError(f"{host.name}: making the environment {kind} did not begin; its log: {environment['log']}")
        environment = host.environment()
    if environment["state"] not in ("ready", "foreign"):
        raise HostError(f"{host.name}: environment {kind}: {environment['why']}")
    when = "made now" if waited else "there already"
    return f"{kind} {when}: {environment['python']}"


def last_line(host: machines.Host, environment: Mapping[str, Any]) -> str:
    """Return the last line of an environment's log, shortened."""
    lines = host.tail(Path(str(environment["log"])), 1).splitlines() if environment.get("log") else []
    return lines[-1][:60] if lines else "making its environment"


def _begin_environment(run: Run, host: machines.Host) -> None:
    """Send the files for the environment and start making it, detached: a broken connection does not stop it."""
    recipe = environments.recipe(host.spec)
    host.claim(run.id)
    bring_bundle(host)
    wheels = host.workdir / "environments" / f"wheels-{recipe.digest[:16]}"
    for path, sha256 in recipe.wheels:
        host.put(wheels / path.name, file_content(path, sha256))
    spec = host.folder.root / "hosts" / f"{host.name}.environment.json"
    folder = str(wheels) if recipe.wheels else None
    value = EnvironmentOrder(host.spec.environment or "", str(host.workdir), recipe.digest, recipe.requirements, folder)
    host.put(spec, json_content(value.to_json()))
    argv = [host.transport.executable, "-m", "worker", "environment", "--spec", str(spec)]
    host.start(argv, host.folder.log(f"environment_{host.name}"), host.folder.root)


def stage(run: Run, on_progress: OnProgress = ignore, only: Collection[str] | None = None) -> Checks:
    """Send each host its shards, the worker and the model; nothing else, and nothing twice.

    `on_progress(host, bytes so far, total bytes)` is called meanwhile. `only` limits it to these hosts.
    """
    plan, corpus = run.plan(), corpora.load(run.corpus)
    model = models.resolve(run.profile.model, models.read_token(run.profile.hf_token))
    checks = Checks("Every host has its shards, the worker and the model")
    if model.digest != plan.model.digest:
        checks.add(
            "model",
            False,
            model.digest[:16],
            plan.model.digest[:16],
            "put the model back, or runbook run PROFILE --new",
        )
        return checks

    common = _Common(run, model, plan)

    def one(host: machines.Host) -> str:
        meant = only is None or host.name in only
        try:
            return _stage_host(run, host, plan, corpus, model, common, on_progress) if meant else "left as it is"
        finally:
            incidents.link_breaks(run, host.name, host.breaks())

    results = machines.side_by_side(run, one)
    for name, result in results.items():
        if name in results.failures:
            add_failure(run, checks, "staged", name, results, "shards, worker, model")
        elif only is None or name in only:
            checks.add("staged", True, result, where=name)
            run.journal.write("staged", host=name, what=result)
    return checks


def _stage_host(
    run: Run,
    host: machines.Host,
    plan: Plan,
    corpus: corpora.Corpus,
    model: models.Model,
    common: _Common,
    on_progress: OnProgress,
) -> str:
    slots = plan.of_host(host.name)
    if not slots:
        return "no rows for this host: nothing staged"
    offsets = corpus.offsets()
    files = sorted({rows for slot in slots for rows in plan.files(slot)})
    total = model.bytes + sum(int(offsets[stop] - offsets[start]) for start, stop in files)
    sent = 0

    def moved(n: int) -> None:
        nonlocal sent
        sent += n
        on_progress(host.name, min(sent, total), total)

    folder = host.folder
    new = common.bring(host, moved)
    shards = {file: _put_shard(host, file, corpus, moved) for file in files}
    assignment = Assignment(
        run=run.name,
        run_id=plan.run_id,
        host=host.name,
        epoch=plan.epoch,
        corpus=plan.corpus,
        model=ModelFiles(
            plan.model.name, plan.model.revision, plan.model.digest, str(sent_model.model_folder(host, model))
        ),
        dtype=plan.dtype,
        prompt=plan.prompt,
        question_prompt=plan.question_prompt,
        max_tokens=plan.max_tokens,
        chunk_tokens=plan.chunk_tokens,
        python=host.python,
        slots=tuple(_slot(plan, slot, shards) for slot in slots),
        plan=plan.sha256,
        documents=plan.documents,
        batching=plan.batching,
        why_padded=plan.why_padded or None,
        stuck_s=run.profile.monitor.stuck_s,
        first_progress_s=run.profile.monitor.first_progress_s,
        keep_awake=host.spec.computes_here,
        **_placed(host.spec),
    )
    host.put(folder.assignment(host.name), json_content(assignment.to_json()))
    return f"{len(files)} shards, worker, model ({model.bytes / 1e6:.0f} MB): {total / 1e6:.1f} MB, {new} files new"


def _placed(spec: HostSpec) -> dict[str, Any]:
    """What an assignment says besides, where a scheduler places the host: its disk is shared by thousands."""
    if not spec.is_task:
        return {}
    beat_s = options_of(spec).heartbeat_s
    return {"scheduler": spec.kind, "heartbeat_s": beat_s, "poll_s": beat_s / LOOKS, "look_s": beat_s}


class _Common:
    """What every host of a run needs: hosts that are reached as one get it once, by whichever comes first."""

    def __init__(self, run: Run, model: models.Model, plan: Plan):
        self._run, self._model = run, replace(model, dim=plan.model.dim, normalises=plan.model.normalises)
        self._sent = model
        self._locks = {spec.reached: threading.Lock() for spec in run.hosts}
        self._done: set[str] = set()

    def bring(self, host: machines.Host, on_bytes: Callable[[int], None]) -> int:
        """Bring the run's mark, the worker and the model; return how many files were new there. Raises HostError."""
        with self._locks[host.spec.reached]:
            if host.spec.reached in self._done:
                return 0
            host.claim(self._run.id)
            new = bring_bundle(host) + sent_model.send(self._run, host, self._sent, on_bytes)
            probing.ensure_tried(self._run, host, self._model)
            self._done.add(host.spec.reached)
            return new


def _slot(plan: Plan, slot: Slot, sums: Mapping[Range, str]) -> SlotSpec:
    shards = tuple(_shard(plan, slot, rows, sums) for rows in plan.ranges(slot))
    fenced = fences.behind(plan.fences).get(slot.slot)
    return SlotSpec(slot.slot, slot.device, slot.gpu, slot.threads, plan.part_rows, shards, fenced)


def _shard(plan: Plan, slot: Slot, rows: Range, sums: Mapping[Range, str]) -> ShardSpec:
    """Describe rows in an assignment: where their parts are cut, and which file contains them."""
    start, stop = rows
    file = next(file for file in plan.files(slot) if file[0] <= start and stop <= file[1])
    return ShardSpec(start, stop, plan.grid(start), file, sums[file])


def _put_shard(host: machines.Host, rows: Range, corpus: corpora.Corpus, moved: Callable[[int], None]) -> str:
    """Cut rows out of the numbered corpus, send them and return their sha256."""
    start, stop = rows
    digest = hashlib.sha256()
    size = 0
    for chunk in corpus.copy_rows(start, stop):
        digest.update(chunk)
        size += len(chunk)
    content = Content(size, digest.hexdigest(), lambda: corpus.copy_rows(start, stop))
    host.put(host.folder.shard(start, stop), content, moved)
    return content.sha256

"""Tries the model on each host, with exactly the files that were sent there, before any row is computed.

The width of its vectors is measured, not read from its files. The vectors of a worker are compared with the library's
own entry points on the same host, and with the other hosts; the longest texts that the model claims to read are tried.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from worker import verbs
from worker.wire import PACKED

from ..corpus import corpus as corpora
from ..errors import CannotStart, DataError, HostError, RunbookError
from ..hosts import hosts as machines
from ..hosts.bundle import BUNDLE, bring_bundle, bundle_files
from ..profile import secret
from ..profile.profile import HostSpec
from ..run import model as models
from ..run.checks import Checks
from ..run.machine_facts import MachineFacts
from ..run.reading import Reading
from ..run.run import Run
from . import rehearsal, sent_model
from .probe_answer import Answer, Probe, parse_answer, parse_probe
from .probe_checks import HERE, judge

TIMEOUT_S = 900.0
OTHER_LIBRARIES = "give this host the libraries of the others, or leave it out of this run"


def on_hosts(
    run: Run, model: models.Model, facts: Mapping[str, MachineFacts], names: Collection[str]
) -> dict[str, Probe]:
    """Try the model on these hosts, and here if torch is installed and no host is this machine; return name -> probe.

    Several hosts that are folders of one machine with one Python are tried once.
    """
    first: dict[Any, str] = {}
    for spec in run.hosts:
        if spec.name in names:
            first.setdefault(_alike_as(spec, facts), spec.name)
    longest = _longest(run)
    known = {name: each for name, each in facts.items() if name in names}

    def one(host: machines.Host) -> Answer:
        sample = "" if host.spec.is_task else rehearsal.sample(run, host.spec, known)
        return _ask(run, host, model, facts[host.name], longest, sample)

    with ThreadPoolExecutor(1) as pool:
        far_only = bool(names) and not any(spec.computes_here for spec in run.hosts if spec.name in names)
        here = pool.submit(_ask_here, run, model, longest) if far_only and not model.remote and _torch_here() else None
        meant = replace(run, only=frozenset(first.values()))
        results = machines.side_by_side(meant, one) if first else machines.Results()
        answers = results.ok | {name: _failed_answer(why) for name, why in results.failures.items()}
        for spec in run.hosts:
            if spec.name in names and spec.name not in answers:
                answers[spec.name] = answers[first[_alike_as(spec, facts)]]
        for name in answers:
            _keep(run, name, model, _key(run, model, facts[name]), answers[name])
        if here is not None:
            answers[HERE] = here.result()
        rehearsal.keep(run, answers)
        return {name: parse_probe(answer) for name, answer in answers.items()}


def _alike_as(spec: HostSpec, facts: Mapping[str, MachineFacts]) -> object:
    """What hosts have in common that are tried once: a Python of this machine, or a cluster."""
    return (facts[spec.name]["python"], spec.device) if spec.computes_here else spec.reached


def _failed_answer(why: RunbookError) -> Answer:
    return {"error": str(why), "missing": isinstance(why, CannotStart)}


def _torch_here() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "sentence_transformers"))


def _longest(run: Run) -> int | None:
    """Return the bytes of the longest text: no text has more tokens than this; None before the numbering."""
    try:
        offsets = corpora.load(run.corpus).offsets()
    except DataError:
        return None
    return int(np.diff(offsets).max()) if len(offsets) > 1 else None


def _ask(
    run: Run, host: machines.Host, model: models.Model, facts: MachineFacts, longest: int | None, sample: str = ""
) -> Answer:
    before = _kept(run, host.name)
    if before and before.key == _key(run, model, facts) and not before.answer.get("error") and _works(host):
        return dict(before.answer)  # its workers use the device: do not disturb them
    host.claim(run.id)
    if host.spec.computes_here:
        cwd = BUNDLE.parent
    else:
        bring_bundle(host)
        cwd = host.folder.root
    sent_model.send(run, host, model)
    gpus = facts.get("gpus") or []
    named = facts["device"] == "cuda" and gpus and not host.spec.is_task  # a task sees its own only
    gpu = ["--gpu", str(gpus[0]["uuid"])] if named else []
    argv = _argv(run, model, facts["python"], sent_model.model_folder(host, model), longest)
    argv += ["--device", facts["device"], *gpu, *(["--rehearse"] if sample else [])]
    return parse_answer(host.run_there(argv, TIMEOUT_S, cwd, sample))


def _works(host: machines.Host) -> bool:
    """Return whether workers of this run compute on the host now."""
    with contextlib.suppress(HostError):
        return any(entry.alive for entry in host.poll().slots.values())
    return False


def _argv(run: Run, model: models.Model, python: str, folder: Path, longest: int | None) -> list[str]:
    argv = [python, "-m", "worker", "probe", "--model", str(folder)]
    argv += [
        "--dtype",
        run.profile.model.dtype,
        "--prompt",
        model.template,
        "--question-prompt",
        model.question_template,
    ]
    reading = Reading.of(run.profile.model, model)
    argv += ["--max-tokens", str(reading.max_tokens)] if reading.max_tokens is not None else []
    argv += ["--chunk-tokens", str(reading.chunk_tokens)] if reading.chunk_tokens is not None else []
    return [*argv, "--longest", str(longest)] if longest is not None else argv


def _ask_here(run: Run, model: models.Model, longest: int | None) -> Answer:
    """Try the model on this machine's processor, with the same files only."""
    with tempfile.TemporaryDirectory() as folder:
        for file in model.files:
            link = Path(folder, file.path)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((model.folder / file.path).resolve())
        sample = rehearsal.sample(run)
        argv = [*_argv(run, model, sys.executable, Path(folder), longest), *(["--rehearse"] if sample else [])]
        try:
            done = verbs.run(argv, TIMEOUT_S, str(BUNDLE.parent), sample, secret.variables())
        except OSError as error:
            return {"error": str(error)}
    return parse_answer(machines.Completed(-1 if done["exit"] is None else done["exit"], done["out"], done["err"]))


# --------------------------------------------------------------------------------------------------------------- kept


def _key(run: Run, model: models.Model, facts: MachineFacts) -> str:
    """Return a digest of everything that a try depends on: if it changes, the host must try again."""
    bundle = [hashlib.sha256(source.read_bytes()).hexdigest() for _, source in bundle_files()]
    spec = run.profile.model
    reading = astuple(Reading.of(spec, model))
    what = [model.digest, spec.dtype, reading, model.template, model.question_template, bundle]
    return hashlib.sha256(json.dumps([facts["python"], facts["device"], *what]).encode()).hexdigest()


def _keep(run: Run, name: str, model: models.Model, key: str, answer: Answer) -> None:
    run.save_json(f"probe_{name}.json", {"host": name, "model": model.digest, "key": key, "answer": answer})


@dataclass(frozen=True)
class _Kept:
    """The stored probe of a host: the model's digest, the key of its inputs (see `_key`), the answer."""

    model: str
    key: str
    answer: Answer


def _kept(run: Run, name: str) -> _Kept | None:
    """Return a host's last answer; None if there is none, or the record cannot be read."""
    with contextlib.suppress(DataError, ValueError):
        record = run.load_json(f"probe_{name}.json")
        if isinstance(record.get("answer"), dict):
            return _Kept(str(record.get("model")), str(record.get("key")), record["answer"])
    return None


def measured(run: Run, model: models.Model) -> models.Model:
    """Return the model with the width that the hosts measured; with the profile's width if no host measured it yet."""
    kept = [_kept(run, spec.name) for spec in run.profile.hosts]
    probes = [parse_probe(one.answer) for one in kept if one and one.model == model.digest]
    contracts = {(probe.dim, probe.normalises) for probe in probes if not probe.error}
    if len(contracts) != 1:
        return replace(model, dim=None if contracts else model.dim or run.profile.model.dim)
    ((dim, normalises),) = contracts
    return replace(model, dim=dim, normalises=normalises)


def load_s(run: Run) -> float:
    """Return how many seconds the slowest host took to load the model; 0 where none was tried.

    What no host can have taken counts for nothing: a try ends after `TIMEOUT_S`.
    """
    kept = [one.answer.get("loaded_s") for spec in run.profile.hosts if (one := _kept(run, spec.name))]
    return max((float(s) for s in kept if isinstance(s, int | float) and 0 <= s <= TIMEOUT_S), default=0.0)


def why_padded(run: Run, model: models.Model) -> str:
    """Why batches of this run are padded: the first host that cannot pack them, or was not tried; else empty."""
    if run.profile.model.dtype != "float32":
        return f"computed in {run.profile.model.dtype}"
    return next(filter(None, (_why_padded(run, spec, model) for spec in run.profile.hosts)), "")


def cannot_pack(run: Run, model: models.Model) -> str:
    """Why a run that began with packed batches cannot go on with the hosts it has now; empty where it can.

    A host that could not be tried is no reason: it is refused when it is staged.
    """
    tried = [spec for spec in run.profile.hosts if spec.device != "cpu" or _kept_probe(run, spec.name, model)]
    return next(filter(None, (_why_padded(run, spec, model) for spec in tried)), "")


def _why_padded(run: Run, spec: HostSpec, model: models.Model) -> str:
    if spec.device != "cpu":
        return f"{spec.name} computes on a GPU"
    probe = _kept_probe(run, spec.name, model)
    if probe is None:
        return f"{spec.name} was not tried before the plan was made"
    return f"{spec.name}: {probe.why_padded}" if probe.why_padded else ""


def _kept_probe(run: Run, name: str, model: models.Model) -> Probe | None:
    """What a host found with this model; None where it was not tried, or could not use it."""
    kept = _kept(run, name)
    probe = parse_probe(kept.answer) if kept and kept.model == model.digest else None
    return None if probe is None or probe.error else probe


def ensure_tried(run: Run, host: machines.Host, model: models.Model) -> None:
    """Try the model on a host that had no environment yet when the others tried it. Raises HostError.

    `model`: with the width and normalisation of the plan.
    """
    known: MachineFacts | None = run.host_facts().get(host.name)
    if not known or known.get("made", True):
        return
    facts: MachineFacts = {**known, "python": host.python}
    key = _key(run, model, facts)
    before = _kept(run, host.name)
    if before and before.key == key and not before.answer.get("error"):
        return
    answer = _ask(run, host, model, facts, _longest(run))
    checks = Checks("the model there")
    probe = parse_probe(answer)
    judge(checks, host.name, probe, model, run.profile.model)
    if probe.why_padded and run.plan().batching == PACKED:
        checks.add("batches", False, probe.why_padded, "packed, as the run began", OTHER_LIBRARIES)
    if checks.failed:
        why = checks.failed[0]
        raise HostError(f"{host.name}: {why.name}: {why.seen} (expected {why.expected}). Next: {why.remedy}")
    _keep(run, host.name, model, key, answer)

"""Tries the model on each host, with exactly the files that were sent there, before any row is computed.

The width of its vectors is measured, not read from its files. The vectors of a worker are compared with the library's
own entry points on the same host, and with the other hosts; the longest texts that the model claims to read are tried.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import json
import math
import sys
import tempfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker import again, verbs
from worker.escape import safe_text
from worker.wire import PACKED

from ..corpus import corpus as corpora
from ..errors import CannotStart, DataError, HostError, RunbookError
from ..hosts import hosts as machines
from ..profile import secret
from ..profile.profile import HostSpec, ModelSpec
from ..run import model as models
from ..run.checks import Checks
from ..run.machine_facts import MachineFacts
from ..run.reading import Reading
from ..run.run import Run
from . import rehearsal, sent_model

TIMEOUT_S = 900.0
# The least cosine of two vectors of one text: from us and the library, or from two hosts.
ALIKE = {"float32": 1 - 1e-5, "bfloat16": 0.98, "float16": 0.995}
WIDEST = 1_000_000
HERE = "this machine"
KINDS = ("document", "query")

Answer = dict[str, Any]  # as printed; `parse_probe` checks every value
Vectors = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Probe:
    """The findings of a host; only `error` if the model could not be loaded or used.

    `missing`: Python or a library is missing; `own_code`: the model contains its own code. `why_padded`: why batches
    cannot be packed there; empty where they can. `again`: the lowest cosine of its device to its processor, with what
    was tried; None: not known, with why.
    """

    error: str = ""
    missing: bool = False
    own_code: bool = False
    dim: int = 0
    norm: float = 0.0
    bad: str = ""
    normalises: bool = False
    why_padded: str = ""
    loading: str = ""
    cosine: float = -1.0
    tokens: int = 0
    claimed: int | None = None
    long_error: str = ""
    works: int | None = None
    again: float | None = None
    again_words: str = ""
    vectors: Vectors | None = None


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
        cwd = machines.BUNDLE.parent
    else:
        machines.bring_bundle(host)
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
            done = verbs.run(argv, TIMEOUT_S, str(machines.BUNDLE.parent), sample, secret.variables())
        except OSError as error:
            return {"error": str(error)}
    return parse_answer(machines.Completed(-1 if done["exit"] is None else done["exit"], done["out"], done["err"]))


def parse_answer(done: machines.Completed) -> Answer:
    """Return the JSON object that a worker command printed last, or its error."""
    lines = done.out.strip().splitlines()
    if done.exit_code or not lines:
        return {"error": " / ".join(done.err.strip().splitlines()[-3:]) or f"exit code {done.exit_code}"}
    try:
        value = json.loads(lines[-1])
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"error": f"printed {lines[-1][:200]}, expected a JSON object"}


def parse_probe(answer: Mapping[str, Any]) -> Probe:
    """Convert an answer to a probe; check every value."""
    if answer.get("error"):
        why = safe_text(str(answer["error"]), 2000)  # the libraries report these two in words only
        return Probe(why, answer.get("missing") is True or "No module named" in why, "trust_remote_code" in why)
    try:
        dim = _whole(answer["dim"])
        long = [answer["long"][kind] for kind in KINDS if kind in answer["long"]]
        worst = max(long, key=lambda one: bool(one["error"]))
        cosines = [answer["cosine"][kind] for kind in KINDS] + [one["cosine"] for one in long if not one["error"]]
        return Probe(
            dim=dim,
            norm=math.nan if answer["norm"] != answer["norm"] else _number(answer["norm"]),
            bad=safe_text(str(answer["bad"]), 500),
            normalises=answer["normalises"] is True,
            why_padded=safe_text(str(answer.get("why_padded", "its worker does not say")), 500),
            loading=f"in {_number(answer['loaded_s']):g} s on {safe_text(str(answer['device']), 100)}, "
            f"torch {safe_text(str(answer['torch']), 50)}",
            cosine=min(_number(cosine) for cosine in cosines),
            tokens=_whole(worst["tokens"], 0),
            claimed=None if worst["claimed"] is None else _whole(worst["claimed"]),
            long_error=safe_text(str(worst["error"]), 1000),
            works=None if worst["works"] is None else _whole(worst["works"]),
            **_again(answer.get("again")),
            vectors={kind: _array(answer["vectors"][kind], dim) for kind in KINDS},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Probe(f"answered what no probe answers ({type(error).__name__}: {safe_text(str(error), 200)})")


def _again(answer: Any) -> dict[str, Any]:
    """What a host found of its device beside its processor."""
    if answer is None:
        return {"again_words": "its worker does not say"}
    if answer.get("error"):
        return {"again_words": safe_text(str(answer["error"]), 1000)}
    cosines = {safe_text(str(way), 50): _number(cosine) for way, cosine in answer["cosine"].items()}
    way = min(cosines, key=lambda each: cosines[each])
    tried = f"of {_whole(answer['rows'])} texts of up to {_whole(answer['tokens']):,} tokens"
    return {"again": cosines[way], "again_words": f"{way}, {tried}"}


def _whole(value: object, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= WIDEST:
        raise ValueError(f"expected a whole number, found {value!r:.40}")
    return value


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"expected a number, found {value!r:.40}")
    return float(value)


def _array(text: str, dim: int) -> npt.NDArray[np.float32]:
    vectors = np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(-1, dim)
    if not len(vectors):
        raise ValueError("expected vectors, found none")
    return vectors


# ------------------------------------------------------------------------------------------------------------- judged

OTHER_LIBRARIES = "give this host the libraries of the others, or leave it out of this run"
REMEDY = "the model cannot be used as it is on this host: see the message; use another model, or repair its files"
INSTALL = "on a machine that encodes: pip install -e '.[worker]' (docs/corpus.md: which torch)"
OWN_CODE = "the model comes with code of its own, which is not run here: use one made of the library's own modules"


def judge(checks: Checks, name: str, probe: Probe, model: models.Model, spec: ModelSpec) -> None:
    """Add the checks of one host that tried the model; `spec`: the model in the profile."""
    if probe.error:
        remedy = OWN_CODE if probe.own_code else INSTALL if probe.missing else REMEDY
        checks.add("model loads", False, probe.error, "loads", remedy, where=name)
        return
    checks.add("model loads", True, probe.loading, where=name)
    dim, asked = model.dim or probe.dim, spec.dim
    good = not probe.bad and probe.dim == (asked or dim) == dim and probe.normalises == model.normalises
    measured = probe.bad or f"{probe.dim} numbers, norm {probe.norm:.6f}"
    expected = f"{asked or dim} numbers, {'norm 1' if model.normalises else 'any norm'}"
    remedy = "the model or its libraries are not what they say; or correct model.dim"
    checks.add("first vector", good, measured, expected, remedy, where=name)
    _judge_long(checks, name, probe)
    bound = ALIKE[spec.dtype]
    remedy = (
        "its vectors depend on what else is in a batch, so no two computations agree: another model, or another side "
        "of padding (padding_side in tokenizer_config.json)"
    )
    measured = f"lowest cosine {probe.cosine:.7f} to the library's own encode_document and encode_query"
    checks.add("as the library", probe.cosine >= bound, measured, f"at least {bound:g}", remedy, where=name)
    if not probe.long_error and probe.cosine >= bound:
        _judge_again(checks, name, probe, spec.dtype)


def _judge_again(checks: Checks, name: str, probe: Probe, dtype: str) -> None:
    """The device beside the processor of the same host: what no norm shows."""
    least, what = again.COSINE[dtype], "as the processor"
    if probe.again is None:
        checks.add(what, True, f"not compared: {probe.again_words}", where=name, warn=True)
        return
    remedy = (
        "this device computes otherwise than the processor beside it: another version of torch or of the driver, "
        "`dtype: float32`, or `device: cpu` for this host"
    )
    measured = f"lowest cosine {probe.again:.7f} {probe.again_words}"
    checks.add(what, probe.again >= least, measured, f"at least {least:g} ({dtype})", remedy, where=name)


def _judge_long(checks: Checks, name: str, probe: Probe) -> None:
    if not probe.long_error:
        part = probe.claimed is not None and probe.tokens < probe.claimed
        encoded = f"{probe.tokens:,} tokens encode" + (f"; the model claims {probe.claimed:,}" if part else "")
        checks.add("longest text", True, encoded, where=name, warn=part)
        return
    claim = f"the model claims {probe.claimed:,}" if probe.claimed else f"it names no limit, {probe.tokens:,} tried"
    if probe.works is None:
        remedy = f"{claim}: lower model.max_tokens in the profile until it encodes"
    else:
        remedy = f"{claim}, and keeps {probe.works:,}: set model.max_tokens: {probe.works} in the profile"
    checks.add("longest text", False, probe.long_error, f"{probe.tokens:,} tokens encode", remedy, where=name)


def compare(checks: Checks, probes: Mapping[str, Probe], dtype: str) -> None:
    """Compare the vectors of the hosts with those of this machine, else of the first host."""
    able = {name: probe for name, probe in probes.items() if probe.vectors and not probe.long_error}
    if HERE in probes and HERE not in able:
        checks.add("model loads", True, f"not here: {probes[HERE].error}", where=HERE, warn=True)
    reference = HERE if HERE in able else next(iter(able), "")
    for name, probe in able.items():
        if name != reference and probe is not able[reference]:
            cosine = _lowest(able[reference].vectors or {}, probe.vectors or {})
            remedy = (
                f"the libraries or the device of {name} or of {reference} compute otherwise: compare their versions"
            )
            shown = f"lowest cosine {cosine:.6f} to {reference}"
            checks.add("same vectors", cosine >= ALIKE[dtype], shown, f"at least {ALIKE[dtype]:g}", remedy, where=name)


def _lowest(one: Vectors, two: Vectors) -> float:
    lowest = 1.0
    for kind in KINDS:
        a, b = one[kind].astype(np.float64), two[kind].astype(np.float64)
        if a.shape != b.shape:
            return -1.0
        sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines = np.nan_to_num((a * b).sum(axis=1) / np.where(sizes > 0, sizes, 1.0), nan=-1.0)
        lowest = min(lowest, float(cosines.min()))
    return lowest


# --------------------------------------------------------------------------------------------------------------- kept


def _key(run: Run, model: models.Model, facts: MachineFacts) -> str:
    """Return a digest of everything that a try depends on: if it changes, the host must try again."""
    bundle = [hashlib.sha256(source.read_bytes()).hexdigest() for _, source in machines.bundle_files()]
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
    """Return how many seconds the slowest host took to load the model; 0 where none was tried."""
    kept = [one.answer.get("loaded_s") for spec in run.profile.hosts if (one := _kept(run, spec.name))]
    return max((float(each) for each in kept if isinstance(each, int | float)), default=0.0)


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
    found = parse_probe(kept.answer) if kept and kept.model == model.digest else None
    return None if found is None or found.error else found


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

"""Preflight: find every fault that can be found before any machine works. Each function proves one heading."""

from __future__ import annotations

import importlib.metadata
import itertools
import shutil
from dataclasses import replace
from typing import Any

from worker.files import read_json
from worker.wire import PACKED

from .. import records
from ..corpus import corpus as corpora
from ..corpus import sources
from ..errors import CorpusError, DataError, ProfileError, RunbookError
from ..hosts import hosts as machines
from ..hosts import inventory, together
from ..hosts.bundle import bring_bundle, bundle_files
from ..hosts.ssh import login
from ..profile.notify_spec import NotifySpec
from ..profile.profile import HostSpec
from ..result import publication
from ..result import whole as wholes
from ..run import model as models
from ..run import model_card, places, plan, planning
from ..run.checks import Checks
from ..run.machine_facts import MachineFacts
from ..run.reading import Reading
from ..run.run import Run
from ..slots import states
from . import cluster, joining, probe_answer, probe_checks, probing, promise, reuse, room, run_corpus
from .progress import OnProgress, ignore

PACKAGES = ("numpy", "pyarrow", "papermill", "nbconvert", "matplotlib", "ipykernel", "huggingface-hub", "pyyaml")
DEVICES_TIMEOUT_S = 600.0
SAMPLE = 100  # characters of a text


def this_machine(run: Run) -> Checks:
    """Check this machine: packages, worker bundle, folders, and the credentials that the profile names."""
    checks = Checks("This machine is ready")
    for name in PACKAGES:
        try:
            checks.add(f"package {name}", True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            checks.add(f"package {name}", False, "missing", "installed", "make setup (or: pip install -e .)")
    bundle = {relative for relative, _ in bundle_files()}
    checks.add("worker bundle", "worker/__main__.py" in bundle, f"{len(bundle)} files", "worker/__main__.py among them")
    _folders(checks, run)
    for specs in together.groups(run.profile.hosts):
        if not specs[0].is_here:
            _credentials(checks, specs[0].entry())
    if run.profile.hf_token:
        try:
            models.read_token(run.profile.hf_token)
            checks.add("hub token", True, run.profile.hf_token)
        except ProfileError as error:
            checks.add("hub token", False, error, "a file that only you can read")
    _messages(checks, run.profile.notify)
    return checks


def _messages(checks: Checks, spec: NotifySpec) -> None:
    """Check that messages can be sent by what the profile names. One that cannot stops no run."""
    if not spec.wanted:
        return
    try:
        count = len(spec.addresses())
    except ProfileError as error:
        checks.add("messages", True, error, "addresses that only you can read", "see the message", warn=True)
        return
    if spec.command and shutil.which(spec.command[0]) is None:
        problem = f"notify.command: there is no program {spec.command[0]!r}"
        checks.add("messages", True, problem, "a program", "correct notify.command in the profile", warn=True)
        return
    to = [
        *([f"{count} addresses" if count > 1 else "an address"] if count else []),
        *["a command"] * bool(spec.command),
    ]
    checks.add("messages", True, f"{', '.join(spec.events)}: to {' and '.join(to)}; try them: runbook notify PROFILE")


def _folders(checks: Checks, run: Run) -> None:
    """Check that read and written folders are apart, and only then that they are writable."""
    if wrong := places.problems(run):
        remedy = "give each a folder of its own: hosts' workdir, output.folder, output.backups, runs, the run's name"
        checks.add("places", False, "; ".join(wrong), "apart from one another", remedy)
        return
    checks.add("places", True, "apart from one another")
    why = publication.founding_name_problem(run)
    remedy = "move it away, or set output.merged to another name"
    checks.add("result file", not why, why or run.founding_file, "free, or written by a run", remedy)
    output = run.profile.output
    for label, folder in (("run", run.folder), ("output", output.folder), ("backups", output.backups)):
        remedy = f"make it writable: chmod u+rwx {folder}"
        checks.add(f"{label} folder", room.writable(folder), folder, "writable", remedy)


def _credentials(checks: Checks, spec: HostSpec) -> None:
    """Check that the login of a host is usable; never show its secrets."""
    try:
        words = login.told(login.of(spec))
    except RunbookError as error:
        checks.add("credentials", False, error, "a login that only you can read", "see the message", where=spec.name)
        return
    checks.add("credentials", True, words, where=spec.name)


def the_model(run: Run) -> tuple[Checks, models.Model | None]:
    """Check the model: it exists, its files are hashed, its own description is read. None if it cannot be used."""
    checks = Checks("The model is here and is the one the profile names")
    try:
        model = models.resolve(run.profile.model, models.read_token(run.profile.hf_token))
        reading = Reading.of(run.profile.model, model)
    except ProfileError as error:
        checks.add("model", False, error, run.profile.model.name, "see the message")
        return checks, None
    card = model_card.read(model.folder)
    _keep(run, "model.json", _sums(model, card.licence))
    _keep(run, model_card.RECORD, records.plain(card))
    checks.add("model", True, f"{model.name} at {model.revision}")
    checks.add("licence", True, card.licence or "its card names none")
    checks.add("files", True, f"{len(model.files)} files, {model.bytes / 1e6:.1f} MB, digest {model.digest[:16]}")
    width = f"{model.dim} numbers" if model.dim else "as many numbers as the hosts will measure"
    checks.add("vectors", True, f"{width}, {'normalised' if model.normalises else 'not normalised'}")
    checks.add("length", True, _length(reading, model))
    shown = {"documents": model.template, "questions": model.question_template}
    for kind, template in shown.items():
        checks.add(f"text of {kind}", True, template)
    return checks, model


def _length(reading: Reading, model: models.Model) -> str:
    if reading.chunk_tokens:
        return f"reads all of a document, in chunks of at most {reading.chunk_tokens} tokens"
    tokens = reading.limit(model)
    return f"reads {f'{tokens} tokens' if tokens else 'all'} of a document"


def _sums(model: models.Model, licence: str) -> dict[str, Any]:
    """What the model's files are: its licence and the sum of each, for whoever wants the very same."""
    return {
        "name": model.name,
        "revision": model.revision,
        "digest": model.digest,
        "licence": licence,
        "files": {file.path: file.sha256 for file in model.files},
    }


def _keep(run: Run, name: str, stated: dict[str, Any]) -> None:
    """Keep a record, once while it is the same."""
    if run.folder.exists() and read_json(run.report / name) != stated:
        run.save_json(name, stated)


def the_corpus(
    run: Run, model: models.Model | None, on_progress: OnProgress = ignore
) -> tuple[Checks, corpora.Corpus | None]:
    """Check the corpus: every document is readable, numbered and fingerprinted; done once for a run."""
    checks = Checks("Every document is readable, numbered and fingerprinted")
    if model is None:
        checks.add("corpus", False, "not read", "read", "make the model checks hold first")
        return checks, None
    try:
        corpus = run_corpus.numbered(run, model, on_progress)
        whole = wholes.load(run)
    except (CorpusError, DataError) as error:
        checks.add("corpus", False, error, "every document readable", "see the message")
        return checks, None
    documents = corpus.documents if whole is None else whole.documents
    checks.add("documents", True, f"{documents:,}", run.profile.corpus.documents or "")
    if whole is not None:
        checks.add("taken", True, reuse.in_words(whole.since))
    for row in dict.fromkeys((0, corpus.documents // 2, corpus.documents - 1)):
        checks.add("sample", True, _sample(corpus, row))
    checks.add("questions", True, f"{corpus.questions:,}")
    checks.add("fingerprint", True, corpus.fingerprint[:16])
    for note in corpus.notes:
        checks.add("note", True, note, warn=True)
    for path in (run.profile.corpus.path, run.profile.questions):
        if path and not sources.exists(path):
            checks.add("source", True, f"{path} is gone; the run goes by its own copy", warn=True)
    return checks, corpus


def _sample(corpus: corpora.Corpus, row: int) -> str:
    """A document in one line: what was taken for its title, and the start of its text as it is encoded."""
    title = str(next(itertools.islice(corpus.articles(), row, None)).get("title") or "")
    start = " ".join(corpus.text(row)[: 2 * SAMPLE].split())[:SAMPLE]
    return f"row {row:,}: {f'title {title[:SAMPLE]!r}' if title else 'no title'}; encoded as {start!r}"


def the_hosts(run: Run, model: models.Model | None) -> tuple[Checks, dict[str, MachineFacts]]:
    """Check the hosts in parallel: reachable, writable, their slots, their devices. A dead host does not hide others.

    Each host gets the model and tries it, with the sent files only. A host without its environment does that later,
    when it is staged.
    """
    checks, facts = inventory.take(run)
    ready = [spec for spec in run.hosts if spec.name in facts and facts[spec.name]["made"]]
    far = [spec for spec in ready if not spec.computes_here and not spec.is_task]
    there = replace(run, only=frozenset(spec.name for spec in far))
    devices = machines.side_by_side(there, lambda host: _devices(run, host)) if far else machines.Results()
    able = {spec.name for spec in ready if spec.computes_here}
    for specs in together.groups(spec for spec in ready if spec.is_task):
        if cluster.look(run, checks, specs, facts):
            able |= {spec.name for spec in specs}
    for spec in far:
        libraries = devices.ok.get(spec.name) or {"error": str(devices[spec.name])}
        if inventory.judge_libraries(checks, spec, facts[spec.name], libraries):
            able.add(spec.name)
    able = {spec.name for spec in ready if spec.name in able and _can_try(checks, spec, facts[spec.name], model)}
    probes = {} if model is None or not able else probing.on_hosts(run, model, facts, able)
    if model is not None:
        first = {specs[0].name for specs in together.groups(run.hosts)}  # the others have the same answer
        for name in able & first:
            probe_checks.judge(checks, name, probes[name], model, run.profile.model)
        compared = {name: probe for name, probe in probes.items() if name in first or name not in able}
        probe_checks.compare(checks, compared, run.profile.model.dtype)
    run.save_json("hosts.json", {"hosts": {**run.host_facts(), **facts}})  # of one that is away, what was known
    return _held_to(run, checks, facts)


def _held_to(run: Run, checks: Checks, facts: dict[str, MachineFacts]) -> tuple[Checks, dict[str, MachineFacts]]:
    """Return checks and facts as they count: a host that computes already holds up no other, so it only warns.

    A host that joins a launched run is held to every check: with a failed one it is left out of the facts.
    """
    known = _planned(run)
    reached = {spec.name: spec.reached for spec in run.hosts}  # tasks of one cluster share its checks
    places = known | {reached[name] for name in known if name in reached}
    failed = {check.where for check in checks.failed}
    answered = {check.where for check in checks} - failed
    auto = run.profile.policy_for(states.DEAD) == "auto" and bool(answered & {*reached, *reached.values()})
    counted = [replace(c, ok=True, warn=True) if not c.ok and auto and c.where in places else c for c in checks]
    trusted = {
        name: each
        for name, each in facts.items()
        if not known or name in known or not {name, reached.get(name, name)} & failed
    }
    return Checks(checks.title, counted), trusted


def _planned(run: Run) -> frozenset[str]:
    """Return the hosts that the plan of a launched run has given rows; empty before the launch."""
    return frozenset(run.plan().hosts) if run.launched and run.plan_file.exists() else frozenset()


def _can_try(checks: Checks, spec: HostSpec, facts: MachineFacts, model: models.Model | None) -> bool:
    """Return whether a host can try the model now; add a check that says why not."""
    problem, remedy = "", ""
    if model is None:
        problem, remedy = "not tried", "make the model checks hold first"
    elif spec.is_here and model.remote:
        problem, remedy = "its weights are not on this machine", "model.download: here, for hosts of kind local"
    elif facts["free_bytes"] is not None and facts["free_bytes"] < model.bytes + room.SPARE_BYTES:
        problem, remedy = f"not tried: no room for it, {facts['free_bytes'] / 1e9:.1f} GB free", "free space there"
    if problem and (spec.is_here or model is not None):
        checks.add("model loads", False, problem, "loads", remedy, where=spec.name)
    return not problem and planning.has_enough_gpus(spec, facts)


def _devices(run: Run, host: machines.Host) -> probe_answer.Answer:
    """Return what the libraries of a host's Python report about themselves and its GPUs."""
    host.claim(run.id)
    bring_bundle(host)
    argv = [host.python, "-m", "worker", "devices", "--device", host.spec.device]
    done = host.run(argv, DEVICES_TIMEOUT_S, cwd=host.folder.root)
    return probe_answer.parse_answer(done)


def the_disks(
    run: Run, model: models.Model | None, corpus: corpora.Corpus | None, facts: dict[str, MachineFacts] | None = None
) -> Checks:
    """Check the disks: compare the bytes that this run will write with the free ones; add up folders of one disk."""
    checks = Checks("Every disk has room")
    model = model and probing.measured(run, model)
    if model is None or corpus is None or model.dim is None:
        checks.add("disk", False, "not known", "known sizes", "make the model and corpus checks hold first")
        return checks
    room.add(checks, run, model.dim, model.bytes, corpus, facts or {})
    return checks


def the_promise(
    run: Run, model: models.Model | None, corpus: corpora.Corpus | None, facts: dict[str, MachineFacts]
) -> tuple[Checks, promise.Promise | None]:
    """Say what the run will take: lengths against the model's limit, time and clock time of the end, disk.

    A run that computes already keeps the promise that was made before.
    """
    checks = Checks("What it will take")
    model = model and probing.measured(run, model)
    if model is None or corpus is None:
        checks.add("promise", True, "none: make the model and corpus checks hold first")
        return checks, None
    promised = promise.kept(run) if run.launched else promise.make(run, model, corpus, facts, probing.load_s(run))
    if promised is None:
        checks.add("promise", True, "none was made when this run began")
    else:
        promise.add_checks(checks, run, promised)
    return checks, promised


def the_plan(
    run: Run, model: models.Model | None, corpus: corpora.Corpus | None, facts: dict[str, MachineFacts]
) -> tuple[Checks, plan.Plan | None]:
    """Make the plan: which slot does which rows; the check of it shares no code with the making."""
    checks = Checks("Every row belongs to exactly one slot")
    model = model and probing.measured(run, model)
    if model is not None and model.dim is None:
        remedy = "its files do not say it and no host could measure it (alike): see the hosts' checks, or set model.dim"
        checks.add("plan", False, "not made: the width of a vector is not known", "known", remedy)
        return checks, None
    if model is None or corpus is None or model.dim is None:
        checks.add("plan", False, "not made", "made", "make the checks above hold first")
        return checks, None
    stands = run.plan_file.exists() and run.launched
    drawn = _standing(checks, run, model, corpus, facts) if stands else _drawn(checks, run, model, corpus, facts)
    if drawn is None:
        return checks, None
    wrong = plan.problems([rows for slot in drawn.slots for rows in drawn.ranges(slot)], drawn.rows)
    sizes = [slot.rows for slot in drawn.slots]
    checks.add("gaps and overlaps", not wrong, "; ".join(wrong) or "none", "none", "this is a fault of the software")
    checks.add("slots", True, f"{len(drawn.slots)} on {len(drawn.hosts)} hosts")
    checks.add("rows", True, f"{drawn.documents:,} documents and {drawn.questions:,} questions: {drawn.rows:,}")
    even = stands or max(sizes) - min(sizes) <= 1  # slots that came later were cut no rows
    checks.add("rows a slot", even, f"{min(sizes):,} to {max(sizes):,}", "equal within one")
    checks.add("rows a part", True, f"{drawn.part_rows:,}")
    checks.add("batches", True, f"{drawn.batching}{f' ({drawn.why_padded})' if drawn.why_padded else ''}")
    return checks, drawn


def _drawn(
    checks: Checks, run: Run, model: models.Model, corpus: corpora.Corpus, facts: dict[str, MachineFacts]
) -> plan.Plan | None:
    """Draw a new plan: no rows can have been computed by an earlier one."""
    hosts = run.profile.hosts
    if len(facts) != len(hosts):
        checks.add("plan", False, "not made", "made", "make the checks above hold first")
        return None
    lacking = [host.name for host in hosts if not planning.has_enough_gpus(host, facts[host.name])]
    if lacking:
        problem = f"not made: too few GPUs on {', '.join(lacking)}"
        checks.add("plan", False, problem, "made", "repair the GPUs or lower `slots`")
        return None
    drawn = planning.make_plan(run, model, corpus, facts, probing.why_padded(run, model))
    drawn.save(run.plan_file)
    return drawn


def _standing(
    checks: Checks, run: Run, model: models.Model, corpus: corpora.Corpus, facts: dict[str, MachineFacts]
) -> plan.Plan | None:
    """Compare the present plan with the profile, and follow its hosts."""
    wrong = planning.differences(run, run.plan(), model, corpus)
    if run.plan().batching == PACKED and (why := probing.cannot_pack(run, model)):
        wrong.append(("batches", "packed, as the run began", why))
    for what, expected, actual in wrong:
        remedy = "put it back as it was, or start a new run (runbook run PROFILE --new)"
        checks.add(what, False, actual, expected, remedy)
    if wrong:
        return None
    short = {check.where for check in the_disks(run, model, corpus, facts).failed}
    here = {spec.name for spec in run.profile.hosts if spec.is_here and "here" in short}
    known = _planned(run)
    return joining.follow_hosts(checks, run, {n: f for n, f in facts.items() if n in known or n not in short | here})


def everything(run: Run) -> list[Checks]:
    """Return all checks of this phase without a notebook, for `runbook check`."""
    machine = this_machine(run)
    model_checks, model = the_model(run)
    corpus_checks, corpus = the_corpus(run, model)
    host_checks, facts = the_hosts(run, model)
    disks = the_disks(run, model, corpus, facts)
    planned, taken = the_plan(run, model, corpus, facts)[0], the_promise(run, model, corpus, facts)[0]
    groups = [machine, model_checks, corpus_checks, host_checks, disks, planned, taken]
    if not run.finished:
        run.journal.write("checked", ok=all(checks.ok for checks in groups))
    return groups

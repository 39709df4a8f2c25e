"""One run: a folder. Everything it knows is in it or in its folder on the hosts; `Run` owns the paths."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worker.layout import FORMAT, RUN_NAME, HostFolder, make_folder, read_json, safe_text, write_atomic, write_json

from . import plan as plans
from . import profile as profiles
from . import tokens
from .errors import DataError, ProfileError
from .journal import Journal

DEMO = Path(__file__).parents[1] / "profiles" / "demo.yaml"
PHASES = ("01_preflight", "02_launch", "03_monitor", "04_merge_validate")
RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Run:
    """A run's folder and the profile as used; `only` names the hosts meant, where not all are."""

    folder: Path
    profile: profiles.Profile
    only: frozenset[str] = frozenset()

    @property
    def hosts(self) -> tuple[profiles.HostSpec, ...]:
        """The hosts that are meant: all of the profile's, or those of `only`."""
        return tuple(host for host in self.profile.hosts if not self.only or host.name in self.only)

    @property
    def name(self) -> str:
        """The run's name: its folder's, and its folder's on every host."""
        return self.folder.name

    @property
    def id(self) -> str:
        """The random number that tells this run from every other of the same name; none in a run made without one."""
        return str(identity(self.folder).get("id", ""))

    @property
    def corpus(self) -> Path:
        """The corpus as numbered by preflight."""
        return self.folder / "corpus"

    @property
    def local(self) -> HostFolder:
        """The parts that came home, in the layout of a host."""
        return HostFolder(self.folder)

    @property
    def refused(self) -> Path:
        """Parts that came home, and were found damaged or of something else when they were to be merged."""
        return self.folder / "refused"

    @property
    def merged(self) -> Path:
        """The result: embeddings.npy, articles.jsonl, manifest.json."""
        return self.folder / "merged"

    @property
    def candidate(self) -> Path:
        """A merged result whose checks have not been made yet, in the layout of `merged`."""
        return self.folder / "candidate"

    @property
    def rejected(self) -> Path:
        """The last merged result whose checks failed, with the reason."""
        return self.folder / "rejected"

    @property
    def published_file(self) -> Path:
        """What stands under the final names."""
        return self.folder / "published.json"

    @property
    def publishing_file(self) -> Path:
        """A publication that is decided and not finished."""
        return self.folder / "publishing.json"

    @property
    def report(self) -> Path:
        """The evidence: executed notebooks, results, pictures, report.html."""
        return self.folder / "report"

    @property
    def notes(self) -> Path:
        """What a person files: the execution report in the founding plan's form."""
        return self.folder / "notes"

    @property
    def journal(self) -> Journal:
        """What happened, in order."""
        return Journal(self.folder / "journal.jsonl")

    @property
    def sums(self) -> Path:
        """The sha256 of every file of the sealed run."""
        return self.folder / "SHA256SUMS"

    @property
    def founding_file(self) -> Path:
        """The merged pickle in the founding shape, in the profile's output folder."""
        return self.profile.output.folder / self.profile.output.merged

    @property
    def founding_candidate(self) -> Path:
        """The same of a merged result whose checks have not been made yet."""
        return self.founding_file.with_name(f".{self.founding_file.name}.{self.name}.candidate")

    @property
    def plan_file(self) -> Path:
        """The current plan."""
        return self.folder / "plan.json"

    @property
    def plan_lock(self) -> Path:
        """Held by whoever makes the next revision of the plan."""
        return self.folder / "plan.lock"

    @property
    def landing_lock(self) -> Path:
        """Held while a part's array and record come under their final names: two hosts may have made the same part."""
        return self.folder / "landing.lock"

    @property
    def acts_lock(self) -> Path:
        """Held while a person restarts or stops workers, with the act in words."""
        return self.folder / "acts.lock"

    @property
    def faults_lock(self) -> Path:
        """Held by whoever writes into the journal what hosts have on file, so that nothing is told twice."""
        return self.folder / "faults.lock"

    @property
    def watching_file(self) -> Path:
        """What the notebook that watches saw last, for the command that runs it; a record for people."""
        return self.folder / ".watching.part"

    def revision_file(self, epoch: int) -> Path:
        """A revision of the plan that was replaced by a later one."""
        return self.folder / "plans" / f"epoch_{epoch:04d}.json"

    def plan(self) -> plans.Plan:
        """The current plan, verified. Raises DataError."""
        return plans.load(self.plan_file)

    def result_file(self, phase: str) -> Path:
        """Where `phase` hands over."""
        return self.report / f"{phase}.result.json"

    def result(self, phase: str) -> dict[str, Any] | None:
        """What `phase` handed over, or None."""
        try:
            return read_json(self.result_file(phase))
        except ValueError as error:
            raise DataError(str(error)) from None

    def save_result(self, phase: str, **fields: Any) -> str:
        """Hand over to the next phase: written whole, after everything else of the phase. Gives its sha256."""
        return write_json(self.result_file(phase), {"format": FORMAT, "phase": phase, "run": self.name, **fields})

    @property
    def finished(self) -> bool:
        """True when the last phase's result says that all of its checks hold."""
        result = self.result(PHASES[-1])
        return bool(result and result.get("ok"))

    def note(self, text: str) -> None:
        """Write an operator's remark into the journal. Raises ProfileError for an empty one."""
        said = " ".join(safe_text(text, 1000).split())
        if not said:
            raise ProfileError("a note needs words; nothing was written")
        if tokens.looks_secret(said):
            raise ProfileError("a note goes into the archive, and this one holds what looks like a secret; not written")
        self.journal.write("note", text=said)

    def save_json(self, name: str, value: dict[str, Any]) -> Path:
        """Keep a record in the report folder; the journal names its sha256."""
        path = self.report / name
        self.journal.write("record written", wrote={f"{self.report.name}/{name}": write_json(path, value)})
        return path

    def load_json(self, name: str) -> dict[str, Any]:
        """A record of the report folder. Raises DataError when it is missing."""
        value = read_json(self.report / name)
        if value is None:
            raise DataError(f"{self.report / name}: missing; run the notebook that writes it")
        return value

    def host_facts(self) -> dict[str, Any]:
        """What preflight found of each host, by its name; nothing where it has not looked yet."""
        try:
            found = read_json(self.report / "hosts.json")
        except ValueError:
            found = None
        return dict((found or {}).get("hosts") or {})

    def __repr__(self) -> str:
        return f"run {self.name} ({self.folder})"


def create(profile: profiles.Profile, name: str = "") -> Run:
    """A new run's folder, with the profile as used. Raises ProfileError when the name is not usable or taken."""
    name = name or _new_name(profile)
    if not RUN_NAME.fullmatch(name):
        raise ProfileError(f"run name {tokens.hide(name)!r}: letters, digits, '.', '_' and '-' only, at most 100")
    if tokens.looks_secret(name):
        raise ProfileError("the run's name looks like a secret (not shown); name it otherwise")
    folder = profile.runs / name
    make_folder(folder, 0o700)
    if (folder / "profile.yaml").exists():
        raise ProfileError(f"a run named {name} exists already in {profile.runs}")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    run = Run(folder, profile)
    write_json(run.local.mark, {"format": FORMAT, "run": name, "id": uuid.uuid4().hex, "created": created})
    write_atomic(folder / "profile.yaml", profiles.as_yaml(profile).encode())  # from here on it is a run
    run.journal.write("run created", run=name, id=run.id, profile=str(profile.path))
    return run


def identity(folder: Path) -> dict[str, Any]:
    """What `create` recorded of the run in `folder`; empty for a run of an earlier version. Raises DataError."""
    mark = HostFolder(folder).mark
    try:
        found = read_json(mark)
    except ValueError as error:
        raise DataError(str(error)) from None
    if found is not None and not RUN_ID.fullmatch(str(found.get("id"))):
        raise DataError(f"{mark}: expected the run's id, 32 hexadecimal digits; found {safe_text(str(found), 200)}")
    return found or {}


def _new_name(profile: profiles.Profile) -> str:
    stem = f"{profile.run}-{datetime.now():%Y%m%d-%H%M%S}"
    name, again = stem, 1
    while (profile.runs / name).exists():
        again += 1
        name = f"{stem}-{again}"
    return name


def open_folder(folder: Path) -> Run:
    """An existing run by its folder. Raises DataError."""
    file = folder / "profile.yaml"
    if not file.is_file():
        raise DataError(f"{folder}: not a run's folder (no profile.yaml)")
    return Run(folder.absolute(), profiles.load(file, as_used=True))


def runs_of(profile: profiles.Profile) -> list[Path]:
    """The folders of this profile's runs, oldest first."""
    if not profile.runs.is_dir():
        return []
    found = [
        f for f in profile.runs.iterdir() if f.name.startswith(f"{profile.run}-") and (f / "profile.yaml").exists()
    ]
    return sorted(found, key=lambda f: ((f / "profile.yaml").stat().st_mtime_ns, f.name))


def same_choices(folder: Path, profile: profiles.Profile) -> bool:
    """Whether the run in `folder` was made from the same choices as `profile`."""
    return (folder / "profile.yaml").read_text(encoding="utf-8") == profiles.as_yaml(profile)


def current(profile: profiles.Profile, *, new: bool = False) -> Run:
    """The run to work on: the latest of this profile, if its choices are the same; with `new`, only an unfinished one.

    So the same command continues what broke, and starts afresh after a finished run or a changed profile.
    """
    folders = runs_of(profile)
    if folders and same_choices(folders[-1], profile):
        latest = open_folder(folders[-1])
        if not (new and latest.finished):
            return latest
    if not new:
        raise DataError(f"no run of {profile.path} yet in {profile.runs}; run 01_preflight first (runbook run)")
    return create(profile)


def find(name: str) -> Run:
    """A run by its folder, or by its name under ./runs. Raises DataError naming the runs there are."""
    for folder in (Path(name), Path("runs") / name):
        if (folder / "profile.yaml").is_file():
            return open_folder(folder)
    there = sorted(f.parent.name for f in Path("runs").glob("*/profile.yaml"))
    known = ", ".join(there[-5:]) or "none"
    raise DataError(f"no run {name!r}: give its folder, or its name under ./runs (latest there: {known})")


def open_run(profile: str = "", run: str = "", *, new: bool = False, hosts: str = "") -> Run:
    """What a notebook opens: `run` by folder or name if given, else the current run of `profile`, or of the demo's.

    `hosts` names those that are meant, where not all are: "tensor01" or "tensor01,tensor02".
    """
    return limited(find(run) if run else current(profiles.load(Path(profile) if profile else DEMO), new=new), hosts)


def limited(run: Run, hosts: str) -> Run:
    """`run` with only the hosts named in a comma list; all of them for an empty one. Raises ProfileError."""
    names = frozenset(filter(None, (name.strip() for name in hosts.split(","))))
    known = {host.name for host in run.profile.hosts}
    if names - known:
        wrong = ", ".join(safe_text(name, 80) for name in sorted(names - known))
        raise ProfileError(f"no host {wrong} in this profile; there are: {', '.join(sorted(known))}")
    return replace(run, only=names if names != known else frozenset())

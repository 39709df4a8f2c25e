"""Which run a command or a notebook works on: opened by its name, continued with a changed profile, or created."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from worker.escape import safe_text
from worker.files import make_folder, write_atomic
from worker.layout import run_name_problem

from ..errors import DataError, ProfileError, RunbookError
from ..profile import profile as profiles
from ..profile import tokens
from . import choices, locks, origin, run_mark
from .disk import explain_disk_errors
from .run import Run
from .run_mark import PROFILE, oldest_first

DEMO = Path(__file__).parents[2] / "profiles" / "demo.yaml"
# What a crash in `create` leaves.
UNFINISHED = re.compile(r"run\.json|\.(run\.json|profile\.yaml)\.[0-9a-f]+\.part")
Say = Callable[[str], None]


def _print_nothing(text: str) -> None:
    """Print nothing."""


@explain_disk_errors("making the run's folder")
def create(profile: profiles.Profile, name: str = "", since: str = "") -> Run:
    """Create a run's folder, with the profile as used. Raises ProfileError when the name is not usable or taken.

    `since`: the folder of an earlier run; vectors of texts that did not change are taken from there.
    """
    name = name or _new_name(profile)
    if tokens.looks_secret(name):
        raise ProfileError("the run's name looks like a secret (not shown); name it otherwise")
    if wrong := run_name_problem(name):
        raise ProfileError(wrong)
    run = Run(profile.runs / name, profile)
    if run.profile_file.exists():
        raise ProfileError(f"a run named {name} exists already in {profile.runs}")
    if there := sorted(entry.name for entry in _entries(run.folder) if not UNFINISHED.fullmatch(entry.name)):
        shown = ", ".join(safe_text(entry, 80) for entry in there[:3])
        raise ProfileError(f"{run.folder} is there and is no run (it holds {shown}): name the run otherwise (--run)")
    make_folder(run.folder, 0o700)
    run_mark.write(run.folder, profile.path, since)
    write_atomic(run.profile_file, profiles.as_yaml(profile).encode())  # from here on it is a run
    source = {"since": since} if since else {}
    begun = {"software": origin.software(), "by": origin.person(), "command": origin.command()}
    run.journal.write("run created", run=name, id=run.id, profile=str(profile.path), **begun, **source)
    return run


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing if it is missing. Raises ProfileError if it is not a folder."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ProfileError(f"the run's folder {folder}: {error.strerror}") from None


def _new_name(profile: profiles.Profile) -> str:
    stem = f"{profile.run}-{datetime.now():%Y%m%d-%H%M%S}"
    name, again = stem, 1
    while (profile.runs / name).exists():
        again += 1
        name = f"{stem}-{again}"
    return name


def open_folder(folder: Path) -> Run:
    """Open an existing run by its folder. Raises DataError."""
    file = folder / PROFILE
    if not file.is_file():
        raise DataError(f"{folder}: not a run's folder (no {PROFILE})")
    return Run(folder.absolute(), profiles.load(file, as_used=True))


@explain_disk_errors("opening the run")
def current(
    profile: profiles.Profile,
    *,
    new: bool = False,
    say: Say = _print_nothing,
    amend: bool = False,
    take_over: bool = False,
    since: str = "",
) -> Run:
    """Return the run to work on: the latest made from these choices; with `new`, create one if that is finished.

    Changes of the profile that cannot change a vector are taken into the run. Raises ProfileError, naming the keys,
    if the latest run of this profile was made from other choices: no new run starts unnoticed.
    With `amend` the corpus may differ, and a finished run is continued. While another command drives the run, no
    change is taken into it (RunbookError names that command), unless the caller will `take_over`. `since`: the folder
    of the run from which a new run takes vectors; an unfinished run is continued only if it was made with the same one.
    """
    if new:
        make_folder(profile.runs)
    with run_mark.lock_runs_folder(profile.runs):
        own: list[tuple[Run, list[choices.Change]]] = []
        for run, is_own in _related(profile):
            changes = run.basis.changes(profile)
            if not choices.is_blocked(changes, amend):
                if new and run.finished and not amend:
                    break
                _same_since(run, since)
                return _resume(run, profile, changes, say, keep=amend, take_over=take_over)
            if is_own:
                own.append((run, changes))
        latest, changes = own[0] if own else (None, [])
        if latest and latest.only_failed_preflight:
            _same_since(latest, since)
            return _resume(latest, profile, changes, say, take_over=take_over)
        if latest and (amend or not (new and latest.finished)):
            raise ProfileError(choices.refusal(latest.name, latest.finished, profile, changes))
        if not new or amend:
            raise DataError(f"no run of {profile.path} yet in {profile.runs}; run 01_preflight first (runbook run)")
        return create(profile, since=since)


def _same_since(run: Run, since: str) -> None:
    """Raise ProfileError if a run that is to go on was made without --since, or with another run."""
    if since and (not run.since or Path(run.since).resolve() != Path(since).resolve()):
        begun = f"with --since {run.since}" if run.since else "without --since"
        raise ProfileError(
            f"run {run.name} is {'finished' if run.finished else 'unfinished'} and was made {begun}; nothing was done. "
            "Two ways out: the same command without --since goes on with it; or begin another one: runbook run "
            f"PROFILE --new --since {since}"
        )


@explain_disk_errors("opening the run")
def open_or_create(
    profile: profiles.Profile,
    name: str,
    say: Say = _print_nothing,
    *,
    amend: bool = False,
    take_over: bool = False,
    since: str = "",
) -> Run:
    """Open the run of this name, or create it. Raises ProfileError if it was made from other choices."""
    if not (profile.runs / name / PROFILE).exists():
        return create(profile, name, since)
    if why := run_mark.why_not_ours(profile.runs / name):
        raise ProfileError(f"{why}. Name the run otherwise (--run NAME), or take another folder of runs")
    run = open_folder(profile.runs / name)
    _same_since(run, since)
    changes = run.basis.changes(profile)
    if choices.is_blocked(changes, amend) and not run.only_failed_preflight:
        raise ProfileError(choices.refusal(run.name, run.finished, profile, changes))
    return _resume(run, profile, changes, say, keep=amend, take_over=take_over)


def _related(profile: profiles.Profile) -> Iterator[tuple[Run, bool]]:
    """Yield the runs that may be this profile's, newest first, and whether they surely are: same file, or same content.

    A profile whose file is gone may have been renamed. Another profile file that exists has its own runs.
    """
    for folder in reversed(oldest_first(profile.runs)):
        if run_mark.why_not_ours(folder):
            continue
        with suppress(ProfileError, DataError):  # a run that cannot be read must not hide others
            run, source = open_folder(folder), run_mark.read(folder).profile
            same = source == str(profile.path) or profiles.as_yaml(run.profile) == profiles.as_yaml(profile)
            if same or not source or not Path(source).exists():
                yield run, same


def _resume(
    run: Run,
    profile: profiles.Profile,
    changes: Sequence[choices.Change],
    say: Say,
    keep: bool = False,
    take_over: bool = False,
) -> Run:
    """Continue `run` with the changed profile; the journal lists each key. `keep`: keep its plan and corpus."""
    if not run.id and not run.finished:
        raise ProfileError(
            f"run {run.name} was begun by an earlier version, which gave runs no id: its parts cannot be told from "
            "those of others. Finish it with that version, or begin another one (runbook run PROFILE --new)"
        )
    if not changes:
        return run
    if not take_over:
        _not_driven(run, changes)
    if not keep and any(change.why for change in changes):  # a failed preflight: nothing depends on what it numbered
        for file in (run.plan_file, run.corpus / "corpus.json"):
            file.unlink(missing_ok=True)
    text, before = profiles.as_yaml(profile).encode(), run.profile_file.read_bytes()
    kept = [run.left_file(change.leaves) for change in changes if change.leaves]
    kept += [] if run.first_profile_file.exists() else [run.first_profile_file]
    wrote = {file.relative_to(run.folder).as_posix(): hashlib.sha256(before).hexdigest() for file in kept}
    wrote[run.profile_file.name] = hashlib.sha256(text).hexdigest()
    for change in changes:
        fields = {"key": change.key, "before": change.before, "after": change.after}
        run.journal.write("profile changed", **fields, wrote=wrote)
        say(f"  {change.told}")
    for file in kept:
        write_atomic(file, before)
    write_atomic(run.profile_file, text)
    return open_folder(run.folder)


def _not_driven(run: Run, changes: Sequence[choices.Change]) -> None:
    """Raise RunbookError if a command drives the run: it goes by the profile that it began with."""
    if who := locks.holder(run.driver_lock):
        raise RunbookError(
            f"run {run.name} is being driven already ({locks.driver_in_words(who)}), and the profile changed since: "
            f"{'; '.join(map(str, changes))}. Nothing was changed. Next: wait for it, or end it and go on here with "
            "the changed profile (its workers go on): runbook run PROFILE --take-over"
        )


@explain_disk_errors("opening the run")
def find(name: str, runs: Path = Path("runs")) -> Run:
    """Open a run by its folder, or by its name under ./runs or `runs`. Raises DataError naming the existing runs."""
    for folder in (Path(name), Path("runs") / name, runs / name):
        if (folder / PROFILE).is_file():
            return open_folder(folder)
    there = [folder.name for folder in oldest_first(runs)]
    known = ", ".join(there[-5:]) or "none"
    where = "./runs" if runs == Path("runs") else f"./runs or {runs}"
    raise DataError(f"no run {name!r}: give its folder, or its name under {where} (latest there: {known})")


def find_earlier(name: str, runs: Path) -> str:
    """Return the folder of the run that `--since` names, by its folder or its name in `runs`. Raises ProfileError."""
    for folder in (Path(name), runs / name, Path("runs") / name):
        if (folder / PROFILE).is_file():
            return str(folder.absolute())
    raise ProfileError(
        f"--since {safe_text(name, 200)!r}: no such run in {runs}, and no folder of a run. Next: name another run, or "
        "leave out --since: runbook run PROFILE --new computes all documents"
    )


def open_run(profile: str = "", run: str = "", *, new: bool = False, hosts: str = "", since: str = "") -> Run:
    """Open the run of a notebook: `run` by folder or name if given, else the current run of `profile` or the demo's.

    A name is looked for under ./runs and in the profile's own folder of runs, wherever the notebook stands. `hosts`
    names the hosts to work on, if not all: "tensor01" or "tensor01,tensor02". `since` names the finished run from which
    a new run takes the vectors of texts that did not change.
    """
    if run and (Path(run) / PROFILE).is_file():
        return limited(open_folder(Path(run)), hosts)
    chosen = profiles.load(Path(profile) if profile else DEMO)
    if run:
        return limited(find(run, chosen.runs), hosts)
    earlier = find_earlier(since, chosen.runs) if since else ""
    return limited(current(chosen, new=new, since=earlier), hosts)


def limited(run: Run, hosts: str) -> Run:
    """Return `run` with only the hosts named in a comma list; all of them for an empty list. Raises ProfileError.

    The name of a cluster stands for all of its tasks.
    """
    asked = frozenset(filter(None, (name.strip() for name in hosts.split(","))))
    known = {host.name for host in run.profile.hosts}
    if wrong := asked - known - {host.reached for host in run.profile.hosts}:
        shown = ", ".join(safe_text(name, 80) for name in sorted(wrong))
        raise ProfileError(f"no host {shown} in this profile; there are: {', '.join(sorted(known))}")
    names = frozenset(host.name for host in run.profile.hosts if {host.name, host.reached} & asked)
    return replace(run, only=names if names != known else frozenset())

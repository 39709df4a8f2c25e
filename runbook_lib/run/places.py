"""Where a run reads and writes on this machine, and which of these places must be apart.

A run alone owns some folders: its own, and on each host one of its name, beside the models and environments there.
Nothing else may be in them, and they may not be in anything that is only read. Paths are compared as on the disk:
links and `..` are followed, one file under two names is one file, and for a path that does not exist yet, upper and
lower case are the same.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from worker.layout import SHARED_FOLDERS, HostFolder

from ..corpus import sources
from ..profile.profile import Profile
from .run import Run


@dataclass(frozen=True)
class NamedPath:
    """A file or folder with the name that a person knows: a key of the profile, or words."""

    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name} ({self.path})"


Key = tuple[object, ...]


def key(path: Path) -> Key:
    """Return an identity that is equal for two paths to the same file or folder."""
    at, names = Path(os.path.realpath(path)), []
    while True:
        try:
            status = at.stat()
        except OSError:  # not there yet
            names.append(unicodedata.normalize("NFC", at.name).casefold())
            if at == at.parent:
                return tuple(reversed(names))
            at = at.parent
        else:
            return (status.st_dev, status.st_ino, *reversed(names))


def inside(path: Path, folder: Path) -> bool:
    """Whether `path` is `folder`, or lies in it."""
    real = Path(os.path.realpath(path))
    wanted = key(folder)
    return any(key(at) == wanted for at in (real, *real.parents))


def read(run: Run) -> Iterator[NamedPath]:
    """Yield the files and folders that are only read, also the profile that the run was created from."""
    profile = run.profile
    yield NamedPath("the profile", profile.path)
    if created := next(run.journal.events("run created"), None):
        yield NamedPath("the profile", Path(str(created.get("profile"))))
    for file in sources.places(profile.corpus.path, profile.output.merged):
        yield NamedPath("corpus.path", file)
    if profile.model.name.startswith("/"):
        yield NamedPath("model.name", Path(profile.model.name))
    for name, path in (("questions", profile.questions), ("hf_token", profile.hf_token)):
        if path:
            yield NamedPath(name, path)
    for reached, host in {host.reached: host for host in profile.hosts}.items():
        for name in ("credentials", "requirements", "wheels"):
            if path := getattr(host, name):
                yield NamedPath(f"hosts.{reached}.{name}", path)


def written(profile: Profile) -> Iterator[NamedPath]:
    """Yield the folders for the result; other people's files may be there too."""
    yield NamedPath("output.folder", profile.output.folder)
    yield NamedPath("output.backups", profile.output.backups)


def owned(run: Run) -> Iterator[list[NamedPath]]:
    """Yield the folders that only we use, one list a kind: within a list two hosts may share a folder."""
    yield [NamedPath("the run's folder", run.folder)]
    local = {host.reached: Path(host.workdir) for host in run.profile.hosts if host.is_here}
    yield [NamedPath(f"the run's folder on {name}", workdir / run.name) for name, workdir in local.items()]
    for shared in SHARED_FOLDERS:
        yield [NamedPath(f"{shared} on {name}", workdir / shared) for name, workdir in local.items()]


def workdirs(profile: Profile) -> Iterator[NamedPath]:
    """Yield the working folders on this machine: what is there outside a run's own folder belongs to future runs."""
    for name, host in {host.reached: host for host in profile.hosts}.items():
        if host.is_here:
            yield NamedPath(f"hosts.{name}.workdir", Path(host.workdir))


def problems(run: Run) -> list[str]:
    """Say which of a run's places are inside one another and must not be."""
    groups = list(owned(run))
    ours = [place for group in groups for place in group]
    reads = [place for place in read(run) if place.path.parent != run.folder]  # the run owns its copy of the profile
    writes = list(written(run.profile))
    folder, backups = writes
    runs = NamedPath("runs", run.profile.runs)
    pairs = [(place, other) for place in (*reads, *writes) for group in groups[:2] for other in group]
    pairs += [(place, other) for place in writes for group in groups[2:] for other in group]
    used = [*ours, *writes]
    pairs += [(place, other) for place in used for other in reads]
    pairs += [(place, runs) for place in writes] + [(folder, backups)]
    corpora = [NamedPath("corpus.path", file) for file in sources.places(run.profile.corpus.path)]
    for workdir in workdirs(run.profile):
        pairs += [(place, workdir) for place in (*corpora, runs, *writes)] + [(workdir, backups)]
    nested = [pair for pair in pairs if inside(pair[0].path, pair[1].path)] + list(_nested(groups))
    lines = [f"{place} {'is' if key(place.path) == key(other.path) else 'lies in'} {other}" for place, other in nested]
    lines += [f"{place} lies in the folder of another run, {at}" for place in used if (at := _of_run(place))]
    return list(dict.fromkeys([*lines, *_result(run, [*used, runs, *reads])]))


def _nested(groups: list[list[NamedPath]]) -> Iterator[tuple[NamedPath, NamedPath]]:
    """Yield pairs of folders that only we use, the first inside the second."""
    named = [(number, place) for number, group in enumerate(groups) for place in group]
    for (group, one), (other_group, other) in combinations(named, 2):
        if group == other_group and key(one.path) == key(other.path):
            continue
        if inside(one.path, other.path):
            yield one, other
        elif inside(other.path, one.path):
            yield other, one


def _of_run(place: NamedPath) -> Path | None:
    """Return the folder above a place that a run marked as its own, if any."""
    return next((folder for folder in place.path.parents if HostFolder(folder).mark.is_file()), None)


def _result(run: Run, others: list[NamedPath]) -> Iterator[str]:
    """Say what the result file would replace."""
    result = NamedPath("output.merged", run.founding_file)
    for other in others:
        if inside(other.path, result.path):
            yield f"{result} {'is' if key(other.path) == key(result.path) else 'would stand above'} {other}"

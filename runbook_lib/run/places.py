"""Places: where a run reads and writes on this machine, and which of them must lie apart.

A run owns some folders whole: its own, and on each host one of its name, beside the models and environments there.
Nothing else may be in them, nor they in anything that is only read. Paths are compared as the disk does: links and `..`
followed, one file under two names is one file, and where nothing is there yet, upper and lower case are the same.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from worker.layout import SHARED_FOLDERS, HostFolder

from ..profile.profile import Profile
from .run import Run


@dataclass(frozen=True)
class Place:
    """A file or folder, and the key of the profile, or the words, by which a person knows it."""

    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name} ({self.path})"


Key = tuple[object, ...]


def key(path: Path) -> Key:
    """What tells this place from every other: equal for two paths that lead to the same file or folder."""
    at, names = Path(os.path.realpath(path)), []
    while True:
        try:
            found = at.stat()
        except OSError:  # not there yet
            names.append(unicodedata.normalize("NFC", at.name).casefold())
            if at == at.parent:
                return tuple(reversed(names))
            at = at.parent
        else:
            return (found.st_dev, found.st_ino, *reversed(names))


def inside(path: Path, folder: Path) -> bool:
    """Whether `path` is `folder`, or lies in it."""
    real = Path(os.path.realpath(path))
    wanted = key(folder)
    return any(key(at) == wanted for at in (real, *real.parents))


def read(run: Run) -> Iterator[Place]:
    """The files and folders that are only read; the profile also where the run was created from it."""
    profile = run.profile
    yield Place("the profile", profile.path)
    if created := next(run.journal.events("run created"), None):
        yield Place("the profile", Path(str(created.get("profile"))))
    yield Place("corpus.path", profile.corpus.path)
    if profile.model.name.startswith("/"):
        yield Place("model.name", Path(profile.model.name))
    for name, path in (("questions", profile.questions), ("hf_token", profile.hf_token)):
        if path:
            yield Place(name, path)
    for host in profile.hosts:
        for name in ("credentials", "requirements", "wheels"):
            if path := getattr(host, name):
                yield Place(f"hosts.{host.name}.{name}", path)


def written(profile: Profile) -> Iterator[Place]:
    """The folders that the result goes to; others' files may lie there too."""
    yield Place("output.folder", profile.output.folder)
    yield Place("output.backups", profile.output.backups)


def owned(run: Run) -> Iterator[list[Place]]:
    """The folders that are ours whole, by what they are: within one list two hosts may share a folder."""
    yield [Place("the run's folder", run.folder)]
    local = [host for host in run.profile.hosts if host.is_here]
    yield [Place(f"the run's folder on {host.name}", Path(host.workdir) / run.name) for host in local]
    for name in SHARED_FOLDERS:
        yield [Place(f"{name} on {host.name}", Path(host.workdir) / name) for host in local]


def workdirs(profile: Profile) -> Iterator[Place]:
    """The working folders on this machine: what lies in one that is not a run's own is for other runs to come."""
    for host in profile.hosts:
        if host.is_here:
            yield Place(f"hosts.{host.name}.workdir", Path(host.workdir))


def problems(run: Run) -> list[str]:
    """Which of a run's places lie in one another and must not, in words."""
    groups = list(owned(run))
    ours = [place for group in groups for place in group]
    reads = [place for place in read(run) if place.path.parent != run.folder]  # its own copy of the profile is its own
    writes = list(written(run.profile))
    folder, backups = writes
    runs = Place("runs", run.profile.runs)
    pairs = [(place, other) for place in (*reads, *writes) for group in groups[:2] for other in group]
    pairs += [(place, other) for place in writes for group in groups[2:] for other in group]
    pairs += [(place, other) for place in (*ours, *writes) for other in reads]
    pairs += [(place, runs) for place in writes] + [(folder, backups)]
    corpus = Place("corpus.path", run.profile.corpus.path)
    for workdir in workdirs(run.profile):
        pairs += [(place, workdir) for place in (corpus, runs, *writes)] + [(workdir, backups)]
    nested = [pair for pair in pairs if inside(pair[0].path, pair[1].path)] + list(_nested(groups))
    told = [f"{place} {'is' if key(place.path) == key(other.path) else 'lies in'} {other}" for place, other in nested]
    told += [f"{place} lies in the folder of another run, {at}" for place in (*ours, *writes) if (at := _of_run(place))]
    return list(dict.fromkeys([*told, *_result(run, [*ours, *writes, runs, *reads])]))


def _nested(groups: list[list[Place]]) -> Iterator[tuple[Place, Place]]:
    """Folders that are ours whole, and one of them in the other."""
    named = [(number, place) for number, group in enumerate(groups) for place in group]
    for (group, one), (other_group, other) in combinations(named, 2):
        if group == other_group and key(one.path) == key(other.path):
            continue
        if inside(one.path, other.path):
            yield one, other
        elif inside(other.path, one.path):
            yield other, one


def _of_run(place: Place) -> Path | None:
    """The folder above a place that a run marked as its own."""
    return next((folder for folder in place.path.parents if HostFolder(folder).mark.is_file()), None)


def _result(run: Run, others: list[Place]) -> Iterator[str]:
    """What the file of the result would take the place of."""
    result = Place("output.merged", run.founding_file)
    for other in others:
        if inside(other.path, result.path):
            yield f"{result} {'is' if key(other.path) == key(result.path) else 'would stand above'} {other}"

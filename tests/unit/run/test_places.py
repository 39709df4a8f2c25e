"""Places: what a run reads, what it writes and what it owns lie apart, however their names are spelled."""

import os
import re
from pathlib import Path

import made_up
import pytest

from runbook_lib.phases import preflight
from runbook_lib.profile import profile
from runbook_lib.run import opening, places, run

TEXT = """
run: lake
corpus: {{path: {corpus}}}
model: {{name: {model}}}
hosts: [{{name: here, kind: local, device: cpu, slots: 1, workdir: {workdir}}}{more}]
output: {{folder: {folder}, merged: {merged}, backups: {backups}}}
runs: {runs}
{keys}
"""
DEFAULT = {
    "corpus": "corpus.jsonl", "model": "owner/model", "workdir": "work", "folder": "embeddings", "more": "",
    "merged": "lake_merged.pkl", "backups": "embeddings/backups", "runs": "runs", "keys": "", "name": "one",
}  # fmt: skip


def made(tmp_path: Path, **given: str) -> run.Run:
    values = {**DEFAULT, **given}
    (tmp_path / "corpus.jsonl").write_text('{"id": 1, "title": "a", "text": "b"}\n')
    for folder in ("wheels", "model"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "file").touch()
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "hf.token").touch(0o600)
    (tmp_path / "p.yaml").write_text(TEXT.format(**values))
    return opening.create(profile.load(tmp_path / "p.yaml"), values["name"])


APART = {
    "the defaults": {},
    "hosts below runs": {"workdir": "runs/hosts/here"},
    "two hosts, one folder": {"more": ", {name: two, kind: local, device: cpu, slots: 1, workdir: ./work}"},
    "two hosts, one in the other's": {"more": ", {name: two, kind: local, device: cpu, slots: 1, workdir: work/two}"},
    "backups elsewhere": {"backups": "copies"},
    "the corpus among the results": {"folder": ".", "backups": "backups"},
    "token among the results": {"folder": ".", "backups": "backups", "keys": "hf_token: hf.token"},
}


@pytest.mark.parametrize("case", APART)
def test_places_that_lie_apart_are_taken(tmp_path: Path, case: str) -> None:
    (tmp_path / "p").mkdir()
    assert places.problems(made(tmp_path / "p", **APART[case])) == []


WRONG = {
    "the result is the corpus": ({"folder": ".", "merged": "corpus.jsonl"}, "output.merged .* is corpus.path"),
    "by dots": ({"folder": "x/..", "merged": "corpus.jsonl"}, "output.merged .* is corpus.path"),
    "by a link": ({"folder": "link", "merged": "corpus.jsonl"}, "output.merged .* is corpus.path"),
    "by a hard link": ({"folder": ".", "merged": "hard.jsonl"}, "output.merged .* is corpus.path"),
    "by a link to it": ({"folder": ".", "merged": "soft.jsonl"}, "output.merged .* is corpus.path"),
    "the profile": ({"folder": ".", "merged": "p.yaml"}, "output.merged .* is the profile"),
    "the questions": ({"folder": ".", "merged": "q.json", "keys": "questions: q.json"}, "is questions"),
    "the token": ({"folder": ".", "merged": "hf.token", "keys": "hf_token: hf.token"}, "is hf_token"),
    "the requirements": (
        {"folder": ".", "merged": "requirements.txt",
         "more": ", {name: b, kind: local, workdir: b, requirements: requirements.txt}"},
        "is hosts.b.requirements",
    ),
    "credentials": (
        {"folder": ".", "merged": "hf.token", "more": ", {name: b, credentials: hf.token}"}, "is hosts.b.credentials"
    ),
    "a file of the model": ({"folder": "model", "model": "./model"}, "output.folder .* is model.name"),
    "among the wheels": (
        {"backups": "wheels/b", "more": ", {name: b, kind: local, workdir: b, wheels: wheels}"},
        "lies in hosts.b.wheels",
    ),
    "the folder of backups": ({"merged": "backups"}, "output.merged .* is output.backups"),
    "the folder of runs": ({"folder": ".", "merged": "runs"}, "would stand above the run's folder"),
    "a working folder to come": ({"folder": ".", "merged": "work"}, "would stand above the run's folder on here"),
    "the same in capitals": ({"folder": ".", "merged": "WORK"}, "would stand above the run's folder on here"),
    "backups are the output": ({"backups": "embeddings"}, "output.folder .* is output.backups"),
    "the output among the backups": ({"folder": "b/out", "backups": "b"}, "output.folder .* lies in output.backups"),
    "the output among the runs": ({"folder": "runs", "backups": "b"}, "output.folder .* is runs"),
    "the output below the runs": ({"folder": "runs/x"}, "output.folder .* lies in runs"),
    "the output in the run": ({"folder": "runs/one/merged", "backups": "b"}, "lies in the run's folder"),
    "backups in the run": ({"backups": "runs/one/b"}, "output.backups .* lies in the run's folder"),
    "runs as a working folder": ({"workdir": "runs"}, "the run's folder on here .* is the run's folder|is the run's"),
    "a working folder in the run": ({"workdir": "runs/one/host"}, "lies in the run's folder"),
    "the run in the host's folder": ({"workdir": ".", "name": "runs"}, "lies in the run's folder on here"),
    "the run is the project": ({"workdir": "..", "name": "p"}, "corpus.path .* lies in the run's folder on here"),
    "the run is the output": ({"workdir": ".", "name": "embeddings"}, "output.folder .* is the run's folder on here"),
    "the run is the output in capitals": (
        {"workdir": ".", "name": "EMBEDDINGS"}, "output.folder .* is the run's folder on here"
    ),
    "the output on the host": ({"folder": "work/one/parts", "backups": "b"}, "lies in the run's folder on here"),
    "the models' folder": ({"folder": "work/models"}, "output.folder .* is models on here"),
    "runs below environments": ({"runs": "work/environments/x"}, "lies in environments on here"),
    "a working folder over everything": ({"workdir": "."}, "corpus.path .* lies in hosts.here.workdir"),
    "a working folder above the project": ({"workdir": ".."}, "runs .* lies in hosts.here.workdir"),
    "a working folder over the output": ({"folder": "work/out", "backups": "b"}, "output.folder .* lies in hosts.here"),
    "a working folder over the backups": ({"backups": "work/b"}, "output.backups .* lies in hosts.here.workdir"),
    "a working folder over the runs": ({"runs": "work/runs"}, "runs .* lies in hosts.here.workdir"),
    "a working folder in the backups": (
        {"workdir": "embeddings/backups/w"}, "hosts.here.workdir .* lies in output.backups"
    ),
    "a run in a run": ({"workdir": "runs/other/parts"}, "lies in the folder of another run"),
    "a host's folder in another's": (
        {"more": ", {name: b, kind: local, workdir: work/one}"}, "on b .* lies in the run's folder on here"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_places_in_or_over_each_other_are_refused_and_nothing_is_made(tmp_path: Path, case: str) -> None:
    given, said = WRONG[case]
    home = tmp_path / "p"
    home.mkdir()
    (home / "link").symlink_to(home)
    (home / "x").mkdir()
    (home / "runs" / "other").mkdir(parents=True)
    (home / "runs" / "other" / "run.json").write_text("{}")
    (home / "soft.jsonl").symlink_to("corpus.jsonl")
    (home / "corpus.jsonl").touch()
    os.link(home / "corpus.jsonl", home / "hard.jsonl")
    this = made(home, **given)
    before = sorted(home.rglob("*"))
    checks = preflight.this_machine(this)
    (refused,) = [check for check in checks if check.name == "places"]
    assert not refused.ok
    assert [line for line in places.problems(this) if re.search(said, line)], places.problems(this)
    assert sorted(home.rglob("*")) == before


def test_the_places_of_made_up_and_shipped_profiles_lie_apart(tmp_path: Path) -> None:
    assert places.problems(made_up.run_folder(tmp_path, count=4).run) == []
    for file in (Path(__file__).parents[3] / "profiles").glob("*.yaml"):
        found = profile.load(file)
        assert places.problems(run.Run(found.runs / f"{found.run}-1", found)) == [], file


def test_a_file_has_one_key_by_all_its_names(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    assert places.key(tmp_path / "a" / "File") == places.key(tmp_path / "link" / "../a/fiLE")
    assert places.key(tmp_path / "a" / "fu\u0308r") == places.key(tmp_path / "a" / "f\u00fcr")
    assert places.inside(tmp_path / "link" / "x" / "y", tmp_path / "a")
    assert not places.inside(tmp_path / "ab", tmp_path / "a")

"""Clean: this run's files leave its hosts, and only theirs, once a verified backup stands and nobody works there."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import made_up
import pytest
import wired
from local_run import nobody_there

from runbook_lib import cli, cli_run
from runbook_lib.errors import DataError, HostError
from runbook_lib.hosts import hosts
from runbook_lib.hosts.bundle import bundle_files
from runbook_lib.records import plain
from runbook_lib.report import clean, gate, report
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import PHASES, Run
from worker import placed, process
from worker.files import write_json


def hand_over(this, *phases, **figures):
    checks = Checks("a fact")
    checks.add("a fact", True, "seen")
    for phase in phases:
        gate.gate(this, phase, checks, **figures)


@pytest.fixture(scope="module")
def sealed_once(tmp_path_factory):
    """A merged, backed up and sealed run; not to be changed."""
    made = made_up.run_folder(tmp_path_factory.mktemp("sealed"), count=8)
    made.commit_all()
    hand_over(made.run, *PHASES[:3])
    done = made_up.published(made.run)
    hand_over(made.run, PHASES[3], founding=done.founding, backup=done.backup)
    report.seal(made.run)
    return made.run


@pytest.fixture
def this(sealed_once, tmp_path):
    """A copy of it whose one host has files of this run, of another run, and a model."""
    shutil.copytree(sealed_once.folder, tmp_path / "runs" / sealed_once.name)
    spec = replace(sealed_once.profile.hosts[0], workdir=str(tmp_path / "host"))
    this = Run(tmp_path / "runs" / sealed_once.name, replace(sealed_once.profile, hosts=(spec,)))
    folder = there(this)
    hosts.connect(this.profile.hosts[0], this.name).claim(this.id)
    write_json(folder.assignment("here"), wired.assignment([wired.slot("cluster0_gpu0", (0, 9))]))
    write_json(folder.part(0, 4).with_suffix(".json"), {})
    for kept in ("models/abc/model.safetensors", "another-run/parts/rows_000000000_000000004.npy"):
        (tmp_path / "host" / kept).parent.mkdir(parents=True)
        (tmp_path / "host" / kept).write_text("kept")
    return this


def there(this):
    return hosts.connect(this.profile.hosts[0], this.name).folder


def backup_of(this):
    return Path(this.result(PHASES[3]).output("backup").path)


def refused(this, said, error=DataError):
    """`clean` refuses, says so, and has taken nothing."""
    before = sorted(there(this).root.rglob("*"))
    with pytest.raises(error, match=said):
        clean.clean(this)
    assert sorted(there(this).root.rglob("*")) == before


def test_this_runs_folder_goes_and_everything_else_stays(this, tmp_path):
    (listed,) = clean.leftovers(this)
    assert (listed.host, listed.folder) == ("here", there(this).root)
    assert listed.files == (Path("hosts/here.json"), Path("parts/rows_000000000_000000004.json"))
    assert listed.bytes == sum((listed.folder / path).stat().st_size for path in listed.files)
    assert clean.clean(this) == [listed]
    assert not there(this).root.exists()
    assert sorted(path.name for path in (tmp_path / "host").iterdir()) == ["another-run", "models", "seals"]
    stays = [path for path in (tmp_path / "host").rglob("*") if path.is_file() and path.parent.name != "seals"]
    assert {path.read_text() for path in stays} == {"kept"}


def test_the_command_lists_and_removes_only_when_told_to(this, monkeypatch, capsys):
    monkeypatch.setattr(cli_run, "_find", lambda args: this)
    assert cli.main(["clean", this.name]) == 0
    said = capsys.readouterr().out
    assert f"here: {there(this).root}: 2 files" in said
    assert "\n  parts/rows_000000000_000000004.json\n" in said
    assert "nothing was removed" in said
    assert there(this).root.exists()
    assert cli.main(["clean", this.name, "--yes"]) == 0
    assert not there(this).root.exists()


def test_it_is_journaled_and_the_archive_verifies_afterwards(this):
    clean.clean(this)
    (event,) = this.journal.events("cleaned")
    assert event["files"] == 2
    assert report.verify(this).ok


def test_cleaning_again_finds_nothing(this):
    clean.clean(this)
    assert clean.leftovers(this) == []
    assert clean.clean(this) == []


def test_what_a_link_leads_to_stays(this, tmp_path):
    (there(this).root / "link").symlink_to(tmp_path / "host" / "models")
    there(this).quarantine.symlink_to(tmp_path / "host" / "models")
    there(this).part(4, 8).symlink_to(tmp_path / "host" / "models" / "abc" / "model.safetensors")
    assert len(clean.leftovers(this)[0].strangers) == 2
    (removed,) = clean.clean(this)
    assert set(removed.strangers) == {Path("link"), Path("quarantine"), Path("parts/rows_000000004_000000008.npy")}
    assert len(removed.files) == 2
    assert (tmp_path / "host" / "models" / "abc" / "model.safetensors").exists()
    assert (there(this).root / "link").is_symlink()


STRANGERS = (
    "thesis.txt", "parts/notes.txt", "worker/mine.py", "logs/other.log", "progress/x", "parts/rows_1_2.npy", ".hidden",
    "runs.json", "shards/rows_000000000_000000004.json", "deep/er/file", "hosts/here.json.bak", "aside/a/b/c.npy",
)  # fmt: skip


def test_what_no_run_placed_there_stays_and_is_named(this, monkeypatch, capsys):
    for name in STRANGERS:
        (there(this).root / name).parent.mkdir(parents=True, exist_ok=True)
        (there(this).root / name).write_text("mine")
    monkeypatch.setattr(cli_run, "_find", lambda args: this)
    assert cli.main(["clean", this.name, "--yes"]) == 0
    said = capsys.readouterr().out
    assert all(f"stays, since no run placed it there: {name}\n" in said for name in STRANGERS)
    left = {str(path.relative_to(there(this).root)) for path in there(this).root.rglob("*") if path.is_file()}
    assert left == {*STRANGERS, "run.json"}
    assert {(there(this).root / name).read_text() for name in STRANGERS} == {"mine"}
    (event,) = this.journal.events("cleaned")
    assert event["strangers"] == sorted(str(there(this).root / name) for name in STRANGERS)
    assert report.verify(this).ok
    for name in STRANGERS:  # and once they are gone, so is the folder
        (there(this).root / name).unlink()
    there(this).part(0, 4).parent.mkdir(exist_ok=True)
    there(this).part(0, 4).write_text("ours")
    clean.clean(this)
    assert not there(this).part(0, 4).exists()


@pytest.mark.parametrize("mark", [None, "{}", '{"id": "%s", "run": "x"}' % ("0" * 32), "half", "[]"])
def test_a_folder_that_this_run_did_not_mark_is_left_alone(this, mark):
    there(this).mark.unlink()
    if mark is not None:
        there(this).mark.write_text(mark)
    refused(this, r"here: .*(no run marked it|belongs to another run|cannot be read)", HostError)
    with pytest.raises(HostError):
        clean.leftovers(this)


@pytest.mark.parametrize("key", ["corpus", "output", "backups", "questions", "model", "profile"])
def test_a_folder_that_holds_what_must_stay_is_left_alone(this, key):
    inside = there(this).root / "parts"
    files = {"corpus": inside / "c.jsonl", "questions": inside / "q.json"}
    profile = this.profile
    if key == "corpus":
        profile = replace(profile, corpus=replace(profile.corpus, path=files["corpus"]))
    elif key in ("output", "backups"):
        field = "folder" if key == "output" else "backups"
        profile = replace(profile, output=replace(profile.output, **{field: inside}))
    elif key == "questions":
        profile = replace(profile, questions=files["questions"])
    elif key == "model":
        profile = replace(profile, model=replace(profile.model, name=str(inside)))
    else:
        profile = replace(profile, path=inside / "p.yaml")
    refused(Run(this.folder, profile), "what is in it stays")


def test_the_mark_is_looked_at_again_where_the_files_are(this):
    host = hosts.connect(this.profile.hosts[0], this.name)
    before = sorted(there(this).root.rglob("*"))
    with pytest.raises(HostError, match="nothing was removed"):
        host.clear("0" * 32, ["hosts/here.json"])
    names = ["../another-run/parts/rows_000000000_000000004.npy", str(there(this).root / "hosts/here.json")]
    assert host.clear(this.id, names) == names
    assert sorted(there(this).root.rglob("*")) == before


@pytest.mark.process
def test_every_file_of_a_real_run_is_known_as_its_own(make_box, tmp_path):
    box = make_box(texts(), light=True)
    box.end(box.supervisor())
    bundle = {path for path, _ in bundle_files()}
    made = {str(path.relative_to(box.root)) for path in box.root.rglob("*") if path.is_file()}
    assert len(made) > 20
    assert {name for name in made if not placed.is_ours(name, bundle)} == {"light", "worker/requirements.txt"}


def texts():
    return [f"text {'word ' * row}" for row in range(8)]


def test_two_hosts_that_share_a_folder_are_cleaned_once(this):
    (spec,) = this.profile.hosts
    both = Run(this.folder, replace(this.profile, hosts=(spec, replace(spec, name="other"))))
    assert len(clean.clean(both)) == 1
    assert not there(this).root.exists()


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_run_that_is_not_finished_keeps_its_files(this):
    this.result_file(PHASES[3]).unlink()
    refused(this, "not finished with a backup")


def test_a_finished_run_without_a_backup_keeps_its_files(this):
    hand_over(this, PHASES[3])
    report.seal(this)
    refused(this, "not finished with a backup")


def test_a_run_whose_last_phase_failed_keeps_its_files(this):
    write_json(this.result_file(PHASES[3]), plain(replace(this.result(PHASES[3]), ok=False)))
    refused(this, "not finished with a backup")


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_backup_that_is_not_what_it_was_keeps_the_files(this, damage):
    copy = backup_of(this)
    whole = copy.read_bytes()
    try:
        copy.unlink()
        if damage == "changed":
            copy.write_bytes(whole[:-1] + b"x")
        refused(this, "is missing or changed; nothing was removed")
        with pytest.raises(DataError, match=r"was not sealed again: backup: .*runbook run PROFILE"):
            report.seal(this)
    finally:
        copy.write_bytes(whole)


@pytest.mark.parametrize("name", ["plan.json", "merged/embeddings.npy", "journal.jsonl"])
def test_an_archive_that_does_not_verify_keeps_the_files(this, name):
    with (this.folder / name).open("ab") as file:
        file.write(b" ")
    refused(this, "does not verify, nothing was removed")


@pytest.mark.process
@pytest.mark.parametrize("how", ["worker", "supervisor", "worker that has not reported yet"])
def test_living_processes_keep_their_files(this, how):
    sleeper = subprocess.Popen(["sleep", "300"])
    try:
        identity = process.identify(sleeper.pid)
        if how == "worker":
            write_json(there(this).progress("cluster0_gpu0"), {"process": identity})
        elif how == "supervisor":
            write_json(there(this).supervisor("here"), {"process": identity})
        else:
            write_json(there(this).supervisor("here"), {"slots": {"cluster0_gpu0": {"process": identity}}})
        refused(this, f"workers of this run are alive; runbook stop {this.name} first")
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
    clean.clean(this)


@pytest.mark.process
def test_a_host_that_cannot_be_reached_keeps_the_files_of_all(this, tmp_path):
    (spec,) = this.profile.hosts
    far = replace(spec, name="far", kind="ssh", credentials=nobody_there(tmp_path))
    both = Run(this.folder, replace(this.profile, hosts=(spec, far)))
    refused(both, r"far: .*127\.0\.0\.1", HostError)
    with pytest.raises(HostError, match="far: "):  # nor is a list shown that lacks its files
        clean.leftovers(both)


def test_a_host_whose_folder_is_the_runs_own_keeps_everything(this):
    (spec,) = this.profile.hosts
    own = Run(this.folder, replace(this.profile, hosts=(replace(spec, workdir=str(this.folder.parent)),)))
    before = sorted(this.folder.rglob("*"))
    with pytest.raises(DataError, match="its folder is the run's own"):
        clean.clean(own)
    assert sorted(this.folder.rglob("*")) == before

"""A sealed run: what harms it is told, what does not is told apart, and no seal is ever put on a loss."""

import json
import shutil
from pathlib import Path

import made_up
import pytest

from runbook_lib import cli
from runbook_lib.errors import DataError
from runbook_lib.phases import workers
from runbook_lib.report import gate, report
from runbook_lib.result import repair
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import PHASES, Run
from worker.files import sha256_file


def held(this, phase, **figures):
    checks = Checks("a fact")
    checks.add("a fact", True, "seen")
    gate.gate(this, phase, checks, **figures)


@pytest.fixture(scope="module")
def sealed_once(tmp_path_factory):
    made = made_up.run_folder(tmp_path_factory.mktemp("sealed"), count=8)
    made.commit_all()
    for phase in PHASES[:3]:
        held(made.run, phase)
    made.run.save_json("hosts.json", {"hosts": {}})
    done = made_up.published(made.run)
    gate.gate(made.run, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    report.seal(made.run)
    return made.run


@pytest.fixture
def this(sealed_once, tmp_path, monkeypatch):
    """A copy of it, whose files outside stay where they are; named by its folder it is also what the verbs find."""
    shutil.copytree(sealed_once.folder, tmp_path / "runs" / sealed_once.name)
    monkeypatch.chdir(tmp_path)
    return Run(tmp_path / "runs" / sealed_once.name, sealed_once.profile)


def outside(this, kind):
    return Path(this.result(PHASES[3]).output(kind).path)


def state(this):
    return {path: path.read_bytes() for path in this.folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def told(checks):
    return "\n".join(f"{check.name}: {check.seen}" for check in checks.failed)


# ------------------------------------------------------------------------------------------------- harmless and harmful


def warned(checks):
    """The warnings, but for the one that these runs have no executed notebooks."""
    return [check for check in checks if check.warn and not check.seen.startswith("not looked at: the report has no ")]


@pytest.mark.process
def test_a_note_seals_the_run_anew_and_it_verifies(this):
    assert cli.main(["note", str(this.folder), "the lab's power was off"]) == 0
    checks = report.verify(this)
    assert checks.ok and not warned(checks)
    assert "the lab&#x27;s power was off" in (this.report / "report.html").read_text()


def test_stopping_what_does_not_run_writes_nothing(this):
    before = state(this)
    assert cli.main(["stop", str(this.folder)]) == 0
    assert state(this) == before


@pytest.mark.parametrize("verb", ["status", "fetch", "verify", "logs"])
def test_looking_at_a_sealed_run_writes_nothing(this, verb, capsys):
    before = state(this)
    assert cli.main([verb, str(this.folder), *(["cluster0_gpu0"] if verb == "logs" else [])]) == 0
    assert state(this) == before


def test_a_journal_that_goes_on_is_no_damage_and_is_told(this):
    this.journal.write("note", text="written by a notebook")
    checks = report.verify(this)
    assert checks.ok
    (grown,) = warned(checks)
    assert "1 journal lines since the seal (note)" in grown.seen and "runbook report" in grown.remedy


@pytest.mark.parametrize("phase", PHASES[:3])
def test_a_phase_that_is_executed_again_on_a_sealed_run_is_vouched_for_by_its_gate(this, phase):
    held(this, phase, times=2)  # else it would be the same file within the second of the first one
    checks = report.verify(this)
    assert checks.ok, checks
    grown, written = warned(checks)
    assert "(gate)" in grown.seen and f"report/{phase}.result.json" in written.seen
    assert "but for lines that came into the journal later and the files that they name" in checks.stamp
    report.seal(this)
    assert not warned(report.verify(this))


def cut(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))


def edit(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0].replace(b"run created", b"run created."), *lines[1:]]))


def unchained(path):
    with path.open("ab") as file:
        file.write(json.dumps({"seq": 99, "event": "note", "prev": "0" * 64}).encode() + b"\n")


@pytest.mark.parametrize("harm", [cut, edit, unchained, Path.unlink])
def test_a_journal_that_was_cut_edited_or_goes_on_without_its_chain_is_damage(this, harm):
    harm(this.journal.path)
    assert "journal" in told(report.verify(this))
    with pytest.raises(DataError, match="was not sealed again"):
        report.seal(this)


def lose(path):
    path.unlink()


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


LOSSES = [
    "plan.json",
    "profile.yaml",
    "run.json",
    "published.json",
    "merged/embeddings.npy",
    "merged/questions.npy",
    "merged/articles.jsonl",
    "merged/manifest.json",
    "parts/rows_000000000_000000004.npy",
    "parts/rows_000000000_000000004.json",
    "corpus/texts.jsonl",
    "corpus/corpus.json",
    "report/hosts.json",
    "report/validation.json",
    "report/02_launch.result.json",
    "report/04_merge_validate.result.json",
]


@pytest.mark.parametrize("harm", [lose, flip])
@pytest.mark.parametrize("name", LOSSES)
def test_no_verb_seals_over_a_loss(this, name, harm, capsys):
    harm(this.folder / name)
    sums = this.sums.read_bytes()
    with pytest.raises(DataError, match="was not sealed again"):
        report.seal(this)
    assert this.sums.read_bytes() == sums
    assert Path(name).name in told(report.verify(this))


@pytest.mark.parametrize("kind", ["founding", "backup"])
@pytest.mark.parametrize("harm", [lose, flip])
def test_no_seal_without_the_files_outside(this, kind, harm):
    path = outside(this, kind)
    whole = path.read_bytes()
    try:
        harm(path)
        with pytest.raises(DataError, match=f"was not sealed again: {kind}"):
            report.seal(this)
    finally:
        path.write_bytes(whole)


def test_two_damaged_pages_are_written_anew_by_sealing(this):
    flip(this.report / "report.html")
    (this.notes / "failures.log").unlink()
    assert not report.verify(this).ok
    report.seal(this)
    assert report.verify(this).ok


def test_a_lost_list_is_made_anew_only_where_every_record_holds(this):
    this.sums.unlink()
    flip(this.merged / "articles.jsonl")
    with pytest.raises(DataError, match=r"was not sealed: .*articles\.jsonl"):
        report.seal(this)
    flip(this.merged / "articles.jsonl")
    report.seal(this)
    assert report.verify(this).ok


def test_quick_looks_at_the_sizes_of_large_files_and_at_the_rest_wholly(this):
    flip(this.merged / "embeddings.npy")
    assert report.verify(this, quick=True).ok and not report.verify(this).ok
    (this.merged / "embeddings.npy").write_bytes(b"short")
    assert "merged/embeddings.npy" in told(report.verify(this, quick=True))
    flip(this.report / "hosts.json")
    assert "hosts.json" in told(report.verify(this, quick=True))


def test_what_is_not_proved_stands_at_the_end_of_verify_and_in_the_report(this, capsys):
    assert cli.main(["verify", str(this.folder)]) == 0
    said = capsys.readouterr().out
    assert ". Not proved: who made this; " in said.splitlines()[-1]
    assert "that no single row is off; that the vectors serve your purpose." in said.splitlines()[-1]
    assert "two vectors are swapped" in (this.report / "report.html").read_text()


def test_a_restart_of_nothing_leaves_it_verifying(this):
    workers.stop(this)
    assert report.verify(this).ok


def test_a_part_that_was_exchanged_with_its_sums_is_merged_and_checked_again(this):
    part = this.local.part(0, 4)
    flip(part)
    record = json.loads(part.with_suffix(".json").read_text())
    part.with_suffix(".json").write_text(json.dumps({**record, "sha256": sha256_file(part)}))
    assert "another sha256 than the part that was merged" in told(report.verify(this))
    assert repair.repair(this) == {PHASES[3]}

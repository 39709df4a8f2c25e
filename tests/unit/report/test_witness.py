"""Hosts keep the seal's sum: they agree with the archive that was sealed, and with no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import made_up
import pytest

from runbook_lib import cli
from runbook_lib.report import gate, sealing, verification, witness
from runbook_lib.run import opening
from runbook_lib.run.checks import Check, Checks
from runbook_lib.run.run import PHASES, Run
from worker.layout import seals_file


@pytest.fixture
def this(tmp_path: Path) -> Run:
    """A sealed run with two hosts, each with a folder of its own."""
    made = made_up.run_folder(tmp_path / "made", count=8)
    (spec,) = made.run.profile.hosts
    hosts = tuple(replace(spec, name=name, workdir=str(tmp_path / name)) for name in ("one", "two"))
    run = replace(made.run, profile=replace(made.run.profile, hosts=hosts))
    text = run.profile_file.read_text().partition("hosts:")[0]
    lines = [f"  - {{name: {h.name}, kind: local, device: cpu, slots: 2, workdir: {h.workdir}}}\n" for h in hosts]
    run.profile_file.write_text(f"{text}hosts:\n{''.join(lines)}")
    run = opening.open_folder(run.folder)
    replace(made, run=run).commit_all()
    for phase in PHASES[:3]:
        checks = Checks("a fact")
        checks.add("a fact", True, "seen")
        gate.gate(run, phase, checks)
    run.save_json("hosts.json", {"hosts": {}})
    done = made_up.published(run)
    gate.gate(run, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    assert sealing.seal(run) == []
    return run


def kept(run: Run, name: str) -> Path:
    (spec,) = [spec for spec in run.profile.hosts if spec.name == name]
    return seals_file(Path(spec.workdir), run.id)


def asked(run: Run) -> Check:
    checks = verification.verify(run, quick=True, hosts=True)
    (found,) = [check for check in checks if check.name == witness.NAME]
    return found


def test_all_hosts_keep_the_seal(this: Run) -> None:
    assert asked(this) == Check(
        witness.NAME, True, "it is kept by one (this machine), two (this machine)", "the same sum"
    )


def test_a_seal_that_was_made_elsewhere_is_told_by_every_host(this: Run) -> None:
    this.note("another seal")
    sealing.report.seal(this)  # by somebody who does not reach the hosts
    found = asked(this)
    assert not found.ok and found.seen.count("and never was told of this one") == 2


def test_an_archive_of_before_a_later_seal_is_told_from_it(this: Run) -> None:
    before = this.sums.read_bytes()
    this.note("another seal")
    assert sealing.seal(this) == []
    assert asked(this).ok and len(kept(this, "one").read_text().splitlines()) == 2
    this.sums.write_bytes(before)
    assert (
        "one keeps another, sealed at " in asked(this).seen and "this one was sealed before it, at " in asked(this).seen
    )


def test_a_host_that_was_told_nothing_is_a_warning(this: Run) -> None:
    kept(this, "two").unlink()
    found = asked(this)
    assert found.ok and found.warn
    assert found.seen == "it is kept by one (this machine); two was told of none"


@pytest.mark.parametrize("words", ["no json\n", '{"list": 3, "at": "now"}\n', "[1]\n"])
def test_what_a_host_sends_may_be_anything(this: Run, words: str) -> None:
    kept(this, "two").write_text(words)
    found = asked(this)
    assert found.ok and found.warn and "two could not be asked: " in found.seen


def test_the_same_seal_is_kept_once(this: Run) -> None:
    assert witness.keep(this) == []
    assert len(kept(this, "one").read_text().splitlines()) == 1


def test_the_command_asks_on_wish_only(this: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(this.folder)]) == 0
    assert witness.NAME not in capsys.readouterr().out
    assert cli.main(["verify", str(this.folder), "--hosts"]) == 0
    assert f"{witness.NAME}: it is kept by one" in capsys.readouterr().out

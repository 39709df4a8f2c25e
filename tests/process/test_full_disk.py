"""Every place of this machine that a run writes to, full or read-only: words, nothing lost, and well afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from host_parts import RANGES

ROOT = Path(__file__).parents[2]
# What each place is, and which step writes there.
PLACES = {
    "output": "merge",
    "run folder": "merge",
    "backups": "publish",
    "journal": "publish",
    "report": "report",
    "notes": "notes",
    "results": "result",
    "driver.lock": "drive",
    "plan": "plan",
    "parts": "collect",
    "incoming": "collect",
    "runs": "create",
}
PROGRAM = textwrap.dedent(
    """
    import json, resource, signal, sys
    from pathlib import Path
    sys.path[:0] = ["tests/helpers"]
    import made_up
    from runbook_lib.phases import download, merge
    from runbook_lib.report import report
    from runbook_lib.run import driver, opening, run
    from runbook_lib.errors import RunbookError
    from host_parts import RANGES, There

    NO_LIMIT = resource.RLIM_INFINITY

    def do(this, step):
        if step == "collect":
            found = download.collect(this)
            if found.failures or found.refused:
                raise RunbookError("; ".join([*found.failures, *found.refused]))
        elif step == "plan":
            this.plan().save(this.plan_file)
        elif step == "create":
            opening.create(this.profile, "another")
        elif step == "drive":
            with driver.hold(this):
                pass
        elif step == "result":
            this.save_result(run.PHASES[0], ok=True)
        else:
            merge.merge(this)
            merge.write_founding(this)
            if step != "merge":
                made_up.published(this)
            if step == "report":
                report.build(this)
            if step == "notes":
                report.write_notes(this)

    def path_of(this, place):
        output = this.profile.output
        return {
            "output": output.folder, "run folder": this.folder, "backups": output.backups,
            "journal": this.journal.path, "report": this.report, "notes": this.notes, "results": this.report,
            "driver.lock": this.folder / "driver.lock", "plan": this.folder, "parts": this.local.parts,
            "incoming": this.folder / "incoming" / "here", "runs": this.profile.runs,
        }[place]

    def tried(folder, place, step, how):
        there = There(folder)
        this = there.run
        for start, stop in RANGES:
            there.commit(start, stop)
            if step != "collect":
                there.made.commit_part(start, stop)
        if step in ("publish", "report", "notes"):
            do(this, "merge")
        path = path_of(this, place)
        if place == "driver.lock":
            path.write_text("")
        elif not path.exists():
            path.mkdir(parents=True)
        mode = path.stat().st_mode & 0o777
        if how == "read-only":
            path.chmod(0o555 if path.is_dir() else 0o444)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (16, NO_LIMIT))
        try:
            do(this, step)
            end = "went through"
        except RunbookError as error:
            end = "words: " + str(error)
        path.chmod(mode)
        resource.setrlimit(resource.RLIMIT_FSIZE, (NO_LIMIT, NO_LIMIT))
        here = len(list(there.folder.parts.glob("*.npy")))
        left = [str(file) for file in folder.rglob(".*.part")]
        do(this, step)
        return {"end": end, "there": here, "left": left}

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for place, step in json.loads(sys.argv[1]).items():
        folder = Path(sys.argv[3]) / place.replace(" ", "_")
        folder.mkdir()
        print(json.dumps({"place": place, **tried(folder, place, step, sys.argv[2])}), flush=True)
    """
)


def plain(argv: list[str]) -> list[str]:
    """The command without root's right to write everywhere, where it is root who runs it."""
    if os.getuid() != 0:
        return argv
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to forgo it")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *argv]


@pytest.mark.parametrize("how", ["read-only", "full"])
def test_a_place_that_takes_nothing_is_told_in_words_and_the_same_step_is_well_afterwards(
    how: str, tmp_path: Path
) -> None:
    argv = [sys.executable, "-B", "-c", PROGRAM, json.dumps(PLACES), how, str(tmp_path)]
    done = subprocess.run(plain(argv), cwd=ROOT, capture_output=True, text=True, timeout=600)
    found = {told["place"]: told for told in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, f"after {list(found)}: {done.stderr[-1500:]}"
    assert list(found) == list(PLACES)
    for place, told in found.items():
        assert told["end"].startswith("words: "), told
        assert "Errno" not in told["end"] and len(told["end"]) < 1500, told
        assert told["there"] == len(RANGES), place  # no host lost a part because this disk took none
        assert told["left"] == [], place


# What cannot be read, and who looks at it.
UNREADABLE = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    sys.path[:0] = ["tests/helpers"]
    import made_up
    from runbook_lib.report import outcome, report
    from runbook_lib.errors import RunbookError
    from runbook_lib.result import publication

    made = made_up.run_folder(Path(sys.argv[1]))
    made.commit_all()
    made_up.published(made.run)
    this = made.run
    output = this.profile.output
    looks = {
        "losses": lambda: publication.losses(this), "sizes": lambda: publication.losses(this, quick=True),
        "stranger": lambda: publication.founding_name_problem(this), "outcome": lambda: str(outcome.outcome(this)),
        "verify": lambda: [check.seen for check in report.verify(this).failed],
    }
    for path in (output.folder, output.backups, this.merged, this.founding_file, this.folder.parent):
        mode = path.stat().st_mode & 0o777
        path.chmod(0)
        for name, look in looks.items():
            try:
                told = look()
            except RunbookError as error:
                told = [str(error)]
            print(json.dumps({"path": path.name, "look": name, "told": told}))
        path.chmod(mode)
        assert publication.losses(this) == [] and not publication.founding_name_problem(this)
    """
)


def test_whoever_looks_at_a_result_that_cannot_be_read_says_so_and_does_not_call_it_whole(tmp_path: Path) -> None:
    argv = [sys.executable, "-B", "-c", UNREADABLE, str(tmp_path)]
    done = subprocess.run(plain(argv), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-1500:]
    found = list(map(json.loads, done.stdout.splitlines()))
    assert len(found) == 5 * 5
    for told in (told for told in found if told["look"] == "losses"):
        assert "Permission denied" in " ".join(told["told"]) and "Errno" not in " ".join(told["told"]), told

"""Launchers: one question whoever starts a supervisor, the same words on its command line, its log for us only."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from box import needs_proc, script
from waiting import wait_for

from worker import launcher, process, verbs
from worker.launcher import LAUNCHERS, PROCESS, UNIT
from worker.layout import HostFolder

pytestmark = pytest.mark.process

# A unit of systemd as far as it is asked: what follows `--` runs on by itself, in the folder and with the log it names.
RUN = """#!/bin/sh
printf '%s\\n' "$@" >"{folder}/asked"
while [ "$1" != -- ]; do
    case "$1" in WorkingDirectory=*) cd "${{1#*=}}";; StandardOutput=append:*) log="${{1#*append:}}";; esac
    shift
done
shift
"$@" >>"$log" 2>&1 &
echo $! >"{folder}/pid"
"""
SHOW = '#!/bin/sh\n[ "$*" = "--user show --property=MainPID --value runbook-run1-here" ] && cat "{folder}/pid"\n'
SUPERVISOR = "#!/bin/sh\necho \"$PWD $*\"\ntrap 'exit 0' TERM\nwhile :; do sleep 0.05; done\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostFolder:
    """A run's folder, with a stand-in for its Python, and one for systemd first in PATH."""
    root = tmp_path / "run1"
    (root / "worker").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name, text in (("systemd-run", RUN), ("systemctl", SHOW)):
        script(tmp_path / "bin" / name, text.format(folder=tmp_path))
    script(tmp_path / "python", SUPERVISOR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return HostFolder(root)


@pytest.mark.process
@pytest.mark.parametrize("by", sorted(LAUNCHERS))
def test_whoever_launches_a_supervisor_it_has_the_same_words_lives_and_is_stopped(folder: HostFolder, by: str) -> None:
    python = str(folder.root.parent / "python")
    log = folder.log("host_here")
    identity = verbs.launch(by, str(folder.root), "here", python)
    try:
        words = " ".join([str(folder.root), *launcher.command(folder, "here", python)[1:]])
        wait_for(lambda: log.exists() and log.read_text() == f"{words}\n", "it runs in the run's folder")
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert process.alive(identity)
        assert not process.alive({**identity, "start": "1"})
        assert verbs.stop(identity, 10.0)
        assert not verbs.alive(identity)
    finally:
        process.stop(identity, 0.0)


@pytest.mark.process
def test_a_unit_is_named_by_run_and_host_and_its_workers_outlive_it(folder: HostFolder) -> None:
    identity = LAUNCHERS[UNIT](folder, "here", str(folder.root.parent / "python"))
    process.stop(identity, 0.0)
    asked = (folder.root.parent / "asked").read_text().splitlines()
    assert asked[:4] == ["--user", "--quiet", "--collect", "--unit=runbook-run1-here"]
    assert asked[4 : asked.index("--") : 2] == ["--property"] * 5
    assert asked[5 : asked.index("--") : 2] == [
        "KillMode=process",
        f"WorkingDirectory={folder.root}",
        f"StandardOutput=append:{folder.log('host_here')}",
        f"StandardError=append:{folder.log('host_here')}",
        "Environment=PYTHONDONTWRITEBYTECODE=1",
    ]


@pytest.mark.process
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo 'Failed to connect to bus' >&2; exit 1", "did not start runbook-run1-here: Failed to connect to bus"),
        ("exit 7", "did not start runbook-run1-here: 7"),
        ("exec sleep 60", "systemd-run: no answer within 0.5 s"),
    ],
)
def test_a_systemd_that_does_not_start_it_says_why(
    folder: HostFolder, text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(folder.root.parent / "bin" / "systemd-run", f"#!/bin/sh\n{text}\n")
    monkeypatch.setattr(launcher, "ANSWER_S", 0.5 if "sleep" in text else 30.0)
    with pytest.raises(OSError, match=why):
        LAUNCHERS[UNIT](folder, "here", sys.executable)


@pytest.mark.parametrize("by", sorted(LAUNCHERS))
def test_code_that_others_can_change_is_launched_by_nobody(folder: HostFolder, by: str) -> None:
    (folder.root / "worker").chmod(0o777)
    with pytest.raises(ValueError, match="can be changed by other accounts"):
        verbs.launch(by, str(folder.root), "here", sys.executable)
    assert not folder.log("host_here").exists()


@pytest.mark.process
@needs_proc
def test_a_launched_process_that_ended_is_no_zombie_that_looks_alive(folder: HostFolder) -> None:
    python = script(folder.root.parent / "ends", "#!/bin/sh\nexit 0\n")
    identity = verbs.launch(PROCESS, str(folder.root), "here", str(python))
    wait_for(lambda: not verbs.alive(identity), "it has ended")
    assert not os.path.exists(f"/proc/{identity['pid']}")  # noqa: PTH110  (reaped)

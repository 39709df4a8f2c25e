"""What `runbook run` shows while a phase runs: rows, rate, time left, and each alert once."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from made_up import run_folder
from states import slot, state

from runbook_lib.report import archive
from runbook_lib.show import phase_line
from runbook_lib.show.live import Live
from runbook_lib.show.phase_line import LastSeen


class Nowhere:
    def show(self, html, plain, line, last):
        pass


@pytest.fixture
def watched(tmp_path):
    """A run, and what its watching notebook shows."""
    this = run_folder(tmp_path).run
    return this, Live(Nowhere(), kept=this.watching_file)


def seen(**changes):
    return replace(state(1), slots=(slot(0, state="running"),), at=time.time(), **changes)


@pytest.mark.process
def test_a_log_has_a_line_with_rows_rate_time_left_and_alerts(watched, capsys, monkeypatch):
    this, live = watched
    monkeypatch.setattr(phase_line, "LOG_LINE_S", 0.0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        wait = child.wait

        def later(timeout=None):
            if child.stdin and not child.stdin.closed:
                live.show(seen(rate=9.1, eta_s=420.0, committed=8, rows=20, alerts=("one: \x1b[31mdead\nagain",)))
                shown.append(1)
                if len(shown) == 3:
                    child.stdin.close()
            return wait(timeout if timeout is None else 0.05)

        shown = []
        monkeypatch.setattr(child, "wait", later)
        phase_line.show(this, "03_monitor", child, lambda: None)
    said = capsys.readouterr()
    assert re.search(
        r"0/21 rows are home, 9.1 rows/s, about 7 min left, until \d\d:\d\d, 1 alert", said.err.replace("Mon ", "")
    )
    assert said.err.count("03_monitor: ! one: \\x1b[31mdead again") == 1


def test_what_an_earlier_watch_saw_is_not_told_as_of_now(watched):
    this, live = watched
    live.show(seen(rate=9.1, eta_s=420.0, alerts=("old",)))
    assert phase_line.last_seen(this, time.time() - 60).alerts == ("old",)
    assert phase_line.last_seen(this, time.time() + 60) == LastSeen("", ())


@pytest.mark.parametrize("harm", [b"", b"{", b"[]", b'{"at": "x"}', b'{"at": 9e99, "alerts": 7, "pace": null}'])
def test_a_damaged_record_of_what_was_seen_costs_only_the_words(watched, harm):
    this, _ = watched
    this.watching_file.write_bytes(harm)
    assert phase_line.last_seen(this, 0.0) == LastSeen("", ())
    assert phase_line.log_line("03_monitor", 60.0, "1/2 rows are home", LastSeen()) == (
        "03_monitor: 60 s, 1/2 rows are home"
    )


def test_what_was_seen_last_is_no_part_of_the_archive(watched):
    this, live = watched
    live.show(seen())
    assert this.watching_file.exists() and this.watching_file.name not in archive.files(this)


IN_A_TERMINAL = """
import subprocess, sys
from runbook_lib.show import phase_line
from runbook_lib.run import opening
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"])
phase_line.show(opening.find(sys.argv[1]), "03_monitor", child, lambda: None)
"""


@pytest.mark.process
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_in_a_terminal_a_bar_is_drawn_in_place_and_an_alert_stays(watched, encoding):
    this, live = watched
    live.show(replace(seen(rate=9.1, eta_s=420.0, alerts=("one: [bold]dead\x1b[31m",)), at=time.time() + 60))
    ours, theirs = pty.openpty()
    words = [sys.executable, "-c", IN_A_TERMINAL, str(this.folder)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "150", "TERM": "xterm"}
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as child:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # the end of a terminal that nobody has any more
            while more := os.read(ours, 2**16):
                said += more
    os.close(ours)
    text = said.decode(encoding)
    assert child.returncode == 0, text
    assert "0/21 rows" in text and "9.1 rows/s, about 7 min left" in text
    assert text.count("03_monitor: ! one: [bold]dead\\x1b[31m") == 1


def test_an_alert_is_new_only_when_more_than_its_rate_or_time_changed():
    shown = set()
    slow = "a on one: slow: {} rows/s (the profile expects at least 20). You: look"
    assert phase_line.new_alerts([slow.format("3.5")], shown) == [slow.format("3.5")]
    assert phase_line.new_alerts([slow.format("4.1")], shown) == []
    assert phase_line.new_alerts(["two: silent for 30 s", slow.format("5")], shown) == ["two: silent for 30 s"]
    assert phase_line.new_alerts(["two: silent for 35 s"], shown) == []
    rows = ["rows given up: row 3", "rows given up: row 3, row 4"]
    assert [phase_line.new_alerts([each], shown) for each in rows] == [[rows[0]], [rows[1]]]


def test_rows_that_were_given_up_are_told_while_it_runs(watched):
    this, live = watched
    live.show(seen(rate=9.1, eta_s=420.0, quarantined=(3, 4)))
    assert phase_line.last_seen(this, 0.0).pace.endswith("2 rows given up")

"""`runbook watch`: the same numbers in a terminal, in a pipe as lines; it ends by itself and changes nothing."""

import io
from dataclasses import replace
from unittest.mock import Mock

from rich.console import Console
from states import NASTY, slot, state

from runbook_lib.hosts import gpus
from runbook_lib.show import terminal


def drawn(state, width=200):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system="truecolor", height=50)
    console.print(terminal.picture(state))
    return console.file.getvalue()


def plain(state, width=200):
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal.picture(state))
    return console.file.getvalue()


def test_every_slot_has_its_numbers_in_words():
    busy = slot(1, trend=(1.0, 4.0, 8.0), gpu=gpus.Sample(97, 4096, 64, 310.0), restarts=2, reason="killed by SIGKILL")
    text = plain(replace(state(2), slots=(slot(0), busy), alerts=("cluster0_gpu1 is slow",)))
    for said in ("cluster0_gpu0", "1,234/15,625", "45.6/s", "▶ running", "▂▅█", "97 % 4.0 GiB 64 °C 310 W"):
        assert said in text
    assert "2 restarts: killed by SIGKILL" in text
    assert "! cluster0_gpu1 is slow" in text


def test_no_word_of_a_host_is_taken_for_markup_or_an_escape():
    text = drawn(replace(state(1), slots=(slot(0, state=NASTY, reason=NASTY + "[bold]x[/bold]"),), alerts=(NASTY,)))
    assert "\x1b[31m<img" not in text and "\u202e" not in text
    assert "[bold]x" in text.replace("\n", "")


def test_in_a_pipe_what_is_wrong_is_told_under_the_line_and_nothing_twice(monkeypatch):
    """`runbook watch > log` is read by people too."""
    console = Console(file=io.StringIO(), width=200)
    idle = replace(state(1), alerts=("not launched: run notebook 02_launch first", "one: " + NASTY))
    states = [idle, idle, replace(idle, committed=idle.rows, alerts=())]

    class Watching:
        def __init__(self, run, plan):
            pass

        def poll(self):
            return states.pop(0)

    monkeypatch.setattr(terminal, "Watcher", Watching)
    assert terminal.watch(Mock(), 0.0, console).done
    said = console.file.getvalue()
    assert said.count("  ! not launched: run notebook 02_launch first\n") == 1
    assert "  ! one: " in said and "\x1b" not in said and "\u202e" not in said

"""What a panel lists of a large run: hosts, and the slots that are not well; every other is found by its name."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from states import slot, state

from runbook_lib.show import listed, panel, terminal
from runbook_lib.slots.snapshot import Snapshot


def large(slots: int, **wrong: str) -> Snapshot:
    """A state of many slots, eight a host; `wrong`: slot -> its state."""
    made = state(slots)
    return replace(made, slots=tuple(replace(each, state=wrong.get(each.slot, each.state)) for each in made.slots))


def test_up_to_64_slots_all_are_listed_the_worst_host_first() -> None:
    made = large(64, cluster7_gpu3="dead")
    names = [each.slot for each in listed.slots(made)]
    assert names[0] == "cluster7_gpu3" and sorted(names) == sorted(each.slot for each in made.slots)
    assert listed.caption(made, listed.slots(made)) == "64 slots, 0 done"


def test_of_more_only_those_that_are_not_well_are_listed_and_it_is_said_how_to_see_others() -> None:
    made = large(800, cluster3_gpu1="slow", cluster42_gpu0="dead", cluster99_gpu7="stuck")
    shown = listed.slots(made)
    assert [each.slot for each in shown] == ["cluster42_gpu0", "cluster3_gpu1", "cluster99_gpu7"]
    said = (
        "800 slots, 0 done; listed: the worst 3 of 3 that are not well; others: runbook status made-up-1 --hosts HOST"
    )
    assert listed.caption(made, shown) == said
    for text in (panel.progress_text(made), panel.progress_html(made)):
        assert said in text and "cluster42_gpu0" in text and "cluster42_gpu1" not in text
    assert len(terminal.picture(made).renderables) == 4


def test_where_all_are_well_none_is_listed_and_the_text_says_so() -> None:
    made = large(800)
    assert listed.slots(made) == []
    assert "listed: none, as all are well" in panel.progress_text(made)
    assert "listed: none, as all are well" in panel.progress_html(made)


@pytest.mark.parametrize(
    ("only", "count"), [("cluster42_gpu3", 1), ("tensor42", 8), ("gpu7", 64), ("nobody", 0), ("<b>", 0)]
)
def test_a_person_finds_any_slot_by_a_part_of_its_name_or_its_hosts(only: str, count: int) -> None:
    made = large(800, cluster1_gpu1="dead")
    shown = listed.slots(made, only)
    assert len(shown) == count and all(only in each.slot or only in each.host for each in shown)
    html = panel.progress_html(made, only=only)
    assert all(f">{each.slot}<" in html for each in shown) and "<b>'" not in html


def test_hosts_beyond_64_are_one_line_with_their_sums() -> None:
    made = large(800, cluster90_gpu0="dead")
    hosts, rest = listed.hosts(made)
    assert [len(slots) for _, slots in hosts] == [8] * 64 and hosts[0][0] == "tensor90" and len(rest) == 36 * 8
    assert len({each.slot for _, slots in hosts for each in slots} | {each.slot for each in rest}) == 800
    html = panel.progress_html(made)
    assert "36 other hosts" in html and f"0 of {36 * 8}" in html and "100 hosts" in html


@pytest.mark.parametrize("wrong", ["running", "dead"])
def test_the_page_of_8000_slots_stays_small_whatever_happens_to_them(wrong: str) -> None:
    slots = tuple(replace(slot(i), state=wrong, reason="out of memory " * 9, trend=(9.5,) * 16) for i in range(8000))
    alerts = tuple(f"{each.slot} on {each.host}: dead: {'it is gone ' * 40}" for each in slots)
    made = replace(state(), slots=slots, rows=10**8, alerts=alerts)
    html = panel.progress_html(made)
    assert len(html.encode()) < 300_000 and len(panel.progress_text(made).encode()) < 60_000
    assert len(re.findall("it is gone it", html)) < 20 * 40
    assert "and 7,980 alerts more" in html and "and 7,980 alerts more" in panel.log_lines(made)

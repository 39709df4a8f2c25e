"""Checks draw themselves: a line or a row each, a grid of places by checks, and what to do only where it is needed."""

import re
from html.parser import HTMLParser

import pytest

from runbook_lib.run.checks import Checks, to_mend

NASTY = "<script>alert(1)</script> & \"quoted\" 'text'"
VOID = {"br", "img", "hr", "input", "meta", "link"}


@pytest.fixture
def checks():
    found = Checks("Every host will do")
    found.add("reachable", True, "me@one, 16 cores", where="one")
    found.add("GPUs", False, "1 x H100", "2 that work", "lower `slots`", where="one")
    found.add("clock", True, "+90 s from here", remedy="set its clock", where="two", warn=True)
    found.add("reachable", True, "me@two, 8 cores", remedy="nothing to mend", where="two")
    return found


class Page(HTMLParser):
    """The tags of a page in order, each closed in its place, and the text of each cell by row."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows, self.items = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "li":
            self.items.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        elif "li" in self.open:
            self.items[-1] += data


def test_a_grid_has_a_row_for_each_place_and_a_column_for_each_check(checks):
    page = Page(checks.grid()._repr_html_())
    assert page.rows == [
        ["where", "reachable", "GPUs", "clock"],
        ["one", "✓ ok: me@one, 16 cores", "✗ FAILED: 1 x H100", ""],
        ["two", "✓ ok: me@two, 8 cores", "", "! warning: +90 s from here"],
    ]


def test_its_headings_say_what_they_head_and_its_caption_says_how_it_stands(checks):
    html = checks.grid()._repr_html_()
    heads = [attrs["scope"] for tag, attrs in Page(html).tags if tag == "th"]
    assert heads == ["col"] * 4 + ["row"] * 2
    assert re.search("<caption [^>]*>Every host will do: <b>1 of 4 FAILED</b></caption>", html)


def test_what_to_do_stands_under_it_for_what_does_not_hold(checks):
    assert Page(checks.grid()._repr_html_()).items == ["one: GPUs: lower `slots`", "two: clock: set its clock"]
    fine = Checks("fine")
    fine.add("reachable", True, "yes", remedy="nothing to mend")
    assert "What to do" not in fine.grid()._repr_html_()
    assert "<b>all hold</b>" in fine.grid()._repr_html_()


@pytest.mark.parametrize("ok", [True, False])
def test_of_two_checks_of_one_name_and_place_the_one_that_fails_is_shown(ok):
    found = Checks("twice")
    found.add("model", ok, "first")
    found.add("model", not ok, "second")
    cell = Page(found.grid()._repr_html_()).rows[1][1]
    assert cell == ("✗ FAILED: second" if ok else "✗ FAILED: first")


@pytest.mark.parametrize("draw", [lambda found: found._repr_html_(), lambda found: found.grid()._repr_html_()])
def test_no_text_of_a_check_becomes_markup(draw):
    found = Checks(NASTY)
    found.add(f"name {NASTY}", False, f"seen {NASTY}", f"expected {NASTY}", f"remedy {NASTY}", where=f"where {NASTY}")
    html = draw(found)
    assert "<script" not in html
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= {
        "table",
        "caption",
        "b",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "p",
        "ul",
        "li",
    }
    words = " ".join([*(cell for row in page.rows for cell in row), *page.items])
    for part in ("name", "seen", "remedy", "where"):
        assert f"{part} {NASTY}" in words


def test_a_grid_in_a_terminal_is_the_list_of_its_checks(checks):
    assert repr(checks.grid()) == repr(checks)
    assert repr(checks).splitlines() == [
        "Every host will do: FAILED",
        "  ✓ one: reachable: me@one, 16 cores",
        "  ✗ one: GPUs: 1 x H100 (expected 2 that work)",
        "      -> lower `slots`",
        "  ! two: clock: +90 s from here",
        "      -> set its clock",
        "  ✓ two: reachable: me@two, 8 cores",
    ]


def test_an_empty_grid_draws_itself():
    assert Page(Checks("nothing").grid()._repr_html_()).rows == [["where"]]


def test_each_cause_is_told_once_and_what_only_follows_is_not():
    found = Checks("made up")
    for where in ("one", "two", "one"):
        found.add("reachable", False, "no route", "reachable", "look at it", where)
    found.add("good", True, "fine")
    found.add("plan", False, "not made", "made", "make the checks above hold first")
    found.add("disk", False, "full")
    assert to_mend(found.failed) == ["one, two: reachable: no route -> look at it", "here: disk: full"]
    assert to_mend(found.failed[3:4]) == ["here: plan: not made -> make the checks above hold first"]
    assert to_mend([]) == []

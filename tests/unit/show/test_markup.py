"""HTML and plain text are two types: what is escaped once stays so, and what nobody escaped is found by mypy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runbook_lib.show.markup import Markup, joined, tag, text

ROOT = Path(__file__).parents[3]
NASTY = "<b> & \"'\x1b\u202e"
SAFE = "&lt;b&gt; &amp; &quot;&#x27;\\x1b\\u202e"


def test_text_shows_markup_and_control_characters_as_they_are_written() -> None:
    assert text(NASTY) == SAFE
    assert text("x" * 400, 10) == "x" * 10 + "…"


def test_an_element_holds_markup_and_escapes_its_attributes() -> None:
    assert tag("p", text("<"), Markup("<br>"), class_="a", aria_label=NASTY) == (
        f'<p class="a" aria-label="{SAFE}">&lt;<br></p>'
    )
    assert tag("img", alt=text("<"), src="x") == '<img alt="&lt;" src="x">'
    assert (tag("details", open=True), tag("details", open=False)) == (
        "<details open></details>",
        "<details></details>",
    )
    assert joined([tag("i"), tag("b")], Markup(" ")) == "<i></i> <b></b>"


LINES = {
    'tag("p", text(name))': "",
    'tag("p", name)': '"str"; expected "Markup"',
    'tag("p", f"{text(name)}!")': '"str"; expected "Markup"',
    "joined([name])": 'has incompatible type "str"',
    'block("k", "t", name)': '"str"; expected "Markup"',
    'table("", ("head",), [(name,)])': 'expected "Sequence[Markup]"',
    "progress_html(state, name)": '"str"; expected "Markup | None"',
}


@pytest.mark.process
def test_forgetting_to_escape_is_an_error_of_mypy(tmp_path: Path) -> None:
    begin = [
        "from runbook_lib.report.page import block, table",
        "from runbook_lib.show.markup import joined, tag, text",
        "from runbook_lib.show.panel import progress_html",
        "from runbook_lib.slots.snapshot import Snapshot",
        "def page(name: str, state: Snapshot) -> None:",
    ]
    (tmp_path / "forgot.py").write_text("\n".join([*begin, *(f"    {line}" for line in LINES), ""]))
    command = [sys.executable, "-m", "mypy", str(tmp_path / "forgot.py")]
    told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stdout
    for number, (line, wrong) in enumerate(LINES.items(), len(begin) + 1):
        errors = [error for error in told.splitlines() if f"forgot.py:{number}: error" in error]
        assert (wrong in errors[0]) if wrong else not errors, (line, told)

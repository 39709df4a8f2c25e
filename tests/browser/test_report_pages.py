"""The report at the widths of a desk, a laptop and a telephone, and on paper: nothing is cut off."""

import re

import browser
import made_up
import pytest

from runbook_lib import records
from runbook_lib.phases import promise
from runbook_lib.phases.rehearsal import Lengths
from runbook_lib.report import pdf, report
from runbook_lib.result import parts
from worker.bins import BINS

pytestmark = pytest.mark.skipif(not browser.chromium(), reason=browser.NO_CHROMIUM)
LONG = "a/very/long/path/" * 12 + "with_a_name_that_no_line_breaks_by_itself_" * 4
CUT_OFF = """() => [...document.querySelectorAll('td, th, .figures dd, pre.copy')]
  .filter((cell) => cell.getClientRects().length && (cell.getBoundingClientRect().right > innerWidth + 1
    || (getComputedStyle(cell).overflowX !== 'visible' && cell.scrollWidth > cell.clientWidth + 1)))
  .map((cell) => cell.textContent.slice(0, 60))"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The report of a made-up run with faults, warnings with long remedies and a promise."""
    patch = pytest.MonkeyPatch()
    patch.setattr(parts, "_vectors", lambda part, file: [])
    made = made_up.run_folder(tmp_path_factory.mktemp("report"), count=60, dim=16)
    made.commit_all()
    made_up.published(made.run)
    run = made.run
    lengths = Lengths(60, 600, 500, 6, 99, (60,) + (0,) * (BINS - 1), True)
    told = promise.Promise("", 61, lengths, 10, 100.0, 1.0, 5.0, "", 10**6, ())
    run.save_json(promise.RECORD, records.plain(told))
    for number in range(3):
        run.journal.write("host failed", host=f"tensor{number:02d}", what="download", reason=f"{LONG} {number}")
    check = {"group": "Every host", "name": "folder", "ok": True, "warn": True, "verdict": "warning", "where": "here"}
    check |= {"seen": LONG, "expected": "apart", "remedy": f"set workdir to another folder than {LONG}"}
    run.save_result("01_preflight", ok=True, checks=[check] * 6)
    yield report.build(run)
    patch.undo()


@pytest.mark.parametrize("width", [1440, 1100, 390])
def test_no_table_is_cut_off_at_any_width(page_file, width):
    with browser.page(width, 1000) as page:
        page.goto(page_file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT_OFF) == []
        browser.SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=browser.SHOTS / f"report-{width}.png", full_page=True)
        assert page.wrong == []


def test_on_paper_it_has_few_pages_without_notebooks_and_scroll_bars(page_file):
    printed = pdf.write(page_file).read_bytes()
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 8
    with browser.page(700, 1000) as page:
        page.goto(page_file.as_uri())
        page.emulate_media(media="print")
        assert page.is_hidden("#notebooks") and page.is_hidden("nav")
        assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
        assert page.evaluate(CUT_OFF) == []
        page.screenshot(path=browser.SHOTS / "report-print.png", full_page=True)

"""The panel, the pictures and what shows them: every number in words, nothing from outside taken for markup."""

from __future__ import annotations

import json
import re
import threading
from array import array
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from made_up import run_folder
from nbclient import NotebookClient
from states import NASTY, Hands, done, slot, state

from runbook_lib.hosts.gpus import Sample
from runbook_lib.records import parse
from runbook_lib.result.figures import Figures, read
from runbook_lib.run.plan import ModelIdentity, Plan, Slot, cut
from runbook_lib.show import live, nearest, panel, pictures, plan_pictures, words
from runbook_lib.slots.snapshot import Snapshot
from worker.files import write_json

ROOT = Path(__file__).parents[3]
PNG = b"\x89PNG\r\n\x1a\n"


def plan(slots: int = 16, documents: int = 1000, questions: int = 10) -> Plan:
    ranges = cut(documents + questions, slots)
    made = tuple(
        Slot(f"cluster{i // 8}_gpu{i % 8}", f"host{i // 8}", i % 8, "cuda", 1, a, b) for i, (a, b) in enumerate(ranges)
    )
    return Plan(
        "r", 1, documents, questions, "c", ModelIdentity("m", "r", "d", 8, True), "float32", "", "", None, 16, made
    )


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def names(markup: str) -> set[str]:
    return {tag for tag, _ in Elements(markup).found}


# ------------------------------------------------------------------------------------------------------------- panel


@pytest.mark.parametrize("slots", [16, 64])
def test_every_slot_is_a_line_with_its_numbers_beside_its_bar(slots: int) -> None:
    shown, told = pictures.progress_html(state(slots)), panel.progress_text(state(slots))
    for i in range(slots):
        assert f"{1234 + i:,}/15,625" in shown
        assert re.search(rf"cluster{i // 8}_gpu{i % 8} .*{1234 + i:,}/15,625", told)
    assert sum(tag == "progress" for tag, _ in Elements(shown).found) == slots + slots // 8 + 1


def test_of_many_slots_the_worst_host_comes_first_and_says_how_many_of_its_slots_are_in_trouble() -> None:
    slots = [slot(i) for i in range(32)]
    slots[29] = slot(29, state="stuck")
    slots[30] = slot(30, state="fenced")
    seen = replace(state(32), slots=tuple(slots))
    shown = pictures.progress_html(seen)
    order = re.findall(r'<th scope="row"[^>]*>([^<]+)</th>', shown)
    assert order[:4] == ["tensor03", "tensor00", "tensor01", "tensor02"]
    assert order[4:7] == ["cluster3_gpu6", "cluster3_gpu5", "cluster3_gpu0"]
    assert re.findall(r">(2 !|–)</td></tr>", shown)[:4] == ["2 !", "–", "–", "–"]
    few = replace(state(16), slots=tuple(slots[16:]))
    assert re.findall(r'<th scope="row"[^>]*>([^<]+)</th>', pictures.progress_html(few))[2] == "cluster2_gpu0"


def test_the_panel_tells_rows_rate_and_time_left_in_words() -> None:
    for shown in (pictures.progress_html(state()), panel.progress_text(state())):
        assert "19,744 of 250,000 rows" in shown
        assert "712 rows/s" in shown
        assert "about 3 min" in shown


def test_an_unknown_time_left_is_said_to_be_unknown() -> None:
    unknown = state(rate=None, eta_s=None)
    assert "unknown yet" in panel.progress_text(unknown)
    assert "unknown yet" in pictures.progress_html(unknown)


def test_a_share_is_100_percent_only_when_nothing_is_left() -> None:
    assert words.percent(249_999, 250_000) == "99.9 %"
    assert words.percent(250_000, 250_000) == "100.0 %"
    assert panel.text_bar(9_999, 10_000).endswith("-")


def test_a_state_is_a_word_and_a_shape_not_only_a_colour() -> None:
    told = pictures.progress_html(replace(state(1), slots=(slot(0, state="fenced"),)))
    assert "✕ fenced" in told


def test_restarts_reasons_given_up_rows_and_alerts_are_shown() -> None:
    seen = replace(
        state(1, quarantined=(3, 4), alerts=("here is wrong",)),
        slots=(slot(0, restarts=2, reason="exit code 137", state="restarting", age_s=130.0),),
    )
    for shown in (pictures.progress_html(seen), panel.progress_text(seen)):
        assert "2 restarts: exit code 137" in shown
        assert "here is wrong" in shown
        assert "2 min ago !" in shown
    assert "2 rows given up" in panel.progress_text(seen)


def test_hostile_reasons_and_alerts_stay_text() -> None:
    seen = replace(state(1, alerts=(NASTY,)), run=NASTY, slots=(slot(0, reason=NASTY, host=NASTY, state=NASTY),))
    shown, told = pictures.progress_html(seen), panel.progress_text(seen)
    assert not names(shown) & {"script", "style", "link", "iframe"}
    assert all(a.get("src", "data:").startswith("data:") for _, a in Elements(shown).found)
    for control in ("\x1b", "\u202e"):
        assert control not in shown
        assert control not in told


def test_the_panel_needs_no_network_and_no_script() -> None:
    shown = pictures.progress_html(state())
    assert "http" not in shown
    assert not re.search(r"<script|\bon\w+=", shown)


def test_headers_of_the_table_say_what_they_head() -> None:
    heads = [attrs.get("scope") for tag, attrs in Elements(pictures.progress_html(state(2))).found if tag == "th"]
    assert heads == ["col"] * 11 + ["row"] * 2
    with_gpu = replace(state(2), slots=(slot(0), slot(1, gpu=Sample(97, 4096, 64, 310.0))))
    heads = [attrs.get("scope") for tag, attrs in Elements(pictures.progress_html(with_gpu)).found if tag == "th"]
    assert heads == ["col"] * 12 + ["row"] * 2


def test_several_hosts_have_a_line_each_with_their_sums() -> None:
    shown = pictures.progress_html(state(16))
    sums = sum(1234 + number for number in range(8))
    assert f"{sums:,}/125,000" in shown and "365/s" in shown
    assert "2 hosts" in shown
    assert "1 host" not in pictures.progress_html(state(8))


def test_the_time_left_has_a_range_where_that_says_more() -> None:
    assert "about 3 min (2 min to 5 min)" in pictures.progress_html(state(eta_range_s=(120.0, 300.0)))
    assert "(" not in pictures.progress_html(state(eta_range_s=(180.0, 181.0))).split("about 3 min")[1][:3]


# ---------------------------------------------------------------------------------------------------------- pictures


def test_a_picture_is_small_and_its_alt_text_has_the_numbers() -> None:
    drawn = pictures.progress_png(state())
    assert drawn.png.startswith(PNG)
    assert len(drawn.png) < 40_000
    assert "936.0 rows/s now" in drawn.alt
    assert "40 rows" in drawn.alt
    bundle = drawn._repr_mimebundle_()
    assert bundle["text/plain"] == drawn.alt
    assert 'src="data:image/png;base64,' in bundle["text/html"]


def test_a_picture_of_nothing_says_so() -> None:
    assert "<img" not in pictures.progress_html(state(history=(), norms=()))
    assert "none yet" in pictures.progress_png(state(history=(), norms=())).alt
    assert "missing" in pictures.projection(Figures()).alt
    assert "no rows" in pictures.norm_histogram(Figures()).alt


def test_norms_that_are_all_equal_can_be_drawn() -> None:
    assert "min 1, mean 1, max 1" in pictures.progress_png(state(norms=array("d", [1.0] * 5))).alt


@pytest.mark.parametrize("slots", [1, 16, 128])
def test_the_row_strip_counts_slots_parts_and_questions(slots: int) -> None:
    drawn = pictures.row_strip(plan(slots))
    assert "1,010 rows, 1,000 documents and 10 questions" in drawn.alt
    assert f"on {slots} slot" in drawn.alt
    assert len(drawn.png) < 40_000


def test_the_part_grid_tells_what_is_home_and_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run_folder(tmp_path)
    whole = made.run.plan()
    begin = pictures.part_grid(made.run)
    assert begin.alt.startswith(f"0 of {whole.rows} rows are home, in 0 parts")
    assert f"Missing rows: [0, {whole.rows})." in begin.alt
    made.commit_all()
    assert "No row is missing." in pictures.part_grid(made.run).alt
    first = sorted(made.run.local.parts.glob("*.json"))[0]
    low, high = (int(number) for number in first.stem.split("_")[1:])
    first.unlink()
    again = pictures.part_grid(made.run)
    assert f"Missing rows: [{low}, {high})." in again.alt
    assert len(again.png) < 40_000
    monkeypatch.setattr(plan_pictures, "STRIPS", 1)  # more slots than lines: all rows as one
    assert pictures.part_grid(made.run).alt == again.alt


def told(title: str = "Zinc") -> dict[str, Any]:
    """Figures as a validation.json has them."""
    near = [{"row": row, "title": title if row == 7 else f"T{row}", "cosine": 0.5 - row / 100} for row in range(3, 8)]
    return {
        "norms": {
            "min": 0.9,
            "mean": 1.0,
            "max": 1.1,
            "sd": 0.01,
            "histogram": {"edges": [0.9, 1, 1.1], "counts": [3, 4]},
        },
        "projection": {
            "shares": [0.2, 0.1],
            "documents": [[i / 7, i % 5, i, title] for i in range(50)],
            "questions": [[0.5, 0.5, title]],
        },
        "retrieval": {"questions": [{"question": title, "rank": 5, "answers": [7], "nearest": near}]},
    }


def figures(title: str = "Zinc") -> Figures:
    return parse(Figures, told(title), "figures")


def test_the_figures_of_a_validation_are_drawn_with_their_numbers(tmp_path: Path) -> None:
    assert "7 rows: min 0.9, mean 1, max 1.1" in pictures.norm_histogram(figures()).alt
    assert "50 documents as points, 1 question" in pictures.projection(figures()).alt
    write_json(tmp_path / "validation.json", {"figures": told()})
    assert "7 rows" in pictures.norm_histogram(read(tmp_path / "validation.json") or Figures()).alt


@pytest.mark.parametrize("lengths", [list(range(50)), [7] * 50])
def test_documents_are_shaded_by_their_length_where_all_tell_it(lengths: list[int]) -> None:
    given = told()
    for document, tokens in zip(given["projection"]["documents"], lengths, strict=True):
        document.append(tokens)
    shown = pictures.projection(parse(Figures, given, "figures"))
    assert f"shaded by their length, {min(lengths)} to {max(lengths)} tokens" in shown.alt
    assert "shaded" in shown.caption
    given["projection"]["documents"][3][4] = "many"
    assert "shaded" not in pictures.projection(parse(Figures, given, "figures")).alt


def test_a_title_that_looks_like_markup_or_mathematics_draws_as_text() -> None:
    hostile = figures(title=NASTY + " $\\frac{1}$ 東京")
    assert pictures.projection(hostile).png.startswith(PNG)
    shown = pictures.nearest(hostile)
    assert not names(shown.html()) & {"script", "img"}
    assert "\x1b" not in repr(shown)


def test_the_nearest_documents_mark_the_questions_own() -> None:
    shown = nearest.nearest(figures())
    assert "✓ Zinc" in shown.html()
    assert "rank 5" in shown.html()
    assert "* 0.430  Zinc" in repr(shown)


# -------------------------------------------------------------------------------------------------------------- live


class Board:
    """A place that remembers what was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str, str, bool]] = []

    def show(self, html: str, plain: str, line: str, last: bool) -> None:
        self.shown.append((html, plain, line, last))


def test_headless_a_view_is_refreshed_seldom_and_the_end_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(live.HEADLESS, "1")
    board, clock = Board(), Hands()
    view = live.Live(board, clock=clock)
    for second in range(21):
        clock.now = float(second)
        view.show(state())
    assert len(board.shown) == 3
    view.show(done(state()))
    assert len(board.shown) == 4
    assert board.shown[-1][3]
    assert "250,000 of 250,000 rows" in board.shown[-1][0]


def test_the_picture_is_drawn_anew_only_for_new_data_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    real = pictures.progress_png
    monkeypatch.setattr(pictures, "progress_png", lambda seen: drawn.append(len(seen.norms)) or real(seen))
    clock, norms = Hands(), array("d", [1.0])
    view = live.Live(Board(), every_s=0.0, clock=clock, processor=lambda: 0.0)
    for second, added in ((0.0, 0), (1.0, 1), (2.5, 0), (9.0, 0)):
        clock.now = second
        norms.extend([1.0] * added)  # the monitor hands over one list that grows
        view.show(state(norms=norms))
    assert drawn == [1, 2]
    norms.append(1.0)
    view.show(done(state(norms=norms)))
    assert drawn == [1, 2, 3]


def test_a_picture_that_is_dear_to_draw_is_drawn_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, clock, processor = [], Hands(), Hands()

    def dear(seen: Snapshot) -> pictures.Picture:
        drawn.append(clock.now)
        processor.now += 0.5
        return picture

    picture = pictures.progress_png(state())
    monkeypatch.setattr(pictures, "progress_png", dear)
    view = live.Live(Board(), every_s=0.0, clock=clock, processor=processor)
    norms = array("d", [1.0])
    for second in range(60):
        clock.now = float(second)
        norms.append(1.0)
        view.show(state(norms=norms))
    assert drawn == [0.0, 25.0, 50.0]  # half a second in 25 is a fiftieth


def test_without_a_kernel_lines_are_printed_and_the_end_whole(capsys: pytest.CaptureFixture[str]) -> None:
    view = live.Live()
    view.show(state())
    view.show(state())
    assert len(capsys.readouterr().out.splitlines()) == 1
    view.show(done(state()))
    assert "cluster1_gpu7" in capsys.readouterr().out


def test_bars_show_megabytes_rate_and_end_in_full() -> None:
    board, clock = Board(), Hands()
    sending = live.Bars("Sending", display=board, every_s=0.5, clock=clock)
    for tenth in range(101):
        clock.now = tenth / 10
        sending("tensor01", tenth * 250_000, 25_000_000)
    assert len(board.shown) == 21
    assert "tensor01 25.0/25.0 MB 100.0 % 2.5 MB/s" in board.shown[-1][1]
    assert board.shown[-1][3]


def test_a_line_about_all_bars_is_kept_for_the_command_that_runs_the_notebook(tmp_path: Path) -> None:
    clock, file = Hands(), tmp_path / "watching"
    sending = live.Bars("Sending", display=Board(), clock=clock, kept=file)

    def said() -> object:
        return json.loads(file.read_text())["pace"]

    sending("tensor01", 0, 40_000_000)
    sending("tensor02", 0, 60_000_000)
    clock.now = 4.0
    sending("tensor01", 40_000_000, 40_000_000)
    assert said() == "Sending 40.0/100.0 MB 40.0 % 10.0 MB/s, 1 of 2 whole"
    sending("tensor02", 60_000_000, 60_000_000)
    assert said() == ""
    making = live.Bars("Making environments", "looks", display=Board(), clock=clock, kept=file)
    making("tensor01: Collecting torch", 7, 0)
    assert said() == "tensor01: Collecting torch"
    reading = live.Bars("Reading", "documents", display=Board(), clock=clock, kept=file)
    reading("documents read", 1200, 0)
    assert said() == "Reading 1,200 documents"


def test_a_picture_below_the_bars_is_drawn_seldom_and_not_at_the_end() -> None:
    board, clock, drawn = Board(), Hands(), []

    def below() -> pictures.Picture:
        drawn.append(clock.now)
        return pictures.Picture(PNG, f"grid {len(drawn)}")

    bars = live.Bars("Collecting", display=board, every_s=0.0, clock=clock, below=below)
    for second in range(11):
        clock.now = float(second)
        bars("one", second, 11)
    assert drawn == [0.0, 5.0, 10.0]
    assert 'alt="grid 3"' in board.shown[-1][0]
    bars("one", 11, 11)
    assert "grid" not in board.shown[-1][0] and len(drawn) == 3


def test_a_picture_that_cannot_be_drawn_costs_no_transfer() -> None:
    board = Board()
    bars = live.Bars("Collecting", display=board, every_s=0.0, clock=Hands(), below=lambda: 1 / 0)
    bars("one", 1, 2)
    assert "cannot be drawn: division by zero" in board.shown[-1][0]


def test_bars_count_other_things_by_name_and_take_an_unknown_total() -> None:
    board = Board()
    live.Bars("Collecting", "parts", board)("here", 3, 16)
    live.Bars("Reading", "documents", board)("corpus", 1200, 0)
    assert "here 3/16 parts" in board.shown[0][1]
    assert "corpus 1,200 documents" in board.shown[1][1]


def test_bars_are_called_from_several_threads_and_hostile_names_stay_text() -> None:
    board = Board()
    sending = live.Bars(NASTY, display=board, every_s=0.0)
    threads = [
        threading.Thread(target=lambda n=n: [sending(f"{n}{NASTY}", i, 50) for i in range(51)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    html, plain, _, last = board.shown[-1]
    assert last
    assert plain.count("100.0 %") == 4
    assert not names(html) & {"script", "img"}


NOTEBOOK = """
import sys, threading
sys.path[:0] = {path!r}
from states import done, state
from runbook_lib.show import live
view = live.Live(every_s=0.0)
for i in range(6):
    view.show(state())
view.show(done(state()))
sending = live.Bars("Sending")
threads = [threading.Thread(target=lambda n=n: [sending(f"host{{n}}", i, 9) for i in range(10)]) for n in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
None
"""


@pytest.mark.kernel
def test_a_real_notebook_keeps_one_output_a_view_however_often_it_was_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    source = NOTEBOOK.format(path=[str(ROOT), str(ROOT / "tests" / "helpers")])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for output in notebook.cells[0].outputs if output.output_type != "stream"]
    assert [output.output_type for output in outputs] == ["display_data", "display_data"]
    panel_data, bars_data = (output["data"] for output in outputs)
    assert "250,000 of 250,000 rows" in panel_data["text/html"]
    assert "250,000 of 250,000 rows" in panel_data["text/plain"]
    assert bars_data["text/plain"].count("100.0 %") == 3

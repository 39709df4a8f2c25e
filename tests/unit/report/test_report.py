"""The report and the archive: nothing missing crashes it, nothing from outside is markup, one changed byte is found."""

from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from made_up import published, run_folder
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from runbook_lib.errors import DataError
from runbook_lib.report import archive, gate, notebook_pages, report
from runbook_lib.result import facts
from runbook_lib.run import opening
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import PHASES, Run
from runbook_lib.show import pictures
from worker.files import read_json, sha256_file

NASTY = '<script>alert(1)</script><img src="http://evil/x" onerror=alert(2)>\x1b[31m\u202e'
SPARE = ("wbr", "embed", "object", "iframe", "script", "link", "form", "input", "video", "audio", "source", "base")


def handed_over(this: Run) -> None:
    """Results of the first three phases, as their gates write them."""
    for phase in PHASES[:3]:
        checks = Checks(f"what {phase} proves")
        checks.add("a fact", True, f"seen by {phase}", where="here")
        checks.add("an oddity", True, NASTY, warn=True)
        gate.gate(this, phase, checks)


def finished(folder: Path) -> Run:
    """A run whose parts are merged, validated and backed up, with all four results and a notebook."""
    made = run_folder(
        folder, texts=[{"title": f"{i} {NASTY}", "text": f"text {i}", "url": "", "id": i} for i in range(9)]
    )
    made.commit_all()
    this = made.run
    handed_over(this)
    done = published(this)
    this.journal.write("part refused", host="here", start=0, stop=4, reason=f"sha256 differs {NASTY}")
    this.journal.write("revived", seen="here: started")
    gate.gate(this, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    nbformat.write(notebook(sha256_file(this.result_file(PHASES[0]))), this.report / f"{PHASES[0]}.ipynb")
    return this


def notebook(result: str = "") -> nbformat.NotebookNode:
    """An executed notebook full of markup; with `result` its gate shows that sum."""
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    good = '<table><tr><th scope="row" style="color:red">a</th></tr></table>'
    good += f'<img alt="x" src="data:image/png;base64,{picture}">'
    return new_notebook(
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}},
        cells=[
            new_markdown_cell(f"# A heading\n\n{NASTY}\n\n[a link](https://example.org)"),
            new_code_cell(
                "1 + 1  # add",
                execution_count=1,
                outputs=[
                    new_output("display_data", data={"text/html": good, "text/plain": "a"}),
                    new_output("display_data", data={"text/html": NASTY}, metadata={"text/html": {"isolated": True}}),
                    new_output("display_data", data={"application/javascript": "alert(3)", "text/plain": "plain"}),
                    new_output("display_data", data={"text/plain": f"all hold\n  result sha256 {result}"}),
                    new_output("stream", name="stdout", text=f"printed {NASTY}"),
                    new_output("error", ename="GateError", evalue="no", traceback=["\x1b[31mGateError\x1b[0m: no"]),
                ],
            ),
        ],
    )


@pytest.fixture(scope="module")
def sealed_once(tmp_path_factory: pytest.TempPathFactory) -> Run:
    this = finished(tmp_path_factory.mktemp("sealed"))
    report.seal(this)
    return this


@pytest.fixture
def sealed(sealed_once: Run, tmp_path: Path) -> Run:
    """A copy of the sealed run that a test may damage; its founding file and backup stay where they are."""
    runs = tmp_path / "runs"
    shutil.copytree(sealed_once.folder, runs / sealed_once.name)
    return Run(runs / sealed_once.name, sealed_once.profile)


class Page(HTMLParser):
    """The elements and the shown text of a page."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def page(this: Run) -> Page:
    return Page((this.report / "report.html").read_text())


def failed(this: Run) -> str:
    """What the failing checks of an archive say; empty when all hold."""
    return in_words(report.verify(this))


def failed_by_its_bytes(this: Run) -> str:
    """The same of what is looked at first: bytes, names and records, before anything is computed again."""
    return in_words(archive.verify(this))


def in_words(checks: Checks) -> str:
    return "\n".join(f"{check.name}: {check.seen}" for check in checks.failed)


# ------------------------------------------------------------------------------------------------------------ report


def test_the_report_gives_its_verdict_first_and_its_figures(sealed_once: Run) -> None:
    words = page(sealed_once).words
    assert words.index("Succeeded") < words.index("Figures")
    assert "9 documents and 1 question are embedded, merged and checked" in words
    for fact in ("9 × 8", "owner/model", "2 on 1 host", "cpu (made up)", "float32"):
        assert fact in words
    for group in ("what 01_preflight proves", "what 02_launch proves", "seen by 03_monitor"):
        assert group in words
    for happened in ("part refused", "revived", "sha256 differs"):
        assert happened in words


def test_the_report_shows_a_few_documents_with_their_nearest_and_their_titles_as_text(sealed_once: Run) -> None:
    shown = facts.gather(sealed_once).figures.neighbours
    assert shown
    html = (sealed_once.report / "report.html").read_text()
    table = html[html.index("Some documents and their nearest") :]
    for each in shown:
        assert each.nearest and f"{each.row} &lt;script&gt;" in table
        assert all(f"{near.cosine:.3f}</li>" in table for near in each.nearest)


def test_the_report_is_one_file_that_asks_for_nothing_and_runs_nothing(sealed_once: Run) -> None:
    found = page(sealed_once).found
    assert not {tag for tag, _ in found} & set(SPARE)
    for tag, attributes in found:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "srcset", "poster", "background", "data"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    style = re.search(r"<style>(.*?)</style>", (sealed_once.report / "report.html").read_text(), re.DOTALL)
    assert style is not None
    assert "url(" not in style.group(1)
    assert "@import" not in style.group(1)
    policy = [a["content"] for tag, a in found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0].startswith("default-src 'none'; img-src data:")
    assert (sealed_once.report / "report.html").stat().st_size < 2_000_000


def test_the_report_can_be_used_without_seeing_it(sealed_once: Run) -> None:
    found = page(sealed_once).found
    assert ("html", {"lang": "en"}) in found
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in found:
        if tag == "section":
            assert attributes["aria-labelledby"] in ids
        if tag == "a" and attributes["href"].startswith("#"):
            assert attributes["href"][1:] in ids
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")


def test_a_title_with_markup_shows_as_text(sealed_once: Run) -> None:
    shown = page(sealed_once)
    assert re.search(r'\d <script>alert\(1\)</script><img src="http://evil/x"', shown.words)
    assert "\x1b" not in (sealed_once.report / "report.html").read_text()


def test_a_run_that_has_just_begun_has_a_report_that_names_what_is_missing(tmp_path: Path) -> None:
    this = run_folder(tmp_path).run
    report.build(this)
    report.execution_report(this)
    words = page(this).words
    assert "Not succeeded" in words
    assert "04_merge_validate has no result" in words
    assert "not executed by the chain" in words


@pytest.mark.parametrize("name", ["plan.json", "journal.jsonl", "merged/manifest.json", "report/validation.json"])
@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b"[1]", b'{"figures": {"norms": 3, "projection": {"documents": 1}}}']
)
def test_a_missing_or_broken_file_never_stops_the_report(sealed: Run, name: str, content: bytes | None) -> None:
    path = sealed.folder / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    report.build(sealed)
    assert "execution" in report.execution_report(sealed).name
    assert page(sealed).words


def test_executions_of_a_phase_are_told_apart_by_how_they_ended(tmp_path: Path) -> None:
    this = run_folder(tmp_path).run
    for event, phase, attempt in (
        ("phase started", PHASES[0], 1),
        ("phase failed", PHASES[0], 1),
        ("phase started", PHASES[0], 2),
        ("phase ended", PHASES[0], 2),
        ("phase started", PHASES[1], 1),
        ("phase started", PHASES[1], 2),
    ):
        this.journal.write(event, phase=phase, attempt=attempt)
    spans = facts.spans(facts.events(this))
    assert [(span.attempt, span.outcome) for span in spans] == [
        (1, "failed"),
        (2, "done"),
        (1, "broken off"),
        (2, "not ended"),
    ]
    alt = pictures.timeline(this).alt
    assert "01_preflight failed after" in alt
    assert "02_launch broken off; 02_launch not ended; 1 fault, recoveries: 0" in alt


def test_a_failed_phase_and_its_last_attempt_are_shown(tmp_path: Path) -> None:
    this = run_folder(tmp_path).run
    checks = Checks("rows")
    checks.add("every row home", False, "3 of 9", "9", "run again")
    with pytest.raises(Exception, match="every row home"):
        gate.gate(this, PHASES[0], checks)
    (this.report / "attempts").mkdir()
    nbformat.write(notebook(), this.report / "attempts" / f"{PHASES[0]}.attempt-2.ipynb")
    report.build(this)
    words = page(this).words
    assert "01_preflight: 1 check not holding (every row home)" in words
    assert "01_preflight.attempt-2.ipynb" in words
    assert "run again" in words


def test_the_execution_report_has_every_field_of_the_founding_form(sealed_once: Run) -> None:
    path = next(sealed_once.notes.glob("execution_report_*"))
    assert re.fullmatch(r"execution_report_20[0-9]{6}\.md", path.name)
    told = path.read_text()
    assert f"# Execution Report - {path.stem[-8:-4]}-{path.stem[-4:-2]}-{path.stem[-2:]}" in told
    for title in ("Start time", "End time", "Total duration", "Output file", "File size", "Status"):
        assert re.search(rf"- \*\*{title}:\*\* \S", told)
    assert "**Status:** SUCCESS" in told
    assert "Items/sec: " in told
    assert "part refused" in told
    assert sha256_file(sealed_once.merged / "embeddings.npy") in told
    assert "missing" not in told
    assert "<script>" not in told


# --------------------------------------------------------------------------------------------------------- notebooks


def test_a_notebook_keeps_its_tables_pictures_and_headings_and_loses_what_runs(tmp_path: Path) -> None:
    nbformat.write(notebook(), tmp_path / "a.ipynb")
    body, cells = notebook_pages.fragment(tmp_path / "a.ipynb", "01_preflight")
    found = Page(body).found
    tags = {tag for tag, _ in found}
    assert cells == 2
    assert {"h1", "table", "th", "img", "pre", "a"} <= tags
    assert not tags & set(SPARE)
    assert "alert(3)" not in body
    assert [a["id"] for _, a in found if "id" in a] == ["cell-id=01_preflight-0", "cell-id=01_preflight-1"]
    assert [a["src"][:22] for tag, a in found if tag == "img" and a.get("src")] == ["data:image/png;base64,"]
    assert "GateError" in body


def test_a_file_that_is_no_notebook_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text('{"cells": [')
    with pytest.raises(ValueError, match=r"a\.ipynb"):
        notebook_pages.fragment(tmp_path / "a.ipynb", "x")


# ----------------------------------------------------------------------------------------------------------- archive


def test_a_sealed_run_verifies_and_its_list_is_what_sha256sum_reads(sealed_once: Run) -> None:
    checks = report.verify(sealed_once)
    assert checks.ok, checks
    assert not [check for check in checks if check.warn]
    lines = sealed_once.sums.read_text().splitlines()
    assert lines == sorted(lines, key=lambda line: line[66:])
    assert all(re.fullmatch(r"[0-9a-f]{64}  [^/].*", line) for line in lines)
    assert [e["event"] for e in sealed_once.journal.events()][-1] == "sealed"


def test_sealing_again_and_locks_and_torn_temporaries_leave_a_run_that_verifies(sealed: Run) -> None:
    report.seal(sealed)
    (sealed.folder / "driver.lock").write_text("held")
    (sealed.local.parts / ".x.npy.ab12.part").touch()
    assert failed(sealed) == ""


def look_around(folder: Path, with_what: bytes) -> None:
    """What a Finder, a copy to another kind of disk, an Explorer and a JupyterLab leave behind."""
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        for name in (".DS_Store", ".localized", "._.", "Icon\r", "Thumbs.db", "desktop.ini", ".directory", ".nfs00ab"):
            (place / name).write_bytes(with_what)
        for name in (".Spotlight-V100", ".fseventsd", ".Trashes", "__MACOSX", ".ipynb_checkpoints"):
            (place / name).mkdir(exist_ok=True)
            (place / name / "01_preflight-checkpoint.ipynb").write_bytes(with_what)
    for path in [path for path in folder.rglob("*.*") if path.is_file() and path.name[0] != "."]:
        path.with_name(f"._{path.name}").write_bytes(with_what)


def test_a_look_with_the_finder_breaks_no_seal_and_is_not_sealed(sealed: Run) -> None:
    before = archive.files(sealed)
    look_around(sealed.folder, b"first look")
    assert failed(sealed) == "" and archive.files(sealed) == before
    report.seal(sealed)
    look_around(sealed.folder, b"second look")
    assert failed(sealed) == ""


def test_what_a_look_left_in_a_seal_of_before_may_change_and_go(sealed: Run) -> None:
    lines = [*sealed.sums.read_text().splitlines(), f"{'0' * 64}  report/.DS_Store", f"{'0' * 64}  parts/._a.npy"]
    sealed.sums.write_text("".join(f"{line}\n" for line in sorted(lines, key=lambda line: line[66:])))
    assert failed(sealed) == ""


@pytest.mark.parametrize("name", ["DS_Store", ".DS_Store.txt", "_.a", "x.ipynb_checkpoints", ".hidden", "parts/.a.npy"])
def test_what_only_looks_like_it_is_a_file_too_many(sealed: Run, name: str) -> None:
    (sealed.folder / name).touch()
    assert f"{name}: not listed" in failed(sealed)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_one_changed_byte_anywhere_is_found_and_named(sealed: Run, place: str) -> None:
    names = [*archive.files(sealed), "SHA256SUMS"]
    assert len(names) > 20
    for name in dict.fromkeys(names):
        path = sealed.folder / name
        whole = path.read_bytes()
        if not whole:
            continue
        at = {"first": 0, "middle": len(whole) // 2, "last": len(whole) - 1}[place]
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert Path(name).name in failed_by_its_bytes(sealed), (name, at)
        path.write_bytes(whole)
    assert failed(sealed) == ""


def test_every_byte_of_a_line_of_the_list_counts(sealed: Run) -> None:
    whole = sealed.sums.read_bytes()
    end = whole.index(b"\n") + 1
    for at in range(end):
        sealed.sums.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert failed_by_its_bytes(sealed), at
    upper = whole[:64].upper() + whole[64:]
    assert upper != whole
    sealed.sums.write_bytes(upper)
    assert "SHA256SUMS line 1" in failed(sealed)


def test_files_too_many_too_few_and_lines_out_of_order_are_found(sealed: Run) -> None:
    whole = sealed.sums.read_bytes()
    lines = whole.splitlines(keepends=True)
    sealed.sums.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    assert "does not come after" in failed(sealed)
    sealed.sums.write_bytes(b"".join(lines[:-1]))
    assert "not listed" in failed(sealed)
    sealed.sums.write_bytes(whole + lines[-1])
    assert "does not come after" in failed(sealed)
    sealed.sums.write_bytes(whole.rstrip(b"\n"))
    assert "with its line end" in failed(sealed)
    sealed.sums.write_bytes(b"")
    assert "SHA256SUMS: empty" in failed(sealed)
    sealed.sums.write_bytes(whole)
    (sealed.folder / "stray.txt").write_text("x")
    assert "stray.txt: not listed" in failed(sealed)
    (sealed.folder / "stray.txt").unlink()
    (sealed.folder / "plan.json").unlink()
    assert "plan.json: listed in SHA256SUMS, no such file" in failed(sealed)


def test_a_link_is_not_taken_for_a_file(sealed: Run) -> None:
    path = sealed.merged / "embeddings.npy"
    path.rename(sealed.folder.parent / "elsewhere.npy")
    path.symlink_to(sealed.folder.parent / "elsewhere.npy")
    assert "embeddings.npy" in failed(sealed)
    with pytest.raises(DataError, match="plain file"):
        archive.write_sums(sealed)


def test_what_the_list_agrees_to_is_still_held_against_the_records(sealed: Run) -> None:
    """Someone who changes a file and lists it anew is found by the records that name it."""
    part = sorted(sealed.local.parts.glob("*.npy"))[0]
    part.write_bytes(part.read_bytes()[:-1] + b"\x00")
    embeddings = sealed.merged / "embeddings.npy"
    embeddings.write_bytes(embeddings.read_bytes()[:-1] + b"\x00")
    result = sealed.result_file(PHASES[1])
    result.write_text(json.dumps({**json.loads(result.read_text()), "ok": False}))
    archive.write_sums(sealed)
    told = failed(sealed)
    assert f"parts: {part.name}" in told
    assert "merged files: embeddings.npy" in told
    assert f"result of {PHASES[1]}" in told
    assert "every file as listed" not in told


def test_a_run_that_was_never_sealed_does_not_verify(tmp_path: Path) -> None:
    assert "was not sealed" in failed(finished(tmp_path))


def test_a_changed_founding_file_or_backup_is_found(tmp_path: Path) -> None:
    this = finished(tmp_path)
    report.seal(this)
    copy = Path(this.result(PHASES[3]).output("backup").path)
    for path, name in ((this.founding_file, "founding file"), (copy, "backup")):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"x")
        assert f"{name}: {path}" in failed(this)
        path.unlink()
        assert f"{name}: {path}: No such file" in failed(this)
        path.write_bytes(whole)
    assert failed(this) == ""


def test_a_founding_file_that_another_run_wrote_since_is_a_warning_that_names_it(tmp_path: Path) -> None:
    this = finished(tmp_path)
    report.seal(this)
    later = opening.create(this.profile, "made-up-later")
    this.founding_file.write_bytes(b"another run's result")
    assert "founding file" in failed(this)
    later.save_result(PHASES[3], ok=True, figures={"founding": {"sha256": sha256_file(this.founding_file)}})
    checks = report.verify(this)
    assert checks.ok
    assert ["made-up-later" in check.seen for check in checks if check.warn] == [True]


def test_outside_files_on_another_machine_are_a_warning(sealed: Run) -> None:
    result = read_json(sealed.result_file(PHASES[3])) or {}
    for kind in ("founding", "backup"):
        result["figures"][kind]["path"] = f"/nowhere/at/all/{kind}.pkl"
    sealed.save_result(PHASES[3], **{key: result[key] for key in ("ok", "at", "inputs", "checks", "figures")})
    archive.write_sums(sealed, wrote=[sealed.result_file(PHASES[3])])
    checks = report.verify(sealed)
    assert checks.ok, checks
    assert sum("not on this machine" in check.seen for check in checks) == 2


def test_an_output_folder_that_is_gone_is_a_loss_where_the_run_was_made_and_a_warning_elsewhere(
    tmp_path: Path,
) -> None:
    this = finished(tmp_path)
    report.seal(this)
    shutil.rmtree(this.profile.output.folder)
    assert {check.name for check in report.verify(this).failed} == {"founding file", "backup"}
    assert {check.name for check in report.verify(this, quick=True).failed} == {"founding file", "backup"}
    with pytest.raises(DataError, match="not sealed again: founding file"):
        report.seal(this)
    copy = Run(tmp_path / "copies" / this.name, this.profile)
    shutil.copytree(this.folder, copy.folder)
    assert report.verify(copy).ok


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"event": "watching interrupted"}, "act"),  # a person looked away
        ({"event": "workers stopped"}, "act"),  # a person's act
        ({"event": "a new event", "kind": "fault"}, "fault"),
        ({"event": "nothing is lost, refused or failed"}, ""),
        ({"event": "worker restarted"}, "recovery"),
        ({"event": "restart failed"}, "fault"),
        ({"event": "gate", "ok": False}, "fault"),
        ({"event": "note", "text": "failed"}, "remark"),
        ({"event": "gate", "ok": True}, "phase"),
        ({"event": "staged"}, "progress"),
        ({"event": "part put aside", "kind": "of a later version"}, "fault"),
        ({"event": "launched late"}, "recovery"),
        ({"event": "taken over"}, "act"),
        ({"event": "started from scratch"}, "act"),
    ],
)
def test_an_event_is_a_fault_by_its_name_and_not_by_its_words(event: dict[str, object], kind: str) -> None:
    assert facts.kind(event) == kind


def test_what_was_put_aside_launched_late_taken_over_or_begun_anew_is_told_as_what_it_is(tmp_path: Path) -> None:
    """A stop by a person is an act too, and nothing is lost by it."""
    this = run_folder(tmp_path).run
    for event in ("part put aside", "launched late", "taken over", "started from scratch", "workers stopped", "staged"):
        this.journal.write(event, seen="as it was")
    kinds = {event["event"]: event.get("kind") for event in this.journal.events()}
    assert kinds == {
        "run created": "progress",
        "part put aside": "fault",
        "launched late": "recovery",
        "taken over": "act",
        "started from scratch": "act",
        "workers stopped": "act",
        "staged": "progress",
    }
    told = ["part put aside", "launched late", "taken over (act)", "started from scratch (act)"]
    log = report.failure_log(this).read_text().splitlines()
    assert [line.split(" UTC ")[1].split(": ")[1] for line in log] == told
    form = report.execution_report(this).read_text().split("## Issues Encountered")[1].split("## ")[0]
    assert [line.split(" UTC ")[1].split(": ")[0] for line in form.strip().splitlines()] == told
    attention = report.build(this).read_text().split('id="attention"')[1].split("The whole journal")[0]
    for event, kind in (("part put aside", "fault"), ("launched late", "recovery"), ("taken over", "act")):
        assert re.search(rf"{event}</th><td data-head=\"kind\"><span class=\"mark [a-z]*\">. {kind}<", attention), event
    assert "workers stopped" not in attention


def test_a_journal_whose_lines_say_no_kind_reads_the_same(tmp_path: Path) -> None:
    """As an earlier version wrote it."""
    this = run_folder(tmp_path).run
    for event in ("part refused", "revived", "started from scratch", "note", "phase ended"):
        this.journal.write(event, phase=PHASES[0])
    this.journal.write("gate", phase=PHASES[0], ok=False, kind="fault")
    log = report.failure_log(this).read_text()
    lines = [json.loads(line) for line in this.journal.path.read_text().splitlines()]
    bare = [{key: value for key, value in line.items() if key != "kind"} for line in lines]
    this.journal.path.write_text("".join(f"{json.dumps(line)}\n" for line in bare))
    assert [facts.kind(event) for event in facts.events(this)] == [line["kind"] for line in lines]
    assert report.failure_log(this).read_text() == log

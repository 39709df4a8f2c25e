"""The journal: nothing acknowledged is lost, and a changed line is found."""

import json
import multiprocessing

from runbook_lib.journal import Journal


def test_events_come_back_in_order(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.write("first", rows=3)
    journal.write("second", title="Žižkov")
    assert [e["event"] for e in journal.events()] == ["first", "second"]
    assert next(journal.events("second"))["title"] == "Žižkov"
    assert journal.problems() == []


def test_a_torn_last_line_is_cut_off_and_the_chain_goes_on(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.write("first")
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b'{"seq": 1, "ev')
    journal.write("second")
    assert journal.path.read_bytes().startswith(whole)
    assert [e["event"] for e in journal.events()] == ["first", "second"]
    assert journal.problems() == []


def test_a_changed_byte_is_found_with_its_line(tmp_path):
    journal = Journal(tmp_path / "j")
    for number in range(4):
        journal.write("event", number=number)
    text = journal.path.read_text()
    journal.path.write_text(text.replace('"number": 1', '"number": 7'))
    assert journal.problems() == ["j line 3: does not follow from the line before"]


def test_a_removed_line_is_found(tmp_path):
    journal = Journal(tmp_path / "j")
    for number in range(3):
        journal.write("event", number=number)
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text(lines[0] + lines[2])
    assert journal.problems()


def test_a_line_that_is_not_json_is_found(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.write("event")
    journal.path.write_text(journal.path.read_text() + "nonsense\n")
    assert journal.problems() == ["j line 2: not a journal line"]


def _write(path, name):
    for number in range(25):
        Journal(path).write(name, number=number)


def test_several_processes_may_write_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path / "j", f"w{i}")) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert Journal(tmp_path / "j").problems() == []
    assert sum(1 for _ in Journal(tmp_path / "j").events()) == 75


def test_no_journal_yet_has_no_events(tmp_path):
    assert list(Journal(tmp_path / "j").events()) == []


def test_the_file_is_for_its_owner_only(tmp_path):
    Journal(tmp_path / "j").write("event")
    assert (tmp_path / "j").stat().st_mode & 0o077 == 0
    assert json.loads((tmp_path / "j").read_text())["prev"] == "0" * 64

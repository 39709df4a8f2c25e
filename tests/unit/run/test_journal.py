"""The journal: nothing acknowledged is lost, and a changed line is found."""

import json
import multiprocessing

from runbook_lib.run.journal import TAIL, Journal


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


def test_a_long_journal_is_written_and_read_from_where_it_ended(tmp_path):
    """Longer than what is read of its end, with lines longer than that."""
    journal = Journal(tmp_path / "j")
    for number in range(40):
        journal.write("event", number=number, text="x" * (7000 if number != 20 else 200_000))
        assert [each["seq"] for each in journal.events()] == list(range(number + 1))
    assert journal.problems() == []
    whole = journal.path.read_bytes()
    assert len(whole) > 7 * TAIL
    for torn in (b'{"seq": 40, "ev', b"half a line\n", b'"x"}\n'):
        journal.path.write_bytes(whole + torn)
        assert len(list(journal.events())) == 40
        journal.write("after")
        assert journal.path.read_bytes().startswith(whole) and journal.problems() == []
        assert [each["seq"] for each in journal.events("after")] == [40]
    # Where the last line does not say its number the lines are counted.
    journal.path.write_bytes(whole + b"{}\n")
    journal.write("counted")
    assert [each["seq"] for each in journal.events("counted")] == [41]


def test_what_was_read_before_is_read_anew_where_the_file_did_more_than_grow(tmp_path):
    journal = Journal(tmp_path / "j")
    for number in range(3):
        journal.write("event", number=number)
    whole = journal.path.read_bytes()

    def numbers():
        return [event["number"] for event in journal.events()]

    assert numbers() == [0, 1, 2]
    next(journal.events())["number"] = 99  # a reader's own copy
    assert numbers() == [0, 1, 2]
    journal.path.write_bytes(whole.replace(b'"number": 1', b'"number": 7'))
    assert numbers() == [0, 7, 2]
    lines = whole.splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines[:2]))
    assert numbers() == [0, 1]
    journal.path.write_bytes(b"".join([*lines[:1], lines[2].replace(b"2", b"5"), *lines[2:]]))
    assert len(numbers()) == 3 and numbers()[2] == 2
    journal.path.unlink()
    assert numbers() == []
    Journal(tmp_path / "j").write("event", number=8)
    assert numbers() == [8]
    for name in "abcdef":
        Journal(tmp_path / name).write("event", number=1)
        assert len(list(Journal(tmp_path / name).events())) == 1
    assert numbers() == [8]

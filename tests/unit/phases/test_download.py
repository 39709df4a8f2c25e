"""Download: a part gets its name here only when record, plan and corpus vouch for it; only a bad one goes there."""

import contextlib
import itertools
import json
import resource
from dataclasses import replace

import made_up
import numpy as np
import pytest
from host_parts import RANGES, There

from runbook_lib import cli
from runbook_lib.errors import DataError
from runbook_lib.hosts import hosts
from runbook_lib.phases import download
from runbook_lib.result import done_twice, parts
from runbook_lib.run import opening
from runbook_lib.run.run import Run
from worker.files import sha256_file, write_json
from worker.layout import committed
from worker.rows import Covered


@pytest.fixture
def there(tmp_path):
    return There(tmp_path)


def test_every_part_comes_home_byte_for_byte(there):
    there.commit_all()
    found = download.collect(there.run)
    assert (found.rows, found.new, found.refused, found.failures) == (21, 6, (), ())
    assert there.names() == there.names(there.folder.parts)
    for name in there.names():
        assert (there.run.local.parts / name).read_bytes() == (there.folder.parts / name).read_bytes()
    assert download.complete(there.run).ok


def test_nothing_is_fetched_twice(there):
    there.commit(0, 4)
    assert download.collect(there.run).new == 1
    before = there.run.local.part(0, 4).stat().st_ino
    there.commit(4, 8)
    asked = []
    assert download.collect(there.run, lambda what, done, total: asked.append((what, done, total))).new == 1
    size = 4 * made_up.DIM * 4  # bytes of the new part alone
    assert asked == [("here", size, size)]
    assert there.run.local.part(0, 4).stat().st_ino == before


def test_a_host_where_nothing_is_yet_brings_nothing(there):
    assert download.collect(there.run) == download.Collected(0, 0, (), ())


def test_a_flipped_bit_is_refused_removed_there_journaled_and_its_rows_are_missing_again(there):
    there.commit_all()
    path = there.folder.part(4, 8)
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    found = download.collect(there.run)
    assert (found.rows, found.new, len(found.refused)) == (17, 5, 1)
    assert "expected sha256" in found.refused[0]
    assert (4, 8) not in committed(there.folder.parts)
    assert not path.exists()
    (event,) = there.run.journal.events("part refused")
    assert (event["host"], event["start"], event["stop"]) == ("here", 4, 8)
    assert "missing rows 4-8" in download.complete(there.run).failed[0].seen
    there.commit(4, 8)  # done again
    assert download.collect(there.run).rows == 21


STRANGE = {
    "run": {"run": "another"},
    "run id": {"run_id": "f" * 32},
    "corpus": {"corpus": "f" * 64},
    "model name": {"model": {"name": "other", "revision": "0" * 40, "digest": "1" * 64}},
    "model revision": {"model": {"name": "owner/model", "revision": "main", "digest": "1" * 64}},
    "model digest": {"model": {"name": "owner/model", "revision": "0" * 40, "digest": "2" * 64}},
    "dtype": {"dtype": "bfloat16"},
    "prompt": {"prompt": "{text}"},
    "question prompt": {"question_prompt": "{text}"},
    "fingerprints": {"fingerprints": ["00" * 16] * 4},
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_part_of_another_making_is_refused(there, what):
    there.commit(0, 4, **STRANGE[what])
    there.commit(4, 8)
    found = download.collect(there.run)
    assert (found.rows, found.new) == (4, 1)
    assert f"{what}: " in found.refused[0]
    assert committed(there.folder.parts) == [(4, 8)]


@pytest.mark.parametrize(
    "rows", [np.zeros((4, 3), np.float32), np.zeros((3, 8), np.float32), np.zeros((4, 8), np.float64)]
)
def test_an_array_of_another_shape_or_kind_is_refused(there, rows):
    there.commit(0, 4, rows, dim=rows.shape[1])
    assert len(download.collect(there.run).refused) == 1
    assert not there.run.local.part(0, 4).exists()


def test_rows_beyond_the_plan_are_refused(there):
    there.commit(20, 24, made_up.vectors(4), fingerprints=["00" * 16] * 4)
    assert "not within the plan's 0-21" in download.collect(there.run).refused[0]


@pytest.mark.parametrize("record", [b"", b"{half", b"[]", b"{}", b'{"start": NaN}', b"\xff\xfe", b"[" * 100_000])
def test_a_record_that_says_nothing_is_refused_and_hides_no_other_part(there, record):
    there.commit_all()
    there.folder.part(0, 4).with_suffix(".json").write_bytes(record)
    found = download.collect(there.run)
    assert (found.rows, len(found.refused)) == (17, 1)
    assert not there.folder.part(0, 4).exists()


def test_a_part_wider_than_the_plan_s_is_refused_before_it_is_fetched(there):
    there.commit(0, 10)
    told = []
    found = download.collect(there.run, lambda what, done, total: told.append(done))
    assert "expected at most 4 in a part, found 10" in found.refused[0] and max(told, default=0) == 0


def test_whatever_one_part_makes_of_its_reader_only_that_part_is_refused(there, monkeypatch):
    there.commit_all()
    real = parts.verify

    def stumble(part, plan, fingerprints):
        if part.start == 4:
            raise AttributeError("'NpzFile' object has no attribute 'dtype'")
        return real(part, plan, fingerprints)

    monkeypatch.setattr(parts, "verify", stumble)
    found = download.collect(there.run)
    assert (found.rows, len(found.refused), found.failures) == (17, 1, ())
    assert "cannot be read as a part (AttributeError" in found.refused[0]


def test_a_record_without_its_array_is_refused_so_that_the_rows_are_done_again(there):
    there.commit(0, 4).unlink()
    assert len(download.collect(there.run).refused) == 1
    assert committed(there.folder.parts) == []


def test_an_array_without_its_record_is_no_part(there):
    there.commit(0, 4).with_suffix(".json").unlink()
    assert download.collect(there.run) == download.Collected(0, 0, (), ())
    assert there.folder.part(0, 4).exists()


def test_strange_names_on_a_host_are_left_alone(there):
    there.commit(0, 4)
    names = ["rows_0_4.json", "rows_000000008_000000004.json", "rows_000000004_000000004.json", "a\n\x1b[31m.json"]
    names += [
        "rows_٠٠٠٠٠٠٠٠٠_٠٠٠٠٠٠٠٠٤.json",
        ".rows_000000004_000000008.json.1f.part",
        "rows_000000004_000000008.jsonx",
    ]
    for name in names:
        (there.folder.parts / name).write_text("{}")
    found = download.collect(there.run)
    assert (found.new, found.refused, found.failures) == (1, (), ())
    assert there.names() == ["rows_000000000_000000004.json", "rows_000000000_000000004.npy"]
    assert set(names) <= set(there.names(there.folder.parts))


def test_a_record_that_is_a_link_tells_nothing_of_what_it_leads_to(there, tmp_path):
    (tmp_path / "secret").write_text("tell nobody")
    there.folder.parts.mkdir(parents=True)
    there.folder.part(0, 4).with_suffix(".json").symlink_to(tmp_path / "secret")
    found = download.collect(there.run)
    assert len(found.refused) == 1
    assert "tell nobody" not in str(found) + there.run.journal.path.read_text()
    assert (tmp_path / "secret").read_text() == "tell nobody"


def test_a_folder_in_place_of_a_record_is_refused(there):
    there.commit(4, 8)
    there.folder.part(0, 4).with_suffix(".json").mkdir()
    found = download.collect(there.run)
    assert (found.new, len(found.refused)) == (1, 1)


def test_one_host_that_cannot_be_read_hides_no_other(tmp_path):
    there = There(tmp_path, names=("here", "other"))
    broken = tmp_path / "broken"
    broken.write_text("a file stands where the folder should be")
    here, other = there.run.profile.hosts
    specs = (here, replace(other, workdir=str(broken)))
    this = Run(there.run.folder, replace(there.run.profile, hosts=specs))
    there.commit_all()
    found = download.collect(this)
    assert found.rows == 21
    assert found.failures[0].startswith("other: ")


@pytest.fixture
def two(tmp_path):
    """Two hosts that share one folder; the plan gives rows 0-10 to `here` and 10-21 to `other`."""
    there = There(tmp_path, names=("here", "other"))
    plan = there.run.plan()
    (low, high) = plan.slots
    assert (low.stop, high.start) == (10, 10)
    replace(plan, slots=(low, replace(high, slot="cluster1_gpu0", host="other", index=0))).save(there.run.plan_file)
    return there


def test_of_a_folder_that_two_hosts_share_each_brings_its_own_parts(two):
    two.commit_all()
    told = {}
    found = download.collect(
        two.run, lambda name, done, total: told.update({name: max(told.get(name, (0, 0)), (done, total))})
    )
    assert (found.rows, found.new, found.failures) == (21, 6, ())
    size = made_up.DIM * 4
    assert told == {"here": (10 * size, 10 * size), "other": (11 * size, 11 * size)}


def test_a_damaged_part_of_a_shared_folder_is_refused_once(two):
    two.commit_all()
    two.folder.part(0, 4).write_bytes(b"damaged")
    found = download.collect(two.run)
    assert (found.rows, found.new, found.failures) == (17, 5, ())
    assert [line.startswith("here: ") for line in found.refused] == [True]
    assert committed(two.run.local.parts) == RANGES[1:]


def test_an_empty_zip_in_place_of_an_array_is_refused_and_every_other_part_comes_home(two):
    two.commit_all()
    path = two.folder.part(0, 4)
    path.write_bytes(b"PK\x05\x06" + bytes(18))
    record = json.loads(path.with_suffix(".json").read_text())
    write_json(path.with_suffix(".json"), {**record, "sha256": sha256_file(path), "bytes": 22})
    found = download.collect(two.run)
    assert (found.rows, len(found.refused), found.failures) == (17, 1, ())
    assert "expected an .npy file" in found.refused[0] and not path.exists()


@pytest.mark.parametrize(
    "raised",
    [AttributeError("x"), KeyError("x\x1b"), TypeError(), IndexError(), RecursionError("deep"), OverflowError(),
     UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ZeroDivisionError(), MemoryError(), AssertionError()],
    ids=lambda raised: type(raised).__name__,
)  # fmt: skip
def test_whatever_is_raised_about_a_host_is_its_own_failure(two, monkeypatch, raised):
    two.commit_all()
    real = hosts.Host.poll

    def poll(host):
        if host.name == "here":
            raise raised
        return real(host)

    monkeypatch.setattr(hosts.Host, "poll", poll)
    found = download.collect(two.run)
    assert (found.rows, found.new, found.refused) == (11, 3, ())
    assert found.failures[0].startswith("here: here: what it sent") and type(raised).__name__ in found.failures[0]
    assert "\x1b" not in found.failures[0]


def test_only_the_hosts_that_are_meant_are_asked(two, capsys):
    two.commit_all()
    # The host that is not meant is not even looked at: a file stands where its folder should be.
    here, other = two.run.profile.hosts
    broken = two.run.folder / "broken"
    broken.write_text("")
    hosts_now = (replace(here, workdir=str(broken)), other)
    found = download.collect(Run(two.run.folder, replace(two.run.profile, hosts=hosts_now), frozenset({"other"})))
    assert (found.rows, found.new, found.failures) == (11, 3, ())
    assert committed(two.run.local.parts) == RANGES[3:]


def test_the_command_fetches_from_the_hosts_that_are_meant(two, monkeypatch, capsys):
    two.commit_all()
    monkeypatch.setattr(opening, "find", lambda name: two.run)
    assert cli.main(["fetch", two.run.name, "--hosts", "here"]) == 0
    assert "3 parts fetched; 10 of 21 rows are in " in capsys.readouterr().out
    assert committed(two.run.local.parts) == RANGES[:3]


def test_what_a_reading_of_just_now_names_is_fetched_and_nothing_else(two):
    two.commit_all()
    nothing = Covered(())
    plan = two.run.plan()
    assert download.fetch_parts(two.run, {}) == []
    assert download.not_home(plan, "other", [(10, 14), (4, 8)], nothing) == [(10, 14)]
    assert download.not_home(plan, "other", [(10, 14), (14, 18)], Covered([(8, 15)])) == [(14, 18)]
    assert download.fetch_parts(two.run, {"other": [(10, 14)]}) == []
    assert committed(two.run.local.parts) == [(10, 14)]


def test_a_part_that_a_reading_names_and_is_gone_is_no_damage_and_hides_no_other(two):
    two.commit(10, 14)
    assert download.fetch_parts(two.run, {"other": [(10, 14), (14, 18)]}) == []
    assert committed(two.run.local.parts) == [(10, 14)]


def test_a_folder_that_is_away_for_a_moment_costs_no_part(two, monkeypatch):
    two.commit(10, 14)
    real = download._fetch

    def away(*words):
        monkeypatch.setattr(download, "_fetch", real)
        raise DataError("no such file")

    monkeypatch.setattr(download, "_fetch", away)
    assert download.fetch_parts(two.run, {"other": [(10, 14)]}) == []
    assert committed(two.run.local.parts) == [(10, 14)]


def test_a_part_that_came_home_since_the_state_was_seen_is_not_fetched_again(two, monkeypatch):
    two.commit_all()
    assert download.fetch_parts(two.run, {"other": [(10, 14)]}) == []
    fetched = []
    monkeypatch.setattr(download, "_fetch", lambda *words: fetched.append(words[4:6]))
    assert download.fetch_parts(two.run, {"other": [(10, 14), (14, 18)]}) == []
    assert fetched == [(14, 18)]


# ------------------------------------------------------------------------------------------------- trouble at home


@contextlib.contextmanager
def files_no_larger_than(size):
    """As on a full disk: a file that is written larger than this fails in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_at_home_leaves_nothing_under_a_final_name_and_no_good_part_is_removed(tmp_path):
    there = There(tmp_path, dim=8192)
    paths = there.commit_all()
    sums = [sha256_file(path) for path in paths]
    with files_no_larger_than(50_000):
        found = download.collect(there.run)
    assert found.refused == ()
    assert "File too large" in found.failures[0]
    assert there.names() == []
    assert not list((there.run.folder / "incoming").rglob("*.*"))
    assert [sha256_file(path) for path in paths] == sums
    assert download.collect(there.run).rows == 21


def test_a_home_that_takes_no_files_is_a_failure_and_no_refusal(there):
    paths = there.commit_all()
    (there.run.folder / "incoming").write_text("a file stands where the folder should be")
    found = download.collect(there.run)
    assert (found.rows, found.refused) == (0, ())
    assert "on this machine" in found.failures[0]
    assert all(path.exists() and path.with_suffix(".json").exists() for path in paths)


def test_interrupting_leaves_whole_parts_and_the_next_round_brings_the_rest(there):
    there.commit_all()

    part = itertools.count(1)

    def interrupt(what, done, total):
        if next(part) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.collect(there.run, interrupt)
    home = committed(there.run.local.parts)
    assert 2 <= len(home) < len(RANGES)  # two streams: another part was under way
    assert there.names() == sorted(
        f"rows_{start:09d}_{stop:09d}.{kind}" for start, stop in home for kind in ("json", "npy")
    )
    for name in there.names():
        assert (there.run.local.parts / name).read_bytes() == (there.folder.parts / name).read_bytes()
    assert not list((there.run.folder / "incoming").rglob("*.*"))
    found = download.collect(there.run)
    assert (found.rows, found.new) == (21, len(RANGES) - len(home))


def test_a_kill_between_array_and_record_counts_as_not_home(there):
    there.commit_all()
    leftover = there.run.folder / "incoming" / "here" / "rows_000000000_000000004.npy"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    there.run.local.parts.mkdir()
    there.run.local.part(0, 4).write_bytes(there.folder.part(0, 4).read_bytes()[:50])
    assert not download.complete(there.run).ok
    assert download.collect(there.run).rows == 21
    assert sha256_file(there.run.local.part(0, 4)) == sha256_file(there.folder.part(0, 4))
    assert not leftover.exists()


# ----------------------------------------------------------------------------------------------------------- complete


def test_missing_rows_are_named_as_ranges(there):
    there.commit(4, 8)
    there.commit(14, 18)
    download.collect(there.run)
    (check,) = download.complete(there.run)
    assert check.seen == "8 of 21; missing rows 0-4, 8-14, 18-21"
    assert "02_launch" in check.remedy


def test_many_gaps_are_named_up_to_ten(tmp_path):
    made = made_up.run_folder(tmp_path, count=40)
    for row in range(1, 40, 2):
        made.commit_part(row, row + 1)
    seen = download.complete(made.run).failed[0].seen
    assert seen.count("-") == 10
    assert seen.endswith("…")


def test_a_part_that_is_refused_again_and_again_is_not_done_again_without_end(there):
    strange = {"dtype": "bfloat16"}
    for _ in range(download.TRIES):
        there.commit(0, 4, **strange)
        assert len(download.collect(there.run).refused) == 1
    there.commit(0, 4, **strange)
    assert download.collect(there.run).refused == ()  # left where it is: its rows count as done there
    assert committed(there.folder.parts) == [(0, 4)]
    remedy = download.complete(there.run).failed[0].remedy
    assert "a person has to look" in remedy and "dtype: expected" in remedy and "runbook move" in remedy

    there.run.journal.write("watching", rows=21)  # somebody did something about it, and watches again
    assert len(download.collect(there.run).refused) == 1
    assert "02_launch and 03_monitor again" in download.complete(there.run).failed[0].remedy
    there.commit(0, 4)
    assert download.collect(there.run).rows == 4


@pytest.mark.parametrize("other", [False, True])
def test_rows_that_two_hosts_did_are_compared_and_a_difference_is_kept_in_the_journal(there, other):
    """Both were fetching the same moved rows: the first stays, the second is not thrown away unseen."""
    there.commit(0, 4)
    download.collect(there.run)
    before = there.run.local.part(0, 4).read_bytes()
    rows = there.made.vectors[0:4].copy()
    if other:
        rows[2] = there.made.vectors[9]
    made_up.commit(there.folder, 0, rows, there.made.record(0, 4))
    plan, prints = there.run.plan(), there.made.corpus.fingerprints()
    (spec,) = [spec for spec in there.run.hosts if spec.name == "here"]
    download._fetch(there.run, hosts.connect(spec, there.run.name), plan, prints, 0, 4, lambda n: None, None)
    assert there.run.local.part(0, 4).read_bytes() == before
    found = done_twice.check(there.run.journal, "float32")
    assert found.ok is not other
    assert ("rows 0-4 of here" in found.seen) is other
    (event,) = there.run.journal.events(done_twice.EVENT)
    assert (event["furthest"] > 1e-6) is other
    assert event["slot"] == event["by"] == there.made.plan.slots[0].slot
    assert done_twice.rows_first(there.run.journal, "float32") == [0, 1, 2] * other
    there.run.journal.write("slot fenced", slot="cluster9_gpu9")
    assert done_twice.check(there.run.journal, "float32").ok is not other
    there.run.journal.write("slot fenced", slot=event["by"])  # one of the two was wrong, and the other's stands
    assert done_twice.check(there.run.journal, "float32").ok

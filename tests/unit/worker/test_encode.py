"""A worker as a process: what it commits, and what is left after everything that can end it."""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import forking
import numpy as np
import poison
import pytest
from box import HOST, SLOT, Box, MakeBox, waiting
from waiting import wait_for
from wired import PART

import worker
from worker import encode, locks, process
from worker.any_encoder import AnyEncoder
from worker.encode import EXIT_BUSY, EXIT_DISK, EXIT_FAILED, EXIT_REFUSED, EXIT_STOPPED, Suspects
from worker.files import write_json
from worker.layout import HostFolder
from worker.rows import fingerprint
from worker.share import left_to_do, settled
from worker.wire import Described, PartRecord

LETTERS = ["abc", "a longer text, of two dozen letters", "x", "0123456789 " * 9, "mid size", "b c d e f g"]
TEXTS = [f"{LETTERS[i % 6]} {i}" for i in range(16)]
KNOWN: dict[tuple[str, ...], dict[str, str]] = {}


@pytest.fixture
def undisturbed(make_box: MakeBox) -> Any:
    """The sums of the same rows encoded by a worker that nothing happens to."""

    def run(box: Box) -> dict[str, str]:
        texts = tuple(box.texts)
        if texts not in KNOWN:
            other = make_box(texts, light=True)
            other.go()
            assert other.end(other.worker()) == 0, other.logs()
            KNOWN[texts] = other.sums()
        return KNOWN[texts]

    return run


# ------------------------------------------------------------------------------------------- with torch and a model


@pytest.mark.process
def test_a_worker_killed_and_started_again_gives_the_same_bytes(make_box: MakeBox, tiny_bert: Path) -> None:
    """And what it commits is what the model gives, with a record of each part."""
    texts = [f"{LETTERS[i % 6]} {i}" for i in range(120)]
    calm, cut = (make_box(texts, model=tiny_bert, python=forking.python(workers=True)) for _ in range(2))
    first, second = calm.worker(), cut.worker()
    wait_for(lambda: len(cut.parts()) >= 2, "a few parts")
    assert process.send(cut.report()["process"], signal.SIGKILL)
    assert calm.end(first) == 0, calm.logs()
    assert cut.end(second) == -signal.SIGKILL
    kept = cut.sums()
    assert cut.end(cut.worker()) == 0, cut.logs()
    assert kept.items() <= cut.sums().items() and cut.sums() == calm.sums()
    assert calm.parts() == [(row, row + 4) for row in range(0, 120, 4)]

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_bert), device="cpu")
    found = np.concatenate([np.load(calm.folder.part(*part), allow_pickle=False) for part in calm.parts()])
    assert found.dtype == np.float32 and found.shape == (120, 32)
    assert (found * model.encode(texts, batch_size=32)).sum(axis=1).min() >= 1 - 1e-6

    record, path = calm.record(0, 4), calm.folder.part(0, 4)
    tokens = [len(model.tokenizer(text)["input_ids"]) for text in texts[:4]]
    expected = {
        **{key: calm.assignment[key] for key in ("run", "epoch", "host", "corpus", "dtype", "prompt")},
        "format": 1,
        "slot": SLOT,
        "start": 0,
        "stop": 4,
        "dim": 32,
        "model": {"name": "m", "revision": "r", "digest": "d" * 64},
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "fingerprints": [fingerprint(text) for text in texts[:4]],
        "tokens": tokens,
        "truncated": [3],
        "max_tokens": 64,
        "normalises": True,
        "redone_float32": [],
        "out_of_memory": 0,
        "threads": 1,
        "real_tokens": sum(min(n, 64) for n in tokens),
    }
    assert {key: record[key] for key in expected} == expected
    assert record["norms"] == pytest.approx([1.0] * 4, abs=1e-5)
    assert record["seconds"] > 0 and record["device"].startswith("cpu") and record["torch"] and record["python"]
    report = calm.report()
    assert (report["state"], report["rows_committed"], report["exit_code"]) == ("done", 120, 0)
    assert path.stat().st_mode & 0o777 == 0o600

    (calm.root / "torch.py").write_text("raise SystemExit('torch was imported')")  # found before the real one
    before = {p.name: p.stat().st_mtime_ns for p in calm.folder.parts.iterdir()}
    assert calm.end(calm.worker(python=sys.executable)) == 0, calm.logs()
    assert {p.name: p.stat().st_mtime_ns for p in calm.folder.parts.iterdir()} == before


# ------------------------------------------------------------------------------------------- without torch, as real


@pytest.mark.process
@pytest.mark.parametrize("parts", [0, 1, 3])
def test_sigkill_costs_at_most_the_part_at_hand(make_box: MakeBox, undisturbed: Any, parts: int) -> None:
    box = make_box(waiting(4 * parts + 2), light=True)
    child = box.worker()
    wait_for(lambda: box.at_hand() == [4 * parts + 2], f"{parts} parts and a bit")
    child.kill()
    assert box.end(child) == -signal.SIGKILL
    kept = box.sums()
    assert len(kept) == parts
    box.go()
    assert box.end(box.worker()) == 0, box.logs()
    assert box.sums() == undisturbed(box)
    assert kept.items() <= box.sums().items()
    assert f"{4 * parts} committed before, {16 - 4 * parts} to do" in box.logs()


@pytest.mark.process
@pytest.mark.parametrize(("asked", "words"), [(True, "stopped by the operator"), (False, "ended by SIGTERM")])
def test_sigterm_ends_it_with_its_last_words_and_nothing_half(
    make_box: MakeBox, undisturbed: Any, asked: bool, words: str
) -> None:
    """Only a request on file says that it was the operator: anybody may send a signal."""
    box = make_box(waiting(2), light=True)
    if asked:
        write_json(box.folder.stop_request(HOST), {"stop": True})
    child = box.worker()
    wait_for(lambda: box.at_hand() == [2], "rows of the first part")
    child.terminate()
    assert box.end(child) == EXIT_STOPPED == 143
    report = box.report()
    assert (report["state"], report["reason"], report["exit_code"]) == ("stopped", words, 143)
    assert list(box.folder.parts.glob("*")) == []
    assert not box.folder.suspects(SLOT).exists()  # being stopped says nothing about the rows at hand
    box.go()
    assert box.end(box.worker()) == 0
    assert box.sums() == undisturbed(box)


@pytest.mark.process
def test_ctrl_c_in_the_operators_terminal_leaves_it_working(make_box: MakeBox) -> None:
    box = make_box(waiting(3), light=True)
    child = box.worker()
    wait_for(lambda: box.at_hand() == [3], "the worker runs")
    child.send_signal(signal.SIGINT)
    box.go()
    assert box.end(child) == 0


@pytest.mark.process
def test_a_second_worker_of_a_slot_leaves(make_box: MakeBox) -> None:
    box = make_box(waiting(3), light=True)
    first = box.worker()
    wait_for(lambda: box.at_hand() == [3], "the first one runs")
    assert box.end(box.worker()) == EXIT_BUSY == 3
    assert box.alone() == first.pid  # the report stays the first one's
    box.go()
    assert box.end(first) == 0


@pytest.mark.process
def test_a_worker_does_its_own_rows_first(make_box: MakeBox) -> None:
    texts = [*TEXTS[:7], "WAIT", *TEXTS[8:]]
    box = make_box(texts, slots=2, light=True)
    child = box.worker("cluster0_gpu1")
    wait_for(lambda: box.at_hand("cluster0_gpu1") == [7], "it helps its neighbour")
    assert box.parts() == [(8, 12), (12, 16)]
    box.go()
    assert box.end(child) == 0, box.logs()
    assert box.record(8, 12)["fingerprints"] == [fingerprint(text) for text in TEXTS[8:12]]
    assert box.record(8, 12)["slot"] == "cluster0_gpu1"


@pytest.mark.process
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("other text", "expected sha256"),
        ("a line more", "expected sha256"),
        ("gone", "no such file"),
        ("fewer rows", "expected 4 rows, found 3"),
        ("wrong numbers", "the line of row 0 holds row 9"),
    ],
)
def test_a_shard_that_is_not_as_staged_is_refused_by_name(make_box: MakeBox, harm: str, said: str) -> None:
    box = make_box(TEXTS[:4], light=True)
    path, spec = box.folder.shard(0, 4), box.assignment["slots"][0]["shards"][0]
    lines = path.read_bytes().splitlines(keepends=True)
    if harm == "gone":
        path.unlink()
    elif harm in ("other text", "a line more"):
        path.write_bytes(path.read_bytes().replace(b"abc", b"abd") + (lines[0] if harm == "a line more" else b""))
    else:
        raw = b"".join(lines[:3] if harm == "fewer rows" else [lines[0].replace(b'"row": 0', b'"row": 9'), *lines[1:]])
        path.write_bytes(raw)
        spec["sha256"] = hashlib.sha256(raw).hexdigest()
        box.save()
    assert box.end(box.worker()) == EXIT_REFUSED == 2
    assert said in box.report()["reason"]
    assert str(path) in box.report()["reason"] or harm == "wrong numbers"
    assert box.parts() == [] and not box.folder.parts.exists()


@pytest.mark.process
def test_a_slot_that_is_not_in_the_assignment_is_refused(make_box: MakeBox) -> None:
    box = make_box(TEXTS[:4], light=True)
    assert box.end(box.worker("cluster7_gpu7")) == EXIT_REFUSED
    assert "cluster7_gpu7 is not in" in box.report("cluster7_gpu7")["reason"]
    box.folder.assignment(HOST).unlink()
    assert box.end(box.worker()) == EXIT_REFUSED


@pytest.mark.process
def test_what_others_left_in_the_folder_does_no_harm(make_box: MakeBox, undisturbed: Any) -> None:
    """Half a write of a killed worker, an array without its record, strange names."""
    box = make_box(TEXTS, light=True)
    box.folder.parts.mkdir()
    for name in (
        ".rows_000000000_000000004.npy.0a1b2c3d.part",
        "rows_000000004_000000008.npy",
        "rows_000000012_000000004.json",
        "rows_x.json",
    ):
        (box.folder.parts / name).write_bytes(b"half")
    write_json(box.folder.suspects(SLOT), {"rows": [3], "deaths": 9, "boot": "of another time"})
    box.folder.exits(SLOT).write_bytes(b"")
    assert box.end(box.worker()) == 0, box.logs()
    assert box.sums() == undisturbed(box)
    assert box.given_up() == []


@pytest.mark.process
def test_a_worker_that_is_told_to_pack_does_and_its_parts_say_so(make_box: MakeBox, tiny_bert: Path) -> None:
    """The processor that it is held against pads."""
    texts = ["a b c", "d", "", "e f " * 60, "g h", "i"]
    python = forking.python(workers=True)
    packed = make_box(texts, model=tiny_bert, python=python, batching="packed")
    padded = make_box(texts, model=tiny_bert, python=python, why_padded="one computes on a GPU")
    for box in (packed, padded):
        assert box.end(box.worker()) == 0, box.logs()
    record, before = packed.record(0, 4), padded.record(0, 4)
    assert (record["batching"], record.get("why_padded")) == ("packed", None)
    assert (before["batching"], before["why_padded"]) == ("padded", "one computes on a GPU")
    assert record["padded_tokens"] == record["real_tokens"] == before["real_tokens"]
    found, expected = (np.load(box.folder.part(0, 4)) for box in (packed, padded))
    assert (found * expected).sum(axis=1).min() >= 1 - 1e-6
    assert packed.folder.known.read_bytes() == padded.folder.known.read_bytes()


@pytest.mark.process
def test_a_worker_that_cannot_pack_as_it_is_told_is_refused_in_words(make_box: MakeBox) -> None:
    box = make_box(TEXTS[:4], light=True, batching="packed")
    assert box.end(box.worker()) == EXIT_REFUSED
    assert "batches: expected packed, as the run began" in box.report()["reason"]
    assert "seen: it has no layers. Next: give it the libraries of then" in box.report()["reason"]
    assert box.parts() == []


@pytest.mark.process
def test_rows_that_another_slot_committed_are_not_done_again(make_box: MakeBox) -> None:
    """Ranges of an earlier plan need not fit the boundaries of this one."""
    box = make_box(TEXTS, light=True)
    box.folder.parts.mkdir()
    for start, stop in ((2, 6), (8, 16)):
        write_json(box.folder.part(start, stop).with_suffix(".json"), {"moved": True})
    assert left_to_do(box.told.slots[0], settled(box.folder)) == [(0, 2), (6, 8)]
    assert box.end(box.worker()) == 0, box.logs()
    assert box.parts() == [(0, 2), (2, 6), (6, 8), (8, 16)]
    assert box.record(2, 6) == {"moved": True}


def test_the_light_encoder_has_all_that_the_worker_needs_of_one() -> None:
    """So does any other that is put in; of the one with torch mypy holds it."""
    methods = {name for name in vars(AnyEncoder) if not name.startswith("_")}
    assert len(methods) == 12 and len(AnyEncoder.__annotations__) == 8
    stand_in = poison.Encoder(None, "cpu", "float32", None)
    assert isinstance(stand_in.describe(), Described)
    assert {*methods, *AnyEncoder.__annotations__} <= set(dir(stand_in))


def test_a_part_committed_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    folder = HostFolder(tmp_path)
    record = PartRecord.from_json({**PART, "run": "one", "start": 0, "stop": 2})
    encode.commit(folder, np.ones((2, 3), np.float32), record)
    before = folder.part(0, 2).read_bytes()
    encode.commit(folder, np.zeros((2, 3), np.float32), replace(record, run="another"))
    assert folder.part(0, 2).read_bytes() == before
    assert json.loads(folder.part(0, 2).with_suffix(".json").read_text())["run"] == "one"


@pytest.mark.process
def test_a_bad_row_is_given_up_by_name_and_the_others_are_done(make_box: MakeBox) -> None:
    texts = [*TEXTS[:10], "NAN here", *TEXTS[11:14], "NAN", "NAN"]
    box = make_box(texts, part_rows=16, light=True)
    assert box.end(box.worker()) == 0, box.logs()
    assert box.given_up() == [10, 14, 15]
    assert box.parts() == [(0, 10), (11, 14)]
    assert box.end(box.worker()) == 0  # nothing left to try
    assert box.report()["rows_committed"] == 13
    record = json.loads(box.folder.quarantined(10).read_text())
    bad = "NaN or infinity in the vector"
    assert record["reason"] == f"{bad}, also in float32; on the processor: {bad}" and record["slot"] == SLOT


@pytest.mark.process
def test_a_model_that_gives_only_bad_vectors_gives_up_no_row(make_box: MakeBox) -> None:
    box = make_box(["NAN"] * 8, part_rows=8, light=True)
    assert box.end(box.worker()) == EXIT_FAILED
    assert "the model or the device" in box.report()["reason"]
    assert box.given_up() == [] and box.parts() == []


# ------------------------------------------------------------------------------------------------------- full disks


def limited() -> None:
    """For the child: no file larger than 1,500 bytes; a report fits, a record of many rows does not."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))


@pytest.mark.process
def test_a_limit_on_files_ends_it_as_a_full_disk_and_nothing_is_half(make_box: MakeBox, undisturbed: Any) -> None:
    """Its log cannot grow either: that must not change what it says in its exit code and report."""
    box = make_box([f"text {i}" for i in range(60)], part_rows=60, light=True)
    log = box.folder.log(SLOT)
    log.parent.mkdir()
    log.write_bytes(b"-" * 1500)
    child = box.worker(preexec_fn=limited)
    assert box.end(child) == EXIT_DISK == 5, box.logs()
    assert box.report()["state"] == "failed" and os.strerror(errno.EFBIG) in box.report()["reason"]
    assert box.parts() == [] and box.leftovers() == []
    assert list(box.folder.progress(SLOT).parent.glob(".*")) == []
    assert not box.folder.suspects(SLOT).exists()  # the disk's fault, not the rows'
    assert box.end(box.worker()) == 0
    assert box.parts() == [(0, 60)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 kB, where we may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    with contextlib.suppress(FileNotFoundError):
        if os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0:
            yield place
            subprocess.run(["umount", "-l", str(place)], check=True)
            return
    pytest.skip("may not mount a small disk here; the limit on files stands in for it in another test")


@pytest.mark.process
def test_a_full_disk_stops_it_and_it_resumes_when_there_is_space(
    make_box: MakeBox, undisturbed: Any, small_disk: Path
) -> None:
    texts = [f"text {i}" for i in range(400)]
    box = make_box(texts, part_rows=100, light=True)
    for name in ("parts", "progress", "logs", "quarantine"):
        (small_disk / name).mkdir()
        (box.root / name).symlink_to(small_disk / name)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(88_000))
    assert box.end(box.worker()) == EXIT_DISK, box.logs()
    stayed = box.parts()
    assert stayed != [(0, 400)] and box.leftovers() == []
    assert set(box.folder.parts.glob("*.json")) == {box.folder.part(*p).with_suffix(".json") for p in stayed}
    box.sums()
    ballast.unlink()
    assert box.end(box.worker()) == 0, box.logs()
    assert [stop - start for start, stop in box.parts()] == [100] * 4
    assert left_to_do(box.told.slots[0], settled(box.folder)) == []
    box.sums()


# --------------------------------------------------------------------------------------------------------- suspects


@pytest.fixture
def suspects(tmp_path: Path) -> Any:
    """Tells the suspects that a new worker would find."""
    return lambda: Suspects(HostFolder(tmp_path), SLOT)


def test_a_death_names_the_rows_at_hand(suspects: Any) -> None:
    suspects().note([4, 5])
    found = suspects()
    assert (found.rows, found.deaths) == ([4, 5], 1)


def test_deaths_add_up_only_while_they_are_of_the_same_rows(suspects: Any) -> None:
    suspects().note([4, 5])
    suspects().note([4, 5])
    assert suspects().deaths == 2
    found = suspects()
    found.note([4])  # part of the same
    assert suspects().deaths == 3
    found.note([7, 8])  # others
    assert suspects().deaths == 1


def test_rows_that_came_to_their_end_are_no_suspects(suspects: Any) -> None:
    found = suspects()
    found.note([1])
    found.clear()
    assert (suspects().rows, suspects().deaths) == ([], 0)


def test_a_reboot_is_nobodys_fault(suspects: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    suspects().note([1])
    monkeypatch.setattr(process, "boot_id", lambda: "after the power cut")
    assert suspects().deaths == 0


def test_a_lock_that_cannot_be_had_at_all_is_not_taken_for_a_second_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a network disk without locks would have the supervisor wait for ever."""

    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.raises(OSError, match=r"cannot lock this file.*slot\.lock"):
        encode.take_lock(tmp_path / "slot.lock")


# ------------------------------------------------------------------------------------------------------------ older


@pytest.mark.parametrize("path", sorted(Path(worker.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_the_worker_can_be_read_by_python_3_9(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    imported = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    assert imported or path.name == "__init__.py"


@pytest.mark.process
def test_the_worker_without_its_encoder_needs_the_standard_library_only(make_box: MakeBox) -> None:
    """`-I -S`: no installed package can be imported. What is done needs neither numpy nor torch."""
    box = make_box(TEXTS[:4], light=True)
    box.folder.parts.mkdir()
    write_json(box.folder.part(0, 4).with_suffix(".json"), {})
    code = f"import sys; sys.path.insert(0, {str(box.root)!r}); from worker.__main__ import main; sys.exit(main())"
    argv = [sys.executable, "-I", "-S", "-c", code, "encode", "--root", str(box.root), "--host", HOST, "--slot", SLOT]
    assert subprocess.run(argv, stdout=subprocess.DEVNULL).returncode == 0
    argv[5:] = ["supervise", "--root", str(box.root), "--host", HOST]
    assert subprocess.run(argv, stdout=subprocess.DEVNULL).returncode == 0

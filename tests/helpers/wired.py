"""Records of the wire (`worker.wire`) as JSON, for tests that write them by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MODEL = {"name": "owner/model", "revision": "0" * 40, "digest": "1" * 64}

PART: dict[str, Any] = {
    **{"format": 1, "start": 10, "stop": 12, "sha256": "a" * 64, "bytes": 144, "dim": 2},
    **{"slot": "cluster0_gpu0", "host": "one", "run": "t", "run_id": "f" * 32, "corpus": "c", "epoch": 1},
    **{"model": MODEL, "dtype": "float32", "prompt": "{text}", "question_prompt": "{text}", "max_tokens": 512},
    **{"normalises": True, "device": "cpu", "torch": "2", "python": "3.11", "model_max_tokens": None, "threads": 1},
    **{"fingerprints": ["0" * 32, None], "tokens": [3, 600], "norms": [1.0, 0.5], "truncated": [11]},
    **{"redone_float32": [10], "done_by_processor": {"10": "why"}, "by_processor": 1, "out_of_memory": 0},
    **{"batching": "packed", "real_tokens": 515, "padded_tokens": 520, "seconds": 0.25, "written_at": 1.7e9},
}


def shard(start: int, stop: int) -> dict[str, Any]:
    """Rows of an assignment, cut from their own beginning on, in a file of their own."""
    return {"start": start, "stop": stop, "grid": start, "file": [start, stop], "sha256": "a" * 64}


def slot(name: str, *ranges: tuple[int, int]) -> dict[str, Any]:
    """A slot of an assignment, with these rows."""
    shards = [shard(*rows) for rows in ranges]
    return {"slot": name, "device": "cpu", "gpu": None, "threads": 1, "part_rows": 4, "shards": shards}


def assignment(slots: Sequence[Any], **more: Any) -> dict[str, Any]:
    """What a host is to do, as launch writes it."""
    said = {"format": 1, "run": "t", "run_id": "f" * 32, "host": "here", "epoch": 1, "corpus": "c", "python": "python"}
    how = {
        "batching": "padded",
        "dtype": "float32",
        "prompt": "{text}",
        "question_prompt": "{text}",
        "max_tokens": None,
    }
    return {**said, **how, "model": {**MODEL, "folder": "/model"}, "slots": list(slots), **more}


def reading(**said: Any) -> dict[str, Any]:
    """What a host answers to `poll`: of nothing, but for what is said here."""
    lists: dict[str, Any] = {"committed": [], "quarantined": [], "given_up": [], "slots": {}, "supervisor": None}
    flags = {"assigned": True, "supervisor_alive": False, "stop_requested": False}
    return {**lists, **flags, "now": 101.0, "epoch": 1, **said}


def slot_reading(**said: Any) -> dict[str, Any]:
    """A slot of such an answer."""
    return {"ranges": [], "gpu": None, "alive": False, "report": None, "exits": [], **said}

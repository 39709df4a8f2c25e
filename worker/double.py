"""Batches of parts computed once more on another slot than the one that did them, laid out as they were there.

Which parts and which batches is drawn by the operator's machine after all parts are home, so no slot could know. What
comes out is compared there: slots of one kind must give the same bits.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import owned
from .allotted import GPUS, gpu_of
from .any_encoder import AnyEncoder
from .device import settle
from .escape import safe_text
from .files import read_json, write_json
from .layout import HostFolder
from .starting import ALWAYS, THREADS
from .texts import Question
from .wire import Doubled, DoubledBatch, PartAgain, PartsAgain, SlotSpec, read_assignment

LIMIT = 2**30  # bytes of an order: the texts of a part a slot


def run(root: Path, host: str, slot: str) -> int:
    """Do what `doubled/<slot>.json` asks, on this slot's device, and leave the answer beside it."""
    folder = HostFolder(root)
    assignment = read_assignment(folder.assignment(host))
    order = PartsAgain.from_json(read_json(folder.doubled(slot), LIMIT), f"{folder.doubled(slot)}:")
    spec = next((spec for spec in assignment.slots if spec.slot == slot), None) if assignment else None
    if assignment is None or spec is None:
        return _refuse(f"{folder.assignment(host)}: no slot {slot}")
    if why := owned.used(root, Path(assignment.model.folder)):  # as a worker does before it loads
        return _refuse(why)
    _settle(spec)
    from .encode import load

    encoder = load(assignment, spec.device, assignment.dtype, spec.threads)
    done = tuple(_again(encoder, part) for part in order.parts)
    described = encoder.describe()
    answer = Doubled(described.device or "", described.torch or "", done)
    write_json(folder.doubled_answer(slot), answer.to_json())
    return 0


def _refuse(why: str) -> int:
    """Say why nothing is done, where the operator's machine reads it."""
    print(safe_text(why), file=sys.stderr)
    return 1


def _settle(spec: SlotSpec) -> None:
    """Give this process what its supervisor gives a worker of the slot, before torch is imported."""
    environment = {**settle(spec.device, os.environ), **dict.fromkeys(THREADS, str(spec.threads)), **ALWAYS}
    if spec.device == "cuda":
        environment[GPUS] = gpu_of(spec.gpu, os.environ)
    for key in {*os.environ} - {*environment}:
        del os.environ[key]
    os.environ.update(environment)


def _again(encoder: AnyEncoder, part: PartAgain) -> DoubledBatch:
    """One batch of a part; what goes wrong with it is told in its place."""
    texts = [Question(text) if row >= part.documents else text for row, text in zip(part.rows, part.texts)]
    try:
        before = encoder.out_of_memory
        rows, vectors = _alone(encoder, texts) if part.alone else _batch(encoder, texts, part)
        if encoder.out_of_memory != before:
            return DoubledBatch(part.start, (), 0, "", "out of memory: it was not laid out as before")
    except Exception as error:
        return DoubledBatch(part.start, (), 0, "", f"{type(error).__name__}: {error}"[:1000])
    raw = base64.b64encode(vectors.tobytes()).decode()
    return DoubledBatch(part.start, tuple(part.rows[i] for i in rows), int(vectors.shape[1]), raw, "")


def _alone(encoder: AnyEncoder, texts: Sequence[str]) -> tuple[list[int], Any]:
    """(positions, vectors) of all texts, each computed alone."""
    import numpy as np

    each = [encoder.encode([text], encoder.lengths([text]), [-1]) for text in texts]
    return list(range(len(texts))), np.concatenate(each)


def _batch(encoder: AnyEncoder, texts: Sequence[str], part: PartAgain) -> tuple[list[int], Any]:
    """(positions, vectors) of the batch that was drawn, or the next that alone is laid out as among the others."""
    lengths = encoder.lengths(texts)
    layout = encoder.layout(lengths, texts)
    avoid = {i for i, row in enumerate(part.rows) if row in set(part.avoid)}
    for turn in range(len(layout)):
        batch = layout[(part.draw + turn) % len(layout)]
        some, some_lengths = [texts[i] for i in batch], [lengths[i] for i in batch]
        if avoid.isdisjoint(batch) and encoder.layout(some_lengths, some) == [list(range(len(batch)))]:
            return batch, encoder.encode(some, some_lengths, [-1] * len(batch))
    raise ValueError("no batch of it can be laid out alone as it was among the others")

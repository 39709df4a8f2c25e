"""Measuring ways of encoding: the figures of an `Encoding` or of `Int8`, as results.json keeps them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import models
import peers
from packing import plan_part_rows
from work import NEEDS, Encoding, Int8


@dataclass(frozen=True)
class Given:
    """What the person gave on the command line."""

    corpus: Path | None
    questions: Path | None
    rounds: int
    quick: bool
    pythons: Mapping[str, str]  # name of a peer's environment -> its Python, empty where there is none


def pythons(ways: tuple[str, ...], given: Given) -> tuple[dict[str, str], dict[str, str]]:
    """(way -> the Python to run it by, way -> how to get what it needs)."""
    there = {way: given.pythons[NEEDS[way]] if way in NEEDS else measuring.own_python() for way in ways}
    missing = {way: f"not installed. Next: {peers.HOW.format(name=NEEDS[way])}" for way in ways if not there[way]}
    if "fastembed" in there and not given.pythons["onnx"]:
        missing["fastembed"] = f"the ONNX environment exports its model. Next: {peers.HOW.format(name='onnx')}"
    return {way: python for way, python in there.items() if way not in missing}, missing


def ways_of(what: Encoding | Int8) -> tuple[str, ...]:
    """The ways that take turns, the yardstick first."""
    return ("encode", *what.ways) if isinstance(what, Int8) else ("encode", "packed", *what.peers)


def texts_of(what: Encoding | Int8, given: Given) -> list[str]:
    """The texts to be encoded; for `quick` a dozen."""
    if isinstance(what, Int8):
        count = 24 if given.quick else what.texts
        return models.all_of(given.corpus)[:count] if given.corpus else models.made_up(count)
    count = 12 if given.quick else what.texts
    if what.of_large and not given.quick:
        return models.as_of_a_large_call(models.texts_of(given.corpus, models.MANY, what.articles), count)
    return models.texts_of(given.corpus, count, what.articles)


def rounds_of(what: Encoding | Int8, given: Given) -> int:
    """How many rounds; one is enough for 8 bits, since what is lost does not change."""
    return 1 if isinstance(what, Int8) else given.rounds


def measure(what: Encoding | Int8, given: Given, tell: measuring.Tell) -> dict[str, Any]:
    """The figures of one measurement. Raises WayEnded where the yardstick or the worker fails."""
    shape, limit = ("minilm", 256) if isinstance(what, Int8) else (what.shape, what.limit)
    texts = texts_of(what, given)
    questions, answers = models.questions_of(given.questions) if shape == "minilm" else ([], [])
    if not isinstance(what, Int8):
        answers = []  # their texts are some of the corpus: the row that answers may not be among them
    there, missing = pythons(ways_of(what), given)
    part_rows = plan_part_rows(shape, texts, limit)
    with tempfile.TemporaryDirectory() as scratch:
        tell("making the model")
        folder = models.model_folder(shape, 1 if given.quick else None, limit, Path(scratch))
        job = {"model": str(folder), "texts": texts, "questions": questions, "limit": limit}
        job |= {"threads": what.threads, "part_rows": part_rows, "scratch": scratch}
        if "fastembed" in there:
            failed = measuring.take_turns({"exported": there["onnx"]}, job, 0, tell).failed
            if failed:
                missing["fastembed"] = f"its model could not be exported: {failed['exported']}"
                del there["fastembed"]
        turns = measuring.take_turns(there, job, rounds_of(what, given), tell)
    for way in ("encode", "packed"):
        if way in there and way in turns.failed:
            raise measuring.WayEnded(f"{way}: {turns.failed[way]}")
    return figures_of(turns, missing, answers, texts) | {"part_rows": part_rows, "questions": len(questions)}


def figures_of(
    turns: measuring.Turns, missing: Mapping[str, str], answers: list[int | None], texts: list[str]
) -> dict[str, Any]:
    """What is kept of the turns."""
    lengths = turns.said["encode"]["lengths"]
    close = measuring.closeness(turns, "encode", answers)
    ways = {
        way: {
            "seconds": [[round(value, 4) for value in pair] for pair in seconds],
            **close[way],
            "note": turns.said[way].get("note", ""),
            "versions": turns.said[way]["versions"],
        }
        for way, seconds in turns.seconds.items()
    }
    failed = {**missing, **{way: f"it failed: {why}" for way, why in turns.failed.items()}}
    padding = round(models.padding_of_encode(lengths, texts), 3)
    return {"ways": ways, "failed": failed, "texts": len(texts), "tokens": sum(lengths), "padding": padding}

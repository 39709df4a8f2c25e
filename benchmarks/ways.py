"""One way of encoding texts, in a process of its own: ours, the library's, and those of its peers.

    PYTHON benchmarks/ways.py WAY JOB.json       (started by measuring.py; PYTHON may be a peer's own environment)

It loads, says so by a line of JSON, then answers each line of its input: {"do": "encode", "first": 64} encodes the
first texts (all without `first`) and gives seconds; {"do": "save"} writes the last vectors, {"do": "questions"} those
of the questions, to "path". What libraries print goes to the standard error output.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = ("torch", "sentence-transformers", "transformers", "onnxruntime", "openvino", "fastembed", "numpy")
SIZES = (8, 16, 32)  # of batches that are tried for the best one
Encode = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Job:
    """What is to be encoded, and how."""

    model: str  # its folder
    texts: list[str]
    questions: list[str]
    limit: int  # tokens that are read of a text
    threads: int
    part_rows: int
    scratch: str  # a folder of this benchmark


def library(job: Job, **more: Any) -> Any:
    """The model as sentence-transformers loads it."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(job.model, device="cpu", **more)
    model.max_seq_length = job.limit
    return model


def encode(job: Job) -> Encode:
    """One call of the library's `encode` with its defaults."""
    model = library(job)
    said["lengths"] = tokens(model, job)
    return by_library(model)


def by_library(model: Any, **more: Any) -> Encode:
    """What encodes by `encode` of a loaded model."""
    return lambda texts: model.encode(texts, show_progress_bar=False, **more)


def tokens(model: Any, job: Job) -> list[int]:
    """How many tokens the model reads of each text."""
    encoded = model.tokenizer(job.texts, truncation=True, max_length=job.limit)
    return [len(ids) for ids in encoded["input_ids"]]


def best_batch(job: Job) -> Encode:
    """The same with the batch size, of 8, 16 and 32, that was fastest on some of the texts at the first call."""
    model, some = library(job), job.texts[:: max(1, len(job.texts) // 128)][:128]
    best: list[int] = []

    def took(size: int) -> float:
        began = time.perf_counter()
        model.encode(some, batch_size=size, show_progress_bar=False)
        return time.perf_counter() - began

    def work(texts: list[str]) -> np.ndarray:
        if not best:
            took(SIZES[-1])  # warms up
            best.append(min(SIZES, key=took))
        said["note"] = f"batches of {best[0]}"
        vectors: np.ndarray = model.encode(texts, batch_size=best[0], show_progress_bar=False)
        return vectors

    return work


def pool(job: Job) -> Encode:
    """The library's pool of two processes, each with half the threads."""
    model = library(job)
    processes = model.start_multi_process_pool(["cpu", "cpu"])
    endings.append(lambda: model.stop_multi_process_pool(processes))
    return by_library(model, pool=processes)


def onnx_options(job: Job) -> dict[str, Any]:
    """How the library is to load a model for ONNX Runtime: exported, with as many threads as all others have."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    return {"provider": "CPUExecutionProvider", "session_options": options}


def onnx(job: Job) -> Encode:
    """The library's ONNX backend in float32."""
    return by_library(library(job, backend="onnx", model_kwargs={**onnx_options(job), "export": True}))


def openvino(job: Job) -> Encode:
    """The library's OpenVINO backend in float32, which has to be asked for: on some processors it takes bfloat16."""
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": job.threads}
    return by_library(library(job, backend="openvino", model_kwargs={"export": True, "ov_config": config}))


def exported(job: Job) -> Encode:
    """Not a way: leaves the model as ONNX in the scratch folder, where fastembed finds it."""
    target = Path(job.scratch) / "exported"
    model = library(job, backend="onnx", model_kwargs={"provider": "CPUExecutionProvider", "export": True})
    model.save_pretrained(str(target), create_model_card=False)
    (target / "onnx" / "model.onnx").replace(target / "model.onnx")
    return by_library(model)


def fastembed(job: Job) -> Encode:
    """fastembed with the same weights, exported by the ONNX environment; its batches are of 256."""
    from fastembed import TextEmbedding

    name = "sentence-transformers/all-MiniLM-L6-v2"
    folder = str(Path(job.scratch) / "exported")
    model = TextEmbedding(model_name=name, specific_model_path=folder, threads=job.threads)
    model.model.tokenizer.enable_truncation(max_length=job.limit)
    return lambda texts: np.stack(list(model.embed(texts)))


def founding(job: Job) -> Encode:
    """The founding plan's way: 32 rows after the other in corpus order, and after each call all so far is pickled."""
    model, checkpoint = library(job), Path(job.scratch) / "checkpoint.pkl"

    def work(texts: list[str]) -> np.ndarray:
        done: list[np.ndarray] = []
        for start in range(0, len(texts), 32):
            done.extend(model.encode(texts[start : start + 32], batch_size=32, show_progress_bar=False))
            with checkpoint.open("wb") as file:
                pickle.dump({"embeddings": done, "rows": start + 32}, file)
        return np.stack(done)

    return work


def int8(job: Job) -> Encode:
    """torch's dynamic quantisation of the linear layers to 8 bits."""
    import warnings

    import torch

    warnings.simplefilter("ignore")  # torch says that this will move to another package
    model = library(job)
    torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
    return by_library(model)


def onnx_int8(job: Job) -> Encode:
    """The library's own dynamic quantisation of its ONNX backend to 8 bits."""
    from sentence_transformers.backend import export_dynamic_quantized_onnx_model

    plain, target = Path(job.scratch) / "int8", "avx2"
    if platform.machine() in ("arm64", "aarch64"):
        target = "arm64"
    elif Path("/proc/cpuinfo").exists() and "avx512_vnni" in Path("/proc/cpuinfo").read_text():
        target = "avx512_vnni"
    model = library(job, backend="onnx", model_kwargs={"provider": "CPUExecutionProvider", "export": True})
    model.save_pretrained(str(plain), create_model_card=False)
    export_dynamic_quantized_onnx_model(model, target, str(plain))
    said["note"] = f"for {target}"
    kwargs = {**onnx_options(job), "file_name": f"onnx/model_qint8_{target}.onnx"}
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(plain), device="cpu", backend="onnx", model_kwargs=kwargs)
    model.max_seq_length = job.limit
    return by_library(model)


def worker(job: Job, packed: bool) -> Encode:
    """Our worker's encoder, in parts of the plan's size."""
    from worker import malloc
    from worker.encoder import Encoder

    malloc.keep()
    encoder = Encoder(Path(job.model), "cpu", "float32", job.limit, job.threads)
    if packed and (why := encoder.pack()):
        raise SystemExit(f"it cannot be packed: {why}")

    def by_parts(texts: list[str]) -> np.ndarray:
        found = []
        for start in range(0, len(texts), job.part_rows):
            part = texts[start : start + job.part_rows]
            found.append(encoder.encode(part, encoder.lengths(part), range(len(part))))
        return np.concatenate(found)

    return by_parts


WAYS: dict[str, Callable[[Job], Encode]] = {
    "encode": encode,
    "packed": lambda job: worker(job, True),
    "padded": lambda job: worker(job, False),
    "best batch": best_batch,
    "pool": pool,
    "onnx": onnx,
    "openvino": openvino,
    "exported": exported,
    "fastembed": fastembed,
    "founding": founding,
    "int8": int8,
    "onnx int8": onnx_int8,
}
said: dict[str, Any] = {}
"""What a way says of itself once it is loaded."""
endings: list[Callable[[], None]] = []
"""What a way has to end."""


def versions() -> dict[str, str]:
    """Versions of the libraries in this environment that bear on speed."""
    there = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            there[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return there


def main() -> None:
    """Be one way until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    job = Job(**json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    work = WAYS[sys.argv[1]](job)

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer({**said, "versions": versions()})
    vectors = np.empty((0, 0), np.float32)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "encode":
            began, cpu = time.perf_counter(), time.process_time()
            vectors = np.asarray(work(job.texts[: asked.get("first")]), np.float32)
            answer({"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu, **said})
        else:
            np.save(asked["path"], vectors if asked["do"] == "save" else np.asarray(work(job.questions), np.float32))
            answer({})
    for end in endings:
        end()


if __name__ == "__main__":
    main()

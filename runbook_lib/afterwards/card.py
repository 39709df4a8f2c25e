"""What an exported result says about itself: facts for its metadata, a dataset card, and a Croissant description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from worker.escape import safe_text
from worker.files import sha256_file

from ..result.loss import Loss
from . import croissant
from .finished import Finished

KINDS = {
    "int32": "sc:Integer",
    "int64": "sc:Integer",
    "uint64": "sc:Integer",
    "bool": "sc:Boolean",
    "string": "sc:Text",
}


def facts(result: Finished, loss: Loss | None) -> dict[str, str]:
    """What the vectors are of and how they were made, as text: for the metadata of a file."""
    manifest = result.manifest
    model = manifest.model
    told = {
        "run": manifest.run,
        "made": manifest.timestamp,
        "model": model.name,
        "model_revision": model.revision,
        "model_digest": model.digest,
        "dtype": manifest.dtype,
        "prompt": manifest.prompt,
        "question_prompt": manifest.question_prompt,
        "corpus_fingerprint": manifest.corpus,
        "matrix_sha256": manifest.outputs[result.merged.embeddings.name].sha256,
        "made_with": "embedding-runbook",
    }
    return told | ({"float16_loss": str(loss)} if loss else {})


def write(folder: Path, result: Finished, schema: Any, loss: Loss | None) -> None:
    """Write README.md and croissant.json beside the data of a folder for `datasets`."""
    shards = sorted((folder / "data").glob("*.parquet"))
    (folder / "README.md").write_text(_card(result, schema, loss), encoding="utf-8")
    (folder / "croissant.json").write_text(
        json.dumps(_croissant(result, schema, shards, folder), ensure_ascii=False, indent=1), encoding="utf-8"
    )


def _card(result: Finished, schema: Any, loss: Loss | None) -> str:
    manifest, told = result.manifest, facts(result, loss)
    name = safe_text(manifest.model.name, 200)
    columns = "\n".join(f"| `{field.name}` | {field.type} | {croissant.MEANING[field.name]} |" for field in schema)
    made = "\n".join(f"| {key} | `{safe_text(value, 300)}` |" for key, value in told.items())
    cut = manifest.lengths.documents
    half = f"\nStored in float16: {loss}, held against float32.\n" if loss else ""
    return f"""---
pretty_name: {json.dumps(f"{manifest.run}: {manifest.documents:,} embeddings")}
tags: [embeddings, sentence-transformers]
size_categories: [{_size(manifest.documents)}]
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
---

# {manifest.documents:,} embeddings of {name}

Each row is a document of one corpus with its vector of {manifest.dim} numbers. {cut.truncated_rows:,} documents were
longer than the model reads; of all tokens {cut.share_cut:.2%} were cut.
{half}
```python
from datasets import load_dataset
data = load_dataset("PATH OF THIS FOLDER", split="train").with_format("numpy")
```

Questions are encoded by the same model with the prompt `{safe_text(manifest.question_prompt, 300)}`; compare by cosine.

| column | type | what it is |
|---|---|---|
{columns}

| how it was made | |
|---|---|
{made}

The licence of the texts is their owner's, that of the model its maker's: state both here before you publish this.
"""


def _size(rows: int) -> str:
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"),
                        (10**7, "1M<n<10M"), (10**8, "10M<n<100M")):  # fmt: skip
        if rows < limit:
            return name
    return "100M<n<1B"


def _croissant(result: Finished, schema: Any, shards: list[Path], folder: Path) -> dict[str, Any]:
    """Return the description of the folder: each shard with its sha256, and one set of records over all of them."""
    manifest, form = result.manifest, "application/x-parquet"
    files = [
        croissant.file(f"shard-{number}", at.relative_to(folder).as_posix(), at.stat().st_size, form, sha256_file(at))
        for number, at in enumerate(shards)
    ]
    every = {
        "@type": "cr:FileSet",
        "@id": "shards",
        "containedIn": [{"@id": each["@id"]} for each in files],
        "encodingFormat": form,
        "includes": "data/*.parquet",
    }
    one = len(files) == 1
    source = {"fileObject": {"@id": files[0]["@id"]}} if one else {"fileSet": {"@id": "shards"}}
    fields = [_field(field, manifest.dim, source) for field in schema]
    title = f"{manifest.documents} documents with embeddings of {manifest.model.name}"
    distribution = files if one else [*files, every]
    return croissant.dataset(manifest.run, title, manifest.timestamp, distribution, "documents", fields)


def _field(field: Any, dim: int, source: dict[str, Any]) -> dict[str, Any]:
    vector = field.name == "vector"
    told = croissant.field("documents", field.name, "sc:Float" if vector else KINDS[str(field.type)], source)
    return told | ({"isArray": True, "arrayShape": str(dim)} if vector else {})

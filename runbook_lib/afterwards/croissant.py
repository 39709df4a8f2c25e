"""Croissant 1.1: the description of a data set that other people's tools read (mlcommons.org)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]

# Croissant's own context (docs.mlcommons.org/croissant/docs/croissant-spec.html), as its readers expect it.
_CR = ("citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes",
       "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated",
       "replace", "separator", "source", "subField", "transform", "arrayShape", "isArray")  # fmt: skip
CONTEXT: Json = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "equivalentProperty": "cr:equivalentProperty",
    "samplingRate": "cr:samplingRate",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{name: f"cr:{name}" for name in _CR},
}
MEANING = {
    "row": "the number of the document, from 0, in the corpus's order",
    "id": "what the corpus calls the document",
    "title": "its title; empty if it has none",
    "url": "its address; empty if it has none",
    "tokens": "its length in tokens before it was cut, special tokens included",
    "truncated": "whether the model read only its beginning",
    "chunks": "in how many chunks it was read: the vector is their mean",
    "text": "its text as it was encoded, with the prompt",
    "vector": "its embedding",
}


def file(key: str, path: str, size: int, form: str, sha256: str) -> Json:
    """Return a file of the data set: its path from the description, its size in bytes, its media type."""
    return {
        "@type": "cr:FileObject",
        "@id": key,
        "name": Path(path).name,
        "contentUrl": path,
        "contentSize": f"{size} B",
        "encodingFormat": form,
        "sha256": sha256,
    }


def field(records: str, name: str, kind: str, source: Json) -> Json:
    """Return a field of records, which is the column of that name in `source`."""
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{name}",
        "name": name,
        "description": MEANING[name],
        "dataType": kind,
        "source": {**source, "extract": {"column": name}},
    }


def dataset(
    run: str, description: str, at: str, distribution: Sequence[Json], records: str, fields: Sequence[Json]
) -> Json:
    """Return the whole of it: files, and one set of records; `at`: when it was made, an ISO time."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in run),
        "description": description,
        "version": "1.0.0",
        "datePublished": at[:10],
        "distribution": distribution,
        "recordSet": [{"@type": "cr:RecordSet", "@id": records, "name": records, "field": fields}],
    }

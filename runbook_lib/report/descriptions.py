"""The archive in forms that other people's tools read: RO-Crate, Croissant, and an in-toto statement with provenance.

Each follows from the run's files and says nothing that they do not; they are written when the run is sealed:

    ro-crate-metadata.json    RO-Crate 1.2, profile Process Run Crate 0.5 (researchobject.org)
    croissant.json            Croissant 1.1: articles as records, the matrix as a file (mlcommons.org)
    provenance.intoto.json    in-toto Statement v1 with SLSA provenance v1 (in-toto.io, slsa.dev)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.files import sha256_file, write_atomic

from .. import records
from ..afterwards import croissant
from ..corpus import corpus as corpora
from ..records import Written
from ..result import facts
from ..result import whole as wholes
from ..result.manifest import Manifest
from ..result.merged import Merged
from ..run.run import Run
from . import figures_shown, made_with
from .made_with import MadeWith

RO_CRATE, CROISSANT, PROVENANCE = "ro-crate-metadata.json", "croissant.json", "provenance.intoto.json"
FILES = (RO_CRATE, CROISSANT, PROVENANCE)
STATEMENT = "https://in-toto.io/Statement/v1"
BUILDER = "urn:embedding-runbook"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
TYPES = {
    ".npy": "application/x-npy",
    ".jsonl": "application/jsonlines",
    ".json": "application/json",
    ".yaml": "application/yaml",
}
LICENCE = "The texts are their owner's, the model its maker's; neither licence is this software's to state."
Json = dict[str, Any]


@dataclass(frozen=True)
class _Subject:
    """What is described: a run's result, what it was made from and with, and when."""

    run: Run
    manifest: Manifest
    corpus: corpora.Corpus
    made_with: MadeWith
    began: str
    ended: str

    @property
    def outputs(self) -> dict[str, Written]:
        """The merged files, by their path in the archive."""
        return {f"{self.run.merged.name}/{name}": stated for name, stated in sorted(self.manifest.outputs.items())}


def write(run: Run) -> list[Path]:
    """Write the descriptions of a run with a result; of another one nothing. Return what was written."""
    manifest, record = Merged(run.merged).manifest(), records.read(MadeWith, run.report / made_with.FILE)
    if manifest is None or record is None:
        return []
    start, end = figures_shown.period(facts.gather(run))
    subject = _Subject(
        run,
        manifest,
        wholes.all_documents(run),
        record,
        *(at.isoformat(timespec="seconds") if at else manifest.timestamp for at in (start, end)),
    )
    contents = {RO_CRATE: _ro_crate(subject), CROISSANT: _croissant(subject), PROVENANCE: _provenance(subject)}
    paths = [run.folder / name for name in contents]
    for path, value in zip(paths, contents.values(), strict=True):
        write_atomic(path, json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))
    return paths


def _title(s: _Subject) -> str:
    return f"{s.manifest.documents:,} embeddings of {s.manifest.model.name}"


# ---------------------------------------------------------------------------------------------------------- RO-Crate


def _ro_crate(s: _Subject) -> Json:
    """Return the crate: one action that made the merged files from corpus and model, with this software."""
    inputs = [_file(name, stated, "the corpus as it was numbered") for name, stated in _corpus_files(s).items()]
    results = [_file(name, stated, "the result") for name, stated in s.outputs.items()]
    named = [*inputs, *results, _file("profile.yaml", Written.of(s.run.profile_file), "what the operator chose")]
    model: Json = {
        "@id": "#model",
        "@type": "CreativeWork",
        "name": s.manifest.model.name,
        "version": s.manifest.model.revision,
        "identifier": f"sha256:{s.manifest.model.digest}",
        "license": s.made_with.model.licence or "not stated in its files",
    }
    action: Json = {
        "@id": f"#run-{s.run.id or s.manifest.run}",
        "@type": "CreateAction",
        "name": f"Run {s.manifest.run}",
        "description": f"To make it again, in this folder: {s.made_with.command}",
        "instrument": {"@id": "#software"},
        "agent": {"@id": "#operator"},
        "object": [{"@id": each["@id"]} for each in (*inputs, model, named[-1])],
        "result": [{"@id": each["@id"]} for each in results],
        "startTime": s.began,
        "endTime": s.ended,
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }
    return {
        "@context": "https://w3id.org/ro/crate/1.2/context",
        "@graph": [*_root(s, named, action), *named, model, action, *_people_and_tools(s)],
    }


def _root(s: _Subject, named: list[Json], action: Json) -> list[Json]:
    descriptor = {
        "@id": RO_CRATE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.2"},
    }
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": _title(s),
        "description": f"The archive of run {s.manifest.run}: row i of the matrix is the vector of document i.",
        "datePublished": s.ended,
        "license": {"@id": "#licence"},
        "conformsTo": {"@id": PROFILE},
        "hasPart": [{"@id": each["@id"]} for each in named],
        "mentions": {"@id": action["@id"]},
    }
    return [descriptor, root]


def _people_and_tools(s: _Subject) -> list[Json]:
    source = s.made_with.source
    changes = {None: ", whether with changes is not known", True: ", with changes", False: ""}[source.dirty]
    commit = f" (commit {source.commit}{changes})" if source.commit else ""
    software: Json = {
        "@id": "#software",
        "@type": "SoftwareApplication",
        "name": "embedding-runbook",
        "url": BUILDER,
        "version": source.version or "unknown",
        "softwareVersion": f"{source.version}{commit}",
        "identifier": f"sha256:{source.library}",
    }
    operator = "who ran it; a signature of SHA256SUMS says who that is"
    return [
        software,
        {"@id": "#operator", "@type": "Person", "name": operator},
        {"@id": "#licence", "@type": "CreativeWork", "name": "not stated", "description": LICENCE},
        {"@id": PROFILE, "@type": ["CreativeWork", "Profile"], "name": "Process Run Crate", "version": "0.5"},
    ]


def _corpus_files(s: _Subject) -> dict[str, Written]:
    folder = s.corpus.folder.name
    return {f"{folder}/{name}": stated for name, stated in sorted(s.corpus.files.items())}


def _media_type(name: str) -> str:
    return TYPES.get(Path(name).suffix, "application/octet-stream")


def _file(name: str, stated: Written, what: str) -> Json:
    return {
        "@id": name,
        "@type": "File",
        "name": Path(name).name,
        "description": what,
        "contentSize": str(stated.bytes),
        "sha256": stated.sha256,
        "encodingFormat": _media_type(name),
    }


# --------------------------------------------------------------------------------------------------------- Croissant


def _croissant(s: _Subject) -> Json:
    """Return the result as a data set: the articles as records, in the order of the matrix's rows."""
    files = [
        croissant.file(name, name, stated.bytes, _media_type(name), stated.sha256) for name, stated in s.outputs.items()
    ]
    articles = {"fileObject": {"@id": f"{s.run.merged.name}/{Merged(s.run.merged).articles.name}"}}
    kinds = {"row": "Integer", "title": "Text", "url": "Text", "tokens": "Integer", "truncated": "Boolean"}
    fields = [croissant.field("articles", name, f"sc:{kind}", articles) for name, kind in kinds.items()]
    title = f"{_title(s)}. Row i of embeddings.npy is the vector of the record with row i."
    return croissant.dataset(s.manifest.run, title, s.ended, files, "articles", fields)


# -------------------------------------------------------------------------------------------------------- provenance


def _provenance(s: _Subject) -> Json:
    """Return a statement about the merged files: what they were built from, by what, and when."""
    profile = _resource("profile.yaml", sha256_file(s.run.profile_file))
    weights = {f"model/{name}": sha256 for name, sha256 in s.made_with.model.files.items()}
    sources = {
        "corpus": s.corpus.source_sha256,
        **({"questions": s.corpus.questions_sha256} if s.corpus.questions_sha256 else {}),
    }
    materials = [_resource(name, str(sha256)) for name, sha256 in {**sources, **weights}.items()]
    code = s.made_with.source
    materials += [_resource("embedding-runbook", code.library)] if code.library else []
    return {
        "_type": STATEMENT,
        "subject": [_resource(name, stated.sha256) for name, stated in s.outputs.items()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{BUILDER}:run:1",
                "externalParameters": {"profile": profile, "command": s.made_with.command},
                "internalParameters": {"git": {"commit": code.commit, "dirty": code.dirty}},
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {
                    "id": f"{BUILDER}:{code.version or 'unknown'}",
                    "version": {"embedding-runbook": code.version},
                },
                "metadata": {"invocationId": s.run.id or s.manifest.run, "startedOn": s.began, "finishedOn": s.ended},
                "byproducts": [_resource(made_with.FILE, sha256_file(s.run.report / made_with.FILE))],
            },
        },
    }


def _resource(name: str, sha256: str) -> Json:
    return {"name": name, "digest": {"sha256": sha256}}

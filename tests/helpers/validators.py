"""Other people's validators, in an environment of their own: they pin, warn, patch and cache as they like.

RO-Crate's would fetch its context from the network: the terms that we use are given to it instead.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import registry

CRATE = """
import json, sys
from rdflib.plugins.shared.jsonld import context, util
TERMS = {"@vocab": "http://schema.org/", "File": "http://schema.org/MediaObject",
         "conformsTo": "http://purl.org/dc/terms/conformsTo", "Profile": "http://www.w3.org/ns/dx/prof/Profile"}
usual = util.source_to_json
def local(source, *rest, **more):
    return ({"@context": TERMS}, None) if "w3id.org" in str(source) else usual(source, *rest, **more)
util.source_to_json = context.source_to_json = local
from rocrate_validator import services
from rocrate_validator.models import Severity
settings = services.ValidationSettings(rocrate_uri=sys.argv[1], profile_identifier=sys.argv[2],
                                       requirement_severity=Severity.REQUIRED, enable_profile_inheritance=False)
found = [issue.message for issue in services.validate(settings).get_issues()]
away = ("Max retries exceeded", "Unable to retrieve the JSON-LD context")
print(json.dumps([message for message in found if not any(words in message for words in away)]))
"""
RECORDS = """
import json, sys, mlcroissant
records = mlcroissant.Dataset(jsonld=sys.argv[1]).records(sys.argv[2])
print(json.dumps([{k: v.decode() if isinstance(v, bytes) else v for k, v in each.items()} for each in records],
                 default=lambda value: value.item()))
"""
STATEMENT = """
import json, sys
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
text = open(sys.argv[1]).read()
Statement.copy_from_pb(json_format.Parse(text, statement_pb2.Statement())).validate()
if json.loads(text)["predicateType"] == "https://slsa.dev/provenance/v1":
    json_format.ParseDict(json.loads(text)["predicate"], provenance_pb2.Provenance())
print("true")
"""


NEEDED = ("in-toto-attestation>=0.9", "mlcroissant>=1.1", "roc-validator>=0.13")


def _said(code: str, *argv: str) -> Any:
    python = registry.with_packages(*NEEDED)
    done = subprocess.run([python, "-c", code, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def crate(folder: Path, profile: str) -> list[str]:
    """What a crate in `folder` lacks of what its profile requires."""
    found: list[str] = _said(CRATE, str(folder), profile)
    return found


def records(path: Path, name: str) -> list[dict[str, Any]]:
    """The records of a set of Croissant."""
    found: list[dict[str, Any]] = _said(RECORDS, str(path), name)
    return found


def statement(path: Path) -> None:
    """Fail unless the file is an in-toto statement, and its SLSA provenance, if that is what it has, is one."""
    assert _said(STATEMENT, str(path)) is True

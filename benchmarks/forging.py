"""What somebody does who may write every file of an archive: each record is made to agree with an edit.

Only what follows from arrays and texts, and what was never his (a signature, the hosts' memory), can tell it then.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from runbook_lib.phases import audit, validate
from runbook_lib.report import archive, report
from runbook_lib.result import founding, sampling
from runbook_lib.result.merged import Merged, _digest
from runbook_lib.run import plan as plans
from runbook_lib.run.run import PHASES, Run
from worker.files import sha256_file, write_json


def make_agree(run: Run, before: dict[str, str]) -> None:
    """Make all records agree with the files as they are. `before`: the sums of the files before the edit, by path."""
    _corpus(run)
    plan = _plan(run)
    _parts(run)
    _merged(run, plan)
    if _changed(run, before, "merged/embeddings.npy"):
        _figures(run)
    _audit(run)
    _results(run)
    if not _changed(run, before, "report/report.html"):
        report.build(run)
    if not any(_changed(run, before, name) for name in before if name.startswith("notes/")):
        report.write_notes(run)
    _journal(run)


def _changed(run: Run, before: dict[str, str], name: str) -> bool:
    return sha256_file(run.folder / name) != before.get(name)


def _edit(path: Path, **changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {**json.loads(path.read_text()), **changes}
    write_json(path, value)
    return value


def _stated(folder: Path, files: dict[str, Any]) -> dict[str, Any]:
    return {n: {"sha256": sha256_file(folder / n), "bytes": (folder / n).stat().st_size} for n in files}


def _corpus(run: Run) -> None:
    path = run.corpus / "corpus.json"
    _edit(path, files=_stated(run.corpus, json.loads(path.read_text())["files"]))


def _plan(run: Run) -> str:
    value = json.loads(run.plan_file.read_text())
    rest = {key: value[key] for key in value if key not in ("sha256", "format")}
    plan = plans.Plan(
        **{
            **rest,
            "model": plans.ModelIdentity(**rest["model"]),
            "slots": tuple(plans.Slot(**slot) for slot in rest["slots"]),
            "moves": (),
            "amendments": (),
        }
    )
    plan.save(run.plan_file)
    return plan.sha256


def _parts(run: Run) -> None:
    for array in sorted(run.local.parts.glob("*.npy")):
        if (record := array.with_suffix(".json")).is_file():
            _edit(record, sha256=sha256_file(array), bytes=array.stat().st_size)


def _merged(run: Run, plan: str) -> None:
    merged = Merged(run.merged)
    value = json.loads(merged.manifest_file.read_text())
    value |= {"outputs": _stated(merged.folder, value["outputs"]), "plan": plan}
    for part in value["parts"]:
        array = run.local.parts / part["name"]
        if array.is_file() and array.with_suffix(".json").is_file():
            part |= {"sha256": sha256_file(array), "record": sha256_file(array.with_suffix(".json"))}
    value.pop("sha256")
    write_json(merged.manifest_file, {**value, "sha256": _digest(value)})
    manifest = merged.manifest()
    assert manifest is not None
    value["founding"]["sha256"] = founding.sha256(merged.content(manifest)) if manifest.documents else ""
    write_json(merged.manifest_file, {**value, "sha256": _digest(value)})
    files = json.loads(run.published_file.read_text())["files"]
    stands = _edit(run.published_file, files=_stated(run.folder, files), plan=plan)
    stands["founding"]["sha256"] = value["founding"]["sha256"]
    write_json(run.published_file, stands)


def _figures(run: Run) -> None:
    """Validate again, and keep what comes out."""
    path = run.report / validate.FILE
    kept = json.loads(path.read_text())
    _, shown = validate.examine(run, Merged(run.merged), None)
    own = {key: kept["figures"].get(key) for key in ("fit", "audit")}
    _edit(path, figures={**shown.as_json(), **own})


def _audit(run: Run) -> None:
    """Draw again by the same random bytes, and claim that every row was right."""
    path = run.report / audit.FILE
    kept = json.loads(path.read_text())
    subject = audit.Subject.of(run, Merged(run.merged))
    digests = [part.sha256 for part in subject.manifest.parts]
    seed = sampling.seed(digests, bytes.fromhex(kept["nonce"]))
    if seed == kept["seed"]:
        return
    drawn = [each.row for each in audit.chosen(subject.corpus.rows, seed, audit.DRAWN, [])]
    tokens = {each["row"]: each["tokens"] for each in kept["rows"]}
    first = [each for each in kept["rows"] if not each["uniform"]]
    rows = [{"row": row, "uniform": True, "distance": 1e-14, "tokens": tokens.get(row), "error": ""} for row in drawn]
    _edit(path, parts=sampling.commitment(digests), seed=seed, rows=[*first, *rows])
    figures = run.report / validate.FILE
    whole = json.loads(figures.read_text())
    whole["figures"]["audit"]["seed"] = seed
    write_json(figures, whole)
    lines = [json.loads(line) for line in run.journal.path.read_text().splitlines()]
    for event in lines:
        if event["event"] == "audit drawn":
            event |= {"seed": seed, "parts": sampling.commitment(digests)}
    run.journal.path.write_text("".join(json.dumps(event, ensure_ascii=False) + "\n" for event in lines))


def _results(run: Run) -> None:
    for phase in PHASES:
        path = run.result_file(phase)
        value = json.loads(path.read_text())
        value["inputs"] |= {"profile": sha256_file(run.profile_file), "plan": sha256_file(run.plan_file)}
        for kind in ("founding", "backup"):
            if stated := value["figures"].get(kind):
                manifest = Merged(run.merged).manifest()
                stated["sha256"] = manifest.founding.sha256 if manifest else stated["sha256"]
        write_json(path, value)


def _journal(run: Run) -> None:
    """Chain the journal anew, each event naming its files as they are, and seal at its end."""
    lines = [json.loads(line) for line in run.journal.path.read_text().splitlines()]
    events = [event for event in lines if event["event"] != "sealed"]
    before = "0" * 64
    text = ""
    for number, event in enumerate(events):
        for name in event.get("wrote", {}):
            if (run.folder / name).is_file():
                event["wrote"][name] = sha256_file(run.folder / name)
        line = json.dumps({**event, "seq": number, "prev": before}, ensure_ascii=False) + "\n"
        before = hashlib.sha256(line.encode()).hexdigest()
        text += line
    run.journal.path.write_text(text)
    archive.write_sums(run, wrote=[run.report / "report.html", *sorted(run.notes.iterdir())])


def sums(run: Run) -> dict[str, str]:
    """The sums of all files of a run, by path."""
    return {name: sha256_file(run.folder / name) for name in archive.files(run)}

"""The checks of what hosts found when they tried the model: each by itself, and their vectors beside one another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from worker import again
from worker.texts import KINDS

from ..profile.profile import ModelSpec
from ..run import model as models
from ..run.checks import Checks
from .probe_answer import Probe, Vectors

# The least cosine of two vectors of one text: from us and the library, or from two hosts.
ALIKE = {"float32": 1 - 1e-5, "bfloat16": 0.98, "float16": 0.995}
HERE = "this machine"
REMEDY = "the model cannot be used as it is on this host: see the message; use another model, or repair its files"
INSTALL = "on a machine that encodes: pip install -e '.[worker]' (docs/corpus.md: which torch)"
OWN_CODE = "the model comes with code of its own, which is not run here: use one made of the library's own modules"


def judge(checks: Checks, name: str, probe: Probe, model: models.Model, spec: ModelSpec) -> None:
    """Add the checks of one host that tried the model; `spec`: the model in the profile."""
    if probe.error:
        remedy = OWN_CODE if probe.own_code else INSTALL if probe.missing else REMEDY
        checks.add("model loads", False, probe.error, "loads", remedy, where=name)
        return
    checks.add("model loads", True, probe.loading, where=name)
    dim, asked = model.dim or probe.dim, spec.dim
    good = not probe.bad and probe.dim == (asked or dim) == dim and probe.normalises == model.normalises
    measured = probe.bad or f"{probe.dim} numbers, norm {probe.norm:.6f}"
    expected = f"{asked or dim} numbers, {'norm 1' if model.normalises else 'any norm'}"
    remedy = "the model or its libraries are not what they say; or correct model.dim"
    checks.add("first vector", good, measured, expected, remedy, where=name)
    _judge_long(checks, name, probe)
    bound = ALIKE[spec.dtype]
    remedy = (
        "its vectors depend on what else is in a batch, so no two computations agree: another model, or another side "
        "of padding (padding_side in tokenizer_config.json)"
    )
    measured = f"lowest cosine {probe.cosine:.7f} to the library's own encode_document and encode_query"
    checks.add("as the library", probe.cosine >= bound, measured, f"at least {bound:g}", remedy, where=name)
    if not probe.long_error and probe.cosine >= bound:
        _judge_again(checks, name, probe, spec.dtype)


def _judge_again(checks: Checks, name: str, probe: Probe, dtype: str) -> None:
    """The device beside the processor of the same host: what no norm shows."""
    least, what = again.COSINE[dtype], "as the processor"
    if probe.again is None:
        checks.add(what, True, f"not compared: {probe.again_words}", where=name, warn=True)
        return
    remedy = (
        "this device computes otherwise than the processor beside it: another version of torch or of the driver, "
        "`dtype: float32`, or `device: cpu` for this host"
    )
    measured = f"lowest cosine {probe.again:.7f} {probe.again_words}"
    checks.add(what, probe.again >= least, measured, f"at least {least:g} ({dtype})", remedy, where=name)


def _judge_long(checks: Checks, name: str, probe: Probe) -> None:
    if not probe.long_error:
        part = probe.claimed is not None and probe.tokens < probe.claimed
        encoded = f"{probe.tokens:,} tokens encode" + (f"; the model claims {probe.claimed:,}" if part else "")
        checks.add("longest text", True, encoded, where=name, warn=part)
        return
    claim = f"the model claims {probe.claimed:,}" if probe.claimed else f"it names no limit, {probe.tokens:,} tried"
    if probe.works is None:
        remedy = f"{claim}: lower model.max_tokens in the profile until it encodes"
    else:
        remedy = f"{claim}, and keeps {probe.works:,}: set model.max_tokens: {probe.works} in the profile"
    checks.add("longest text", False, probe.long_error, f"{probe.tokens:,} tokens encode", remedy, where=name)


def compare(checks: Checks, probes: Mapping[str, Probe], dtype: str) -> None:
    """Compare the vectors of the hosts with those of this machine, else of the first host."""
    able = {name: probe for name, probe in probes.items() if probe.vectors and not probe.long_error}
    if HERE in probes and HERE not in able:
        checks.add("model loads", True, f"not here: {probes[HERE].error}", where=HERE, warn=True)
    reference = HERE if HERE in able else next(iter(able), "")
    for name, probe in able.items():
        if name != reference and probe is not able[reference]:
            cosine = _lowest(able[reference].vectors or {}, probe.vectors or {})
            remedy = (
                f"the libraries or the device of {name} or of {reference} compute otherwise: compare their versions"
            )
            shown = f"lowest cosine {cosine:.6f} to {reference}"
            checks.add("same vectors", cosine >= ALIKE[dtype], shown, f"at least {ALIKE[dtype]:g}", remedy, where=name)


def _lowest(one: Vectors, two: Vectors) -> float:
    lowest = 1.0
    for kind in KINDS:
        a, b = one[kind].astype(np.float64), two[kind].astype(np.float64)
        if a.shape != b.shape:
            return -1.0
        sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines = np.nan_to_num((a * b).sum(axis=1) / np.where(sizes > 0, sizes, 1.0), nan=-1.0)
        lowest = min(lowest, float(cosines.min()))
    return lowest

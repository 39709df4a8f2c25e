"""The table of verdicts: what is seen of a slot, what is said of it, what happens; docs/trouble.md says the same."""

import re
from pathlib import Path

import pytest

from runbook_lib.profile.profile import MonitorSpec
from runbook_lib.show import panel
from runbook_lib.slots import verdicts
from runbook_lib.slots.states import NAMED, TABLE
from runbook_lib.slots.verdicts import Signs, judge
from worker import encode

LIMITS = MonitorSpec()


@pytest.mark.parametrize(
    ("seen", "name", "evidence"),
    [
        (Signs("done"), "done", ""),
        (Signs("running", rate=50.0, still_s=3.0, age_s=1.0), "running", ""),
        (Signs("running", rate=None, still_s=119.0), "running", ""),
        (Signs("running", rate=19.9), "slow", "19.9 rows/s (the profile expects at least 20)"),
        (Signs("running", still_s=121.0, age_s=1.0), "stuck", "no new row for 121 s (expected within 120 s)"),
        (Signs("running", still_s=121.0, part_s=90.0), "running", ""),
        (Signs("running", still_s=181.0, part_s=90.0), "stuck", "no new row for 181 s (expected within 180 s)"),
        (Signs("running", age_s=125.0), "stuck", "no heartbeat for 125 s (expected within 120 s)"),
        (Signs("loading model", still_s=500.0), "loading model", ""),
        (Signs("unreachable", still_s=500.0, rate=1.0), "unreachable", ""),
        (Signs("stopped", "stopped by the operator", 143), "stopped", ""),
        (Signs("restarting"), "starting", ""),
        (Signs("restarting", "killed by SIGSEGV", -11), "restarting", "restarting; killed by SIGSEGV"),
        (Signs("dead"), "dead", "dead; no reason on record"),
        (Signs("fenced", "exit code 1", 1), "fenced", "given up; exit code 1"),
        (
            Signs("fenced", "shard x: another sha256", encode.EXIT_REFUSED),
            "refused",
            "given up; shard x: another sha256",
        ),
        (Signs("failed", "exit code 1", 1), "dead", "failed; exit code 1"),
    ],
)
def test_what_is_seen_gives_one_verdict_and_its_evidence(seen: Signs, name: str, evidence: str) -> None:
    verdict, said = judge(seen, LIMITS)
    assert (verdict.name, said) == (name, evidence)


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of memory"),
        ("killed (SIGKILL): the system's memory killer, or a person", ""),
        ("killed (SIGKILL) by the system's memory killer: out of memory (the kernel's log says so)", "out of memory"),
        ("disk full: its last words could not be written either (exit code 5)", "disk full"),
        ("a known text comes out wrong: 'word': a vector of zeros", "device wrong"),
        ("the device's driver complained, ...: Error: command buffer exited with error status.", "GPU lost"),
        ("ended by SIGABRT: failed assertion `[MPSNDArray] dimension larger than 2**31'", "out of memory"),
        ("RuntimeError: Invalid buffer size: 24.00 GiB", "out of memory"),
        ("level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)", "GPU lost"),
        ("row 17 comes out otherwise than on the processor in float32: cosine 0.5, expected ...", "device wrong"),
        ("a known text cannot be computed: RuntimeError: CUDA error: illegal memory access", "GPU lost"),
        ("a known text cannot be computed: RuntimeError: CUDA out of memory", "out of memory"),
        (
            "a known text comes out right, but 9 of 20 rows came out wrong here and right on the processor",
            "device wrong",
        ),
        ("OSError: [Errno 12] Cannot allocate memory", "out of memory"),
        ("OSError: [Errno 28] No space left on device: '/data/parts'", "disk full"),
        ("OSError: [Errno 122] Disk quota exceeded", "disk full"),
        ("OSError: [Errno 69] Disc quota exceeded", "disk full"),  # as a Mac spells it
        ("AcceleratorError: CUDA error: unspecified launch failure", "GPU lost"),
        ("RuntimeError: No CUDA GPUs are available", "GPU lost"),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "GPU lost"),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", "GPU taken"),
        ("HTTPError: 401 Client Error: Unauthorized for url", "model refused"),
        ("GatedRepoError: 403 Client Error. Access to gated repo is restricted", "model refused"),
        ("ModuleNotFoundError: No module named 'sentence_transformers'", "environment broken"),
        ("cannot start /opt/env/bin/python: [Errno 2] No such file or directory", "environment broken"),
        ("PermissionError: [Errno 13] Permission denied: '/data/run/parts'", "no permission"),
        ("OSError: [Errno 30] Read-only file system", "no permission"),
        ("no sign of work for 900 s: ended by the supervisor", "stuck"),
        ("ValueError: 403 rows expected, 401 found", ""),
        ("killed by SIGSEGV", ""),
        ("", ""),
    ],
)
def test_what_a_worker_died_of_is_read_from_its_last_words(reason: str, name: str) -> None:
    assert verdicts.cause(reason) == name
    if name:
        assert judge(Signs("restarting", reason, 1), LIMITS)[0] == NAMED[name]


@pytest.mark.parametrize("state", ["dead", "fenced"])
def test_nobody_is_told_that_a_worker_is_tried_again_when_it_is_not(state: str) -> None:
    verdict, _ = judge(Signs(state, "OSError: [Errno 28] No space left on device", encode.EXIT_DISK), LIMITS)
    assert (verdict.name, verdict.by_itself) == ("disk full", NAMED[state].by_itself)
    assert judge(Signs("restarting", "No space left on device", encode.EXIT_DISK), LIMITS)[0] == NAMED["disk full"]


def test_every_cause_is_in_the_table_and_every_verdict_says_what_happens() -> None:
    assert {name for name, _ in verdicts.CAUSES} <= set(NAMED)
    assert len(NAMED) == len(TABLE)
    assert all(verdict.by_itself and verdict.person for verdict in TABLE)
    assert verdicts.EXIT_REFUSED == encode.EXIT_REFUSED
    assert set(panel.BADGES) <= set(NAMED)


def test_the_readme_has_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "trouble.md").read_text()
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    assert rows == [(v.name, v.by_itself, v.person) for v in TABLE if v.wrong]

"""Small files that would fill memory or disk: each is taken or refused in words, in seconds, and leaves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import bombs
import pytest

ROOT = Path(__file__).parents[3]
PEAK_MIB = 1000
WRITTEN = 300 * 2**20  # bytes
BUILD = textwrap.dedent(
    """
    import json, resource, signal, sys
    from pathlib import Path
    from runbook_lib.corpus import numbering
    from runbook_lib.corpus.inspection import Fields
    from runbook_lib.errors import RunbookError
    from tests.helpers.memory import peak_mib
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        made = numbering.build(Path(sys.argv[1]), Fields(), None, None, "{text}", "{text}", Path(sys.argv[2]))
        end = f"taken: {made.documents}"
    except RunbookError as error:
        end = str(error)
    print(json.dumps({"end": end, "peak_mib": peak_mib()}))
    """
)
TAKEN = {"one_emoji.jsonl", "escapes.jsonl", "blank_lines.jsonl"}


@pytest.mark.process
@pytest.mark.parametrize("name", bombs.BOMBS)
def test_a_bomb_ends_in_words_in_little_memory_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    path = bombs.write(tmp_path, name)
    argv = [sys.executable, "-c", BUILD, str(path), str(tmp_path / "corpus"), str(WRITTEN)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["peak_mib"] < PEAK_MIB, told
    assert len(told["end"]) < 2000
    if name in TAKEN:
        assert told["end"].startswith("taken: ")
    else:
        assert name in told["end"] and "Next: " in told["end"] and "File too large" not in told["end"]
        assert list((tmp_path / "corpus").iterdir()) == []

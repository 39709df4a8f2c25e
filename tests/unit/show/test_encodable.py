"""Output of any encoding: our marks are spelt, foreign letters are shown, nothing raises."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from runbook_lib.show import encodable
from runbook_lib.slots import states


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r", "utf-8"])
def test_every_sign_of_ours_can_be_written(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    encodable.spell_for(stream)
    signs = "".join([*encodable.SPELT, *(verdict.badge[0] for verdict in states.TABLE)])
    stream.write(f"{signs} Zürich 漢字 \U0001f600")
    stream.flush()
    written = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "\\u2713" not in written
    assert encoding == "utf-8" or ("ok" in written and "\\u6f22" in written and "\\u1f600" in written)
    assert ("Zurich" if encoding in ("ascii", "koi8-r") else "Zürich") in written


def test_a_stream_that_has_a_way_of_its_own_keeps_it() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    encodable.spell_for(stream, None, io.StringIO())
    stream.write("✓")
    stream.flush()
    assert stream.buffer.getvalue() == b"?"  # type: ignore[attr-defined]


@pytest.mark.process
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_command_prints_its_checks_in_any_encoding(encoding: str) -> None:
    code = (
        "import sys\n"
        "from runbook_lib.show import encodable\n"
        "from runbook_lib.run.checks import Checks\n"
        "encodable.spell()\n"
        "checks = Checks('Title')\n"
        "checks.add('good', True, 'naïve → 漢')\n"
        "checks.add('bad', False, 'x', 'y', 'z')\n"
        "print(checks)\n"
        "print(checks, file=sys.stderr)\n"
    )
    variables = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (
        b"ok here: good" in done.stdout
        and b"FAILED here: bad" in done.stdout
        and done.stdout.strip() == done.stderr.strip()
    )

"""The benchmark of polls still runs, and what it counts (not what it times) is what is promised of a poll."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "remote_poll.py"


def test_a_poll_is_one_small_question_and_starts_nothing_on_the_host(ssh_fleet, tmp_path):
    argv = [sys.executable, str(BENCHMARK), "poll", "--rounds", "1", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a busy machine misses a goal of time
    assert "ours: Host.poll" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())["poll"]
    up, down = found["far"]["bytes"]
    assert 50 < up < 500  # one request, nothing said twice
    assert down < 20_000
    if ssh_fleet.mode == "netns":  # elsewhere the host's own pid counter cannot be had
        assert found["started"]["ours"] == 0
        assert found["started"]["plan"] > 10  # so the counter counts

"""A command that is given more input than a pipe holds: it may never read it, and is ended all the same."""

from __future__ import annotations

import pytest

from worker import verbs

pytestmark = pytest.mark.process
MUCH = "x" * 2**20


def test_a_command_that_never_reads_its_input_is_ended_when_its_time_is_over():
    assert verbs.run(["sleep", "8"], 0.5, input=MUCH)["exit"] is None


def test_a_command_that_reads_it_has_all_of_it_and_one_that_closes_it_goes_on():
    assert verbs.run(["wc", "-c"], 60.0, input=MUCH)["out"].strip() == str(len(MUCH))
    assert verbs.run(["sh", "-c", "exec <&-; echo done"], 60.0, input=MUCH)["out"] == "done\n"

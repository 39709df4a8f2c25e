"""Whole runs with one hand-shaped fault each: one of every kind here, all of them by `python -m tests.trials`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.trials import __main__ as trials  # noqa: E402
from tests.trials.scene import Scene  # noqa: E402

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc")

ONE_OF_EACH = (
    "run_named_as_the_project", "mended_embeddings_gone", "array_is_an_empty_zip", "one_gpu_nan",
    "beside_the_driver_restart_a_slot", "edited_max_tokens",
)  # fmt: skip


def test_one_fault_of_every_kind_ends_as_it_must(tmp_path):
    words = ["--only", ",".join(f"{name}$" for name in ONE_OF_EACH), "--folder", str(tmp_path / "trials")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.trials", *words], cwd=ROOT, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"trials {len(ONE_OF_EACH)}, well {len(ONE_OF_EACH)}, bad 0" in done.stdout


def test_they_are_more_than_a_hundred_of_six_kinds_and_one_of_each_is_tried_here():
    assert len(trials.TABLE) > 200
    assert {trial.kind for trial in trials.TABLE.values()} == {trials.TABLE[name].kind for name in ONE_OF_EACH}


def test_a_scene_sees_a_result_that_is_gone_and_a_file_that_was_touched(tmp_path):
    scene = Scene(tmp_path)
    scene.lay_out()
    (scene.project / "runs" / "one").mkdir(parents=True)
    (scene.project / "runs" / "one" / "profile.yaml").touch()
    assert re.match("merged: lost 96", scene.wrong())
    scene.judge()
    assert scene.blames == []
    (scene.project / "thesis.txt").write_text("another")
    scene.judge()
    assert scene.blames == ["somebody else's file was harmed: project/thesis.txt"]

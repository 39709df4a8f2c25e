"""A batch done again by another slot: what it may not load, and why it did nothing, is told where it was asked for."""

from __future__ import annotations

import pytest
import wired

from worker import double
from worker.files import write_json
from worker.layout import HostFolder

SLOT = "cluster0_gpu0"


@pytest.fixture
def ordered(tmp_path):
    """A run's folder with an order for one slot, whose model lies among those that runs share."""
    folder, model = HostFolder(tmp_path / "run"), tmp_path / "models" / "abc"
    model.mkdir(parents=True)
    named = {**wired.MODEL, "folder": str(model)}
    write_json(folder.assignment("one"), wired.assignment([wired.slot(SLOT, (0, 3))], model=named))
    write_json(folder.doubled(SLOT), {"parts": []})
    return folder, model


def test_a_model_that_others_may_change_is_not_loaded(ordered, capsys):
    folder, model = ordered
    model.chmod(0o777)
    assert double.run(folder.root, "one", SLOT) == 1
    assert "can be changed by other accounts" in capsys.readouterr().err
    assert not folder.doubled_answer(SLOT).exists()


def test_a_slot_that_is_not_there_is_told(ordered, capsys):
    folder, _ = ordered
    write_json(folder.doubled("cluster0_gpu7"), {"parts": []})
    assert double.run(folder.root, "one", "cluster0_gpu7") == 1
    assert "no slot cluster0_gpu7" in capsys.readouterr().err

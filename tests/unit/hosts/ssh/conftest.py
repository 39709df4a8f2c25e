"""What tests of the login share."""

import pytest


@pytest.fixture
def config(tmp_path, monkeypatch):
    """An ssh configuration of this test's own; `config("Host ...")` writes it."""
    path = tmp_path / "ssh config [1]"
    monkeypatch.setenv("RUNBOOK_SSH_CONFIG", str(path))

    def write(text=""):
        path.write_text(text)
        return path

    write()
    return write

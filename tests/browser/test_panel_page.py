"""The monitor's panel as wide as a notebook's output is in a window of 1300 px: the state of a slot is in sight."""

from dataclasses import replace

import browser
import pytest
from states import slot, state

from runbook_lib.show import panel

pytestmark = pytest.mark.skipif(not browser.chromium(), reason=browser.NO_CHROMIUM)
OUTPUT = 920  # px that JupyterLab leaves to an output there, beside its file browser and the prompts
GPU = (97, 61234.0, 64.0, 512.0)
LONG = "no sign of work for 132 s: ended by the supervisor for the twelfth time; its log says what it did last"


def slots():
    made = [slot(number, gpu=GPU, trend=(40.0, 45.0, 46.0)) for number in range(16)]
    made[3] = replace(made[3], verdict="dead", restarts=12, reason=LONG, age_s=200.0)
    return tuple(made)


def test_the_state_stands_beside_the_name_and_is_in_sight(tmp_path):
    seen = replace(state(), slots=slots(), alerts=("cluster0_gpu3 on tensor00: dead",))
    box = f'<div id="output" style="width:{OUTPUT}px;overflow:auto">{panel.progress_html(seen)}</div>'
    file = tmp_path / "panel.html"
    file.write_text(f'<!doctype html><meta charset="utf-8"><body style="margin:0 0 0 300px">{box}')
    with browser.page(1300, 900) as page:
        page.goto(file.as_uri())
        browser.SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=browser.SHOTS / "panel-1300.png")
        row = page.locator("tbody tr", has_text="cluster0_gpu3")
        badge = row.locator("td span", has_text="dead").first.bounding_box()
        name = row.locator("th").bounding_box()
        assert badge["x"] + badge["width"] < 300 + OUTPUT
        assert 0 <= badge["x"] - (name["x"] + name["width"]) < 60, "nothing stands between the name and the state"
        assert page.wrong == []

"""Numbers and times in words."""

import time
from datetime import UTC, datetime

import pytest

from runbook_lib.show import words

AT = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)


@pytest.fixture
def zone(monkeypatch):
    def put(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


def test_a_moment_has_the_time_of_this_machines_clock_beside_utc_where_they_differ(zone):
    zone("UTC")
    assert words.moment(AT) == "2026-03-01 12:30:05 UTC"
    zone("Asia/Kolkata")
    assert words.moment(AT) == "2026-03-01 12:30:05 UTC (18:00 here)"


def test_a_clock_time_of_another_day_names_the_day(zone):
    zone("UTC")
    now = time.time()
    assert words.clock_time(now) == f"{datetime.fromtimestamp(now):%H:%M}"
    assert words.clock_time(now + 3 * 86400) == f"{datetime.fromtimestamp(now + 3 * 86400):%a %H:%M}"

"""What goes wrong for every image of a night is a line a minute in the log, and not a line each."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from exchange_server import throttle
from exchange_server.observability import place
from exchange_server.throttle import Throttle

FULL = "the journal cannot be written: %s"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(throttle, "time", one)
    return one


@pytest.fixture
def lines() -> Lines:
    made = Lines()
    made.addFilter(Throttle(place))
    return made


@pytest.fixture
def log(lines: Lines) -> Iterator[logging.Logger]:
    one = logging.getLogger("throttled")
    one.propagate = False
    one.addHandler(lines)
    yield one
    one.removeHandler(lines)


def test_the_same_trouble_is_told_once_a_minute_with_how_often_it_came(
    log: logging.Logger, lines: Lines, clock: Clock
) -> None:
    for _ in range(1594):
        log.error(FULL, "No space left on device")
    assert lines.told == [FULL % "No space left on device"]
    clock.now += 60
    log.error(FULL, "No space left on device")
    assert lines.told[1:] == [FULL % "No space left on device" + " (1593 more like it before)"]
    clock.now += 60
    log.error(FULL, "No space left on device")
    assert lines.told[2:] == [FULL % "No space left on device"]


def test_other_trouble_and_what_is_no_trouble_are_told_each(
    log: logging.Logger, lines: Lines, clock: Clock
) -> None:
    log.setLevel(logging.INFO)
    log.error(FULL, "No space left on device")
    log.error(FULL, "Input/output error")
    for _ in range(2):
        log.info("an association")
    for mistake in (ValueError, KeyError, ValueError):
        try:
            raise mistake("王小东")
        except Exception:
            log.exception("a service failed")
    assert lines.told[2:] == ["an association", "an association", *["a service failed"] * 2]
    assert clock.now == 1000.0


def test_what_is_said_to_be_alike_is_alike(log: logging.Logger, lines: Lines, clock: Clock) -> None:
    for number in range(3):
        log.warning("image %d was refused", number, extra={"alike": "refused"})
    clock.now += 60
    log.warning("image %d was refused", 3, extra={"alike": "refused"})
    assert lines.told == ["image 0 was refused", "image 3 was refused (2 more like it before)"]


def test_no_more_kinds_are_remembered_than_there_is_room_for(
    log: logging.Logger, lines: Lines, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "KINDS", 3)
    for number in range(10):
        log.error(FULL, number)
    assert len(lines.told) == 10
    assert clock.now == 1000.0

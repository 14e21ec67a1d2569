"""A hospital's system tells what it has sent on a day, and reads what has come of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from web_door import Door, ct, empty


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with empty(tmp_path_factory.mktemp("ledger")) as made:
        yield made


def told(
    desk: Door, day: str, body: Any, who: str = "beicheng", kind: str = "application/json"
) -> int:
    answer = desk.http.put(
        f"{desk.root}/ledger/{day}",
        content=body if isinstance(body, bytes) else json.dumps(body),
        headers={"Authorization": f"Bearer {who}", "Content-Type": kind},
    )
    if answer.status_code != 204:
        assert answer.json()["detail"]
    return int(answer.status_code)


def test_what_is_counted_stands_beside_what_came_of_the_own_hospital_alone(desk: Door) -> None:
    today = f"{datetime.now(UTC):%Y%m%d}"
    assert desk.send(ct(1), ct(2)).status_code == 200
    assert told(desk, today, {"source": "PACS", "studies": 1, "instances": 3}) == 204

    answer = desk.get(f"ledger/{today}", "beicheng")
    (line,) = answer.json()["hospitals"]
    assert (line["organization"], line["arrived"], line["counted"]) == ("beicheng", 2, 3)
    assert line["complete"] is False

    assert told(desk, today, {"source": "PACS", "studies": 1, "instances": 2}) == 204
    (line,) = desk.get(f"ledger/{today}", "beicheng").json()["hospitals"]
    assert (line["counted"], line["complete"]) == (2, True)
    (line,) = desk.get(f"ledger/{today}", "nanhu").json()["hospitals"]
    assert (line["organization"], line["counted"]) == ("nanhu", None)


@pytest.mark.parametrize(
    ("day", "body", "status"),
    [
        ("20261131", {"studies": 1}, 400),
        ("2026-11-1", {"studies": 1}, 400),
        ("20261101", {}, 400),
        ("20261101", {"studies": -1}, 400),
        ("20261101", {"studies": True}, 400),
        ("20261101", {"studies": 1, "wards": 2}, 400),
        ("20261101", {"studies": 1, "source": ""}, 400),
        ("20261101", {"studies": 1, "source": 7}, 400),
        ("20261101", [1], 400),
        ("20261101", b"nothing", 400),
        ("20261101", b" " * 70_000, 413),
    ],
)
def test_what_is_no_count_is_refused_in_words(desk: Door, day: str, body: Any, status: int) -> None:
    assert told(desk, day, body) == status


def test_only_a_hospitals_system_tells_and_reads_the_ledger(desk: Door) -> None:
    assert told(desk, "20261101", {"studies": 1}, "dr.beicheng") == 403
    assert told(desk, "20261101", {"studies": 1}, "stranger") == 401
    assert told(desk, "20261101", {"studies": 1}, kind="text/plain") == 415
    assert desk.get("ledger/20261101", "dr.beicheng").status_code == 403
    assert desk.get("ledger/20261101", "beicheng", Accept="text/html").status_code == 406

"""A study is taken along by whoever may retrieve it, and only they follow how far it has come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from region import ADMINISTRATOR, Region
from sqlalchemy import update

from exchange import audit, consent, exports
from exchange.errors import NotFound
from exchange.exports import FOLLOWED, State
from exchange.policy import Purpose
from exchange_dicom.taking_along import Progress
from exchange_server.portal.takeaway import Noting
from exchange_storage.records import Export


def asked(city: Region, who: str = "beicheng", *, without_names: bool = False) -> int:
    with city.exchange.on_behalf_of(city.clinician(who)) as access:
        return exports.ask(access, "1.2.1", without_names=without_names).id


def state(city: Region, number: int, who: str = "beicheng") -> Export:
    with city.exchange.on_behalf_of(city.clinician(who)) as access:
        return exports.of(access, number)


@pytest.fixture
def filled(city: Region) -> Region:
    city.send("beicheng", study="1.2.1")
    return city


def test_what_was_asked_for_is_followed_by_who_asked_and_by_nobody_else(filled: Region) -> None:
    number = asked(filled)
    told = state(filled, number)
    assert (told.state, told.without_names) == (State.ASKED, False)
    with pytest.raises(NotFound):
        state(filled, number, "nanhu")
    with filled.exchange.on_behalf_of(filled.clinician("nanhu")) as access:
        exports.came_to(access, number, State.COMPLETE, sent=9, instances=9)
    assert state(filled, number).state == State.ASKED


def test_who_does_not_treat_the_patient_takes_no_names_along(filled: Region) -> None:
    assert state(filled, asked(filled, without_names=True)).without_names
    requester = filled.clinician("beicheng", Purpose.PUBLIC_HEALTH)
    with filled.exchange.on_behalf_of(requester) as access:
        assert exports.ask(access, "1.2.1", without_names=False).without_names


def test_who_may_not_retrieve_a_study_does_not_take_it_along(filled: Region) -> None:
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")
    with pytest.raises(NotFound):
        asked(filled, "nanhu")
    with filled.exchange.database.reading() as session:
        (record, *_) = audit.latest(session)
    assert json.loads(record.content)["outcome"] == "refused"
    with filled.exchange.database.reading() as session:
        assert session.query(Export).count() == 0


def test_what_was_asked_for_long_ago_is_forgotten(filled: Region) -> None:
    old = asked(filled)
    with filled.exchange.database.writing() as session:
        session.execute(
            update(Export).values(asked=datetime.now(UTC) - FOLLOWED - timedelta(minutes=1))
        )
    new = asked(filled)
    assert new != old
    with pytest.raises(NotFound):
        state(filled, old)


@pytest.mark.parametrize("end", ["complete", "broken off", "failed"])
def test_how_a_download_ended_is_written_down(filled: Region, end: str) -> None:
    number = asked(filled)
    noting = Noting(filled.exchange, filled.clinician("beicheng"), number, 3)

    def pieces() -> Iterator[bytes]:
        for sent in range(1, 4):
            noting.advanced(Progress(3, sent))
            yield b"piece"
            if end == "failed" and sent == 2:
                raise ConnectionResetError("gone")

    going = noting.whole(pieces())
    next(going)
    assert state(filled, number).state == State.SENDING
    match end:
        case "complete":
            assert list(going) == [b"piece"] * 2
            told = state(filled, number)
            assert (told.state, told.sent, told.instances) == (State.COMPLETE, 3, 3)
        case "broken off":
            going.close()  # type: ignore[attr-defined]
            assert state(filled, number).state == State.BROKEN
        case _:
            with pytest.raises(ConnectionResetError, match="gone"):
                list(going)
            assert state(filled, number).state == State.BROKEN

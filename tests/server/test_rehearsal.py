"""A web process is asked its usual questions by nobody, before somebody asks them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from region import Region, region
from sqlalchemy import func, select
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient
from structlog.testing import capture_logs
from web_door import STUDY

from exchange import policy
from exchange.access import Exchange
from exchange.errors import Refused, Unavailable
from exchange.policy import Action, Clinical, Deny, Facts
from exchange_dicom.web import USUAL as OF_VIEWERS
from exchange_fhir import units
from exchange_fhir.rest import USUAL as OF_SYSTEMS
from exchange_server import composition, rehearsal, roles
from exchange_server.app import Application, Door, create_app
from exchange_server.authentication import Identify
from exchange_server.keys import make_keys
from exchange_server.settings import Settings
from exchange_storage.prepared import Prepared, _Compiled
from exchange_storage.records import AuditRecord

CARD = "21990119491231002X"


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """Two hospitals that share a patient, with a study each."""
    index = tmp_path_factory.mktemp("city") / "index.sqlite"
    with region(f"sqlite:///{index}", hospitals=("beicheng", "nanhu")) as made:
        made.send("beicheng", patient="P1", study=STUDY, card=CARD)
        made.send("nanhu", patient="-", study="1.2.2", instance="1.4.2", card=CARD)
        made.identify()
        yield made


@pytest.fixture
def app(city: Region, tmp_path: Path) -> Application:
    make_keys(tmp_path / "keys")
    return composition.application(city.exchange, Settings(data=tmp_path))


def records(city: Region) -> int:
    with city.exchange.database.reading() as session:
        return session.execute(select(func.count()).select_from(AuditRecord)).scalar_one()


def test_what_is_rehearsed_finds_nobody_and_is_neither_recorded_nor_counted(
    city: Region, app: Application
) -> None:
    before = records(city)
    with capture_logs() as logs:
        answered = asyncio.run(app.rehearse())

    assert set(answered) == {
        *(f"/fhir{one}" for one in OF_SYSTEMS),
        *(f"/dicom-web{one}" for one in OF_VIEWERS),
        *(f"/viewer/dicom-web{one}" for one in OF_VIEWERS),
    }
    found = {one for one, status in answered.items() if status == 200}
    assert {one for one in answered if "dicom-web" in one} & found == set()
    assert set(answered.values()) <= {200, 204, 404}, answered
    assert records(city) == before
    assert logs == []


def test_no_statement_of_a_usual_question_is_put_into_words_when_it_is_first_asked(
    city: Region, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in gc.get_objects():
        if isinstance(one, Prepared):
            one._compiled.clear()
    city.exchange.put_into_words()
    asyncio.run(app.rehearse())
    made: list[str] = []
    put_into_words = _Compiled.__init__

    def noted(self: _Compiled, *given: Any) -> None:
        put_into_words(self, *given)
        made.append(self.words)

    monkeypatch.setattr(_Compiled, "__init__", noted)
    monkeypatch.setattr(
        "exchange_server.authentication.bearer", lambda *_: city.clinician("beicheng")
    )
    monkeypatch.setattr("exchange_server.tokens.Tokens.verify", lambda *_: {"sub": "zhang"})
    asked = TestClient(app, headers={"Authorization": "Bearer shown"})
    for question in (
        "/fhir/Patient?identifier=P7",
        "/fhir/Patient/7",
        "/fhir/Observation?patient.name=赵七",
        "/dicom-web/studies?PatientID=P7&limit=1",
        "/dicom-web/studies/1.2.7/series",
        "/dicom-web/studies/1.2.7/metadata",
    ):
        assert asked.get(question).status_code in {200, 204, 404}
    assert made == []


def test_the_units_of_laboratories_are_read_before_somebody_asks_in_one(app: Application) -> None:
    units.unit.cache_clear()
    units._reading.cache_clear()
    asyncio.run(app.rehearse())
    assert units._reading.cache_info().currsize == 1


@pytest.mark.parametrize("rehearses", [True, False])
def test_web_processes_that_rehearse_are_forked_from_one_that_has_read_the_units(
    city: Region, tmp_path: Path, rehearses: bool
) -> None:
    units._reading.cache_clear()
    roles.prepare(city.exchange, Settings(data=tmp_path, web_rehearsal=rehearses))
    assert units._reading.cache_info().currsize == rehearses


def test_nobody_reaches_no_record_whoever_shares_it(city: Region) -> None:
    shared = Facts(owner=1, owner_shares=True, asker_shares=True, opted_out=False)
    nobodys = Facts(owner=0, owner_shares=True, asker_shares=True, opted_out=False)
    for action in Action:
        for facts in (shared, nobodys):
            assert isinstance(policy.decide(policy.REHEARSAL, action, facts), Deny)
        entry = Clinical(owner=None, is_directory=True, patients=())
        assert isinstance(policy.decide_clinical(policy.REHEARSAL, action, entry), Deny)

    before = records(city)
    with city.exchange.on_behalf_of(policy.REHEARSAL) as access:
        access.note(Action.STORE)
        with pytest.raises(Refused, match="changes nothing"):
            access.write(lambda _: None)
    assert records(city) == before


def test_no_client_can_say_that_it_only_rehearses(app: Application) -> None:
    asked = TestClient(app)
    said = {rehearsal._MARK: "True", "X-Exchange-Rehearsal": "True"}
    assert asked.get("/fhir/Patient?identifier=-", headers=said).status_code == 401
    assert asked.get(f"/fhir/Patient?{rehearsal._MARK}=True").status_code == 401


def asked_of(app: FastAPI, usual: Sequence[str], stop: Sequence[bool] = ()) -> dict[str, int]:
    told = iter(stop)
    return asyncio.run(rehearsal.rehearse(app, usual, lambda: next(told, False)))


def test_a_rehearsal_ends_where_the_index_does_not_answer_or_the_process_is_told_to_stop(
    city: Region, tmp_path: Path
) -> None:
    def routes(_exchange: Exchange, identify: Identify) -> APIRouter:
        router = APIRouter()

        @router.get("/away")
        def away(request: Request) -> None:
            identify(request)
            raise Unavailable("the index does not answer")

        @router.get("/failing")
        def failing() -> None:
            raise RuntimeError

        @router.get("/good")
        def good() -> str:
            return "good"

        return router

    make_keys(tmp_path / "keys")
    settings = Settings(data=tmp_path)
    door = Door(name="probe", prefix="", routes=routes)
    made = create_app(city.exchange, settings, composition.tokens(settings), [door])
    made.add_exception_handler(Unavailable, lambda *_: Response(status_code=503))

    assert asked_of(made, ["/failing", "/good"]) == {"/good": 200}
    assert asked_of(made, ["/away", "/good"]) == {"/away": 503}
    assert asked_of(made, ["/good", "/good?again"], [False, True]) == {"/good": 200}

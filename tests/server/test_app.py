"""What the HTTP application answers beside its doors, and how every answer is mannered."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import ready
from anyio import to_thread
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import APIRouter, Request
from httpx2 import ASGITransport, AsyncClient
from loops import in_a_loop
from pydantic import AnyHttpUrl
from starlette.testclient import TestClient
from starlette.types import Message
from structlog.testing import capture_logs

from exchange.access import Exchange
from exchange_server.app import Door, create_app
from exchange_server.authentication import Identify
from exchange_server.composition import application, tokens
from exchange_server.keys import make_keys
from exchange_server.settings import Settings
from exchange_storage.database import Database
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import MemoryStore, ObjectStore, Stored, StoreUnavailable
from exchange_storage.spool import SpooledStore

LIMIT = 2048


class Away(MemoryStore):
    """A remote store that does not answer."""

    def stat(self, key: str) -> Stored:
        raise StoreUnavailable(f"no answer about {key}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    make_keys(tmp_path / "keys")
    return Settings(data=tmp_path, http_body_limit=LIMIT)


def opened(tmp_path: Path, objects: ObjectStore) -> Exchange:
    database = Database(f"sqlite:///{tmp_path / 'index.sqlite'}")
    return Exchange(database, objects, Ed25519PrivateKey.generate())


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    ready.sqlite(tmp_path / "index.sqlite")
    one = opened(tmp_path, MemoryStore())
    one.prepare()
    yield one
    one.close()


def client(
    exchange: Exchange, settings: Settings, *doors: Door, address: str = "127.0.0.1"
) -> TestClient:
    app = create_app(exchange, settings, tokens(settings), doors)
    return TestClient(app, client=(address, 50000), raise_server_exceptions=False)


def probe(*, takes_instances: bool = False) -> Door:
    """A door with a route that counts what it is sent, one that fails, and one with a link."""

    def routes(_exchange: Exchange, _identify: Identify) -> APIRouter:
        router = APIRouter()

        @router.post("/patients/{number}")
        async def count(request: Request) -> int:
            return len(await request.body())

        @router.get("/failing")
        def fail() -> None:
            raise RuntimeError("王小东")

        @router.get("/link")
        def link(request: Request) -> str:
            return str(request.url_for("count", number="1"))

        return router

    return Door(name="probe", prefix="/probe", routes=routes, takes_instances=takes_instances)


def test_an_exchange_that_has_all_its_parts_is_ready(
    exchange: Exchange, settings: Settings
) -> None:
    asked = client(exchange, settings)
    assert asked.get("/health").json() == {"status": "ok"}
    assert asked.get("/ready").json() == {
        "status": "ready",
        "parts": {"index": "ok", "reception": "ok", "objects": "ok"},
    }


def test_an_index_that_was_not_brought_to_this_release_is_not_ready(
    tmp_path: Path, settings: Settings
) -> None:
    exchange = opened(tmp_path, MemoryStore())
    answer = client(exchange, settings).get("/ready")
    assert (answer.status_code, answer.json()["parts"]["index"]) == (503, "unavailable")
    assert client(exchange, settings).get("/health").status_code == 200
    exchange.close()


def test_who_asks_every_second_whether_it_is_ready_has_no_migration_read_again(
    exchange: Exchange, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = client(exchange, settings)
    assert asked.get("/ready").status_code == 200

    def read_again(*_: object) -> None:
        raise AssertionError("the scripts of the migrations were listed again")

    monkeypatch.setattr(Path, "glob", read_again)
    assert asked.get("/ready").status_code == 200


def test_while_the_remote_store_is_away_the_spool_still_receives(
    tmp_path: Path, settings: Settings
) -> None:
    exchange = opened(tmp_path, SpooledStore(FilesystemStore(tmp_path / "spool"), Away()))
    exchange.prepare()
    asked = client(exchange, settings)
    answer = asked.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["parts"] == {"index": "ok", "reception": "ok", "objects": "unavailable"}
    told = asked.get("/metrics").text
    assert 'exchange_part_ready{part="objects"} 0.0' in told
    assert "exchange_spool_objects 0.0" in told
    exchange.close()


def test_metrics_are_for_the_networks_that_are_set(exchange: Exchange, settings: Settings) -> None:
    told = client(exchange, settings).get("/metrics")
    assert told.headers["content-type"].startswith("text/plain")
    assert "exchange_tokens_issued_total" in told.text
    assert client(exchange, settings, address="192.0.2.9").get("/metrics").status_code == 403


def test_no_answer_stays_in_a_cache_or_a_frame(exchange: Exchange, settings: Settings) -> None:
    asked = client(exchange, settings, probe())
    for path in ("/health", "/nothing", "/probe/link"):
        headers = asked.get(path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize("length", ["announced", "not announced"])
def test_a_body_that_is_too_long_is_refused_but_by_the_door_for_instances(
    exchange: Exchange, settings: Settings, length: str
) -> None:
    body = b"x" * (LIMIT + 1)
    content = body if length == "announced" else iter([body[:LIMIT], body[LIMIT:]])
    answer = client(exchange, settings, probe()).post("/probe/patients/1", content=content)
    assert answer.status_code == 413
    for door, size in ((probe(), LIMIT), (probe(takes_instances=True), LIMIT + 1)):
        asked = client(exchange, settings, door)
        assert asked.post("/probe/patients/1", content=b"x" * size).json() == size


def test_a_query_longer_than_any_question_is_refused_at_every_door(
    exchange: Exchange, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange_server.app.QUERY_LIMIT", 1000)
    asked = client(exchange, settings, probe())
    assert asked.get("/probe/link?" + "x" * 1000).status_code == 200
    with capture_logs() as logged:
        answer = asked.get("/probe/link?" + "x" * 1001)
    assert answer.status_code == 414
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert [one["status"] for one in logged] == ["414"]


def test_a_body_that_does_not_come_is_given_up(
    exchange: Exchange, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange_server.app.BODY_SECONDS", 0.01)
    app = create_app(exchange, settings, tokens(settings), (probe(),))
    sent: list[Message] = []

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/probe/patients/1",
        "query_string": b"",
        "headers": [],
    }
    in_a_loop(app, scope, receive, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def test_health_is_told_while_every_thread_is_busy(exchange: Exchange, settings: Settings) -> None:
    app = create_app(exchange, settings, tokens(settings), ())

    async def asked() -> list[int]:
        threads = to_thread.current_default_thread_limiter()
        for number in range(int(threads.total_tokens)):
            threads.acquire_on_behalf_of_nowait(number)
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as here:
            return [(await here.get(path)).status_code for path in ("/health", "/ready")]

    assert in_a_loop(asked) == [200, 200]


def test_the_log_tells_the_route_and_not_whom_it_was_about(
    exchange: Exchange, settings: Settings
) -> None:
    asked = client(exchange, settings, probe())
    with capture_logs() as logged:
        asked.post("/probe/patients/350203199001011234?name=王小东")
        asked.get("/somewhere/350203199001011234")
    told = [(one["method"], one["route"], one["status"]) for one in logged]
    assert told == [("POST", "/probe/patients/{number}", "200"), ("GET", "none", "404")]
    assert "350203199001011234" not in str(logged)
    assert "王" not in str(logged)


def test_a_failure_is_told_without_what_it_says(exchange: Exchange, settings: Settings) -> None:
    answer = client(exchange, settings, probe()).get("/probe/failing")
    assert answer.status_code == 500
    assert "王小东" not in answer.text


def test_links_are_what_clients_write(exchange: Exchange, settings: Settings) -> None:
    public = settings.model_copy(update={"public_url": AnyHttpUrl("https://images.example.cn")})
    answer = client(exchange, public, probe()).get("/probe/link")
    assert answer.json() == "https://images.example.cn/probe/patients/1"
    assert answer.headers["strict-transport-security"]
    assert client(exchange, settings, probe()).get("/probe/link").json().startswith("http://test")


def test_the_description_is_served_only_where_it_is_set(
    exchange: Exchange, settings: Settings
) -> None:
    assert client(exchange, settings).get("/openapi.json").status_code == 404
    documented = settings.model_copy(update={"http_documentation": True})
    assert client(exchange, documented).get("/openapi.json").status_code == 200


@pytest.mark.parametrize("path", ["/dicom-web/studies", "/fhir/Patient", "/fhir/ImagingStudy/1"])
def test_no_door_opens_without_a_token(exchange: Exchange, settings: Settings, path: str) -> None:
    answer = TestClient(application(exchange, settings)).get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/health", "/ready", "/fhir/metadata"])
def test_a_probe_by_head_is_answered_as_get_is_but_for_the_body(
    exchange: Exchange, settings: Settings, path: str
) -> None:
    asked = TestClient(application(exchange, settings))

    by_head, by_get = asked.head(path), asked.get(path)

    assert by_head.status_code == by_get.status_code
    assert by_head.headers["content-type"] == by_get.headers["content-type"]


@pytest.mark.parametrize("path", ["/fhir/Patient", "/dicom-web/studies"])
def test_a_token_that_is_not_accepted_is_told_from_one_that_is_missing(
    exchange: Exchange, settings: Settings, path: str
) -> None:
    asked = TestClient(application(exchange, settings))

    without = asked.get(path).headers["www-authenticate"]
    forged = asked.get(path, headers={"Authorization": "Bearer e.e.e"}).headers["www-authenticate"]

    assert without.startswith("Bearer")
    assert "invalid_token" not in without
    assert 'error="invalid_token"' in forged

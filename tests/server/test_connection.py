"""What a web server of the exchange does with those who only want to keep it busy."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from exchange_server import connection
from exchange_server.connection import FIELDS, HEADER_LIMIT, PIPELINED, Connection, Conversation

GET = b"GET / HTTP/1.1\r\nHost: exchange\r\n"


async def answers_with_the_size_of_the_body(scope: Any, receive: Any, send: Any) -> None:
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    if scope["path"] == "/later":
        await asyncio.Event().wait()
    body = b"%d" % size
    if scope["path"] == "/large":
        body = bytes(1 << 26)
    length = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server on the loopback."""
    config = uvicorn.Config(
        answers_with_the_size_of_the_body,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    with serving(config) as port:
        yield port


@contextmanager
def serving(config: uvicorn.Config) -> Iterator[int]:
    """The port of a server on the loopback, stopped at the end whatever happens."""
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def answer(port: int, *sent: bytes) -> bytes:
    """All that comes back on one connection, until it is closed at the other end."""
    came = b""
    with socket.create_connection(("127.0.0.1", port), timeout=180) as here:
        try:
            for piece in sent:
                here.sendall(piece)
        except ConnectionError:
            pass  # it has heard enough
        try:
            while piece := here.recv(1 << 20):
                came += piece
        except ConnectionError:
            pass
    return came


CLOSE = b"Connection: close\r\n"


def test_a_request_of_usual_size_is_answered(port: int) -> None:
    body = bytes(1 << 20)
    head = b"POST / HTTP/1.1\r\nHost: exchange\r\nContent-Length: %d\r\n" % len(body)
    assert answer(port, head, CLOSE, b"\r\n", body).endswith(b"\r\n\r\n%d" % len(body))
    fields = b"".join(b"X-%d: %b\r\n" % (n, b"x" * 200) for n in range(200))
    assert answer(port, GET, fields, CLOSE, b"\r\n").startswith(b"HTTP/1.1 200")
    chunks = b"".join(b"%x\r\n%b\r\n" % (1000, bytes(1000)) for _ in range(500))
    head = b"POST / HTTP/1.1\r\nHost: exchange\r\nTransfer-Encoding: chunked\r\n"
    assert answer(port, head, CLOSE, b"\r\n", chunks, b"0\r\n\r\n").endswith(b"500000")
    two = GET + b"\r\n" + GET + CLOSE + b"\r\n"
    assert answer(port, two).count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ([GET, b"X: ", *[b"x" * 8192] * 32], b"431"),
        ([GET, *[b"X: y\r\n"] * (FIELDS + 1), b"\r\n"], b"431"),
        ([b"GET /?", *[b"x" * 8192] * 32], b"414"),
        ([b"\r\n" * HEADER_LIMIT], b"431"),
        ([b"no HTTP\r\n\r\n"], b"400"),
    ],
    ids=["field", "fields", "query", "nothing", "nonsense"],
)
def test_a_header_without_an_end_is_refused_before_it_fills_the_memory(
    port: int, sent: list[bytes], status: bytes
) -> None:
    came = answer(port, *sent)
    assert came.startswith(b"HTTP/1.1 " + status) or not came  # reset, when it still sends


def test_trailers_without_an_end_are_cut_off(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: exchange\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert answer(port, head, b"1\r\nx\r\n0\r\nX: ", *[b"x" * 8192] * 64) == b""


def test_requests_that_do_not_wait_for_answers_are_cut_off(port: int) -> None:
    later = GET.replace(b"/", b"/later", 1) + b"\r\n"
    assert answer(port, later * (PIPELINED + 2)) == b""


def test_who_does_not_say_what_is_wanted_is_asked_to_leave(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.05)
    assert answer(port).startswith(b"HTTP/1.1 408")
    assert answer(port, GET).startswith(b"HTTP/1.1 408")
    after_an_answer = answer(port, GET, b"\r\n", GET)
    assert after_an_answer.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in after_an_answer


def test_who_does_not_read_the_answer_is_cut_off(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WRITE_SECONDS", 0.05)
    cut_off = threading.Event()
    lost = Connection.connection_lost

    def noticed(one: Connection, error: Exception | None) -> None:
        lost(one, error)
        cut_off.set()

    monkeypatch.setattr(Connection, "connection_lost", noticed)
    with socket.create_connection(("127.0.0.1", port)) as here:
        here.sendall(b"GET /large HTTP/1.1\r\nHost: exchange\r\n\r\n")
        assert cut_off.wait(180)


def test_one_connection_too_many_is_told_so(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS", 1)
    with socket.create_connection(("127.0.0.1", port)) as here:
        here.sendall(GET + b"\r\n")
        assert here.recv(1000).startswith(b"HTTP/1.1 200")
        assert answer(port, GET, b"\r\n").startswith(b"HTTP/1.1 503")


def test_who_reads_nothing_of_a_websocket_any_more_is_not_waited_for() -> None:
    ended = threading.Event()

    async def tells_without_end(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(1 << 20)})
        finally:
            ended.set()

    config = uvicorn.Config(
        tells_without_end,
        http=Connection,
        ws=Conversation,
        ws_ping_interval=0.1,
        ws_ping_timeout=0.1,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    with serving(config) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(
            GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert ended.wait(60)

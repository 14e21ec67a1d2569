"""Bodies that a web server of the exchange sends from files, to clients of all kinds."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from loops import in_a_loop

from exchange.errors import Unavailable
from exchange.spans import Span
from exchange_dicom.web_answers import PIECES, Piece, streamed
from exchange_server import connection
from exchange_server.connection import Connection
from exchange_storage.objects import Descriptor

IMAGE = random.Random(1).randbytes(3 << 20)
CLOSE = b"Connection: close\r\n"


@dataclass(slots=True)
class Hospital:
    """A server with one study of `images` images, which lie in files."""

    server: uvicorn.Server
    port: int
    images: Path

    def study(self, images: int, *, damaged: bool = False) -> Iterator[Piece]:
        for number in range(images):
            yield b"--image %d--" % number
            file = Descriptor(os.open(self.images, os.O_RDONLY))
            yield Span(file, 0, len(IMAGE) + damaged)
        yield b"--end--"

    @staticmethod
    def whole(images: int) -> bytes:
        return b"".join(b"--image %d--%b" % (n, IMAGE) for n in range(images)) + b"--end--"

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        """The study as its length is known (`/known/n`), or not (`/n`), or otherwise than said."""
        if scope["path"] == "/short":
            body = streamed(self.study(1, damaged=True), {"Content-Length": str(len(IMAGE) + 1)})
        else:
            _, *known, count = scope["path"].split("/")
            images = int(count)
            length = {"Content-Length": str(len(self.whole(1)) if images == 1 else _length(images))}
            body = streamed(self.study(images), length if known else {})
        await body(scope, receive, send)

    def get(self, path: str, *more: bytes) -> bytes:
        """All that comes back on one connection for these requests, until it is closed."""
        came = b""
        with self.connected() as here:
            here.sendall(b"GET %b HTTP/1.1\r\nHost: exchange\r\n" % path.encode())
            for piece in more:
                here.sendall(piece)
            while piece := here.recv(1 << 20):
                came += piece
        return came

    def connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


def _length(images: int) -> int:
    return sum(len(b"--image %d--" % n) + len(IMAGE) for n in range(images)) + len(b"--end--")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    place = tmp_path_factory.mktemp("images") / "image"
    place.write_bytes(IMAGE)
    with pytest.MonkeyPatch.context() as patched, served(place) as made:
        patched.setattr(connection, "SENDERS", 2)
        yield made


class served:  # noqa: N801 - is used as a function
    """A hospital's server on a free port of the loopback, stopped at the end whatever happens."""

    def __init__(self, images: Path, grace: int = 5) -> None:
        self._images, self._grace = images, grace

    def __enter__(self) -> Hospital:
        self._listening = socket.create_server(("127.0.0.1", 0))
        port = self._listening.getsockname()[1]

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self._made.answer(scope, receive, send)

        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=self._grace,
        )
        server = uvicorn.Server(config)
        self._made = Hospital(server, port, self._images)
        self._thread = threading.Thread(target=server.run, args=([self._listening],))
        self._thread.start()
        until(lambda: server.started or not self._thread.is_alive())
        return self._made

    def __exit__(self, *_: object) -> None:
        self._made.server.should_exit = True
        self._thread.join()
        self._listening.close()


def until(so: Callable[[], bool]) -> None:
    """Wait for what is so sooner or later."""
    end = time.monotonic() + 60
    while not so():
        assert time.monotonic() < end
        time.sleep(0.002)


def all_closed(hospital: Hospital) -> bool:
    """Whether nobody has the images open any more."""
    opened = Path("/proc/self/fd").iterdir()
    return not any(os.path.realpath(one) == str(hospital.images) for one in opened)


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def test_a_study_comes_whole_with_and_without_a_length(hospital: Hospital) -> None:
    known = hospital.get("/known/4", CLOSE, b"\r\n")
    assert known.startswith(b"HTTP/1.1 200")
    assert body_of(known) == hospital.whole(4)
    assert b"transfer-encoding" not in known[:500]
    with httpx2.Client(timeout=60) as http:
        chunked = http.get(f"http://127.0.0.1:{hospital.port}/4")
    assert chunked.headers["transfer-encoding"] == "chunked"
    assert chunked.content == hospital.whole(4)
    assert all_closed(hospital)


def test_two_studies_come_on_one_connection_one_after_another(hospital: Hospital) -> None:
    second = b"GET /known/2 HTTP/1.1\r\nHost: exchange\r\n" + CLOSE + b"\r\n"
    both = hospital.get("/known/1", b"\r\n", second)
    first, _, rest = both.partition(b"--end--")
    assert first.endswith(IMAGE)
    assert rest.startswith(b"HTTP/1.1 200")
    assert body_of(rest) == hospital.whole(2)
    with httpx2.Client(timeout=60) as http:
        for path in ("3", "known/2", "1"):
            came = http.get(f"http://127.0.0.1:{hospital.port}/{path}")
            assert came.content == hospital.whole(int(path[-1]))


def test_who_asks_for_the_head_alone_gets_no_body(hospital: Hospital) -> None:
    with hospital.connected() as here:
        here.sendall(b"HEAD /known/1 HTTP/1.1\r\nHost: exchange\r\n\r\n")
        here.sendall(b"HEAD /known/1 HTTP/1.1\r\nHost: exchange\r\n" + CLOSE + b"\r\n")
        came = b"".join(iter(lambda: here.recv(1 << 20), b""))
    assert came.count(b"HTTP/1.1 200") == 2
    assert came.count(b"content-length: %d" % _length(1)) == 2
    assert IMAGE[:100] not in came


def test_an_old_client_gets_the_study_and_then_the_end(hospital: Hospital) -> None:
    with hospital.connected() as here:
        here.sendall(b"GET /known/1 HTTP/1.0\r\n\r\n")
        came = b"".join(iter(lambda: here.recv(1 << 20), b""))
    assert body_of(came) == hospital.whole(1)


def test_many_who_read_slowly_hold_up_nobody(hospital: Hospital) -> None:
    connections = [hospital.connected() for _ in range(20)]
    for one in connections:
        one.sendall(b"GET /known/4 HTTP/1.1\r\nHost: exchange\r\n" + CLOSE + b"\r\n")
    assert body_of(hospital.get("/known/2", CLOSE, b"\r\n")) == hospital.whole(2)

    whole = hospital.whole(4)

    def rest(one: socket.socket) -> bytes:
        with one:
            return b"".join(iter(lambda: one.recv(1 << 20), b""))

    with ThreadPoolExecutor(20) as readers:
        for came in readers.map(rest, connections):
            assert body_of(came) == whole
    until(lambda: all_closed(hospital))


def test_who_goes_away_has_no_file_kept_open(hospital: Hospital) -> None:
    for leave in (socket.SHUT_RDWR, None):
        with hospital.connected() as here:
            here.sendall(b"GET /known/40 HTTP/1.1\r\nHost: exchange\r\n\r\n")
            assert here.recv(1000).startswith(b"HTTP/1.1 200")
            if leave is not None:
                here.shutdown(leave)
        until(lambda: all_closed(hospital))
        until(lambda: not hospital.server.server_state.tasks)
    assert len(hospital.get("/known/1", CLOSE, b"\r\n")) > len(IMAGE)


def test_who_reads_nothing_is_cut_off(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WRITE_SECONDS", 0.05)
    with hospital.connected() as here:
        here.sendall(b"GET /known/40 HTTP/1.1\r\nHost: exchange\r\n\r\n")
        assert here.recv(1000).startswith(b"HTTP/1.1 200")
        until(lambda: not hospital.server.server_state.tasks)
        assert all_closed(hospital)
        came = 0
        with suppress(ConnectionError):
            while piece := here.recv(1 << 20):
                came += len(piece)
    assert came < _length(40)


def test_what_is_shorter_than_it_was_breaks_the_answer_off(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
) -> None:
    came = hospital.get("/short", b"\r\n")
    assert len(body_of(came)) <= len(IMAGE) + len(b"--image 0--")
    until(lambda: all_closed(hospital))
    assert "Unavailable" in str([record.exc_info for record in caplog.records])


def test_a_file_system_without_sendfile_is_read(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sendfile", refused)
    assert body_of(hospital.get("/known/2", CLOSE, b"\r\n")) == hospital.whole(2)


def test_a_server_that_stops_finishes_what_it_has_begun(tmp_path: Path) -> None:
    place = tmp_path / "image"
    place.write_bytes(IMAGE)
    with served(place) as hospital, hospital.connected() as here:
        here.sendall(b"GET /known/8 HTTP/1.1\r\nHost: exchange\r\n\r\n")
        came = here.recv(1000)
        hospital.server.should_exit = True
        came += b"".join(iter(lambda: here.recv(1 << 20), b""))
        assert body_of(came) == hospital.whole(8)


def test_a_server_that_stops_waits_for_nobody_who_does_not_read(tmp_path: Path) -> None:
    place = tmp_path / "image"
    place.write_bytes(IMAGE)
    with served(place, grace=1) as hospital, hospital.connected() as here:
        here.sendall(b"GET /known/40 HTTP/1.1\r\nHost: exchange\r\n\r\n")
        here.recv(1000)
        hospital.server.should_exit = True
        until(lambda: all_closed(hospital))


def test_without_the_extension_files_are_read(hospital: Hospital) -> None:
    got: list[bytes] = []

    async def send(message: Any) -> None:
        got.append(message.get("body", b""))

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope = {"type": "http", "path": "/3", "method": "GET", "asgi": {"spec_version": "2.3"}}
    in_a_loop(hospital.answer, scope, receive, send)
    assert PIECES not in scope
    assert b"".join(got) == hospital.whole(3)
    assert all_closed(hospital)


def test_a_span_tells_when_its_file_has_become_shorter(tmp_path: Path) -> None:
    place = tmp_path / "image"
    place.write_bytes(b"short")
    file = Descriptor(os.open(place, os.O_RDONLY))
    with pytest.raises(Unavailable):
        list(Span(file, 0, 6).pieces())
    assert file.number < 0

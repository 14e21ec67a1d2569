"""An S3 server that says nothing: who reads is told soon, and who sends slowly is not cut off."""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import minio
import pytest
import urllib3
from real_parts import LOOPBACK, S3Address, SeaweedFS

from exchange_storage import s3
from exchange_storage.objects import StoreUnavailable
from exchange_storage.s3 import S3Store

KEY = "studies/1.2.3/4.5.6/7.8.9.0123abcd.dcm"
IMAGE = random.Random(1).randbytes(526_000)


def connected(address: S3Address, place: Path) -> S3Store:
    return S3Store.connect(
        address.endpoint,
        address.access_key,
        address.secret_key,
        "exchange",
        secure=False,
        region="us-east-1",
        staging=place / "staging",
    )


@pytest.fixture
def mute() -> Iterator[tuple[S3Address, list[socket.socket]]]:
    """A server that takes each connection, and says nothing; the connections."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        taken: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield S3Address(f"{LOOPBACK}:{listener.getsockname()[1]}", "key", "secret"), taken
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in taken:
                one.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long, and who is silent is not asked again before the test ends."""
    monkeypatch.setattr(s3, "READING", urllib3.Timeout(connect=5, read=0.5))
    monkeypatch.setattr(s3, "SILENT_SECONDS", 600.0)


@pytest.mark.usefixtures("soon")
def test_of_a_server_that_says_nothing_the_first_who_reads_finds_out_for_all(
    mute: tuple[S3Address, list[socket.socket]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, taken = mute
    place = tmp_path / "staging"
    place.mkdir()
    (place / "bucket").write_text(f"{address.endpoint}/exchange")
    store = connected(address, tmp_path)
    assert taken == []  # this machine knows the bucket: to open it asks nothing
    with pytest.raises(StoreUnavailable, match="ReadTimeoutError"):
        store.get(KEY)
    for ask in (store.get, store.stat, store.digest, lambda key: store.put(key, IMAGE)):
        with pytest.raises(StoreUnavailable, match="the S3 store does not answer"):
            ask(KEY)
    assert len(taken) == 1  # nor was it asked again by who had found out
    monkeypatch.setattr(s3, "SILENT_SECONDS", 0.0)
    assert store._pool
    store._pool.server._ask_again = 0.0  # time passes: one finds out
    with pytest.raises(StoreUnavailable, match="ReadTimeoutError"):
        store.get(KEY)
    assert len(taken) == 2
    store.close()


@pytest.mark.usefixtures("soon")
def test_a_server_that_answered_somebody_meanwhile_is_not_silent() -> None:
    server = s3._Server()
    timed_out = urllib3.exceptions.ReadTimeoutError(None, "", "")  # type: ignore[arg-type]
    since = server.ask()
    server.heard()
    server.not_heard(since, timed_out)
    since = server.ask()
    server.not_heard(since, timed_out)
    with pytest.raises(s3._Silent):
        server.ask()
    server.heard()
    server.ask()


def test_an_upload_over_a_slow_line_goes_on_as_long_as_it_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes several times the time-out, which is for each block."""
    monkeypatch.setattr(s3, "WRITING", urllib3.Timeout(connect=0.5, read=60))
    got = bytearray()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        listener.bind((LOOPBACK, 0))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while len(got) < len(IMAGE):
                    got.extend(connection.recv(32768))
                    time.sleep(0.1)
                connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 0\r\n\r\n')

        thread = threading.Thread(target=serve)
        thread.start()
        client = minio.Minio(
            f"{LOOPBACK}:{listener.getsockname()[1]}",
            "key",
            "secret",
            secure=False,
            region="us-east-1",
            http_client=s3._Calls(),
        )
        client.put_object("exchange", KEY, io.BytesIO(IMAGE), len(IMAGE))
        thread.join()
    assert got.endswith(IMAGE)


def test_an_s3_server_that_stops_fails_all_who_read_at_once_and_serves_again_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = SeaweedFS(tmp_path)
    server.start()
    assert server.process
    store = connected(server.address, tmp_path)
    try:
        store.put(KEY, IMAGE)
        monkeypatch.setattr(s3, "READING", urllib3.Timeout(connect=5, read=0.5))
        monkeypatch.setattr(s3, "SILENT_SECONDS", 600.0)
        os.kill(server.process.pid, signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match="ReadTimeoutError"):
            store.get(KEY)
        for _ in range(1000):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                store.get(KEY)
        again = connected(server.address, tmp_path)  # a command opens it
        again.close()
        os.kill(server.process.pid, signal.SIGCONT)
        assert store._pool
        store._pool.server._ask_again = 0.0  # time passes
        monkeypatch.setattr(s3, "READING", urllib3.Timeout(connect=5, read=60))
        assert store.get(KEY) == IMAGE
        assert store.get(KEY) == IMAGE
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
        store.close()
        server.stop()

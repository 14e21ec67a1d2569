"""J7: whatever happens while images arrive, what was answered with success is there afterwards."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import ready
from caller import (
    CT,
    EXPLICIT,
    STUDY_FIND,
    SUCCESS,
    Caller,
    Hung,
    calling,
    element,
    identifier,
    image,
)
from depth import DEEP
from images import data_set
from real_parts import PostgreSQL, S3Address
from roles import PATIENCE, Role, drained, remote, small_exchange
from running import DICOM_AS_STORED, RunningExchange, parts

KILLS = {1: 50, 2: 25} if DEEP else {1: 6, 2: 3}
"""Rounds, by the number of node processes on the port."""

WHOLE = {1: 6, 2: 3}
"""Every so many rounds everything runs, and everything is killed; in the others only the node."""

SENDERS = 3
SERIES_LENGTH = 20


class Modality:
    """Sends one image after another until each has been answered with success, come what may."""

    def __init__(self, port: int, seed: int) -> None:
        self.stored: set[int] = set()
        self.broken_off = 0
        """How often an image was on its way, or its answer, when the end came."""
        self._port = port
        self._seed = seed
        self._running = threading.Event()
        self._ended = False
        self._again: deque[int] = deque()
        self._next = 0
        self._lock = threading.Lock()
        self._senders = [threading.Thread(target=self._send) for _ in range(SENDERS)]

    def __enter__(self) -> Modality:
        for sender in self._senders:
            sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._running.set()
        for sender in self._senders:
            sender.join()

    def on(self) -> None:
        """There is somebody to send to."""
        self._running.set()

    def has_stored(self) -> None:
        """Wait until one more was stored, however slow the machine is."""
        before = len(self.stored)
        deadline = time.monotonic() + PATIENCE
        while len(self.stored) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.stored) > before

    def off(self) -> None:
        """There is nobody; what is on its way may fail."""
        self._running.clear()

    def image(self, number: int) -> tuple[str, bytes]:
        """The SOP Instance UID and the data set of an image, of 2 to 400 KB; every other one is so
        small that the index carries it."""
        study = f"1.2.{self._seed}.{number // SERIES_LENGTH}"
        most = 199_000 if number % 2 else 14_000
        pixels = random.Random(self._seed + number).randbytes(2000 + number * 7919 % most * 2)
        uid = f"{study}.1.{number}"
        body = element(0x7FE00010, "OW", pixels)
        return uid, image(study=study, series=f"{study}.1", instance=uid, pixels=body)

    def studies(self) -> set[str]:
        """The Study Instance UIDs of what was stored."""
        return {f"1.2.{self._seed}.{number // SERIES_LENGTH}" for number in self.stored}

    def digests(self) -> dict[str, tuple[str, bool]]:
        """SHA-256 of each data set that was sent, by UID, and whether it was stored."""
        with self._lock:
            numbers = range(self._next)
        sent = ((number, *self.image(number)) for number in numbers)
        return {uid: (sha256(body).hexdigest(), n in self.stored) for n, uid, body in sent}

    def _send(self) -> None:
        while not self._ended:
            self._running.wait()
            try:
                with Caller(self._port, (CT, (EXPLICIT,))) as pacs:
                    while self._running.is_set() and not self._ended:
                        self._store_next(pacs)
            except (Hung, OSError):
                time.sleep(0.01)  # it has been killed

    def _store_next(self, pacs: Caller) -> None:
        with self._lock:
            if self._again:
                number = self._again.popleft()
            else:
                number, self._next = self._next, self._next + 1
        try:
            uid, body = self.image(number)
            answer = pacs.store(body, uid)
            assert answer.status == SUCCESS, f"{answer.status:04X} {answer.error_comment}"
        except BaseException:
            self._again.append(number)
            self.broken_off += 1
            raise
        self.stored.add(number)


class Nodes:
    """The node processes of an exchange, all on one port."""

    def __init__(self, exchange: RunningExchange, count: int) -> None:
        self._nodes = [Role(exchange, "node") for _ in range(count)]

    def start(self) -> None:
        for node in self._nodes:
            node.start()

    def lose_one(self) -> None:
        """One of several is killed, and started again while the others receive."""
        if len(self._nodes) > 1:
            self._nodes[0].kill()
            self._nodes[0].start()

    def kill(self) -> None:
        for node in self._nodes:
            node.kill()


@pytest.fixture(params=[1, 2], ids=["one node", "two nodes"])
def nodes(request: pytest.FixtureRequest) -> int:
    """How many processes listen on the port."""
    return int(request.param)


@pytest.fixture(params=["sqlite+filesystem", "postgresql+s3"])
def exchange(
    request: pytest.FixtureRequest, tmp_path: Path, nodes: int
) -> Iterator[RunningExchange]:
    settings = {"EXCHANGE_TOKEN_LIFETIME": "3600", "EXCHANGE_NODE_PROCESSES": str(nodes)}
    if request.param == "postgresql+s3":
        database: PostgreSQL = request.getfixturevalue("postgresql_server")
        s3: S3Address = request.getfixturevalue("s3_server")
        settings |= remote(s3, f"durability-{nodes}")
        settings["EXCHANGE_DATABASE_URL"] = ready.postgresql(database)
    made = small_exchange(tmp_path, settings)
    try:
        yield made
    finally:
        made.kill()


def test_j7_no_kill_loses_what_was_answered_with_success(
    exchange: RunningExchange, nodes: int
) -> None:
    seed = random.SystemRandom().randrange(1, 10**9)
    chance = random.Random(seed)
    print(f"seed {seed}")  # noqa: T201 - shown where it fails
    processes = Nodes(exchange, nodes)
    kills = KILLS[nodes]
    with Modality(exchange.dimse_port, seed) as modality:
        for number in range(1, kills + 1):
            spot = chance.sample(sorted(modality.stored), min(20, len(modality.stored)))
            running = processes if number % WHOLE[nodes] else exchange
            running.start()
            try:
                modality.on()
                modality.has_stored()
                time.sleep(chance.uniform(0, 0.6))
                are_found(exchange, [modality.image(one)[0] for one in spot])
                time.sleep(chance.uniform(0, 0.6))
                if running is processes:
                    processes.lose_one()
                    time.sleep(chance.uniform(0, 0.6))
            finally:
                running.kill()  # while they send, however fast each is answered
                modality.off()
    assert len(modality.stored) > 2 * kills
    assert modality.broken_off >= kills

    exchange.start()
    served: dict[str, str] = {}
    with exchange.web("dr.beicheng") as client:
        for study in modality.studies():
            answer = client.get(f"/dicom-web/studies/{study}", headers={"Accept": DICOM_AS_STORED})
            assert answer.status_code == 200
            for part in parts(answer.content, answer.headers["content-type"]):
                served[uid_of(part)] = sha256(data_set(part)).hexdigest()
    sent = modality.digests()
    lost = [uid for uid, (digest, stored) in sent.items() if stored and served.get(uid) != digest]
    assert lost == []
    assert {uid: sent[uid][0] for uid in served} == served
    exchange.run("check")
    exchange.run("audit", "verify")
    if "EXCHANGE_S3_BUCKET" in exchange.settings:
        drained(exchange)
        exchange.run("check")
    assert exchange.stop() == 0


def are_found(exchange: RunningExchange, instances: list[str]) -> None:
    """Each instance is found by C-FIND."""
    if not instances:
        return
    with calling(exchange.dimse_port, (STUDY_FIND, (EXPLICIT,)), relational=True) as pacs:
        key = (0x00080018, "UI", "\\".join(instances))
        answers = pacs.find(identifier(key, level="IMAGE"))
    assert answers[-1][0].status == SUCCESS
    assert len(answers) - 1 == len(instances)


def uid_of(part10: bytes) -> str:
    """The Media Storage SOP Instance UID of a file."""
    at = part10.index(b"\x02\0\x03\0UI") + 6
    length = int.from_bytes(part10[at : at + 2], "little")
    return part10[at + 2 : at + 2 + length].rstrip(b"\0").decode()

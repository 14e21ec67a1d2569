"""What goes wrong around an exchange in use: bad requests, bad tokens, full disks, parts that fail.

Each is answered in the protocol's own terms, nothing is half kept, and the exchange goes on.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from caller import (
    CT,
    EXPLICIT,
    FRAGMENT,
    INSTANCE,
    SUCCESS,
    Caller,
    Hung,
    calling,
    element,
    image,
)
from images import data_set
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from real_parts import PostgreSQL, SeaweedFS, postgresql
from roles import Role, drained, eventually, remote, small_exchange
from running import DICOM_AS_STORED, DICOM_JSON, RunningExchange, parts

from exchange_dicom import part10
from exchange_dicom.pdu import AssociateReject
from exchange_server.keys import ALGORITHM, TokenKeys
from exchange_server.tokens import AUDIENCE, TOKEN_TYPE

OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = f'"00081197":{{"vr":"US","Value":[{0xC000}]}}'
"""The Failure Reason of an instance, as STOW-RS answers it."""
MEGABYTE = 1 << 20
MULTIPART = 'multipart/related; type="application/dicom"; boundary=limit'
FHIR_JSON = "application/fhir+json"


def numbered(number: int, size: int = 4096) -> tuple[str, bytes]:
    """The SOP Instance UID and the data set of an image with `size` bytes of pixels."""
    uid = f"1.7.{number}"
    pixels = element(0x7FE00010, "OW", number.to_bytes(2, "little") * (size // 2))
    return uid, image(instance=uid, pixels=pixels)


def send(pacs: Caller, number: int, size: int = 4096) -> int:
    """The status of a C-STORE of that image."""
    uid, body = numbered(number, size)
    return pacs.store(body, uid).status


def part10_of(body: bytes, instance: str = INSTANCE) -> bytes:
    return part10.file_meta(CT, instance, EXPLICIT) + body


def multipart(*bodies: bytes, closed: bool = True) -> bytes:
    """A body with `bodies` as its parts."""
    head = b"--limit\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + body + b"\r\n" for body in bodies) + b"--limit--\r\n" * closed


def held(exchange: RunningExchange) -> tuple[int, int, int]:
    """How many instances the index has, how many objects there are, and what is half-way."""
    data = exchange.home / "exchange"
    with closing(sqlite3.connect(data / "index.sqlite")) as index:
        (rows,) = index.execute("SELECT count(*) FROM instance").fetchone()
        keys = {key for (key,) in index.execute("SELECT key FROM carried")}
    objects = data / "objects"
    files = [path for path in (objects / "objects" / "studies").rglob("*") if path.is_file()]
    keys |= {str(path.relative_to(objects / "objects")) for path in files}
    staged = [path for path in (objects / "staging").rglob("*") if path.is_file()]
    return rows, len(keys), sum(path.name != "lock" for path in staged)


def served(exchange: RunningExchange, study: str = "1.2.1") -> set[bytes]:
    """The data sets that WADO-RS answers for a study."""
    with exchange.web("dr.beicheng") as client:
        answer = client.get(f"/dicom-web/studies/{study}", headers={"Accept": DICOM_AS_STORED})
        assert answer.status_code == 200, answer.text
        return {data_set(one) for one in parts(answer.content, answer.headers["content-type"])}


@contextmanager
def running(exchange: RunningExchange, *roles: str) -> Iterator[dict[str, Role]]:
    """These roles of it, each stopped at the end."""
    started: dict[str, Role] = {}
    try:
        for role in roles:
            started[role] = Role(exchange, role).start()
        yield started
    finally:
        for one in started.values():
            one.stop()


# Requests


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    """The HTTP doors of an exchange that holds one image."""
    made = small_exchange(tmp_path_factory.mktemp("doors"), {})
    with running(made, "web"):
        with made.web("ris.beicheng") as ris:
            assert stow(ris, multipart(part10_of(image()))).status_code == 200
        yield made


def stow(
    client: httpx2.Client, body: bytes, content_type: str = MULTIPART, path: str = "studies"
) -> httpx2.Response:
    headers = {"Content-Type": content_type, "Accept": DICOM_JSON}
    return client.post(f"/dicom-web/{path}", content=body, headers=headers)


def goes_on(exchange: RunningExchange) -> None:
    """The good image is answered as ever, and nothing was added to it or is half-way."""
    with exchange.web("ris.beicheng") as ris:
        assert stow(ris, multipart(part10_of(image()))).status_code == 200
    assert served(exchange) == {image()}
    assert held(exchange) == (1, 1, 0)


CLIMBING = image(instance="../../x")
OTHER = image(instance="1.4.2", study="1.2.2", series="1.2.2.1")


@pytest.mark.parametrize(
    ("body", "content_type", "path", "status", "told"),
    [
        (
            multipart(OTHER),
            'multipart/related; type="application/dicom"',
            "studies",
            400,
            "boundary",
        ),
        (b"", MULTIPART, "studies", 400, "closing delimiter"),
        (b"", "application/dicom", "studies", 409, CANNOT_UNDERSTAND),
        (multipart(b""), MULTIPART, "studies", 409, CANNOT_UNDERSTAND),
        (multipart(part10_of(OTHER, "1.4.2")), MULTIPART, "studies/1.2.9", 409, CANNOT_UNDERSTAND),
        (multipart(part10_of(OTHER[:-100])), MULTIPART, "studies", 409, CANNOT_UNDERSTAND),
        (multipart(part10_of(OTHER), closed=False), MULTIPART, "studies", 400, "closing delimiter"),
        (
            multipart(part10_of(image(instance="../x"))),
            MULTIPART,
            "studies",
            409,
            CANNOT_UNDERSTAND,
        ),
        (multipart(b"\x89PNG" * 99), MULTIPART, "studies", 409, CANNOT_UNDERSTAND),
        (b"{}", "application/dicom+json", "studies", 415, "multipart/related"),
        (multipart(part10_of(OTHER)), MULTIPART, "studies/..%2f..", 405, ""),
        (multipart(part10_of(OTHER)), MULTIPART, "studies/1.x", 400, ""),
    ],
    ids=[
        "no boundary",
        "0 bytes",
        "0 bytes of DICOM",
        "an empty part",
        "another study",
        "cut off pixels",
        "cut off body",
        "a UID that climbs",
        "a PNG",
        "JSON",
        "a path that climbs",
        "a study that is no UID",
    ],
)
def test_what_cannot_be_stored_is_refused_in_the_terms_of_dicomweb(
    doors: RunningExchange, body: bytes, content_type: str, path: str, status: int, told: str
) -> None:
    with doors.web("ris.beicheng") as ris:
        answer = stow(ris, body, content_type, path)

    assert (answer.status_code, told in answer.text) == (status, True), answer.text
    assert "Traceback" not in answer.text
    goes_on(doors)


@pytest.mark.parametrize(
    ("path", "prefer", "status", "code"),
    [
        ("Patient?shoe-size=42", "", 200, "not-supported"),
        ("Patient?shoe-size=42", "handling=strict", 400, "invalid"),
        ("Patient?birthdate=yesterday", "", 400, "invalid"),
        ("ImagingStudy?started=2026-13-01", "", 400, "invalid"),
        ("Patient?_page=broken", "", 400, "invalid"),
        ("ImagingStudy?_page=AAAA&_count=5", "", 400, "invalid"),
        ("Patient?_count=many", "", 400, "invalid"),
        ("Unicorn", "", 404, "not-supported"),
        ("ImagingStudy/..%2F..%2Fetc", "", 404, ""),
        ("Patient?name=%00", "", 400, "invalid"),
    ],
)
def test_a_search_that_makes_no_sense_is_answered_in_the_terms_of_fhir(
    doors: RunningExchange, path: str, prefer: str, status: int, code: str
) -> None:
    with doors.web("dr.beicheng") as client:
        answer = client.get(f"/fhir/{path}", headers={"Prefer": prefer} if prefer else {})

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith(FHIR_JSON)
    assert not code or code in codes(answer.json())
    goes_on(doors)


@pytest.mark.parametrize("body", [b"{}", b"[1, 2", b'{"resourceType": 5}', b"\xff\xfe", b"null"])
def test_json_that_is_no_resource_is_no_structure_of_fhir(
    doors: RunningExchange, body: bytes
) -> None:
    with doors.web("dr.beicheng") as client:
        answer = client.post("/fhir/Patient", content=body, headers={"Content-Type": FHIR_JSON})

    assert (answer.status_code, codes(answer.json())) == (400, ["structure"])
    goes_on(doors)


@pytest.mark.parametrize("query", ["StudyDate=2026", "StudyDate=1-2-3", "limit=all", "offset=-1"])
def test_a_query_that_makes_no_sense_is_refused_in_the_terms_of_dicomweb(
    doors: RunningExchange, query: str
) -> None:
    with doors.web("dr.beicheng") as client:
        answer = client.get(f"/dicom-web/studies?{query}", headers={"Accept": DICOM_JSON})

    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    goes_on(doors)


def codes(resource: dict[str, Any]) -> list[str]:
    """The issue codes of an OperationOutcome, or of the one in a Bundle."""
    inside = [entry["resource"] for entry in resource.get("entry", ())]
    return [issue["code"] for one in (resource, *inside) for issue in one.get("issue", ())]


@pytest.mark.parametrize("door", ["/fhir/Patient", "/dicom-web/studies"])
def test_no_door_opens_to_a_token_that_is_not_ours_for_now(
    doors: RunningExchange, door: str
) -> None:
    kid, key = TokenKeys(doors.home / "exchange" / "keys" / "tokens").signing()
    now = int(time.time())
    good = {
        "iss": doors.url,
        "sub": "dr.beicheng",
        "aud": AUDIENCE,
        "iat": now - 100,
        "nbf": now - 100,
        "exp": now + 100,
        "jti": "1",
    }

    def token(signer: ECKey | OctKey = key, alg: str = ALGORITHM, **claims: object) -> str:
        header = {"alg": alg, "kid": kid, "typ": TOKEN_TYPE}
        return jwt.encode(header, good | claims, signer, algorithms=[alg])

    unsigned = token().rpartition(".")[0] + "."
    refused = {
        "none": {},
        "empty": {"Authorization": "Bearer"},
        "basic": {"Authorization": "Basic ZHI6eA=="},
        "garbage": bearer("x.y.z"),
        "expired": bearer(token(exp=now - 50)),
        "not yet": bearer(token(nbf=now + 500)),
        "wrong audience": bearer(token(aud="another-exchange")),
        "wrong issuer": bearer(token(iss="https://elsewhere.example")),
        "forged": bearer(token(ECKey.generate_key("P-256"))),
        "symmetric": bearer(token(OctKey.import_key(b"k" * 32), "HS256")),
        "unsigned": bearer(unsigned),
        "nobody": bearer(token(sub="dr.nobody")),
        "very long": bearer("a" * 5000),
    }
    with httpx2.Client(base_url=doors.url, timeout=180) as client:
        assert client.get(door, headers=bearer(token())).status_code == 200
        for name, headers in refused.items():
            answer = client.get(door, headers=headers)
            assert answer.status_code == 401, name
            assert answer.headers["www-authenticate"].startswith("Bearer"), name


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# Resources


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_out_of_resources_until_there_is_room_again(tmp_path: Path) -> None:
    exchange = small_exchange(tmp_path, {})
    disk = tmp_path / "exchange" / "objects"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "exchange", disk], check=True)
    try:
        with running(exchange, "node", "web"), calling(exchange.dimse_port) as pacs:
            statuses = [send(pacs, number, MEGABYTE) for number in range(8)]
            kept = statuses.count(SUCCESS)
            assert 0 < kept < 8
            assert set(statuses) == {SUCCESS, OUT_OF_RESOURCES}
            assert held(exchange) == (kept, kept, 0)
            uid, body = numbered(50, MEGABYTE)
            with exchange.web("ris.beicheng") as ris:
                full = stow(ris, multipart(part10_of(body, uid)))
            assert full.status_code == 507
            assert held(exchange) == (kept, kept, 0)
            with exchange.web("ris.beicheng") as balancer:
                assert balancer.get("/ready").json()["parts"]["reception"] == "unavailable"

            subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)

            again = [number for number, status in enumerate(statuses) if status != SUCCESS]
            with exchange.web("ris.beicheng") as balancer:
                assert balancer.get("/ready").json()["parts"]["reception"] == "ok"
            assert {send(pacs, number, MEGABYTE) for number in again} == {SUCCESS}
            assert served(exchange) == {numbered(number, MEGABYTE)[1] for number in range(8)}
        exchange.run("check")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_on_a_full_disk_the_exchange_goes_on_to_answer_and_receives_once_there_is_room(
    tmp_path: Path,
) -> None:
    disk, filling = tmp_path / "exchange", tmp_path / "exchange" / "others"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "exchange", disk], check=True)
    try:
        exchange = small_exchange(tmp_path, {})
        exchange.start()
        try:
            before = exchange.processes()
            with exchange.web("ris.beicheng") as ris, calling(exchange.dimse_port) as pacs:
                assert send(pacs, 1, MEGABYTE) == SUCCESS
                with filling.open("wb", buffering=0) as others, suppress(OSError):
                    while True:
                        others.write(bytes(4096))
                for _ in range(3):
                    assert ris.get("/ready").status_code == 503
                    assert ris.get("/health").status_code == 200
                    assert send(pacs, 2, MEGABYTE) == OUT_OF_RESOURCES
                uid, body = numbered(3, MEGABYTE)
                assert stow(ris, multipart(part10_of(body, uid))).status_code == 507
                assert pacs.echo() == SUCCESS

                filling.unlink()

                eventually(lambda: ris.get("/ready").status_code, 200)
                assert send(pacs, 2, MEGABYTE) == SUCCESS
            assert exchange.processes() == before
        finally:
            exchange.stop()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_longer_than_the_system_allows_is_out_of_resources(tmp_path: Path) -> None:
    exchange = small_exchange(tmp_path, {})
    with running(exchange, "node") as roles, calling(exchange.dimse_port) as pacs:
        node = roles["node"].process
        assert node is not None
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (2 * MEGABYTE, resource.RLIM_INFINITY))
        assert send(pacs, 1, 3 * MEGABYTE) == OUT_OF_RESOURCES
        assert held(exchange) == (0, 0, 0)
        assert send(pacs, 1, MEGABYTE) == SUCCESS
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, unlimited)
        assert send(pacs, 2, 3 * MEGABYTE) == SUCCESS
    assert held(exchange) == (2, 2, 0)
    exchange.run("check")


def test_an_object_of_2_gb_passes_through_little_memory(tmp_path: Path) -> None:
    exchange = small_exchange(tmp_path, {})
    zeros = bytes(FRAGMENT)
    size = 2 << 30
    head = image(pixels=element(0x7FE00010, "OW", b"")[:-4] + size.to_bytes(4, "little"))
    try:
        with running(exchange, "node") as roles, calling(exchange.dimse_port) as pacs:
            assert send(pacs, 1, 20 * MEGABYTE) == SUCCESS
            before = peak_memory(roles["node"])
            pieces = iter((head, *(zeros for _ in range(size // FRAGMENT))))
            assert pacs.store(pieces, INSTANCE).status == SUCCESS
            assert peak_memory(roles["node"]) - before < 50 * MEGABYTE
        (kept,) = (tmp_path / "exchange" / "objects").rglob(f"{INSTANCE}.*.dcm")
        assert kept.stat().st_size == size + len(part10_of(head))
    finally:
        for path in (tmp_path / "exchange" / "objects").rglob("*.dcm"):
            path.unlink()


def peak_memory(role: Role) -> int:
    """Bytes of the most memory that the process has had."""
    assert role.process is not None
    status = Path(f"/proc/{role.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_while_the_remote_store_is_away_images_are_received_and_then_moved_there(
    tmp_path: Path,
) -> None:
    (tmp_path / "seaweedfs").mkdir()
    s3 = SeaweedFS(tmp_path / "seaweedfs").start()
    try:
        exchange = small_exchange(tmp_path, remote(s3.address, "away"))
        with running(exchange, "node", "web", "worker") as roles:
            with calling(exchange.dimse_port) as pacs:
                assert [send(pacs, number) for number in range(3)] == [SUCCESS] * 3
            drained(exchange)
            s3.kill()
            with calling(exchange.dimse_port) as pacs:
                assert [send(pacs, number) for number in range(3, 6)] == [SUCCESS] * 3
            roles["node"].kill()
            roles["node"].start()
            with calling(exchange.dimse_port) as pacs:
                assert [send(pacs, number) for number in range(6, 9)] == [SUCCESS] * 3
            with exchange.web("dr.beicheng") as client:
                accept = {"Accept": DICOM_AS_STORED}
                path = "/dicom-web/studies/1.2.1/series/1.2.1.1/instances/"
                away = client.get(f"{path}{numbered(0)[0]}", headers=accept)
                spooled = client.get(f"{path}{numbered(8)[0]}", headers=accept)
            assert (away.status_code, away.headers["retry-after"]) == (503, "5")
            assert spooled.status_code == 200
            s3.start()
            drained(exchange)
            assert served(exchange) == {numbered(number)[1] for number in range(9)}
        exchange.run("check")
    finally:
        s3.stop()


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL that a test may stop."""
    with postgresql() as server:
        yield server


def test_while_the_index_is_away_nothing_is_acknowledged_and_nothing_lost(
    tmp_path: Path, own_postgresql: PostgreSQL
) -> None:
    settings = {"EXCHANGE_DATABASE_URL": own_postgresql.create_database()}
    exchange = small_exchange(tmp_path, settings)
    answers: dict[int, list[int]] = {}
    rejected: list[AssociateReject] = []
    ended = threading.Event()

    def send_on() -> None:
        """Send image after image until told to stop, each until it is stored."""
        number = 0
        while not ended.is_set():
            try:
                with Caller(exchange.dimse_port) as pacs:
                    while not ended.is_set():
                        answers.setdefault(number, []).append(send(pacs, number))
                        number += answers[number][-1] == SUCCESS
                        if len(answers.get(number, ())) % 4 == 3:
                            break  # try a new association as well
            except Hung as hung:
                rejected.extend(hung.args)
                time.sleep(0.05)

    with running(exchange, "node", "web"):
        sender = threading.Thread(target=send_on)
        sender.start()
        try:
            eventually(lambda: len(answers) > 20, True)
            own_postgresql.stop()
            eventually(
                lambda: rejected and any(OUT_OF_RESOURCES in one for one in answers.values()), True
            )
            own_postgresql.start()
            reached = len(answers)
            eventually(lambda: len(answers) > reached + 20, True)
        finally:
            ended.set()
            sender.join()
        stored = {number for number, statuses in answers.items() if SUCCESS in statuses}
        assert {one for statuses in answers.values() for one in statuses} == {
            SUCCESS,
            OUT_OF_RESOURCES,
        }
        assert all(one.transient for one in rejected)
        assert served(exchange) == {numbered(number)[1] for number in stored}
    exchange.run("check")
    exchange.run("audit", "verify")

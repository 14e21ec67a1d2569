"""A large document goes from the disk to whoever may see it, through little memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from real_parts import LOOPBACK
from region import ADMINISTRATOR, credit_code
from running import PASSWORD, RunningExchange
from sqlalchemy import update

from exchange import organizations, users
from exchange.attachments import PREFIX
from exchange.organizations import Entity
from exchange.policy import Role
from exchange_storage.records import Attached

MEGABYTE = 1 << 20
SIZE = 200 * MEGABYTE
BEGINS = b"%PDF-1.7 " + bytes(100_000)
ENDS = b"the end"


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    """Two hospitals, each with an information system."""
    made = RunningExchange(
        tmp_path_factory.mktemp("region"), {"EXCHANGE_FHIR_BODY_LIMIT": str(MEGABYTE)}
    )
    with made.opened() as exchange:
        for number, code in enumerate(("north", "south"), 1):
            with exchange.on_behalf_of(ADMINISTRATOR) as access:
                organizations.register(
                    access,
                    code=code,
                    name=code,
                    credit_code=credit_code(f"1212000012345000{number}"),
                    issuer=f"2.25.{number}",
                    entities=[Entity(title=code.upper(), address=LOOPBACK)],
                )
                users.add(
                    access,
                    name=f"his-{code}",
                    display_name=code,
                    role=Role.SYSTEM,
                    organization=code,
                    password=PASSWORD,
                )
    made.start()
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture(scope="module")
def document(region: RunningExchange) -> str:
    """The path of a document of the northern hospital, as large as if it had come by DICOM."""
    with region.web("his-north") as his:
        told = {"Content-Type": "application/pdf"}
        made = his.post("/fhir/Binary", content=BEGINS, headers=told)
        assert made.status_code == 201, made.text
        refused = his.post("/fhir/Binary", content=bytes(MEGABYTE + 1), headers=told)
        assert refused.status_code == 413, refused.text
    lies = lying(region)
    lies.chmod(0o600)
    with lies.open("r+b") as file:
        file.truncate(SIZE)
        file.seek(-len(ENDS), os.SEEK_END)
        file.write(ENDS)
    with region.opened() as exchange, exchange.database.writing() as session:
        session.execute(update(Attached).values(size=SIZE))
    return f"/fhir/Binary/{made.json()['id']}"


def lying(region: RunningExchange) -> Path:
    """The file of the document."""
    objects = region.home / "exchange" / "objects" / "objects" / PREFIX
    (found,) = (path for path in objects.rglob("*") if path.is_file())
    return found


def peaks(region: RunningExchange) -> dict[int, int]:
    """Bytes of the most memory that each process has had."""
    found = {}
    for pid in region.processes():
        status = Path(f"/proc/{pid}/status").read_text()
        found[pid] = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return found


@contextmanager
def fetched(client: httpx2.Client, path: str, **headers: str) -> Iterator[httpx2.Response]:
    told = {"Accept": "application/pdf", "Accept-Encoding": "identity"}
    with client.stream("GET", path, headers=told | headers) as answer:
        yield answer


def test_a_document_of_200_mb_is_fetched_whole_or_in_parts_through_little_memory(
    region: RunningExchange, document: str
) -> None:
    with region.web("his-north") as his:
        assert his.get("/fhir/Binary?_count=0").status_code == 200
        before = peaks(region)
        with fetched(his, document) as answer:
            assert (answer.status_code, answer.headers["content-length"]) == (200, str(SIZE))
            assert answer.headers["content-type"] == "application/pdf"
            assert answer.headers["content-disposition"] == "attachment"
            assert "sandbox" in answer.headers["content-security-policy"]
            size, last = 0, b""
            for piece in answer.iter_raw():
                last = piece if len(piece) > len(ENDS) else last + piece
                size += len(piece)
        assert (size, last.endswith(ENDS)) == (SIZE, True)

        with fetched(his, document, Range=f"bytes=-{len(ENDS)}") as answer:
            assert (answer.status_code, answer.read()) == (206, ENDS)
            assert answer.headers["content-range"] == (
                f"bytes {SIZE - len(ENDS)}-{SIZE - 1}/{SIZE}"
            )
        with fetched(his, f"{document}/_history/1", Range="bytes=0-99") as answer:
            assert (answer.status_code, answer.read()) == (206, BEGINS[:100])
        with fetched(his, document, Range=f"bytes={SIZE}-") as answer:
            assert answer.status_code == 416
            assert answer.headers["content-range"] == f"bytes */{SIZE}"
            answer.read()
            assert answer.json()["resourceType"] == "OperationOutcome"
        with fetched(his, document, **{"If-None-Match": 'W/"1"'}) as answer:
            assert (answer.status_code, answer.read()) == (304, b"")
    grown = {pid: most - before[pid] for pid, most in peaks(region).items()}
    assert max(grown.values()) < 20 * MEGABYTE, grown
    with region.web("his-south") as other, fetched(other, document) as answer:
        assert answer.status_code == 404


def test_a_document_that_is_damaged_is_told_before_anything_is_sent(
    region: RunningExchange, document: str
) -> None:
    lies = lying(region)
    os.truncate(lies, SIZE - 1)
    with region.web("his-north") as his:
        with fetched(his, document) as answer:
            assert answer.status_code == 503
        lies.unlink()
        with fetched(his, document) as answer:
            assert answer.status_code == 503

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

from exchange import organizations, users
from exchange.attachments import PREFIX
from exchange.organizations import Entity
from exchange.policy import Role

MEGABYTE = 1 << 20
SIZE = 200 * MEGABYTE
LARGEST = SIZE + 1
BEGINS = b"%PDF-1.7 " + bytes(100_000)
ENDS = b"the end"


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    """Two hospitals, each with an information system."""
    made = RunningExchange(
        tmp_path_factory.mktemp("region"),
        {"EXCHANGE_FHIR_BODY_LIMIT": str(MEGABYTE), "EXCHANGE_FHIR_BINARY_LIMIT": str(LARGEST)},
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
                for name, role in (("his", Role.SYSTEM), ("dr", Role.CLINICIAN)):
                    users.add(
                        access,
                        name=f"{name}-{code}",
                        display_name=code,
                        role=role,
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
    """The path of a document of the northern hospital, sent in its own type."""
    told = {"Content-Type": "application/pdf"}
    with region.web("his-north") as his:
        ready = his.post("/fhir/Binary", content=BEGINS, headers=told)
        assert his.delete(ready.headers["location"].partition("/_history")[0]).status_code == 204
        before = peaks(region)
        made = his.post("/fhir/Binary", content=content(), headers=told)
        assert (made.status_code, made.content) == (201, b"")
        grown = {pid: most - before[pid] for pid, most in peaks(region).items()}
        assert max(grown.values()) < 20 * MEGABYTE, grown

        refused = his.post("/fhir/Binary", content=bytes(LARGEST + 1), headers=told)
        assert refused.status_code == 413, refused.text
        told_as_fhir = {"Content-Type": "application/fhir+json"}
        refused = his.post("/fhir/Binary", content=bytes(MEGABYTE + 1), headers=told_as_fhir)
        assert refused.status_code == 413, refused.text
    with region.web("his-south") as other:
        refused = other.put(made.headers["location"].partition("/_history")[0],
                            content=BEGINS, headers=told)  # fmt: skip
        assert refused.status_code == 404
    return made.headers["location"].removeprefix(region.url).partition("/_history")[0]


def content() -> Iterator[bytes]:
    """The document in pieces."""
    yield BEGINS
    left = SIZE - len(BEGINS) - len(ENDS)
    while left:
        piece = min(left, MEGABYTE)
        yield bytes(piece)
        left -= piece
    yield ENDS


def lying(region: RunningExchange) -> Path:
    """The file of the document."""
    objects = region.home / "exchange" / "objects" / "objects" / PREFIX
    return max((path for path in objects.rglob("*") if path.is_file()), key=_size)


def _size(path: Path) -> int:
    return path.stat().st_size


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


def test_a_page_leads_to_a_document_of_200_mb_through_little_memory(
    region: RunningExchange, document: str
) -> None:
    with region.web("his-north") as his:
        number = {"system": "urn:oid:2.25.1", "value": "P1"}
        patient = his.post("/fhir/Patient", json={"resourceType": "Patient", "identifier": [number],
                                                  "name": [{"text": "王小东"}]})  # fmt: skip
        held = {"contentType": "application/pdf", "url": document.removeprefix("/fhir/")}
        told = {
            "resourceType": "DocumentReference",
            "status": "current",
            "subject": {"reference": f"Patient/{patient.json()['id']}"},
            "content": [{"attachment": held}],
        }
        made = his.post("/fhir/DocumentReference", json=told)
        assert made.status_code == 201, made.text
    page = f"/portal/records/DocumentReference/{made.json()['id']}"
    with httpx2.Client(base_url=region.url, timeout=180) as doctor:
        user = {"name": "dr-north", "password": PASSWORD}
        signed = doctor.post(
            "/portal/sign-in", data=user, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert signed.status_code == 303
        assert doctor.get(page).status_code == 200
        before = peaks(region)
        with fetched(doctor, f"{page}/documents/0") as answer:
            assert (answer.status_code, answer.headers["content-length"]) == (200, str(SIZE))
            assert answer.headers["content-disposition"] == "inline"
            assert answer.headers["content-type"] == "application/pdf"
            assert sum(map(len, answer.iter_raw())) == SIZE
        with fetched(doctor, f"{page}/documents/0", Range=f"bytes=-{len(ENDS)}") as answer:
            assert (answer.status_code, answer.read()) == (206, ENDS)
    grown = {pid: most - before[pid] for pid, most in peaks(region).items()}
    assert max(grown.values()) < 20 * MEGABYTE, grown


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

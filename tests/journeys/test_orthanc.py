"""Orthanc as a hospital's PACS: store, find, move, get and commit, both directions, also over TLS.

Orthanc is the foreign peer in both roles; where it is asked, `exchange`'s own commands ask. As
Debian has it, it is no SCU of C-GET.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from certificates import Authority, Certificate
from images import ct
from pydicom import dcmread
from real_parts import LOOPBACK, Orthanc, free_port
from region import ADMINISTRATOR, ID_CARD, WORKER
from serving import Served, serving
from sqlalchemy import select

from exchange import jobs, organizations, retrieval, routing
from exchange.errors import NotFound
from exchange.organizations import Entity
from exchange.routing import Rule
from exchange_dicom import transport_security
from exchange_dicom.commitment import report
from exchange_dicom.forward import deliver
from exchange_server.cli import main
from exchange_storage.records import Study

STUDY = "1.2.826.1"
PATIENCE = 180


@dataclass(frozen=True, slots=True)
class Security:
    """The certificates of the region, where TLS is spoken."""

    authority: Authority
    node: Certificate
    orthanc: Certificate
    command: Certificate
    """That of who gives the commands."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A region with its node, and Orthanc as nanhu's PACS NANHU-PACS."""

    served: Served
    orthanc: Orthanc
    security: Security | None
    said: pytest.CaptureFixture[str]

    def exchange(self, *arguments: str, status: int = 0) -> str:
        """Give a command of the exchange's DICOM client; returns all that it says."""
        tls: tuple[str, ...] = ()
        if (security := self.security) is not None:
            tls = (
                *("--tls-ca", str(security.authority.certificate)),
                *("--tls-certificate", str(security.command.certificate)),
                *("--tls-key", str(security.command.key)),
            )
        with pytest.raises(SystemExit) as ended:
            main((*arguments, *tls))
        said = "".join(self.said.readouterr())
        assert int(ended.value.code or 0) == status, said
        return said

    def at_orthanc(self, command: str, *arguments: str, status: int = 0) -> str:
        """The same, of Orthanc."""
        address = f"{LOOPBACK}:{self.orthanc.dicom_port}"
        titles = ("--called", "NANHU-PACS", "--calling", "EXCHANGE")
        return self.exchange(command, address, *arguments, *titles, status=status)

    def from_beicheng(self, folder: Path, count: int = 2) -> None:
        """Beicheng's PACS sends a study of the same person."""
        own = folder / "beicheng"
        for number in range(count):
            ct(own / f"{number}.dcm", patient="P1", study=STUDY, card=ID_CARD, number=number + 1)
        address = f"{LOOPBACK}:{self.served.port}"
        self.exchange("send", address, str(own), "--called", "EXCHANGE", "--calling", "BEICHENG")

    def uploaded(self, folder: Path, **told: Any) -> str:
        """A CT slice in Orthanc; returns its Orthanc number."""
        path = folder / "own.dcm"
        ct(path, **({"patient": "N7", "study": "1.2.826.2", "card": ID_CARD} | told))
        return str(self.orthanc.rest("POST", "/instances", path.read_bytes())["ID"])

    def stored(self, number: str) -> None:
        """Orthanc sends an instance."""
        self.orthanc.rest("POST", "/modalities/exchange/store", [number])

    def has(self, study: str) -> int:
        """How many instances of a study the exchange has for nanhu."""
        city = self.served.city
        try:
            with city.exchange.on_behalf_of(city.system("nanhu")) as access:
                return len(retrieval.instances(access, study).instances)
        except NotFound:
            return 0

    def client_tls(self) -> Any:
        """How the node calls others."""
        if self.security is None:
            return None
        return transport_security.requestor(self.security.node.certificate, self.security.node.key)


def certified(folder: Path) -> Security:
    """Certificates for everybody."""
    authority = Authority(folder)
    return Security(authority, *(authority.issue(name) for name in ("node", "orthanc", "command")))


@pytest.fixture(params=["plain", "tls"])
def both(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Neighbours]:
    monkeypatch.setenv("EXCHANGE_LANGUAGE", "en")
    security = None
    tls = client_tls = orthanc_tls = None
    fingerprint = ""
    if request.param == "tls":
        security = certified(tmp_path)
        own, ca = security.node, security.authority.certificate
        tls = transport_security.acceptor(own.certificate, own.key, ca)
        client_tls = transport_security.requestor(own.certificate, own.key)
        orthanc_tls = (security.orthanc.certificate, security.orthanc.key, ca)
        fingerprint = security.orthanc.fingerprint
    home = tmp_path / "orthanc-home"
    (home / "storage").mkdir(parents=True)
    with serving(tmp_path, tls=tls, client_tls=client_tls) as served:
        peer = ("EXCHANGE", served.port)
        orthanc = Orthanc(home, title="NANHU-PACS", peer=peer, tls=orthanc_tls)
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            entity = Entity(
                title="NANHU-PACS",
                address=LOOPBACK,
                port=orthanc.dicom_port,
                certificate_fingerprint=fingerprint,
            )
            organizations.add_entity(access, "nanhu", entity)
        orthanc.start()
        try:
            yield Neighbours(served, orthanc, security, capsys)
        finally:
            orthanc.stop()


def test_orthanc_sends_and_finds_another_hospitals_study_by_its_own_number(
    both: Neighbours, tmp_path: Path
) -> None:
    both.orthanc.rest("POST", "/modalities/exchange/echo", {})
    both.stored(both.uploaded(tmp_path))
    both.from_beicheng(tmp_path)
    assert both.has("1.2.826.2") == 1

    query = both.orthanc.rest(
        "POST",
        "/modalities/exchange/query",
        {"Level": "Study", "Query": {"PatientID": "N7", "StudyInstanceUID": "", "PatientName": ""}},
    )["ID"]
    answers = [
        both.orthanc.rest("GET", f"/queries/{query}/answers/{one}/content?simplify")
        for one in both.orthanc.rest("GET", f"/queries/{query}/answers")
    ]

    assert {one["StudyInstanceUID"] for one in answers} == {STUDY, "1.2.826.2"}
    assert {one["PatientID"] for one in answers} == {"N7"}
    assert {one["PatientName"] for one in answers} == {"Wang^XiaoDong=王^小东"}


def test_orthanc_has_another_hospitals_images_moved_to_itself_under_its_own_number(
    both: Neighbours, tmp_path: Path
) -> None:
    both.stored(both.uploaded(tmp_path))
    both.from_beicheng(tmp_path)
    both.orthanc.rest(
        "POST",
        "/modalities/exchange/move",
        {
            "Level": "Study",
            "Resources": [{"PatientID": "N7", "StudyInstanceUID": STUDY}],
            "TargetAet": "NANHU-PACS",
        },
    )
    studies = [
        both.orthanc.rest("GET", f"/studies/{one}") for one in both.orthanc.rest("GET", "/studies")
    ]
    (moved,) = [one for one in studies if one["MainDicomTags"]["StudyInstanceUID"] == STUDY]
    assert moved["PatientMainDicomTags"]["PatientID"] == "N7"
    assert len(both.orthanc.rest("GET", f"/studies/{moved['ID']}/instances")) == 2


@pytest.mark.parametrize("level", ["Patient", "Study", "Series", "Instance"])
def test_orthanc_retrieves_what_it_has_found_at_each_level(
    both: Neighbours, tmp_path: Path, level: str
) -> None:
    both.stored(both.uploaded(tmp_path))
    both.from_beicheng(tmp_path)
    keys = {"Study": ["StudyInstanceUID"], "Series": ["StudyInstanceUID", "SeriesInstanceUID"]}
    keys["Instance"] = [*keys["Series"], "SOPInstanceUID"]
    asked = {"PatientID": "N7"} | dict.fromkeys(keys.get(level, ()), "")
    if level in {"Series", "Instance"}:
        asked["StudyInstanceUID"] = STUDY
    if level == "Instance":
        asked["SeriesInstanceUID"] = dcmread(tmp_path / "beicheng" / "0.dcm").SeriesInstanceUID
    query = both.orthanc.rest(
        "POST", "/modalities/exchange/query", {"Level": level, "Query": asked}
    )["ID"]

    both.orthanc.rest("POST", f"/queries/{query}/retrieve", {"TargetAet": "NANHU-PACS"})

    assert len(both.orthanc.rest("GET", "/instances")) == 3


def test_orthanc_is_answered_for_what_it_has_sent(both: Neighbours, tmp_path: Path) -> None:
    number = both.uploaded(tmp_path)
    both.stored(number)
    tags = both.orthanc.rest("GET", f"/instances/{number}/simplified-tags")
    kept = {"SOPClassUID": tags["SOPClassUID"], "SOPInstanceUID": tags["SOPInstanceUID"]}
    lost = kept | {"SOPInstanceUID": "9.9.9"}

    def asked(*instances: dict[str, str]) -> dict[str, Any]:
        number = both.orthanc.rest(
            "POST", "/modalities/exchange/storage-commitment", {"DicomInstances": instances}
        )["ID"]
        exchange = both.served.city.exchange
        for job in jobs.claim(exchange.database, [jobs.COMMIT]):
            report(exchange, WORKER, int(job.subject), calling="EXCHANGE", tls=both.client_tls())
            jobs.finish(exchange.database, [job])
        deadline = time.monotonic() + PATIENCE
        told: dict[str, Any] = {"Status": "Pending"}
        while told["Status"] == "Pending" and time.monotonic() < deadline:
            told = both.orthanc.rest("GET", f"/storage-commitment/{number}")
        return told

    assert asked(kept)["Status"] == "Success"
    told = asked(kept, lost)
    assert told["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in told["Success"]] == [kept["SOPInstanceUID"]]
    assert [(one["SOPInstanceUID"], one["FailureReason"]) for one in told["Failures"]] == [
        ("9.9.9", 0x0112)
    ]


def test_a_route_leads_to_orthanc(both: Neighbours, tmp_path: Path) -> None:
    exchange = both.served.city.exchange
    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        routing.add(access, "beicheng", Rule(name="on", destination="nanhu:NANHU-PACS"))
    both.stored(both.uploaded(tmp_path))  # so that nanhu has a number for her
    both.from_beicheng(tmp_path)
    with exchange.database.reading() as session:
        row = session.scalars(select(Study.id).where(Study.study_instance_uid == STUDY)).one()
    with exchange.on_behalf_of(WORKER) as access:
        assert routing.plan(access, row) == 1
    for job in jobs.claim(exchange.database, [jobs.FORWARD]):
        deliver(
            exchange,
            WORKER,
            int(job.subject),
            calling="EXCHANGE",
            timezone=ZoneInfo("Asia/Shanghai"),
            tls=both.client_tls(),
        )
    assert len(both.orthanc.rest("GET", "/instances")) == 3


def test_our_own_commands_ask_everything_of_orthanc(both: Neighbours, tmp_path: Path) -> None:
    new = tmp_path / "new"
    image = ct(new / "one.dcm", patient="N8", study="1.2.826.8")
    study = ("--key", "StudyInstanceUID=1.2.826.8")
    assert "answers" in both.at_orthanc("echo")
    assert "1 sent, 0 failed" in both.at_orthanc("send", str(new))
    assert "1.2.826.8" in both.at_orthanc("query", "--key", "PatientID=N8")
    (tmp_path / "got").mkdir()
    assert "1 done, 0 failed" in both.at_orthanc("get", str(tmp_path / "got"), *study)
    (got,) = (tmp_path / "got").iterdir()
    assert dcmread(got).SOPInstanceUID == image.SOPInstanceUID
    # Orthanc sends what it is asked to send to us as a hospital's PACS does.
    assert "1 done, 0 failed" in both.at_orthanc("move", "--to", "EXCHANGE", *study)
    assert both.has("1.2.826.8") == 1

    listen = free_port()
    both.orthanc.rest("PUT", "/modalities/us", both.orthanc.modality("EXCHANGE", listen))
    both.orthanc.rest("DELETE", "/modalities/exchange")
    report_here = ("--listen", str(listen), "--wait", "60")
    assert "1 committed, 0 failed" in both.at_orthanc("commit", str(new), *report_here)
    ct(new / "never-sent.dcm", patient="N8", study="1.2.826.8", instance="9.9.9")
    told = both.at_orthanc("commit", str(new), *report_here, status=1)
    assert "9.9.9\t0112 no such object instance" in told
    assert "1 committed, 1 failed" in told


def test_what_goes_wrong_at_orthanc_is_told_in_words(both: Neighbours, tmp_path: Path) -> None:
    nobody = f"{LOOPBACK}:{free_port()}"
    told = both.exchange("echo", nobody, "--called", "X", "--calling", "Y", status=1)
    assert "does not answer: Connection refused" in told
    nowhere = ("--to", "NOBODY", "--key", "StudyInstanceUID=1.2.826.8")
    assert "C000 Failure: Unable to Process" in both.at_orthanc("move", *nowhere, status=1)
    (tmp_path / "notes.txt").write_text("no image")
    told = both.at_orthanc("send", str(tmp_path / "notes.txt"), status=1)
    assert "notes.txt\tis not a DICOM file" in told
    # Who expects TLS of the other, or does not, hears something too.
    wrong = replace(both, security=None if both.security else certified(tmp_path))
    told = wrong.at_orthanc("echo", status=1)
    assert ("Connection reset" if both.security else "no TLS with NANHU-PACS@") in told, told

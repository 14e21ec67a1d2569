"""Studies go on by rule, and priors before a visit: durable, once, and only where they may."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from caller import EXPLICIT, SUCCESS, Caller
from images import rejection_note
from pydicom import dcmread
from real_parts import LOOPBACK, free_port
from region import ADMINISTRATOR, ID_CARD, WORKER
from retrieving import outcomes, workstation
from routed import STUDY, ZONE, delivered, got, listens, made_due, routed, send, storescp, worked
from serving import Served, serving
from sqlalchemy import select

from exchange import (
    calling,
    consent,
    jobs,
    orders,
    priors,
    retrieval,
    routing,
    scrub,
)
from exchange.errors import Invalid, NotFound
from exchange.priors import Choice, relevance
from exchange_dicom import forward
from exchange_dicom.rejection_note import KEY_OBJECT_SELECTION
from exchange_storage.records import Delivery, Job, Order


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


def test_a_study_goes_on_by_rule_and_what_comes_later_follows_alone(
    served: Served, tmp_path: Path
) -> None:
    port = free_port()
    listens(served, "beicheng", "WS", port)
    routed(served, "beicheng", modality="CT", source="BEICHENG")
    send(served, "BEICHENG", tmp_path, 3)
    with storescp(tmp_path / "ws", port):
        assert worked(served) == []
        assert len(got(tmp_path / "ws")) == 3
        for path in got(tmp_path / "ws"):
            path.unlink()
        send(served, "BEICHENG", tmp_path, 1)
        assert worked(served) == []
        assert len(got(tmp_path / "ws")) == 1  # the rest is not sent twice

    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (listed,) = routing.everything(access)
    assert (listed.waiting, listed.delivered) == (0, 1)


@pytest.mark.parametrize("rule", [{"modality": "MR"}, {"body_part": "HEAD"}, {"source": "OTHER"}])
def test_what_a_rule_does_not_mean_stays(
    served: Served, tmp_path: Path, rule: dict[str, str]
) -> None:
    listens(served, "beicheng", "WS", free_port())
    routed(served, "beicheng", **rule)
    send(served, "BEICHENG", tmp_path, 1)
    assert worked(served) == []
    with served.city.exchange.database.reading() as session:
        assert session.scalars(select(Delivery)).all() == []


def test_a_destination_that_is_down_gets_all_when_it_is_up_again(
    served: Served, tmp_path: Path
) -> None:
    port = free_port()
    listens(served, "beicheng", "WS", port)
    routed(served, "beicheng")
    send(served, "BEICHENG", tmp_path, 2)
    (down,) = worked(served)
    assert "does not answer" in str(down)
    made_due(served)
    with storescp(tmp_path / "ws", port):
        assert delivered(served) == []
    assert len(got(tmp_path / "ws")) == 2


def test_outside_its_hours_a_route_waits(served: Served, tmp_path: Path) -> None:
    listens(served, "beicheng", "WS", free_port())
    now = datetime.now(ZONE)
    begins = (now.hour + 2) % 24
    routed(served, "beicheng", hours=f"{begins:02}:00-{(begins + 1) % 24:02}:00")
    send(served, "BEICHENG", tmp_path, 1)
    (later,) = worked(served)
    assert isinstance(later, jobs.Later)
    assert 3600 - 60 <= later.seconds <= 2 * 3600


def test_another_hospital_gets_what_it_may_see_under_its_own_number(
    served: Served, tmp_path: Path
) -> None:
    port = free_port()
    listens(served, "nanhu", "WS", port)
    routed(served, "beicheng", destination="nanhu:WS")
    send(served, "NANHU", tmp_path, 1, patient="N7", study="1.2.826.2", card=ID_CARD)
    send(served, "BEICHENG", tmp_path, 1, card=ID_CARD)
    with storescp(tmp_path / "ws", port):
        assert worked(served) == []
        (path,) = got(tmp_path / "ws")
        assert dcmread(path).PatientID == "N7"
        path.unlink()
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_out(access, "beicheng", "P1")
        send(served, "BEICHENG", tmp_path, 1, card=ID_CARD)
        assert worked(served) == []
        assert got(tmp_path / "ws") == []


def test_a_route_that_leads_nowhere_is_not_made(served: Served) -> None:
    with pytest.raises(NotFound):
        routed(served, "beicheng", destination="NOBODY")
    for wrong in (
        {"destination": "", "url": "ftp://x"},
        {"destination": ""},
        {"name": ""},
        {"hours": "8-9"},
    ):
        with pytest.raises(Invalid):
            routed(served, "beicheng", **wrong)


def test_who_has_got_images_hears_that_they_were_rejected(served: Served, tmp_path: Path) -> None:
    port = free_port()
    listens(served, "nanhu", "WS", port)
    routed(served, "beicheng", destination="nanhu:WS")
    send(served, "NANHU", tmp_path, 1, patient="N7", study="1.2.826.2", card=ID_CARD)
    send(served, "BEICHENG", tmp_path, 2, card=ID_CARD)
    with storescp(tmp_path / "ws", port):
        assert worked(served) == []
        images = [dcmread(path) for path in got(tmp_path / "ws")]
        for path in got(tmp_path / "ws"):
            path.unlink()
        body = rejection_note("113037", *(one.SOPInstanceUID for one in images), study=STUDY)
        with Caller(served.port, (KEY_OBJECT_SELECTION, (EXPLICIT,)), calling="BEICHENG") as pacs:
            assert pacs.store(body, "1.9.1", KEY_OBJECT_SELECTION).status == SUCCESS
            assert pacs.store(body, "1.9.1", KEY_OBJECT_SELECTION).status == SUCCESS
            pacs.release()
        assert worked(served) == []
        (note,) = [dcmread(path) for path in got(tmp_path / "ws")]
    assert note.ConceptNameCodeSequence[0].CodeValue == "113037"
    assert note.PatientID == "N7"
    with (
        served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access,
        pytest.raises(NotFound),
    ):
        retrieval.instances(access, STUDY)  # neither images nor note


# To a DICOMweb service


class Service:
    """A DICOMweb service of another make: what it was sent, and what it answers to that."""

    def __init__(self, status: int = 200, answer: dict[str, object] | None = None) -> None:
        self.status, self.answer = status, answer
        self.got: list[list[str]] = []
        """Instances of each request that came whole, in order."""
        self.answered: int | None = None
        """Requests that it answers, before it hangs up on each; None for all."""

    def told(self, instances: list[str]) -> dict[str, object]:
        """Its answer: as it was told to, or that all were stored."""
        if self.answer is not None:
            return self.answer
        stored = [{"00081155": {"vr": "UI", "Value": [one]}} for one in instances]
        return {"00081199": {"vr": "SQ", "Value": stored}}

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Its base URL, for the block."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    return
                mark = self.headers["Content-Type"].rpartition("boundary=")[2].encode()
                parts = body.split(b"--" + mark)[1:-1]
                files = [part.partition(b"\r\n\r\n")[2][:-2] for part in parts]
                came = [str(dcmread(BytesIO(one)).SOPInstanceUID) for one in files]
                service.got.append(came)
                if service.answered is not None and len(service.got) > service.answered:
                    return
                answer = json.dumps(service.told(came)).encode()
                self.send_response(service.status)
                self.send_header("Content-Type", "application/dicom+json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}/dicom-web"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


OTHER_FAILURES: dict[str, object] = {
    "0008119A": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}
}


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize("answer", [{}, OTHER_FAILURES, {"00081199": {"Value": [1]}}])
def test_a_service_has_stored_only_what_it_names_as_stored(
    served: Served, tmp_path: Path, status: int, answer: dict[str, object]
) -> None:
    service = Service(status, answer)
    send(served, "BEICHENG", tmp_path, 2)
    with service.listening() as url:
        routed(served, "beicheng", destination="", url=url)
        (refused,) = worked(served)
        assert str(refused) == f"2 instances were not taken: HTTP {status}"
        service.status, service.answer = 200, None
        made_due(served)
        assert delivered(served) == []
    assert [len(one) for one in service.got] == [2, 2]


def test_one_object_that_cannot_be_read_holds_up_no_other(served: Served, tmp_path: Path) -> None:
    service = Service()
    send(served, "BEICHENG", tmp_path, 4)
    uids = [str(dcmread(path).SOPInstanceUID) for path in sorted(tmp_path.glob("BEICHENG*.dcm"))]
    served.city.exchange.objects.put_down()
    (missing,) = (served.root / "objects").rglob(f"{uids[1]}.*.dcm")
    (short,) = (served.root / "objects").rglob(f"{uids[2]}.*.dcm")
    whole = short.read_bytes()
    missing.rename(tmp_path / "missing")
    short.chmod(0o600)
    short.write_bytes(whole[:-10])
    with service.listening() as url:
        routed(served, "beicheng", destination="", url=url)
        (failed,) = worked(served)
        assert str(failed).startswith("2 instances were not taken: ")
        assert [sorted(one) for one in service.got] == [sorted([uids[0], uids[3]])]
        (tmp_path / "missing").rename(missing)
        short.write_bytes(whole)
        made_due(served)
        assert delivered(served) == []
    assert sorted(service.got[1]) == sorted(uids[1:3])  # and nothing a second time


def test_an_object_that_a_scrub_has_found_damaged_goes_to_no_service(
    served: Served, tmp_path: Path
) -> None:
    service = Service()
    send(served, "BEICHENG", tmp_path, 2)
    uid = str(dcmread(tmp_path / "BEICHENG0.dcm").SOPInstanceUID)
    served.city.exchange.objects.put_down()
    (damaged,) = (served.root / "objects").rglob(f"{uid}.*.dcm")
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"!!!!")
    with served.city.exchange.on_behalf_of(WORKER) as access:
        list(scrub.scrub(access, before=access.now + timedelta(days=1), limit=9))
    with service.listening() as url:
        routed(served, "beicheng", destination="", url=url)
        (failed,) = worked(served)
    assert "damaged in the archive" in str(failed)
    assert [len(one) for one in service.got] == [1]
    assert uid not in service.got[0]


@pytest.mark.parametrize("answered", [0, 1])
def test_a_service_that_answered_for_one_image_keeps_no_other_study_waiting(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    monkeypatch.setattr(forward, "STOW", 1)
    service = Service()
    service.answered = answered
    send(served, "BEICHENG", tmp_path, 2)
    with service.listening() as url:
        routed(served, "beicheng", destination="", url=url)
        (failed,) = worked(served)
    assert "does not answer" in str(failed)
    with served.city.exchange.database.reading() as session:
        (job,) = session.scalars(select(Job).where(Job.kind == jobs.FORWARD))
    assert job.put_off == (answered == 0)


def test_a_name_that_leads_to_a_machines_own_address_is_sent_nothing(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service()
    send(served, "BEICHENG", tmp_path, 1)
    with service.listening() as url:
        routed(served, "beicheng", destination="", url=url.replace(LOOPBACK, "localhost"))
        # What the name resolves to now: the connection itself is what is looked at.
        monkeypatch.setattr(calling, "may_be_called", lambda address: address != LOOPBACK)
        (failed,) = worked(served)
        assert str(failed) == "the DICOMweb service is at an address that no route leads to"
        assert service.got == []
        monkeypatch.undo()
        made_due(served)
        assert delivered(served) == []
    assert [len(one) for one in service.got] == [1]


# Priors


def test_relevant_priors_of_other_hospitals_come_before_the_visit(
    served: Served, tmp_path: Path
) -> None:
    port = free_port()
    listens(served, "nanhu", "WS", port, priors=True)
    send(served, "BEICHENG", tmp_path, 2, card=ID_CARD, BodyPartExamined="CHEST")
    send(served, "DONGSHAN", tmp_path, 1, study="1.2.826.3", patient="D9", card=ID_CARD,
         BodyPartExamined="KNEE")  # fmt: skip
    with served.city.exchange.on_behalf_of(served.city.system("nanhu")) as access:
        order = orders.place(
            access,
            orders.Placed(
                patient_id="N7",
                patient_name="Wang^XiaoDong=王^小东",
                patient_birth_date="19491231",
                patient_sex="F",
                identifiers=(("2.16.156.10011.1.3", ID_CARD),),
                accession_number="A1",
                modality="CT",
                body_part_examined="CHEST",
                scheduled_date="20261201",
            ),
        )
    with served.city.exchange.on_behalf_of(WORKER) as access:
        assert priors.fetch(access, order.id, Choice()) == 1
    with storescp(tmp_path / "ws", port):
        assert delivered(served) == []
    images = [dcmread(path) for path in got(tmp_path / "ws")]
    assert [one.StudyInstanceUID for one in images] == [STUDY, STUDY]
    assert {one.PatientID for one in images} == {"N7"}
    with served.city.exchange.on_behalf_of(WORKER) as access:
        assert priors.fetch(access, order.id, Choice()) == 0  # it has them


def test_priors_of_an_order_that_was_called_off_come_for_the_one_after_it(
    served: Served, tmp_path: Path
) -> None:
    port = free_port()
    listens(served, "nanhu", "WS", port, priors=True)
    send(served, "BEICHENG", tmp_path, 2, card=ID_CARD, BodyPartExamined="CHEST")

    def placed(accession: str) -> int:
        with served.city.exchange.on_behalf_of(served.city.system("nanhu")) as access:
            order = orders.place(
                access,
                orders.Placed(
                    patient_id="N7",
                    patient_name="Wang^XiaoDong=王^小东",
                    patient_birth_date="19491231",
                    patient_sex="F",
                    identifiers=(("2.16.156.10011.1.3", ID_CARD),),
                    accession_number=accession,
                    modality="CT",
                    body_part_examined="CHEST",
                    scheduled_date="20261201",
                ),
            )
        return order.id

    first = placed("A1")
    with served.city.exchange.on_behalf_of(WORKER) as access:
        assert priors.fetch(access, first, Choice()) == 1
    with served.city.exchange.database.writing() as session:
        session.get_one(Order, first).status = "CANCELED"
    assert delivered(served) == []  # nothing is sent for it
    second = placed("A2")
    with served.city.exchange.on_behalf_of(WORKER) as access:
        assert priors.fetch(access, second, Choice()) == 1
        assert priors.fetch(access, second, Choice()) == 0  # on its way
    with storescp(tmp_path / "ws", port):
        assert delivered(served) == []
    assert len(got(tmp_path / "ws")) == 2


def test_the_trail_tells_what_arrived_by_a_route_and_what_did_not(
    served: Served, tmp_path: Path
) -> None:
    with workstation("WS") as ws:
        listens(served, "beicheng", "WS", ws.port)
        routed(served, "beicheng")
        send(served, "BEICHENG", tmp_path, 3)
        ws.answers = [0x0000, 0xA700, 0x0000]
        assert [str(one) for one in worked(served)] == ["1 instances were not taken: A700"]
        made_due(served)
        assert delivered(served) == []
    made_due(served)
    first, second = outcomes(served)
    assert (first["outcome"], first["reason"]) == ("failed", "not taken: A700")
    assert (first["study"], first["to"]) == (STUDY, "WS")
    assert (first["instances"], first["failed"], first["complete"]) == (2, 1, False)
    assert (second["outcome"], second["instances"], second["complete"]) == ("success", 1, True)


@pytest.mark.parametrize(
    ("modality", "part", "modalities", "parts", "score"),
    [
        ("CT", "CHEST", ["CT"], {"CHEST"}, 5),
        ("CT", "CHEST", ["CR"], {"CHEST", "ABDOMEN"}, 4),
        ("CT", "CHEST", ["CT"], {"LUNG"}, 3),
        ("CT", "CHEST", ["CR"], {"THORAX"}, 2),
        ("CT", "胸部", ["CR"], {"CHEST"}, 2),
        ("CT", "胸部", ["CR"], {"LSPINE"}, 0),
        ("CT", "Chest, Abdomen and Pelvis", ["CT"], {"LIVER"}, 3),
        ("CT", "c-spine", ["CT"], {"C_SPINE"}, 5),
        ("CT", "C-SPINE", ["CT"], {"SPINE"}, 3),
        ("CT", "胸椎", ["CT"], {"CHEST"}, 0),
        ("CT", "ABC", ["CT"], {"abc"}, 5),
        ("CT", "ABC", ["CT"], {"CHEST"}, 0),
        ("CT", "CHEST", ["CT"], {"KNEE"}, 0),
        ("CT", "CHEST", ["CT"], {""}, 1),
        ("CT", "", ["CT"], {"KNEE"}, 1),
        ("CT", "", ["MR"], {"KNEE"}, 0),
    ],
)
def test_a_prior_is_worth_what_it_tells_of_the_same_part_or_its_region(
    modality: str, part: str, modalities: list[str], parts: set[str], score: int
) -> None:
    assert relevance(modality, part, modalities, parts) == score

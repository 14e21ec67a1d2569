"""Hospitals that fetch: workstations that receive, PACS that ask, and what there is to be had."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caller import SUCCESS, Caller
from images import ct, data_set
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from real_parts import free_port
from region import ADMINISTRATOR, ID_CARD
from serving import Served

from exchange import audit, organizations
from exchange.organizations import Entity
from exchange_dicom import contexts

STUDY, HEAD = "1.2.826.1", "1.2.826.1.1"
"""Study and series of another hospital's images."""


@dataclass
class Workstation:
    """A node of a hospital, by pynetdicom: receives what it is sent, and keeps who sent it."""

    received: list[Dataset] = field(default_factory=list)
    originators: list[tuple[str, int]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    associations: list[Any] = field(default_factory=list)
    """Of each image: the association over which it came."""
    meanwhile: Callable[[], object] = lambda: None
    """Done before an image is answered."""
    meanwhile_asked: Callable[[], object] = lambda: None
    """The same of a C-ECHO."""
    hangs: bool = False
    """Takes associations, and nothing over them: it ends each when it is asked something."""
    port: int = 0

    def store(self, event: Any) -> int:
        self.originators.append(
            (
                str(event.request.MoveOriginatorApplicationEntityTitle or "").strip(),
                int(event.request.MoveOriginatorMessageID or 0),
            )
        )
        self.associations.append(event.assoc)
        if self.hangs:
            event.assoc.abort()
        self.meanwhile()
        image = event.dataset
        image.file_meta = event.file_meta
        self.received.append(image)
        return self.answers.pop(0) if self.answers else 0x0000

    def echo(self, event: Any) -> int:
        if self.hangs:
            event.assoc.abort()
        self.meanwhile_asked()
        return 0x0000


@contextmanager
def workstation(
    title: str,
    *syntaxes: str,
    sop_classes: Sequence[str] = (CTImageStorage, MRImageStorage),
    associations: int = 10,
    port: int | None = None,
    knows: Sequence[str] = (),
) -> Iterator[Workstation]:
    """A node that takes the classes in the syntaxes, over so many associations at a time, from whom
    it `knows` by AE title, or from anybody."""
    made = Workstation(port=port or free_port())
    entity = AE(title)
    entity.maximum_associations = associations
    entity.require_calling_aet = list(knows)
    for sop_class in sop_classes:
        entity.add_supported_context(sop_class, list(syntaxes) or [ExplicitVRLittleEndian])
    entity.add_supported_context(Verification)
    server = entity.start_server(
        ("127.0.0.1", made.port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, made.store), (evt.EVT_C_ECHO, made.echo)],
    )
    assert server is not None
    try:
        yield made
    finally:
        server.shutdown()


def listens(served: Served, code: str, title: str, port: int) -> None:
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.add_entity(access, code, Entity(title=title, address="127.0.0.1", port=port))


def send(served: Served, calling: str, *paths: Path) -> None:
    """The hospital's PACS sends the files, byte for byte."""
    for path in paths:
        meta = dcmread(path, stop_before_pixels=True).file_meta
        sop_class, syntax = str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
        with Caller(served.port, (sop_class, (syntax,)), calling=calling) as pacs:
            body = data_set(path.read_bytes())
            answer = pacs.store(body, str(meta.MediaStorageSOPInstanceUID), sop_class)
            assert answer.status == SUCCESS
            pacs.release()


def known_at_two_hospitals(served: Served, folder: Path, count: int = 3) -> list[Path]:
    """One person is P1 at beicheng, which has images of her, and N7 at nanhu, by her ID card."""
    theirs = [folder / f"{number}.dcm" for number in range(count)]
    for number, path in enumerate(theirs):
        ct(path, patient="P1", study=STUDY, series=HEAD, number=number + 1, card=ID_CARD)
    own = folder / "own.dcm"
    ct(own, patient="N7", study="1.2.826.2", card=ID_CARD)
    send(served, "BEICHENG", *theirs)
    send(served, "NANHU", own)
    return theirs


def asked(level: str, **keys: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        with warnings.catch_warnings(action="ignore"):  # of a UID that is none
            setattr(identifier, keyword, value)
    return identifier


@contextmanager
def associated(served: Served, title: str, *models: str, **more: Any) -> Iterator[Any]:
    entity = AE(title)
    for model in models:
        entity.add_requested_context(model)
    for sop_class, syntax in more.pop("storage", ()):
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", served.port, ae_title="EXCHANGE", **more)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def move(
    served: Served,
    title: str,
    to: str,
    identifier: Dataset,
    model: str = contexts.PATIENT_ROOT_MOVE,
) -> list[tuple[Dataset, Dataset | None]]:
    with associated(served, title, model) as association:
        return list(association.send_c_move(identifier, to, model))


def get(
    served: Served,
    title: str,
    identifier: Dataset,
    *syntaxes: str,
    sop_class: str = CTImageStorage,
    role: bool = True,
    meanwhile: Callable[[list[Dataset]], None] = lambda _: None,
    model: str = contexts.PATIENT_ROOT_GET,
    **more: Any,
) -> tuple[list[tuple[Dataset, Dataset | None]], list[Dataset]]:
    """The answers and the images, of which each is answered after `meanwhile`."""
    received: list[Dataset] = []

    def keep(event: Any) -> int:
        meanwhile(received)
        event.dataset.file_meta = event.file_meta
        received.append(event.dataset)
        return 0

    with associated(
        served,
        title,
        model,
        storage=[(sop_class, one) for one in syntaxes or (ExplicitVRLittleEndian,)],
        ext_neg=[build_role(sop_class, scp_role=True, scu_role=False)] if role else [],
        evt_handlers=[(evt.EVT_C_STORE, keep)],
        **more,
    ) as association:
        answers = list(association.send_c_get(identifier, model))
    return answers, received


def outcomes(served: Served) -> list[dict[str, Any]]:
    """What the audit trail tells of how retrievals ended, the first one first."""
    with served.city.exchange.database.reading() as session:
        told = [json.loads(record.content) for record in audit.latest(session, 40)]
    return [
        {"study": one["study"], "outcome": one["outcome"], "reason": one["reason"]} | one["detail"]
        for one in reversed(told)
        if one["detail"].get("what") == "images, sent"
    ]

"""A small region for tests: three hospitals that share, their systems, clinicians and patients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import ready
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange import identity, ingest, jobs, organizations
from exchange.access import Exchange
from exchange.ingest import Receipt, Received
from exchange.organizations import Entity
from exchange.policy import Purpose, Requester, Role
from exchange_storage.database import Database
from exchange_storage.objects import MemoryStore, ObjectStore
from exchange_storage.records import Organization

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ID_CARD = "11010519491231002X"
"""Valid, made up; of a woman born on 1949-12-31."""

ADMINISTRATOR = Requester(
    name="test:admin", role=Role.ADMINISTRATOR, organization=None, purpose=None, door="cli"
)
WORKER = Requester(
    name="worker", role=Role.EXCHANGE, organization=None, purpose=None, door="worker"
)

HOSPITALS = {
    "beicheng": ("北城医院", "2.25.101", "BEICHENG"),
    "nanhu": ("南湖医院", "2.25.102", "NANHU"),
    "dongshan": ("东山医院", "2.25.103", "DONGSHAN"),
}
"""Code: name, issuer of patient numbers, AE title."""


def credit_code(stem: str) -> str:
    """A unified social credit code from its first 17 characters, with the right check digit."""
    return next(
        stem + last
        for last in "0123456789ABCDEFGHJKLMNPQRTUWXY"
        if organizations.credit_code_is_valid(stem + last)
    )


@dataclass(frozen=True, slots=True)
class Region:
    """An exchange with registered hospitals."""

    exchange: Exchange
    ids: dict[str, int] = field(default_factory=dict)
    """Row numbers of the hospitals by code."""

    def register(
        self, code: str, *, sharing: bool = True, address: str = "127.0.0.1"
    ) -> Organization:
        """Register one of `HOSPITALS`."""
        name, issuer, title = HOSPITALS[code]
        with self.exchange.on_behalf_of(ADMINISTRATOR) as access:
            made = organizations.register(
                access,
                code=code,
                name=name,
                credit_code=credit_code(f"1212000012345{len(self.ids):04}"),
                issuer=issuer,
                entities=[Entity(title=title, address=address)],
                sharing=sharing,
            )
        self.ids[code] = made.id
        return made

    def system(self, code: str) -> Requester:
        """The hospital's PACS."""
        return Requester(
            name=HOSPITALS[code][2],
            role=Role.SYSTEM,
            organization=self.ids[code],
            purpose=Purpose.TREATMENT,
            door="dimse",
        )

    def clinician(self, code: str, purpose: Purpose = Purpose.TREATMENT) -> Requester:
        """Someone who treats patients at the hospital."""
        return Requester(
            name=f"dr.{code}",
            role=Role.CLINICIAN,
            organization=self.ids[code],
            purpose=purpose,
            door="fhir",
        )

    def send(
        self,
        code: str,
        *,
        patient: str = "P1",
        study: str = "1.2.1",
        series: str | None = None,
        instance: str = "1.4.1",
        body: bytes = b"pixels",
        card: str | None = None,
        requests: tuple[tuple[str, str], ...] = (),
        region: str = "",
        **attributes: str,
    ) -> Receipt:
        """The hospital's PACS sends one instance."""
        told = {
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series or f"{study}.1",
            "SOPInstanceUID": instance,
            "SOPClassUID": CT_IMAGE_STORAGE,
            "PatientID": patient,
            "PatientName": "Wang^XiaoDong=王^小东",
            "PatientBirthDate": "19491231",
            "PatientSex": "F",
            "StudyDate": "20261101",
            "StudyTime": "101500",
            "Modality": "CT",
            "InstanceNumber": "1",
        } | attributes
        received = Received(
            attributes={keyword: value for keyword, value in told.items() if value},
            identifiers=((identity.RESIDENT_ID, card),) if card else (),
            requests=requests,
            region=region,
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        )
        with (
            self.exchange.on_behalf_of(self.system(code)) as access,
            ingest.begin(access) as incoming,
        ):
            incoming.write(body)
            return ingest.receive(access, incoming, received)

    def identify(self) -> None:
        """Do the worker's identity jobs that are due."""
        for claimed in jobs.claim(self.exchange.database, [jobs.IDENTIFY], limit=1000):
            with self.exchange.on_behalf_of(WORKER) as access:
                identity.identify(access, int(claimed.subject))
            jobs.finish(self.exchange.database, [claimed])


@contextmanager
def region(
    database_url: str,
    objects: ObjectStore | None = None,
    *,
    hospitals: tuple[str, ...] = (),
    gathers: bool = False,
) -> Iterator[Region]:
    """An exchange on a new database, with the named hospitals (default: all) registered.

    Its audit records have their place in the trail at once, unless it `gathers` as in operation.
    """
    file = database_url.removeprefix("sqlite:///")
    if file != database_url and not Path(file).exists():
        ready.sqlite(Path(file))
    key = Ed25519PrivateKey.generate()
    database = Database(database_url, connections=8)
    exchange = Exchange(database, objects or MemoryStore(), key, gathers=gathers)
    try:
        exchange.prepare()
        made = Region(exchange)
        for code in hospitals or HOSPITALS:
            made.register(code)
        yield made
    finally:
        exchange.close()

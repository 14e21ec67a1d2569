"""The web door of a region with two hospitals, in the test's own process, and images for it."""

from __future__ import annotations

import io
import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
from dicomweb_client.api import DICOMwebClient
from fastapi import FastAPI
from hosting import hosted
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from region import CT_IMAGE_STORAGE, Region, region
from sqlalchemy import func, select
from starlette.requests import Request

from exchange.errors import NotAuthenticated
from exchange.policy import Requester
from exchange.retrieval import Held
from exchange_dicom import multipart, part10
from exchange_dicom.web import dicomweb
from exchange_dicom.web_store import Limits
from exchange_server.connection import Connection, Conversation
from exchange_server.shelves import Shelves
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import MemoryStore
from exchange_storage.records import Instance

STUDY = "1.2.840.99.1"
SERIES = f"{STUDY}.1"
IMAGE = f"{SERIES}.1"
EXPLICIT = str(ExplicitVRLittleEndian)
DICOM_JSON = "application/dicom+json"
LIMITS = Limits(instance_bytes=1 << 20, body_bytes=4 << 20, parts=20)


@dataclass(frozen=True, slots=True)
class Door:
    """A running web door of a region with two hospitals."""

    city: Region
    root: str
    http: httpx2.Client

    def client(self, who: str = "beicheng") -> DICOMwebClient:
        client = DICOMwebClient(self.root, headers={"Authorization": f"Bearer {who}"})
        client.host = self.root.split("/")[2]  # which it takes for the Host field, without a port
        return client

    def get(self, path: str, who: str = "dr.beicheng", **headers: str) -> httpx2.Response:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.get(
            f"{self.root}/{path}", headers={"Authorization": f"Bearer {who}", **headers}
        )

    def found(self, path: str, who: str = "dr.beicheng") -> list[dict[str, Any]]:
        response = self.get(path, who)
        assert response.status_code in (200, 204), response.text
        return list(response.json()) if response.content else []

    def post(
        self,
        content: bytes | Iterator[bytes],
        kind: str = 'multipart/related; type="application/dicom"; boundary=b',
        *,
        path: str = "studies",
        who: str = "beicheng",
        **headers: str,
    ) -> httpx2.Response:
        return self.http.post(
            f"{self.root}/{path}",
            content=content,
            headers={"Authorization": f"Bearer {who}", "Content-Type": kind, **headers},
        )

    def send(self, *images: bytes, **how: Any) -> httpx2.Response:
        return self.post(in_parts(*images), **how)

    def instances(self) -> int:
        with self.city.exchange.database.reading() as session:
            return session.execute(select(func.count()).select_from(Instance)).scalar_one()


@contextmanager
def opened(city: Region) -> Iterator[Door]:
    """The web door on a free port of the loopback, closed at the end whatever happens."""

    def identify(request: Request) -> Requester:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        code = token.removeprefix("dr.").removeprefix("quality.")
        if scheme != "Bearer" or code not in city.ids:
            raise NotAuthenticated("sign in first")
        known = city.system(code) if token == code else city.clinician(code)
        return replace(known, door="dicomweb", rejected=token.startswith("quality."))

    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    app = FastAPI()
    standard = dicomweb(city.exchange, identify, limits=LIMITS, url=f"{url}/dicom-web")
    viewers = dicomweb(city.exchange, identify, url=f"{url}/dicom-web", hanzi=True)
    app.router.routes += [  # as the server has them
        Shelves(standard, "/dicom-web"),
        Shelves(viewers, "/viewer/dicom-web"),
    ]
    with (
        hosted(app, listening, http=Connection, ws=Conversation),
        httpx2.Client(verify=False, timeout=180) as http,
    ):
        yield Door(city, f"{url}/dicom-web", http)


@contextmanager
def empty(place: Path) -> Iterator[Door]:
    objects = FilesystemStore(place / "objects")
    url = f"sqlite:///{place / 'index.sqlite'}"
    with region(url, objects, hospitals=("beicheng", "nanhu")) as city, opened(city) as made:
        yield made


def data_set(**told: Any) -> Dataset:
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in {
        "SOPClassUID": CT_IMAGE_STORAGE,
        "SOPInstanceUID": IMAGE,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "PatientID": "P1",
        "PatientName": "Wang^XiaoDong=王^小东",
        "PatientBirthDate": "19491231",
        "PatientSex": "F",
        "StudyDate": "20261101",
        "StudyTime": "101500",
        "Modality": "CT",
        "InstanceNumber": "1",
        "AccessionNumber": "A1",
        "StudyDescription": "胸部CT平扫",
        "Rows": 2,
        "Columns": 2,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "SamplesPerPixel": 1,
        "SmallestImagePixelValue": -1024,
        "PixelSpacing": [0.5, 0.5],
        "PixelData": b"\0\1\2\3\4\5\6\7",
        **told,
    }.items():
        if value is not None:
            setattr(image, keyword, value)
    return image


def file(image: Dataset, transfer_syntax_uid: str = EXPLICIT, **meta: str) -> bytes:
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.SourceApplicationEntityTitle = "SOMEBODY"
    for keyword, value in meta.items():
        setattr(image.file_meta, keyword, value)
    written = io.BytesIO()
    image.save_as(
        written,
        implicit_vr=transfer_syntax_uid == ImplicitVRLittleEndian,
        little_endian=transfer_syntax_uid != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    return written.getvalue()


def values(found: list[dict[str, Any]], tag: str) -> list[Any]:
    """The first value of an attribute of each answer."""
    return [one[tag]["Value"][0] for one in found]


def ct(number: int = 1, **told: Any) -> bytes:
    return file(data_set(SOPInstanceUID=f"{SERIES}.{number}", InstanceNumber=str(number), **told))


def in_parts(*images: bytes, boundary: str = "b") -> bytes:
    kind = {"Content-Type": "application/dicom"}
    written = b"".join(multipart.head(kind, boundary) + image for image in images)
    return written + multipart.tail(boundary)


def parts_of(response: httpx2.Response) -> list[tuple[Mapping[str, str], bytes]]:
    boundary = response.headers["content-type"].partition("boundary=")[2]
    read = multipart.parts([response.content], boundary)
    return [(part.fields, b"".join(part.pieces)) for part in read]


def body_of(image: bytes) -> bytes:
    """The data set, without what a file has before it."""
    reader = io.BytesIO(image)
    part10.read_file_meta(reader)
    return reader.read()


def fill(door: Door) -> None:
    """Three studies: two of Beicheng's, one of them an MR of a man; one of Nanhu's."""
    man = {
        "StudyInstanceUID": "1.2.5",
        "SeriesInstanceUID": "1.2.5.1",
        "PatientID": "P2",
        "PatientName": "Li^Na=李^娜",
        "PatientBirthDate": "19700101",
        "PatientSex": "M",
        "StudyDate": "20261015",
        "StudyTime": "0830",
        "Modality": "MR",
        "AccessionNumber": "B7",
    }
    assert door.send(ct(1), ct(2), ct(3, **man)).status_code == 200
    other = {"StudyInstanceUID": "1.2.6", "SeriesInstanceUID": "1.2.6.1", "StudyDate": "20200101"}
    assert door.send(ct(4, **other), who="nanhu").status_code == 200


def kept(
    content: bytes, syntax: str, sop_class_uid: str = "1.2", sop_instance_uid: str = "1.3"
) -> Held:
    """An object in a store, as the index would name it."""
    objects = MemoryStore()
    whole = part10.file_meta(sop_class_uid, sop_instance_uid, syntax) + content
    objects.put("a", whole)
    return Held(
        study_instance_uid="1",
        series_instance_uid="1.1",
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
        transfer_syntax_uid=syntax,
        key="a",
        size=len(whole),
        digest=str(random.random()),
        character_set="",
        character_set_repair=None,
        rows=None,
        objects=objects,
    )

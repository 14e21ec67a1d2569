"""What is asked of the HTTP doors: requests, queries, bodies and the trees in them, damaged.

They are asked of the whole application over a socket. It may answer whatever is no failure of its
own (5xx), or close the connection on what is no HTTP. What refuses a FHIR resource names elements,
and never a patient.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import random
import select
import socket
import tempfile
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote_from_bytes

import structlog
from altered import altered
from target import ROOM, Target
from web_door import IMAGE, SERIES, STUDY, ct, in_parts
from whole import PASSWORD, WORKITEM, Whole, whole
from worklist_door import elements, performed, step

PATIENCE = 180.0
"""Seconds for one answer."""

ANSWERED = 0.03
"""Seconds after which a request that is not answered has no end."""

SERVED = frozenset({501, 507})
"""Of 5xx those that are no failure: what is not served, and that there is no room."""

LEFT = "/%?=&,*.:;@!$'()+_-~|[]"
"""What stands in a query as it is; all else is escaped, so that it arrives."""

INSTANCE = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{IMAGE}"
FHIR_JSON = "application/fhir+json"

QUERIES = [
    one.encode()
    for one in (
        "/dicom-web/studies?PatientName=Wang*&StudyDate=20261101-20261130&includefield=all&limit=5",
        "/dicom-web/studies?ModalitiesInStudy=CT,MR&fuzzymatching=true&PatientName=wang&offset=1",
        "/dicom-web/series?StudyInstanceUID=1.2,1.3&RequestAttributesSequence.ScheduledProcedureStepID=S",
        "/dicom-web/instances?00080018=1.2.3&includefield=00280010&includefield=NumberOfFrames",
        "/dicom-web/workitems?ScheduledProcedureStepStartDateTime=20261126-20261127%2B0800",
        "/dicom-web/workitems?ScheduledStationNameCodeSequence.CodeValue=ST?&PatientID=P1",
        "/dicom-web/changefeed?after=0&since=2026-11-26T08:00:00%2B08:00&limit=10",
        f"{INSTANCE}/rendered?window=40,400,linear&viewport=64,64,0,0,2,2&quality=50&accept=image/png",
        f"{INSTANCE}/frames/1?accept=multipart/related;type=%22application/octet-stream%22",
        f"{INSTANCE}/bulkdata/7FE00010",
        f"/dicom-web/wado?requestType=WADO&studyUID={STUDY}&seriesUID={SERIES}&objectUID={IMAGE}",
        f"/dicom-web/studies/{STUDY}/metadata?accept=application/dicom%2Bjson;q=0.5",
        "/fhir/Patient?name:contains=wang&birthdate=ge1949&_sort=-birthdate,name&_count=5",
        "/fhir/Patient?identifier=urn:oid:2.25.101|P1&_revinclude=ImagingStudy:subject&_total=accurate",
        "/fhir/ImagingStudy?started=2026-11-01&patient.name=wang&modality=http://x|CT,MR&_summary=count",
        "/fhir/Organization?name=x&_format=json&_elements=name&_pretty=true",
        "/fhir/Patient/1/_history?_since=2026-11-26T08:00:00Z&_count=3",
        "/fhir/Observation?code=x",
    )
]  # fmt: skip

TREES: list[tuple[str, str, Any]] = [
    ("POST", "/fhir/Patient", {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:2.25.101", "value": "P9"}],
        "name": [{"text": "王小东", "family": "王", "given": ["小东"]}],
        "birthDate": "1949-12-31",
        "gender": "female",
        "extension": [{"url": "http://x/y", "valueString": "z"}],
    }),
    ("POST", "/fhir/Observation", {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}], "text": "血红蛋白"},
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2026-11-26T08:00:00+08:00",
        "valueQuantity": {"value": 120.5, "unit": "g/L", "code": "g/L"},
        "contained": [{"resourceType": "Organization", "id": "o", "name": "x"}],
        "component": [{"code": {"text": "a"}, "valueInteger": 5}],
    }),
    ("POST", "/fhir/Location", {"resourceType": "Location", "name": "放射科", "status": "active"}),
    ("PUT", "/fhir/List/a1", {
        "resourceType": "List", "id": "a1", "status": "current", "mode": "working",
        "entry": [{"item": {"display": "x"}}],
    }),
    ("POST", "/fhir", {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0",
                "resource": {"resourceType": "Location", "name": "a"},
                "request": {"method": "POST", "url": "Location", "ifNoneExist": "name=a"},
            },
            {"request": {"method": "GET", "url": "Patient?name=wang"}},
            {"request": {"method": "DELETE", "url": "Location/nobody"}},
        ],
    }),
    ("PATCH", "/fhir/List/a1", {
        "resourceType": "Parameters",
        "parameter": [{
            "name": "operation",
            "part": [
                {"name": "type", "valueCode": "replace"},
                {"name": "path", "valueString": "List.status"},
                {"name": "value", "valueCode": "retired"},
            ],
        }],
    }),
    ("PATCH", "/fhir/List/a1", [{"op": "replace", "path": "/status", "value": "current"}]),
    ("POST", "/dicom-web/workitems?2.25.1", step()),
    ("POST", f"/dicom-web/workitems/{WORKITEM}", elements(WorklistLabel="B") | performed()),
    ("PUT", f"/dicom-web/workitems/{WORKITEM}/state",
        elements(ProcedureStepState="SCHEDULED", TransactionUID="2.25.1")),
    ("POST", f"/dicom-web/workitems/{WORKITEM}/cancelrequest", elements(ContactDisplayName="x")),
    ("POST", "/dicom-web/commitment-requests/2.25.5", {
        "00081199": {"vr": "SQ", "Value": [{
            "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
            "00081155": {"vr": "UI", "Value": [IMAGE]},
        }]},
    }),
]  # fmt: skip
"""Method, address and tree of what is sent as JSON."""

NAMING = 5
"""Characters from which on a text names somebody; what is shorter stands in any answer."""

_PERSONAL = frozenset({"name", "telecom", "address", "identifier", "birthDate", "div", "note"})
_NOBODYS = frozenset({"system", "use", "type", "assigner", "url", "resourceType", "status"})
"""What in those names nobody."""

ODD: Sequence[Any] = (
    None, True, 0, -1, 1.5, 1e308, 2**63, 2**70, "", " ", "\0", "\ud7ff", "王", "x" * 5000, "1.2",
    "2026-13-45", "Patient/1", "../..", "%00", [], {}, [[]], [None], {"": None}, [{}] * 50,
    {"vr": "SQ", "Value": [{}]}, {"resourceType": "Patient"}, "9" * 400, "(" * 300, "urn:uuid:x",
)  # fmt: skip
"""What stands where something else should."""


class Refused(Exception):
    """The application said no (4xx), or closed the connection."""


class Failed(Exception):
    """The application failed: what is looked for."""


class Doors:
    """The whole application, asked over sockets."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        logging.disable(logging.CRITICAL)
        self._stack.callback(logging.disable, logging.NOTSET)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self._stack.callback(structlog.reset_defaults)
        home = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="exchange-fuzz-"))
        self.whole: Whole = self._stack.enter_context(whole(Path(home)))
        self._connection = http.client.HTTPConnection("127.0.0.1", self.whole.port, PATIENCE)
        self._stack.callback(lambda: self._connection.close())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def raw(self, request: bytes) -> None:
        """Send the bytes, and no more; read what is answered."""
        answer = b""
        with (
            socket.create_connection(("127.0.0.1", self.whole.port), PATIENCE) as there,
            contextlib.suppress(OSError),
        ):
            there.sendall(request)
            if not select.select([there], [], [], ANSWERED)[0]:
                there.shutdown(socket.SHUT_WR)  # the rest is not coming
            while piece := there.recv(65536):
                answer += piece
        for line in answer.split(b"\r\n"):
            if line.startswith(b"HTTP/1.1 "):
                _judge(int(line[9:12]), line)
                return
        raise Refused

    def ask(
        self,
        method: str,
        address: bytes,
        body: bytes = b"",
        kind: str = "",
        *,
        untold: Collection[str] = (),
    ) -> None:
        """One whole request of the hospital's system; what refuses it tells nothing `untold`."""
        target = quote_from_bytes(address, safe=LEFT)
        headers = {"Authorization": f"Bearer {self.whole.token}"}
        if kind:
            headers["Content-Type"] = kind
        for attempt in range(2):  # a connection that the server has closed meanwhile
            try:
                self._connection.request(method, target, body, headers)
                answer = self._connection.getresponse()
                told = answer.read()
                break
            except (http.client.HTTPException, OSError):
                self._connection.close()
                if attempt:
                    raise Refused from None
        if answer.status == 401:
            raise Failed("the token was good")
        if answer.status >= 400:
            said = told.decode(errors="replace")
            if shown := [one for one in untold if one in said]:
                raise Failed(f"{answer.status} tells {shown[0][:80]!r}: {said[:400]}")
        _judge(answer.status, told)

    def request(self, method: str, address: str, body: bytes, kind: str) -> bytes:
        """The bytes of a request."""
        head = (
            f"{method} {address} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
            f"Authorization: Bearer {self.whole.token}\r\n\r\n"
        )
        return head.encode() + body


def _judge(status: int, told: bytes) -> None:
    if status >= 500 and status not in SERVED:
        raise Failed(f"{status} {told[:200]!r}")
    if status >= 400:
        raise Refused


def personal(resource: Any) -> set[str]:
    """What names somebody in a resource: the texts of its names, addresses, numbers and birthdays,
    as far as nothing else would be written so."""
    found: set[str] = set()
    pending: list[tuple[str, Any]] = [("", resource)]
    while pending:
        name, here = pending.pop()
        if isinstance(here, dict):
            inside = name if name in _PERSONAL else ""
            pending += [(inside or key, one) for key, one in here.items() if key not in _NOBODYS]
        elif isinstance(here, list):
            pending += [(name, one) for one in here]
        elif isinstance(here, str) and name in _PERSONAL and len(here) >= NAMING:
            found.add(here)
    return found


def grown(tree: Any, chance: random.Random) -> Any:
    """The tree with one to four changes: something odd, gone, twice, or from elsewhere in it."""
    whole_tree = [json.loads(json.dumps(tree))]
    for _ in range(chance.choice((1, 1, 2, 4))):
        places: list[tuple[Any, Any]] = []
        pending: list[Any] = [whole_tree]
        while pending:
            here = pending.pop()
            keys = list(here) if isinstance(here, dict) else range(len(here))
            for key in keys:
                places.append((here, key))
                if isinstance(here[key], dict | list):
                    pending.append(here[key])
        here, key = chance.choice(places)
        match chance.randrange(6):
            case 0 | 1:
                here[key] = chance.choice(ODD)
            case 2 if here is not whole_tree:
                del here[key]
            case 3:
                here[key] = [here[key], here[key]]
            case 4:
                other, name = chance.choice(places)
                with contextlib.suppress(KeyError, IndexError):
                    here[key] = json.loads(json.dumps(other[name]))
            case _ if isinstance(here, dict):
                here[chance.choice((*here, "_" + str(key), "id", "extension", "00080018", "x"))] = (
                    chance.choice(ODD)
                )
            case _:
                for _ in range(chance.choice((5, 40, 90))):
                    here[key] = [here[key]]
        whole_tree = json.loads(json.dumps(whole_tree))  # no part of it stands in two places
    return whole_tree[0]


def _kind(address: str, tree: Any) -> str:
    if not address.startswith("/fhir"):
        return "application/dicom+json"
    return "application/json-patch+json" if isinstance(tree, list) else FHIR_JSON


def asked_targets(doors: Doors) -> list[Target]:
    """The targets of the HTTP doors."""
    requests = [
        *(doors.request("GET", one.decode(), b"", "text/plain") for one in QUERIES),
        *(
            doors.request(method, address, json.dumps(tree).encode(), _kind(address, tree))
            for method, address, tree in TREES
        ),
        doors.request(
            "POST", "/dicom-web/studies", in_parts(ct(7)),
            'multipart/related; type="application/dicom"; boundary=b',
        ),
        doors.request(
            "POST", "/fhir/Patient/_search", b"name=wang&_count=3",
            "application/x-www-form-urlencoded",
        ),
        doors.request(
            "POST", "/oauth/token",
            f"grant_type=client_credentials&client_id=ris&client_secret={PASSWORD}".encode(),
            "application/x-www-form-urlencoded",
        ),
    ]  # fmt: skip

    def body(data: bytes, only: str) -> None:
        chosen = random.Random(data).choice([one for one in TREES if only in one[1]])
        doors.ask(chosen[0], chosen[1].encode(), data, _kind(chosen[1], chosen[2]))

    def tree(seed: bytes, only: str) -> None:
        chance = random.Random(seed)
        method, address, sound = chance.choice([one for one in TREES if only in one[1]])
        sent = json.dumps(grown(sound, chance)).encode()
        doors.ask(method, address.encode(), sent, _kind(address, sound))

    def resource(seed: bytes) -> None:
        chance = random.Random(seed)
        sent = altered(chance)
        body, kind = json.dumps(sent).encode(), sent["resourceType"]
        ask = partial(doors.ask, untold=personal(sent))
        match chance.randrange(6):
            case 0:
                named = f"fuzzed-{chance.randrange(500)}"
                body = json.dumps(sent | {"id": named}).encode()
                address = f"/fhir/{kind}/{named}"
                ask("PUT" if kind != "Patient" else "POST", address.encode(), body, FHIR_JSON)
            case 1:
                entry = {"resource": sent, "request": {"method": "POST", "url": kind}}
                bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
                ask("POST", b"/fhir", json.dumps(bundle).encode(), FHIR_JSON)
            case 2:
                ask("POST", f"/fhir/{kind}/$validate".encode(), body, FHIR_JSON)
            case _:
                ask("POST", f"/fhir/{kind}".encode(), body, FHIR_JSON)
                # The newest is what was taken just now, in both formats, with what it leads to.
                for asked in ("_format=xml", "_summary=true&_include=*", "_elements=code,name"):
                    ask("GET", f"/fhir/{kind}?_sort=-_lastUpdated&_count=2&{asked}".encode())

    seeds = [f"a tree that grows {number:08}".encode() for number in range(50)]
    reads: list[tuple[str, Sequence[bytes], Callable[[bytes], object]]] = [
        ("asked requests", requests, doors.raw),
        ("asked queries", QUERIES, lambda data: doors.ask("GET", data)),
        ("asked FHIR resources", seeds, resource),
    ]
    for name, only in (("FHIR", "/fhir"), ("DICOM", "/dicom-web")):
        bodies = [json.dumps(sound).encode() for _, address, sound in TREES if only in address]
        reads += [
            (f"asked {name} bodies", bodies, partial(body, only=only)),
            (f"asked {name} trees", seeds, partial(tree, only=only)),
        ]
    return [Target(name, sound, read, (Refused,), ROOM * 2) for name, sound, read in reads]

"""The IHE profiles that a hospital's systems come with, over HTTP: PIXm, PDQm, MHD and mCSD.

Each test is a transaction as its profile writes it, and answers as the profile expects them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import httpx2
import pytest
from bundles import answered, entry, sent
from fhir_door import Door, entries, is_fhir, name, opened, outcome
from hosting import hosted
from lxml import etree
from region import ID_CARD, region

ISSUER = "urn:oid:2.25.101"
RESIDENT_ID = "urn:oid:2.16.156.10011.1.3"
MHD = "https://profiles.ihe.net/ITI/MHD/StructureDefinition"
PDF = b"%PDF-1.4 a discharge summary\n"
CDA = '<ClinicalDocument xmlns="urn:hl7-org:v3"><title>出院小结</title></ClinicalDocument>'.encode()


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A real server: Wang was at beicheng (Patient/1) and at nanhu (Patient/2)."""
    url = f"sqlite:///{tmp_path_factory.mktemp('profiles') / 'exchange.sqlite'}"
    with region(url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD)
        city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
        door = opened(city)
        with (
            hosted(door.client.app) as port,
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=180) as client,
        ):
            door.client = client  # type: ignore[assignment]
            yield door


def patient(number: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "active": True,
        "identifier": [{"system": ISSUER, "value": number}],
        "name": [{"use": "official", "family": "赵", "given": ["云"]}],
        "gender": "male",
        "birthDate": "1985-05-06",
    } | more


# -- PIXm -----------------------------------------------------------------------------------------


def test_iti_104_feeds_changes_and_merges_patients(hospital: Door) -> None:
    feed = hospital.system("beicheng")
    where = f"Patient?identifier={ISSUER}|X1"

    added = feed.send("PUT", where, patient("X1"))
    revised = feed.send("PUT", where, patient("X1", gender="female"))
    subsumed = feed.send("PUT", f"Patient?identifier={ISSUER}|X2", patient("X2"))
    surviving = {"reference": f"Patient/{added.json()['id']}"}
    link = [{"other": surviving, "type": "replaced-by"}]
    gone = patient("X2", active=False, link=link)
    merged = feed.send("PUT", f"Patient?identifier={ISSUER}|X2", gone)
    foreign = patient("X9") | {"identifier": [{"system": "urn:oid:2.25.102", "value": "X9"}]}
    not_ours = feed.send("PUT", "Patient?identifier=urn:oid:2.25.102|X9", foreign)

    assert [one.status_code for one in (added, revised, subsumed, merged)] == [201, 200, 201, 200]
    told = merged.json()
    assert told["active"] is False
    assert [one["type"] for one in told["link"]] == ["replaced-by"]
    assert feed.read(f"Patient/{added.json()['id']}")["gender"] == "female"
    assert not_ours.status_code in {400, 403, 422}
    is_fhir(not_ours.json())


def test_iti_104_merges_by_the_number_of_the_surviving_patient(hospital: Door) -> None:
    """As the profile's own example does: a feed knows numbers, and not our ids."""
    feed = hospital.system("beicheng")
    where = f"Patient?identifier={ISSUER}|M"
    surviving = feed.send("PUT", f"{where}1", patient("M1")).json()
    feed.send("PUT", f"{where}2", patient("M2"))

    def told(number: str) -> dict[str, Any]:
        other = {"identifier": {"system": ISSUER, "value": number}}
        return patient("M2", active=False, link=[{"other": other, "type": "replaced-by"}])

    merged = feed.send("PUT", f"{where}2", told("M1"))
    unknown = feed.send("PUT", f"{where}2", told("M404"))
    itself = feed.send("PUT", f"{where}2", told("M2"))

    assert merged.status_code == 200, merged.text
    (link,) = feed.read(f"Patient/{merged.json()['id']}")["link"]
    assert link["other"]["identifier"] == {"system": ISSUER, "value": "M1"}
    assert link["other"]["reference"].endswith(f"Patient/{surviving['id']}")
    assert [one.status_code for one in (unknown, itself)] == [400, 409]
    is_fhir(unknown.json())


def test_iti_83_tells_the_numbers_of_other_domains(hospital: Door) -> None:
    consumer = hospital.clinician("beicheng")

    def pix(query: dict[str, str]) -> httpx2.Response:
        response: httpx2.Response = consumer.get(f"Patient/$ihe-pix?{urlencode(query)}")
        return response

    source = {"sourceIdentifier": f"{ISSUER}|W1"}
    told = pix(source | {"targetSystem": "urn:oid:2.25.102"}).json()["parameter"]
    numbers = [one["valueIdentifier"] for one in told if one["name"] == "targetIdentifier"]
    assert [(one["system"], one["value"]) for one in numbers] == [("urn:oid:2.25.102", "W2")]
    references = [one["valueReference"] for one in told if one["name"] == "targetId"]
    assert [one["reference"].split("/")[-2:] for one in references] == [["Patient", "2"]]
    outcome(pix({"sourceIdentifier": f"{ISSUER}|nobody"}), 404, "not-found")
    outcome(pix({"sourceIdentifier": "urn:oid:9.9|W1"}), 400, "code-invalid")
    outcome(pix(source | {"targetSystem": "urn:oid:9.9"}), 403, "code-invalid")


# -- PDQm -----------------------------------------------------------------------------------------

MAIDEN = "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName"


@pytest.fixture(scope="module")
def registered(hospital: Door) -> str:
    """A patient of beicheng of whom everything is known that PDQm asks for."""
    made = hospital.system("beicheng").made(
        patient(
            "Q1",
            name=[{"use": "official", "family": "Qian", "given": ["Zhong", "Shu"]}],
            telecom=[{"system": "phone", "value": "024-2398"}],
            extension=[{"url": MAIDEN, "valueString": "Sun"}],
            address=[
                {"line": ["青年大街1号"], "city": "沈阳", "state": "辽宁",
                 "postalCode": "110000", "country": "中国"}
            ],
        )
    )  # fmt: skip
    return f"Patient/{made['id']}"


PDQM = [
    "_id={id}",
    "active=true&identifier={issuer}|Q1",
    "family=Qian&gender=male",
    "birthdate=1985-05-06&family=qian",
    "given=Zhong",
    "given=shu&family=qian",
    "family:exact=Qian",
    "given:exact=Zhong",
    "identifier={issuer}|Q1",
    "identifier={issuer}|Q1,{issuer}|none",
    "telecom=024-2398",
    "birthdate=ge1985-01-01&birthdate=lt1986-01-01&family=qian",
    "address=青年大街",
    "address-city=沈阳&family=qian",
    "address-country=中国&family=qian",
    "address-postalcode=110000",
    "address-state=辽宁&family=qian",
    "mothersMaidenName=sun",
]


@pytest.mark.parametrize("query", PDQM)
def test_iti_78_is_answered_by_get_and_post_in_json_and_xml(
    hospital: Door, registered: str, query: str
) -> None:
    consumer = hospital.clinician("nanhu")
    query = query.format(id=registered.partition("/")[2], issuer=ISSUER)

    by_get = consumer.ids(f"Patient?{query}")
    by_post = consumer.post("Patient/_search", query, "application/x-www-form-urlencoded")
    as_xml = consumer.get(f"Patient?{query}", Accept="application/fhir+xml")

    assert registered in by_get
    assert [name(one) for one in entries(by_post.json())] == by_get
    root = etree.fromstring(as_xml.content)
    fhir = "{http://hl7.org/fhir}"
    found = root.findall(f"{fhir}entry/{fhir}resource/{fhir}Patient/{fhir}id")
    assert [f"Patient/{one.get('value')}" for one in found] == by_get


def test_iti_78_finds_nobody_without_an_error_and_says_which_domain_is_unknown(
    hospital: Door,
) -> None:
    consumer = hospital.clinician("nanhu")
    assert consumer.bundle("Patient?family=nobody-at-all").get("total") == 0
    consumer.refused("Patient?birthdate=soon", 400, "invalid")
    assert consumer.get("Patient/99999").status_code == 404


def test_iti_119_tells_candidates_with_grades(hospital: Door, registered: str) -> None:
    consumer = hospital.clinician("nanhu")
    who: dict[str, Any] = {
        "resourceType": "Patient",
        "name": [{"family": "王", "given": ["小东"]}],
        "gender": "female",
        "birthDate": "1949-12-31",
    }
    carded = who | {"identifier": [{"system": RESIDENT_ID, "value": ID_CARD}]}

    def match(resource: dict[str, Any], **more: bool) -> list[dict[str, Any]]:
        told: list[Any] = [{"name": "resource", "resource": resource}]
        told += [{"name": key, "valueBoolean": value} for key, value in more.items()]
        parameters = {"resourceType": "Parameters", "parameter": told}
        response = consumer.send("POST", "Patient/$match", parameters)
        assert response.status_code == 200, response.text
        is_fhir(response.json())
        return entries(response.json())

    graded = [
        (one["search"]["extension"][0]["valueCode"], one["search"]["score"])
        for one in match(carded)
    ]
    assert {grade for grade, _ in graded} == {"certain"}
    assert all(0 <= score <= 1 for _, score in graded)
    assert match(who, onlyCertainMatches=True) == []
    assert match(who | {"name": [{"family": "没有", "given": ["这人"]}]}) == []


# -- MHD ------------------------------------------------------------------------------------------


def provided(content: bytes, media_type: str, author: str, number: str) -> list[Any]:
    """The entries of a Provide Document Bundle with comprehensive metadata (ITI-65)."""
    list_, reference, binary = (f"urn:uuid:{uuid4()}" for _ in range(3))
    subject = {"reference": "Patient/1"}
    coded = "http://loinc.org"
    submission_set = {
        "resourceType": "List",
        "meta": {"profile": [f"{MHD}/IHE.MHD.Comprehensive.SubmissionSet"]},
        "extension": [
            {"url": f"{MHD}/ihe-sourceId", "valueIdentifier": {"value": "urn:oid:2.25.101.1"}},
            {
                "url": f"{MHD}/ihe-designationType",
                "valueCodeableConcept": {"coding": [{"system": coded, "code": "18842-5"}]},
            },
        ],
        "identifier": [
            {"use": "usual", "system": "urn:ietf:rfc:3986", "value": f"urn:oid:{number}"}
        ],
        "status": "current",
        "mode": "working",
        "code": {
            "coding": [
                {
                    "system": "https://profiles.ihe.net/ITI/MHD/CodeSystem/MHDlistTypes",
                    "code": "submissionset",
                }
            ]
        },
        "subject": subject,
        "date": "2026-11-20T10:00:00+08:00",
        "source": {"reference": author},
        "entry": [{"item": {"reference": reference}}],
    }
    document = {
        "resourceType": "DocumentReference",
        "meta": {"profile": [f"{MHD}/IHE.MHD.Comprehensive.DocumentReference"]},
        "contained": [patient("W1", id="source", active=None)],
        "masterIdentifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:oid:{number}.1"},
        "status": "current",
        "type": {"coding": [{"system": coded, "code": "18842-5"}]},
        "category": [{"coding": [{"system": coded, "code": "11490-0"}]}],
        "subject": subject,
        "date": "2026-11-20T10:00:00+08:00",
        "author": [{"reference": author}],
        "securityLabel": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
                        "code": "N",
                    }
                ]
            }
        ],
        "content": [
            {
                "attachment": {
                    "contentType": media_type,
                    "language": "zh-CN",
                    "url": binary,
                    "size": len(content),
                    "hash": base64.b64encode(hashlib.sha1(content).digest()).decode(),  # noqa: S324
                    "title": "出院小结",
                    "creation": "2026-11-19T09:00:00+08:00",
                },
                "format": {
                    "system": "http://ihe.net/fhir/ihe.formatcode.fhir/CodeSystem/formatcode",
                    "code": "urn:ihe:iti:xds:2017:mimeTypeSufficient",
                },
            }
        ],
        "context": {
            "event": [{"coding": [{"system": coded, "code": "48768-6"}]}],
            "period": {"start": "2026-11-01", "end": "2026-11-20"},
            "facilityType": {"coding": [{"code": "HOSP"}]},
            "practiceSetting": {"coding": [{"code": "394802001"}]},
            "sourcePatientInfo": {"reference": "#source"},
            "related": [{"identifier": {"system": "urn:orders", "value": number}}],
        },
    }
    document["contained"][0].pop("active")  # type: ignore[index]
    data = base64.b64encode(content).decode()
    context = {"resourceType": "Binary", "contentType": media_type, "data": data}
    return [
        entry("POST", "List", submission_set, list_),
        entry("POST", "DocumentReference", document, reference),
        entry("POST", "Binary", context | {"securityContext": subject}, binary),
    ]


def delivered(hospital: Door, content: bytes, media_type: str) -> dict[str, str]:
    """What was provided: addresses by type, and the number and author of the document."""
    source = hospital.system("beicheng")
    doctor = source.made(
        {"resourceType": "Practitioner", "name": [{"family": "吴", "given": ["用"]}]}
    )
    author, number = f"Practitioner/{doctor['id']}", f"2.25.{uuid4().int}"
    response = sent(source, "transaction", *provided(content, media_type, author, number))
    made = answered(response)
    assert [one["response"]["status"][:3] for one in made] == ["201"] * 3
    places = [one["response"]["location"].rpartition("/_history")[0] for one in made]
    told = {one.split("/")[-2]: "/".join(one.split("/")[-2:]) for one in places}
    return told | {"author": author, "number": number}


@pytest.fixture(scope="module")
def document(hospital: Door) -> dict[str, str]:
    return delivered(hospital, PDF, "application/pdf")


def test_iti_65_keeps_a_document_with_its_metadata_as_one(
    hospital: Door, document: dict[str, str]
) -> None:
    consumer = hospital.clinician("nanhu")

    reference = consumer.read(document["DocumentReference"])
    submission_set = consumer.read(document["List"])

    assert reference["content"][0]["attachment"]["url"].endswith(document["Binary"])
    assert submission_set["entry"][0]["item"]["reference"] == document["DocumentReference"]
    source = hospital.system("beicheng")
    wrong = provided(PDF, "application/pdf", "Practitioner/none", "2.25.7")
    wrong[1]["resource"]["status"] = "finished"
    before = source.bundle("DocumentReference?_total=accurate&_count=0")["total"]
    assert sent(source, "transaction", *wrong).status_code in {400, 422}
    assert source.bundle("DocumentReference?_total=accurate&_count=0")["total"] == before


ITI_67 = [
    "patient=Patient/1&status=current",
    "patient.identifier={issuer}|W1&status=current",
    "author.family=吴&author.given=用",
    "category=11490-0",
    "creation=2026-11-19",
    "date=ge2026-11-20&date=lt2026-11-22",
    "event=48768-6",
    "facility=HOSP",
    "format=urn:ihe:iti:xds:2017:mimeTypeSufficient",
    "identifier=urn:oid:{number}.1",
    "period=ge2026-11-01",
    "related:identifier={number}",
    "security-label=N",
    "setting=394802001",
    "type=http://loinc.org|18842-5",
]


@pytest.mark.parametrize("query", ITI_67)
def test_iti_67_finds_the_document(hospital: Door, document: dict[str, str], query: str) -> None:
    consumer = hospital.clinician("nanhu")
    query = query.format(issuer=ISSUER, number=document["number"])
    if "patient" not in query:
        query = f"patient=Patient/1&status=current&{query}"

    found = consumer.bundle(f"DocumentReference?{query}", Prefer="handling=strict")
    form = "application/x-www-form-urlencoded"
    posted = consumer.post("DocumentReference/_search", query, form)

    assert document["DocumentReference"] in [name(one) for one in entries(found)]
    assert entries(posted.json()) == entries(found)


@pytest.mark.parametrize(
    "query",
    [
        "patient=Patient/1&status=current&code=submissionset",
        "patient.identifier={issuer}|W1&status=current",
        "date=2026-11-20&status=current&patient=Patient/1",
        "identifier=urn:oid:{number}&patient=Patient/1",
        "source.family=吴&source.given=用&patient=Patient/1&status=current",
        "designationType=http://loinc.org|18842-5&patient=Patient/1&status=current",
        "sourceId=urn:oid:2.25.101.1&patient=Patient/1",
    ],
)
def test_iti_66_finds_the_submission_set(
    hospital: Door, document: dict[str, str], query: str
) -> None:
    query = query.format(issuer=ISSUER, number=document["number"])
    assert document["List"] in hospital.clinician("nanhu").ids(f"List?{query}")


@pytest.mark.parametrize("lacking", ["ihe-sourceId", "ihe-designationType"])
def test_iti_65_needs_to_know_where_a_submission_set_is_from_and_what_led_to_it(
    hospital: Door, lacking: str
) -> None:
    wrong = provided(PDF, "application/pdf", "Practitioner/none", "2.25.8")
    submission_set = wrong[0]["resource"]
    submission_set["extension"] = [
        one for one in submission_set["extension"] if not one["url"].endswith(lacking)
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": wrong}
    refused = hospital.system("beicheng").send("POST", "", bundle)
    assert lacking.removeprefix("ihe-") in outcome(refused, 422, "business-rule")


def test_iti_68_gives_out_the_document_as_what_it_is(
    hospital: Door, document: dict[str, str]
) -> None:
    consumer = hospital.clinician("nanhu")
    (content,) = consumer.read(document["DocumentReference"])["content"]
    place = "/".join(content["attachment"]["url"].split("/")[-2:])

    raw = consumer.get(place, Accept="application/pdf")
    whatever = consumer.get(place, Accept="*/*")

    assert (raw.content, raw.headers["content-type"]) == (PDF, "application/pdf")
    assert whatever.content == PDF
    resource = consumer.get(place, Accept="application/fhir+json").json()
    assert resource["contentType"] == "application/pdf"
    assert hospital.asker(None).get(place).status_code == 401


def test_a_cda_document_comes_in_and_goes_out_as_it_was(hospital: Door) -> None:
    made = delivered(hospital, CDA, "text/xml")
    consumer = hospital.clinician("nanhu")

    for accepted in ("text/xml", "*/*", "text/xml, application/fhir+json;q=0.1"):
        assert consumer.get(made["Binary"], Accept=accepted).content == CDA
    as_fhir = consumer.get(made["Binary"], Accept="application/fhir+xml")
    assert as_fhir.text.count("<Binary ") == 1
    found = consumer.ids("DocumentReference?contenttype=text/xml&patient=Patient/1")
    assert made["DocumentReference"] in found


# -- mCSD -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(hospital: Door) -> dict[str, str]:
    """Addresses of entries of the directory, by what they are."""
    system = hospital.system("beicheng")

    def made(**resource: Any) -> str:
        one = system.made({"identifier": [{"system": "urn:mcsd", "value": "1"}]} | resource)
        return f"{one['resourceType']}/{one['id']}"

    def to(address: str) -> dict[str, str]:
        return {"reference": address}

    def coded(code: str) -> list[dict[str, Any]]:
        return [{"coding": [{"system": "urn:codes", "code": code}]}]

    connection = {
        "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
        "code": "dicom-qido-rs",
    }
    told: dict[str, str] = {}
    told["endpoint"] = made(
        resourceType="Endpoint", status="active", connectionType=connection, payloadType=coded("x"),
        address="https://bc.example", managingOrganization=to("Organization/beicheng"),
    )  # fmt: skip
    told["department"] = made(
        resourceType="Organization", active=True, type=coded("dept"), name="影像科",
        partOf=to("Organization/beicheng"), endpoint=[to(told["endpoint"])],
    )  # fmt: skip
    told["site"] = made(
        resourceType="Location", status="active", name="东院区", type=coded("site"),
        managingOrganization=to(told["department"]),
    )  # fmt: skip
    told["room"] = made(
        resourceType="Location", status="active", name="CT室", type=coded("room"),
        managingOrganization=to(told["department"]), partOf=to(told["site"]),
    )  # fmt: skip
    told["doctor"] = made(
        resourceType="Practitioner", active=True, name=[{"family": "孙", "given": ["立"]}]
    )
    told["role"] = made(
        resourceType="PractitionerRole", active=True, code=coded("radiologist"),
        specialty=coded("radiology"), practitioner=to(told["doctor"]),
        organization=to(told["department"]), location=[to(told["room"])],
    )  # fmt: skip
    told["service"] = made(
        resourceType="HealthcareService", active=True, type=coded("ct"), name="增强CT",
        providedBy=to(told["department"]), location=[to(told["room"])],
    )  # fmt: skip
    told["affiliation"] = made(
        resourceType="OrganizationAffiliation", active=True, code=coded("member"),
        organization=to("Organization/beicheng"), participatingOrganization=to(told["department"]),
        period={"start": "2026-01-01"}, endpoint=[to(told["endpoint"])],
    )  # fmt: skip
    return told


MCSD = [
    ("Organization?active=true&identifier=urn:mcsd|1", "department", ()),
    ("Organization?name=影像", "department", ()),
    ("Organization?name:contains=像科", "department", ()),
    ("Organization?name:exact=影像科&_include=Organization:endpoint", "department", ("endpoint",)),
    ("Organization?partof=Organization/beicheng", "department", ()),
    ("Organization?type=urn:codes|dept", "department", ()),
    ("Organization?_lastUpdated=gt2026-01-01&type=dept", "department", ()),
    ("Location?name=东院&status=active", "site", ()),
    ("Location?identifier=urn:mcsd|1&type=room", "room", ()),
    ("Location?organization={department}&type=site&_revinclude=Location:partof", "site", ("room",)),
    ("Location?partof={site}&_include=Location:organization", "room", ("department",)),
    ("Practitioner?active=true&family=孙&given=立", "doctor", ()),
    ("Practitioner?name=孙&_revinclude=PractitionerRole:practitioner", "doctor", ("role",)),
    ("PractitionerRole?active=true&role=radiologist&specialty=radiology", "role", ()),
    ("PractitionerRole?location={room}&_include=PractitionerRole:practitioner",
     "role", ("doctor",)),
    ("PractitionerRole?organization={department}", "role", ()),
    ("PractitionerRole?practitioner={doctor}", "role", ()),
    ("PractitionerRole?practitioner.name=孙", "role", ()),
    ("HealthcareService?service-type=urn:codes|ct&active=true", "service", ()),
    ("HealthcareService?organization={department}&_include=HealthcareService:location", "service",
     ("room",)),
    ("HealthcareService?name=增强&location={room}", "service", ()),
    ("OrganizationAffiliation?active=true&date=ge2026-02", "affiliation", ()),
    (
        "OrganizationAffiliation?primary-organization=Organization/beicheng"
        "&_include=OrganizationAffiliation:endpoint",
        "affiliation",
        ("endpoint",),
    ),
    ("OrganizationAffiliation?participating-organization={department}", "affiliation", ()),
    ("OrganizationAffiliation?role=urn:codes|member", "affiliation", ()),
    ("Endpoint?organization=Organization/beicheng&status=active", "endpoint", ()),
    ("Endpoint?connection-type=dicom-qido-rs&_revinclude=Organization:endpoint",
     "endpoint", ("department",)),
]  # fmt: skip


@pytest.mark.parametrize(("query", "found", "along"), MCSD)
def test_iti_90_finds_care_services(
    hospital: Door, directory: dict[str, str], query: str, found: str, along: tuple[str, ...]
) -> None:
    consumer = hospital.clinician("nanhu")

    bundle = consumer.bundle(query.format(**directory), Prefer="handling=strict")

    assert directory[found] in [name(one) for one in entries(bundle)]
    included = [name(one) for one in entries(bundle, "include")]
    assert {directory[one] for one in along} <= set(included)
    assert (
        name(entries(bundle)[0]) == name({"resource": consumer.read(directory[found])})
        or along == ()
    )


def test_iti_91_tells_what_changed_in_the_directory(
    hospital: Door, directory: dict[str, str]
) -> None:
    consumer = hospital.clinician("nanhu")
    system = hospital.system("beicheng")
    room = system.read(directory["room"])
    since = room["meta"]["lastUpdated"].replace("+", "%2B")
    assert system.send("PUT", directory["room"], room | {"name": "CT1室"}).status_code == 200

    history = consumer.bundle(f"Location/_history?_since={since}", "history")

    told = [one["resource"]["name"] for one in history["entry"]]
    assert told[0] == "CT1室"


def test_what_is_not_served_is_said(hospital: Door) -> None:
    hospital.clinician("nanhu").refused("InsurancePlan", 404, "not-supported")


def test_iti_65_keeps_a_document_once_however_often_it_is_sent(hospital: Door) -> None:
    """A source that had no answer sends again: the uniqueId says that it is the same."""
    source, consumer = hospital.system("beicheng"), hospital.clinician("nanhu")
    doctor = source.made({"resourceType": "Practitioner", "name": [{"family": "吴"}]})
    author, number = f"Practitioner/{doctor['id']}", f"2.25.{uuid4().int}"

    def provide(content: bytes, **other: Any) -> httpx2.Response:
        entries = provided(content, "application/pdf", author, number)
        for one in entries:
            if one["resource"]["resourceType"] == "List":
                one["resource"] |= other
        return sent(source, "transaction", *entries)

    first, again = answered(provide(PDF)), answered(provide(PDF))

    assert [one["response"]["status"][:3] for one in first] == ["201"] * 3
    assert [one["response"]["status"][:3] for one in again] == ["200"] * 3
    assert [one["response"]["location"] for one in again] == [
        one["response"]["location"] for one in first
    ]
    refused = provide(PDF + b"another")
    assert outcome(refused, 409, "duplicate")
    assert refused.json()["issue"][0]["expression"] == ["Bundle.entry[1].resource"]
    another = {"identifier": [{"use": "usual", "value": f"urn:oid:{number}.9"}]}
    more = answered(provide(PDF, **another))
    assert [one["response"]["status"][:3] for one in more] == ["201", "200", "200"]
    found = consumer.ids(f"DocumentReference?identifier=urn:oid:{number}.1")
    assert len(found) == 1
    binary = first[2]["response"]["location"].partition("/fhir/")[2].partition("/_history")[0]
    assert consumer.get(binary).content == PDF
    # Of one message too.
    twice = provided(PDF, "application/pdf", author, f"{number}.7")
    more_of_it = provided(PDF, "application/pdf", author, f"{number}.7")[1:]
    assert outcome(sent(source, "transaction", *twice, *more_of_it), 400, "invalid")


def test_iti_65_refuses_another_submission_under_a_number_that_is_taken(hospital: Door) -> None:
    source = hospital.system("beicheng")
    doctor = source.made({"resourceType": "Practitioner", "name": [{"family": "吴"}]})
    author, number = f"Practitioner/{doctor['id']}", f"2.25.{uuid4().int}"
    entries = provided(PDF, "application/pdf", author, number)
    answered(sent(source, "transaction", *entries))

    entries[1]["resource"]["masterIdentifier"]["value"] = f"urn:oid:{number}.2"

    refused = sent(source, "transaction", *entries)
    assert outcome(refused, 409, "duplicate")
    assert refused.json()["issue"][0]["expression"] == ["Bundle.entry[0].resource"]
    assert source.ids(f"DocumentReference?identifier=urn:oid:{number}.2") == []

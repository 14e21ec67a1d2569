"""Writing, reading and looking back, as a hospital's system and its neighbours meet it."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import orjson
import pytest
from fhir_door import Asker, Door, is_fhir, link, outcome

from exchange_fhir import xml_format

WEIGHT: dict[str, Any] = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
    "subject": {"reference": "Patient/1"},
    "effectiveDateTime": "2026-11-26",
    "valueQuantity": {"value": 72.5, "unit": "kg"},
}
WARD: dict[str, Any] = {"resourceType": "Location", "name": "放射科", "status": "active"}


def changed(resource: dict[str, Any], **elements: Any) -> dict[str, Any]:
    return {**resource, **elements}


def latest(system: Asker) -> list[Any]:
    """The newest versions of anything."""
    found: list[Any] = system.bundle("_history?_count=3", mode_of="history").get("entry", [])
    return found


def kilograms(resource: dict[str, Any]) -> float:
    return float(resource["valueQuantity"]["value"])


def test_what_is_created_is_read_as_it_was_sent_by_who_may_see_the_patient(
    hospital: Door,
) -> None:
    system = hospital.system("beicheng")

    response = system.send("POST", "Observation", changed(WEIGHT, id="mine"))

    assert response.status_code == 201, response.text
    made = response.json()
    is_fhir(made)
    named = f"Observation/{made['id']}"
    assert made["id"] != "mine"
    assert made["meta"]["versionId"] == "1"
    assert response.headers["location"].endswith(f"/fhir/{named}/_history/1")
    assert response.headers["etag"] == 'W/"1"'
    assert "GMT" in response.headers["last-modified"]
    assert {name: made[name] for name in WEIGHT} == WEIGHT
    assert system.read(named) == made
    assert hospital.clinician("nanhu").read(named) == made
    for path in ("Observation/1", f"Location/{made['id']}", f"{named}/_history/2"):
        system.refused(path, 404, "not-found")


def test_an_update_makes_a_version_and_the_versions_stay(hospital: Door) -> None:
    system = hospital.system("beicheng")
    made = system.made(WEIGHT)
    named = f"Observation/{made['id']}"

    response = system.send("PUT", named, changed(made, status="amended"), If_Match='W/"1"')

    assert response.status_code == 200, response.text
    assert response.headers["etag"] == 'W/"2"'
    assert system.read(f"{named}/_history/1") == made
    assert system.read(named)["status"] == "amended"
    stale = system.send("PUT", named, changed(made, status="final"), If_Match='W/"1"')
    assert outcome(stale, 412, "conflict")
    assert system.send("DELETE", named, If_Match='W/"1"').status_code == 412
    other = system.send("PUT", named, changed(made, id="other"))
    assert other.status_code == 400
    assert other.json()["issue"][0]["expression"] == ["Observation.id"]


def test_a_client_may_choose_the_id_of_what_it_puts(hospital: Door) -> None:
    system = hospital.system("beicheng")
    ward = changed(WARD, id="ward-1")

    assert system.send("PUT", "Location/ward-1", ward).status_code == 201
    assert system.send("PUT", "Location/ward-1", ward).status_code == 200
    assert system.send("PUT", "Location/ward-1", ward, If_None_Match="*").status_code == 412
    refused = hospital.system("nanhu").send("PUT", "Location/ward-1", ward)
    assert outcome(refused, 403, "forbidden")
    assert hospital.clinician("nanhu").read("Location/ward-1")["name"] == "放射科"
    assert system.send("PUT", "Location/a_b", changed(ward, id="a_b")).status_code in {400, 404}


def test_what_is_deleted_is_gone_but_its_versions_are_not(hospital: Door) -> None:
    system = hospital.system("beicheng")
    named = f"Observation/{system.made(WEIGHT)['id']}"

    gone = system.send("DELETE", named)

    assert (gone.status_code, gone.content) == (204, b"")
    system.refused(named, 410, "deleted")
    system.refused(f"{named}/_history/2", 410, "deleted")
    assert system.read(f"{named}/_history/1")["status"] == "final"
    assert system.send("DELETE", named).status_code == 204
    assert system.send("DELETE", "Observation/never").status_code == 204
    told = system.send("DELETE", named, Prefer="return=OperationOutcome")
    assert (told.status_code, told.json()["resourceType"]) == (200, "OperationOutcome")
    back = system.send("PUT", named, changed(WEIGHT, id=named.partition("/")[2]))
    assert back.status_code == 201
    assert back.headers["etag"] == 'W/"3"'


@pytest.mark.parametrize(
    ("prefer", "kind"),
    [
        *(("return=minimal", ""), ("return=OperationOutcome", "OperationOutcome")),
        *(("return=representation", "Location"), ("handling=strict", "Location")),
    ],
)
def test_the_client_says_what_an_answer_holds(hospital: Door, prefer: str, kind: str) -> None:
    response = hospital.system("beicheng").send("POST", "Location", WARD, Prefer=prefer)

    assert response.status_code == 201
    assert "/Location/" in response.headers["location"]
    assert (response.json()["resourceType"] if response.content else "") == kind


def test_who_has_a_version_is_not_sent_it_again(hospital: Door) -> None:
    system = hospital.system("beicheng")
    named = f"Observation/{system.made(WEIGHT)['id']}"
    first = system.get(named)

    assert system.get(named, If_None_Match=first.headers["etag"]).status_code == 304
    assert system.get(named, If_None_Match='W/"7", W/"1"').status_code == 304
    assert system.get(named, If_None_Match='W/"7"').status_code == 200
    since = first.headers["last-modified"]
    assert system.get(named, If_Modified_Since=since).status_code == 304
    earlier = "Thu, 01 Jan 2026 00:00:00 GMT"
    assert system.get(named, If_Modified_Since=earlier).status_code == 200
    assert system.get(named, If_Modified_Since="whenever").status_code == 200


def test_a_patch_by_either_language_makes_the_same_change(hospital: Door) -> None:
    system = hospital.system("beicheng")
    named = f"Observation/{system.made(WEIGHT)['id']}"
    patch = b'[{"op": "replace", "path": "/valueQuantity/value", "value": 73.10}]'
    parts = [
        {"name": "type", "valueCode": "replace"},
        {"name": "path", "valueString": "Observation.value.value"},
        {"name": "value", "valueDecimal": 74.5},
    ]
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}

    by_json = system.client.patch(
        f"/fhir/{named}",
        content=patch,
        headers={"Content-Type": "application/json-patch+json"} | system.headers,
    )
    by_path = system.send("PATCH", named, parameters, If_Match='W/"2"')

    assert by_json.status_code == 200, by_json.text
    assert b'"value":73.10' in by_json.content
    assert by_path.status_code == 200, by_path.text
    assert kilograms(system.read(named)) == 74.5
    assert by_path.headers["etag"] == 'W/"3"'
    stale = system.send("PATCH", named, parameters, If_Match='W/"2"')
    assert outcome(stale, 412, "conflict")


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ({"op": "test", "path": "/status", "value": "amended"}, 422),
        ({"op": "remove", "path": "/status"}, 400),
        ({"op": "replace", "path": "/id", "value": "other"}, 422),
        ({"op": "replace", "path": "/subject/reference", "value": "Patient/2"}, 403),
        ({"op": "replace", "path": "/subject/reference", "value": "Patient/99"}, 422),
    ],
)
def test_a_patch_that_may_not_be_changes_nothing(
    hospital: Door, operation: dict[str, str], status: int
) -> None:
    system = hospital.system("beicheng")
    made = system.made(WEIGHT)
    named = f"Observation/{made['id']}"

    refused = system.client.patch(
        f"/fhir/{named}",
        content=orjson.dumps([operation]),
        headers={"Content-Type": "application/json-patch+json"} | system.headers,
    )

    assert refused.status_code == status, refused.text
    is_fhir(refused.json())
    assert system.read(named) == made


def test_history_is_told_of_a_resource_a_kind_and_all(hospital: Door) -> None:
    system = hospital.system("beicheng")
    made = system.made(WEIGHT)
    named = f"Observation/{made['id']}"
    ward = system.made(WARD)
    system.send("PUT", named, changed(made, status="amended"))
    system.send("DELETE", named)

    of_one = system.bundle(f"{named}/_history", mode_of="history")
    of_kind = system.bundle("Observation/_history?_count=3", mode_of="history")
    of_all = system.bundle("_history?_count=4", mode_of="history")

    methods = [one["request"]["method"] for one in of_one["entry"]]
    assert methods == ["DELETE", "PUT", "POST"]
    assert "resource" not in of_one["entry"][0]
    assert of_one["entry"][1]["resource"]["status"] == "amended"
    assert of_one["entry"][2]["response"]["etag"] == 'W/"1"'
    assert of_kind["entry"] == of_one["entry"]
    assert [one["fullUrl"].rpartition("/fhir/")[2] for one in of_all["entry"]] == [
        *(named, named, f"Location/{ward['id']}", named)
    ]
    system.refused("Observation/never/_history", 404, "not-found")
    system.refused("Observation/_history?_sort=a", 400, "not-supported")


def test_pages_of_history_do_not_shift_and_are_for_their_asker_only(hospital: Door) -> None:
    system = hospital.system("beicheng")
    made = system.made(WARD)
    named = f"Location/{made['id']}"
    for number in range(4):
        system.send("PUT", named, changed(made, name=f"{number}"))

    first = system.bundle(f"{named}/_history?_count=2", mode_of="history")
    system.send("PUT", named, changed(made, name="later"))
    following = link(first, "next")
    assert following is not None
    second = system.bundle(following, mode_of="history")

    versions = [one["response"]["etag"] for page in (first, second) for one in page["entry"]]
    assert versions == ['W/"5"', 'W/"4"', 'W/"3"', 'W/"2"']
    hospital.clinician("nanhu").refused(following, 403, "forbidden")
    system.refused(following.replace(named, "Location"), 400, "invalid")


def test_history_begins_at_a_moment_or_tells_what_was_current_then(hospital: Door) -> None:
    system = hospital.system("beicheng")
    made = system.made(WARD)
    named = f"Location/{made['id']}"
    system.send("PUT", named, changed(made, name="two"))
    moment = system.read(named)["meta"]["lastUpdated"].replace("+", "%2B")
    system.send("PUT", named, changed(made, name="three"))

    def versions(query: str) -> list[str]:
        bundle = system.bundle(f"{named}/_history?{query}", mode_of="history")
        return [one["response"]["etag"] for one in bundle.get("entry", [])]

    assert versions(f"_since={moment}") == ['W/"3"', 'W/"2"']

    def current(path: str) -> list[str]:
        bundle = system.bundle(f"{path}/_history?_at={moment}&_count=200".lstrip("/"), "history")
        told = (one["resource"] for one in bundle["entry"] if "resource" in one)
        return [one["meta"]["versionId"] for one in told if one["id"] == made["id"]]

    assert versions(f"_at={moment}") == ['W/"2"']
    assert current("Location") == current("") == ["2"]
    assert versions("_at=2020") == []
    assert versions("_since=2999-01-01T00:00:00Z") == []
    system.refused(f"{named}/_history?_since=soon", 400, "invalid")


def test_the_history_of_a_kind_shows_only_what_may_be_seen(hospital: Door) -> None:
    made = hospital.system("beicheng").made(WEIGHT)
    own = {"resourceType": "List", "status": "current", "mode": "working"}
    hospital.system("beicheng").made(own)

    asked = f"_history?_since={made['meta']['lastUpdated']}"
    seen = hospital.clinician("nanhu").bundle(asked, mode_of="history")
    administrator = hospital.administrator().get("_history")

    assert [one["resource"]["id"] for one in seen["entry"]] == [made["id"]]
    assert administrator.status_code == 403


def test_xml_is_taken_and_given(hospital: Door) -> None:
    system = hospital.system("beicheng")
    document = xml_format.serialize(changed(WEIGHT, valueQuantity={"value": 1}))

    made = system.client.post(
        "/fhir/Observation",
        content=document,
        headers={"Content-Type": "application/fhir+xml"} | system.headers,
    )

    assert made.status_code == 201, made.text
    assert made.headers["content-type"] == "application/fhir+xml; charset=utf-8"
    resource = xml_format.parse(made.content)
    named = f"Observation/{resource['id']}"
    assert system.read(named)["valueQuantity"] == {"value": 1}
    for asked in (f"{named}?_format=xml", f"{named}?_format=application/fhir%2Bxml"):
        assert xml_format.parse(system.get(asked).content) == resource
    assert xml_format.parse(system.get(named, Accept="text/xml;q=0.9").content) == resource
    page = xml_format.parse(system.get("Patient?_format=xml").content)
    assert (page["type"], page["total"]) == ("searchset", 2)
    assert b"<CapabilityStatement" in system.get("metadata?_format=xml").content
    error = system.get("Observation/never?_format=xml")
    assert error.status_code == 404
    told = xml_format.parse(error.content)
    assert told["issue"][0]["code"] == "not-found"


def test_an_answer_is_pretty_or_compressed_or_a_part_if_asked(hospital: Door) -> None:
    system = hospital.system("beicheng")
    made = system.made(changed(WEIGHT, note=[{"text": "很长" * 2000}]))
    named = f"Observation/{made['id']}"

    assert b'\n  "status": "final"' in system.get(f"{named}?_pretty=true").content
    packed = system.get(named, Accept_Encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == made
    assert "content-encoding" not in system.get(named, Accept_Encoding="gzip;q=0").headers
    summary = system.read(f"{named}?_summary=true")
    assert "note" not in summary
    assert summary["meta"]["tag"][0]["code"] == "SUBSETTED"
    assert set(system.read(f"{named}?_elements=note")) == {
        *("resourceType", "id", "meta", "status", "code", "note")
    }
    refused = system.send("PUT", named, summary)
    assert outcome(refused, 422, "business-rule")
    system.refused(f"{named}?_summary=short", 400, "invalid")


def test_a_body_may_come_as_gzip_but_not_as_a_bomb(hospital: Door) -> None:
    system = hospital.system("beicheng")
    told = {"Content-Type": "application/fhir+json", "Content-Encoding": "gzip"} | system.headers

    def posted(content: bytes) -> int:
        return system.client.post("/fhir/Location", content=content, headers=told).status_code

    assert posted(gzip.compress(orjson.dumps(WARD))) == 201
    assert posted(orjson.dumps(WARD)) == 400
    assert posted(gzip.compress(orjson.dumps(WARD))[:-4]) == 400
    assert posted(gzip.compress(b" " * (64 << 20))) == 413


@pytest.mark.parametrize(
    ("content", "media_type", "status", "code"),
    [
        (b"", "application/fhir+json", 400, "structure"),
        (b"{", "application/fhir+json", 400, "structure"),
        (b'{"resourceType":"Patient"}', "application/fhir+json", 400, "structure"),
        (b'{"resourceType":"Location","x":1}', "application/fhir+json", 400, "structure"),
        (b'{"resourceType":"Location","status":"x"}', "application/fhir+json", 422, "code-invalid"),
        (orjson.dumps(WARD), "text/plain", 415, "not-supported"),
        (orjson.dumps(WARD), "application/fhir+json; fhirVersion=3.0", 415, "not-supported"),
        (orjson.dumps(WARD), "application/fhir+json; charset=gbk", 415, "not-supported"),
        (b" " * ((16 << 20) + 1), "application/fhir+json", 413, "too-long"),
    ],
)
def test_what_cannot_be_taken_is_told_and_not_kept(
    hospital: Door, content: bytes, media_type: str, status: int, code: str
) -> None:
    system = hospital.system("beicheng")
    before = latest(system)

    assert outcome(system.post("Location", content, media_type), status, code)
    assert latest(system) == before


@pytest.mark.parametrize("named", ["Patient/99", "Patient/W1", "Patient/99/_history/1"])
def test_a_patient_who_is_not_known_is_told_with_the_reference(hospital: Door, named: str) -> None:
    system = hospital.system("beicheng")
    told = WEIGHT | {"performer": [{"reference": named}, {"reference": "Patient/1"}]}
    stranger = WEIGHT | {"subject": {"reference": named}}
    batch = {"resourceType": "Bundle", "type": "batch", "entry": [
        {"resource": stranger, "request": {"method": "POST", "url": "Observation"}}]}  # fmt: skip

    one = system.send("POST", "Observation", stranger)
    assert outcome(one, 422, "not-found")
    assert one.json()["issue"][0]["expression"] == ["Observation.subject"]
    another = system.send("PUT", "Observation/w", told | {"id": "w"})
    assert outcome(another, 422, "not-found")
    assert another.json()["issue"][0]["expression"] == ["Observation.performer[0]"]
    (entry,) = system.send("POST", "", batch).json()["entry"]
    assert entry["response"]["outcome"] == one.json()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "ImagingStudy", 405, "not-supported"),
        ("PUT", "AuditEvent/1", 405, "not-supported"),
        ("DELETE", "Person/1", 405, "not-supported"),
        ("POST", "Medication", 404, "not-supported"),
        ("POST", "Observation/1", 405, "not-supported"),
        ("PUT", "Observation", 405, "not-supported"),
        ("DELETE", "Observation", 405, "not-supported"),
        ("PUT", "metadata", 404, "not-supported"),
        ("GET", "Nothing/1", 404, "not-supported"),
        ("GET", "Nothing/_history", 404, "not-supported"),
        ("GET", "Observation/a_b", 404, "not-found"),
        ("GET", "Observation/1/_history/x", 404, "not-found"),
        ("GET", "Observation/1/_history/99999999999999999999", 404, "not-found"),
        ("GET", "Observation/1/2/3/4", 404, "not-supported"),
    ],
)
def test_what_is_not_done_here_is_told(
    hospital: Door, method: str, path: str, status: int, code: str
) -> None:
    resource = WEIGHT if method in {"POST", "PUT"} else None

    assert outcome(hospital.system("beicheng").send(method, path, resource), status, code)


def test_who_may_not_write_is_told_why_and_nothing_is_kept(hospital: Door) -> None:
    before = latest(hospital.system("beicheng"))
    foreign = hospital.system("nanhu").send("POST", "Observation", WEIGHT)
    unknown = hospital.system("beicheng").send(
        "POST", "Observation", changed(WEIGHT, subject={"reference": "Patient/77"})
    )
    administrator = hospital.administrator().send("POST", "Observation", WEIGHT)
    nobody = hospital.asker(None).send("POST", "Observation", WEIGHT)

    assert outcome(foreign, 403, "forbidden")
    assert unknown.status_code in {400, 422}
    assert outcome(administrator, 403, "forbidden")
    assert outcome(nobody, 401, "login")
    assert latest(hospital.system("beicheng")) == before


def test_content_is_kept_as_a_binary_and_fetched_in_its_own_type(hospital: Door) -> None:
    system = hospital.system("beicheng")
    pdf = b"%PDF-1.7 \x00\xff"

    made = system.client.post(
        "/fhir/Binary",
        content=pdf,
        headers={"Content-Type": "application/pdf", "X-Security-Context": "Patient/1"}
        | system.headers,
    )

    assert made.status_code == 201, made.text
    named = f"Binary/{made.json()['id']}"
    fetched = hospital.clinician("nanhu").get(named, Accept="application/pdf")
    assert fetched.content == pdf
    assert fetched.headers["content-type"] == "application/pdf"
    assert fetched.headers["content-disposition"] == "attachment"
    assert "sandbox" in fetched.headers["content-security-policy"]
    assert system.get(named).content == pdf
    as_fhir = system.get(named, Accept="application/fhir+json").json()
    assert as_fhir["securityContext"] == {"reference": "Patient/1"}
    is_fhir(as_fhir)
    ours = system.client.post(
        "/fhir/Binary",
        content=pdf,
        headers={"Content-Type": "application/pdf"} | system.headers,
    )
    hospital.clinician("nanhu").refused(f"Binary/{ours.json()['id']}", 404, "not-found")


def test_who_patch_one_record_are_all_answered_though_more_than_there_are_connections(
    door: Door,
) -> None:
    door.city.send("beicheng", patient="W1")
    system = door.system("beicheng")
    many = 40
    weight = {name: value for name, value in WEIGHT.items() if name != "valueQuantity"}
    told = weight | {"id": "o1", "valueString": "0", "subject": {"reference": "Patient/1"}}
    assert system.send("PUT", "Observation/o1", told).status_code == 201
    together = Barrier(many)

    def patch(number: int) -> int:
        together.wait()
        change = [{"op": "replace", "path": "/valueString", "value": str(number)}]
        sent = orjson.dumps(change)
        headers = system.headers | {"Content-Type": "application/json-patch+json"}
        answer = system.client.patch("/fhir/Observation/o1", content=sent, headers=headers)
        return answer.status_code

    with ThreadPoolExecutor(many) as pool:
        assert set(pool.map(patch, range(many))) == {200}
    assert system.read("Observation/o1")["meta"]["versionId"] == str(many + 1)

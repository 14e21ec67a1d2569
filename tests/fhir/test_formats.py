"""JSON and XML in and out: nothing is lost, and what is no resource is told exactly."""

from __future__ import annotations

import orjson
import pytest

from exchange_fhir import json_format, subset, validation, xml_format
from exchange_fhir.definitions import elements
from exchange_fhir.outcome import Problem
from exchange_fhir.subset import Summary, Wanted

OBSERVATION = b"""{
  "resourceType": "Observation", "id": "ldl",
  "text": {"status": "generated",
           "div": "<div xmlns=\\"http://www.w3.org/1999/xhtml\\"><p>LDL &amp; more</p></div>"},
  "contained": [{"resourceType": "Practitioner", "id": "p", "name": [{"family": "\xe7\x8e\x8b"}]}],
  "extension": [{"url": "http://example.org/weight", "valueDecimal": 1.00}],
  "status": "final", "_status": {"id": "s1"},
  "code": {"coding": [{"system": "http://loinc.org", "code": "13457-7"}], "text": "LDL"},
  "performer": [{"reference": "#p"}],
  "effectiveDateTime": "2026-11-26T08:30:00+08:00",
  "valueQuantity": {"value": 3.10, "unit": "mmol/L"},
  "referenceRange": [{"high": {"value": 3.4E+0}, "appliesTo": [{"text": "a"}, {"text": "b"}]}]
}"""


def errors(content: bytes) -> list[tuple[str, str]]:
    """Code and place of everything that is wrong."""
    return [(one.code, one.expression) for one in validation.issues(json_format.parse(content))]


def test_a_decimal_stays_as_it_was_written() -> None:
    sent = b'{"resourceType":"Basic","a":1.00,"b":1e2,"c":-0.0,"d":100,"e":0.000000001'
    sent += b',"f":18446744073709551615,"g":-9223372036854775809,"h":1%b}' % (b"0" * 40)

    assert json_format.serialize(json_format.parse(sent)) == sent


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"[]",
        b'"Patient"',
        b'{"resourceType":"Patient"',
        b'{"resourceType":"Patient","resourceType":"Patient"}',
        b'{"a":1e400000000}',
        b'{"a":1e401}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"\xff"}',
        b'{"a":"\x00"}',
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"[" * 1_000_000,
    ],
)
def test_what_is_not_json_of_one_meaning_is_refused_at_once(sent: bytes) -> None:
    with pytest.raises(Problem) as refused:
        json_format.parse(sent)

    assert refused.value.answer.http == 400
    assert refused.value.answer.code == "structure"


def test_a_resource_is_the_same_by_way_of_xml() -> None:
    told = json_format.parse(OBSERVATION)
    document = xml_format.serialize(told)

    assert validation.issues(told) == []
    assert xml_format.parse(document) == told
    assert b'<value value="3.10"/>' in document
    assert '<family value="王"/>'.encode() in document
    assert document.index(b"<effectiveDateTime") < document.index(b"<performer")  # R4's order


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"<Patient/>",
        b'<Patient xmlns="http://hl7.org/fhir"><nmae/></Patient>',
        b'<Patient xmlns="http://hl7.org/fhir" id="1"/>',
        b'<Patient xmlns="http://hl7.org/fhir"><active value="1"/><active value="1"/></Patient>',
        b'<Patient xmlns="http://hl7.org/fhir"><active value="true" x="1"/></Patient>',
        b'<Patient xmlns="http://hl7.org/fhir">text</Patient>',
        b'<!DOCTYPE p [<!ENTITY a "b">]><Patient xmlns="http://hl7.org/fhir"/>',
        b'<!DOCTYPE p SYSTEM "file:///etc/passwd"><Patient xmlns="http://hl7.org/fhir"/>',
        b'<Patient xmlns="http://hl7.org/fhir">' + b'<extension url="a">' * 300,
        b'<Bundle xmlns="http://hl7.org/fhir"><entry><resource/></entry></Bundle>',
    ],
)
def test_xml_that_is_no_resource_is_refused(sent: bytes) -> None:
    with pytest.raises(Problem) as refused:
        xml_format.parse(sent)

    assert refused.value.answer.http == 400


def test_xml_with_values_of_the_wrong_type_is_told_like_json() -> None:
    told = xml_format.parse(
        b'<Patient xmlns="http://hl7.org/fhir"><active value="yes"/><birthDate value="soon"/>'
        b'<multipleBirthInteger value="1.5"/></Patient>'
    )

    assert [(one.code, one.expression) for one in validation.issues(told)] == [
        ("structure", "Patient.active"),
        ("value", "Patient.birthDate"),
        ("structure", "Patient.multipleBirth"),
    ]


def test_every_error_is_told_with_its_place() -> None:
    assert errors(
        b"""{
          "resourceType": "Patient", "colour": "green",
          "name": [{"family": "Li", "given": ["Na", null]}, {"given": "Na"}],
          "gender": "F", "birthDate": "2026-02-30", "contact": [], "active": "true",
          "deceasedBoolean": true, "deceasedDateTime": "2026",
          "communication": [{"preferred": true}],
          "managingOrganization": {"reference": "Practitioner/1"},
          "generalPractitioner": [{"reference": "somebody"}],
          "link": [{"other": {"reference": "#nobody"}, "type": "seealso"}]
        }"""
    ) == [
        ("structure", "Patient.colour"),
        ("structure", "Patient.name[0].given[1]"),
        ("structure", "Patient.name[1].given"),
        ("code-invalid", "Patient.gender"),
        ("value", "Patient.birthDate"),
        ("structure", "Patient.contact"),
        ("structure", "Patient.active"),
        ("structure", "Patient.deceased"),
        ("required", "Patient.communication[0].language"),
        ("invalid", "Patient.managingOrganization"),
        ("value", "Patient.generalPractitioner[0].reference"),
        ("invariant", "Patient.link[0].other.reference"),
    ]


@pytest.mark.parametrize(
    ("element", "wrong"),
    [
        ('"birthDate": "2026-13"', "value"),
        ('"birthDate": "26"', "value"),
        ('"birthDate": 2026', "structure"),
        ('"deceasedDateTime": "2026-11-26T08:30:00"', "value"),
        ('"deceasedDateTime": "2026-11-26T25:30:00Z"', "value"),
        ('"multipleBirthInteger": 2147483648', "value"),
        ('"multipleBirthInteger": 1.0', "structure"),
        ('"multipleBirthInteger": true', "structure"),
        ('"language": " zh"', "value"),
        ('"id": "a b"', "value"),
        ('"id": "' + "a" * 65 + '"', "value"),
        ('"implicitRules": "a b"', "value"),
        ('"photo": [{"contentType": "image/png", "data": "abc"}]', "value"),
        ('"address": [{"text": ""}]', "value"),
        ('"address": [{"text": "a\\u0000b"}]', "value"),
        ('"address": [{"text": "\\ud800"}]', "value"),
        ('"address": [{}]', "structure"),
        ('"address": [null]', "structure"),
        ('"maritalStatus": [{"text": "a"}]', "structure"),
        ('"extension": [{"url": "http://a"}]', "invariant"),
        ('"extension": [{"valueString": "a"}]', "required"),
        ('"contained": [{"resourceType": "Nothing"}]', "structure"),
        ('"contained": [{"resourceType": "Basic", "id": "a"}]', "required"),
    ],
)
def test_a_value_that_is_not_of_its_type_is_told(element: str, wrong: str) -> None:
    found = errors(f'{{"resourceType": "Patient", {element}}}'.encode())

    assert [code for code, _ in found] == [wrong]


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<p onclick="alert(1)">a</p>',
        '<a href="javascript:alert(1)">a</a>',
        '<a href=" java&#10;script:alert(1)">a</a>',
        '<iframe src="http://a"/>',
        "<p>not closed",
        "&nbsp;",
        " ",
    ],
)
def test_a_narrative_has_no_script_and_is_well_formed(inside: str) -> None:
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{inside}</div>'
    told = {"resourceType": "Patient", "text": {"status": "generated", "div": div}}

    assert errors(orjson.dumps(told)) == [("invalid", "Patient.text.div")]


def test_of_very_many_errors_the_first_are_told() -> None:
    told = {"resourceType": "Patient"} | {f"x{number}": 1 for number in range(1000)}

    found = errors(orjson.dumps(told))

    assert len(found) == validation.ISSUES + 1
    assert found[-1] == ("too-costly", "")


def test_a_summary_has_what_the_standard_marks_and_says_so() -> None:
    told = json_format.parse(OBSERVATION)

    summary = subset.part(told, Wanted(Summary.TRUE))

    assert summary.keys() == {
        *("resourceType", "id", "meta", "status", "_status", "code", "performer"),
        *("effectiveDateTime", "valueQuantity"),
    }
    assert summary["meta"]["tag"] == [subset.SUBSETTED]
    assert subset.is_part(summary)
    assert validation.issues(summary | {"performer": []})[0].expression == "Observation.performer"


def test_parts_keep_what_is_mandatory() -> None:
    told = json_format.parse(OBSERVATION)

    def part(wanted: Wanted) -> set[str]:
        return set(subset.part(told, wanted)) - {"resourceType", "id", "meta", "_status"}

    assert part(Wanted(Summary.TEXT)) == {"text", "status", "code"}
    assert "text" not in part(Wanted(Summary.DATA))
    assert part(Wanted(elements=frozenset({"performer"}))) == {"status", "code", "performer"}
    assert part(Wanted(elements=frozenset({"Observation.value", "Patient.name"}))) == {
        *("status", "code", "valueQuantity"),
    }
    for named in ("valueQuantity", "value.unit", "Observation.valueQuantity.code"):
        assert part(Wanted(elements=frozenset({named}))) == {"status", "code", "valueQuantity"}
    assert subset.part(told, Wanted()) is told


def test_every_element_of_r4_has_a_type_that_is_known() -> None:
    for kind in elements.resources():
        for found in elements.structure(kind).properties.values():
            if not found.is_primitive and found.type != "Resource":
                assert elements.structure(found.type).elements
            if url := found.element.value_set:
                assert elements.codes(url)

"""Under what a resource is found is what the standard's own expressions select from it."""

from __future__ import annotations

import math
import re
from datetime import datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fhirpathpy import compile as fhirpath
from fhirpathpy.models import models
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange_fhir import indexing, moments
from exchange_fhir.definitions import search_parameters
from exchange_fhir.definitions.search_parameters import Path, SearchParameter
from exchange_fhir.elements import Found, reader
from exchange_storage.resource_index import Date, Quantity, Reference, String, Token, Uri, Value

SHANGHAI = ZoneInfo("Asia/Shanghai")
BASE = "https://exchange.example/fhir"

words = st.sampled_from(["Main St.", "王小东", "final", "Ünterweg 3", "a"])
codes = st.sampled_from(["final", "male", "29463-7"])
systems = st.sampled_from(["http://loinc.org", "urn:oid:1.2.3"])
moments_written = st.sampled_from(
    ["1999", "2020-02", "2024-02-29", "2024-03-01T10:00:00+08:00", "2024-03-01T10:00:00.125Z"]
)
codings = st.fixed_dictionaries({"code": codes}, optional={"system": systems, "display": words})
quantities = st.fixed_dictionaries(
    {"value": st.sampled_from([5.4, 70, -1])},
    optional={"unit": words, "code": codes, "comparator": st.sampled_from(["<", ">="])},
)
periods = st.fixed_dictionaries({}, optional={"start": moments_written, "end": moments_written})
identifiers = st.fixed_dictionaries(
    {"value": codes},
    optional={"system": systems, "type": st.fixed_dictionaries({"coding": st.lists(codings)})},
)
references = st.fixed_dictionaries(
    {"reference": st.sampled_from(["Patient/1", f"{BASE}/Practitioner/2", "Group/3/_history/1"])},
    optional={"identifier": identifiers},
)
DATATYPES: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("code", "id"), codes),
    **dict.fromkeys(("string", "markdown"), words),
    **dict.fromkeys(("uri", "url"), systems),
    "canonical": st.sampled_from(["http://a.example/q|2", "http://a.example/q"]),
    "boolean": st.booleans(),
    "Coding": codings,
    "CodeableConcept": st.fixed_dictionaries(
        {}, optional={"coding": st.lists(codings, min_size=1, max_size=2), "text": words}
    ),
    "Identifier": identifiers,
    "ContactPoint": st.fixed_dictionaries(
        {"value": codes, "system": st.sampled_from(["phone", "email"])}
    ),
    "Reference": references,
    **dict.fromkeys(("date", "dateTime", "instant"), moments_written),
    "Period": periods,
    "Timing": st.fixed_dictionaries({"event": st.lists(moments_written)}),
    **dict.fromkeys(("Quantity", "Age", "Duration"), quantities),
    "Range": st.fixed_dictionaries({}, optional={"low": quantities, "high": quantities}),
    "HumanName": st.fixed_dictionaries(
        {}, optional={"family": words, "given": st.lists(words, max_size=2), "text": words}
    ),
    "Address": st.fixed_dictionaries({}, optional={"line": st.lists(words), "city": words}),
}


@st.composite
def resources(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """A resource with something at the ends of some of its parameters' paths."""
    resource: dict[str, Any] = {"resourceType": kind}
    parameters = [one for one in search_parameters.of(kind).values() if one.paths]
    paths = [path for one in parameters for path in one.paths if path.properties]
    for path in draw(st.lists(st.sampled_from(paths), min_size=4, max_size=12)):
        found = draw(st.lists(DATATYPES[path.datatype], min_size=1))
        suffix = path.datatype[0].upper() + path.datatype[1:]
        _put(resource, path.properties, found, path.properties[-1].removesuffix(suffix))
    return resource


def _put(element: dict[str, Any], path: tuple[str, ...], found: list[Any], stem: str) -> None:
    """`found` at a path, unless something is there: of ``value[x]`` there is only one."""
    for one in path[:-1]:
        held = element.setdefault(one, {})
        held = held[0] if isinstance(held, list) and held else held
        if not isinstance(held, dict):  # a text, where another parameter means a part of it
            return
        element = held
    if path[-1] == stem or not any(re.match(f"{stem}[A-Z]", one) for one in element):
        element.setdefault(path[-1], found if len(found) > 1 else found[0])


@cache
def _compiled(expression: str) -> Any:
    # fhirpathpy cannot follow references: what they lead to is written in them.
    expression = re.sub(r"resolve\(\) is (\w+)", r"reference.matches('(^|/)\1/')", expression)
    expression = re.sub(r"([\w.]+)( as |\.as\()(\w+)", r"\1.ofType(\3", expression)
    expression = re.sub(r"\(([\w.]+\.ofType\(\w+)\)", r"\1)", expression)
    return fhirpath(expression, models["r4"])


def _selected(one: SearchParameter, resource: dict[str, Any]) -> list[Any]:
    found: list[Any] = _compiled(one.expression.replace("Resource.", ""))(resource)
    return found


def _read(one: SearchParameter, elements: list[Any], path: Path) -> list[Value]:
    found = Found(SHANGHAI, f"{BASE}/")
    for element in elements:
        reader(one.type, Path(path.properties, path.datatype, path.system))(
            element, one.name, found
        )
    return found.values


@pytest.mark.parametrize("kind", search_parameters.kinds())
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_a_resource_is_found_by_what_the_expressions_of_the_standard_select(
    kind: str, data: st.DataObject
) -> None:
    resource = data.draw(resources(kind))
    found = indexing.values(resource, SHANGHAI, BASE)
    for one in search_parameters.of(kind).values():
        datatypes = {path.datatype for path in one.paths}
        # To fhirpathpy a Quantity is a literal, of which only UCUM is left.
        if not one.is_kept or len(datatypes) != 1 or datatypes & {"deceased", "Quantity"}:
            continue
        if not any(path.properties[0] in resource for path in one.paths):
            continue
        expected = _read(one, _selected(one, resource), one.paths[0])
        prefixes = (one.name, f"{one.name}:")
        told = [
            v for v in found if v.parameter == prefixes[0] or v.parameter.startswith(prefixes[1])
        ]
        assert set(told) == set(expected)


def _of(resource: dict[str, Any], parameter: str) -> list[Value]:
    return [v for v in indexing.values(resource, SHANGHAI, BASE) if v.parameter == parameter]


def test_every_parameter_of_the_standard_says_how_it_is_found() -> None:
    unanswered = {"_id", "_lastUpdated", "_text", "_content", "_query", "near"}
    for kind in search_parameters.kinds():
        for code, one in search_parameters.of(kind).items():
            assert bool(one.kept_as) == (code not in unanswered), one
            for other, _ in one.kept_as:
                assert search_parameters.of(kind)[other].is_kept


def test_what_several_parameters_select_is_kept_once() -> None:
    observation = search_parameters.of("Observation")
    assert observation["patient"].kept_as == (("subject", "Patient"),)
    assert observation["combo-code"].kept_as == (("code", ""), ("component-code", ""))
    assert search_parameters.of("Patient")["phonetic"].kept_as == (("name", ""),)


def test_a_patient_is_found_by_hanzi_and_by_pinyin() -> None:
    told = {"resourceType": "Patient", "name": [{"family": "单", "given": ["晓东"]}]}
    names = {one.folded for one in _of(told, "Patient.name") if isinstance(one, String)}
    assert {"单", "晓东", "单晓东", "shan", "xiaodong", "shanxiaodong"} <= names
    assert [one.folded for one in _of(told, "Patient.family") if isinstance(one, String)] == [
        "单",
        "shan",
    ]
    assert String("Patient.given", "xiaodong", "") in _of(told, "Patient.given")


def test_the_components_of_a_composite_stay_together() -> None:
    told = {
        "resourceType": "Observation",
        "component": [
            {"code": {"coding": [{"code": "systolic"}]}, "valueQuantity": {"value": 120}},
            {"code": {"coding": [{"code": "diastolic"}]}, "valueQuantity": {"value": 80}},
            {"code": {"coding": [{"code": "unknown"}]}},
        ],
    }
    name = "Observation.component-code-value-quantity"
    assert _of(told, f"{name}$0") == [
        Token(f"{name}$0", "systolic", "", 1),
        Token(f"{name}$0", "diastolic", "", 2),
    ]
    assert _of(told, f"{name}$1") == [
        Quantity(f"{name}$1", 120, 120, position=1),
        Quantity(f"{name}$1", 80, 80, position=2),
    ]


def test_a_code_has_the_system_that_its_binding_says() -> None:
    told = {"resourceType": "Patient", "gender": "female", "active": True}
    system = "http://hl7.org/fhir/administrative-gender"
    assert _of(told, "Patient.gender") == [Token("Patient.gender", "female", system)]
    assert _of(told, "Patient.active") == [Token("Patient.active", "true")]
    assert _of(told, "Patient.deceased") == [Token("Patient.deceased", "false")]
    told["deceasedDateTime"] = "2020"
    assert _of(told, "Patient.deceased") == [Token("Patient.deceased", "true")]


@pytest.mark.parametrize(
    ("reference", "kind", "target"),
    [
        ("Patient/12", "Patient", "12"),
        ("Patient/12/_history/3", "Patient", "12"),
        (f"{BASE}/Patient/12", "Patient", "12"),
        ("https://elsewhere.example/Patient/12", "", "https://elsewhere.example/Patient/12"),
        ("urn:uuid:0c3151bd-1cbf-4d64", "", "urn:uuid:0c3151bd-1cbf-4d64"),
        ("#inside", "", ""),
    ],
)
def test_a_reference_leads_to_a_resource_here_or_to_an_address(
    reference: str, kind: str, target: str
) -> None:
    told = {"resourceType": "Observation", "subject": {"reference": reference}}
    assert _of(told, "Observation.subject") == [Reference("Observation.subject", kind, target)]


def test_the_compartment_is_of_the_patients_that_a_resource_is_about() -> None:
    told = {
        "resourceType": "Observation",
        "subject": {"reference": "Group/1"},
        "performer": [{"reference": f"{BASE}/Patient/7"}, {"reference": "Practitioner/8"}],
        "focus": [{"reference": "Patient/9"}],
    }
    assert indexing.patients(told, BASE) == ("7",)
    assert indexing.patients({"resourceType": "Organization"}) == ()


TO_PATIENTS = [
    one
    for kind in search_parameters.kinds()
    for one in search_parameters.of(kind).values()
    if one.type == "reference" and search_parameters.is_in_compartment(one)
]


@pytest.mark.parametrize("parameter", TO_PATIENTS, ids=lambda one: one.name)
def test_every_patient_whom_a_parameter_of_the_compartment_leads_to_is_one_it_is_about(
    parameter: SearchParameter,
) -> None:
    """Chains and ``_has`` through it are answered by whose the resource is."""
    written = [
        {"reference": "Patient/1"},
        {"reference": "Patient/2/_history/2"},
        {"reference": f"{BASE}/Patient/3"},
        {"reference": f"{BASE}/Patient/4/_history/1", "type": "Group"},
        {"reference": "Patient/5", "type": "Patient", "identifier": {"value": "P5"}},
        {"type": "Patient", "identifier": {"system": "urn:oid:2.25.101", "value": "P6"}},
        {"reference": "#inside"},
        {"reference": "https://elsewhere.example/Patient/7"},
        *({"reference": f"{kind}/8"} for kind in ("Group", "Person", "RelatedPerson", "List")),
    ]
    for path in parameter.paths:
        told: Any = written
        for name in reversed(path.properties):
            told = {name: told}
        resource = {
            "resourceType": parameter.kind,
            "contained": [{"resourceType": "Patient", "id": "inside"}],
            **told,
        }
        found = indexing.values(resource, SHANGHAI, BASE)
        led_to = {
            one.target
            for one in found
            if isinstance(one, Reference)
            and one.parameter in parameter.followed_by
            and one.target_kind == "Patient"
        }
        assert led_to <= set(indexing.patients(resource, BASE))
        assert led_to == set("12345") or path.target not in {"", "Patient"}


@pytest.mark.parametrize(
    ("written", "low", "high"),
    [
        ("2024", "2024-01-01T00:00:00+08:00", "2025-01-01T00:00:00+08:00"),
        ("2024-12", "2024-12-01T00:00:00+08:00", "2025-01-01T00:00:00+08:00"),
        ("2024-02-29", "2024-02-29T00:00:00+08:00", "2024-03-01T00:00:00+08:00"),
        ("2024-02-29T10:00Z", "2024-02-29T10:00:00+00:00", "2024-02-29T10:01:00+00:00"),
        ("2024-02-29T10:00:05-03:30", "2024-02-29T13:30:05+00:00", "2024-02-29T13:30:06+00:00"),
        ("2024-02-29T10:00:05.25Z", "2024-02-29T10:00:05.25+00:00", "2024-02-29T10:00:05.26+00:00"),
    ],
)
def test_a_date_is_all_the_time_that_its_precision_leaves_open(
    written: str, low: str, high: str
) -> None:
    ends = tuple(moments.since_epoch(datetime.fromisoformat(one)) for one in (low, high))
    assert moments.span(written, SHANGHAI) == ends
    told = {"resourceType": "Observation", "effectiveDateTime": written}
    assert _of(told, "Observation.date") == [Date("Observation.date", *ends)]


@pytest.mark.parametrize(
    "written", ["2023-02-29", "24", "2024-1", "yesterday", "2024-01-01T25:00Z"]
)
def test_what_is_no_date_is_found_under_none(written: str) -> None:
    assert moments.span(written, SHANGHAI) is None


def test_a_period_without_an_end_goes_on_for_ever() -> None:
    told = {"resourceType": "Encounter", "period": {"start": "2024-02-29T10:00:00Z"}}
    low = moments.since_epoch(datetime.fromisoformat("2024-02-29T10:00:00+00:00"))
    assert _of(told, "Encounter.date") == [Date("Encounter.date", low, moments.LAST)]


def test_less_than_a_quantity_is_all_below_it() -> None:
    quantity = {"value": 0.5, "comparator": "<", "code": "mg", "unit": "milligram"}
    told = {"resourceType": "Observation", "valueQuantity": quantity}
    assert _of(told, "Observation.value-quantity") == [
        Quantity("Observation.value-quantity", -math.inf, 0.5, "mg", "", "milligram")
    ]


def test_a_canonical_is_found_with_and_without_its_version() -> None:
    told = {"resourceType": "QuestionnaireResponse", "questionnaire": "http://a.example/q|2"}
    name = "QuestionnaireResponse.questionnaire"
    assert set(_of(told, name)) == {
        Reference(name, "", "http://a.example/q|2"),
        Reference(name, "", "http://a.example/q"),
    }


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["coding", "code", "system", "reference", "value", "start", "given", "low"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def test_a_given_name_that_is_no_text_is_none() -> None:
    told = {"resourceType": "Patient", "name": [{"family": "Li", "given": [True, None, "Na"]}]}
    assert {one.exact for one in _of(told, "Patient.name") if isinstance(one, String)} >= {
        "Li",
        "Na",
    }


@given(kind=st.sampled_from(search_parameters.kinds()), data=st.data())
@settings(max_examples=100, deadline=None)
def test_nothing_that_a_resource_holds_stops_it_from_being_read(
    kind: str, data: st.DataObject
) -> None:
    paths = [
        path.properties
        for one in search_parameters.of(kind).values()
        for path in one.paths
        if path.properties
    ]
    resource: dict[str, Any] = {"resourceType": kind}
    for path in data.draw(st.lists(st.sampled_from(paths), max_size=6)):
        _put(resource, path, [data.draw(json)], path[-1])
    for value in indexing.values(resource, SHANGHAI):
        assert isinstance(value, Token | String | Reference | Date | Quantity | Uri)

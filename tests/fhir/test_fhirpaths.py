"""The paths by which a patch finds elements lead to what FHIRPath says: held to fhirpathpy."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from fhirpathpy import compile as fhirpath
from fhirpathpy.models import models
from hypothesis import given
from hypothesis import strategies as st

from exchange_fhir import fhirpaths
from exchange_fhir.fhirpaths import Work
from exchange_fhir.outcome import Problem

TITLE = "urn:titles"
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "extension": [{"url": TITLE, "valueString": "a"}, {"url": "urn:b", "valueBoolean": True}],
    "active": True,
    "name": [
        {"use": "official", "family": "Wang", "given": ["Min", "Na"]},
        {"use": "usual", "family": "Wang", "given": ["Min"]},
        {"use": "old", "given": ["Xiao'Dong"]},
    ],
    "telecom": [
        {"system": "phone", "value": "1", "rank": 1},
        {"system": "phone", "value": "2", "rank": 2},
        {"system": "email", "value": "3"},
    ],
    "multipleBirthInteger": 2,
    "contact": [
        {"relationship": [{"coding": [{"code": "N"}, {"code": "C"}]}], "name": {"family": "Li"}},
        {"relationship": [{"coding": [{"code": "C"}]}], "telecom": [{"value": "4"}]},
    ],
}

PATHS = [
    "Patient.name.given",
    "Patient.name.given[2]",
    "Patient.name[1].given.first()",
    "Patient.name.tail().given.last()",
    "Patient.name.skip(1).take(1).family",
    "Patient.name.where(use = 'official').given",
    "Patient.name.where(use = 'official' or use = 'old' and family = 'Wang').use",
    "Patient.name.where((use = 'official' or use = 'old') and family = 'Wang').use",
    "Patient.name.where(family != 'Wang')",
    "Patient.name.where(use != 'old').given",
    "Patient.name.where(given = 'Min').use",
    "Patient.name.where(given.where($this = 'Na').exists()).use",
    "Patient.name.where(family.exists().not()).use",
    "Patient.name.where(family.empty() or use = 'usual').use",
    r"Patient.name.where(given = 'Xiao\'Dong').use",
    "Patient.name.given.where($this = 'Min')",
    "Patient.telecom.where(rank = 2).value",
    "Patient.telecom.where(system = 'phone' and rank != 2).value",
    "Patient.extension('urn:titles').value",
    "Patient.extension.where(value = true).url",
    "Patient.multipleBirth.ofType(integer)",
    "Patient.multipleBirth.ofType(boolean)",
    "Patient.contact.where(relationship.coding.code = 'C').telecom.value",
    "Patient.contact.where(relationship.coding.where(code = 'C').exists()).name.family",
    "Patient.contact.where(telecom.exists() and name.exists().not()).telecom.value",
    "Patient.photo",
    "Patient . name [ 0 ] . family",
]


def found(path: str, resource: dict[str, Any] = PATIENT) -> list[Any]:
    return [one.value for one in fhirpaths.places(resource, path, Work())]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_leads_to_what_fhirpath_says(path: str) -> None:
    told = fhirpath(path, models["r4"])(deepcopy(PATIENT), {})
    assert found(path) == told


ELEMENTS = st.sampled_from(["use", "family", "given", "period"])
ONE = st.one_of(
    st.builds(
        "{}{}{}".format,
        ELEMENTS,
        st.sampled_from([" = ", " != ", "!="]),
        st.sampled_from(["'Wang'", "'official'", "'Min'", "''"]),
    ),
    st.builds("{}{}".format, ELEMENTS, st.sampled_from([".exists()", ".empty()"])),
)
CONDITIONS = st.recursive(
    ONE,
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
    max_leaves=4,
)


@given(CONDITIONS, st.sampled_from(["", "[0]", ".first()", ".last()", ".tail()", ".skip(2)"]))
def test_a_condition_holds_of_what_fhirpath_says(condition: str, part: str) -> None:
    path = f"Patient.name.where({condition}){part}.use"
    assert found(path) == fhirpath(path, models["r4"])(deepcopy(PATIENT), {})


@pytest.mark.parametrize(
    "path",
    [
        "Patient.name.where(use)",
        "Patient.name.where(use = )",
        "Patient.name.where(use ~ 'a')",
        "Patient.name.where(matches('a'))",
        "Patient.name.where(use.matches('(a+)+$'))",
        "Patient.name.repeat(given)",
        "Patient.name | Patient.contact",
        "Patient.name.exists()",
        "Patient.name[-1]",
        "Patient.name[a]",
        "Patient.name.where(use = 'a'",
        "Patient.name.where(use = 'a'))",
        "Patient..name",
        "Patient.name.",
        ".name",
        "%resource.name",
        "$total.name",
        "Patient.name.where($this.trace('x').exists())",
        "Patient.name" + ".where(a" * 200,
        "Patient.name.where(" + "(" * 300 + "a = 'b'" + ")" * 301,
    ],
)
def test_what_is_no_path_here_is_refused(path: str) -> None:
    with pytest.raises(Problem) as told:
        fhirpaths.parsed(path)
    assert told.value.answer.code == "not-supported"


@given(st.text("Patient.nmewhrux$()[]='! 01\\", max_size=60))
def test_whatever_is_written_as_a_path_is_read_or_refused(path: str) -> None:
    try:
        found(path)
    except Problem:
        return

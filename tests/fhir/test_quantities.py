"""A quantity is found whatever unit of UCUM it was written in, and whatever unit is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from fhir_door import Door, opened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from region import ID_CARD, region

from exchange_fhir import indexing, units

UCUM = "http://unitsofmeasure.org"
UNITS: dict[str, tuple[str, Fraction, Fraction]] = {
    "g": ("mass", Fraction(1), Fraction(0)),
    "mg": ("mass", Fraction(1, 1000), Fraction(0)),
    "kg": ("mass", Fraction(1000), Fraction(0)),
    "[lb_av]": ("mass", Fraction(45359237, 100000), Fraction(0)),
    "mmol/L": ("concentration", Fraction(1), Fraction(0)),
    "umol/dL": ("concentration", Fraction(1, 100), Fraction(0)),
    "Cel": ("temperature", Fraction(1), Fraction(27315, 100)),
    "K": ("temperature", Fraction(1), Fraction(0)),
    "[IU]/L": ("activity", Fraction(1), Fraction(0)),
    "m[IU]/mL": ("activity", Fraction(1), Fraction(0)),
    "/min": ("rate", Fraction(1, 60), Fraction(0)),
    "Hz": ("rate", Fraction(1), Fraction(0)),
    "[pH]": ("pH", Fraction(1), Fraction(0)),
}
"""What each unit measures, and how it becomes that kind's first one: written by hand."""
WRITTEN = [
    (number, unit)
    for unit in UNITS
    for number in ("0.0054", "5.4", "5.40", "7", "300.55", "1")
]  # fmt: skip


def measured(number: str, unit: str, code: str = "x") -> dict[str, Any]:
    value = {"value": float(number), "unit": unit, "system": UCUM, "code": unit}
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "urn:codes", "code": code}]},
        "subject": {"reference": "Patient/1"},
        "valueQuantity": value,
    }


@pytest.fixture(scope="module")
def door(lasting_database_url: str) -> Iterator[Door]:
    """What was measured of Wang, in many units; the id tells which."""
    with region(lasting_database_url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD, study="1.2.1", instance="1.4.1")
        door = opened(city)
        entries = [
            {
                "resource": measured(number, unit) | {"id": f"m{at}"},
                "request": {"method": "PUT", "url": f"Observation/m{at}"},
            }
            for at, (number, unit) in enumerate(WRITTEN)
        ]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        answer = door.system("beicheng").send("POST", "", bundle)
        assert answer.status_code == 200, answer.text
        yield door


def found(door: Door, asked: str) -> set[tuple[str, str]]:
    """What a search finds, as it was written."""
    ids = door.clinician("beicheng").ids(f"Observation?{asked}&_count=200")
    return {WRITTEN[int(one.removeprefix("Observation/m"))] for one in ids}


def asked(number: str, unit: str) -> str:
    return f"value-quantity={quote(f'{number}|{UCUM}|{unit}')}"


def test_what_was_written_in_grams_is_found_by_milligrams(door: Door) -> None:
    assert found(door, asked("5.4", "mg")) == {
        ("0.0054", "g"), ("5.4", "mg"), ("5.40", "mg"),
    }  # fmt: skip
    assert found(door, asked("lt0.005400001", "g")) == {
        ("0.0054", "g"), ("5.4", "mg"), ("5.40", "mg"), ("0.0054", "mg"), ("1", "mg"),
    }  # fmt: skip
    together = quote(f"x$5.4|{UCUM}|mg")
    assert ("0.0054", "g") in found(door, f"code-value-quantity={together}")
    assert not found(door, f"code-value-quantity={quote(f'y$5.4|{UCUM}|mg')}")


def test_without_the_system_a_unit_is_what_was_written(door: Door) -> None:
    assert found(door, "value-quantity=5.4||mg") == {("5.4", "mg"), ("5.40", "mg")}
    assert found(door, f"value-quantity={quote('5.4|urn:other|mg')}") == set()


def test_units_that_measure_something_else_are_not_compared(door: Door) -> None:
    assert {unit for _, unit in found(door, asked("gt0", "[IU]/L"))} == {"[IU]/L", "m[IU]/mL"}
    assert {unit for _, unit in found(door, asked("gt0", "[pH]"))} == {"[pH]"}
    assert units.unit("[IU]/L") != units.unit("[CFU]/L")


numbers = st.sampled_from(["0.0054", "5.4", "5.40", "5", "7", "300.55", "3e2", "1", "60", "27.40"])
prefixes = st.sampled_from(["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"])


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(prefixes, numbers, st.sampled_from(sorted(UNITS)))
def test_any_question_finds_what_a_naive_reading_of_it_finds(
    door: Door, prefix: str, number: str, unit: str
) -> None:
    naively = {one for one in WRITTEN if passes(prefix or "eq", number, unit, one)}
    assert found(door, asked(f"{prefix}{number}", unit)) == naively


def passes(prefix: str, number: str, unit: str, written: tuple[str, str]) -> bool:
    """Whether a value passes, by the standard's words (R4 3.1.1.4.2) in exact fractions."""
    kind, factor, offset = UNITS[unit]
    other, by, to = UNITS[written[1]]
    if kind != other:
        return False
    value = (Fraction(written[0]) * by + to - offset) / factor
    asked = Fraction(number)
    digits, _, power = number.partition("e")
    _, _, decimals = digits.partition(".")
    half = Fraction(1, 2) * Fraction(10) ** (int(power or 0) - len(decimals))
    around = max(abs(asked) / 10, half)
    return {
        "eq": asked - half <= value < asked + half,
        "ne": not asked - half <= value < asked + half,
        "gt": value > asked,
        "sa": value > asked,
        "lt": value < asked,
        "eb": value < asked,
        "ge": value >= asked,
        "le": value <= asked,
        "ap": asked - around <= value <= asked + around,
    }[prefix]


@pytest.mark.parametrize(
    "code",
    [
        *(
            "",
            "bogus",
            "10*9999999",
            "9" * 65,
            "{no end",
            "[pH]",
            "Cel/min",
            "((g",
            "血",
            "k[arb'U]",
        ),
        *("10*-999", "/", "g/0", "0", "99*99.99*99.99*99"),
    ],
)
def test_what_is_no_unit_or_has_no_scale_is_kept_as_it_was_written(code: str) -> None:
    assert units.unit(code) is None
    told = indexing.values(measured("5.4", code), ZoneInfo("UTC"))
    assert not [one for one in told if re.search(":ucum$", one.parameter)]

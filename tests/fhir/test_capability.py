"""The CapabilityStatement says what the door does, and the door does what it says."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from fhir_door import Door

from exchange_fhir import capability, reads, rest
from exchange_fhir.search import Type

GOLDEN = Path(__file__).parents[1] / "golden" / "fhir_capability_statement.json"


def statement(door: Door) -> dict[str, object]:
    told: dict[str, object] = door.asker(None).read("metadata")
    return told


def test_the_statement_is_the_one_that_was_reviewed(door: Door) -> None:
    told = statement(door)
    told["software"] = {"name": "imaging-exchange"}
    assert told == orjson.loads(GOLDEN.read_bytes())


def test_every_resource_of_the_statement_is_read_and_searched() -> None:
    assert set(capability.TABLES) == set(reads.READS) == set(rest._SEARCHES)


@pytest.mark.parametrize("kind", capability.TABLES)
def test_every_parameter_that_is_stated_can_be_asked(door: Door, kind: str) -> None:
    values = {Type.TOKEN: "x", Type.STRING: "x", Type.DATE: "2026", Type.REFERENCE: "x"}
    asker = door.clinician("nanhu")
    for name, parameter in capability.TABLES[kind].parameters.items():
        for modifier in ("", *(f":{one}" for one in parameter.modifiers)):
            asked = f"{kind}?{name}{modifier}={values[parameter.type]}"
            asker.bundle(asked, Prefer="handling=strict")
    for including in capability.TABLES[kind].includes:
        asker.bundle(f"{kind}?_include={including}", Prefer="handling=strict")
    for including in capability.TABLES[kind].revincludes:
        asker.bundle(f"{kind}?_revinclude={including}", Prefer="handling=strict")
    for key in capability.TABLES[kind].sorts:
        asker.bundle(f"{kind}?_sort=-{key}", Prefer="handling=strict")

"""Workitems on both kinds of database: found by one matcher, told to whoever watches."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest
from region import WORKER, Region

from exchange import watching, workitems, worklist
from exchange.errors import Refused
from exchange.policy import Purpose, Requester
from exchange.workitem_attributes import State
from exchange.workitems import Reason, StateConflict
from exchange.worklist import Wanted
from exchange_storage.search import Match, Number, Pattern, Range, Values

STATION = "ScheduledStationNameCodeSequence"


def step(**told: Any) -> dict[str, Any]:
    def element(vr: str, value: Any) -> dict[str, Any]:
        return {"vr": vr, "Value": [value]}

    return {
        "00741000": element("CS", "SCHEDULED"),
        "00741200": element("CS", "MEDIUM"),
        "00741204": element("LO", told.get("label", "诊断")),
        "00404005": element("DT", told.get("start", "20261126103000")),
        "00404041": element("CS", "READY"),
        "00404025": {
            "vr": "SQ",
            "Value": [{"00080100": element("SH", told.get("station", "ST1"))}],
        },
        "00404034": {
            "vr": "SQ",
            "Value": [{"00404036": element("LO", told.get("performer", "beicheng"))}],
        },
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Wang^XiaoDong"}]},
        "00100020": element("LO", told.get("patient", "P1")),
    }


def create(city: Region, uid: str, code: str = "beicheng", **told: Any) -> None:
    with city.exchange.on_behalf_of(city.system(code)) as access:
        workitems.create(access, uid, step(**told), zone=UTC)


def found(city: Region, who: Requester, *keys: Any, patient: Any = ()) -> list[str]:
    with city.exchange.on_behalf_of(who) as access:
        answer = worklist.search(access, Wanted(keys, patient), limit=10)
    return [one.workitem.sop_instance_uid for one in answer.found]


def test_one_matcher_finds_workitems_on_every_database(city: Region) -> None:
    create(city, "1.1", station="A1", start="20261126080000")
    create(city, "1.2", station="A2", start="20261127080000", patient="P2")
    ours = city.clinician("beicheng")

    start = "ScheduledProcedureStepStartDateTime"
    assert found(city, ours) == ["1.1", "1.2"]
    assert found(city, ours, (f"{STATION}.CodeValue", Pattern("A?"))) == ["1.1", "1.2"]
    assert found(city, ours, (f"{STATION}.CodeValue", Values(("A2", "A3")))) == ["1.2"]
    assert found(city, ours, (start, Range(None, "20261126"))) == ["1.1"]
    assert found(city, ours, ("ProcedureStepState", Values(("COMPLETED",)))) == []
    number = Number(city.ids["beicheng"], Values(("P2",)))
    assert found(city, ours, patient=(number,)) == ["1.2"]
    assert found(city, ours, patient=(Match("PatientName", Pattern("wang*")),)) == ["1.1", "1.2"]


def test_only_for_treatment_and_only_what_is_assigned_is_found_elsewhere(city: Region) -> None:
    create(city, "1.1")
    create(city, "1.2", performer="nanhu")

    assert found(city, city.clinician("nanhu")) == ["1.2"]
    assert found(city, city.clinician("nanhu", Purpose.OPERATIONS)) == []
    assert found(city, city.clinician("dongshan")) == []
    assert found(city, WORKER) == ["1.1", "1.2"]
    with (
        pytest.raises(Refused, match="treatment"),
        city.exchange.on_behalf_of(city.clinician("nanhu", Purpose.OPERATIONS)) as access,
    ):
        worklist.retrieve(access, "1.2")


def test_one_claims_it_however_many_try(city: Region) -> None:
    create(city, "1.1")

    def claim(transaction: str) -> bool:
        with city.exchange.on_behalf_of(city.clinician("beicheng")) as access:
            return workitems.change_state(access, "1.1", State.IN_PROGRESS, transaction, zone=UTC)

    assert claim("2.25.1")
    with pytest.raises(StateConflict) as refused:
        claim("2.25.2")
    assert refused.value.reason is Reason.ALREADY_IN_PROGRESS


def test_a_filter_means_later_what_it_meant_when_it_was_set(city: Region) -> None:
    ours = city.system("beicheng")
    number = Number(city.ids["beicheng"], Values(("P1",)))
    wanted = Wanted(((f"{STATION}.CodeValue", Pattern("A*")),), (number,))
    with city.exchange.on_behalf_of(ours) as access:
        watching.subscribe_to_all(access, "WATCH", wanted, deletion_lock=True)
    create(city, "1.1", station="A1")
    create(city, "1.2", station="B1")
    create(city, "1.3", station="A1", patient="P2")

    with city.exchange.on_behalf_of(ours) as access:
        reports = watching.pending(access, "WATCH", 0, limit=10)
    assert [one.content["00001000"]["Value"] for one in reports] == [["1.1"], ["1.1"]]
    assert [one.content["00001002"]["Value"] for one in reports] == [[1], [5]]
    with city.exchange.on_behalf_of(WORKER) as access:
        last, who = watching.news(access, reports[0].number)
    assert (last, set(who)) == (reports[-1].number, {(city.ids["beicheng"], "WATCH")})

    with city.exchange.on_behalf_of(ours) as access:
        watching.received(access, "WATCH", [one.number for one in reports])
    with city.exchange.on_behalf_of(ours) as access:
        assert watching.pending(access, "WATCH", 0, limit=10) == []
    create(city, "1.4", station="A1")
    with city.exchange.on_behalf_of(ours) as access:
        later = watching.pending(access, "WATCH", last, limit=10)
    assert len(later) == 2  # a number that was given once is not given again

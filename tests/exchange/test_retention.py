"""How long a study is kept depends on what is in it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from region import ADMINISTRATOR, WORKER, Region

from exchange import rejection, retention
from exchange.sop_classes import KEY_OBJECT_SELECTION

NOTE, IMAGE = "1.9.1", "1.4.1"


@pytest.fixture
def ruled(city: Region) -> Region:
    """Beicheng keeps its CT studies for ten days, and has a rule for nothing else."""
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.set_rule(access, "beicheng", "CT", 10)
    return city


def selects(city: Region, code: str = "", *, instance: str = NOTE) -> None:
    """The hospital sends a key object selection: a rejection note for the image if with a code."""
    city.send(
        "beicheng",
        series="1.2.1.9",
        instance=instance,
        body=instance.encode(),
        Modality="KO",
        SOPClassUID=KEY_OBJECT_SELECTION,
    )
    if code:
        note = rejection.Note(code, (("1.2.1", IMAGE),))
        with city.exchange.on_behalf_of(city.system("beicheng")) as access:
            access.write(lambda session: rejection.apply(access, session, note, instance))


def expired(city: Region, days: int) -> list[str]:
    with city.exchange.on_behalf_of(WORKER) as access:
        access.now += timedelta(days=days)
        return [one.study_instance_uid for one in retention.expired(access)]


def test_a_rejection_note_does_not_keep_its_study_for_ever(ruled: Region) -> None:
    ruled.send("beicheng")
    ruled.send("beicheng", instance="1.4.2", body=b"in use")
    selects(ruled, "113001")
    assert expired(ruled, 9) == []
    assert expired(ruled, 11) == ["1.2.1"]


def test_a_selection_that_is_served_counts_and_so_does_one_that_was_rejected(
    ruled: Region,
) -> None:
    ruled.send("beicheng")
    selects(ruled)
    assert expired(ruled, 11) == []
    with ruled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", "113001", [NOTE])
    assert expired(ruled, 11) == []


def test_what_was_rejected_and_is_kept_counts_as_if_it_were_in_use(ruled: Region) -> None:
    ruled.send("beicheng", Modality="MR")
    ruled.send("beicheng", series="1.2.1.2", instance="1.4.2", body=b"in use")
    selects(ruled, "113001")
    assert expired(ruled, 11) == []


def test_a_series_of_which_all_was_deleted_does_not_count(ruled: Region) -> None:
    ruled.send("beicheng", Modality="MR")
    ruled.send("beicheng", series="1.2.1.2", instance="1.4.2", body=b"in use")
    selects(ruled, "113039")
    assert expired(ruled, 11) == ["1.2.1"]


def test_of_a_study_that_is_nothing_but_notes_they_count(ruled: Region) -> None:
    ruled.send("beicheng")
    selects(ruled, "113039")
    assert expired(ruled, 11) == []
    with ruled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.set_rule(access, "beicheng", "KO", 20)
    assert expired(ruled, 11) == []
    assert expired(ruled, 21) == ["1.2.1"]


def test_a_hold_knows_whether_anything_of_its_study_has_come(city: Region) -> None:
    def held(study: str) -> bool:
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            return retention.hold(access, study, "court")

    assert not held("1.2.1")
    city.send("beicheng")
    assert held("1.2.1")
    city.send("beicheng", study="1.2.2", body=b"waits")  # under the same SOP Instance UID
    assert held("1.2.2")
    assert not held("1.2.3")

"""What a hospital has taken out of use is listed, and comes back."""

from __future__ import annotations

import pytest
from region import ADMINISTRATOR, WORKER, Region

from exchange import (
    conflicts,
    destruction,
    jobs,
    rejected,
    rejection,
    restoration,
    retention,
    retrieval,
    trail,
)
from exchange.errors import Gone, NotFound


def reject(city: Region, code: str, *uids: str) -> None:
    """The hospital's note takes these out of use, come or not."""
    note = rejection.Note(code, tuple(("1.2.1", uid) for uid in uids))
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        access.write(lambda session: rejection.apply(access, session, note, f"1.9.{code}"))


def removed(city: Region) -> None:
    for job in jobs.claim(city.exchange.database, [jobs.DESTROY]):
        with city.exchange.on_behalf_of(WORKER) as access:
            destruction.remove_objects(access, job.subject)
        jobs.finish(city.exchange.database, [job])


def listed(city: Region) -> list[tuple[str, bool]]:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        return [(one.code, one.kept) for one in rejected.listed(access)]


# The list


@pytest.mark.parametrize("body", [b"pixels", b"other pixels"])
def test_what_was_deleted_and_came_anew_is_on_no_list(city: Region, body: bytes) -> None:
    city.send("beicheng")
    reject(city, "113039", "1.4.1")
    assert listed(city) == [("113039", False)]
    removed(city)
    city.send("beicheng", body=body)
    assert listed(city) == []
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access, pytest.raises(NotFound):
        restoration.restore(access, "beicheng", ["1.4.1"])
    reject(city, "113001", "1.4.1")
    assert listed(city) == [("113001", True)]


def test_what_a_hold_keeps_is_listed_though_another_came_in_its_place(city: Region) -> None:
    city.send("beicheng")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.hold(access, "1.2.1", "court")
    reject(city, "113039", "1.4.1")
    city.send("beicheng", body=b"anew")
    assert listed(city) == [("113039", True)]


def test_what_is_rejected_for_good_is_listed_whatever_comes(city: Region) -> None:
    reject(city, "113001", "1.4.1")
    city.send("beicheng")
    assert listed(city) == [("113001", False)]


# The trail


def test_the_trail_has_a_rejection_of_what_was_rejected_and_a_refusal_of_what_is_anothers(
    city: Region,
) -> None:
    """A note that names another hospital's images, or its study, is no success about that one."""
    city.send("beicheng")
    city.send("nanhu", patient="B1", study="1.2.2", instance="1.4.2")
    for number, references in enumerate(
        (
            [("1.2.2", "1.4.2")],
            [("1.2.2", "1.4.8"), ("1.2.9", "1.4.9")],
            [("1.2.2", "1.4.2"), ("1.2.1", "1.4.1")],
        )
    ):
        note = rejection.Note("113001", tuple(references))
        with city.exchange.on_behalf_of(city.system("beicheng")) as access:
            access.write(lambda session: rejection.apply(access, session, note, f"1.9.{number}"))  # noqa: B023

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        records = trail.records(access, limit=100)
    assert [
        (one["outcome"], one["study"], one["detail"]["instances"])
        for one in reversed(records)
        if one["action"] == "reject"
    ] == [
        ("refused", "1.2.2", 1),
        ("success", "", 0),
        ("success", "1.2.9", 0),
        ("success", "1.2.1", 1),
        ("refused", "1.2.2", 1),
    ]


def test_what_came_behind_its_rejection_is_gone_to_its_hospital_and_unknown_to_others(
    city: Region,
) -> None:
    city.send("beicheng", instance="1.4.2")
    reject(city, "113001", "1.4.1", "1.4.3")
    city.send("beicheng", instance="1.4.1")
    for code, uid, answer in (
        ("beicheng", "1.4.1", Gone),
        ("nanhu", "1.4.1", NotFound),
        ("beicheng", "1.4.3", NotFound),  # which has never come
    ):
        with city.exchange.on_behalf_of(city.clinician(code)) as access:
            with pytest.raises(NotFound) as told:
                retrieval.instances(access, "1.2.1", None, uid)
            assert told.type is answer


# Coming back


def restored(city: Region, *uids: str) -> tuple[int, int]:
    """How many are served again, and how many wait for review."""
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        done = restoration.restore(access, "beicheng", uids)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert [one.number for one in conflicts.waiting(access)] == list(done.waiting)
    return done.served, len(done.waiting)


def test_what_came_behind_its_rejection_waits_for_review_and_that_is_told(city: Region) -> None:
    city.send("beicheng", instance="1.4.2", body=b"came before")
    reject(city, "113001", "1.4.1", "1.4.2", "1.4.3")
    city.send("beicheng", instance="1.4.1")
    assert restored(city, "1.4.1", "1.4.2") == (1, 1)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        conflicts.promote(access, conflicts.waiting(access)[0].number)
    assert restored(city, "1.4.3") == (0, 0)  # nothing of it ever came


def test_what_was_kept_aside_for_its_rejection_waits_again_once_that_is_withdrawn(
    city: Region,
) -> None:
    reject(city, "113001", "1.4.1")
    city.send("beicheng")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        conflicts.keep(access, conflicts.waiting(access)[0].number)
    assert restored(city, "1.4.1") == (0, 1)


def test_what_was_kept_aside_stays_so_where_the_rejected_one_is_served_again(
    city: Region,
) -> None:
    city.send("beicheng")
    reject(city, "113001", "1.4.1")
    city.send("beicheng", body=b"another one")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        conflicts.keep(access, conflicts.waiting(access)[0].number)
    assert restored(city, "1.4.1") == (1, 0)

"""A hospital that takes part no longer: nobody asks, nothing goes there, what it sent stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from region import ADMINISTRATOR, ID_CARD, WORKER, Region
from sqlalchemy import select

from exchange import (
    audit,
    availability,
    deliveries,
    jobs,
    membership,
    orders,
    organizations,
    priors,
    query,
    routing,
    sessions,
    users,
)
from exchange.access import Access
from exchange.errors import Invalid, NotAuthenticated, NotFound, Refused
from exchange.organizations import Entity
from exchange.policy import Purpose, Requester, Role
from exchange.priors import Choice
from exchange.routing import Rule
from exchange.sessions import Lifetime
from exchange_storage.records import Organization, Study
from exchange_storage.search import Level

PASSWORD = "correct horse battery"
SHANGHAI = ZoneInfo("Asia/Shanghai")
DAY = Lifetime(timedelta(hours=1), timedelta(days=1))


def deactivated(city: Region, code: str = "nanhu") -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        membership.deactivate(access, code)


def activated(city: Region, code: str = "nanhu") -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        membership.activate(access, code)


def trail(city: Region) -> list[dict[str, Any]]:
    """The latest record first."""
    with city.exchange.database.reading() as session:
        return [json.loads(one.content) for one in audit.latest(session, 20)]


def calls(city: Region, title: str) -> Requester | None:
    return organizations.caller(city.exchange, title, "127.0.0.1")


def row(city: Region, study: str = "1.2.1") -> int:
    with city.exchange.database.reading() as session:
        return session.scalars(select(Study.id).where(Study.study_instance_uid == study)).one()


def listens(city: Region, code: str, *, told: bool = False) -> None:
    """A workstation, to which priors and notifications go where it is `told`."""
    entity = Entity(
        title="WS", address="127.0.0.1", port=104, receives_priors=told, told_of_availability=told
    )
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.add_entity(access, code, entity)


def test_the_systems_of_a_hospital_that_was_deactivated_are_refused_and_that_is_recorded(
    city: Region,
) -> None:
    deactivated(city)

    assert calls(city, "NANHU") is None
    refused, told = trail(city)[:2]
    assert (refused["requester"], refused["outcome"]) == ("NANHU", "refused")
    assert refused["reason"] == "the organization was deactivated"
    assert (told["action"], told["reason"]) == ("administer", "organization deactivated")
    assert told["detail"] == {"code": "nanhu"}
    assert calls(city, "BEICHENG") is not None

    activated(city)
    assert calls(city, "NANHU") is not None
    assert trail(city)[0]["reason"] == "organization activated"


def test_the_users_of_a_hospital_that_was_deactivated_are_let_in_again_with_it_but_for_one(
    city: Region,
) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        for name in ("dr.wang", "dr.left"):
            users.add(
                access,
                name=name,
                display_name="",
                role=Role.CLINICIAN,
                organization="nanhu",
                password=PASSWORD,
            )
        users.deactivate(access, "dr.left")
    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        wang = users.by_name(access.session, "dr.wang")
        assert wang is not None
        secret = sessions.begin(access, wang, Purpose.TREATMENT, DAY)

    def lets_in(name: str) -> bool:
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            known = users.standing(access, name) is not None
            try:
                users.authenticate(access.session, name, PASSWORD)
            except NotAuthenticated:
                assert not known
                return False
            assert known
            return True

    def has_session() -> bool:
        with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
            return sessions.of(access, secret, DAY) is not None

    assert (lets_in("dr.wang"), lets_in("dr.left"), has_session()) == (True, False, True)
    deactivated(city)
    assert (lets_in("dr.wang"), lets_in("dr.left"), has_session()) == (False, False, False)
    activated(city)
    assert (lets_in("dr.wang"), lets_in("dr.left"), has_session()) == (True, False, False)


def test_what_a_hospital_has_sent_stays_visible_to_others_by_the_agreement_as_before(
    city: Region,
) -> None:
    city.send("nanhu")

    def seen() -> int:
        with city.exchange.on_behalf_of(city.system("beicheng")) as access:
            return len(query.find(access, Level.STUDY, [], limit=10).found)

    deactivated(city)
    assert seen() == 1
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.end_agreement(access, "nanhu")
    assert seen() == 0


def test_nothing_is_sent_to_a_hospital_that_was_deactivated_until_it_takes_part_again(
    city: Region,
) -> None:
    listens(city, "nanhu")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        routing.add(access, "beicheng", Rule(name="on", destination="nanhu:WS"))
        routing.add(access, "beicheng", Rule(name="own", url="https://pacs.example/dicom"))
    city.send("beicheng")
    city.send("beicheng", study="1.2.2", instance="1.4.2")

    def planned(study: str) -> int:
        with city.exchange.on_behalf_of(WORKER) as access:
            return routing.plan(access, row(city, study))

    assert planned("1.2.1") == 2
    deactivated(city)
    assert planned("1.2.2") == 1  # the hospital's own service is there as before
    claimed = jobs.claim(city.exchange.database, [jobs.FORWARD], 10)
    sent = 0
    for job in claimed:
        with suppress(Refused), city.exchange.on_behalf_of(WORKER) as access:
            deliveries.parcel(access, int(job.subject), timezone=SHANGHAI)
            sent += 1
    assert (len(claimed), sent) == (3, 2)
    assert any(
        (one["action"], one["outcome"], one["reason"])
        == ("forward", "refused", "the receiving organization was deactivated")
        for one in trail(city)
    )
    with (
        pytest.raises(Invalid, match="deactivated"),
        city.exchange.on_behalf_of(ADMINISTRATOR) as access,
    ):
        routing.add(access, "beicheng", Rule(name="another", destination="nanhu:WS"))

    activated(city)
    for job in claimed:
        with city.exchange.on_behalf_of(WORKER) as access:
            assert deliveries.parcel(access, int(job.subject), timezone=SHANGHAI) is not None


def test_a_hospital_that_was_deactivated_is_sent_no_priors_and_told_of_no_study(
    city: Region,
) -> None:
    listens(city, "nanhu", told=True)
    city.send("beicheng", card=ID_CARD)
    city.send("nanhu", patient="N7", study="1.2.7", instance="1.4.7", card=ID_CARD)
    city.identify()
    with city.exchange.on_behalf_of(city.system("nanhu")) as access:
        placed = orders.Placed(
            patient_id="N7", accession_number="A1", modality="CT", scheduled_date="20261201"
        )
        orders.place(access, placed)
    (order,) = jobs.claim(city.exchange.database, [jobs.PRIORS], 10)

    def fetched() -> int:
        with city.exchange.on_behalf_of(WORKER) as access:
            return priors.fetch(access, int(order.subject), Choice())

    def told() -> tuple[int, bool]:
        with city.exchange.on_behalf_of(WORKER) as access:
            planned = availability.plan(access, [row(city, "1.2.7")])
            nodes = organizations.entities(access.session)
            (entity,) = [one for one in nodes if one.told_of_availability]
            subject = f"{entity.id}:{row(city, '1.2.7')}"
            return planned, availability.notification(access, subject) is not None

    deactivated(city)
    assert (fetched(), told()) == (0, (0, False))
    activated(city)
    assert (fetched(), told()) == (1, (1, True))


@pytest.mark.parametrize("verb", [membership.deactivate, membership.activate])
def test_only_the_region_says_who_takes_part(
    city: Region, verb: Callable[[Access, str], None]
) -> None:
    own = Requester(
        name="admin.nanhu",
        role=Role.ADMINISTRATOR,
        organization=city.ids["nanhu"],
        purpose=None,
        door="portal",
    )
    for requester in (own, city.clinician("nanhu"), city.system("beicheng")):
        with pytest.raises(Refused), city.exchange.on_behalf_of(requester) as access:
            verb(access, "nanhu")
        assert (trail(city)[0]["outcome"], trail(city)[0]["detail"]) == (
            "refused",
            {"code": "nanhu"},
        )
    with pytest.raises(NotFound), city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        verb(access, "nowhere")


def test_the_moment_of_a_change_is_kept_and_to_say_it_twice_changes_nothing(city: Region) -> None:
    def moment() -> object:
        with city.exchange.database.reading() as session:
            return session.get_one(Organization, city.ids["nanhu"]).changed

    assert moment() is None
    deactivated(city)
    first = moment()
    deactivated(city)
    assert moment() == first is not None
    activated(city)
    assert moment() != first

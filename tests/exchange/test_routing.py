"""Routes and deliveries as the index keeps them: which studies are meant, and what waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from region import ADMINISTRATOR, ID_CARD, WORKER, Region
from sqlalchemy import select, update

from exchange import deliveries, jobs, orders, organizations, priors, routing
from exchange.access import Access
from exchange.errors import Invalid, NotFound, Refused
from exchange.organizations import Entity
from exchange.priors import Choice
from exchange.retrieval import Held
from exchange.routing import Rule
from exchange_storage.records import Delivered, Delivery, Job, Study

SHANGHAI = ZoneInfo("Asia/Shanghai")


def listens(city: Region, code: str, title: str = "WS", *, receives_priors: bool = False) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        entity = Entity(title=title, address="127.0.0.1", port=104, receives_priors=receives_priors)
        organizations.add_entity(access, code, entity)


def routed(city: Region, name: str = "on", code: str = "beicheng", **rule: str) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        routing.add(access, code, Rule(**({"name": name, "destination": "WS"} | rule)))


def planned(city: Region, study: str = "1.2.1") -> int:
    """The study is quiet; to how many routes it goes."""
    with city.exchange.database.reading() as session:
        row = session.scalars(select(Study.id).where(Study.study_instance_uid == study)).one()
    with city.exchange.on_behalf_of(WORKER) as access:
        return routing.plan(access, row)


def claimed(city: Region, kind: str = jobs.FORWARD) -> list[jobs.Claim]:
    return jobs.claim(city.exchange.database, [kind], 100)


def held_for(access: Access, job: jobs.Claim) -> list[Held]:
    """What the delivery is to send."""
    parcel = deliveries.parcel(access, int(job.subject), timezone=SHANGHAI)
    assert parcel is not None
    return [held for one in parcel.selected for held in one.instances]


def listed(city: Region) -> tuple[int, int, int]:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (one,) = routing.everything(access)
    return one.waiting, one.given_up, one.delivered


@pytest.mark.parametrize(
    ("rule", "meant"),
    [
        ({}, True),
        ({"modality": "ct"}, True),
        ({"modality": "MR, CT"}, True),
        ({"modality": "MR,US"}, False),
        ({"body_part": "chest"}, True),
        ({"body_part": "THORAX"}, True),
        ({"body_part": "ABDOMEN,LUNG"}, True),
        ({"body_part": "胸部"}, True),
        ({"body_part": "THORACIC SPINE"}, False),
        ({"body_part": "HEAD"}, False),
        ({"source": "BEICHENG"}, True),
        ({"source": "CT1,CT2"}, False),
        ({"modality": "CT", "body_part": "HEAD"}, False),
    ],
)
def test_a_study_is_meant_when_one_of_its_instances_meets_all_conditions(
    city: Region, rule: dict[str, str], meant: bool
) -> None:
    listens(city, "beicheng")
    routed(city, **rule)
    city.send("beicheng", BodyPartExamined="Chest")
    city.send("beicheng", instance="1.4.2", series="1.2.1.9", Modality="SR", BodyPartExamined="")
    assert planned(city) == meant


@pytest.mark.parametrize(
    ("hours", "at", "wait"),
    [
        ("08:00-18:00", "2026-11-26 07:30", 1800),
        ("08:00-18:00", "2026-11-26 08:00", 0),
        ("08:00-18:00", "2026-11-26 18:00", 14 * 3600),
        ("22:00-06:00", "2026-11-26 23:00", 0),
        ("22:00-06:00", "2026-11-26 05:59", 0),
        ("22:00-06:00", "2026-11-26 06:00", 16 * 3600),
        ("", "2026-11-26 06:00", 0),
    ],
)
def test_hours_are_local_and_may_cross_midnight(hours: str, at: str, wait: float) -> None:
    now = datetime.fromisoformat(at).replace(tzinfo=SHANGHAI)
    assert routing.until(hours, now) == wait


def test_on_the_night_of_the_clock_change_the_wait_is_an_hour_longer() -> None:
    now = datetime(2026, 10, 25, 1, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    assert routing.until("08:00-18:00", now) == 8 * 3600


def test_hours_that_never_come_are_refused(city: Region) -> None:
    listens(city, "beicheng")
    for hours in ("08:00-08:00", "8-9", "24:00-25:00"):
        with pytest.raises(Invalid, match="HH:MM-HH:MM"):
            routed(city, hours=hours)
    with pytest.raises(Invalid, match="login"):
        routed(city, destination="", url="https://name:secret@cloud.example/dicom-web")


def test_what_was_given_up_is_listed_with_its_reason_and_tried_again(city: Region) -> None:
    listens(city, "beicheng")
    routed(city)
    city.send("beicheng")
    planned(city)
    assert listed(city) == (1, 0, 0)
    (job,) = claimed(city)
    for _ in range(jobs.ATTEMPTS_AT_OTHERS - 1):
        jobs.fail(city.exchange.database, job, "Unavailable: the node does not answer")
        job = jobs.Claim(job.id, job.kind, job.subject, job.asked, job.attempts + 1)
    assert listed(city) == (1, 0, 0)
    jobs.fail(city.exchange.database, job, "Unavailable: the node does not answer")
    assert listed(city) == (0, 1, 0)

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (one,) = deliveries.waiting(access, given_up=True)
        assert (one.organization, one.route, one.destination) == ("beicheng", "on", "beicheng:WS")
        assert (one.study_instance_uid, one.due) == ("1.2.1", None)
        assert one.last_error == "Unavailable: the node does not answer"
    with city.exchange.on_behalf_of(city.system("beicheng")) as access, pytest.raises(Refused):
        deliveries.retry(access)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access, pytest.raises(NotFound):
        deliveries.retry(access, one.number + 1)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert deliveries.retry(access, one.number) == 1
        assert deliveries.waiting(access, given_up=True) == []
    assert len(claimed(city)) == 1


def test_a_destination_that_is_down_is_left_alone_and_gets_all_when_it_is_back(
    city: Region,
) -> None:
    listens(city, "beicheng")
    routed(city)
    routed(city, "elsewhere", destination="", url="http://cloud.example")
    for study in ("1.2.1", "1.2.2", "1.2.3"):
        city.send("beicheng", study=study, instance=f"{study}.1.1")
        planned(city, study)
    to_node, to_cloud, *rest = claimed(city)
    for job in (to_cloud, *rest):
        jobs.postpone(city.exchange.database, job, 0)
    with city.exchange.on_behalf_of(WORKER) as access:
        deliveries.unanswered(access, int(to_node.subject))
    jobs.fail(city.exchange.database, to_node, "down")
    assert len(claimed(city)) == 3  # those to the cloud

    with city.exchange.database.writing() as session:  # they have been tried as well
        session.execute(update(Job).values(attempts=5, due=datetime.now(UTC) + timedelta(hours=1)))
        session.execute(update(Job).values(leased_until=None))
    assert claimed(city) == []
    with city.exchange.on_behalf_of(WORKER) as access:
        taken = held_for(access, to_node)
        deliveries.confirmed(access, int(to_node.subject), taken, complete=True)
    jobs.finish(city.exchange.database, [to_node])
    with city.exchange.database.reading() as session:
        delivered = session.get_one(Delivery, int(to_node.subject))
        assert (delivered.instances, delivered.delivered is not None) == (1, True)
    assert len(claimed(city)) == 2  # the others to the node, not those to the cloud
    assert to_cloud.subject not in {one.subject for one in claimed(city)}


def test_what_is_confirmed_late_counts_for_no_other_delivery(city: Region) -> None:
    listens(city, "beicheng")
    routed(city)
    city.send("beicheng")
    planned(city)
    (job,) = claimed(city)
    with city.exchange.on_behalf_of(WORKER) as access:
        taken = held_for(access, job)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        routing.remove(access, "beicheng", "on")
    with city.exchange.on_behalf_of(WORKER) as access:  # there is no delivery at all
        deliveries.confirmed(access, int(job.subject), taken, complete=True)
    jobs.finish(city.exchange.database, [job])
    routed(city)
    planned(city)

    with city.exchange.on_behalf_of(WORKER) as access:
        deliveries.confirmed(access, int(job.subject), taken, complete=True)
    jobs.finish(city.exchange.database, [job])

    assert listed(city) == (1, 0, 0)
    (other,) = claimed(city)
    assert other.subject != job.subject
    with city.exchange.on_behalf_of(WORKER) as access:
        assert held_for(access, other) == taken


def test_a_node_is_not_removed_while_a_route_leads_there(city: Region) -> None:
    listens(city, "beicheng")
    listens(city, "nanhu", "PRIORS", receives_priors=True)
    routed(city)
    gone = Entity(title="WS", address="127.0.0.1")
    with (
        city.exchange.on_behalf_of(ADMINISTRATOR) as access,
        pytest.raises(Invalid, match="on of beicheng"),
    ):
        organizations.remove_entity(access, "beicheng", gone)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        routing.remove(access, "beicheng", "on")
        organizations.remove_entity(access, "beicheng", gone)
    city.send("beicheng", card=ID_CARD)
    city.identify()
    ordered(city, card=ID_CARD)
    assert fetched(city) == 1
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.remove_entity(access, "nanhu", Entity(title="PRIORS", address="127.0.0.1"))
    with city.exchange.database.reading() as session:
        assert session.scalars(select(Delivery)).all() == []
        assert session.scalars(select(Delivered)).all() == []


@pytest.mark.parametrize(
    ("host", "called"),
    [
        ("10.1.0.5", True),
        ("127.0.0.1", True),
        ("[fd12::5]", True),
        ("pacs.beicheng", True),
        ("169.254.169.254", False),
        ("[fe80::1]", False),
        ("[::ffff:169.254.169.254]", False),
        ("[64:ff9b::a9fe:a9fe]", False),
        ("[fd00:ec2::254]", False),
        ("0.0.0.1", False),
        ("224.0.0.1", False),
    ],
)
def test_a_route_leads_into_a_hospitals_network_and_to_no_machines_own_address(
    city: Region, host: str, called: bool
) -> None:
    if called:
        routed(city, destination="", url=f"https://{host}/dicom-web")
    else:
        with pytest.raises(Invalid, match="link-local"):
            routed(city, destination="", url=f"https://{host}/dicom-web")


# Priors


def ordered(city: Region, *, card: str | None) -> None:
    """Nanhu is to make a CT of its patient N7, who is the woman of `ID_CARD`."""
    with city.exchange.on_behalf_of(city.system("nanhu")) as access:
        orders.place(
            access,
            orders.Placed(
                patient_id="N7",
                patient_name="Wang^XiaoDong=王^小东",
                patient_birth_date="19491231",
                patient_sex="F",
                identifiers=(("2.16.156.10011.1.3", card),) if card else (),
                accession_number="A1",
                modality="CT",
                scheduled_date="20261201",
            ),
        )


def fetched(city: Region) -> int:
    """The worker does the jobs of priors; how many studies are on their way by that."""
    made = 0
    for job in claimed(city, jobs.PRIORS):
        with city.exchange.on_behalf_of(WORKER) as access:
            made += priors.fetch(access, int(job.subject), Choice())
        jobs.finish(city.exchange.database, [job])
    return made


def test_priors_come_also_when_the_patient_is_known_only_after_the_order(city: Region) -> None:
    listens(city, "nanhu", receives_priors=True)
    city.send("beicheng", card=ID_CARD)
    city.identify()
    ordered(city, card=None)
    assert fetched(city) == 0
    city.send("nanhu", patient="N7", study="1.2.7", instance="1.4.7", card=ID_CARD)
    assert fetched(city) == 1
    assert fetched(city) == 0


def test_what_is_made_elsewhere_between_order_and_visit_comes_too(city: Region) -> None:
    listens(city, "nanhu", receives_priors=True)
    city.send("beicheng", card=ID_CARD)
    ordered(city, card=ID_CARD)
    assert fetched(city) == 1
    city.send("dongshan", patient="D9", study="1.2.9", instance="1.4.9", card=ID_CARD)
    planned(city, "1.2.9")
    assert fetched(city) == 1
    with city.exchange.on_behalf_of(city.system("nanhu")) as access:
        orders.cancel(access, "A1")
    for job in claimed(city):
        with city.exchange.on_behalf_of(WORKER) as access:
            assert deliveries.parcel(access, int(job.subject), timezone=SHANGHAI) is None


@pytest.mark.parametrize("sent_before", [False, True])
def test_priors_follow_when_the_hospital_has_another_node_for_them(
    city: Region, sent_before: bool
) -> None:
    listens(city, "nanhu", "OLD", receives_priors=True)
    city.send("beicheng", card=ID_CARD)
    ordered(city, card=ID_CARD)
    assert fetched(city) == 1
    (before,) = claimed(city)
    with city.exchange.on_behalf_of(WORKER) as access:
        taken = held_for(access, before)
        if sent_before:
            deliveries.confirmed(access, int(before.subject), taken, complete=True)
    listens(city, "nanhu", "NEW", receives_priors=True)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.replace_entity(
            access, "nanhu", Entity(title="OLD", address="127.0.0.1", port=104)
        )

    city.send("beicheng", instance="1.4.2", body=b"more", card=ID_CARD)
    planned(city)  # for which the orders of her are asked again
    assert fetched(city) == 1
    with city.exchange.on_behalf_of(WORKER) as access:  # to the former node, which was quicker
        deliveries.confirmed(access, int(before.subject), taken, complete=True)

    parcels = []
    for job in claimed(city):
        with city.exchange.on_behalf_of(WORKER) as access:
            parcels.append(deliveries.parcel(access, int(job.subject), timezone=SHANGHAI))
    (one,) = filter(None, parcels)
    assert one.entity is not None
    assert (one.entity.title, one.sent) == ("NEW", frozenset())
    assert fetched(city) == 0


def test_a_prior_that_has_grown_is_sent_on(city: Region) -> None:
    listens(city, "nanhu", receives_priors=True)
    city.send("beicheng", card=ID_CARD)
    ordered(city, card=ID_CARD)
    assert fetched(city) == 1
    (job,) = claimed(city)
    with city.exchange.on_behalf_of(WORKER) as access:
        deliveries.confirmed(access, int(job.subject), held_for(access, job), complete=True)
    jobs.finish(city.exchange.database, [job])
    city.send("beicheng", instance="1.4.2", body=b"more", card=ID_CARD)
    assert planned(city) == 1
    (again,) = claimed(city)
    assert again.subject == job.subject
    with city.exchange.on_behalf_of(WORKER) as access:
        parcel = deliveries.parcel(access, int(again.subject), timezone=SHANGHAI)
        assert parcel is not None
        held = [held for one in parcel.selected for held in one.instances]
    assert len([one for one in held if one.digest not in parcel.sent]) == 1
    assert fetched(city) == 0

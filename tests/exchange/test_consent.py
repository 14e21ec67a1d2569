"""What a patient says of sharing holds at every hospital, from that moment on."""

from __future__ import annotations

import pytest
from region import ADMINISTRATOR, ID_CARD, Region
from sqlalchemy import select

from exchange import consent, query, retrieval
from exchange.errors import Invalid, NotFound, Refused
from exchange_storage.records import AuditRecord, Consent
from exchange_storage.search import Level


def opt_out(city: Region, code: str, number: str) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, code, number)


def opt_in(city: Region, code: str, number: str) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_in(access, code, number)


def seen(city: Region, code: str) -> set[str]:
    """The studies that a clinician of the hospital finds, each of which can be retrieved."""
    with city.exchange.on_behalf_of(city.clinician(code)) as access:
        answer = query.find(access, Level.STUDY, [], limit=10, total=True)
        found = {one.study.study_instance_uid for one in answer.found if one.study}
        for study in found:
            retrieval.instances(access, study)
    assert answer.total == len(found)
    return found


@pytest.fixture
def linked(city: Region) -> Region:
    """One person with a study at Beicheng, one at Nanhu; another person's study at Nanhu."""
    city.send("beicheng", patient="A1", study="1.2.1", instance="1.4.1", card=ID_CARD)
    city.send("nanhu", patient="B1", study="1.2.2", instance="1.4.2", card=ID_CARD)
    city.send("nanhu", patient="B2", study="1.2.3", instance="1.4.3")
    city.identify()
    return city


def test_opting_out_at_one_hospital_closes_the_records_at_every_hospital(linked: Region) -> None:
    assert seen(linked, "dongshan") == {"1.2.1", "1.2.2", "1.2.3"}

    opt_out(linked, "beicheng", "A1")

    assert seen(linked, "dongshan") == {"1.2.3"}
    assert seen(linked, "beicheng") == {"1.2.1", "1.2.3"}  # what is its own stays its own
    with (
        pytest.raises(Refused, match="has not consented"),
        linked.exchange.on_behalf_of(linked.clinician("beicheng")) as access,
    ):
        retrieval.instances(access, "1.2.2")


def test_opting_in_again_at_another_hospital_opens_them_all(linked: Region) -> None:
    opt_out(linked, "beicheng", "A1")
    opt_out(linked, "beicheng", "A1")
    opt_in(linked, "nanhu", "B1")

    assert seen(linked, "dongshan") == {"1.2.1", "1.2.2", "1.2.3"}
    with linked.exchange.database.reading() as session:
        said = session.scalars(select(Consent).order_by(Consent.id)).all()
    assert [(one.decision, one.ended is None) for one in said] == [
        ("deny", False),
        ("deny", False),
        ("permit", True),
    ]


def test_an_opt_out_holds_for_a_record_from_the_moment_it_is_linked(city: Region) -> None:
    city.send("beicheng", patient="A1", study="1.2.1", instance="1.4.1", card=ID_CARD)
    city.send("nanhu", patient="B1", study="1.2.2", instance="1.4.2")
    opt_out(city, "beicheng", "A1")
    assert seen(city, "dongshan") == {"1.2.2"}  # nobody knows yet that it is the same person

    city.send("nanhu", patient="B1", study="1.2.3", instance="1.4.3", card=ID_CARD)

    assert seen(city, "dongshan") == set()


def test_an_opt_out_is_audited_by_record_number_and_decision(linked: Region) -> None:
    opt_out(linked, "beicheng", "A1")

    with linked.exchange.database.reading() as session:
        last = session.scalars(select(AuditRecord).order_by(AuditRecord.sequence.desc())).first()
    assert last is not None
    assert (last.action, last.requester, last.patient_id) == ("administer", "test:admin", 1)
    assert '"decision":"deny"' in last.content


@pytest.mark.parametrize(
    ("code", "number"), [("beicheng", "B1"), ("nowhere", "A1"), ("beicheng", ""), ("nanhu", "\0")]
)
def test_nobody_opts_out_for_a_patient_who_is_not_there(
    city: Region, code: str, number: str
) -> None:
    for instance in ("1", "2"):  # two patients without a number: neither is meant by none
        city.send("beicheng", patient="", study=f"1.2.{instance}", instance=f"1.4.{instance}")

    with (
        pytest.raises((NotFound, Invalid)),
        city.exchange.on_behalf_of(ADMINISTRATOR) as access,
    ):
        consent.opt_out(access, code, number)


def test_a_clinician_does_not_decide_for_the_patient(linked: Region) -> None:
    with (
        pytest.raises(Refused),
        linked.exchange.on_behalf_of(linked.clinician("beicheng")) as access,
    ):
        consent.opt_in(access, "beicheng", "A1")

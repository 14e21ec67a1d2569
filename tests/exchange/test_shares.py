"""A colleague is referred to a study by a link: theirs alone, for a time, within the policy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from region import ADMINISTRATOR, Region
from sqlalchemy import update

from exchange import audit, consent, shares, users
from exchange.errors import Gone, Invalid, NotFound, Refused
from exchange.policy import Purpose, Requester, Role
from exchange.secret_links import State
from exchange.shares import Made
from exchange_storage.records import Share


@dataclass(frozen=True, slots=True)
class Doctors:
    """Clinicians of three hospitals, of which the first has sent a study of its patient."""

    city: Region
    li: Requester
    wang: Requester
    zhao: Requester

    def share(self, **how: int | str) -> Made:
        with self.city.exchange.on_behalf_of(self.li) as access:
            (other,) = shares.colleagues(access, "wang")
            return shares.share(access, "1.2.1", other.user.id, **how)  # type: ignore[arg-type]

    def opened(self, who: Requester, secret: str) -> str:
        with self.city.exchange.on_behalf_of(who) as access:
            found = shares.open_link(access, secret).found
        assert found is not None
        assert found.study is not None
        return found.study.study_instance_uid

    def states(self) -> list[State]:
        with self.city.exchange.on_behalf_of(self.li) as access:
            return [one.state for one in shares.given(access)]

    def trail(self) -> list[tuple[str, str, str]]:
        with self.city.exchange.database.reading() as session:
            told = [json.loads(one.content) for one in audit.latest(session)]
        return [(one["action"], one["outcome"], one["reason"]) for one in told[::-1]]


@pytest.fixture
def doctors(city: Region) -> Doctors:
    city.send("beicheng", study="1.2.1")
    made = []
    for name, hospital in (("dr.li", "beicheng"), ("dr.wang", "nanhu"), ("dr.zhao", "dongshan")):
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            users.add(
                access,
                name=name,
                display_name=name,
                role=Role.CLINICIAN,
                organization=hospital,
                password="long enough",
            )
        made.append(
            Requester(
                name=name,
                role=Role.CLINICIAN,
                organization=city.ids[hospital],
                purpose=Purpose.TREATMENT,
                door="portal",
            )
        )
    return Doctors(city, *made)


def test_a_link_is_for_the_one_colleague_and_each_step_is_in_the_trail(doctors: Doctors) -> None:
    made = doctors.share(note="请会诊")

    assert doctors.opened(doctors.wang, made.secret) == "1.2.1"
    for nobody in (doctors.zhao, doctors.li):
        with pytest.raises(NotFound, match="not for you"):
            doctors.opened(nobody, made.secret)
    with pytest.raises(NotFound, match="not for you"):
        doctors.opened(doctors.wang, made.secret[:-1])
    with doctors.city.exchange.on_behalf_of(doctors.wang) as access:
        (seen,) = shares.received(access)
    assert (seen.share.note, seen.other.user.name, seen.share.opened) == ("请会诊", "dr.li", 1)
    with doctors.city.exchange.on_behalf_of(doctors.zhao) as access:
        assert shares.received(access) == shares.given(access) == ()
    told = doctors.trail()
    assert ("share", "success", "shared with a colleague") in told
    assert ("share", "success", "a shared study opened") in told
    assert sum(reason.startswith("this link is not for you") for _, _, reason in told) == 3


def test_a_colleague_is_referred_to_one_series(doctors: Doctors) -> None:
    made = doctors.share(series="1.2.1.1")

    assert doctors.opened(doctors.wang, made.secret) == "1.2.1"
    assert made.share.series_instance_uid == "1.2.1.1"
    with pytest.raises(NotFound, match="no such series"):
        doctors.share(series="1.2.1.404")


def test_the_secret_is_kept_nowhere_but_in_the_link(doctors: Doctors) -> None:
    made = doctors.share()

    assert len(made.secret) == 43  # 256 bits
    with doctors.city.exchange.database.reading() as session:
        kept = session.query(Share).one()
        written = "".join(one.content for one in audit.latest(session))
    assert made.secret not in f"{vars(kept)} {written}"


def test_who_shares_takes_it_back_and_nobody_else_does(doctors: Doctors) -> None:
    made = doctors.share()
    for other in (doctors.wang, doctors.zhao):
        with (
            pytest.raises(NotFound, match="nothing under this number"),
            doctors.city.exchange.on_behalf_of(other) as access,
        ):
            shares.revoke(access, made.share.id)
    with doctors.city.exchange.on_behalf_of(doctors.li) as access:
        shares.revoke(access, made.share.id)

    with pytest.raises(Gone, match="has ended"):
        doctors.opened(doctors.wang, made.secret)
    assert doctors.states() == [State.REVOKED]
    assert ("share", "success", "a share taken back") in doctors.trail()
    assert ("share", "refused", "the link has ended") in doctors.trail()


def test_a_link_ends_by_time_and_by_count(doctors: Doctors) -> None:
    once = doctors.share(openings=1)
    doctors.opened(doctors.wang, once.secret)
    with pytest.raises(Gone):
        doctors.opened(doctors.wang, once.secret)
    timed = doctors.share(days=1)
    with doctors.city.exchange.database.writing() as session:
        session.execute(
            update(Share)
            .where(Share.id == timed.share.id)
            .values(until=datetime.now(UTC) - timedelta(seconds=1))
        )
    with pytest.raises(Gone):
        doctors.opened(doctors.wang, timed.secret)
    assert doctors.states() == [State.EXPIRED, State.USED_UP]


def test_a_link_leads_nobody_past_the_policy(doctors: Doctors) -> None:
    made = doctors.share(note="Wang, 77: is it a fracture?")
    with doctors.city.exchange.on_behalf_of(doctors.wang) as access:
        assert [one.note for one in shares.received(access)] == ["Wang, 77: is it a fracture?"]
    with doctors.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    with pytest.raises(Refused, match="has not consented"):
        doctors.opened(doctors.wang, made.secret)
    with pytest.raises(Refused, match="your colleague may not see it: the patient has not"):
        doctors.share()
    with doctors.city.exchange.on_behalf_of(doctors.wang) as access:
        (listed,) = shares.received(access)
    assert listed.found is None
    assert listed.note == ""  # which tells of the patient
    assert listed.share.opened == 0  # what was refused is not counted


@pytest.mark.parametrize(
    "how", [{"days": 0}, {"days": 31}, {"openings": 0}, {"openings": 51}, {"note": "字" * 501}]
)
def test_a_link_has_limits(doctors: Doctors, how: dict[str, int | str]) -> None:
    with pytest.raises(Invalid):
        doctors.share(**how)
    assert doctors.states() == []


def test_only_clinicians_who_treat_share_and_are_shared_with(doctors: Doctors) -> None:
    city = doctors.city
    with city.exchange.on_behalf_of(doctors.li) as access:
        assert [one.user.name for one in shares.colleagues(access, "dr.")] == ["dr.wang", "dr.zhao"]
        assert shares.colleagues(access, "%") == shares.colleagues(access, " ") == ()
        (wang,) = shares.colleagues(access, "wang")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        users.deactivate(access, "dr.wang")
    for requester, refusal in (
        (doctors.li, NotFound),  # who has left
        (city.system("beicheng"), Refused),
        (ADMINISTRATOR, Refused),
        (city.clinician("beicheng"), Refused),  # no user of the exchange
        (city.clinician("beicheng", Purpose.PUBLIC_HEALTH), Refused),
    ):
        with pytest.raises(refusal), city.exchange.on_behalf_of(requester) as access:
            shares.share(access, "1.2.1", wang.user.id)

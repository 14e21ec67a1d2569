"""A patient has their own study by a link and a code, and nothing else that is held."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from region import ADMINISTRATOR, Region
from sqlalchemy import select, update

from exchange import (
    audit,
    changes,
    clinical,
    consent,
    exports,
    patient_links,
    people,
    query,
    retrieval,
    shares,
    timeline,
    users,
)
from exchange.access import Access
from exchange.errors import Gone, Invalid, NotAuthenticated, NotFound, Refused
from exchange.patient_links import Made
from exchange.policy import Action, Purpose, Requester, Role
from exchange.secret_links import State
from exchange.sessions import Lifetime
from exchange.timeline import Wanted
from exchange_storage.records import PatientLink, PatientLinkCode
from exchange_storage.search import Level

LIFETIME = Lifetime(timedelta(minutes=30), timedelta(hours=12))
NOBODY = Requester(name="", role=Role.SYSTEM, organization=None, purpose=None, door="portal")


@dataclass(frozen=True, slots=True)
class Desk:
    """Who hands links out: clinicians of two hospitals, and the desk of the first."""

    city: Region
    li: Requester
    wang: Requester
    desk: Requester

    def make(self, who: Requester | None = None, study: str = "1.2.1", **how: int | str) -> Made:
        with self.city.exchange.on_behalf_of(who or self.li) as access:
            return patient_links.make(access, study, **how)  # type: ignore[arg-type]

    def enter(self, made: Made, code: str | None = None, secret: str | None = None) -> str:
        with self.city.exchange.on_behalf_of(NOBODY) as access:
            known = patient_links.known(access, secret or made.secret, code or made.codes[0])
        with self.city.exchange.on_behalf_of(known.requester) as access:
            return patient_links.enter(access, known.code)

    def guest(self, session: str) -> Requester | None:
        with self.city.exchange.on_behalf_of(NOBODY) as access:
            found = patient_links.of(access, session, LIFETIME)
            return found.asking(NOBODY) if found else None

    def opened(self, made: Made) -> Requester:
        found = self.guest(self.enter(made))
        assert found is not None
        return found

    def reads(self, who: Requester, study: str, series: str | None = None) -> list[str]:
        with self.city.exchange.on_behalf_of(who) as access:
            read = retrieval.instances(access, study, series)
        return [one.series_instance_uid for one in read.instances]

    def finds(self, who: Requester, level: Level) -> list[query.Found]:
        with self.city.exchange.on_behalf_of(who) as access:
            return list(query.find(access, level, [], limit=100).found)

    def states(self, who: Requester | None = None) -> list[State]:
        with self.city.exchange.on_behalf_of(who or self.li) as access:
            return [one.state for one in patient_links.given(access)]

    def trail(self) -> list[dict[str, str]]:
        with self.city.exchange.database.reading() as session:
            return [json.loads(one.content) for one in audit.latest(session)][::-1]


@pytest.fixture
def desk(city: Region) -> Desk:
    for number, series in (("1", "1.2.1.1"), ("2", "1.2.1.1"), ("3", "1.2.1.2")):
        city.send("beicheng", study="1.2.1", series=series, instance=f"1.4.{number}",
                  AccessionNumber="A1")  # fmt: skip
    city.send("beicheng", study="1.2.2", instance="1.4.4")  # the same patient's
    city.send("beicheng", patient="P2", study="1.2.3", instance="1.4.5", AccessionNumber="A3")
    city.send("nanhu", patient="N1", study="1.2.9", instance="1.4.9")
    made = []
    for name, hospital, role in (
        ("dr.li", "beicheng", Role.CLINICIAN),
        ("dr.wang", "nanhu", Role.CLINICIAN),
        ("desk", "beicheng", Role.ADMINISTRATOR),
    ):
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            users.add(access, name=name, display_name=name, role=role, organization=hospital,
                      password="long enough")  # fmt: skip
        made.append(
            Requester(name=name, role=role, organization=city.ids[hospital], door="portal",
                      purpose=Purpose.TREATMENT)
        )  # fmt: skip
    return Desk(city, *made)


def test_a_patient_sees_the_study_of_their_link_and_each_step_is_in_the_trail(desk: Desk) -> None:
    made = desk.make()
    patient = desk.opened(made)

    assert desk.reads(patient, "1.2.1") == ["1.2.1.1", "1.2.1.1", "1.2.1.2"]
    assert [one.study.study_instance_uid for one in desk.finds(patient, Level.STUDY) if one.study]\
        == ["1.2.1"]  # fmt: skip
    assert len(desk.finds(patient, Level.SERIES)) == 2
    assert len(desk.finds(patient, Level.IMAGE)) == 3
    with desk.city.exchange.on_behalf_of(patient) as access:
        assert not exports.ask(access, "1.2.1", without_names=False).without_names
    told = [
        (one["action"], one["outcome"], one["reason"], one["requester"]) for one in desk.trail()
    ]
    assert ("hand out", "success", "a link made for the patient", "dr.li") in told
    assert ("authenticate", "success", "a patient's link opened", "link 1") in told
    assert any(one[:2] == ("retrieve", "success") and one[3] == "link 1" for one in told)


def test_nothing_but_what_the_link_names_is_there_for_who_holds_it(desk: Desk) -> None:
    patient = desk.opened(desk.make())

    for study in ("1.2.2", "1.2.3", "1.2.9"):
        with pytest.raises(NotFound, match="no such study"):
            desk.reads(patient, study)
        with pytest.raises(NotFound), desk.city.exchange.on_behalf_of(patient) as access:
            query.study(access, study)
    with pytest.raises(Refused):
        desk.finds(patient, Level.PATIENT)
    with desk.city.exchange.on_behalf_of(patient) as access:
        assert query.seen(access, range(1, 9)) == frozenset()


def test_who_holds_a_link_does_nothing_but_look(desk: Desk) -> None:
    patient = desk.opened(desk.make())

    for action in Action:
        with pytest.raises(Refused), desk.city.exchange.on_behalf_of(patient) as access:
            access.require(action)


def test_a_link_to_one_series_leads_to_no_other_and_tells_of_no_other(desk: Desk) -> None:
    patient = desk.opened(desk.make(series="1.2.1.2"))

    assert desk.reads(patient, "1.2.1") == desk.reads(patient, "1.2.1", "1.2.1.2") == ["1.2.1.2"]
    with pytest.raises(Refused, match="does not lead there"):
        desk.reads(patient, "1.2.1", "1.2.1.1")
    (study,) = desk.finds(patient, Level.STUDY)
    assert (study.summary.series, study.summary.instances) == (1, 1)
    (series,) = desk.finds(patient, Level.SERIES)
    assert series.series is not None
    assert series.series.series_instance_uid == "1.2.1.2"
    assert len(desk.finds(patient, Level.IMAGE)) == 1
    with desk.city.exchange.on_behalf_of(patient) as access:
        found = query.study(access, "1.2.1")
        (contents,) = query.contents(access, [found]).values()
        (selected,) = retrieval.select_instances(access, Level.STUDY, [], limit=9, purpose="images")
    assert found.summary.instances == len(contents) == len(selected.instances) == 1
    with pytest.raises(NotFound, match="no such series"):
        desk.make(series="1.2.9.1")


def test_each_code_opens_once_and_the_link_ends_with_the_last(desk: Desk) -> None:
    made = desk.make(openings=2)
    assert len(set(made.codes)) == 2
    desk.enter(made, f"{made.codes[0][:4]} {made.codes[0][4:]}")
    with pytest.raises(NotAuthenticated, match="was used; take the next"):
        desk.enter(made, made.codes[0])
    fullwidth = "".join(chr(ord(one) + 0xFEE0) for one in made.codes[1])  # as an IME types them
    last = desk.enter(made, fullwidth)

    with pytest.raises(Gone, match="has ended"):
        desk.enter(made, made.codes[1])
    assert desk.states() == [State.USED_UP]
    assert desk.guest(last) is not None  # who is looking goes on


def test_who_guesses_codes_ends_the_link_and_who_guesses_links_finds_none(desk: Desk) -> None:
    made, other = desk.make(), desk.make()
    with pytest.raises(NotAuthenticated, match="not known"):
        desk.enter(made, secret=made.secret[:-1])
    with pytest.raises(NotAuthenticated, match="code is wrong"):
        desk.enter(made, other.codes[0])  # each link has its own
    wrong = next(f"{one:08}" for one in range(9) if f"{one:08}" not in made.codes)
    for _ in range(patient_links.WRONG - 1):
        with pytest.raises(NotAuthenticated, match="code is wrong"):
            desk.enter(made, wrong)

    with pytest.raises(Gone):
        desk.enter(made)
    assert desk.states() == [State.OPEN, State.LOCKED]


def test_a_link_ends_by_time_and_when_its_maker_leaves_or_takes_it_back(desk: Desk) -> None:
    timed, taken, left = desk.make(), desk.make(), desk.make(desk.wang, "1.2.9")
    sessions = [desk.enter(one) for one in (timed, taken, left)]
    assert None not in [desk.guest(one) for one in sessions]
    with desk.city.exchange.database.writing() as session:
        ended = {"until": datetime.now(UTC) - timedelta(seconds=1)}
        session.execute(update(PatientLink).where(PatientLink.id == timed.link.id).values(ended))
    with (
        pytest.raises(NotFound, match="no link of this number"),
        desk.city.exchange.on_behalf_of(desk.wang) as access,
    ):
        patient_links.revoke(access, taken.link.id)
    with desk.city.exchange.on_behalf_of(desk.desk) as access:  # the hospital's administrators may
        patient_links.revoke(access, taken.link.id)
    with desk.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        users.deactivate(access, "dr.wang")

    assert [desk.guest(one) for one in sessions] == [None, None, None]  # at once
    for made, refusal in ((timed, Gone), (taken, Gone), (left, NotAuthenticated)):
        with pytest.raises(refusal):
            desk.enter(made, made.codes[1])
    assert desk.states(desk.desk) == [State.REVOKED, State.EXPIRED]


def test_a_session_ends_by_signing_out_and_by_itself(desk: Desk) -> None:
    made = desk.make()
    one, two = desk.enter(made, made.codes[0]), desk.enter(made, made.codes[1])
    with desk.city.exchange.on_behalf_of(NOBODY) as access:
        patient_links.end(access, one)
    assert desk.guest(one) is None
    with desk.city.exchange.on_behalf_of(NOBODY) as access:
        past = Lifetime(timedelta(0), timedelta(hours=1))
        assert patient_links.of(access, two, past) is None
    assert desk.guest(two) is not None
    assert desk.guest("link.x") is None


def test_the_secrets_are_kept_nowhere_but_with_the_patient(desk: Desk) -> None:
    made = desk.make()
    session = desk.enter(made)
    with desk.city.exchange.database.reading() as reading:
        kept = " ".join(
            str(vars(row))
            for table in (PatientLink, PatientLinkCode)
            for row in reading.scalars(select(table))
        )
        kept += "".join(one.content for one in audit.latest(reading))
    assert "link opened" in kept
    assert not [one for one in (made.secret, session, *made.codes) if one in kept]


def test_what_another_hospital_sent_is_handed_out_as_long_as_the_policy_permits(
    desk: Desk,
) -> None:
    made = desk.make(desk.wang)  # of Nanhu; the study is Beicheng's
    session = desk.enter(made)
    patient = desk.guest(session)
    assert patient is not None
    assert len(desk.reads(patient, "1.2.1")) == 3
    own = desk.opened(desk.make())
    with desk.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    with pytest.raises(Refused, match="has not consented"):
        desk.reads(patient, "1.2.1")
    assert desk.finds(patient, Level.STUDY) == []
    with pytest.raises(Refused, match="has not consented"):
        desk.enter(made, made.codes[1])
    with pytest.raises(NotFound):
        desk.make(desk.wang)
    assert len(desk.reads(own, "1.2.1")) == 3  # what one's own hospital made is one's own


def test_the_desk_hands_out_what_is_its_hospitals_by_two_numbers(desk: Desk) -> None:
    def at_desk(number: str, accession: str, who: Requester = desk.desk) -> Made:
        with desk.city.exchange.on_behalf_of(who) as access:
            return patient_links.at_desk(access, number, accession)

    assert len(desk.reads(desk.opened(at_desk("P1", "A1")), "1.2.1")) == 3
    for number, accession in (("P2", "A1"), ("P1", "A3"), ("N1", ""), ("", "A1"), ("P1", "")):
        with pytest.raises(NotFound, match="no study with these two numbers"):
            at_desk(number, accession)
    with pytest.raises(NotFound):
        desk.make(desk.desk, "1.2.9")  # another hospital's
    for who in (ADMINISTRATOR, desk.city.system("beicheng")):
        with pytest.raises(Refused):
            at_desk("P1", "A1", who)
    desk.city.send("beicheng", study="1.2.2", instance="1.4.7", AccessionNumber="A4")
    desk.city.send("beicheng", study="1.2.2", instance="1.4.8", AccessionNumber="A5")
    assert [at_desk("P1", one).link.study_instance_uid for one in ("A4", "A5")] == ["1.2.2"] * 2
    desk.city.send("beicheng", study="1.2.4", instance="1.4.6", AccessionNumber="A1")
    with pytest.raises(Invalid, match="several studies"):
        at_desk("P1", "A1")


def test_a_link_has_limits(desk: Desk) -> None:
    for days, openings in ((0, 1), (31, 1), (1, 0), (1, 11)):
        with pytest.raises(Invalid, match="a link lasts"):
            desk.make(days=days, openings=openings)
    with pytest.raises(NotFound):
        desk.make(study="1.2.404")
    assert desk.states() == []


def test_nobody_is_registered_as_a_guest(desk: Desk) -> None:
    with pytest.raises(Invalid), desk.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        users.add(access, name="me", display_name="", role=Role.GUEST, organization="beicheng",
                  password="long enough")  # fmt: skip


VERBS: tuple[Callable[[Access], object], ...] = (
    lambda access: timeline.of(access, 1, Wanted(), limit=9),
    lambda access: people.find(access, "王小东"),
    lambda access: query.patient(access, 1),
    lambda access: clinical.read(access, "Patient", "1"),
    lambda access: clinical.read(access, "Organization", "beicheng"),
    lambda access: clinical.history(access, "Patient", limit=9),
    lambda access: changes.after(access, 0, limit=9),
    changes.latest,
    lambda access: retrieval.rejection_notes(access, "1.2.1"),
    lambda access: shares.colleagues(access, "dr"),
    shares.given,
    patient_links.given,
    lambda access: patient_links.make(access, "1.2.1"),
)


def test_no_other_verb_answers_who_holds_a_link(desk: Desk) -> None:
    patient = desk.opened(desk.make())

    for verb in VERBS:
        with pytest.raises(Refused), desk.city.exchange.on_behalf_of(patient) as access:
            verb(access)

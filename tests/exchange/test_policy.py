"""Who may see what: a refusal beside its permit, and one answer in Python and in SQL."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakSet

import pytest
import ready
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ready import Lender
from region import Region
from sqlalchemy import insert, select
from sqlalchemy.orm import Session, aliased

from exchange import policy, query, retrieval
from exchange.errors import NotFound
from exchange.policy import (
    REPORTING,
    SHARING,
    Action,
    Clinical,
    Deny,
    Facts,
    Permit,
    Purpose,
    Requester,
    Role,
    decide,
    decide_clinical,
    exporting,
    may,
)
from exchange.visibility import Reach, clinical_within, parameters, visible, visible_clinical
from exchange_storage.database import Database
from exchange_storage.records import (
    Agreement,
    Compartment,
    Consent,
    Organization,
    Patient,
    Person,
    Resource,
)
from exchange_storage.search import Level

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CLINICIAN = Requester(
    name="dr", role=Role.CLINICIAN, organization=2, purpose=Purpose.TREATMENT, door="fhir"
)
READING = {Action.SEARCH, Action.RETRIEVE, Action.LOOK_UP, Action.SUBSCRIBE}
SHARED = Facts(owner=1, owner_shares=True, asker_shares=True, opted_out=False)


def test_a_clinician_sees_another_hospitals_record_for_treatment() -> None:
    assert decide(CLINICIAN, Action.SEARCH, SHARED) == Permit("shared for treatment")


@pytest.mark.parametrize(
    ("requester", "facts", "reason"),
    [
        (CLINICIAN, replace(SHARED, owner_shares=False), "owning organization has not joined"),
        (CLINICIAN, replace(SHARED, asker_shares=False), "asking organization has not joined"),
        (CLINICIAN, replace(SHARED, opted_out=True), "has not consented"),
        (replace(CLINICIAN, purpose=Purpose.PUBLIC_HEALTH), SHARED, "for treatment only"),
        (replace(CLINICIAN, purpose=None), SHARED, "for treatment only"),
        (replace(CLINICIAN, organization=None), SHARED, "without an organization"),
        (replace(CLINICIAN, role=Role.ADMINISTRATOR), SHARED, "administrator may not search"),
    ],
)
def test_one_missing_condition_is_enough_for_a_refusal_that_names_it(
    requester: Requester, facts: Facts, reason: str
) -> None:
    decision = decide(requester, Action.SEARCH, facts)

    assert isinstance(decision, Deny)
    assert reason in decision.reason


@pytest.mark.parametrize("purpose", [*Purpose, None])
def test_a_hospital_sees_its_own_records_whatever_the_patient_said_of_sharing(
    purpose: Purpose | None,
) -> None:
    own = Facts(owner=2, owner_shares=False, asker_shares=False, opted_out=True)

    assert isinstance(decide(replace(CLINICIAN, purpose=purpose), Action.SEARCH, own), Permit)


@pytest.mark.parametrize("action", sorted(set(Action) - policy.SHARED))
@pytest.mark.parametrize("role", sorted(set(Role) - {Role.EXCHANGE}))
def test_nothing_but_looking_reaches_another_hospitals_record(role: Role, action: Action) -> None:
    decision = decide(replace(CLINICIAN, role=role), action, SHARED)

    assert isinstance(decision, Deny)


SYSTEM = replace(CLINICIAN, role=Role.SYSTEM)
REPORTED = replace(SHARED, owner_reports=True, asker_reports=True)


def test_a_hospitals_system_has_others_records_for_public_health_by_agreement_of_both() -> None:
    figures = replace(SYSTEM, purpose=Purpose.PUBLIC_HEALTH)
    assert decide(figures, Action.SEARCH, REPORTED) == Permit("shared for public health")
    for facts in (
        SHARED,
        replace(REPORTED, owner_reports=False),
        replace(REPORTED, asker_reports=False),
        replace(REPORTED, opted_out=True),
    ):
        assert isinstance(decide(figures, Action.SEARCH, facts), Deny)
    doctor = replace(figures, role=Role.CLINICIAN)
    assert isinstance(decide(doctor, Action.SEARCH, REPORTED), Deny)


@given(
    requester=st.builds(
        Requester,
        name=st.just("somebody"),
        role=st.sampled_from(Role),
        organization=st.none() | st.sampled_from((1, 2)),
        purpose=st.none() | st.sampled_from(Purpose),
    ),
    facts=st.builds(Facts, **dict.fromkeys(
        ("owner_shares", "asker_shares", "opted_out", "owner_reports", "asker_reports"),
        st.booleans(),
    ), owner=st.sampled_from((1, 2))),
)  # fmt: skip
def test_all_records_are_exported_by_a_hospitals_system_and_others_by_agreement_only(
    requester: Requester, facts: Facts
) -> None:
    if isinstance(may(requester, Action.EXPORT), Deny):
        assert requester.role is not Role.SYSTEM or requester.organization is None
        return
    permitted = isinstance(decide(exporting(requester), Action.RETRIEVE, facts), Permit)
    agreed = facts.owner_reports and facts.asker_reports and not facts.opted_out
    reported = requester.purpose is Purpose.PUBLIC_HEALTH and agreed
    assert permitted == (facts.owner == requester.organization or reported)


OWN = Clinical(owner=2, is_directory=False, patients=(replace(SHARED, owner=2),))


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(OWN, owner=1), "only who wrote it"),
        (replace(OWN, owner=None), "only who wrote it"),
        (replace(OWN, patients=(*OWN.patients, SHARED)), "what is another hospital's"),
    ],
)
def test_a_hospital_writes_its_own_resource_of_its_own_patients_and_no_other(
    facts: Clinical, reason: str
) -> None:
    assert isinstance(decide_clinical(CLINICIAN, Action.RECORD, OWN), Permit)

    decision = decide_clinical(CLINICIAN, Action.RECORD, facts)

    assert isinstance(decision, Deny)
    assert reason in decision.reason


def test_only_what_is_in_the_directory_is_published_and_by_who_wrote_it() -> None:
    entry = Clinical(owner=2, is_directory=True, patients=())

    assert isinstance(decide_clinical(CLINICIAN, Action.PUBLISH, entry), Permit)
    assert isinstance(decide_clinical(CLINICIAN, Action.PUBLISH, replace(entry, owner=1)), Deny)
    assert isinstance(decide_clinical(CLINICIAN, Action.PUBLISH, OWN), Deny)


def test_a_subscription_is_its_owners_and_their_administrators() -> None:
    theirs = Clinical(owner=2, is_directory=False, patients=(), whose="dr")
    colleague = replace(CLINICIAN, name="dr.other")
    administrator = replace(CLINICIAN, name="admin", role=Role.ADMINISTRATOR)

    for asker in (CLINICIAN, administrator):
        assert isinstance(decide_clinical(asker, Action.SUBSCRIBE, theirs), Permit)
    for asker in (
        colleague,
        replace(CLINICIAN, organization=1),
        replace(administrator, organization=1),
        replace(administrator, organization=None),
    ):
        assert isinstance(decide_clinical(asker, Action.SUBSCRIBE, theirs), Deny)
    assert isinstance(decide_clinical(administrator, Action.SUBSCRIBE, OWN), Deny)
    assert isinstance(decide_clinical(colleague, Action.RETRIEVE, theirs), Deny)


def test_every_action_and_every_role_stand_in_the_table() -> None:
    assert set(policy._ROLES) == set(Action)
    assert set().union(*policy._ROLES.values()) == set(Role)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", Role)
def test_a_role_may_do_what_the_table_says_and_nothing_else(role: Role, action: Action) -> None:
    asker = replace(CLINICIAN, role=role)

    assert isinstance(may(asker, action), Permit) == (role in policy._ROLES[action])


@dataclass(frozen=True, slots=True)
class World:
    """Some hospitals with agreements, patients of theirs, and what the patients said."""

    agreements: tuple[tuple[int, str, int, int | None], ...]
    """Hospital, kind, first and last hour from now."""
    patients: tuple[tuple[int, int | None], ...]
    """Hospital, and person where the record is linked."""
    consents: tuple[tuple[int, str, bool, int | None, int | None], ...]
    """Index of the patient, decision, whether it has ended, first and last hour from now."""
    resources: tuple[tuple[int | None, bool, tuple[int, ...], str], ...] = ()
    """Hospital that wrote it, whether it is in the directory, its patients' indexes, and whose."""

    def shares(self, hospital: int | None, agreement: str = SHARING) -> bool:
        return any(
            owner == hospital and kind == agreement and since <= 0 and (until is None or until > 0)
            for owner, kind, since, until in self.agreements
        )

    def opted_out(self, index: int) -> bool:
        _, person = self.patients[index]
        same = {
            other
            for other, (_, whose) in enumerate(self.patients)
            if other == index or (person is not None and whose == person)
        }
        in_force = [
            (about, decision)
            for about, decision, ended, since, until in self.consents
            if not ended and (since is None or since <= 0) and (until is None or until > 0)
        ]
        return any(
            about in same and decision == "deny" and (about, "permit") not in in_force[at:]
            for at, (about, decision) in enumerate(in_force)
        )

    def facts(self, index: int, requester: Requester) -> Facts:
        owner, _ = self.patients[index]
        return Facts(
            owner=owner,
            owner_shares=self.shares(owner),
            asker_shares=self.shares(requester.organization),
            opted_out=self.opted_out(index),
            owner_reports=self.shares(owner, REPORTING),
            asker_reports=self.shares(requester.organization, REPORTING),
        )

    def clinical(self, index: int, requester: Requester) -> Clinical:
        owner, is_directory, patients, whose = self.resources[index]
        return Clinical(
            owner=owner,
            is_directory=is_directory,
            patients=tuple(self.facts(one, requester) for one in self.about(patients)),
            whose=whose,
        )

    def about(self, patients: tuple[int, ...]) -> list[int]:
        return [one for one in patients if one < len(self.patients)]

    def keep(self, session: Session) -> None:
        for row in (1, 2, 3):
            session.execute(
                insert(Organization).values(
                    id=row, code=f"h{row}", name="", credit_code=str(row), issuer=f"2.25.{row}",
                    registered=NOW,
                )
            )  # fmt: skip
            session.execute(insert(Person).values(id=row, resident_id=str(row), created=NOW))
        for owner, kind, since, until in dict.fromkeys(self.agreements):
            ends = None if until is None else NOW + timedelta(hours=until)
            session.add(
                Agreement(
                    organization_id=owner,
                    kind=kind,
                    since=NOW + timedelta(hours=since),
                    until=ends,
                )
            )
        told = {"name", "birth_date", "sex", "address", "telephone", "mothers_birth_name"}
        for index, (owner, person) in enumerate(self.patients):
            session.execute(
                insert(Patient).values(
                    id=index + 1, organization_id=owner, patient_id=str(index), person_id=person,
                    created=NOW, changed=NOW, **dict.fromkeys(told, ""),
                )
            )  # fmt: skip
        for about, decision, ended, first, last in self.consents:
            if about < len(self.patients):
                session.add(
                    Consent(
                        patient_id=about + 1,
                        decision=decision,
                        recorded=NOW,
                        recorded_by="",
                        ended=NOW if ended else None,
                        since=None if first is None else NOW + timedelta(hours=first),
                        until=None if last is None else NOW + timedelta(hours=last),
                    )
                )
                session.flush()  # in the order in which they were said
        for index, (writer, is_directory, patients, whose) in enumerate(self.resources, 1):
            rows = [one + 1 for one in self.about(patients)]
            first_row = rows[0] if rows else None
            session.execute(
                insert(Resource).values(
                    id=index, kind="Observation", logical_id=str(index), version=1, changed=NOW,
                    organization_id=writer, patient_id=first_row,
                    is_directory=is_directory,
                    has_others=len(rows) > 1, deleted=False, whose=whose,
                )
            )  # fmt: skip
            for other in rows[1:]:
                session.execute(insert(Compartment).values(resource_id=index, patient_id=other))
        session.flush()


hospitals = st.sampled_from((1, 2, 3))
agreement = st.tuples(
    hospitals,
    st.sampled_from((SHARING, SHARING, REPORTING, REPORTING, "research")),
    st.sampled_from((-2, -1, 0, 1)),
    st.sampled_from((None, -1, 0, 1)),
)
worlds = st.builds(
    World,
    # One agreement for each hospital, kind and beginning, as the database keeps them.
    st.lists(agreement, max_size=6, unique_by=lambda one: one[:3]).map(tuple),
    st.lists(st.tuples(hospitals, st.none() | hospitals), min_size=1, max_size=5).map(tuple),
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.sampled_from(("deny", "permit")),
            st.booleans(),
            st.sampled_from((None, None, -1, 0, 1)),
            st.sampled_from((None, None, -1, 0, 1)),
        ),
        max_size=4,
    ).map(tuple),
    st.lists(
        st.tuples(
            st.none() | hospitals,
            st.booleans(),
            st.lists(st.integers(0, 4), max_size=3, unique=True).map(tuple),
            st.sampled_from(("", "", "somebody", "dr", "somebody else")),
        ),
        max_size=4,
    ).map(tuple),
)
requesters = st.builds(
    Requester,
    name=st.just("somebody"),
    role=st.sampled_from(Role),
    organization=st.none() | hospitals,
    purpose=st.none() | st.sampled_from(Purpose),
    rejected=st.booleans(),
)


def agree(database: Database, world: World, requester: Requester, action: Action) -> None:
    """Hold the two forms of the policy to each other in one world."""
    decided = [
        index
        for index in range(len(world.patients))
        if isinstance(decide(requester, action, world.facts(index, requester)), Permit)
    ]
    with database.writing() as session:
        world.keep(session)
        selected = session.scalars(
            select(Patient.id).where(visible(requester, action)).order_by(Patient.id),
            parameters(requester, NOW),
        ).all()
        withheld = session.scalars(
            select(Patient.id).where(~visible(requester, action)).order_by(Patient.id),
            parameters(requester, NOW),
        ).all()
        shown: Sequence[int] = ()
        if action in READING:
            shown = session.scalars(
                select(Resource.id)
                .where(visible_clinical(requester, action))
                .order_by(Resource.id),
                parameters(requester, NOW),
            ).all()
        session.rollback()
    if action in READING:
        assert [row - 1 for row in shown] == [
            index
            for index in range(len(world.resources))
            if isinstance(
                decide_clinical(requester, action, world.clinical(index, requester)), Permit
            )
        ]
    assert [row - 1 for row in selected] == decided
    if action is Action.SEARCH:  # what `query` counts as withheld is all the rest
        assert sorted([*selected, *withheld]) == [*range(1, len(world.patients) + 1)]


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    made = Database(ready.sqlite(tmp_path_factory.mktemp("policy") / "exchange.sqlite"))
    yield made
    made.close()


@settings(max_examples=250, deadline=None)
@given(world=worlds, requester=requesters, action=st.sampled_from(Action))
def test_what_is_decided_for_each_record_is_what_sql_selects(
    on_sqlite: Database, world: World, requester: Requester, action: Action
) -> None:
    agree(on_sqlite, world, requester, action)


@settings(max_examples=150, deadline=None)
@given(world=worlds, organization=hospitals)
def test_what_a_clinician_may_see_is_what_sql_selects(
    on_sqlite: Database, world: World, organization: int
) -> None:
    agree(on_sqlite, world, replace(CLINICIAN, organization=organization), Action.SEARCH)


@pytest.fixture(scope="module")
def on_postgresql(lender: Lender) -> Iterator[Database]:
    with lender.lent() as url:
        made = Database(url)
        yield made
        made.close()


@settings(max_examples=40, deadline=None, phases=set(Phase) - {Phase.shrink})
@given(world=worlds, requester=requesters, action=st.sampled_from(Action))
def test_postgresql_selects_the_same(
    on_postgresql: Database, world: World, requester: Requester, action: Action
) -> None:
    agree(on_postgresql, world, requester, action)


def test_a_search_and_a_retrieval_are_decided_alike_before_and_after_a_hospital_leaves(
    city: Region,
) -> None:
    city.send("beicheng", study="1.2.1", instance="1.4.1")
    doctor = city.clinician("nanhu")

    def studies() -> int:
        with city.exchange.on_behalf_of(doctor) as access:
            return len(query.find(access, Level.STUDY, [], limit=10).found)

    with city.exchange.on_behalf_of(doctor) as access:
        assert len(retrieval.instances(access, "1.2.1").instances) == 1
    assert studies() == 1

    with city.exchange.database.writing() as session:
        for left in session.scalars(
            select(Agreement).where(Agreement.organization_id == city.ids["beicheng"])
        ):
            left.until = datetime.now(UTC)

    assert studies() == 0
    with (
        pytest.raises(NotFound, match="no such study"),
        city.exchange.on_behalf_of(doctor) as access,
    ):
        retrieval.instances(access, "1.2.1")


def test_the_conditions_of_questions_that_are_asked_no_more_are_forgotten() -> None:
    asked: WeakSet[Any] = WeakSet()
    for _ in range(300):
        one = aliased(Resource)
        clinical_within(Reach.SHARED, one)
        asked.add(one)
    del one
    gc.collect()
    assert len(asked) <= 100

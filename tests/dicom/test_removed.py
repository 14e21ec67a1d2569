"""Associations that outlive what they were opened on: a system, a user, an agreement, a consent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from caller import (
    CT,
    EXPLICIT,
    FRAGMENT,
    IMPLICIT,
    STUDY_FIND,
    SUCCESS,
    VERIFICATION,
    Caller,
    Hung,
    element,
    image,
    store_request,
    value,
)
from images import ct
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from region import ADMINISTRATOR, ID_CARD
from retrieving import (
    STUDY,
    asked,
    get,
    known_at_two_hospitals,
    listens,
    move,
    outcomes,
    send,
    workstation,
)
from serving import Served, serving

from exchange import admission, audit, consent, membership, organizations, registry, users
from exchange.admission import UserIdentity
from exchange.errors import Unavailable
from exchange.organizations import Entity
from exchange.policy import Person, Role
from exchange_dicom import node, retrieve
from exchange_dicom.pdu import (
    COMMAND,
    LAST,
    Abort,
    AbortReason,
    AbortSource,
    AssociateReject,
    RejectReason,
    UserIdentityType,
)
from exchange_dicom.pdu import UserIdentity as Named

AGAIN = 0.05
"""Seconds for which a node of these tests remembers who is registered."""

NOT_AUTHORIZED = 0x0124

ABORTED = (Abort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED),)

BEICHENG = Entity(title="BEICHENG", address="127.0.0.1")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Served]:
    """A node that finds out who was removed by nothing but their next message."""
    monkeypatch.setattr(registry, "SECONDS", AGAIN)
    monkeypatch.setattr(node, "ROUND_SECONDS", 3600.0)
    monkeypatch.setattr(retrieve, "DECIDED_SECONDS", 0.0)
    with serving(tmp_path, database_url=database_url) as made:
        yield made


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Served]:
    """A node that looks at idle associations every moment."""
    monkeypatch.setattr(registry, "SECONDS", AGAIN)
    monkeypatch.setattr(node, "ROUND_SECONDS", AGAIN)
    with serving(
        tmp_path,
        database_url=database_url,
        verifying=lambda _: lambda _identity, _of: Person(name="dr.wang", verified=True),
    ) as made:
        yield made


def changed(served: Served, change: str, entity: Entity) -> None:
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        getattr(organizations, change)(access, "beicheng", entity)
    time.sleep(2 * AGAIN)


def wait_until(holds: Callable[[], bool]) -> None:
    late = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < late
        time.sleep(AGAIN)


def trail(served: Served) -> list[dict[str, Any]]:
    with served.city.exchange.database.reading() as session:
        return [json.loads(record.content) for record in audit.latest(session, 10)]


@pytest.mark.parametrize("service", ["echo", "store", "find"])
def test_a_system_that_was_removed_is_served_no_longer_in_an_association_it_has(
    served: Served, service: str
) -> None:
    contexts = ((VERIFICATION, (IMPLICIT,)), (CT, (EXPLICIT,)), (STUDY_FIND, (EXPLICIT,)))
    with Caller(served.port, *contexts) as pacs:
        services = {
            "echo": lambda: pacs.echo(),
            "store": lambda: pacs.store(image(instance="1.4.7"), "1.4.7").status,
            "find": lambda: pacs.find(b"")[-1][0].status,
        }
        assert pacs.echo() == SUCCESS
        changed(served, "remove_entity", Entity(title="BEICHENG", address="127.0.0.1"))

        with pytest.raises(Hung) as hung:
            services[service]()

    assert hung.value.args == ABORTED
    assert served.held() == (0, 0, 0)
    refused = trail(served)[0]
    assert (refused["outcome"], refused["requester"]) == ("refused", "BEICHENG")
    assert refused["reason"] == "unknown AE title"


def test_pynetdicom_sees_its_association_aborted_once_its_system_was_removed(
    served: Served,
) -> None:
    entity = AE("BEICHENG")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", served.port, ae_title="EXCHANGE")
    assert association.send_c_echo().Status == SUCCESS
    changed(served, "remove_entity", Entity(title="BEICHENG", address="127.0.0.1"))

    assert "Status" not in association.send_c_echo()

    association.join(5)
    assert association.is_aborted


def test_a_system_that_is_registered_for_another_address_now_is_served_no_longer(
    served: Served,
) -> None:
    with Caller(served.port) as pacs:
        assert pacs.echo() == SUCCESS
        changed(served, "add_entity", Entity(title="BEICHENG", address="192.0.2.9"))
        assert pacs.echo() == SUCCESS  # as well
        changed(served, "remove_entity", Entity(title="BEICHENG", address="127.0.0.1"))
        with pytest.raises(Hung):
            pacs.echo()


def test_what_changes_of_others_leaves_an_association_alone(served: Served) -> None:
    with Caller(served.port) as pacs:
        changed(served, "add_entity", Entity(title="CT1", address="127.0.0.1"))
        assert pacs.store(image(), "1.4.1").status == SUCCESS
        changed(served, "remove_entity", Entity(title="CT1", address="127.0.0.1"))
        assert pacs.echo() == SUCCESS
        pacs.release()


def test_a_system_that_looks_at_what_was_rejected_from_now_on_does_so_in_its_association(
    served: Served,
) -> None:
    question = b"\x08\x00\x52\x00CS\x06\x00STUDY \x20\x00\x0d\x00UI\x06\x001.2.1\x00"
    with Caller(served.port, (CT, (EXPLICIT,)), (STUDY_FIND, (EXPLICIT,))) as pacs:
        assert pacs.store(image(), "1.4.1").status == SUCCESS
        assert len(pacs.find(question)) == 2
        entity = Entity(title="BEICHENG", address="127.0.0.1", sees_rejected=True)
        changed(served, "replace_entity", entity)
        assert len(pacs.find(question)) == 1  # nothing of it is rejected


def test_a_hospital_that_shares_no_longer_finds_nothing_of_others_in_an_open_association(
    served: Served, tmp_path: Path
) -> None:
    known_at_two_hospitals(served, tmp_path, 1)
    question = b"\x08\x00\x52\x00CS\x06\x00STUDY \x10\x00\x20\x00LO\x02\x00N7"
    with Caller(served.port, (STUDY_FIND, (EXPLICIT,)), calling="NANHU") as pacs:
        assert len(pacs.find(question)) == 3
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            organizations.end_agreement(access, "nanhu")
        assert len(pacs.find(question)) == 2  # its own study


def test_an_idle_association_of_a_system_that_was_removed_ends_by_itself_and_no_other_does(
    watched: Served,
) -> None:
    with (
        Caller(watched.port) as pacs,
        Caller(watched.port) as silent,
        Caller(watched.port, calling="NANHU") as other,
    ):
        assert pacs.store(image(), "1.4.1").status == SUCCESS
        changed(watched, "remove_entity", BEICHENG)
        for one in (pacs, silent):
            with pytest.raises(Hung) as hung:
                one.message()
            assert hung.value.args == ABORTED
        assert other.echo() == SUCCESS
        other.release()
    refused = trail(watched)[0]
    assert (refused["outcome"], refused["reason"]) == ("refused", "unknown AE title")
    assert watched.held() == (1, 1, 0)


def test_what_a_system_is_sending_when_it_is_removed_is_kept_and_then_its_association_ends(
    watched: Served,
) -> None:
    with Caller(watched.port) as pacs:
        context, _ = pacs.contexts[CT]
        pacs.send(value(context, COMMAND | LAST, store_request(1, CT, "1.4.1")))
        # More than lies between the two: what was sent has been begun to be read.
        whole = image(pixels=element(0x7FE00010, "OW", bytes(64 << 20)))
        parts = [whole[at : at + FRAGMENT] for at in range(0, len(whole), FRAGMENT)]
        pacs.send(*(value(context, 0, part) for part in parts[:-1]))
        changed(watched, "remove_entity", BEICHENG)
        pacs.send(value(context, LAST, parts[-1]))
        answer, _ = pacs.message()
        assert answer.status == SUCCESS
        with pytest.raises(Hung) as hung:
            pacs.message()
    assert hung.value.args == ABORTED
    assert watched.held() == (1, 1, 0)


def test_the_idle_association_of_a_user_who_was_deactivated_ends_by_itself(
    watched: Served,
) -> None:
    exchange = watched.city.exchange
    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        admission.name_users(access, "beicheng", UserIdentity.REQUIRE)
        users.add(
            access,
            name="dr.wang",
            display_name="",
            role=Role.CLINICIAN,
            organization="beicheng",
            password="correct horse battery",
        )
    with Caller(watched.port, identity=Named(UserIdentityType.USERNAME, False, b"dr.wang")) as pacs:
        assert pacs.echo() == SUCCESS
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            users.deactivate(access, "dr.wang")
        with pytest.raises(Hung) as hung:
            pacs.message()
    assert hung.value.args == ABORTED
    assert trail(watched)[0]["reason"] == "the user of the association may not sign in any more"


def test_the_associations_of_a_hospital_that_was_deactivated_end_and_no_new_one_begins(
    watched: Served,
) -> None:
    with Caller(watched.port) as pacs, Caller(watched.port, calling="NANHU") as other:
        with watched.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            membership.deactivate(access, "beicheng")
        with pytest.raises(Hung) as hung:
            pacs.message()
        assert hung.value.args == ABORTED
        with pytest.raises(Hung) as refused:
            Caller(watched.port)
        assert refused.value.args == (
            AssociateReject(RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED),
        )
        assert other.echo() == SUCCESS
        other.release()
    assert trail(watched)[0]["reason"] == "the organization was deactivated"


def test_an_idle_association_outlives_what_changes_of_its_own_system(watched: Served) -> None:
    with Caller(watched.port) as pacs:
        for looks in (True, False):
            changed(watched, "replace_entity", replace(BEICHENG, sees_rejected=looks))
        assert pacs.store(image(), "1.4.1").status == SUCCESS
        pacs.release()


@pytest.mark.parametrize("how", ["agreement", "consent"])
@pytest.mark.parametrize("by", ["move", "get"])
def test_a_retrieval_that_is_under_way_ends_where_the_rest_may_not_be_had_any_more(
    served: Served, tmp_path: Path, how: str, by: str
) -> None:
    known_at_two_hospitals(served, tmp_path)
    wanted = asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)

    def forbid() -> None:
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            if how == "agreement":
                organizations.end_agreement(access, "beicheng")
            else:
                consent.opt_out(access, "beicheng", "P1")

    with workstation("NANHU-WS") as ws:
        if by == "move":
            listens(served, "nanhu", "NANHU-WS", ws.port)
            ws.meanwhile = lambda: None if ws.received else forbid()
            answers = move(served, "NANHU", "NANHU-WS", wanted)
            arrived = ws.received
        else:
            answers, arrived = get(
                served, "NANHU", wanted, meanwhile=lambda got: None if got else forbid()
            )

    final, failed = answers[-1]
    assert final.Status == NOT_AUTHORIZED
    assert len(arrived) == final.NumberOfCompletedSuboperations == 1
    assert final.NumberOfFailedSuboperations == 2
    assert failed is not None
    assert len(failed.FailedSOPInstanceUIDList) == 2
    (ended,) = outcomes(served)
    assert (ended["completed"], ended["failed"], ended["outcome"]) == (1, 2, "failed")
    assert any(
        (one["action"], one["outcome"], one["study"]) == ("retrieve", "refused", STUDY)
        for one in trail(served)
    )


def test_a_retrieval_of_a_system_that_was_removed_is_broken_off(
    served: Served, tmp_path: Path
) -> None:
    own = [tmp_path / f"{number}.dcm" for number in range(3)]
    for number, path in enumerate(own):
        ct(path, patient="P1", study=STUDY, series=f"{STUDY}.1", number=number + 1, card=ID_CARD)
    send(served, "BEICHENG", *own)

    def remove(got: list[Dataset]) -> None:
        if not got:
            changed(served, "remove_entity", Entity(title="BEICHENG", address="127.0.0.1"))

    wanted = asked("STUDY", PatientID="P1", StudyInstanceUID=STUDY)
    answers, _ = get(served, "BEICHENG", wanted, meanwhile=remove)

    assert "Status" not in answers[-1][0]  # aborted
    wait_until(lambda: bool(outcomes(served)))
    (ended,) = outcomes(served)
    assert (ended["completed"], ended["unsent"], ended["outcome"]) == (1, 2, "failed")


def test_a_process_reads_who_is_registered_every_two_seconds_however_much_it_is_sent(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SECONDS", 2.0)
    now = 100.0
    watch = registry.Watch(served.city.exchange, clock=lambda: now)
    before = watch.revision()
    changed(served, "add_entity", Entity(title="CT1", address="127.0.0.1"))
    now += 1.9
    assert {watch.revision() for _ in range(1000)} == {before}
    now += 0.2
    assert watch.revision() == before + 1


def test_while_the_index_does_not_answer_what_was_known_holds(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    watch = registry.Watch(served.city.exchange, clock=lambda: now)
    before = watch.revision()

    def away(_: object) -> int:
        raise Unavailable("the index does not answer")

    monkeypatch.setattr(registry.Watch, "_read", away)
    now += 10
    assert watch.revision() == before

"""UPS-RS: whoever watches a workitem or the worklist is told what becomes of it, once connected."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydicom.dataset import Dataset
from region import WORKER
from sqlalchemy import func, select
from web_door import Door, empty, opened
from websockets.exceptions import InvalidStatus
from worklist_door import (
    change,
    code,
    created,
    elements,
    event,
    is_silent,
    listening,
    new_uid,
    performer,
    sent,
    states,
    subscribe,
    to_state,
)

from exchange import watching, workitems
from exchange.errors import Refused, TooLarge
from exchange.watching import FILTERED, GLOBAL, Status
from exchange.workitem_attributes import SOP_CLASS
from exchange_dicom import web_notifications
from exchange_storage.records import WorkitemEvent, WorkitemSubscription


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door for all of these tests: each has subscribers of its own."""
    with empty(tmp_path_factory.mktemp("watched")) as made:
        yield made


def unsubscribe(desk: Door, title: str, uid: str, who: str = "beicheng") -> int:
    return sent(desk, f"workitems/{uid}/subscribers/{title}", who=who, method="DELETE").status_code


def suspend(desk: Door, title: str, uid: str = GLOBAL) -> int:
    return sent(desk, f"workitems/{uid}/subscribers/{title}/suspend").status_code


def subscriptions(desk: Door, title: str) -> int:
    with desk.city.exchange.database.reading() as session:
        return session.execute(
            select(func.count())
            .select_from(WorkitemSubscription)
            .where(WorkitemSubscription.subscriber == title)
        ).scalar_one()


def waiting(desk: Door, title: str) -> int:
    with desk.city.exchange.database.reading() as session:
        return session.execute(
            select(func.count()).select_from(WorkitemEvent).where(WorkitemEvent.subscriber == title)
        ).scalar_one()


def test_a_subscriber_of_one_workitem_is_told_of_its_life(desk: Door) -> None:
    uid, other = created(desk), created(desk)
    answer = subscribe(desk, "WATCH1", uid)
    assert answer.status_code == 201
    socket_url = f"ws{desk.root.removeprefix('http')}/ws/subscribers/WATCH1"
    assert answer.headers["Content-Location"] == socket_url

    with listening(desk, "WATCH1") as socket:
        first = event(socket)
        assert first.pop("message")
        assert first == {
            "type": 1,
            "workitem": uid,
            "class": SOP_CLASS,
            "ProcedureStepState": "SCHEDULED",
            "InputReadinessState": "READY",
        }
        to_state(desk, uid, "IN PROGRESS")
        to_state(desk, other, "IN PROGRESS")
        to_state(desk, uid, "CANCELED")
        assert states(socket, 1) == [(uid, "IN PROGRESS")]
        canceled = event(socket)
        assert canceled["ProcedureStepState"] == "CANCELED"
        (reason,) = canceled["ProcedureStepDiscontinuationReasonCodeSequence"]
        assert reason.CodeValue == "110513"
        assert is_silent(desk, socket, "WATCH1")


def test_a_subscriber_is_told_of_progress_readiness_and_assignment(desk: Door) -> None:
    uid = created(desk, InputReadinessState="INCOMPLETE")
    subscribe(desk, "WATCH2", uid)
    with listening(desk, "WATCH2") as socket:
        event(socket)
        change(desk, uid, WorklistLabel="X")
        change(desk, uid, InputReadinessState="READY")
        change(desk, uid, ScheduledStationNameCodeSequence=[code("ST9")])
        human = performer("北城医院")
        human.HumanPerformerCodeSequence = [code("DR7")]
        change(desk, uid, ScheduledHumanPerformersSequence=[human])
        to_state(desk, uid, "IN PROGRESS")
        progress = Dataset()
        progress.ProcedureStepProgress = "50"
        change(desk, uid, "2.25.1", ProcedureStepProgressInformationSequence=[progress])

        assert event(socket)["InputReadinessState"] == "READY"
        to_station, to_human = event(socket), event(socket)
        assert (to_station["type"], to_human["type"]) == (5, 5)
        assert to_station["ScheduledStationNameCodeSequence"][0].CodeValue == "ST9"
        assert to_human["HumanPerformerCodeSequence"][0].CodeValue == "DR7"
        assert to_human["HumanPerformerOrganization"] == "北城医院"
        assert event(socket)["ProcedureStepState"] == "IN PROGRESS"
        told = event(socket)
        assert told["type"] == 3
        assert told["ProcedureStepProgressInformationSequence"][0].ProcedureStepProgress == 50


def test_who_does_it_is_told_that_somebody_asks_for_a_cancellation(desk: Door) -> None:
    uid = created(desk)
    subscribe(desk, "READER", uid)
    with listening(desk, "READER") as socket:
        event(socket)
        to_state(desk, uid, "IN PROGRESS")
        event(socket)
        told = elements(ReasonForCancellation="病人已转院", ContactDisplayName="李护士")
        assert sent(desk, f"workitems/{uid}/cancelrequest", told).status_code == 202

        asked = event(socket)
        assert (asked["type"], asked["RequestingAE"]) == (2, "BEICHENG")
        assert (asked["ReasonForCancellation"], asked["ContactDisplayName"]) == (
            "病人已转院",
            "李护士",
        )


def test_who_watches_the_worklist_is_told_of_all_that_comes(desk: Door) -> None:
    there = created(desk)
    assert subscribe(desk, "ALL", GLOBAL).status_code == 201
    with listening(desk, "ALL") as socket:
        to_state(desk, there, "IN PROGRESS")  # subscribed to, without an initial report
        new = created(desk, ScheduledStationNameCodeSequence=[code("ST1")])
        assert states(socket, 2) == [(there, "IN PROGRESS"), (new, "SCHEDULED")]
        assert event(socket)["type"] == 5
        assert subscriptions(desk, "ALL") >= 2

        assert suspend(desk, "ALL") == 200
        created(desk)
        to_state(desk, new, "IN PROGRESS")
        assert states(socket, 1) == [(new, "IN PROGRESS")]
        assert suspend(desk, "ALL") == 404

        assert unsubscribe(desk, "ALL", GLOBAL) == 200
        assert subscriptions(desk, "ALL") == 0
        to_state(desk, new, "CANCELED")
        assert is_silent(desk, socket, "ALL")
        assert unsubscribe(desk, "ALL", GLOBAL) == 200  # from the one that showed the silence
        assert unsubscribe(desk, "ALL", GLOBAL) == 404


def test_with_a_lock_there_is_a_report_of_each_that_is_there(desk: Door) -> None:
    uid = created(desk)
    subscribe(desk, "LOCKS", GLOBAL, deletionlock="true")
    with listening(desk, "LOCKS") as socket:
        assert (uid, "SCHEDULED") in states(socket, subscriptions(desk, "LOCKS"))
        new = created(desk)
        assert states(socket, 1) == [(new, "SCHEDULED")]
    with desk.city.exchange.database.reading() as session:
        locks = session.scalars(
            select(WorkitemSubscription.deletion_lock).where(
                WorkitemSubscription.subscriber == "LOCKS"
            )
        )
        assert all(locks)
    unsubscribe(desk, "LOCKS", GLOBAL)


def test_who_watches_what_matches_is_told_of_that(desk: Door) -> None:
    station = "ScheduledStationNameCodeSequence.CodeValue"
    mine = [code("MY1")]
    there = created(desk, ScheduledStationNameCodeSequence=mine)
    created(desk)
    answer = subscribe(
        desk, "MINE", FILTERED, filter=f"{station}=MY*,PatientID=P1", deletionlock="true"
    )
    assert answer.status_code == 201

    with listening(desk, "MINE") as socket:
        assert states(socket, 1) == [(there, "SCHEDULED")]
        created(desk)
        created(desk, ScheduledStationNameCodeSequence=mine, PatientID="P2")
        new = created(desk, ScheduledStationNameCodeSequence=mine)
        assert states(socket, 1) == [(new, "SCHEDULED")]
        assert event(socket)["type"] == 5
        assert is_silent(desk, socket, "MINE")

        assert suspend(desk, "MINE", FILTERED) == 200
        created(desk, ScheduledStationNameCodeSequence=mine)
        to_state(desk, new, "IN PROGRESS")
        assert states(socket, 1) == [(new, "IN PROGRESS")]
    assert unsubscribe(desk, "MINE", FILTERED) == 200


def test_another_hospital_watches_what_is_assigned_to_it(desk: Door) -> None:
    subscribe(desk, "REMOTE", GLOBAL, who="nanhu")
    with listening(desk, "REMOTE", "nanhu") as socket:
        created(desk)
        uid = created(desk, ScheduledHumanPerformersSequence=[performer("nanhu")])
        assert states(socket, 1) == [(uid, "SCHEDULED")]
        assert event(socket)["type"] == 5

        later = created(desk)
        assert is_silent(desk, socket, "REMOTE", "nanhu", to_all=True)
        change(desk, later, ScheduledHumanPerformersSequence=[performer("nanhu")])
        assert states(socket, 1) == [(later, "SCHEDULED")]
        assert event(socket)["type"] == 5

        # No longer its own to know of, it hears no more.
        change(desk, later, ScheduledHumanPerformersSequence=[performer("beicheng")])
        to_state(desk, later, "IN PROGRESS")
        assert is_silent(desk, socket, "REMOTE", "nanhu", to_all=True)
    unsubscribe(desk, "REMOTE", GLOBAL, who="nanhu")


def test_what_was_missed_is_told_on_the_next_connection(desk: Door) -> None:
    uid = created(desk)
    subscribe(desk, "AWAY", uid)
    with listening(desk, "AWAY") as socket:
        event(socket)
    to_state(desk, uid, "IN PROGRESS")
    to_state(desk, uid, "CANCELED")

    with listening(desk, "AWAY") as socket:
        assert states(socket, 2) == [(uid, "IN PROGRESS"), (uid, "CANCELED")]
        socket.close_timeout = 0
        socket.socket.close()  # and not in order: it may not have got them

    with listening(desk, "AWAY") as socket:
        assert states(socket, 2) == [(uid, "IN PROGRESS"), (uid, "CANCELED")]


def test_it_does_not_matter_which_process_the_change_came_by(desk: Door) -> None:
    uid = created(desk)
    subscribe(desk, "ELSE", uid)
    with opened(desk.city) as other, listening(other, "ELSE") as socket:
        assert states(socket, 1) == [(uid, "SCHEDULED")]
        to_state(desk, uid, "IN PROGRESS")
        assert states(socket, 1) == [(uid, "IN PROGRESS")]


def test_what_was_sent_a_while_ago_is_kept_no_longer(
    desk: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_notifications, "HELD", 0.0)
    uid = created(desk)
    subscribe(desk, "DONE", uid)
    with listening(desk, "DONE") as socket:
        event(socket)
        for state in ("IN PROGRESS", "CANCELED"):
            to_state(desk, uid, state)
            event(socket)
        assert is_silent(desk, socket, "DONE")
        assert waiting(desk, "DONE") <= 2


def test_a_connection_lasts_as_long_as_its_token(
    desk: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_notifications, "AGAIN", -1.0)
    monkeypatch.setattr(web_notifications, "HELD", 0.1)
    uid = created(desk)
    subscribe(desk, "TOKEN", uid)
    with listening(desk, "TOKEN") as socket:
        event(socket)
        code_ = desk.city.ids.pop("beicheng")  # so that its token is not good any more
        try:
            with pytest.raises(Exception, match="1008"):
                socket.recv(timeout=120)
        finally:
            desk.city.ids["beicheng"] = code_


@pytest.mark.parametrize(
    ("who", "title", "http"),
    [("stranger", "A", 401), ("beicheng", "seventeen letters", 400), ("beicheng", "A\\B", 400)],
)
def test_a_stranger_opens_no_connection(desk: Door, who: str, title: str, http: int) -> None:
    with pytest.raises(InvalidStatus) as refused, listening(desk, title, who):
        pass
    assert refused.value.response.status_code == http
    assert b"detail" in refused.value.response.body


def test_so_many_connections_and_no_more(desk: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_notifications, "CONNECTIONS", 0)
    with pytest.raises(InvalidStatus) as refused, listening(desk, "A"):
        pass
    assert refused.value.response.status_code == 503


@pytest.mark.parametrize(
    ("title", "uid", "query", "http"),
    [
        ("A", FILTERED, {}, 400),
        ("A", FILTERED, {"filter": "x"}, 400),
        ("A", FILTERED, {"filter": "WorklistLabel=*"}, 400),
        ("A", FILTERED, {"filter": "Rows=5"}, 400),
        ("A", FILTERED, {"filter": "NoSuchThing=5"}, 400),
        ("A", GLOBAL, {"filter": "WorklistLabel=A"}, 400),
        ("A", GLOBAL, {"deletionlock": "maybe"}, 400),
        ("A", GLOBAL, {"lock": "true"}, 400),
        ("A" * 17, GLOBAL, {}, 400),
        ("A", "x", {}, 400),
    ],
)
def test_a_subscription_that_cannot_be_is_refused_in_words(
    desk: Door, title: str, uid: str, query: dict[str, str], http: int
) -> None:
    answer = subscribe(desk, title, uid, **query)

    assert answer.status_code == http
    assert answer.json()["detail"]


def test_only_the_worklist_can_be_suspended_and_only_what_is_there_ended(desk: Door) -> None:
    uid = created(desk)
    assert suspend(desk, "NOBODY", uid) == 400
    assert suspend(desk, "NOBODY") == 404
    assert unsubscribe(desk, "NOBODY", uid) == 404
    assert unsubscribe(desk, "NOBODY", new_uid()) == 404
    subscribe(desk, "SOMEBODY", uid)
    assert unsubscribe(desk, "SOMEBODY", uid, who="nanhu") == 404
    assert unsubscribe(desk, "SOMEBODY", uid) == 200


def test_who_watches_the_worklist_is_told_that_the_service_goes_down_and_is_back(
    desk: Door,
) -> None:
    """PS3.4 CC.2.4: SCP Status Change. Of one workitem nobody is told how the service is."""
    subscribe(desk, "STATUS", GLOBAL)
    subscribe(desk, "STATUS2", FILTERED, filter="WorklistLabel=STATUS")
    uid = created(desk, WorklistLabel="ELSEWHERE")
    subscribe(desk, "STATUS3", uid)
    with (
        listening(desk, "STATUS") as socket,
        listening(desk, "STATUS2") as other,
        listening(desk, "STATUS3") as third,
    ):
        assert states(socket, 1) == [(uid, "SCHEDULED")]
        assert states(third, 1) == [(uid, "SCHEDULED")]
        with desk.city.exchange.on_behalf_of(WORKER) as access:
            assert watching.status_changed(access, Status.GOING_DOWN) >= 2
        told = event(socket)
        assert (told["type"], told["workitem"], told["SCPStatus"]) == (4, GLOBAL, "GOING DOWN")
        assert event(other)["workitem"] == FILTERED
        with desk.city.exchange.on_behalf_of(WORKER) as access:
            watching.status_changed(access, Status.RESTARTED)
        told = event(socket)
        assert (told["type"], told["SCPStatus"]) == (4, "RESTARTED")
        assert told["SubscriptionListStatus"] == "WARM START"
        assert told["UnifiedProcedureStepListStatus"] == "WARM START"
        to_state(desk, uid, "IN PROGRESS")
        assert states(third, 1) == [(uid, "IN PROGRESS")]
    with (
        pytest.raises(Refused),
        desk.city.exchange.on_behalf_of(desk.city.system("beicheng")) as access,
    ):
        watching.status_changed(access, Status.RESTARTED)
    unsubscribe(desk, "STATUS", GLOBAL)
    unsubscribe(desk, "STATUS2", FILTERED)


def test_reports_that_nobody_fetches_wait_for_a_week(
    desk: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = created(desk)
    subscribe(desk, "LATE", uid)
    with desk.city.exchange.on_behalf_of(WORKER) as access:
        workitems.tidy(access)
    assert waiting(desk, "LATE") == 1

    monkeypatch.setattr(watching, "WAITS", timedelta(0))
    with desk.city.exchange.on_behalf_of(WORKER) as access:
        workitems.tidy(access)
    assert waiting(desk, "LATE") == 0


def test_a_hospital_has_so_many_subscribers(desk: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SUBSCRIBERS", 0)
    with (
        pytest.raises(TooLarge),
        desk.city.exchange.on_behalf_of(desk.city.system("beicheng")) as access,
    ):
        watching.subscribe_to_all(access, "ONEMORE", None, deletion_lock=False)

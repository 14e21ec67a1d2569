"""The desk: who only asks is answered there, and nobody outside can tell."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from caller import (
    CT,
    EXPLICIT,
    IMPLICIT,
    STUDY_FIND,
    SUCCESS,
    VERIFICATION,
    Caller,
    Hung,
    calling,
    image,
)
from region import ADMINISTRATOR
from serving import Served, accepting, serving

from exchange import admission, audit, organizations, registry
from exchange.organizations import Entity
from exchange_dicom import desk as desks
from exchange_dicom import node
from exchange_dicom.contexts import (
    MODALITY_WORKLIST_FIND,
    PERFORMED_PROCEDURE_STEP,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
)
from exchange_dicom.desk import WayToDesk
from exchange_dicom.dimse import CommandField
from exchange_dicom.listener import Acceptor
from exchange_dicom.pdu import (
    Abort,
    AbortReason,
    AbortSource,
    AssociateReject,
    RejectReason,
    RoleSelection,
)

ALL = b"\x08\x00\x52\x00CS\x06\x00STUDY \x20\x00\x0d\x00UI\x06\x001.2.1\x00"
"""Finds the study of `image`."""

ASKING = ((VERIFICATION, (IMPLICIT,)), (STUDY_FIND, (EXPLICIT,)))

FIND, ECHO, STORE = CommandField.C_FIND_RQ, CommandField.C_ECHO_RQ, CommandField.C_STORE_RQ


@dataclass
class Region:
    """A node, and what is answered by it and by its desk."""

    served: Served
    directory: Path
    at_node: Counter[CommandField]
    at_desk: Counter[CommandField] = field(default_factory=Counter)

    @contextlib.contextmanager
    def desk(self) -> Iterator[Acceptor]:
        """Its desk, until the block ends."""

        def observed(operation: CommandField, _: int) -> None:
            self.at_desk[operation] += 1

        exchange = self.served.city.exchange
        made = node.desk(exchange, self.directory, ae_title="EXCHANGE", observed=observed)
        with accepting(made) as acceptor:
            yield acceptor

    @property
    def port(self) -> int:
        """The node's."""
        return self.served.port


@contextlib.contextmanager
def region(tmp_path: Path, database_url: str) -> Iterator[Region]:
    at_node: Counter[CommandField] = Counter()
    directory = tmp_path / ("a directory with a long name " * 5)
    directory.mkdir()

    def observed(operation: CommandField, _: int) -> None:
        at_node[operation] += 1

    with serving(
        tmp_path,
        database_url=database_url,
        observed=observed,
        way_to_desk=WayToDesk(directory),
    ) as served:
        yield Region(served, directory, at_node)


@pytest.fixture
def city(tmp_path: Path, database_url: str) -> Iterator[Region]:
    with region(tmp_path, database_url) as made:
        yield made


def wait_until(holds: Callable[[], bool]) -> None:
    late = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < late
        time.sleep(0.02)


def test_who_only_asks_is_answered_at_the_desk_and_who_brings_images_at_the_node(
    city: Region,
) -> None:
    with city.desk():
        with calling(city.port) as pacs:
            assert pacs.store(image(), "1.4.1").status == SUCCESS
        with Caller(city.port, *ASKING) as pacs:
            assert len(pacs.find(ALL)) == 2
            assert pacs.echo() == SUCCESS
            assert len(pacs.find(ALL)) == 2
            pacs.release()
        with Caller(city.port, (CT, (EXPLICIT,)), *ASKING) as pacs:  # may do both
            assert pacs.store(image(), "1.4.1").status == SUCCESS
            assert len(pacs.find(ALL)) == 2
    assert city.at_desk == {FIND: 2, ECHO: 1}
    assert city.at_node == {STORE: 2, FIND: 1}


@pytest.mark.parametrize(
    ("contexts", "roles", "asks"),
    [
        ((STUDY_ROOT_MOVE,), (), True),
        ((STUDY_ROOT_GET, CT), (CT,), True),
        ((STUDY_ROOT_GET, CT), (), False),
        ((MODALITY_WORKLIST_FIND,), (), True),
        ((MODALITY_WORKLIST_FIND, PERFORMED_PROCEDURE_STEP), (), False),
        ((), (), False),
    ],
)
def test_what_was_agreed_on_tells_who_only_asks(
    city: Region, contexts: tuple[str, ...], roles: tuple[str, ...], *, asks: bool
) -> None:
    proposed = [(VERIFICATION, (IMPLICIT,)), *((one, (EXPLICIT,)) for one in contexts)]
    granted = [RoleSelection(one, scu=False, scp=True) for one in roles]
    with city.desk(), Caller(city.port, *proposed, roles=granted) as pacs:
        assert pacs.echo() == SUCCESS
        pacs.release()
    assert (city.at_desk, city.at_node) == (({ECHO: 1}, {}) if asks else ({}, {ECHO: 1}))


def test_without_a_desk_the_node_answers_and_with_the_next_one_that_does(city: Region) -> None:
    with Caller(city.port, *ASKING) as pacs:
        assert pacs.echo() == SUCCESS
    assert city.at_node == {ECHO: 1}
    with city.desk(), pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)), city.desk():
        pass
    with city.desk(), Caller(city.port, *ASKING) as pacs:  # what is left of the first is no matter
        assert pacs.echo() == SUCCESS
    assert (city.at_node, city.at_desk) == ({ECHO: 1}, {ECHO: 1})


def test_who_connects_and_releases_or_goes_away_without_asking_costs_the_desk_nothing(
    city: Region,
) -> None:
    with city.desk() as desk:
        with Caller(city.port, *ASKING) as pacs:
            pacs.release()
        with Caller(city.port, *ASKING):
            assert desk.associations == 0


def test_a_desk_that_is_full_leaves_the_rest_to_the_node(
    city: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    with city.desk() as desk:
        monkeypatch.setattr(desk, "_maximum", 1)
        with Caller(city.port, *ASKING) as first, Caller(city.port, *ASKING) as second:
            assert (first.echo(), second.echo()) == (SUCCESS, SUCCESS)
            assert (city.at_desk, city.at_node) == ({ECHO: 1}, {ECHO: 1})


def test_a_desk_that_hangs_keeps_nobody_waiting_for_long_and_is_left_alone_for_a_while(
    city: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "MOMENT", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as hangs:
        place = os.open(city.directory, os.O_RDONLY)
        hangs.bind(f"/proc/self/fd/{place}/desk")
        os.close(place)
        hangs.listen(8)
        for _ in range(2):
            with Caller(city.port, *ASKING) as pacs:
                assert pacs.echo() == SUCCESS
        assert city.at_node == {ECHO: 2}
        hangs.setblocking(False)
        hangs.accept()[0].close()
        with pytest.raises(BlockingIOError):
            hangs.accept()


def test_what_is_asked_at_the_desk_counts_among_the_associations_of_a_hospital(
    city: Region,
) -> None:
    with city.served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        admission.limit(access, "beicheng", admission.Limits(associations=1))
    with city.desk() as desk:
        with Caller(city.port, *ASKING) as pacs:
            assert pacs.echo() == SUCCESS
            with pytest.raises(Hung) as hung:
                Caller(city.port, *ASKING)
            assert hung.value.args == (
                AssociateReject(RejectReason.LOCAL_LIMIT_EXCEEDED, transient=True),
            )
            pacs.release()
        wait_until(lambda: desk.associations == 0)
        with Caller(city.port, *ASKING) as pacs:
            assert pacs.echo() == SUCCESS
    assert city.at_desk == {ECHO: 2}


@pytest.mark.parametrize("asked", [False, True])
def test_a_system_that_was_removed_is_no_longer_served_and_its_idle_association_ends_by_itself(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, *, asked: bool
) -> None:
    monkeypatch.setattr(registry, "SECONDS", 0.05)
    monkeypatch.setattr(node, "ROUND_SECONDS", 0.05)
    with region(tmp_path, database_url) as city, city.desk(), Caller(city.port, *ASKING) as pacs:
        if asked:
            assert pacs.echo() == SUCCESS
        exchange = city.served.city.exchange
        with exchange.on_behalf_of(ADMINISTRATOR) as access:
            entity = Entity(title="BEICHENG", address="127.0.0.1")
            organizations.remove_entity(access, "beicheng", entity)
        with pytest.raises(Hung) as hung:
            pacs.message()
        with exchange.database.reading() as session:
            told = [json.loads(record.content) for record in audit.latest(session, 10)]
    assert hung.value.args == (Abort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED),)
    assert [one["reason"] for one in told if one["outcome"] == "refused"] == ["unknown AE title"]


def test_a_desk_that_stops_says_so_and_the_place_is_free_again(city: Region) -> None:
    with city.desk():
        pacs = Caller(city.port, *ASKING)
        assert pacs.echo() == SUCCESS
    with pacs, pytest.raises(Hung) as hung:
        pacs.message()
    assert hung.value.args == (Abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED),)
    with Caller(city.port, *ASKING) as pacs:
        assert pacs.echo() == SUCCESS
    assert city.at_node == {ECHO: 1}


def test_a_node_that_stops_does_not_take_from_the_desk_what_is_answered_there(
    city: Region,
) -> None:
    with city.desk(), Caller(city.port, *ASKING) as pacs:
        assert pacs.echo() == SUCCESS
        city.served.acceptor.stop(20)
        assert pacs.echo() == SUCCESS
        pacs.release()
    assert city.at_desk == {ECHO: 2}

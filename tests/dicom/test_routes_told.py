"""An operator is told where each route leads, and what became of the studies that it means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from caller import EXPLICIT, SUCCESS, Caller
from images import rejection_note
from pydicom import dcmread
from real_parts import free_port
from region import ADMINISTRATOR, ID_CARD
from retrieving import workstation
from routed import STUDY, delivered, listens, made_due, routed, send, trail, worked
from serving import Served, serving

from exchange import consent, routing
from exchange_dicom.rejection_note import KEY_OBJECT_SELECTION


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


def counts(served: Served) -> dict[str, int]:
    """Of the only route: how many studies, by what became of them; what is none is left out."""
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (listed,) = routing.everything(access)
    told = ("waiting", "given_up", "delivered", "withheld", "gone")
    return {name: count for name in told if (count := getattr(listed, name))}


def reject(served: Served, folder: Path) -> None:
    """The hospital says of all its images of the study that they are of too bad quality."""
    uids = [dcmread(path).SOPInstanceUID for path in folder.glob("BEICHENG*.dcm")]
    body = rejection_note("113001", *uids, study=STUDY)
    with Caller(served.port, (KEY_OBJECT_SELECTION, (EXPLICIT,)), calling="BEICHENG") as pacs:
        assert pacs.store(body, "1.9.1", KEY_OBJECT_SELECTION).status == SUCCESS
        pacs.release()


def test_what_the_policy_withholds_from_a_receiver_is_not_counted_as_delivered(
    served: Served, tmp_path: Path
) -> None:
    card = {"card": ID_CARD}
    with workstation("WS") as ws:
        listens(served, "nanhu", "WS", ws.port)
        routed(served, "beicheng", destination="nanhu:WS")
        send(served, "BEICHENG", tmp_path, 1, **card)
        assert worked(served) == []
        assert counts(served) == {"delivered": 1}
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_out(access, "beicheng", "P1")
        send(served, "BEICHENG", tmp_path, 2, **card)
        assert worked(served) == []
        assert counts(served) == {"withheld": 1}  # though its first image is there
        assert len(ws.received) == 1
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_in(access, "beicheng", "P1")
        assert worked(served) == []
        assert counts(served) == {"delivered": 1}
    assert len(ws.received) == 3


def test_what_was_rejected_before_it_could_be_sent_is_gone_and_not_delivered(
    served: Served, tmp_path: Path
) -> None:
    port = free_port()
    listens(served, "beicheng", "WS", port)
    routed(served, "beicheng")
    send(served, "BEICHENG", tmp_path, 2)
    assert len(worked(served)) == 1
    assert counts(served) == {"waiting": 1}
    reject(served, tmp_path)
    made_due(served)
    with workstation("WS", port=port) as ws:
        assert delivered(served) == []
    assert (ws.received, counts(served)) == ([], {"gone": 1})
    told = next(one for one in trail(served) if one["reason"] == "nothing is left of it")
    assert (told["action"], told["study"]) == ("forward", STUDY)


def test_who_has_got_images_and_is_told_that_they_were_rejected_has_got_the_study(
    served: Served, tmp_path: Path
) -> None:
    with workstation("WS") as ws:
        listens(served, "beicheng", "WS", ws.port)
        routed(served, "beicheng")
        send(served, "BEICHENG", tmp_path, 2)
        assert worked(served) == []
        reject(served, tmp_path)
        assert worked(served) == []
    assert counts(served) == {"delivered": 1}


def test_a_route_tells_of_which_hospital_the_node_is_to_which_it_leads(served: Served) -> None:
    listens(served, "beicheng", "WS", free_port())
    listens(served, "nanhu", "NANHU-WS", free_port())
    routed(served, "beicheng", name="own")
    routed(served, "beicheng", name="theirs", destination="nanhu:NANHU-WS")
    routed(served, "beicheng", name="cloud", destination="", url="https://cloud.example.cn/rs")
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        told = {one.route.name: one.destination for one in routing.everything(access)}
    assert told == {
        "own": "beicheng:WS",
        "theirs": "nanhu:NANHU-WS",
        "cloud": "https://cloud.example.cn/rs",
    }

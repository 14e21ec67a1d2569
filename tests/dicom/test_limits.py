"""No hospital takes the node from the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from caller import SUCCESS, Caller, Hung, calling, image
from region import ADMINISTRATOR
from serving import Served, serving

from exchange import admission
from exchange.admission import Limits
from exchange.errors import Invalid
from exchange_dicom.pace import BURST, Pace
from exchange_dicom.pdu import AssociateReject, RejectReason


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


def limited(served: Served, **limits: int) -> None:
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        admission.limit(access, "beicheng", Limits(**limits))


def test_a_hospital_has_as_many_associations_as_it_may_and_the_others_theirs(
    served: Served,
) -> None:
    limited(served, associations=1)
    with calling(served.port) as pacs:
        assert pacs.echo() == SUCCESS
        with pytest.raises(Hung) as hung:
            Caller(served.port)
        assert hung.value.args == (
            AssociateReject(RejectReason.LOCAL_LIMIT_EXCEEDED, transient=True),
        )
        with Caller(served.port, calling="NANHU") as other:
            assert other.echo() == SUCCESS
            other.release()
    for _ in range(3):  # what has ended is counted no longer
        with calling(served.port) as pacs:
            assert pacs.echo() == SUCCESS


def test_too_many_instances_are_answered_later_and_all_are_kept(served: Served) -> None:
    limited(served, rate=1000)
    with calling(served.port) as pacs:
        for number in range(5):
            uid = f"1.4.{number}"
            assert pacs.store(image(instance=uid), uid).status == SUCCESS
    assert served.held()[0] == 5


def test_a_rate_is_kept_after_a_burst() -> None:
    now = 100.0
    pace = Pace(lambda: now)
    burst = [pace.pause(1, 10) for _ in range(int(10 * BURST))]
    assert max(burst) == 0.0
    assert [round(pace.pause(1, 10), 3) for _ in range(3)] == [0.1, 0.2, 0.3]
    assert pace.pause(2, 10) == 0.0
    assert pace.pause(1, None) == 0.0
    now += 60.0
    assert pace.pause(1, 10) == 0.0


@pytest.mark.parametrize("limits", [{"rate": 0}, {"associations": -1}])
def test_a_limit_that_would_stop_a_hospital_is_refused(
    served: Served, limits: dict[str, int]
) -> None:
    with pytest.raises(Invalid):
        limited(served, **limits)

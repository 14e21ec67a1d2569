"""No notification holds what its subscriber could not read at that moment, whatever happens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

import pytest
from fhir_door import opened
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from region import ADMINISTRATOR, ID_CARD, region
from subscribed import CONDUCT, Desk, Endpoint, endpoint, events, wish

from exchange import consent, organizations
from exchange.errors import Invalid

PATIENTS = {"beicheng": ("W1", 1), "nanhu": ("W2", 2), "dongshan": ("W3", 3)}
ACTS = ("report", "opt out", "opt in", "leave", "join", "fail", "work", "late")
MARKER = re.compile(r"marker-(\d+)\.")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Wang is a patient of all three hospitals."""
    url = f"sqlite:///{tmp_path_factory.mktemp('withheld') / 'exchange.sqlite'}"
    with region(url) as city:
        for number, (code, (patient, _)) in enumerate(PATIENTS.items()):
            city.send(code, patient=patient, study=f"1.2.{number}", instance=f"1.4.{number}",
                      card=ID_CARD)  # fmt: skip
        city.identify()
        yield Desk(opened(city, CONDUCT))


@pytest.fixture(scope="module")
def hook(desk: Desk) -> Iterator[Endpoint]:
    with endpoint() as made:
        for code in PATIENTS:
            desk.allow(code, made)
        yield made


@settings(
    max_examples=12,
    deadline=None,
    phases=set(Phase) - {Phase.shrink},
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    subscriber=st.sampled_from(sorted(PATIENTS)),
    content=st.sampled_from(("id-only", "full-resource")),
    acts=st.lists(
        st.tuples(st.sampled_from(ACTS), st.sampled_from(sorted(PATIENTS))),
        min_size=4,
        max_size=14,
    ),
)
def test_nothing_is_told_that_could_not_be_read(
    desk: Desk, hook: Endpoint, subscriber: str, content: str, acts: list[tuple[str, str]]
) -> None:
    doctor = desk.clinician(subscriber)
    filtered = f"patient=Patient/{PATIENTS[subscriber][1]}"
    made = doctor.made(wish("report-final", hook.url, filtered, content=content))
    desk.work()
    hook.received.clear()
    marked: dict[int, str] = {}
    numbers: list[int] = []
    for act, code in [*acts, ("late", subscriber)]:
        number, row = PATIENTS[code]
        with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access, suppress(Invalid):
            match act:
                case "opt out":
                    consent.opt_out(access, code, number)
                case "opt in":
                    consent.opt_in(access, code, number)
                case "leave":
                    organizations.end_agreement(access, code)
                case "join":
                    organizations.join_agreement(access, code)
        match act:
            case "report":
                report = {
                    "resourceType": "DiagnosticReport",
                    "status": "final",
                    "code": {"text": "胸部CT"},
                    "subject": {"reference": f"Patient/{row}"},
                    "conclusion": f"marker-{len(marked)}.",
                }
                marked[len(marked)] = desk.system(code).made(report)["id"]
            case "fail":
                hook.statuses = [503]
            case "work" | "late":
                desk.work(late=act == "late")
                taken = [content.decode() for _, content in hook.received]
                for body in taken:
                    for one in MARKER.findall(body):
                        path = f"DiagnosticReport/{marked[int(one)]}"
                        assert doctor.get(path).status_code == 200
                    for named in marked.values():
                        if named in body:
                            assert doctor.get(f"DiagnosticReport/{named}").status_code == 200
                for bundle in hook.bundles():
                    numbers += [event for event, _ in events(bundle)]
    # Numbers come in their order, without gaps, and may come again where they were not taken.
    hook.statuses.clear()
    assert sorted(set(numbers)) == list(range(1, len(set(numbers)) + 1))
    assert doctor.send("DELETE", f"Subscription/{made['id']}").status_code == 204
    with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        for code, (number, _) in PATIENTS.items():
            consent.opt_in(access, code, number)
            with suppress(Invalid):
                organizations.join_agreement(access, code)

"""Who guesses the UID of another hospital's study learns nothing; who knows the person, why."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from region import ADMINISTRATOR, ID_CARD, Region, region

from exchange import consent, exports, query, rejection, retrieval
from exchange.access import Access
from exchange.errors import ExchangeError, NotFound, Refused
from exchange.policy import Purpose
from exchange_storage.records import AuditRecord

Ask = Callable[[Access, str], object]

ASKED: dict[str, Ask] = {
    "images": retrieval.instances,
    "one series": lambda access, study: retrieval.instances(access, study, f"{study}.1"),
    "description": query.study,
    "files": lambda access, study: exports.ask(access, study, without_names=False),
}
THERE, NOWHERE = "1.2.2", "1.2.99"


@pytest.fixture
def city(database_url: str) -> Iterator[Region]:
    """Beicheng has a study of a person who denies sharing; Nanhu knows her too, Dongshan does not.

    The stated purpose of use would not permit it either.
    """
    with region(database_url) as made:
        made.send("beicheng", patient="A1", study=THERE, instance="1.4.1", card=ID_CARD)
        made.send("nanhu", patient="B1", study="1.2.3", instance="1.4.2", card=ID_CARD)
        made.identify()
        with made.exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_out(access, "beicheng", "A1")
        yield made


def told(city: Region, hospital: str, ask: Ask, study: str) -> ExchangeError:
    with (
        pytest.raises(ExchangeError) as error,
        city.exchange.on_behalf_of(city.clinician(hospital)) as access,
    ):
        ask(access, study)
    return error.value


@pytest.mark.parametrize("asked", ASKED)
def test_who_does_not_know_the_person_is_told_what_of_a_study_that_is_nowhere(
    city: Region, asked: str
) -> None:
    withheld = told(city, "dongshan", ASKED[asked], THERE)
    nowhere = told(city, "dongshan", ASKED[asked], NOWHERE)

    assert type(withheld) is type(nowhere) is NotFound
    assert str(withheld) == str(nowhere)
    with city.exchange.database.reading() as session:
        (refused,) = session.query(AuditRecord).filter_by(outcome="refused").all()
    assert (refused.requester, refused.study_instance_uid) == ("dr.dongshan", THERE)
    assert "has not consented" in refused.content


@pytest.mark.parametrize("asked", ASKED)
def test_who_knows_the_person_is_told_why_as_their_timeline_says(city: Region, asked: str) -> None:
    refused = told(city, "nanhu", ASKED[asked], THERE)

    assert isinstance(refused, Refused)
    assert str(refused) == "the patient has not consented to sharing"


def test_who_states_another_purpose_is_told_why_only_of_their_own_patients(city: Region) -> None:
    for hospital, error in (("nanhu", Refused), ("dongshan", NotFound)):
        asker = city.clinician(hospital, Purpose.OPERATIONS)
        with pytest.raises(error), city.exchange.on_behalf_of(asker) as access:
            retrieval.instances(access, THERE)


@pytest.mark.parametrize(("hospital", "error"), [("nanhu", Refused), ("dongshan", NotFound)])
def test_who_rejects_what_is_anothers_learns_no_more(
    city: Region, hospital: str, error: type[ExchangeError]
) -> None:
    words = set()
    for study in (THERE, NOWHERE):
        with (
            pytest.raises(ExchangeError) as refused,
            city.exchange.on_behalf_of(city.system(hospital)) as access,
        ):
            rejection.reject_own(access, "113001", study)
        words.add((type(refused.value), str(refused.value)))
    assert (len(words) == 1) == (error is NotFound)
    assert any(kind is error for kind, _ in words)

"""Clinical resources: what a hospital writes of its patients, who may read it, and what is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

import pytest
from region import ADMINISTRATOR, WORKER, Region
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from exchange import check, clinical, consent, recording, writing
from exchange.clinical import Kept
from exchange.errors import Gone, Invalid, NotFound, Refused, Stale, TooLarge
from exchange.policy import Purpose, Requester, Role
from exchange.recording import After, Create, Delete, Draft, Patch, Update
from exchange_storage.records import AuditRecord, Patient, Revision, SearchToken
from exchange_storage.resource_index import Token


def draft(
    kind: str = "Observation", *patients: int, says: str = "", logical_id: str = "", code: str = "a"
) -> Draft:
    def render(logical_id: str, version: int, at: datetime) -> bytes:
        return f"{kind}/{logical_id} {version} {at.isoformat()} {says}".encode()

    return Draft(
        kind=kind,
        logical_id=logical_id or recording.new_id(),
        patients=patients,
        values=[Token(f"{kind}.code", code)],
        render=render,
    )


def patient(city: Region, code: str, number: str = "P1") -> int:
    """The row of a hospital's patient, of whom it sent an image."""
    city.send(code, patient=number, study=f"1.2.{city.ids[code]}{number[1:]}",
              instance=f"1.4.{city.ids[code]}{number[1:]}")  # fmt: skip
    with city.exchange.database.reading() as session:
        return session.scalars(
            select(Patient.id).where(
                Patient.organization_id == city.ids[code], Patient.patient_id == number
            )
        ).one()


def create(city: Region, requester: Requester, one: Draft) -> Kept:
    with city.exchange.on_behalf_of(requester) as access:
        return recording.create(access, one)


def read(city: Region, requester: Requester, kept: Kept) -> Kept:
    with city.exchange.on_behalf_of(requester) as access:
        return clinical.read(access, kept.kind, kept.logical_id)


def named(*ids: str) -> recording.Finder:
    def find(_: Session) -> Sequence[str]:
        return ids

    return find


def found_under(city: Region, code: str) -> int:
    with city.exchange.database.reading() as session:
        return len(session.scalars(select(SearchToken).where(SearchToken.code == code)).all())


@contextmanager
def unseen(why: str) -> Iterator[None]:
    """It is answered as if it were not there; the trail has the reason."""
    with pytest.raises(NotFound) as told:
        yield
    assert why in str(told.value.__cause__)


def test_what_a_hospital_wrote_of_its_patient_is_read_where_it_is_shared(city: Region) -> None:
    kept = create(
        city, city.system("beicheng"), draft("Observation", patient(city, "beicheng"), says="5.1")
    )

    told = read(city, city.clinician("nanhu"), kept)

    assert told.content == kept.content
    assert (told.version, told.changed, told.interaction) == (1, kept.changed, "create")


def test_a_hospital_cannot_write_of_another_hospitals_patient(city: Region) -> None:
    theirs = patient(city, "beicheng")

    with pytest.raises(Refused, match="may not record what is another hospital's"):
        create(city, city.system("nanhu"), draft("Observation", theirs))


def test_a_patient_who_may_not_be_seen_is_told_like_one_whom_nobody_knows(city: Region) -> None:
    theirs = patient(city, "beicheng")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    refusals = []
    for row in (theirs, theirs + 1000):
        with pytest.raises(Invalid) as refusal:
            create(city, city.system("nanhu"), draft("Observation", row))
        refusals.append(str(refusal.value))

    assert refusals[0] == refusals[1]


def test_who_has_not_consented_is_read_of_in_their_own_hospital_only(city: Region) -> None:
    kept = create(city, city.system("beicheng"), draft("Condition", patient(city, "beicheng")))
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    assert read(city, city.clinician("beicheng"), kept).content == kept.content
    with unseen("has not consented"):
        read(city, city.clinician("nanhu"), kept)


def test_what_is_about_two_patients_is_read_by_whoever_may_see_both(city: Region) -> None:
    first, second = patient(city, "beicheng"), patient(city, "beicheng", "P2")
    kept = create(city, city.system("beicheng"), draft("Group", first, second))
    assert read(city, city.clinician("nanhu"), kept).content == kept.content

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P2")

    with unseen("has not consented"):
        read(city, city.clinician("nanhu"), kept)


def test_what_is_about_nobody_stays_in_its_hospital_but_for_the_directory(city: Region) -> None:
    system = city.system("beicheng")
    own = create(city, system, draft("List"))
    listed = create(city, system, draft("Practitioner"))

    assert read(city, city.clinician("beicheng"), own).content == own.content
    assert read(city, ADMINISTRATOR, listed).content == listed.content
    research = city.clinician("nanhu", Purpose.PUBLIC_HEALTH)
    assert read(city, research, listed).content == listed.content
    with unseen("it is about no patient"):
        read(city, city.clinician("nanhu"), own)
    with pytest.raises(Refused, match="administrator may not retrieve"):
        read(city, ADMINISTRATOR, own)


def test_a_device_of_a_patient_is_not_in_the_directory(city: Region) -> None:
    kept = create(city, city.system("beicheng"), draft("Device", patient(city, "beicheng")))

    with unseen("not in the directory"):
        read(city, ADMINISTRATOR, kept)


def test_each_update_is_a_version_and_every_version_can_be_read(city: Region) -> None:
    system = city.system("beicheng")
    about = patient(city, "beicheng")
    first = create(city, system, draft("Observation", about, says="5.1", code="old"))
    with city.exchange.on_behalf_of(system) as access:
        second = recording.update(
            access,
            draft("Observation", about, says="5.2", logical_id=first.logical_id, code="new"),
            if_match=recording.Expected(frozenset({1})),
        )

    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        assert clinical.read(access, "Observation", first.logical_id).content == second.content
        assert clinical.vread(access, "Observation", first.logical_id, 1).content == first.content
        with pytest.raises(NotFound):
            clinical.vread(access, "Observation", first.logical_id, 3)
    assert (found_under(city, "old"), found_under(city, "new")) == (0, 1)


def test_an_update_of_a_version_that_is_not_the_current_one_changes_nothing(city: Region) -> None:
    system = city.system("beicheng")
    kept = create(city, system, draft("Observation", patient(city, "beicheng")))

    with (
        pytest.raises(Stale),
        city.exchange.on_behalf_of(system) as access,
    ):
        recording.update(
            access,
            draft("Observation", logical_id=kept.logical_id),
            if_match=recording.Expected(frozenset({2})),
        )

    assert read(city, system, kept).version == 1


def test_only_who_wrote_a_resource_changes_or_deletes_it(city: Region) -> None:
    about = patient(city, "beicheng")
    kept = create(city, city.system("beicheng"), draft("Observation", about))
    derived = create(city, WORKER, draft("Observation", about))
    own = patient(city, "nanhu")

    for requester, one in (
        (city.system("nanhu"), kept),
        (city.system("beicheng"), derived),
    ):
        with (
            pytest.raises(Refused, match="only who wrote it"),
            city.exchange.on_behalf_of(requester) as access,
        ):
            recording.update(access, draft("Observation", own, logical_id=one.logical_id))
        with (
            pytest.raises(Refused, match="only who wrote it"),
            city.exchange.on_behalf_of(requester) as access,
        ):
            recording.delete(access, "Observation", one.logical_id)
    with (
        pytest.raises(Refused),
        city.exchange.on_behalf_of(ADMINISTRATOR) as access,
    ):
        recording.delete(access, "Observation", kept.logical_id)


def test_what_was_deleted_is_gone_but_its_versions_are_not(city: Region) -> None:
    system = city.system("beicheng")
    kept = create(city, system, draft("Observation", patient(city, "beicheng"), code="x"))
    with city.exchange.on_behalf_of(system) as access:
        gone = recording.delete(access, "Observation", kept.logical_id)
        again = recording.delete(access, "Observation", kept.logical_id)

    assert (gone.version, gone.deleted, again.version, again.made) == (2, True, 2, False)
    assert found_under(city, "x") == 0
    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        with pytest.raises(Gone):
            clinical.read(access, "Observation", kept.logical_id)
        with pytest.raises(Gone):
            clinical.vread(access, "Observation", kept.logical_id, 2)
        assert clinical.vread(access, "Observation", kept.logical_id, 1).content == kept.content
    with city.exchange.on_behalf_of(system) as access:
        back = recording.update(
            access, draft("Observation", patient(city, "beicheng"), logical_id=kept.logical_id)
        )
    assert (back.version, back.interaction) == (3, "create")


def test_several_acts_are_done_together_or_not_at_all(city: Region) -> None:
    system = city.system("beicheng")
    about = patient(city, "beicheng")
    fine = draft("Observation", about)

    missing = Delete("Observation", "unknown", if_match=recording.Expected())
    with (
        pytest.raises(Stale) as refusal,
        city.exchange.on_behalf_of(system) as access,
    ):
        recording.several(access, [Create(fine), missing])

    assert refusal.value.__notes__ == ["act 1"]
    with (
        pytest.raises(NotFound),
        city.exchange.on_behalf_of(system) as access,
    ):
        clinical.read(access, "Observation", fine.logical_id)


def test_an_act_can_depend_on_what_the_ones_before_it_kept(city: Region) -> None:
    system = city.system("beicheng")
    about = patient(city, "beicheng")

    with city.exchange.on_behalf_of(system) as access:
        kept = recording.several(
            access,
            [
                Create(draft("Encounter", about)),
                After(lambda done: Create(draft("Condition", about, says=done[0].logical_id))),
            ],
        )

    assert kept[1].content.endswith(kept[0].logical_id.encode())


def test_a_condition_is_looked_at_where_it_is_relied_on(city: Region) -> None:
    system = city.system("beicheng")
    about = patient(city, "beicheng")
    kept = create(city, system, draft("Observation", about))

    with city.exchange.on_behalf_of(system) as access:
        found = recording.create(access, draft("Observation", about), unless=named(kept.logical_id))
        assert (found.logical_id, found.made) == (kept.logical_id, False)
        (changed,) = recording.several(
            access, [Update(draft("Observation", about), matching=named(kept.logical_id))]
        )
        assert (changed.logical_id, changed.version) == (kept.logical_id, 2)
    for act in (
        Create(draft("Observation", about), unless=named("a", "b")),
        Update(draft("Observation", about), matching=named("a", "b")),
        Delete("Observation", matching=named("a", "b")),
        Update(draft("Observation", about, logical_id=kept.logical_id), if_none=True),
    ):
        with pytest.raises(Stale), city.exchange.on_behalf_of(system) as access:
            recording.several(access, [act])
    with city.exchange.on_behalf_of(system) as access:
        (nothing,) = recording.several(access, [Delete("Observation", matching=named())])
        assert (nothing.deleted, nothing.made) == (True, False)
    with pytest.raises(NotFound), city.exchange.on_behalf_of(system) as access:
        recording.update(access, draft("Observation", about), may_create=False)


def test_a_patch_is_made_of_the_current_version(city: Region) -> None:
    system = city.system("beicheng")
    about = patient(city, "beicheng")
    kept = create(city, system, draft("Observation", about, says="before"))

    def change(content: bytes) -> Draft:
        assert content == kept.content
        return draft("Observation", about, says="after")

    with city.exchange.on_behalf_of(system) as access:
        (changed,) = recording.several(access, [Patch("Observation", kept.logical_id, change)])

    assert (changed.logical_id, changed.version) == (kept.logical_id, 2)
    assert changed.content.endswith(b"after")


def test_history_tells_of_what_the_asker_may_see_page_by_page(city: Region) -> None:
    system = city.system("beicheng")
    about, other = patient(city, "beicheng"), patient(city, "nanhu")
    first = create(city, system, draft("Observation", about))
    theirs = create(city, city.system("nanhu"), draft("Observation", other))
    create(city, system, draft("List"))
    with city.exchange.on_behalf_of(system) as access:
        recording.update(access, draft("Observation", about, logical_id=first.logical_id))
        recording.delete(access, "Observation", first.logical_id)

    def told(requester: Requester, kind: str = "", **asked: object) -> list[tuple[str, int]]:
        versions: list[tuple[str, int]] = []
        before: int | None = None
        while True:
            with city.exchange.on_behalf_of(requester) as access:
                page = clinical.history(access, kind, limit=2, before=before, **asked)  # type: ignore[arg-type]
            versions += [(kept.logical_id, kept.version) for kept in page.kept]
            if not page.more:
                return versions
            before = page.kept[-1].key

    of_first = [(first.logical_id, version) for version in (3, 2, 1)]
    doctor = city.clinician("nanhu")
    assert told(doctor, "Observation", logical_id=first.logical_id) == of_first
    assert told(doctor) == [*of_first[:2], (theirs.logical_id, 1), of_first[2]]
    assert told(city.clinician("nanhu", Purpose.OPERATIONS)) == [(theirs.logical_id, 1)]
    assert told(doctor, "Observation", since=theirs.changed) == [
        *of_first[:2],
        (theirs.logical_id, 1),
    ]
    with pytest.raises(NotFound), city.exchange.on_behalf_of(doctor) as access:
        clinical.history(access, "Observation", "unknown", limit=2)


def test_what_was_written_of_the_wrong_patient_is_not_shown_with_the_right_ones(
    city: Region,
) -> None:
    system = city.system("beicheng")
    wrong, right = patient(city, "beicheng"), patient(city, "beicheng", "P2")
    kept = create(city, system, draft("Observation", wrong))
    with city.exchange.on_behalf_of(system) as access:
        recording.update(access, draft("Observation", right, logical_id=kept.logical_id))

    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        page = clinical.history(access, "Observation", kept.logical_id, limit=9)
        assert [one.version for one in page.kept] == [2]
        with pytest.raises(NotFound):
            clinical.vread(access, "Observation", kept.logical_id, 1)
    with city.exchange.on_behalf_of(system) as access:
        assert clinical.vread(access, "Observation", kept.logical_id, 1).version == 1


def test_an_administrator_publishes_the_entries_of_the_region(city: Region) -> None:
    kept = create(city, ADMINISTRATOR, draft("Location"))

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert recording.update(access, draft("Location", logical_id=kept.logical_id)).version == 2
    with (
        pytest.raises(Refused, match="only who wrote it"),
        city.exchange.on_behalf_of(city.system("nanhu")) as access,
    ):
        recording.update(access, draft("Location", logical_id=kept.logical_id))
    with pytest.raises(Refused, match="administrator may not record"):
        create(city, ADMINISTRATOR, draft("Observation"))


def test_what_is_too_large_or_has_no_proper_name_is_not_kept(
    city: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = city.system("beicheng")
    for name in ("a b", "x" * 65, "ä", "a/b"):
        with pytest.raises(Invalid):
            create(city, system, draft("List", logical_id=name))
    monkeypatch.setattr(writing, "LIMIT", 100)
    with pytest.raises(TooLarge):
        create(city, system, draft("List", says="x" * 100))
    with pytest.raises(TooLarge), city.exchange.on_behalf_of(system) as access:
        recording.several(access, [Delete("List", "x")] * (recording.ACTS + 1))


def test_each_act_and_each_refusal_is_in_the_trail(city: Region) -> None:
    system = city.system("beicheng")
    about = patient(city, "beicheng")
    kept = create(city, system, draft("Observation", about))
    read(city, city.clinician("nanhu"), kept)
    with pytest.raises(Refused):
        create(city, city.system("nanhu"), draft("Observation", about))

    with city.exchange.database.reading() as session:
        last = session.scalars(
            select(AuditRecord).order_by(AuditRecord.sequence.desc()).limit(3)
        ).all()
    assert [(one.action, one.outcome, one.patient_id) for one in reversed(last)] == [
        ("record", "success", about),
        ("retrieve", "success", about),
        ("record", "refused", about),
    ]
    assert f"Observation/{kept.logical_id}" in last[1].content


def test_a_resource_whose_version_is_lost_is_named_by_the_check(city: Region) -> None:
    system = city.system("beicheng")
    fine, lost = create(city, system, draft("List")), create(city, system, draft("List"))
    with city.exchange.database.writing() as session:
        session.execute(delete(Revision).where(Revision.id == lost.key))

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        found = [one for one in check.check(access) if isinstance(one, check.Finding)]

    assert [one.key for one in found] == [f"List/{lost.logical_id}"]
    assert read(city, system, fine).content == fine.content


def test_a_patch_is_computed_while_others_write_and_anew_where_it_was_overtaken(
    city: Region,
) -> None:
    system = city.system("beicheng")
    about = patient(city, "beicheng")
    kept = create(city, system, draft("Observation", about, says="first"))
    seen: list[bytes] = []

    def change(content: bytes) -> Draft:
        seen.append(content)
        if len(seen) == 1:  # which nobody could do who had to wait for this
            later = draft("Observation", about, says="second", logical_id=kept.logical_id)
            with city.exchange.on_behalf_of(system) as other:
                recording.update(other, later)
        return draft("Observation", about, says="patched")

    with city.exchange.on_behalf_of(system) as access:
        (made,) = recording.several(access, [Patch("Observation", kept.logical_id, change)])

    assert (made.version, made.content.endswith(b"patched")) == (3, True)
    assert [one.rpartition(b" ")[2] for one in seen] == [b"first", b"second"]


def test_a_patch_that_is_overtaken_again_and_again_is_computed_in_the_commit_itself(
    city: Region,
) -> None:
    system = city.system("beicheng")
    about = patient(city, "beicheng")
    kept = create(city, system, draft("Observation", about, says="0"))
    seen: list[bytes] = []

    def change(content: bytes) -> Draft:
        seen.append(content.rpartition(b" ")[2])
        if len(seen) <= recording.ATTEMPTS:
            says = str(len(seen))
            later = draft("Observation", about, says=says, logical_id=kept.logical_id)
            with city.exchange.on_behalf_of(system) as other:
                recording.update(other, later)
        return draft("Observation", about, says="patched")

    with city.exchange.on_behalf_of(system) as access:
        (made,) = recording.several(access, [Patch("Observation", kept.logical_id, change)])

    assert seen == [str(number).encode() for number in range(recording.ATTEMPTS + 1)]
    assert made.version == recording.ATTEMPTS + 2


def test_a_patch_tells_nothing_of_what_its_asker_may_not_change(city: Region) -> None:
    kept = create(city, city.system("beicheng"), draft("Observation", patient(city, "beicheng")))

    def change(_: bytes) -> Draft:
        raise AssertionError

    for asker in (city.system("nanhu"), ADMINISTRATOR, replace(city.system("beicheng"),
                  role=Role.ADMINISTRATOR)):  # fmt: skip
        with (
            pytest.raises((Refused, NotFound)),
            city.exchange.on_behalf_of(asker) as access,
        ):
            recording.several(access, [Patch("Observation", kept.logical_id, change)])

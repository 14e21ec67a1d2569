"""Writing clinical resources, as a unit of work does it: what the acts of `recording` are made of.

What hospitals write is about their own patients. A version is kept with the rows under which it is
found, what the exchange itself does by it, and its audit record, all in one transaction.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from exchange import (
    attachments,
    clinical,
    consent,
    enclosures,
    facts,
    happenings,
    policy,
    requests,
    subscriptions,
    targets,
    visibility,
)
from exchange.access import Access
from exchange.attachments import Attachment, Lying
from exchange.audit import Outcome
from exchange.clinical import Kept
from exchange.errors import Gone, Invalid, NotFound, Refused, Stale, TooLarge, UnknownPatient
from exchange.policy import Action, Clinical, Facts, Permit, Role
from exchange.subscriptions import Terms
from exchange.targets import PATIENTS, Target
from exchange_storage import resource_index, resource_rows
from exchange_storage.resource_index import Value

LIMIT = 16 << 20
"""Bytes of one version of a resource, at most."""

CONSENT = "Consent"
"""The kind of which the policy itself depends."""


Render = Callable[[str, int, datetime], bytes]
"""The JSON in UTF-8 of a resource, once its logical id, version and moment are known."""

Finder = Callable[[Session], Sequence[str]]
"""The logical ids that a condition finds among what the asker may see; two stand for several.

It is run in the transaction that depends on it, through its session.
"""

_LOGICAL_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def new_id() -> str:
    """A logical id that nothing has yet."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a resource is to become: no protocol left in it but the bytes it is served as."""

    kind: str
    logical_id: str = field(default_factory=new_id)
    patients: tuple[int, ...] = ()
    """Row numbers of the patient records that it is about."""
    targets: tuple[Target, ...] = ()
    """What it is about besides, and whose patients with it."""
    values: Sequence[Value] = ()
    """Under what it is found."""
    sharing: Sequence[consent.Statement] = ()
    """What a Consent in force says of sharing."""
    order: requests.Requested | requests.Booked | None = None
    """What a ServiceRequest for images, or an Appointment for some, says of the worklist."""
    terms: Terms | None = None
    """What a Subscription asks for, where somebody asks anew."""
    attachment: Attachment | None = None
    """What of it is kept in the object store."""
    render: Render

    @property
    def is_directory(self) -> bool:
        """Whether it belongs in the directory of the region."""
        return self.kind in clinical.DIRECTORY and not self.patients


@dataclass(frozen=True, slots=True)
class Expected:
    """Which version must be the current one (RFC 9110 13.1.1): one of these."""

    versions: frozenset[int] | None = None
    """None for any, as long as there is one."""

    def is_met(self, version: int | None) -> bool:
        """Whether this version is one that is expected; None for none."""
        return version is not None and (self.versions is None or version in self.versions)


def expect(expected: Expected | None, version: int | None) -> None:
    """Raise Stale unless the current version, None for none, is one that was expected."""
    if expected is not None and not expected.is_met(version):
        raise Stale("the version that was named is not the current one: read it again")


class Writing:
    """A unit of work on clinical resources: what acts are made of. Only acts use it."""

    def __init__(
        self,
        access: Access,
        session: Session,
        prepared: Mapping[int, tuple[str, int, Draft]] | None = None,
        released: list[str] | None = None,
    ) -> None:
        self.access = access
        self.session = session
        self.prepared = prepared or {}
        """By the identity of a patch: logical id, version, and what it makes of that version."""
        self.released = released if released is not None else []
        """Objects that no version names any more."""
        self.now = datetime.now(UTC)
        """Not when the request came: versions are in the order of their moments."""
        self.done: list[Kept] = []
        self._given = visibility.parameters(access.requester, access.now)
        self._facts: dict[int, Facts] = {}

    def made(self, kind: str, logical_id: str) -> bool:
        """Whether this unit of work has made the current version of a resource."""
        return any(
            (one.kind, one.logical_id, one.made) == (kind, logical_id, True) for one in self.done
        )

    def only(self, finder: Finder | None) -> str | None:
        """The one logical id that is found, or None. Raises Stale where there are several."""
        found = finder(self.session) if finder is not None else ()
        if len(found) > 1:
            raise Stale("the condition matches more than one resource")
        return found[0] if found else None

    def held(self, kind: str, logical_id: str) -> Any:
        """The row of a resource, whoever's it is; None where there is none."""
        given = {"kind": kind, "logical_id": logical_id}
        return resource_rows.HELD.first(self.session.connection(), given)

    def changeable(self, kind: str, logical_id: str) -> Any:
        """The row of a resource that the requester may change, or might have changed before it was
        deleted. Raises NotFound, also for what may not be seen; Refused."""
        held = self.held(kind, logical_id)
        if held is None:
            raise self.nothing()
        self.permitted(held)
        return held

    def absent(self, kind: str, logical_id: str, nothing: NotFound) -> Kept:
        """That a resource is not there, as one that is deleted again; the attempt is recorded.

        What may not be seen is answered so too: then it was recorded as refused.
        """
        if not isinstance(nothing.__cause__, Refused):
            action = clinical.changing(kind, is_directory=kind in clinical.DIRECTORY)
            detail = {"what": f"{kind}/{logical_id}", "interaction": "delete"}
            self.access.note(action, outcome=Outcome.FAILED, reason=str(nothing), detail=detail)
        return Kept(
            kind=kind,
            logical_id=logical_id,
            version=0,
            changed=self.now,
            content=b"",
            interaction="delete",
            key=0,
        )

    def current(self, kind: str, logical_id: str, if_match: Expected | None) -> Any:
        """The row of a resource that the requester may change.

        Raises NotFound, Refused, Gone, Stale.
        """
        held = self.changeable(kind, logical_id)
        if held.deleted:
            raise Gone("the resource was deleted")
        expect(if_match, held.version)
        return held

    def nothing(self) -> NotFound:
        """That there is no such resource; who measures does not learn which are but unseen."""
        facts.of(self.session, self._given, [clinical.NOBODY])
        return NotFound("no such resource")

    def content(self, held: Any) -> bytes:
        """The bytes of the current version of a row."""
        return attachments.whole(self.access.objects, self._current(held).content)

    def present(self, kind: str, logical_id: str) -> Kept:
        """The current version of a resource, which the requester may see."""
        held = self.held(kind, logical_id)
        if held is None:
            raise NotFound("no such resource")
        row = self._current(held)
        self.access.note(
            clinical.reading(self.access.requester, Action.RETRIEVE, kind),
            patient=held.patient_id,
            detail={"what": f"{kind}/{logical_id}"},
        )
        return Kept(
            kind=kind,
            logical_id=logical_id,
            version=held.version,
            changed=row.recorded,
            content=attachments.whole(self.access.objects, row.content),
            interaction=row.interaction,
            key=row.id,
        )

    def permitted(self, held: Any) -> None:
        """Raise Refused unless the requester may change the resource of a row, and NotFound where
        they may not even see it: nobody learns by guessing which names are taken."""
        patients = clinical.about(self.session, held.id, held.patient_id, others=held.has_others)
        clinical_facts = Clinical(
            owner=held.organization_id,
            is_directory=held.is_directory,
            patients=self.facts(patients),
            whose=held.whose,
        )
        access = self.access
        detail: dict[str, Any] = {"what": f"{held.kind}/{held.logical_id}"}
        if len(patients) > 1:
            detail["patients"] = sorted(patients)
        about = {"patient": held.patient_id, "detail": detail}
        reading = clinical.reading(access.requester, Action.RETRIEVE, held.kind)
        with access.unseen("no such resource"):
            access.require(reading, clinical_facts, **about)
        access.require(
            clinical.changing(held.kind, is_directory=held.is_directory), clinical_facts, **about
        )

    def facts(self, patients: Iterable[int]) -> tuple[Facts, ...]:
        """What decisions on patient records depend on. Raises UnknownPatient."""
        patients = tuple(patients)
        if missing := [patient for patient in patients if patient not in self._facts]:
            self._facts |= facts.of(self.session, self._given, missing)
        for patient in missing:
            if patient not in self._facts:
                raise UnknownPatient(patient=patient)
        return tuple(self._facts[patient] for patient in patients)

    def keep(self, draft: Draft, held: Any, interaction: str = "") -> Kept:
        """Make the draft the next version of the resource with the row `held`, or the first.

        `interaction` is what it is called where that does not follow from `held`. Raises Refused,
        Invalid, TooLarge.
        """
        if not _LOGICAL_ID.fullmatch(draft.logical_id):
            raise Invalid("an id has 1 to 64 letters, digits, hyphens and dots")
        followed = targets.patients(self.session, self.access.requester.organization, draft.targets)
        if draft.kind == enclosures.KIND and not enclosures.is_confined(draft.values):
            organization = self.access.requester.organization
            followed += enclosures.patients(self.session, organization, draft.logical_id)
        patients = list(dict.fromkeys((*draft.patients, *followed)))
        if len(patients) > PATIENTS:
            raise TooLarge(f"a resource may be about at most {PATIENTS} patients")
        if held is not None:
            self.permitted(held)
        self._about_own(draft, patients)
        version, moved = 1 if held is None else held.version + 1, False
        content = draft.render(draft.logical_id, version, self.now)
        if len(content) > LIMIT:
            raise TooLarge(f"a resource may have at most {LIMIT} bytes")
        stands = {
            "version": version,
            "patient_id": patients[0] if patients else None,
            "is_directory": draft.is_directory,
            "has_others": len(patients) > 1,
            "changed": self.now,
            "deleted": False,
        }
        connection = self.session.connection()
        attached = enclosures.attached(draft.values)
        if held is None:
            row = resource_rows.ADD.number(
                connection,
                {
                    **stands,
                    "kind": draft.kind,
                    "logical_id": draft.logical_id,
                    "organization_id": self.access.requester.organization,
                    "whose": self._whose(draft),
                },
            )
        else:
            row = held.id
            attached |= enclosures.attached_by(self.session, row)
            moved = self._moved(held, patients) or held.deleted
            resource_rows.SET.run(connection, {**stands, "row": row})
            resource_index.remove(self.session, row)
        if len(patients) > 1:
            others = [{"resource_id": row, "patient_id": patient} for patient in patients[1:]]
            resource_rows.ADD_OTHER.run_many(connection, others)
        resource_index.add(self.session, row, draft.values, patients)
        enclosures.settle(self.session, self.access.requester.organization, attached)
        if moved:
            self.told_of(draft)
        self._followed(draft.kind, draft.logical_id, patients, draft)
        if draft.terms is not None:
            subscriptions.accepted(self.access, self.session, row, draft.logical_id, draft.terms)
        made = "create" if held is None or held.deleted else "update"
        about = patients[0] if patients else None
        happenings.changed(
            self.session,
            draft.kind,
            draft.logical_id,
            version,
            about,
            self.now,
            created=made == "create",
        )
        kept = self._kept_of(content, draft, row, version)
        lying = draft.attachment.lying(kept, self.access.objects) if draft.attachment else None
        return self._revised(row, draft, version, interaction or made, content, about, kept, lying)

    def told_of(self, one: Draft) -> None:
        """See to it that what is about a resource is about its patients, who are others now."""
        targets.follow(self.session, one.kind, one.logical_id)

    def take_out(self, held: Any) -> Kept:
        """Delete the resource of a row: it is found no more, its versions stay."""
        attached = enclosures.attached_by(self.session, held.id)
        resource_index.remove(self.session, held.id)
        enclosures.settle(self.session, held.organization_id, attached)
        self._followed(held.kind, held.logical_id, (), None)
        if held.kind == clinical.SUBSCRIPTION:
            subscriptions.ended(self.session, held.id)
        resource_rows.TAKE_OUT.run(
            self.session.connection(),
            {"row": held.id, "version": held.version + 1, "changed": self.now, "deleted": True},
        )
        self.told_of(held)
        return self._revised(held.id, held, held.version + 1, "delete", b"", held.patient_id, b"")

    def _kept_of(self, content: bytes, draft: Draft, row: int, version: int) -> bytes:
        """What of the content of a version is kept in the index."""
        if draft.attachment is None:
            return content
        draft.attachment.put(self.access.objects)
        kept = draft.attachment.without(content)
        if kept is None:
            return content
        attachments.note(self.session, draft.attachment, row, version)
        return kept

    def _followed(
        self, kind: str, logical_id: str, patients: Sequence[int], draft: Draft | None
    ) -> None:
        """What the exchange itself does by a resource does so now; without a draft it is gone."""
        if kind == CONSENT:
            sharing = draft.sharing if draft is not None else ()
            consent.stated(self.session, logical_id, patients, sharing, self.now)
        if self.access.requester.role is Role.EXCHANGE:
            return  # what it derives of orders leads to none
        told = draft.order if draft is not None else None
        given = (self.access, self.session, logical_id, patients)
        if kind == requests.KIND and not isinstance(told, requests.Booked):
            for derived in requests.stated(*given, told, self.now):
                held = self.held(*derived)
                if held is not None and held.organization_id is None and not held.deleted:
                    self.take_out(held)
        if kind == requests.APPOINTMENT and not isinstance(told, requests.Requested):
            requests.booked(*given, told, self.now)

    def _about_own(self, draft: Draft, patients: list[int]) -> None:
        """Raise unless the requester may record `draft` as its own, about all of its patients.

        A patient whom the requester may not see is not told from one that is not known.
        """
        requester = self.access.requester
        known = self.facts(patients)
        for patient, fact in zip(patients, known, strict=True):
            may_see = isinstance(policy.decide(requester, Action.RETRIEVE, fact), Permit)
            if fact.owner != requester.organization and not may_see:
                raise UnknownPatient(patient=patient)
        own = Clinical(
            owner=requester.organization,
            is_directory=draft.is_directory,
            patients=known,
            whose=self._whose(draft),
        )
        detail = {"what": f"{draft.kind}/{draft.logical_id}"}
        first = patients[0] if patients else None
        self.access.require(action_of(draft), own, patient=first, detail=detail)

    def _whose(self, draft: Draft) -> str:
        return self.access.requester.name if draft.kind == clinical.SUBSCRIPTION else ""

    def _current(self, held: Any) -> Any:
        given = {"resource": held.id, "version": held.version}
        return resource_rows.REVISION.first(self.session.connection(), given)

    def _moved(self, held: Any, patients: list[int]) -> bool:
        """Whether it was about others than `patients`; those versions are not shown with theirs."""
        connection = self.session.connection()
        before = clinical.about(self.session, held.id, held.patient_id, others=held.has_others)
        moved = set(before) != set(patients)
        if moved:
            resource_rows.ELSEWHERE.run(connection, {"resource": held.id})
        if held.has_others:
            resource_rows.REMOVE_OTHERS.run(connection, {"resource": held.id})
        return moved

    def _revised(
        self,
        row: int,
        named: Any,
        version: int,
        interaction: str,
        content: bytes,
        about: Any,
        kept: bytes,
        lying: Lying | None = None,
    ) -> Kept:
        key = resource_rows.ADD_REVISION.number(
            self.session.connection(),
            {
                "resource_id": row,
                "kind": named.kind,
                "version": version,
                "interaction": interaction,
                "content": kept,
                "recorded": self.now,
                "elsewhere": False,
            },
        )
        action = clinical.changing(named.kind, is_directory=named.is_directory)
        detail = {
            "what": f"{named.kind}/{named.logical_id}",
            "interaction": interaction,
            "version": version,
        }
        self.access.note(action, patient=about, detail=detail)
        return Kept(
            kind=named.kind,
            logical_id=named.logical_id,
            version=version,
            changed=self.now,
            content=content if lying is None else attachments.without(kept),
            interaction=interaction,
            key=key,
            lying=lying,
            made=True,
        )


def action_of(draft: Draft) -> Action:
    """What keeping the draft is to the policy: recorded, or published."""
    return clinical.changing(draft.kind, is_directory=draft.is_directory)

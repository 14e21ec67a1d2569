"""Recording clinical resources: create, update, patch and delete (FHIR R4 3.1.0.4 to 3.1.0.11).

    kept = recording.create(access, Draft(kind="Observation", patients=(7,), render=render))

A door gives a `Draft`: whose it is, under what it is found, and how it is put into bytes once
version and moment are known. Several acts of one request are done together or not at all
(`several`); what each of them does it does by a `Writing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy.orm import Session

from exchange import attachments, clinical, requests
from exchange.access import Access
from exchange.clinical import Kept
from exchange.errors import Conflicting, Invalid, NotFound, Stale, TooLarge
from exchange.policy import Action
from exchange.writing import (
    Draft,
    Expected,
    Finder,
    Render,
    Writing,
    action_of,
    expect,
    new_id,
)
from exchange_storage import resource_rows

__all__ = [
    "Act",
    "After",
    "Create",
    "Delete",
    "Derive",
    "Draft",
    "Expected",
    "Finder",
    "Forget",
    "Patch",
    "Render",
    "Update",
    "Writing",
    "create",
    "delete",
    "new_id",
    "several",
    "update",
]

ACTS = 1000
"""Acts that are done together, at most: for so long nobody else writes."""

ATTEMPTS = 5
"""How often a patch is computed ahead of its commit, while others' versions come meanwhile."""


class Moved(Exception):
    """Another version has come since a patch was computed."""


class Act(Protocol):
    """Something to be done to one resource, within a unit of work."""

    @property
    def action(self) -> Action | None:
        """What the requester must be allowed at all; None where only `perform` knows."""

    def perform(self, writing: Writing) -> Kept:
        """Do it. Raises what the verb of its name says."""


@dataclass(frozen=True, slots=True)
class Create:
    """Keep a new resource; with `unless`, only where that finds none.

    One that is found is given back as it is, several raise Stale.
    """

    draft: Draft
    unless: Finder | None = None

    @property
    def action(self) -> Action:
        """Recorded, or published."""
        return action_of(self.draft)

    def perform(self, writing: Writing) -> Kept:
        """Do it. Raises Refused, Invalid, Stale, TooLarge."""
        found = writing.only(self.unless)
        if found is not None:
            return writing.present(self.draft.kind, found)
        return writing.keep(self.draft, None)


@dataclass(frozen=True, slots=True)
class Update:
    """Make the draft the current version of the resource that it names.

    With `matching`, of the one that this finds; where there is none it is created, as is one whose
    name is not known yet unless `may_create` is False. What is `new`, or not found by `matching`,
    takes no other's name. `if_match` says which version must be the current one; with `if_none`
    there must be none.
    """

    draft: Draft
    matching: Finder | None = None
    if_match: Expected | None = None
    if_none: bool = False
    may_create: bool = True
    new: bool = False

    @property
    def action(self) -> Action:
        """Recorded, or published."""
        return action_of(self.draft)

    def perform(self, writing: Writing) -> Kept:
        """Do it. Raises Refused, Invalid, NotFound, Conflicting, Stale, TooLarge."""
        draft = self.draft
        found = writing.only(self.matching)
        if found is not None:
            draft = replace(draft, logical_id=found)
        held = writing.held(draft.kind, draft.logical_id)
        if held is not None:
            writing.permitted(held)  # first: else a condition tells of another hospital's versions
        elif draft.kind in requests.DERIVED and draft.logical_id.startswith(requests.PREFIX):
            raise Invalid(f"ids that begin with {requests.PREFIX} are the exchange's own")
        exists = held is not None and not held.deleted
        if exists and (self.new or (self.matching is not None and found is None)):
            raise Conflicting("nothing matches the condition, but there is a resource of that id")
        if self.if_none and exists:
            raise Stale("there is such a resource already")
        gone = held is None or (held.deleted and self.if_match == Expected())
        expect(self.if_match, None if gone else held.version)
        if held is None and not self.may_create:
            raise writing.nothing()
        kept = writing.keep(draft, held)
        if held is None:  # by a name that others may have known before
            writing.told_of(draft)
        return kept


@dataclass(frozen=True, slots=True)
class Patch:
    """Make of the current version what `change` makes of its bytes; else as `Update`.

    `change` raises Invalid where the current version is not what it can be applied to. It is
    computed before anybody else has to wait (`prepare`), and in the commit where versions of
    others have come meanwhile again and again.
    """

    kind: str
    logical_id: str
    change: Callable[[bytes], Draft]
    matching: Finder | None = None
    if_match: Expected | None = None

    @property
    def action(self) -> None:
        """Known once the current version is."""

    def perform(self, writing: Writing) -> Kept:
        """Do it. Raises Refused, Invalid, NotFound, Gone, Stale, TooLarge."""
        found = writing.only(self.matching)
        if self.matching is not None and found is None:
            raise NotFound("nothing matches the condition")
        logical_id = found or self.logical_id
        held = writing.current(self.kind, logical_id, self.if_match)
        prepared = writing.prepared.get(id(self))
        if prepared is not None and prepared[:2] == (logical_id, held.version):
            draft = prepared[2]
        elif prepared is not None and not writing.made(self.kind, logical_id):
            raise Moved
        else:  # of an act that depends on others
            draft = self.change(writing.content(held))
        return writing.keep(replace(draft, logical_id=logical_id), held)

    def prepare(self, access: Access) -> tuple[str, int, Draft] | None:
        """The logical id, the version that it is of, and what is made of it; None where what is
        there may not be read, or cannot be told yet."""
        found = self.matching(access.session) if self.matching is not None else (self.logical_id,)
        if len(found) != 1:
            return None
        held = clinical.changeable(access, self.kind, found[0])
        if held is None or (self.if_match and not self.if_match.is_met(held.version)):
            return None
        return held.logical_id, held.version, self.change(held.content)


@dataclass(frozen=True, slots=True)
class Delete:
    """Take a resource out of use; its earlier versions stay.

    Repeating it changes nothing, nor does deleting what never was: what may not be seen is answered
    in the same way. With `matching`, the one that this finds; several raise Stale.
    """

    kind: str
    logical_id: str = ""
    matching: Finder | None = None
    if_match: Expected | None = None

    @property
    def action(self) -> Action:
        """Recorded, or published: what is about patients is decided once it is known."""
        return clinical.changing(self.kind, is_directory=self.kind in clinical.DIRECTORY)

    def perform(self, writing: Writing) -> Kept:
        """Do it. Raises Refused, Stale."""
        found = writing.only(self.matching)
        logical_id = found or self.logical_id
        try:
            if self.matching is not None and found is None:
                raise NotFound("nothing matches the condition")
            held = writing.changeable(self.kind, logical_id)
        except NotFound as nothing:
            expect(self.if_match, None)
            return writing.absent(self.kind, logical_id, nothing)
        if held.deleted:
            return writing.present(self.kind, logical_id)
        expect(self.if_match, held.version)
        return writing.take_out(held)


@dataclass(frozen=True, slots=True)
class Derive:
    """Make the draft the current version, unless that says the same: of the exchange itself."""

    draft: Draft

    @property
    def action(self) -> Action:
        """Recorded."""
        return Action.RECORD

    def perform(self, writing: Writing) -> Kept:
        """Do it."""
        draft = self.draft
        held = writing.held(draft.kind, draft.logical_id)
        if held is not None and held.organization_id is not None:
            # Somebody took the name before: what they wrote stays theirs.
            return writing.present(draft.kind, draft.logical_id)
        if held is not None and not held.deleted:
            same = draft.render(draft.logical_id, held.version, held.changed)
            if writing.content(held) == same:
                return writing.present(draft.kind, draft.logical_id)
        return writing.keep(draft, held)


@dataclass(frozen=True, slots=True)
class Forget:
    """Take what was derived out of use, with all versions of it: of the exchange itself.

    What a hospital rejected or had deleted is not to be read in an earlier version; it is derived
    again should it come back.
    """

    kind: str
    logical_id: str

    @property
    def action(self) -> Action:
        """Recorded."""
        return Action.RECORD

    def perform(self, writing: Writing) -> Kept:
        """Do it. Raises NotFound."""
        writing.changeable(self.kind, self.logical_id)
        kept = Delete(self.kind, self.logical_id).perform(writing)
        held = writing.held(self.kind, self.logical_id)
        earlier = {"resource": held.id, "version": held.version}
        resource_rows.REMOVE_EARLIER.run(writing.session.connection(), earlier)
        writing.released += attachments.release(writing.session, held.id, held.version)
        return kept


@dataclass(frozen=True, slots=True)
class After:
    """An act that depends on what the acts before it in the same request made."""

    make: Callable[[Sequence[Kept]], Act]
    """Given what was kept so far, in the order of the acts."""

    @property
    def action(self) -> None:
        """Known once the act is."""

    def perform(self, writing: Writing) -> Kept:
        """Do what is made of it."""
        return self.make(tuple(writing.done)).perform(writing)


def create(access: Access, draft: Draft, *, unless: Finder | None = None) -> Kept:
    """Keep a new resource, or give back the one that `unless` finds.

    Raises Refused, Invalid for a patient that is not known, Stale where `unless` finds several,
    TooLarge.
    """
    return several(access, [Create(draft, unless)])[0]


def update(
    access: Access, draft: Draft, *, if_match: Expected | None = None, may_create: bool = True
) -> Kept:
    """Make the draft the current version, created if there is none. See `Update` for more.

    Raises Refused, Invalid, NotFound, Stale, TooLarge.
    """
    return several(access, [Update(draft, if_match=if_match, may_create=may_create)])[0]


def delete(access: Access, kind: str, logical_id: str, *, if_match: Expected | None = None) -> Kept:
    """Take a resource out of use. Raises Refused, Stale."""
    return several(access, [Delete(kind, logical_id, if_match=if_match)])[0]


def several(access: Access, acts: Sequence[Act]) -> list[Kept]:
    """Do all of `acts`, in this order and in one transaction, or none of them.

    What was kept is in the same order. Raises the first error of an act, with the number of that
    act from 0 as a note of the form ``act 3`` where there are several; TooLarge.
    """
    if len(acts) > ACTS:
        raise TooLarge(f"at most {ACTS} resources can be written together")
    for act in acts:
        if (action := act.action) is not None:
            access.require(action)

    released: list[str] = []

    def unit(session: Session) -> list[Kept]:
        writing = Writing(access, session, prepared, released)
        for number, act in enumerate(acts):
            try:
                writing.done.append(act.perform(writing))
            except Exception as error:
                error.add_note(f"act {number}")
                raise
        return writing.done

    computed = 0
    while True:
        # At last in the commit itself, where nobody comes between: who names no version is not
        # told of others' (RFC 5789, 2.2).
        ahead = _prepared(access, acts) if computed < ATTEMPTS else ()
        prepared = {id(act): made for act, made in ahead if made is not None}
        drafts = [act.draft for act in acts if isinstance(act, Create | Update | Derive)]
        drafts += [made for _, _, made in prepared.values()]
        try:
            with attachments.put(access.objects, (one.attachment for one in drafts), released):
                return access.write(unit)
        except Moved:
            computed += 1
            access.renew()


def _prepared(
    access: Access, acts: Sequence[Act]
) -> Iterator[tuple[Act, tuple[str, int, Draft] | None]]:
    """What patches make of what is there, before anybody else has to wait for it."""
    for number, act in enumerate(acts):
        if isinstance(act, Patch):
            try:
                yield act, act.prepare(access)
            except Exception as error:
                error.add_note(f"act {number}")
                raise

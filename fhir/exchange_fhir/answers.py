"""What an interaction answers, before it is put into HTTP or into an entry of a Bundle."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from exchange.attachments import Lying
from exchange.clinical import Kept
from exchange_fhir.datatypes import Json
from exchange_fhir.outcome import Issue, of_issues


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Status, resource and what is told about it."""

    status: int
    content: bytes = field(default=b"", repr=False)
    """The resource as JSON; empty where there is none."""
    version: str = ""
    changed: datetime | None = None
    location: str = ""
    told: str = ""
    """In words what was done."""
    lying: Lying | None = None
    """What the resource does not hold, but belongs to it: its text there is empty."""

    def outcome(self) -> Json:
        """The OperationOutcome of a success."""
        return of_issues([Issue("informational", self.told or "done", severity="information")])


def kept(made: Kept, base: str) -> Answered:
    """The answer to a create, update, patch or delete (R4 3.1.0.4 to 3.1.0.9)."""
    if made.deleted and not made.version:
        return Answered(status=204, told=f"there is no such {made.kind}")
    if made.deleted:
        return Answered(
            status=204, version=str(made.version), told=f"{made.kind}/{made.logical_id} is deleted"
        )
    created = made.made and made.interaction == "create"
    done = made.interaction + "d" if made.made else "found"
    named = f"{made.kind}/{made.logical_id}"
    version = str(made.version)
    return Answered(
        status=201 if created else 200,
        content=made.content,
        version=version,
        changed=made.changed,
        location=f"{base}/{named}/_history/{version}",
        told=f"{named} version {version} is {done}",
        lying=made.lying,
    )


def read(found: Kept) -> Answered:
    """The answer to a read or vread."""
    return Answered(
        status=200,
        content=found.content,
        version=str(found.version),
        changed=found.changed,
        lying=found.lying,
    )

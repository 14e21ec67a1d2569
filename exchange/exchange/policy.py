"""Who may do what: a pure decision with its reason. `visibility` has it as an SQL condition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

SHARING = "sharing"
"""The agreement of the region under which hospitals see each other's records."""

REPORTING = "public health"
"""The agreement under which hospitals' systems have each other's records for public health."""


class Role(StrEnum):
    """What somebody is to the exchange."""

    CLINICIAN = "clinician"
    SYSTEM = "system"
    """A hospital's PACS, modality or information system, acting for its clinicians."""
    ADMINISTRATOR = "administrator"
    EXCHANGE = "exchange"
    """The exchange itself, doing its own later work."""
    GUEST = "guest"
    """Who holds a patient's link and a code for it: nobody who signs in."""


STAFF = frozenset(Role) - {Role.GUEST}


class Purpose(StrEnum):
    """Purpose of use (HL7 v3 PurposeOfUse)."""

    TREATMENT = "TREAT"
    OPERATIONS = "HOPERAT"
    PUBLIC_HEALTH = "PUBHLTH"
    PATIENT_REQUEST = "PATRQT"
    """A patient has asked for what is theirs."""


class Action(StrEnum):
    """What is asked of the exchange."""

    AUTHENTICATE = "authenticate"
    STORE = "store"
    SEARCH = "search"
    RETRIEVE = "retrieve"
    AUDIT = "audit"
    ADMINISTER = "administer"
    LINK = "link"
    COMMIT = "commit"
    """Have the exchange answer for instances (storage commitment)."""
    ORDER = "order"
    """Place, change or read the hospital's own imaging orders and its worklist."""
    PERFORM = "perform"
    """Say what was performed, and what was sent."""
    FORWARD = "forward"
    """Send a hospital's studies to somebody, unasked."""
    REJECT = "reject"
    """Take an instance out of use."""
    DESTROY = "destroy"
    """Delete what a rule no longer keeps."""
    VERIFY = "verify"
    """Read again what is kept, and compare its digest."""
    REVIEW = "review"
    """Settle a conflict."""
    RECORD = "record"
    """Write what is about the hospital's own patients, or for its own use."""
    LOOK_UP = "look up"
    """Read the directory of the region: hospitals, who works there, places, endpoints."""
    PUBLISH = "publish"
    """Write the hospital's own entries of that directory."""
    SCHEDULE = "schedule"
    """Put a workitem on the hospital's worklist."""
    WORK = "work"
    """Find, read, do, cancel and watch workitems."""
    SHARE = "share"
    """Refer a colleague to a study by a link, and follow one."""
    EXPORT = "export"
    """Have all records written out at once, as `exporting` narrows them."""
    EXPORT_GROUP = "export a group"
    """The same of patients of a group whom the hospital treats."""
    HAND_OUT = "hand out"
    """Give a patient a link to what is theirs, and take it back."""
    SUBSCRIBE = "subscribe"
    """Have oneself told of events, and write, read and end the wish for it."""


SHARED = frozenset({Action.SEARCH, Action.RETRIEVE, Action.WORK, Action.SHARE, Action.HAND_OUT})
"""What hospitals may do with each other's records; all else each does with its own only."""

REPORTED = frozenset({Action.SEARCH, Action.RETRIEVE})
"""What a hospital's system may do with others' records for public health."""

DIRECTORY = frozenset({Action.LOOK_UP, Action.PUBLISH})
"""What is done with the directory, where no patient is."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a patient's link leads to: a study, or one series of it."""

    study: str
    series: str = ""
    """"" for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whoever sits at the system that asks."""

    name: str
    verified: bool
    """Whether they have proved who they are; else it is what their system says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who asks, for which hospital, what for, and from where."""

    name: str
    role: Role
    organization: int | None
    purpose: Purpose | None
    address: str = ""
    door: str = ""
    """The protocol: ``dimse``, ``dicomweb``, ``fhir``, ``portal``, ``cli``, ``worker``."""
    rejected: bool = False
    """Whether it is asked for what the hospital has rejected, instead of for what is in use."""
    person: Person | None = None
    """Who uses the system that asks, where it tells. No decision depends on it: the hospital
    answers for its systems."""
    named: Named | None = None
    """What the link of a guest leads to."""
    rehearses: bool = False
    """Whether nobody asks: see `REHEARSAL`."""

    def reaches(self, study: str, series: str | None = None) -> bool:
        """Whether a guest's link leads to a study, or to this series of it.

        A study of which it names one series is reached as well: what is read of it is narrowed.
        """
        named = self.named
        return named is not None and (
            named.study == study and (series is None or named.series in {"", series})
        )

    def narrowed(self, series: str | None) -> str | None:
        """The series that is asked for, where all were and a link names one of them."""
        return (self.named.series or None) if series is None and self.named else series


REHEARSAL = Requester(
    name="",
    role=Role.CLINICIAN,
    organization=0,
    purpose=Purpose.TREATMENT,
    rehearses=True,
)
"""Nobody, of no hospital: questions are asked so before somebody asks them, and are in words then.

No row of an index has the number 0: nothing is of that hospital, nobody shares with it, and of all
else each record is denied. The gate records nothing of it, since nothing is told to anybody.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a decision about a patient record and all that hangs on it depends on."""

    owner: int
    """The organization whose record it is."""
    owner_shares: bool
    asker_shares: bool
    opted_out: bool
    """The patient has not consented to sharing, at any of their hospitals."""
    owner_reports: bool = False
    """Whether it is in the agreement on public health."""
    asker_reports: bool = False
    linked: bool = False
    """Whether what is asked for is what a guest's link leads to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clinical:
    """What a decision about a clinical resource depends on."""

    owner: int | None
    """The organization that wrote it; None for what the exchange itself, or the region, did."""
    is_directory: bool
    patients: tuple[Facts, ...]
    """Of each patient record that it is about."""
    whose: str = ""
    """Name of the one user whose it is, beside their hospital's administrators."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Yes, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Deny:
    """No, and why: in words that the asker may read."""

    reason: str


Decision = Permit | Deny

ASTRAY = Deny("the link does not lead there")
"""What a guest is told of all else."""

NOBODYS = Deny("nobody asks for it")
"""What is told of every record where questions are rehearsed."""

_ROLES: dict[Action, frozenset[Role]] = {
    Action.AUTHENTICATE: STAFF - {Role.EXCHANGE},
    Action.STORE: frozenset({Role.SYSTEM}),
    Action.SEARCH: frozenset({Role.CLINICIAN, Role.SYSTEM, Role.EXCHANGE, Role.GUEST}),
    Action.RETRIEVE: frozenset({Role.CLINICIAN, Role.SYSTEM, Role.EXCHANGE, Role.GUEST}),
    Action.AUDIT: frozenset({Role.ADMINISTRATOR}),
    Action.ADMINISTER: frozenset({Role.ADMINISTRATOR}),
    Action.LINK: frozenset({Role.EXCHANGE}),
    Action.COMMIT: frozenset({Role.SYSTEM, Role.EXCHANGE}),
    Action.ORDER: frozenset({Role.SYSTEM, Role.ADMINISTRATOR}),
    Action.PERFORM: frozenset({Role.SYSTEM, Role.ADMINISTRATOR}),
    Action.FORWARD: frozenset({Role.EXCHANGE}),
    Action.REJECT: frozenset({Role.SYSTEM, Role.ADMINISTRATOR}),
    Action.DESTROY: frozenset({Role.EXCHANGE, Role.ADMINISTRATOR}),
    Action.VERIFY: frozenset({Role.EXCHANGE, Role.ADMINISTRATOR}),
    Action.REVIEW: frozenset({Role.ADMINISTRATOR}),
    Action.RECORD: frozenset({Role.CLINICIAN, Role.SYSTEM, Role.EXCHANGE}),
    Action.LOOK_UP: STAFF,
    Action.PUBLISH: STAFF,
    Action.SCHEDULE: frozenset({Role.SYSTEM}),
    Action.WORK: frozenset({Role.CLINICIAN, Role.SYSTEM, Role.EXCHANGE}),
    Action.SHARE: frozenset({Role.CLINICIAN}),
    Action.HAND_OUT: frozenset({Role.CLINICIAN, Role.ADMINISTRATOR}),
    Action.EXPORT: frozenset({Role.SYSTEM}),
    Action.EXPORT_GROUP: frozenset({Role.CLINICIAN, Role.SYSTEM}),
    Action.SUBSCRIBE: STAFF,
}


_OF_A_HOSPITAL = frozenset({Role.CLINICIAN, Role.SYSTEM, Role.GUEST})


def may(requester: Requester, action: Action) -> Decision:
    """Whether the requester may ask for `action` at all, before it is known about whom."""
    if requester.role not in _ROLES[action]:
        return Deny(f"the role {requester.role} may not {action}")
    if requester.organization is None and requester.role in _OF_A_HOSPITAL:
        return Deny(f"a {requester.role} without an organization may not {action}")
    return Permit(f"the role {requester.role} may {action}")


def decide(requester: Requester, action: Action, facts: Facts) -> Decision:
    """Whether the requester may do `action` to a record with these `facts`."""
    if requester.rehearses:
        return NOBODYS
    match may(requester, action):
        case Deny() as refusal:
            return refusal
        case Permit():
            pass
    if requester.role is Role.EXCHANGE:
        return Permit("the exchange's own work")
    if action in DIRECTORY:
        return Deny("what is about a patient is not in the directory")
    if action is Action.SUBSCRIBE:
        return Deny("what is about a patient is no subscription")
    if requester.role is Role.GUEST and not facts.linked:
        return ASTRAY
    if facts.owner == requester.organization:
        return Permit("the organization's own record")
    if requester.rejected and action in REPORTED:
        return Deny("what a hospital has rejected only that hospital looks at")
    if action not in SHARED or requester.role is Role.ADMINISTRATOR:
        return Deny(f"a hospital may not {action} what is another hospital's")
    if action in REPORTED and reports(requester) and facts.asker_reports and facts.owner_reports:
        if facts.opted_out:
            return Deny("the patient has not consented to sharing")
        return Permit("shared for public health")
    if not facts.asker_shares:
        return Deny("the asking organization has not joined the sharing agreement")
    if not facts.owner_shares:
        return Deny("the owning organization has not joined the sharing agreement")
    if requester.purpose is not Purpose.TREATMENT and requester.role is not Role.GUEST:
        return Deny("records of other organizations are shared for treatment only")
    if facts.opted_out:
        return Deny("the patient has not consented to sharing")
    return Permit(f"shared for {'the patient' if facts.linked else 'treatment'}")


def reports(requester: Requester) -> bool:
    """Whether it is a hospital's system that asks for public health, not a person."""
    return requester.role is Role.SYSTEM and requester.purpose is Purpose.PUBLIC_HEALTH


def exporting(requester: Requester) -> Requester:
    """The requester, as all records are read for their export: a hospital's system has its own.

    Others' only for public health, by an agreement of its own: who treats somebody does not need
    everybody. To read is decided for whom this gives, record by record, as always.
    """
    if requester.purpose is Purpose.PUBLIC_HEALTH:
        return requester
    return replace(requester, purpose=Purpose.OPERATIONS)


def decide_clinical(requester: Requester, action: Action, facts: Clinical) -> Decision:
    """Whether the requester may do `action` to a clinical resource with these `facts`."""
    if requester.rehearses:
        return NOBODYS
    match may(requester, action):
        case Deny() as refusal:
            return refusal
        case Permit():
            pass
    if requester.role is Role.EXCHANGE:
        return Permit("the exchange's own work")
    if requester.role is Role.GUEST:
        return ASTRAY
    own = facts.owner == requester.organization
    if facts.whose:
        administers = action is Action.SUBSCRIBE and requester.role is Role.ADMINISTRATOR
        if facts.owner is None or not own:
            return Deny("it is another organization's subscription")
        if facts.whose != requester.name and not administers:
            return Deny("it is somebody else's subscription")
    if action is Action.SUBSCRIBE:
        if not facts.whose:
            return Deny("it is not a subscription")
        return Permit("one's own subscription, or one's hospital's")
    if action in DIRECTORY and not facts.is_directory:
        return Deny("it is not in the directory")
    if action in SHARED or action is Action.LOOK_UP:
        if facts.is_directory:
            return Permit("in the directory of the region")
        if own:
            return Permit("the organization's own resource")
        if not facts.patients:
            return Deny("another organization's own: it is about no patient")
    elif not own:
        return Deny("only who wrote it may change it")
    for one in facts.patients:
        match decide(requester, action, one):
            case Deny() as refusal:
                return refusal
            case Permit():
                pass
    if own:
        return Permit("the organization's own resource")
    return Permit(f"shared for {'public health' if reports(requester) else 'treatment'}")

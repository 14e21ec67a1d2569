"""Matching: who of the patients that may be seen is meant, with a score and its reasons.

IHE PDQm ITI-119 ($match) asks by demographics, PIXm ITI-83 ($ihe-pix) by a number: both are
questions like any other, decided row by row. Scores are pure; nothing is linked by them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from exchange import beside, identity, organizations, query
from exchange.access import Access
from exchange.errors import Invalid, NotFound
from exchange.policy import Action
from exchange.query import Found
from exchange.registration import REPLACED
from exchange_storage import names, search
from exchange_storage.records import NameKind, Organization, Patient
from exchange_storage.search import Criterion, Level

CANDIDATES = 200
"""Patient records that are scored for one question, at most."""

IDENTIFIERS = 16
"""Identifiers, names and telephone numbers by which one question may ask, of each."""


class Grade(StrEnum):
    """How sure a match is (FHIR match-grade)."""

    CERTAIN = "certain"
    PROBABLE = "probable"
    POSSIBLE = "possible"


PROBABLE = 0.8
POSSIBLE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Who is asked for, as far as it is known."""

    names: tuple[str, ...] = ()
    """As PS3.5 section 6.2 writes PN."""
    birth_date: str = ""
    """YYYYMMDD."""
    sex: str = ""
    """M, F, O or ""."""
    telephones: tuple[str, ...] = ()
    identifiers: tuple[tuple[str, str], ...] = ()
    """(issuer or "", value): hospital numbers, ID cards and others."""


@dataclass(frozen=True, slots=True)
class Match:
    """A patient record that may be who is sought."""

    found: Found
    score: float
    """From 0 to 1."""
    grade: Grade
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """How well a record agrees with who is sought."""

    value: float
    certain: bool
    reasons: tuple[str, ...]

    @property
    def grade(self) -> Grade | None:
        """The grade, or None for what is no match."""
        if self.certain:
            return Grade.CERTAIN
        if self.value >= PROBABLE:
            return Grade.PROBABLE
        return Grade.POSSIBLE if self.value >= POSSIBLE else None


def score(
    sought: Sought, record: Patient, issuer: str, identifiers: Collection[tuple[str, str]]
) -> Score:
    """How well `record`, with its other `identifiers` (issuer, value), agrees with `sought`.

    A number that one person only can have is certain unless birth date or sex contradict it; names
    and dates alone are never more than probable.
    """
    reasons: list[str] = []
    value = 0.0
    own = {(issuer, record.patient_id)} | {(_issuer(system), one) for system, one in identifiers}
    asked = {(_issuer(system), one.strip()) for system, one in sought.identifiers}
    cards = {card.number for card in map(_card, asked) if card is not None}
    known_cards = {card.number for card in map(_card, own) if card is not None}
    by_number = False
    if cards & known_cards:
        by_number = True
        reasons.append("the same resident ID card")
    elif cards and known_cards:
        value -= 0.4
        reasons.append("another resident ID card")
    if any(pair in own for pair in asked if pair[0]):
        by_number = True
        reasons.append("the same number of the same issuer")
    if name := _name(sought.names, record.name):
        value += 0.4 if name == "name" else 0.3
        reasons.append(f"the same {name}")
    contradicted = False
    if sought.birth_date and record.birth_date:
        if sought.birth_date == record.birth_date:
            value += 0.35
            reasons.append("the same birth date")
        elif _nearly(sought.birth_date, record.birth_date):
            value += 0.15
            reasons.append("a birth date that differs by one slip")
        else:
            value -= 0.2
            contradicted = True
            reasons.append("another birth date")
    if sought.sex and record.sex:
        if sought.sex == record.sex:
            value += 0.1
            reasons.append("the same sex")
        else:
            value -= 0.2
            contradicted = True
            reasons.append("another sex")
    wanted = {digits for one in sought.telephones if len(digits := _digits(one)) >= 7}
    if wanted & {_digits(one) for one in record.telephone.split("\\")}:
        value += 0.15
        reasons.append("the same telephone number")
    if by_number:
        certain = not contradicted
        return Score(1.0 if certain else max(PROBABLE, value), certain, tuple(reasons))
    return Score(min(max(value, 0.0), 0.99), False, tuple(reasons))


def match(access: Access, sought: Sought, *, limit: int, only_certain: bool = False) -> list[Match]:
    """The records that may be who is sought and that the asker may see, the best first.

    In the place of a record that was merged stands the one that was kept (IHE PDQm ITI-119). With
    `only_certain` those alone that are certain, and none when they are several persons.
    Raises Refused, Invalid for a question that says too little to tell people apart.
    """
    access.require(Action.SEARCH)
    criteria = _criteria(sought)
    if not criteria:
        raise Invalid("a match needs an identifier, or a name with a birth date")
    answer = query.find(
        access,
        Level.PATIENT,
        [search.AnyOf(tuple(criteria))],
        limit=CANDIDATES,
        summarize=False,
        asked=repr(sought),
    )
    rows = [found.patient.id for found in answer.found]
    identifiers = beside.identifiers(access, rows)
    issuers = {one.issuer for one in organizations.everyone(access.session)}
    matches: list[Match] = []
    for found in answer.found:
        others = [
            (one.system, one.value)
            for one in identifiers.get(found.patient.id, ())
            # A hospital's number is what that hospital says, not what another one states of it.
            if _issuer(one.system) not in issuers
        ]
        scored = score(sought, found.patient, found.owner.issuer, others)
        if scored.grade is not None:
            matches.append(Match(found, round(scored.value, 3), scored.grade, scored.reasons))
    matches = _standing(access, matches)
    matches.sort(key=lambda one: (-one.score, one.found.patient.id))
    if only_certain:
        matches = [one for one in matches if one.grade is Grade.CERTAIN]
        people = {one.found.patient.person_id or -one.found.patient.id for one in matches}
        if len(people) > 1:
            return []
    return matches[:limit]


def _standing(access: Access, matches: Sequence[Match]) -> list[Match]:
    """The matches, each record that was merged by the one in its place, once, as well as it may."""
    standing: dict[int, Match] = {}
    for _ in range(REPLACED):
        replaced: dict[int, list[Match]] = {}
        for one in matches:
            record = one.found.patient
            if record.replaced_by_id is not None:
                replaced.setdefault(record.replaced_by_id, []).append(one)
            elif record.id not in standing or standing[record.id].score < one.score:
                standing[record.id] = one
        if not replaced:
            break
        rows = [search.Rows(Level.PATIENT, tuple(replaced))]
        kept = query.find(access, Level.PATIENT, rows, limit=CANDIDATES, summarize=False)
        matches = [
            replace(one, found=found) for found in kept.found for one in replaced[found.patient.id]
        ]
    return list(standing.values())


def cross_references(access: Access, issuer: str, value: str) -> list[Found]:
    """The records that the asker may see of the person with a number, of every hospital.

    `issuer` is the OID of a hospital, or of the resident ID card, with or without ``urn:oid:``.
    Records in whose place another one stands are left out. Raises Refused, Invalid for an issuer
    that nobody is known by, NotFound for a number that is not known or may not be seen.
    """
    access.require(Action.SEARCH)
    system = _issuer(issuer)
    hospital = by_issuer(access, system)
    criterion: Criterion
    if hospital is not None:
        criterion = search.Number(hospital.id, search.Values((value,)))
    elif system == identity.RESIDENT_ID:
        card = identity.resident_id(value)
        spellings = {value, card.number if card else value}
        criterion = search.AnyOf(
            tuple(
                search.Identifier(one, issuer)
                for one in sorted(spellings)
                for issuer in sorted(identity.CARD_ISSUERS - {""})
            )
        )
    else:
        raise Invalid("no hospital issues numbers under this identifier, nor is it the ID card's")
    answer = query.find(
        access,
        Level.PATIENT,
        [criterion],
        limit=CANDIDATES,
        summarize=False,
        asked=f"{issuer}|{value}",
    )
    found = list(answer.found)
    if hospital is None:
        # Who carries the card is one person; their other records may not carry it.
        rows = {one.patient.id for one in found}
        same = [search.SamePerson(row) for row in sorted(rows)[:1]]
        if same:
            more = query.find(
                access,
                Level.PATIENT,
                [search.AnyOf(tuple(same))],
                limit=CANDIDATES,
                summarize=False,
                asked=f"{issuer}|{value}",
            )
            found += [one for one in more.found if one.patient.id not in rows]
    if not found:
        raise NotFound("no patient is known by this number")
    return [one for one in found if one.patient.replaced_by_id is None]


def by_issuer(access: Access, issuer: str) -> Organization | None:
    """The hospital that issues patient numbers under an OID, with or without ``urn:oid:``."""
    wanted = _issuer(issuer)
    known = organizations.everyone(access.session)
    return next((one for one in known if one.issuer == wanted), None)


def _criteria(sought: Sought) -> Sequence[Criterion]:
    criteria: list[Criterion] = []
    for system, told in sought.identifiers[:IDENTIFIERS]:
        value, issuer = told.strip(), _issuer(system)
        if not value:
            continue
        card = _card((issuer, value))
        for one in sorted({value, card.number if card else value}):
            criteria.append(search.Identifier(one, system or None))
            if card is not None:
                criteria += [search.Identifier(one, known) for known in identity.CARD_ISSUERS]
        if issuer and issuer != identity.RESIDENT_ID:
            own = search.Match("PatientID", search.Values((value,)))
            criteria.append(own)
    if sought.birth_date:
        born = search.Match("PatientBirthDate", search.Values((sought.birth_date,)))
        criteria += [
            search.AllOf((search.NamePart(NameKind.FULL, search.Alike(name)), born))
            for name in sought.names[:IDENTIFIERS]
            if name.strip("^= ")
        ]
        digits = {_digits(one) for one in sought.telephones[:IDENTIFIERS]}
        criteria += [
            search.AllOf((search.Match("PatientTelephoneNumbers", search.Contains(one)), born))
            for one in sorted(digits)
            if len(one) >= 7
        ]
    return criteria


def _card(pair: tuple[str, str]) -> identity.ResidentID | None:
    issuer, value = pair
    known = issuer in {"", identity.RESIDENT_ID}
    return identity.resident_id(value) if known else None


def _issuer(system: str) -> str:
    return system.strip().removeprefix("urn:oid:")


def _name(sought: Sequence[str], known: str) -> str:
    """``name``, ``reading of the name`` where only that agrees, or ""."""
    held = names.keys(known).full
    for one in sought:
        if names.whole(one) & held:
            return "name"
    for one in sought:
        if (names.keys(one).full | names.alike_whole(one)) & held:
            return "reading of the name"
    return ""


def _nearly(one: str, other: str) -> bool:
    """Whether two dates differ by one digit, two exchanged digits, or exchanged month and day."""
    if len(one) != 8 or len(other) != 8:
        return False
    differing = [at for at in range(8) if one[at] != other[at]]
    if len(differing) == 1 or one == other[:4] + other[6:] + other[4:6]:
        return True
    if len(differing) != 2:
        return False
    first, second = differing
    return second == first + 1 and (one[first], one[second]) == (other[second], other[first])


def _digits(told: str) -> str:
    return "".join(one for one in told if one.isdigit())

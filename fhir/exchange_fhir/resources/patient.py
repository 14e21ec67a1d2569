"""Patient (FHIR R4 8.1): a patient as one hospital knows them; the same person's others linked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from exchange import beside, identity
from exchange.errors import Invalid
from exchange.query import Found
from exchange_fhir.datatypes import (
    Json,
    concept,
    day,
    derived_meta,
    human_names,
    issuer_uri,
    present,
    reference,
    text,
)
from exchange_fhir.search import (
    EVERYTHING,
    NOTHING,
    LastChanged,
    Parameter,
    Recorded,
    Scope,
    Table,
    Token,
    Type,
    date,
    string,
    token,
)
from exchange_fhir.search import reference as referring
from exchange_storage import resource_criteria
from exchange_storage.records import NameKind
from exchange_storage.resource_criteria import (
    Every,
    Indexed,
    IsExactly,
    OfSeveral,
    Present,
    StartsWith,
    Test,
    TokenIs,
    Written,
)
from exchange_storage.search import (
    AllOf,
    AnyOf,
    Contains,
    Criterion,
    Exact,
    Identifier,
    Level,
    Linked,
    Match,
    NamePart,
    Not,
    Number,
    Owned,
    Pattern,
    Prefix,
    Replaced,
    Rows,
    Values,
)

MOTHERS_MAIDEN_NAME = "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName"
RESIDENT_ID = f"urn:oid:{identity.RESIDENT_ID}"
IDENTIFIER_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"

GENDERS: Mapping[str, str] = {"M": "male", "F": "female", "O": "other"}
"""Patient's Sex (PS3.3 C.7.1.1) as AdministrativeGender; all else is ``unknown``."""
GENDER = "http://hl7.org/fhir/administrative-gender"
"""The system of those codes."""

WRITTEN: Criterion = Linked(Level.PATIENT, Written(Every(()), frequent=True))
"""The records of which the hospital itself has written, not images alone."""


def to_fhir(
    found: Found, identifiers: Iterable[beside.Identifier] = (), links: Iterable[int] = ()
) -> Json:
    """The Patient of a record; `links` are the person's other records that the asker may see."""
    record = found.patient
    mother = text(record.mothers_birth_name)
    return present(
        resourceType="Patient",
        id=str(record.id),
        meta=derived_meta(record.changed),
        extension=[{"url": MOTHERS_MAIDEN_NAME, "valueString": mother}] if mother else None,
        identifier=_identifiers(found, identifiers),
        active=record.replaced_by_id is None,
        name=human_names(record.name),
        telecom=[
            {"system": "phone", "value": number}
            for part in record.telephone.split("\\")
            if (number := text(part))
        ],
        gender=GENDERS.get(record.sex, "unknown"),
        birthDate=day(record.birth_date),
        address=[{"text": where}] if (where := text(record.address)) else None,
        managingOrganization=reference("Organization", found.owner.code),
        link=[
            {
                "other": reference("Patient", row),
                "type": "replaced-by" if row == found.patient.replaced_by_id else "seealso",
            }
            for row in links
        ],
    )


def _identifiers(found: Found, others: Iterable[beside.Identifier]) -> list[Json]:
    own = present(
        use="official",
        type=concept("v2-0203", "MR"),
        system=f"urn:oid:{found.owner.issuer}",
        value=text(found.patient.patient_id),
        assigner=reference("Organization", found.owner.code),
    )
    told = [own] if "value" in own else []
    known = {(own["system"], own.get("value"))}
    for other in others:
        value = text(other.value)
        card = other.system in identity.CARD_ISSUERS and identity.resident_id(value) is not None
        system = RESIDENT_ID if card else issuer_uri(text(other.system))
        if not value or (system, value) in known:
            continue
        known.add((system, value))
        told.append(
            present(
                use="official" if card else "secondary",
                type=concept("v2-0203", "NI") if system == RESIDENT_ID else None,
                system=system,
                value=value,
                assigner=None if system else present(display=text(other.system)),
            )
        )
    return told


def numbered(scope: Scope, asked: Token) -> Criterion:
    """Patient records with this identifier: the owner's number, an ID card, or any other."""
    code, system = asked.code, asked.system
    if system is None:
        return AnyOf((Match("PatientID", Values((code,))), Identifier(code)))
    forms: list[Criterion] = []
    if owner := scope.issuer(system):
        number = Values((code,)) if code else Pattern("?*")
        forms.append(AllOf((Owned((owner.id,)), Match("PatientID", number))))
    if code:
        return AnyOf((*forms, *others(asked)))
    if not system:
        raise Invalid("an identifier needs a system or a value")
    any_value = (Identifier("*", spelled, wild=True) for spelled in sorted(_spellings(system)))
    return AnyOf((*forms, *any_value))


def of_person(scope: Scope, asked: Token) -> Criterion:
    """Records of the person whom a hospital knows under its number; by others see `numbered`."""
    owner = scope.issuer(asked.system) if asked.system else None
    if owner is None:
        return numbered(scope, asked)
    if not asked.code:
        raise Invalid("an identifier needs a value")
    return AnyOf((Number(owner.id, Values((asked.code,))), *others(asked)))


def others(asked: Token) -> list[Criterion]:
    """Records that carry this identifier beside their own number, however its system was sent."""
    system = asked.system or ""
    systems = _spellings(system)
    values = {asked.code}
    if system in {RESIDENT_ID, identity.RESIDENT_ID}:
        values.add(asked.code.upper())
        if identity.resident_id(asked.code):
            systems |= identity.CARD_ISSUERS
    return [Identifier(value, issuer) for value in sorted(values) for issuer in sorted(systems)]


def _spellings(system: str) -> set[str]:
    """How the system of an identifier may have been sent."""
    oid = system.removeprefix("urn:oid:")
    return {oid, f"urn:oid:{oid}", system} if oid else {""}


def typed(code: str, system: str | None) -> list[Criterion]:
    """Records that are told to have an identifier of a type, ``MR|number``: see `_identifiers`."""
    if system not in {None, IDENTIFIER_TYPES}:
        return []
    match code.partition("|"):
        case ("MR", _, number):
            return [Match("PatientID", Values((number,)))]
        case ("NI", _, number) if identity.resident_id(number) is not None:
            return others(Token(RESIDENT_ID, number))
    return []


def rows(identity: str) -> tuple[int, ...]:
    """The patient row that a Patient id names, or none."""
    known = identity.isascii() and identity.isdecimal() and len(identity) <= 18
    return (int(identity),) if known else ()


def told(kind: Type, code: str, of_images: Criterion = NOTHING) -> Criterion:
    """Records of which the hospital has written a value, or else images tell one."""
    written = Indexed(kind, (f"Patient.{code}",), (Present(kind),))
    by_images = AllOf((of_images, Not(WRITTEN)))
    return AnyOf((Linked(Level.PATIENT, Written(written, frequent=True)), by_images))


def _column(keyword: str) -> Criterion:
    """The records in which something stands in a column."""
    return Not(Match(keyword, Values(("",))))


def _name(code: str, kind: NameKind | None, documentation: str) -> Parameter[Criterion]:
    there = told(Type.STRING, code, NamePart(kind, Pattern("?*")))
    return string(lambda _, asked: NamePart(kind, asked), documentation, there)


def _text(
    keyword: str, documentation: str, there: Criterion, written: str = ""
) -> Parameter[Criterion]:
    """A text that is kept in one piece: its parts begin anywhere in it.

    What a hospital wrote of it is looked at as well, each as it stands, under the parameter
    `written`.
    """

    def read(_: Scope, asked: Prefix | Contains | Exact) -> Criterion:
        text = Match(keyword, asked if isinstance(asked, Exact) else Contains(asked.text))
        if not written:
            return text
        test: Test
        match asked:
            case Prefix(told):
                test = StartsWith(told)
            case Contains(told):
                test = resource_criteria.Holds(told)
            case Exact(told):
                test = IsExactly(told)
        own = Indexed("string", (f"Patient.{written}",), (test,))
        return AnyOf((text, Linked(Level.PATIENT, Written(own))))

    return string(read, documentation, there)


def _part(code: str, called: str) -> Parameter[Criterion]:
    """A part of the address: no images tell it apart, although its text is looked through."""
    return _text("PatientAddress", f"{called}: {_ADDRESS}", told(Type.STRING, code), code)


def _telecom(scope: Scope, asked: Token) -> Criterion:
    written = Indexed("token", ("Patient.telecom",), (TokenIs(asked.code or None, asked.system),))
    found: Criterion = Linked(Level.PATIENT, Written(written))
    if asked.system not in {None, "phone"}:
        return found
    return AnyOf((_phone(scope, asked) if asked.code else _column(_TELEPHONE), found))


def _phone(_: Scope, asked: Token) -> Criterion:
    first_of_many = Prefix(asked.code + "\\")
    return AnyOf((Match(_TELEPHONE, Values((asked.code,))), Match(_TELEPHONE, first_of_many)))


def _gender(_: Scope, asked: Token) -> Criterion:
    codes = [sex for sex, gender in GENDERS.items() if gender == asked.code]
    return Match("PatientSex", Values(("", "U") if asked.code == "unknown" else tuple(codes)))


def _active(_: Scope, asked: Token) -> Criterion:
    """What the hospital wrote of it, as far as no other record stands in the place of this one."""
    if asked.system:
        return NOTHING  # a boolean has no system
    test = (TokenIs(asked.code),)
    active = Indexed("token", ("Patient.active",), test)
    said: Criterion = Linked(Level.PATIENT, Written(active, frequent=True))
    match asked.code:
        case "true":
            return AllOf((AnyOf((said, Not(WRITTEN))), Not(Replaced())))
        case "false":
            return AnyOf((said, Replaced()))
    return NOTHING


def _organization(scope: Scope, code: str) -> Criterion:
    owner = scope.organization(code)
    return Owned((owner.id,)) if owner else NOTHING


_TELEPHONE = "PatientTelephoneNumbers"
_LETTERS = ", in hanzi, pinyin or Latin letters"
_ADDRESS = "text anywhere in the address, which hospitals send in one line"

OF_PERSON: Parameter[Criterion] = token(
    of_person, "An identifier of the patient to whom something refers: it means the person"
)

SEARCH: Table[Criterion] = Table(
    documentation=(
        "One Patient for each hospital's record; Patient.link leads to the same person's records "
        "at other hospitals. Only records that the asker may see are found, linked and counted."
    ),
    parameters={
        "_id": token(lambda _, asked: Rows(Level.PATIENT, rows(asked.code)), "Logical id"),
        "_lastUpdated": date(LastChanged(Level.PATIENT), "When the record last changed"),
        "active": token(
            _active,
            "As the hospital wrote it; of whom images tell is active, a merged record is not",
            there=AnyOf((told(Type.TOKEN, "active", EVERYTHING), Replaced())),
        ),
        "identifier": token(
            numbered,
            "A hospital's number (system urn:oid: and its issuer), a resident ID card "
            f"({RESIDENT_ID}), or another identifier",
            there=AnyOf((_column("PatientID"), Identifier("*", wild=True))),
        ),
        "name": _name("name", None, f"Any part of the name{_LETTERS}"),
        "family": _name(
            "family", NameKind.FAMILY, "Family name, in hanzi, pinyin or Latin letters"
        ),
        "given": _name("given", NameKind.GIVEN, f"Given name{_LETTERS}"),
        "birthdate": date(
            Recorded("PatientBirthDate", partial=True),
            "Date of birth",
            there=told(Type.DATE, "birthdate", _column("PatientBirthDate")),
        ),
        "gender": token(
            _gender,
            "male, female, other or unknown",
            told(Type.TOKEN, "gender", EVERYTHING),
            systems=("", GENDER),
        ),
        "telecom": token(
            _telecom,
            "A telephone number, or what a hospital wrote of how to reach the patient",
            told(Type.TOKEN, "telecom", _column(_TELEPHONE)),
        ),
        "phone": token(
            _phone,
            "Telephone number",
            told(Type.TOKEN, "phone", _column(_TELEPHONE)),
            systems=("phone",),
        ),
        "address": _text(
            "PatientAddress",
            f"Address: {_ADDRESS}",
            told(Type.STRING, "address", _column("PatientAddress")),
            "address",
        ),
        "address-city": _part("address-city", "City"),
        "address-state": _part("address-state", "Province"),
        "address-country": _part("address-country", "Country"),
        "address-postalcode": _part("address-postalcode", "Postal code"),
        "organization": referring("Organization", _organization, "The hospital whose record it is"),
        "mothersMaidenName": _text(
            "PatientMotherBirthName",
            "The mother's name at her birth",
            Match("PatientMotherBirthName", Pattern("?*")),
        ),
    },
    told={
        "deceased": EVERYTHING,  # of whom nothing is said are not known to have died
        "link": AnyOf((told(Type.REFERENCE, "link"), Linked(Level.PATIENT, OfSeveral()))),
        "phonetic": told(Type.STRING, "name", NamePart(None, Pattern("?*"))),
    },
    sorts={
        "_id": "row",
        "_lastUpdated": "changed",
        "address": "address",
        "birthdate": "birth",
        "family": "name",
        "gender": "sex",
        "identifier": "numbers",
        "name": "name",
        "organization": "owner",
        "phone": "telephone",
        "telecom": "telephone",
    },
)

"""Codes, value sets and URIs as they are asked for (FHIR R4 3.1.1.4.10, 3.1.1.4.13)."""

from __future__ import annotations

from exchange.errors import Invalid, TooBroad
from exchange_fhir.definitions import terminology
from exchange_fhir.outcome import Problem
from exchange_fhir.search import split, unescaped
from exchange_storage.resource_criteria import Test, TokenIs, UriBelow, UriIs

MOST_CODES = 500
"""Codes above or below one that are asked for."""


def token(value: str) -> TokenIs:
    """A code, its system, or both. Raises Invalid."""
    match [unescaped(part) for part in split(value, "|")]:
        case [code]:
            return TokenIs(code)
        case [system, ""]:
            return TokenIs(None, system)
        case [system, code]:
            return TokenIs(code, system)
        case _:
            raise Invalid("a token is written code, system|code, |code or system|")


def of_type(value: str) -> TokenIs:
    """An identifier of a type (``:of-type``). Raises Invalid."""
    match [unescaped(part) for part in split(value, "|")]:
        case [system, code, number] if code and number:
            return TokenIs(f"{code}|{number}", system or None)
        case _:
            raise Invalid("it is written [system]|[code]|[value]")


def subsumed(token: TokenIs, modifier: str) -> list[Test]:
    """The codes above or below one, with itself (R4 3.1.1.4.10). Raises Problem, Invalid."""
    if not token.code:
        raise Invalid(f":{modifier} is asked of a code")
    reached = terminology.above if modifier == "above" else terminology.below
    wanted = terminology.systems() if token.system is None else [token.system]
    try:
        codes = {system: reached(system, token.code) for system in wanted}
    except KeyError:
        told = "the levels of this code system are not known here"
        raise Problem(400, "not-supported", told) from None
    found = {(code, system) for system, told in codes.items() for code in told}
    if token.system is None:  # in all systems there are, among them those without levels
        found = {one for one in found if one[0] != token.code}
    if len(found) > MOST_CODES:
        raise TooBroad(f"more than {MOST_CODES} codes lie {modifier} it: ask for fewer of them")
    tests: list[Test] = [TokenIs(token.code)] if token.system is None else []
    return [*tests, *(TokenIs(code, system) for code, system in sorted(found))]


def value_set(value: str) -> tuple[Test, ...]:
    """The codes of a value set (``:in``). Raises Problem for one that is not known."""
    try:
        codes = terminology.value_set(unescaped(value).partition("|")[0])
    except KeyError:
        told = "this value set is not known here: those of R4 with few codes are"
        raise Problem(400, "not-found", told) from None
    found = tuple(TokenIs(code, system) for system, listed in codes.items() for code in listed)
    return tuple(sorted(found, key=repr))


def uri(value: str, modifier: str) -> Test:
    """A URI, or with a modifier those above or below it."""
    match modifier:
        case "below":
            return UriBelow(value)
        case "above":
            ends = [at for at, one in enumerate(value) if one == "/"]
            starts = (value[:end] for end in ends[2:])
            return UriIs((value, *starts, *(value[: end + 1] for end in ends[2:])))
    return UriIs((value,))

"""JSON in and out (FHIR R4 2.6): strict about what comes in, and decimals stay as they came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from exchange_fhir.datatypes import Json
from exchange_fhir.outcome import Issue, Problem

MEDIA_TYPE = "application/fhir+json"

DIGITS = 64
"""Characters of a number, at most: R4 asks for 18 digits at least."""
EXPONENT = 400
"""Powers of ten that a decimal may have, at most: what a double can hold, and a little more."""
DEPTH = 64
"""Objects and arrays inside each other, at most."""


class Written(Decimal):
    """A decimal with the text that was sent, since 1.00 says more than 1 (R4 2.24.0.1)."""

    __slots__ = ("text",)

    text: str

    def __new__(cls, text: str) -> Written:
        """Raises ValueError for what is out of reach of every other system."""
        try:
            made = super().__new__(cls, text)
        except InvalidOperation:
            raise ValueError("not a decimal") from None
        if len(text) > DIGITS or not made.is_finite() or abs(made.adjusted()) > EXPONENT:
            raise ValueError("a number out of range")
        made.text = text
        return made

    def __deepcopy__(self, _: object) -> Written:
        return self


def parse(content: bytes) -> Json:
    """The JSON object in `content`. Raises Problem, which never quotes what was sent."""
    try:
        told = json.loads(
            content.decode().removeprefix("\ufeff"),
            parse_float=Written,
            parse_int=_integer,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError:
        raise _malformed("the body is not UTF-8") from None
    except RecursionError:
        raise _malformed(f"at most {DEPTH} levels may be nested") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _malformed(f"the body is not JSON: see {place}") from None
    except ValueError as error:
        raise _malformed(f"the body cannot be read: {error}") from None
    if not isinstance(told, dict):
        raise _malformed("the body is not a JSON object")
    if _too_deep(told):
        raise _malformed(f"at most {DEPTH} levels may be nested")
    return told


def serialize(told: Any, *, pretty: bool = False) -> bytes:
    """`told` as JSON in UTF-8, decimals as they were written."""
    return orjson.dumps(told, _written, orjson.OPT_INDENT_2 if pretty else None)


def pretty(content: bytes) -> bytes:
    """JSON of this server, indented."""
    return serialize(parse(content), pretty=True)


def _malformed(told: str) -> Problem:
    return Problem(400, "structure", told, issues=[Issue("structure", told)])


def _written(value: object) -> object:
    if isinstance(value, Written):
        return orjson.Fragment(value.text)
    if isinstance(value, Decimal):
        return orjson.Fragment(f"{value:f}")
    raise TypeError(type(value).__name__)


def _integer(text: str) -> int | Written:
    if len(text) > DIGITS:
        raise ValueError("a number out of range")
    number = int(text)
    # What does not fit into 64 bits can be a decimal only, and is kept as one.
    return number if -(1 << 63) <= number < 1 << 64 else Written(text)


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _object(pairs: Sequence[tuple[str, Any]]) -> Json:
    told = dict(pairs)
    if len(told) != len(pairs):
        raise ValueError("a property stands twice in one object")
    return told


def _too_deep(told: Any) -> bool:
    level = [told]
    for _ in range(DEPTH):
        inner: list[Any] = []
        for one in level:
            inner += one.values() if isinstance(one, dict) else one
        level = [one for one in inner if isinstance(one, dict | list)]
        if not level:
            return False
    return True

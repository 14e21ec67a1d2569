"""What is asked of numbers and quantities: precision and units (R4 3.1.1.4.11)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from exchange.errors import Invalid
from exchange_fhir import units
from exchange_fhir.prefixes import PREFIXED
from exchange_fhir.search import split, unescaped
from exchange_storage.resource_criteria import Asked, Indexed, Some, Test, Within

CONVERTED = "ucum"
"""What the values of a parameter in base units are kept under: ``Observation.value-quantity:ucum``.

Only where a unit of UCUM is one that can be converted; the values as written are kept anyway.
"""

_NUMBER = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Amount:
    """A number that is asked for, and its unit where one was named."""

    prefix: str
    number: Decimal
    half: Decimal
    """Half of what its last digit stands for."""
    code: str = ""
    system: str | None = None

    def written(self) -> list[Test]:
        """The tests, one of which a value passes in the unit as it is written."""
        return [replace(one, code=self.code, system=self.system) for one in self._ends(float)]

    def converted(self) -> list[Test]:
        """The tests of a value in base units; none where the unit cannot be converted."""
        unit = units.unit(self.code) if self.system == units.UCUM else None
        if unit is None:
            return []
        return [replace(one, code=unit.base) for one in self._ends(unit.converted)]

    def _ends(self, told: Callable[[Decimal], float]) -> list[Within]:
        number, half = self.number, self.half
        low, high = told(number - half), told(number + half)
        match self.prefix:
            case "eq":
                return [Within(low_from=low, high_before=high)]
            case "ne":
                return [Within(low_before=low), Within(high_from=high)]
            case "gt":
                return [Within(high_after=told(number))]
            case "lt":
                return [Within(low_before=told(number))]
            case "ge":
                return [Within(high_from=told(number))]
            case "le":
                return [Within(low_to=told(number))]
            case "sa":
                return [Within(low_after=told(number))]
            case "eb":
                return [Within(high_before=told(number))]
        around = max(abs(number) / 10, half)
        return [Within(low_to=told(number + around), high_from=told(number - around))]


def amount(value: str) -> Amount:
    """``[prefix]number``, ``number|system|code`` or ``number||code``. Raises Invalid."""
    number, *unit = split(value, "|")
    if len(unit) not in {0, 2}:
        raise Invalid("a quantity is written [prefix]number, number|system|code or number||code")
    system = (unescaped(unit[0]) or None) if unit else None
    code = unescaped(unit[1]) if unit else ""
    match = PREFIXED.fullmatch(number)
    if match is None or not _NUMBER.fullmatch(match[2]):
        raise Invalid("a number is expected")
    try:
        told = Decimal(match[2])
    except InvalidOperation:
        raise Invalid("a number is expected") from None
    half = Decimal(5).scaleb(int(told.as_tuple().exponent) - 1)
    return Amount(match[1] or "eq", told, half, code, system)


def asked(names: tuple[str, ...], amounts: Iterable[Amount]) -> Asked:
    """Under one of the parameters there is one of the amounts, in whatever unit."""
    found = [
        Indexed("quantity", tuple(f"{name}{end}" for name in names), tuple(tests))
        for end, tests in alternatives(amounts)
    ]
    return found[0] if len(found) == 1 else Some(tuple(found))


def alternatives(amounts: Iterable[Amount]) -> list[tuple[str, list[Test]]]:
    """The tests of values as they are written, and converted: what ends their parameter's name."""
    wanted = list(amounts)
    written = [test for one in wanted for test in one.written()]
    converted = [test for one in wanted for test in one.converted()]
    return [("", written), *([(f":{CONVERTED}", converted)] if converted else [])]

"""Units of UCUM as what they measure, so that 5.4 mg and 0.0054 g are one value (R4 3.1.1.4.11).

Units are read by ucumvert and converted by pint. What UCUM calls arbitrary (``[IU]``) is a
dimension of its own: units of one test say nothing of those of another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache, lru_cache
from importlib import resources
from threading import Lock
from typing import Any

UCUM = "http://unitsofmeasure.org"
LENGTH = 64
"""Characters of the longest unit that is read; UCUM's own examples have 40."""
_POWER = re.compile(r"[^\d./(][+-]?\d{3}")
"""An exponent of three digits or more, which no unit has and computing would not end with."""

_EXACT = Context(prec=60)
_ROUNDED = Context(prec=10)
"""As many digits as are compared: a sixtieth has no end."""
_CONVERTING = Lock()
"""pint's registry is not made for several threads at once."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit by the base units that it is made of: value × factor + offset."""

    base: str
    """Such as ``kilogram.meter-3``, with the units sorted; ``1`` where there are none."""
    factor: Decimal
    offset: Decimal

    def converted(self, value: Decimal) -> float:
        """A value in base units, as precise as values are compared."""
        try:
            return float(_ROUNDED.plus(_EXACT.fma(value, self.factor, self.offset)))
        except ArithmeticError:  # beyond all bounds
            return math.copysign(math.inf, value)


def prepare() -> None:
    """Read the units now, which takes half a second, and not when the first is met."""
    _reading()


@lru_cache(4096)
def unit(code: str) -> Unit | None:
    """The unit that a UCUM code stands for; None for what is none, or has no straight scale."""
    if not code or len(code) > LENGTH or _POWER.search(code):
        return None
    from lark.exceptions import LarkError
    from pint.errors import PintError

    with _CONVERTING:
        try:
            return _measured(code)
        except (LarkError, PintError, ArithmeticError, AttributeError, TypeError, ValueError):
            return None  # not UCUM, or of a kind that the libraries do not convert


def _measured(code: str) -> Unit | None:
    registry, parser, transformer = _reading()
    one = transformer.transform(parser.parse(code))
    if isinstance(one, str):  # an annotation alone, which is the unity
        return Unit("1", Decimal(1), Decimal(0))
    at = [registry.Quantity(one.magnitude * times, one.units) for times in (0, 1, 2)]
    bases = [each.to_base_units() for each in at]
    zero, once, twice = (_exact(each.magnitude) for each in bases)
    factor = once - zero
    if not factor > 0 or abs(twice - once - factor) > factor / 10**9:
        return None  # a logarithm, as pH
    parts = sorted(bases[0].unit_items())
    base = ".".join(f"{name}{'' if power == 1 else f'{power:g}'}" for name, power in parts)
    return Unit(base or "1", factor, zero)


def _exact(number: Any) -> Decimal:
    """A number without the last digits of a double, which conversions leave behind."""
    return Decimal(f"{number:.14g}")


@cache
def _reading() -> tuple[Any, Any, Any]:
    """pint's registry with UCUM's units, ucumvert's parser, and its transformer."""
    from pint import UnitRegistry
    from ucumvert import UcumToPintTransformer, get_ucum_parser

    registry: Any = UnitRegistry(None, on_redefinition="ignore")
    with resources.as_file(resources.files("pint").joinpath("default_en.txt")) as path:
        registry.load_definitions(path)
    with resources.as_file(resources.files("ucumvert").joinpath("pint_ucum_defs.txt")) as path:
        registry.load_definitions(path)
    for name in list(_arbitrary(registry)):
        registry.define(f"{name} = [{name}]")
    return registry, get_ucum_parser(), UcumToPintTransformer(registry)


def _arbitrary(registry: Any) -> Iterator[str]:
    """What the registry calls the units that cannot be converted into others."""
    from lxml import etree
    from ucumvert.ucum_pint import MAPPINGS_UCUM_TO_PINT

    told = resources.files("ucumvert").joinpath("vendor", "ucum-essence.xml").read_bytes()
    for one in etree.fromstring(told).iterfind("{*}unit[@isArbitrary='yes']"):
        code = str(one.get("Code"))
        yield registry.get_name(MAPPINGS_UCUM_TO_PINT.get(code, code.strip("[]")))

"""What finds the resources that a condition matches (FHIR R4 3.1.0.8, 3.1.0.9)."""

from __future__ import annotations

from collections.abc import Sequence

from exchange.recording import Finder
from exchange_fhir.outcome import Problem
from exchange_fhir.search import Scope


def finder(_: Scope, __: str, ___: Sequence[tuple[str, str]]) -> Finder:
    """The finder of what a search for `kind` with these parameters matches. Raises Problem."""
    raise Problem(400, "not-supported", "conditions are not supported")

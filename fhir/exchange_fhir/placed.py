"""Where in a Bundle an error stands: the entry that it is of, and what of its resource."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from exchange.errors import UnknownPatient
from exchange_fhir import interactions, links, outcome
from exchange_fhir.outcome import Issue, Problem

if TYPE_CHECKING:
    from exchange_fhir.transaction import Entry


def problem(error: Exception, ordered: Sequence[Entry], base: str) -> Problem:
    """An error of an act as one of the entry that the act is of; the acts are as `ordered`."""
    place, sent = "", None
    for note in getattr(error, "__notes__", ()):
        if note.startswith("act "):
            entry = ordered[int(note.removeprefix("act "))]
            place, sent = entry.place, entry.resource
        elif note.startswith("Bundle.entry"):
            place = note
    if isinstance(error, UnknownPatient):
        error = interactions.unknown(error, links.places(sent or {}, base))
    if isinstance(error, Problem):
        issues = [replace(one, expression=_within(one.expression, place)) for one in error.issues]
        return Problem(error.answer.http, error.answer.code, str(error), issues=issues)
    answer = outcome.HTTP[type(error)]  # type: ignore[index]
    issue = Issue(answer.code, str(error), place)
    return Problem(answer.http, answer.code, str(error), issues=[issue])


def _within(expression: str, place: str) -> str:
    """Where in the Bundle something is that was said of an entry's resource."""
    kind, dot, rest = expression.partition(".")
    if kind == "Bundle":
        return expression
    return f"{place}.resource.{rest}" if dot and kind[:1].isupper() else place

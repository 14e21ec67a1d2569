"""What finds the resources that a condition matches (FHIR R4 3.1.0.8, 3.1.0.9).

A condition is read as a search is, strictly: what is not understood is refused, since what it would
leave out decides what is changed. One that changes something is asked of what the asker's own
hospital wrote.
"""

from __future__ import annotations

from collections.abc import Sequence

from exchange import clinical_search, query
from exchange.clinical_search import Question
from exchange.recording import Finder
from exchange_fhir import question
from exchange_fhir.asking import NATIVE, TOGETHER
from exchange_fhir.outcome import Problem
from exchange_fhir.search import Scope
from exchange_storage.resource_criteria import Every


def finder(scope: Scope, kind: str, pairs: Sequence[tuple[str, str]], *, own: bool) -> Finder:
    """The finder of what a search for `kind` with these parameters matches.

    With `own` of what the asker's hospital wrote. Raises Problem, Invalid, Refused.
    """
    if kind not in TOGETHER:
        raise Problem(404, "not-supported", "this resource type is not found by a condition")
    criteria = question.read(scope, kind, pairs, strict=True).criteria
    if not criteria:
        raise Problem(412, "incomplete", "the condition does not say what is to be found")
    asked = f"{kind}?" + "&".join(f"{name}={value}" for name, value in pairs)
    if kind in NATIVE:
        return query.finder(scope.access, criteria, own=own, level=NATIVE[kind], asked=asked)
    wanted = Question(kind=kind, criterion=Every(criteria), limit=2, asked=asked)
    return clinical_search.finder(scope.access, wanted, own=own)

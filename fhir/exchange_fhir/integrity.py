"""Whether what a resource refers to is here (FHIR R4 3.1.0.1.8, referencePolicy enforced)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exchange import clinical, query
from exchange.errors import ExchangeError
from exchange_fhir.resources import endpoint, patient
from exchange_fhir.search import Scope
from exchange_fhir.writing import NATIVE


def unknown(
    scope: Callable[[], Scope], names: frozenset[tuple[str, str]]
) -> frozenset[tuple[str, str]]:
    """Those of the resources, by type and logical id, that the asker cannot read here.

    What they may not see is not told from what there is not.
    """
    if not names:
        return names
    here = scope()
    of_kind: dict[str, set[str]] = {}
    for kind, logical_id in names:
        of_kind.setdefault(kind, set()).add(logical_id)
    found: set[tuple[str, str]] = set()
    for kind, ids in of_kind.items():
        known = _NATIVE[kind](here, ids) if kind in _NATIVE else frozenset()
        if kind not in NATIVE and ids - known:
            known |= clinical.known(here.access, kind, ids - known)
        found |= {(kind, one) for one in known}
    return names - found


def _patients(scope: Scope, ids: set[str]) -> frozenset[str]:
    rows = {row: one for one in ids for row in patient.rows(one)}
    return frozenset(rows[row] for row in query.seen(scope.access, rows))


def _studies(scope: Scope, ids: set[str]) -> frozenset[str]:
    seen = set()
    for one in ids:
        try:
            query.study(scope.access, one)
        except ExchangeError:
            continue
        seen.add(one)
    return frozenset(seen)


_NATIVE: Mapping[str, Callable[[Scope, set[str]], frozenset[str]]] = {
    "Patient": _patients,
    "ImagingStudy": _studies,
    "Organization": lambda scope, ids: frozenset(
        one.code for one in scope.organizations if one.code in ids
    ),
    "Endpoint": lambda scope, ids: frozenset(
        name for one in scope.organizations if (name := endpoint.identity(one)) in ids
    ),
}

"""Which condition of a question on resources is looked up first (see `resource_search`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LISTS_ROWS = frozenset({"indexed", "together", "leads"})
"""Forms that list row numbers of resources, and are looked at without the resource itself."""


def candidates(form: Any) -> tuple[int, ...]:
    """The parts of ``every`` that can be looked up first, the most promising one first."""
    ranked = [
        (rank, number) for number, part in enumerate(_parts(form)) if (rank := _rank(part)) < _NO
    ]
    return tuple(number for _, number in sorted(ranked))


def is_vague(form: Any, number: int) -> bool:
    """Whether a part of ``every`` finds so much that even counting it would take long."""
    return _rank(form[1][number]) >= _VAGUE


def is_of_any_type(form: Any) -> bool:
    """Whether it asks what can be asked of each type of resource in the same words."""
    match form:
        case ("every" | "some", parts):
            return all(map(is_of_any_type, parts))
        case ("without", part):
            return is_of_any_type(part)
    return form[0] in {"ids", "changed"}


def walkable(form: Any) -> tuple[int, ...]:
    """The parts of ``every`` whose index rows are in the order of the resources' row numbers."""
    return tuple(number for number, part in enumerate(_parts(form)) if is_walkable(part))


def is_walkable(part: Any) -> bool:
    """Whether it is about one value of one parameter, under which rows are in their order."""
    match part:
        case ("indexed", "token", (_,), (("codes", _, 1),)):
            return True
        case ("indexed", "reference", (_,), (("targets", _, 1),)):
            return True
    return False


def first(parts: Sequence[Any]) -> int:
    """The part that is looked up first, by what they look like; -1 where none can be."""
    ranked = candidates(("every", tuple(parts)))
    return ranked[0] if ranked else -1


def leads_by_row(form: Any, leader: int | None) -> bool:
    """Whether the condition that is looked up first gives row numbers."""
    match form:
        case ("every", parts):
            leader = first(parts) if leader is None else leader
            return leader >= 0 and leads_by_row(parts[leader], None)
        case ("some", parts):
            return bool(parts) and all(leads_by_row(part, None) for part in parts)
    return form[0] in LISTS_ROWS


def is_of_index_rows(form: Any) -> bool:
    """Whether a condition can be looked at without the resource itself."""
    match form:
        case ("every" | "some", parts):
            return all(map(is_of_index_rows, parts))
        case ("without", part):
            return is_of_index_rows(part)
    return form[0] in LISTS_ROWS


def links(form: Any) -> int:
    """How many links of chains, and of ``_has``, lead on from one another, at most."""
    if not isinstance(form, tuple):
        return 0
    more = form[:1] in {("leads",), ("referred",), ("pointed",)}
    return max(map(links, form), default=0) + more


def _parts(form: Any) -> Sequence[Any]:
    parts: Sequence[Any] = form[1] if form[0] == "every" else ()
    return parts


_NO = 100
_VAGUE = 80


def _rank(form: Any) -> int:
    """How few a condition finds, by what it looks like: less is fewer."""
    match form:
        case ("ids", _):
            return 0
        case ("indexed", "token", parameters, tests):
            if not tests or any(test[0] in {"present", "system"} for test in tests):
                return _VAGUE
            return 1 if parameters[0].endswith((".identifier", ":identifier")) else 6
        case ("indexed", "reference", _, tests):
            return 2 if tests and all(test[0] == "targets" for test in tests) else _VAGUE
        case ("natively", _):
            return 2
        case ("indexed", "string", _, tests):
            return _VAGUE if any(test[0] in {"present", "holds"} for test in tests) else 4
        case ("together", _) | ("leads", *_) | ("indexed", "uri", _, _):
            return 3
        case ("referred", *_):
            return 5
        case ("indexed", "date", _, _):
            return 7
        case ("indexed", _, _, _):
            return 8
        case ("some", parts) if parts:
            return max(map(_rank, parts))
    return _NO

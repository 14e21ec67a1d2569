"""What stands inside a resource: found by chains alone (FHIR R4 3.1.1.5.6).

The index keeps its values with the resource around it, under the reference that leads to it:
``DocumentReference.author::Practitioner.family``; and under ``DocumentReference.author::``, of
which types the resources inside are. A chain goes on by their own parameters, one link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import search_parameters
from exchange_storage.resource_criteria import (
    Asked,
    Every,
    Indexed,
    Some,
    Together,
    TokenIs,
    Without,
)
from exchange_storage.resource_index import Token, Value

MARK = "::"


def under(name: str, inner: str = "") -> str:
    """Under what a parameter of what a reference leads to inside is kept; "" for its type."""
    return f"{name}{MARK}{inner}"


def values(resource: Json, of: Callable[[Json], list[Value]]) -> Iterator[Value]:
    """The values of what is contained; `of` are those of one resource."""
    listed = resource.get("contained")
    known = search_parameters.kinds()
    held = {
        f"#{one.get('id')}": one
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and one.get("resourceType") in known
    }
    if not held:
        return
    for parameter in search_parameters.of(resource["resourceType"]).values():
        if parameter.type != "reference" or not parameter.is_kept:
            continue
        for path in parameter.paths:
            for inner in _led(held, resource, path.properties):
                yield Token(under(parameter.name), inner["resourceType"])
                for one in of({name: told for name, told in inner.items() if name != "contained"}):
                    yield replace(one, parameter=under(parameter.name, one.parameter))


def _led(held: dict[str, Json], element: Any, path: Sequence[str]) -> Iterator[Json]:
    if isinstance(element, list):
        for one in element:
            yield from _led(held, one, path)
    elif isinstance(element, dict) and path:
        yield from _led(held, element.get(path[0]), path[1:])
    elif isinstance(element, dict) and (told := element.get("reference")) in held:
        yield held[told]


def inside(names: Sequence[str], kind: str, criterion: Asked) -> Asked:
    """One of the references leads to a resource of `kind` inside, of which the criterion holds."""
    found = [
        Every((Indexed("token", (under(name),), (TokenIs(kind),)), _moved(criterion, name)))
        for name in names
    ]
    return found[0] if len(found) == 1 else Some(tuple(found))


def _moved(criterion: Asked, name: str) -> Asked:
    match criterion:
        case Indexed(parameters=parameters):
            moved = tuple(under(name, one) for one in parameters)
            return replace(criterion, parameters=moved)
        case Together(components):
            told = tuple(_moved(one, name) for one in components)
            return Together(tuple(one for one in told if isinstance(one, Indexed)))
        case Every(criteria):
            return Every(tuple(_moved(one, name) for one in criteria))
        case Some(criteria):
            return Some(tuple(_moved(one, name) for one in criteria))
        case Without(without):
            return Without(_moved(without, name))
        case _:
            return Some(())  # it has no id and no moment of its own

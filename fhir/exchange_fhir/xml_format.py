"""XML in and out (FHIR R4 2.6.1): the same resources as in JSON, by the definitions of R4.

Inside, a resource is always what its JSON says; XML is made of it for those who ask for it, its
elements in the order of the definitions, and read from those who send it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from lxml import etree

from exchange_fhir import narrative, primitives
from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import elements
from exchange_fhir.definitions.elements import Property, Structure
from exchange_fhir.json_format import DEPTH, Written
from exchange_fhir.outcome import Issue, Problem

MEDIA_TYPE = "application/fhir+xml"

FHIR = "http://hl7.org/fhir"

_ABSENT: Any = object()


def parse(content: bytes) -> Json:
    """The resource in an XML document, as its JSON. Raises Problem."""
    try:
        root = narrative.parse(content)
    except ValueError as error:
        raise _problem(f"the body cannot be read: {error}", "") from None
    return _resource(root, _name(root), DEPTH)


def serialize(told: Json, *, pretty: bool = False) -> bytes:
    """A valid resource as an XML document in UTF-8."""
    nsmap: Any = {None: FHIR}
    root = etree.Element(f"{{{FHIR}}}{told['resourceType']}", nsmap=nsmap)
    _fill(root, told, elements.structure(told["resourceType"]))
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=pretty)


# -- XML to JSON ----------------------------------------------------------------------------------


def _problem(told: str, path: str) -> Problem:
    return Problem(400, "structure", told, issues=[Issue("structure", told, path)])


def _attributes(structure: Structure) -> frozenset[str]:
    """What is an attribute: Element.id and Extension.url (R4 2.6.1)."""
    if structure.is_resource:
        return frozenset()
    return frozenset({"id", "url"} if structure.name == "Extension" else {"id"})


def _name(element: etree._Element) -> str:
    tag = element.tag
    if isinstance(tag, str) and tag.startswith(f"{{{FHIR}}}"):
        return tag.removeprefix(f"{{{FHIR}}}")
    return ""


def _children(element: etree._Element, path: str) -> list[etree._Element]:
    found = [one for one in element if isinstance(one.tag, str)]  # not comments
    texts = [element.text or "", *(one.tail or "" for one in element)]
    if any(isinstance(one, str) and one.strip() for one in texts):
        raise _problem("text between the elements", path)
    return found


def _resource(element: etree._Element, path: str, depth: int) -> Json:
    kind = _name(element)
    if kind not in elements.resources():
        raise _problem(f"a resource of R4 in the namespace {FHIR} is expected here", path)
    if element.attrib:
        raise _problem("a resource has no attributes", path)
    return {"resourceType": kind} | _object(element, elements.structure(kind), path, depth)


def _object(element: etree._Element, structure: Structure, path: str, depth: int) -> Json:
    if not depth:
        raise _problem(f"at most {DEPTH} levels may be nested", "")
    told: Json = {}
    attributes = _attributes(structure)
    for attribute, text in element.attrib.items():
        if attribute not in attributes:
            raise _problem("an attribute that is not known here", path)
        told[str(attribute)] = str(text)
    besides: dict[str, Any] = {}
    for child in _children(element, path):
        name = "div" if child.tag == f"{{{narrative.XHTML}}}div" else _name(child)
        found = structure.properties.get(name)
        if found is None or name in attributes:
            raise _problem(f"{structure.name} has no such element", path)
        value, beside = _value(child, found, f"{path}.{found.element.stem}", depth - 1)
        if found.element.is_list:
            told.setdefault(name, []).append(value)
            besides.setdefault(name, []).append(beside)
        elif name in told:
            raise _problem("this element stands twice", f"{path}.{found.element.stem}")
        else:
            told[name], besides[name] = value, beside
    return _joined(told, besides)


def _joined(told: Json, besides: Json) -> Json:
    """JSON's form of values and of what stands beside them."""
    made: Json = {}
    for name, value in told.items():
        beside = besides.get(name, _ABSENT)
        some = isinstance(value, list) or value is not _ABSENT
        if isinstance(value, list) and name in besides:
            value = [None if one is _ABSENT else one for one in value]
            some = any(one is not None for one in value)
            listed = [None if one is _ABSENT else one for one in beside]
            beside = listed if any(one is not None for one in listed) else _ABSENT
        if some:
            made[name] = value
        if beside is not _ABSENT:
            made[f"_{name}"] = beside
    return made


def _value(element: etree._Element, found: Property, path: str, depth: int) -> tuple[Any, Any]:
    """A value, and what stands beside it where it is a primitive one."""
    if found.type == "Resource":
        inner = _children(element, path)
        if len(inner) != 1 or element.attrib:
            raise _problem("one resource is expected here", path)
        return _resource(inner[0], path, depth), _ABSENT
    if found.type == "xhtml":
        if element.tag != f"{{{narrative.XHTML}}}div":
            raise _problem("a div of XHTML is expected here", path)
        return etree.tostring(element, encoding="unicode", with_tail=False), _ABSENT
    if not found.is_primitive:
        return _object(element, elements.structure(found.type), path, depth), _ABSENT
    attributes = {str(name): str(text) for name, text in element.attrib.items()}
    text = attributes.pop("value", None)
    value: Any = _ABSENT
    if text is not None:
        value = _decimal(text) if found.type == "decimal" else primitives.of_text(found.type, text)
    if attributes.keys() - {"id"}:
        raise _problem("an attribute that is not known here", path)
    beside: Json = dict(attributes)
    for child in _children(element, path):
        if _name(child) != "extension":
            raise _problem("beside a value stand extensions only", path)
        extension = elements.structure("Extension")
        inner_path = f"{path}.extension[{len(beside.get('extension', ()))}]"
        inner_value = _object(child, extension, inner_path, depth)
        beside.setdefault("extension", []).append(inner_value)
    return value, beside or _ABSENT


def _decimal(text: str) -> object:
    plain = text.removeprefix("-")
    as_json = plain[:1].isdigit() and not (plain[:1] == "0" and plain[1:2].isdigit())
    if as_json and not plain.endswith(".") and "_" not in text and text.isascii():
        try:
            return Written(text)
        except ValueError:
            pass
    return text  # which is then told to be no decimal


# -- JSON to XML ----------------------------------------------------------------------------------


def _fill(parent: etree._Element, told: Json, structure: Structure) -> None:
    attributes = _attributes(structure)
    for name, found in structure.properties.items():
        if name in attributes:
            if name in told:
                parent.set(name, told[name])
            continue
        value, beside = told.get(name), told.get(f"_{name}") if found.is_primitive else None
        if value is None and beside is None:
            continue
        if not found.element.is_list:
            _add(parent, found, value, beside)
            continue
        values, besides = value or [], beside or []
        for at in range(max(len(values), len(besides))):
            _add(
                parent,
                found,
                values[at] if at < len(values) else None,
                besides[at] if at < len(besides) else None,
            )


def _add(parent: etree._Element, found: Property, value: Any, beside: Any) -> None:
    if found.type == "xhtml":
        parent.append(narrative.parse(value.encode()))
        return
    element = etree.SubElement(parent, f"{{{FHIR}}}{found.name}")
    if found.type == "Resource":
        inner = etree.SubElement(element, f"{{{FHIR}}}{value['resourceType']}")
        _fill(inner, value, elements.structure(value["resourceType"]))
    elif not found.is_primitive:
        _fill(element, value, elements.structure(found.type))
    else:
        if value is not None:
            element.set("value", _text(value))
        if beside is not None:
            _fill(element, beside, elements.structure("Element"))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Written):
        return value.text
    return f"{value:f}" if isinstance(value, Decimal) else str(value)

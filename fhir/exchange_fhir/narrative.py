"""Narrative (FHIR R4 2.4): the small part of XHTML that may stand in a resource, and no script."""

from __future__ import annotations

from lxml import etree

XHTML = "http://www.w3.org/1999/xhtml"

ELEMENTS = frozenset(
    {"a", "abbr", "acronym", "address", "b", "big", "blockquote", "br", "caption", "cite", "code"}
    | {"col", "colgroup", "dd", "del", "dfn", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4"}
    | {"h5", "h6", "hr", "i", "img", "ins", "kbd", "li", "ol", "p", "pre", "q", "samp", "small"}
    | {"span", "strong", "sub", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr"}
    | {"tt", "ul", "u", "var"}
)
"""Formatting of HTML 4.0, chapters 7 to 11 and 15 (constraint txt-1)."""
ATTRIBUTES = frozenset(
    {"abbr", "accesskey", "align", "alt", "axis", "bgcolor", "border", "cellhalign"}
    | {"cellpadding", "cellspacing", "cellvalign", "char", "charoff", "charset", "cite", "class"}
    | {"colspan", "compact", "coords", "dir", "frame", "headers", "height", "href", "hreflang"}
    | {"hspace", "id", "idref", "lang", "longdesc", "name", "noshade", "nowrap", "rel", "rev"}
    | {"rowspan", "rules", "scope", "shape", "span", "src", "start", "style", "summary"}
    | {"tabindex", "title", "type", "valign", "value", "vspace", "width"}
)
_ADDRESSES = frozenset({"href", "src", "cite", "longdesc"})
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_SCHEMES = ("http:", "https:", "mailto:", "tel:", "urn:", "data:image/")

_NO_ENTITIES = (
    "the div uses an entity that XML does not know: write the character itself, such as &#160;"
)


def problem(div: str) -> str:
    """What is wrong with a div as it stands in JSON; "" when nothing is."""
    try:
        root = parse(div.encode(errors="replace"))
    except ValueError as error:
        return str(error)
    if root.tag != f"{{{XHTML}}}div":
        return f"a narrative is one div in the namespace {XHTML}"
    for element in root.iter():
        if isinstance(element, etree._Comment):
            continue
        if not isinstance(element.tag, str):
            return "a narrative holds no processing instruction"
        if element.tag.removeprefix(f"{{{XHTML}}}") not in ELEMENTS:
            return "an element of the div is not among those that a narrative may have"
        for name, value in element.attrib.items():
            if name not in ATTRIBUTES and name != _LANGUAGE:
                return "an attribute of the div is not among those that a narrative may have"
            if name in _ADDRESSES and not _is_safe(str(value)):
                return "an address in the div is of a kind that a narrative may not have"
    if not "".join(root.itertext()).strip() and root.find(f".//{{{XHTML}}}img") is None:
        return "a narrative has some content"
    return ""


def parse(content: bytes) -> etree._Element:
    """XML without a DTD, entities and fetching. Raises ValueError."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_pis=False
    )
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        told = _NO_ENTITIES if "Entity" in str(error) else "this is not well-formed XML"
        raise ValueError(told) from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise ValueError("a document type is not taken")
    return root


def _is_safe(address: str) -> bool:
    told = "".join(address.split()).lower()
    head = told.partition(":")[0]
    relative = ":" not in told or any(c in head for c in "/?#")
    return relative or told.startswith(_SCHEMES)

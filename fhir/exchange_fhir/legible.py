"""Formatted text that others wrote as HTML that cannot act: narrative (R4 2.4), CDA's (R2 4.3.5).

Nothing is passed through: what is shown is written anew, from a short list of elements without
attributes. Whatever else stands there (links, pictures, styles, scripts, comments) leaves its
text, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from lxml import etree

from exchange_fhir import narrative

CHARACTERS = 200_000
"""Of one text that are shown, at most."""

DEPTH = 40
"""Elements inside each other, at most; what is deeper is left out."""

_ITSELF = (
    *("b", "blockquote", "br", "caption", "code", "dd", "del", "div", "dl", "dt", "em", "h4", "h5"),
    *("h6", "hr", "i", "ins", "li", "ol", "p", "pre", "small", "span", "strong", "sub", "sup"),
    *("table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul"),
)

NARRATIVE: Mapping[str, str] = {name: name for name in _ITSELF} | {
    # The page has headings of its own above these.
    "h1": "h4",
    "h2": "h4",
    "h3": "h5",
}
"""How elements of XHTML are shown."""

CDA: Mapping[str, str] = {name: name for name in _ITSELF} | {
    "paragraph": "p",
    "content": "span",
    "list": "ul",
    "item": "li",
    "title": "h5",
}
"""How elements of a CDA section's text are shown."""

_EMPTY = frozenset({"br", "hr"})
_SILENT = frozenset({"script", "style", "template", "title", "head", "object", "iframe", "svg"})
"""Whose text is not for people either, where it is not shown as something."""


def narrated(div: str) -> str:
    """The div of a narrative as HTML; "" for one that cannot be read."""
    try:
        return html(narrative.parse(div.encode(errors="replace")), NARRATIVE)
    except ValueError:
        return ""


def html(root: etree._Element, shown: Mapping[str, str]) -> str:
    """What is below `root` as HTML, cut where it is longer than `CHARACTERS`."""
    made: list[str] = []
    left = CHARACTERS
    open_elements: list[str] = []
    for begins, piece in _walk(root, shown, 0):
        if begins is None:
            if left <= 0:
                continue
            made.append(escape(piece[:left]))
            left -= len(piece)
        elif begins:
            fits = left > 0
            left -= len(piece) + 2  # so that what has no text ends, too
            if fits:
                made.append(f"<{piece}>")
            if piece not in _EMPTY:
                open_elements.append(piece if fits else "")
        else:
            if opened := open_elements.pop():
                made.append(f"</{opened}>")
    return "".join(made)


def _walk(
    element: etree._Element, shown: Mapping[str, str], depth: int
) -> Iterator[tuple[bool | None, str]]:
    """Text (None), beginnings (True) and ends (False), in their order."""
    if depth > DEPTH:
        return
    if element.text:
        yield None, element.text
    for child in element:
        if isinstance(child.tag, str):
            name = etree.QName(child).localname
            made = shown.get(name, "")
            if made in _EMPTY:
                yield True, made
            elif made:
                yield True, made
                yield from _walk(child, shown, depth + 1)
                yield False, made
            elif name not in _SILENT:
                yield from _walk(child, shown, depth + 1)
        if child.tail:
            yield None, child.tail

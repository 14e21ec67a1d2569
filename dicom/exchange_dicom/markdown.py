"""Headings, paragraphs and tables of a document in Markdown, and its table of contents."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

WIDTH = 96


def heading(number: str, title: str) -> Iterator[str]:
    """A heading with its section number, which says how deep it is."""
    yield f"{'#' * (number.count('.') + 2)} {number} {title}"
    yield ""


def prose(text: str) -> Iterator[str]:
    """A paragraph, wrapped."""
    yield from textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    yield ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table; a row for each of `rows`."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def contents(lines: Iterable[str], depth: int) -> Iterator[str]:
    """A list of the headings in `lines`, so many levels deep."""
    for line in lines:
        found = re.fullmatch(r"#{2,} (\S+) (.+)", line)
        if found is not None and found[1].count(".") < depth:
            yield f"{'  ' * found[1].count('.')}- {found[1]} {found[2]}"
    yield ""

"""What is told of instances as DICOM JSON (PS3.18 annex F), and the documents of series.

Every attribute up to the Pixel Data, as the sender wrote it. Binary values over `data_set.BULK`
bytes, any values over `VALUE_LIMIT`, and the pixels are named by the URI of their bulk data.

What is told of a series is kept as a document, compressed: when the worker derives what a study
needs, or when it is first asked for. It is one for all askers, with the addresses of the door as
they are set; what is different for an asker is `telling`'s.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import orjson

from exchange import derived, retrieval
from exchange.access import Exchange
from exchange.errors import Damaged
from exchange.retrieval import Held
from exchange_dicom import data_set, kept, telling
from exchange_dicom.data_set import PIXELS, Element
from exchange_dicom.header import INFLATE_LIMIT, MalformedDataSet
from exchange_dicom.resources import Root
from exchange_dicom.telling import Telling

VALUE_LIMIT = 1 << 20
"""Bytes of the longest value that is described."""

DOCUMENT_LIMIT = 64 << 20
"""Bytes of JSON of the longest document of a series that is kept."""

FORM = "metadata 3"
"""Changes when the same instances are described in another way."""


def derive(exchange: Exchange, held: Sequence[Held], root: Root) -> int:
    """Keep the documents of the series that these instances are, with the addresses of `root`.

    None is made of what is damaged. Returns how many were made. Raises Unavailable.
    """
    made = 0
    for series in _by_series(held):
        damaged = any(one.damaged for one in series)
        if not damaged and derived.find(series, form(root)) is None:
            made += 1
            for _ in _series(exchange, series, root):
                pass  # which is kept at its end
    return made


def describe(held: Held, root: Root) -> dict[str, Any]:
    """The metadata of one instance, as DICOM JSON. Raises Unavailable.

    Where its data set is broken, what comes before that place.
    """
    return data_set.to_json(_head(held), kept.character_set(held), bulk_data_of(root, held))


def bulk_data_of(root: Root, held: Held) -> data_set.Bulk:
    """What names the bulk data of an instance by their paths."""
    where = root.resource(held.study_instance_uid, held.series_instance_uid, held.sop_instance_uid)
    return f"{where}/bulkdata/{{}}".format


def tellable(held: Sequence[Held], root: Root) -> tuple[Held, ...]:
    """Those of the instances that can be told of: of a series whose document is kept all, which
    was made while they were whole, else those that are not damaged.

    Raises Unavailable, Damaged where there are none.
    """
    if not any(one.damaged for one in held):
        return tuple(held)
    known = {
        series[0].series_instance_uid
        for series in _by_series(held)
        if derived.find(series, form(root)) is not None
    }
    found = tuple(one for one in held if one.series_instance_uid in known or not one.damaged)
    return found or retrieval.whole(held)


def document(held: Sequence[Held], root: Root, told_to: Telling) -> bytes | None:
    """The JSON of the instances of one series, compressed, if it is kept. Raises Unavailable."""
    packed = derived.find(held, form(root))
    if packed is None or not told_to.changes(root):
        return packed
    return _packed(told_to.of(gzip.decompress(packed), root))


def array(
    exchange: Exchange, held: Sequence[Held], root: Root, told_to: Telling
) -> Iterator[bytes]:
    """The JSON of instances of any number of series, from their documents where there are any.

    Raises Unavailable.
    """
    before = b"["
    for series in _by_series(held):
        packed = derived.find(series, form(root))
        if packed is not None:
            yield before + told_to.of(gzip.decompress(packed)[1:-1], root)
        else:
            yield before
            described = _series(exchange, series, root)
            yield from (told_to.of(piece, root) for piece in described)
        before = b","
    yield b"]"


def _series(exchange: Exchange, held: Sequence[Held], root: Root) -> Iterator[bytes]:
    """The JSON of one series' instances, with commas between; kept once it is there to its end."""
    packing = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    packed = [packing.compress(b"[")]
    size = 0
    for number, one in enumerate(held):
        piece = b"," * bool(number) + told(one, root)
        size += len(piece)
        if size <= DOCUMENT_LIMIT:
            packed.append(packing.compress(piece))
        yield piece
    if size <= DOCUMENT_LIMIT:
        whole = b"".join([*packed, packing.compress(b"]"), packing.flush()])
        derived.keep(exchange, held, form(root), whole)


def told(held: Held, root: Root) -> bytes:
    """The JSON of one instance. Raises Unavailable."""
    return telling.written(describe(held, root))


def told_before(held: Held, series: Sequence[Held], root: Root) -> bytes:
    """The JSON of one instance that is damaged, from the document of its series, which was made
    while it was whole. Raises Unavailable, Damaged where none is kept."""
    packed = derived.find(series, form(root))
    for one in orjson.loads(gzip.decompress(packed)) if packed is not None else ():
        if one["00080018"]["Value"] == [held.sop_instance_uid]:
            return telling.written(one)
    raise Damaged(retrieval.DAMAGED)


def form(root: Root) -> str:
    """What a document depends on besides its instances."""
    return f"{FORM} {root.url}"


def _packed(text: bytes) -> bytes:
    """For one asker, who waits: quickly rather than small."""
    packing = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
    return packing.compress(text) + packing.flush()


def _by_series(held: Sequence[Held]) -> Iterator[Sequence[Held]]:
    for _, series in groupby(held, lambda one: one.series_instance_uid):
        yield tuple(series)


def _head(held: Held) -> list[Element]:
    read = kept.reading(held, INFLATE_LIMIT)
    found: list[Element] = []
    try:
        for element in data_set.walk(read, held.transfer_syntax_uid, until=PIXELS):
            if element.tag >= PIXELS:
                if element.tag >> 16 == PIXELS >> 16:
                    found.append(Element(element.tag, element.vr))
                break
            if element.span is not None and element.span[1] <= VALUE_LIMIT:
                found.append(replace(element, value=memoryview(read(*element.span))))
            else:
                found.append(element)
    except MalformedDataSet:
        pass  # what comes before that place is told
    return found

"""Metadata of instances by WADO-RS (PS3.18 10.4.1.1.2), from the documents of their series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import orjson
from starlette.responses import Response

from exchange import retrieval
from exchange.access import Exchange
from exchange.policy import Requester
from exchange.retrieval import Held
from exchange_dicom import coercion, multipart, native_model, series_metadata, web_models
from exchange_dicom.media_types import DICOM_XML, MULTIPART, MediaType
from exchange_dicom.resources import Root
from exchange_dicom.telling import Telling
from exchange_dicom.web_answers import CACHING, DAMAGED, entity_tag, partial, streamed, unchanged


def metadata(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    study: str,
    series: str | None,
    instance: str | None,
    *,
    kept: Root,
    accept: Sequence[MediaType],
    if_none_match: str,
    compressed: bool = False,
    hanzi: bool = False,
) -> Response:
    """The attributes of instances as DICOM JSON or in XML; 304 where the asker has them already.

    The patient has the asker's number, as in what a retrieval sends. Documents of series have the
    addresses of `kept`; where the asker takes gzip, `compressed`, they go out so, as they lie if
    nothing in them is different for the asker. `hanzi` is of `Telling`. What is damaged, and was
    not told before, is left out (206). Raises NotFound, Gone, Refused, Damaged, NotAcceptable.
    """
    answered = web_models.choose(accept, parted=True)
    with exchange.on_behalf_of(requester) as access:
        found = retrieval.instances(access, study, series, instance, purpose="metadata")
        known, issuer = retrieval.as_known(access, found)
        alone = instance is not None and answered != DICOM_XML
        damaged = alone and found.instances[0].damaged
        beside = retrieval.series_of(access, found) if damaged else ()
    coerced = coercion.needed(known, issuer, datetime.now(UTC))
    told_to = Telling(root, coerced, hanzi)
    held = (
        series_metadata.tellable(found.instances, kept)
        if answered != DICOM_XML and instance is None
        else found.instances
        if damaged
        else retrieval.whole(found.instances)
    )
    tag = _tag(told_to, answered, held)
    packed_tag = f'{tag[:-1]}-gzip"'
    for known_as in (tag, packed_tag):
        if (same := unchanged(if_none_match, known_as)) is not None:
            return same
    headers = {"ETag": tag, "Cache-Control": CACHING, "Content-Type": answered}
    headers["Vary"] = "Accept, Accept-Encoding"
    answer: Response
    if answered == DICOM_XML:
        answer = _in_xml(held, kept, told_to, headers)
    elif instance is not None:
        (one,) = held
        if damaged:
            text = series_metadata.told_before(one, beside, kept)
        else:
            text = series_metadata.told(one, kept)
        answer = Response(b"[" + told_to.of(text, kept) + b"]", headers=headers)
    elif (
        series is not None
        and compressed
        and (document := series_metadata.document(held, kept, told_to))
    ):
        headers |= {"ETag": packed_tag, "Content-Encoding": "gzip"}
        answer = Response(document, headers=headers)
    else:
        answer = streamed(series_metadata.array(exchange, held, kept, told_to), headers)
    partial(answer, root, len(found.instances) - len(held), DAMAGED)
    return answer


def _tag(told_to: Telling, answered: str, held: Sequence[Held]) -> str:
    """A weak one where the moment of the coercion stands in what is told: that alone differs."""
    number = told_to.coercion
    tag = entity_tag(
        series_metadata.FORM,
        told_to.root.url,
        answered,
        str(told_to.hanzi),
        *((number.patient_id, number.issuer, number.owner_patient_id) if number else ()),
        *(one.digest for one in held),
    )
    return f"W/{tag}" if number else tag


def _in_xml(
    held: Sequence[Held], kept: Root, told_to: Telling, headers: dict[str, str]
) -> Response:
    """A part for each instance, as the Native DICOM Model."""
    boundary = multipart.new_boundary()
    kind = f'{MULTIPART}; type="{DICOM_XML}"; boundary={boundary}'

    def parts() -> Iterator[bytes]:
        for one in held:
            (model,) = orjson.loads(b"[" + told_to.of(series_metadata.told(one, kept), kept) + b"]")
            yield multipart.head({"Content-Type": DICOM_XML}, boundary)
            yield native_model.to_xml(model)
        yield multipart.tail(boundary)

    return streamed(parts(), headers | {"Content-Type": kind})

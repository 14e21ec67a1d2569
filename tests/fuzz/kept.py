"""What is kept as it was sent is sent out again, and shown: whatever is in it behind its header."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime

import corpus
from target import Target

from exchange.errors import NotFound, TooLarge
from exchange.retrieval import Held
from exchange_dicom import header, instance, part10, pixel_data, transcoding
from exchange_dicom.coercion import Coercion
from exchange_dicom.grey_values import CannotRender
from exchange_dicom.header import DataSetError
from exchange_dicom.rendering import Presentation, Rendering
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from exchange_storage.objects import MemoryStore

LARGEST = 80_000
"""Bytes of the largest file of the corpus that is damaged."""

UIDS = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
KEY = "studies/1.2.3/1.2.3.1/1.2.3.4.dcm"
COERCION = Coercion(
    patient_id="N7",
    issuer="2.25.102",
    owner_patient_id="P1",
    owner_issuer="2.25.101",
    institution="北城医院",
    at=datetime(2026, 11, 1, tzinfo=UTC),
    system="EXCHANGE",
)


def held(body: bytes, transfer_syntax_uid: str) -> Held:
    """The data set as the exchange keeps it. Raises DataSetError where it would be refused."""
    header.read(io.BytesIO(body), transfer_syntax_uid, instance.WANTED)
    whole = part10.file_meta(*UIDS, transfer_syntax_uid) + body
    store = MemoryStore()
    store.keep(KEY, whole)
    return Held(
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.1",
        sop_instance_uid=UIDS[1],
        sop_class_uid=UIDS[0],
        transfer_syntax_uid=transfer_syntax_uid,
        key=KEY,
        size=len(whole),
        digest=str(hash(whole)),
        character_set="",
        character_set_repair=None,
        rows=None,
        objects=store,
    )


def send(body: bytes, transfer_syntax_uid: str) -> None:
    """Send it out as it is and in both uncompressed syntaxes, with its number and another's."""
    kept = held(body, transfer_syntax_uid)
    for offered in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN):
        for coercion in (None, COERCION):
            try:
                for _ in transcoding.data_set_of(
                    kept, transcoding.choose(transfer_syntax_uid, [offered]), coercion
                ):
                    pass
            except CannotTranscode:
                continue
    for _ in transcoding.data_set_of(kept, transfer_syntax_uid, None):
        pass


def show(body: bytes, transfer_syntax_uid: str) -> None:
    """Give out its frames, and make a picture of one."""
    kept = held(body, transfer_syntax_uid)
    known = pixel_data.pixels(kept)
    for number in {1, (known.frames + 1) // 2, known.frames}:
        pixel_data.stored_frame(kept, known, number)
    rendering = Rendering(kept)
    rendering.picture(rendering.representative, Presentation())
    assert rendering.duration > 0


def kept_targets() -> Iterator[Target]:
    """A target of either kind for each transfer syntax of the corpus."""
    by_syntax: dict[str, list[bytes]] = {}
    for one in corpus.files():
        content = one.content()
        try:
            meta = part10.read_file_meta(io.BytesIO(content))
            body = content[meta.data_set_offset :]
            header.read(io.BytesIO(body), meta.transfer_syntax_uid, instance.WANTED)
        except DataSetError:
            continue
        if len(body) <= LARGEST:
            by_syntax.setdefault(meta.transfer_syntax_uid, []).append(body)
    shown = (DataSetError, NotFound, TooLarge, CannotRender, CannotTranscode)
    for uid, bodies in by_syntax.items():
        yield Target(
            f"sent {uid}",
            bodies,
            lambda body, uid=uid: send(body, uid),  # type: ignore[misc]
            (DataSetError, TooLarge),
        )
        yield Target(
            f"shown {uid}",
            bodies,
            lambda body, uid=uid: show(body, uid),  # type: ignore[misc]
            shown,
        )

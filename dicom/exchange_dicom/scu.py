"""The service class user: C-STORE and C-FIND towards another node (PS3.4 Annexes B and C).

For commands that a person gives. Instances are sent as they lie in their files: nothing is decoded
or converted, and each transfer syntax gets a presentation context of its own.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
)
from pynetdicom.status import QR_FIND_SERVICE_CLASS_STATUS, STORAGE_SERVICE_CLASS_STATUS

from exchange.errors import Invalid, Unavailable
from exchange_storage.search import Level

CONTEXTS = 128
"""Presentation contexts of one association, at most (PS3.8 Table 9-18: odd numbers up to 255)."""

CONNECT_SECONDS = 10

SUCCESS = 0x0000
PENDING = frozenset({0xFF00, 0xFF01})
WARNINGS = frozenset({0xB000, 0xB006, 0xB007})
"""Stored, with a remark (PS3.4 Table B.2-1)."""

RETURN_KEYS = {
    Level.PATIENT: ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    Level.STUDY: (
        "PatientID",
        "PatientName",
        "StudyDate",
        "ModalitiesInStudy",
        "StudyDescription",
        "AccessionNumber",
        "StudyInstanceUID",
    ),
    Level.SERIES: ("Modality", "SeriesNumber", "SeriesDescription", "SeriesInstanceUID"),
    Level.IMAGE: ("InstanceNumber", "SOPClassUID", "SOPInstanceUID"),
}
"""What is asked to be returned at each level beside the keys that were given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Where another node listens, and the AE titles of the two ends."""

    host: str
    port: int
    called: str
    calling: str

    @classmethod
    def parse(cls, text: str, *, called: str, calling: str) -> Node:
        """Read ``host:port``, an IPv6 address in brackets. Raises Invalid."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise Invalid("a node is written host:port, an IPv6 address as [::1]:port")
        return cls(host=host.strip("[]"), port=int(port), called=called, calling=calling)


@dataclass(frozen=True, slots=True)
class File:
    """A Part 10 file to be sent."""

    path: Path
    sop_class: str
    transfer_syntax: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the other node answered to one file."""

    file: File
    stored: bool
    answer: str
    """The status in words, with the node's own comment; or why there is none."""


def files(paths: Iterable[Path]) -> Iterator[File | Path]:
    """The Part 10 files at `paths`, folders read to the bottom; what is none comes as its path."""
    for path in paths:
        found = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        for one in found:
            yield _file(one) or one


def send(node: Node, wanted: Sequence[File]) -> Iterator[Sent]:
    """Send the files by C-STORE, in as few associations as their contexts allow.

    Raises Unavailable when the node cannot be reached or rejects us.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True  # from the file as it is, in pieces
    for batch in _batches(wanted):
        kinds = dict.fromkeys((one.sop_class, one.transfer_syntax) for one in batch)
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in kinds]
        association = _associate(node, contexts)
        try:
            for number, file in enumerate(batch):
                yield _store(association, file, number % 65535 + 1)
        finally:
            association.release()


def find(node: Node, level: Level, keys: Sequence[tuple[str, str]]) -> Iterator[Dataset]:
    """The matches of a C-FIND at `level`, with `keys` as (keyword, value or "").

    Raises Invalid for a keyword that is none and for a refused question, Unavailable.
    """
    asked = Dataset()
    asked.SpecificCharacterSet = "ISO_IR 192"
    asked.QueryRetrieveLevel = level.name
    for keyword, value in (*((one, "") for one in RETURN_KEYS[level]), *keys):
        if tag_for_keyword(keyword) is None:
            raise Invalid(f"{keyword} is not a keyword of PS3.6")
        try:
            with warnings.catch_warnings(action="ignore"):  # what it means is the node's to judge
                setattr(asked, keyword, value)
        except (ValueError, TypeError) as error:
            raise Invalid(f"this is not a value of {keyword}") from error
    model = (
        PatientRootQueryRetrieveInformationModelFind
        if level is Level.PATIENT
        else StudyRootQueryRetrieveInformationModelFind
    )
    association = _associate(node, [build_context(model)])
    try:
        if not association.accepted_contexts:
            raise Unavailable("the node does not answer queries")
        for status, match in association.send_c_find(asked, model):
            if "Status" not in status:
                raise Unavailable("the node ended the association without an answer")
            if status.Status in PENDING and match is not None:
                yield match
            elif status.Status != SUCCESS:
                raise Invalid(_words(status, QR_FIND_SERVICE_CLASS_STATUS))
    finally:
        association.release()


def _file(path: Path) -> File | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # of a data set that is sent as it is
            meta = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"]).file_meta
        return File(
            path,
            str(meta.MediaStorageSOPClassUID),
            str(meta.TransferSyntaxUID),
            path.stat().st_size,
        )
    except (InvalidDicomError, OSError, AttributeError, ValueError, EOFError):
        return None


def _batches(wanted: Sequence[File]) -> Iterator[list[File]]:
    batch: list[File] = []
    kinds: set[tuple[str, str]] = set()
    for one in wanted:
        kind = (one.sop_class, one.transfer_syntax)
        if kind not in kinds and len(kinds) == CONTEXTS:
            yield batch
            batch, kinds = [], set()
        batch.append(one)
        kinds.add(kind)
    if batch:
        yield batch


def _associate(node: Node, contexts: list[PresentationContext]) -> Association:
    try:
        # pynetdicom tells nothing of why it could not connect, and leaves its socket open.
        socket.create_connection((node.host, node.port), CONNECT_SECONDS).close()
    except OSError as error:
        where = f"{node.host}:{node.port}"
        raise Unavailable(f"the node at {where} does not answer: {error}") from error
    try:
        entity = AE(ae_title=node.calling)
        entity.connection_timeout = CONNECT_SECONDS
        entity.maximum_pdu_size = 131072
        association = entity.associate(
            node.host, node.port, contexts=contexts, ae_title=node.called
        )
    except ValueError as error:
        raise Invalid(f"an AE title has 1 to 16 characters: {error}") from error
    if association.is_established:
        return association
    if association.is_rejected:
        answer = association.acceptor.primitive
        reason = answer.reason_str if answer is not None else "no reason given"
        raise Unavailable(f"the node rejected the association: {reason}")
    raise Unavailable(f"the node at {node.host}:{node.port} aborted the association")


def _store(association: Association, file: File, number: int) -> Sent:
    try:
        status = association.send_c_store(file.path, msg_id=number)
    except RuntimeError:
        return Sent(file, False, "the association was lost before")
    except ValueError:
        syntax = UID(file.transfer_syntax).name
        return Sent(file, False, f"{UID(file.sop_class).name} in {syntax} is not accepted")
    except OSError as error:
        return Sent(file, False, f"cannot be read: {error.strerror}")
    if "Status" not in status:
        return Sent(file, False, "the association was lost")
    stored = status.Status == SUCCESS or status.Status in WARNINGS
    return Sent(file, stored, _words(status, STORAGE_SERVICE_CLASS_STATUS))


def _words(status: Dataset, table: dict[int, tuple[str, str]]) -> str:
    code = int(status.Status)
    category, description = table.get(code, ("Failure", ""))
    comment = str(status.get("ErrorComment", ""))
    parts = (f"{code:04X} {category}", description, comment)
    return ": ".join(part for part in parts if part)

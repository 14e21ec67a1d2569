"""The service class user: echo, store, find, move and get, towards another node (PS3.4 A, B, C).

For commands that a person gives. Instances are sent as they lie in their files where the other node
takes that, in a presentation context of its own, else without loss in what it takes.
"""

from __future__ import annotations

import io
import ssl
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import UID
from pynetdicom.status import (
    QR_FIND_SERVICE_CLASS_STATUS,
    QR_GET_SERVICE_CLASS_STATUS,
    QR_MOVE_SERVICE_CLASS_STATUS,
    STORAGE_SERVICE_CLASS_STATUS,
)

from exchange.errors import Invalid, Unavailable
from exchange_dicom import contexts, dimse, part10, requestor, status, transcoding
from exchange_dicom.association import Message
from exchange_dicom.contexts import UNCOMPRESSED
from exchange_dicom.dimse import Command, CommandField, SubOperations
from exchange_dicom.header import DataSetError
from exchange_dicom.negotiation import Conduct, Context
from exchange_dicom.pdu import CONTEXTS, RejectReason, RoleSelection, UpperLayerError
from exchange_dicom.requestor import Address, Proposal, Requested
from exchange_dicom.states import AssociationEnded, AssociationRejected
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from exchange_storage.search import Level

PENDING = frozenset({status.PENDING, status.PENDING_UNSUPPORTED})

IDENTIFIER_LENGTH = 1 << 20
"""Bytes of the longest identifier that is read from an answer."""

PIECE = 1 << 18
"""Bytes read from a file at once."""

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
    tls: ssl.SSLContext | None = None

    @classmethod
    def parse(
        cls, text: str, *, called: str, calling: str, tls: ssl.SSLContext | None = None
    ) -> Node:
        """Read ``host:port``, an IPv6 address in brackets. Raises Invalid."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise Invalid("a node is written host:port, an IPv6 address as [::1]:port")
        return cls(host=host.strip("[]"), port=int(port), called=called, calling=calling, tls=tls)


@dataclass(frozen=True, slots=True)
class File:
    """A Part 10 file to be sent."""

    path: Path
    sop_class: str
    instance: str
    transfer_syntax_uid: str
    size: int
    """Bytes."""

    def stream(self) -> Iterator[bytes]:
        """The file in pieces. Raises OSError, at a piece."""
        with self.path.open("rb") as opened:
            yield from iter(lambda: opened.read(PIECE), b"")

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """The file, or a part of it, in one piece. Raises OSError."""
        with self.path.open("rb") as opened:
            opened.seek(start)
            return opened.read(-1 if length is None else length)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a retrieval has come; at its end also what failed, and what the node said of it."""

    counts: SubOperations
    failed: tuple[str, ...] = ()
    """SOP Instance UIDs, as far as the node lists them."""
    answer: str = ""
    """The final status in words, unless it is success."""


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


def echo(node: Node) -> None:
    """Verify that the node answers (C-ECHO). Raises Unavailable."""
    with associated(node, [Proposal(contexts.VERIFICATION, UNCOMPRESSED)]) as association:
        number = association.next_message_id()
        context = context_of(association, contexts.VERIFICATION)
        association.send(
            context.context_id,
            dimse.request(CommandField.C_ECHO_RQ, number, contexts.VERIFICATION),
        )
        answer = association.next_response(number).command
        if answer.status != status.SUCCESS:
            raise Unavailable(f"the node answered {answer.status:04X}")


def send(node: Node, wanted: Sequence[File]) -> Iterator[Sent]:
    """Send the files by C-STORE, in as few associations as their contexts allow.

    Raises Unavailable when the node cannot be reached or rejects us.
    """
    for batch, proposals in _batches(wanted):
        answered = 0
        try:
            with associated(node, proposals) as association:
                for file in batch:
                    sent = _store(association, file)
                    answered += 1
                    yield sent
        except _Lost as error:
            if not answered:
                raise
            yield from (Sent(file, False, str(error)) for file in batch[answered:])


def find(node: Node, level: Level, keys: Sequence[tuple[str, str]]) -> Iterator[Dataset]:
    """The matches of a C-FIND at `level`, with `keys` as (keyword, value or "").

    Raises Invalid for a keyword that is none and for a refused question, Unavailable.
    """
    asked = _identifier(level, (*((one, "") for one in RETURN_KEYS[level]), *keys))
    model = contexts.PATIENT_ROOT_FIND if level is Level.PATIENT else contexts.STUDY_ROOT_FIND
    with associated(node, [Proposal(model, UNCOMPRESSED)]) as association:
        for message in _asked(association, model, CommandField.C_FIND_RQ, asked):
            if message.command.status in PENDING:
                if message.data is not None:
                    yield _data_set(message)
            elif message.command.status != status.SUCCESS:
                raise Invalid(words(message.command, QR_FIND_SERVICE_CLASS_STATUS))


def move(
    node: Node, level: Level, keys: Sequence[tuple[str, str]], destination: str
) -> Iterator[Progress]:
    """Have the node send what `keys` name to the AE `destination`: how far that has come.

    The last one is the end. Raises Invalid for what the node refuses, or could not send at all;
    Unavailable.
    """
    model = contexts.PATIENT_ROOT_MOVE if level is Level.PATIENT else contexts.STUDY_ROOT_MOVE
    with associated(node, [Proposal(model, UNCOMPRESSED)]) as association:
        for message in _asked(
            association, model, CommandField.C_MOVE_RQ, _identifier(level, keys), destination
        ):
            yield _progress(message, QR_MOVE_SERVICE_CLASS_STATUS)


def get(
    node: Node, level: Level, keys: Sequence[tuple[str, str]], folder: Path
) -> Iterator[Progress]:
    """Fetch what `keys` name into Part 10 files below `folder`, named for their instances.

    As `move`; what has arrived stays, whatever comes after it.
    """
    model = contexts.PATIENT_ROOT_GET if level is Level.PATIENT else contexts.STUDY_ROOT_GET
    wanted = _identifier(level, keys)
    classes = _classes(node, keys)
    proposals = [Proposal(model, UNCOMPRESSED), *(Proposal(one, UNCOMPRESSED) for one in classes)]
    roles = [RoleSelection(one, scu=False, scp=True) for one in classes]
    with associated(node, proposals, roles) as association:
        context = context_of(association, model)
        number = association.next_message_id()
        command = dimse.request(CommandField.C_GET_RQ, number, model, data_set_present=True)
        explicit = context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
        association.send(context.context_id, command, _encoded(wanted, explicit=explicit))
        while (message := association.next_message()) is not None:
            if message.command.command_field is CommandField.C_STORE_RQ:
                _keep(association, message, folder)
            else:
                yield _progress(message, QR_GET_SERVICE_CLASS_STATUS)
                if message.command.status not in PENDING:
                    return
        raise Unavailable("the node released the association in the middle of the retrieval")


def _classes(node: Node, keys: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The SOP classes to propose for what comes: what the node says is in the studies, and others.

    There are more storage SOP classes than an association has contexts, so the node is asked first;
    one that does not know SOP Classes in Study is offered those that are met with.
    """
    asked = [(keyword, value) for keyword, value in keys if keyword in _OF_A_STUDY]
    told: dict[str, None] = {}
    with suppress(Invalid, Unavailable):
        for match in find(node, Level.STUDY, [*asked, ("SOPClassesInStudy", "")]):
            found = match.get("SOPClassesInStudy") or []
            told |= dict.fromkeys([found] if isinstance(found, str) else map(str, found))
    others = sorted(contexts.STORAGE - contexts.RETIRED, key=lambda uid: (uid in _RARE, uid))
    return tuple(dict.fromkeys((*told, *others)))[: CONTEXTS - 1]


_OF_A_STUDY = frozenset({"PatientID", "IssuerOfPatientID", "StudyInstanceUID"})

_RARE = frozenset(
    uid
    for uid in contexts.STORAGE
    if uid.removeprefix("1.2.840.10008.5.1.4.").startswith(
        (
            *("1.1.200.", "1.1.201.", "34.", "38.", "39.", "43.", "44.", "45."),  # protocols
            *("1.1.501.", "1.1.601."),  # security screening, eddy currents
            *("1.1.481.1", "1.1.481.2"),  # second-generation radiotherapy
            *("1.1.78.", "1.1.79.", "1.1.80.", "1.1.81.", "1.1.82."),  # measurements of eyes
            *("1.1.9.5", "1.1.9.6", "1.1.9.7", "1.1.9.8", "1.1.90.", "1.1.91."),
        )
    )
)
"""SOP classes that are offered last."""


_HINTS = {
    RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED: "; --calling says who we are, as the node knows "
    "us at this address",
    RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED: "; --called says whom we mean",
}
"""What to look at, where an association was rejected."""


class _Lost(Unavailable):
    """The association ended before all was done."""


def _file(path: Path) -> File | None:
    """By the UIDs of its data set, which is what is sent; the file meta may contradict it."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of a data set that is sent as it is
            kept = dcmread(path, stop_before_pixels=True, specific_tags=list(_UIDS))
            meta = kept.file_meta
        sop_class, instance = (
            str(kept.get(own) or meta[stated].value) for own, stated in _UIDS.items()
        )
        return File(
            path,
            sop_class,
            instance,
            str(meta.TransferSyntaxUID),
            path.stat().st_size,
        )
    except (InvalidDicomError, OSError, AttributeError, KeyError, ValueError, EOFError):
        return None


_UIDS = {
    "SOPClassUID": "MediaStorageSOPClassUID",
    "SOPInstanceUID": "MediaStorageSOPInstanceUID",
}
"""What names an instance, and what of the file meta names it where its data set does not."""


def _batches(wanted: Sequence[File]) -> Iterator[tuple[list[File], list[Proposal]]]:
    """What fits into the contexts of one association each, and those contexts."""
    batch: list[File] = []
    proposals: dict[Proposal, None] = {}
    for one in wanted:
        needed = dict.fromkeys(
            (
                Proposal(one.sop_class, (one.transfer_syntax_uid,)),
                Proposal(one.sop_class, UNCOMPRESSED),  # the default one among them (PS3.5 10.1)
            )
        )
        if len(proposals | needed) > CONTEXTS:
            yield batch, list(proposals)
            batch, proposals = [], {}
        batch.append(one)
        proposals |= needed
    if batch:
        yield batch, list(proposals)


@contextmanager
def associated(
    node: Node,
    proposals: Sequence[Proposal],
    roles: Sequence[RoleSelection] = (),
    conduct: Conduct | None = None,
) -> Iterator[Requested]:
    """An association with the node, for the block. Raises Invalid, Unavailable in words."""
    address = Address(
        host=node.host, port=node.port, called=node.called, calling=node.calling, tls=node.tls
    )
    # A node that does not like our way of speaking TLS, or not speaking it, often just leaves.
    hint = "; it may not accept our certificate" if node.tls else "; it may want TLS"
    try:
        with requestor.connect(address, proposals, roles=roles, conduct=conduct) as association:
            hint = ""
            yield association
    except ValueError as error:
        raise Invalid(str(error)) from error
    except AssociationRejected as error:
        raise Unavailable(str(error) + _HINTS.get(error.told.reason, "")) from error
    except AssociationEnded as error:
        raise _Lost(f"the association was lost: {error}{hint}") from error
    except UpperLayerError as error:
        raise Unavailable(str(error)) from error


def context_of(association: Requested, abstract_syntax: str) -> Context:
    """The accepted context of an abstract syntax. Raises Unavailable when there is none."""
    context = association.context_for(abstract_syntax)
    if context is None:
        raise Unavailable(f"the node does not offer {UID(abstract_syntax).name}")
    return context


def _identifier(level: Level, keys: Iterable[tuple[str, str]]) -> Dataset:
    asked = Dataset()
    asked.SpecificCharacterSet = "ISO_IR 192"
    asked.QueryRetrieveLevel = level.name
    for keyword, value in keys:
        if tag_for_keyword(keyword) is None:
            raise Invalid(f"{keyword} is not a keyword of PS3.6")
        try:
            with warnings.catch_warnings(action="ignore"):  # what it means is the node's to judge
                setattr(asked, keyword, value)
        except (ValueError, TypeError) as error:
            raise Invalid(f"this is not a value of {keyword}") from error
    return asked


def _encoded(asked: Dataset, *, explicit: bool) -> bytes:
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = True, not explicit
    with warnings.catch_warnings(action="ignore"):
        write_dataset(written, asked)
    return bytes(written.getvalue())


def _asked(
    association: Requested,
    model: str,
    field: CommandField,
    asked: Dataset,
    destination: str = "",
) -> Iterator[Message]:
    """The responses to one question, up to the final one."""
    context = context_of(association, model)
    number = association.next_message_id()
    command = dimse.request(
        field, number, model, data_set_present=True, move_destination=destination
    )
    explicit = context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    association.send(context.context_id, command, _encoded(asked, explicit=explicit))
    while True:
        message = association.next_response(number)
        final = message.command.status not in PENDING
        yield message
        if final:
            return


def _data_set(message: Message) -> Dataset:
    raw = message.data.read(IDENTIFIER_LENGTH) if message.data is not None else b""
    implicit = message.context.transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    return read_dataset(io.BytesIO(raw), is_implicit_VR=implicit, is_little_endian=True)


def _progress(message: Message, table: dict[int, tuple[str, str]]) -> Progress:
    """Raises Invalid where nothing was or will be done."""
    answer = message.command
    counts = answer.sub_operations
    if answer.status in PENDING | {status.SUCCESS}:
        return Progress(counts)
    if answer.status != status.SUB_OPERATIONS_FAILED and not (counts.completed or counts.warning):
        raise Invalid(words(answer, table))
    failed = _data_set(message).get("FailedSOPInstanceUIDList") or []
    listed = (failed,) if isinstance(failed, str) else tuple(map(str, failed))
    return Progress(counts, listed, words(answer, table))


def _store(association: Requested, file: File) -> Sent:
    accepted = {
        context.transfer_syntax: context.context_id
        for context in association.contexts.values()
        if context.abstract_syntax == file.sop_class
    }
    try:
        syntax = transcoding.choose(file.transfer_syntax_uid, list(accepted))
        pieces = transcoding.data_set_of(file, syntax)
        first = next(pieces, b"")
    except CannotTranscode as error:
        own = f"{UID(file.sop_class).name} in {UID(file.transfer_syntax_uid).name}"
        return Sent(file, False, f"{own} is not accepted" if accepted == {} else f"{own}: {error}")
    except (OSError, DataSetError) as error:
        return Sent(file, False, f"cannot be read: {getattr(error, 'strerror', '') or error}")
    number = association.next_message_id()
    command = dimse.request(
        CommandField.C_STORE_RQ,
        number,
        file.sop_class,
        file.instance,
        data_set_present=True,
    )
    try:
        association.send(accepted[syntax], command, chain((first,), pieces))
    except (OSError, DataSetError) as error:  # half-way: the association has ended with it
        raise _Lost(f"{file.path} cannot be read to its end") from error
    answer = association.next_response(number).command
    stored = answer.status == status.SUCCESS or status.warns(answer.status)
    return Sent(file, stored, words(answer, STORAGE_SERVICE_CLASS_STATUS))


def _keep(association: Requested, message: Message, folder: Path) -> None:
    """Write an instance that a C-GET brings into a file: whole, or not under its name. Raises
    Unavailable where that cannot be done: what comes after it would fare no better."""
    command = message.command
    name = command.sop_instance
    if message.data is None or not name or set(name) - set("0123456789."):
        code = status.CANNOT_UNDERSTAND
    else:
        aside = folder / f".{name}.part"
        meta = part10.file_meta(command.sop_class, name, message.context.transfer_syntax)
        try:
            with aside.open("wb") as file:
                file.write(meta)
                for piece in message.data.pieces():
                    file.write(piece)
            aside.replace(folder / f"{name}.dcm")
            code = status.SUCCESS
        except OSError as error:
            association.send(
                message.context.context_id,
                dimse.response(command, status.DIMSE[Unavailable].store),
            )
            raise Unavailable(f"{folder} cannot be written into: {error.strerror}") from error
    association.send(message.context.context_id, dimse.response(command, code))


def words(answer: Command, table: dict[int, tuple[str, str]]) -> str:
    """The status of a response, what it means, and what the other node said of it."""
    category, description = table.get(answer.status, ("Failure", ""))
    parts = (f"{answer.status:04X} {category}", description, answer.error_comment)
    return ": ".join(part for part in parts if part)

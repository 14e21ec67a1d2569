"""Every file of pydicom's and pynetdicom's wheels comes back as it was sent, or is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import corpus
import pytest
from caller import CT, EXPLICIT, IMPLICIT, INSTANCE, SUCCESS, calling, identifier
from corpus import File
from images import data_set
from pydicom import dcmread
from roles import Role, small_exchange
from running import DICOM_AS_STORED, RunningExchange, parts
from sqlalchemy import select

from exchange_dicom import dimse, requestor
from exchange_dicom.contexts import STORAGE, STUDY_ROOT_GET
from exchange_dicom.dimse import CommandField
from exchange_dicom.header import DataSetError
from exchange_dicom.part10 import read_file_meta
from exchange_dicom.pdu import RoleSelection
from exchange_dicom.requestor import Address, Proposal
from exchange_storage.records import Conflict, Instance

CANNOT_UNDERSTAND = 0xC000
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
DAMAGED = {
    "MR_truncated.dcm",  # within its pixels
    "rtplan_truncated.dcm",  # within a sequence
    "no_meta.dcm",  # begins with a byte too many
    "SC_rgb_jpeg.dcm",  # Implicit VR under a transfer syntax of Explicit VR
}
REWRITTEN = {IMPLICIT, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"}
"""What DICOMweb may not answer (PS3.18 8.7.3), or is not asked for: it becomes Explicit VR."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A file of the corpus as an instance: its data set, and what it says that it is."""

    file: File
    body: bytes
    transfer_syntax: str
    uids: tuple[str, ...]
    """Those of `UIDS`; "" for what it leaves out."""


def read(file: File) -> Sent:
    content = file.content()
    reader = io.BytesIO(content)
    try:
        syntax = read_file_meta(reader).transfer_syntax_uid
    except DataSetError:
        reader.seek(0)
        syntax = IMPLICIT
    body = reader.read()
    told = dcmread(io.BytesIO(content), force=True, stop_before_pixels=True)
    return Sent(file, body, syntax, tuple(str(told.get(keyword, "")) for keyword in UIDS))


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    """The DICOM node and the web door of an empty exchange."""
    made = small_exchange(tmp_path_factory.mktemp("corpus"), {})
    roles = [Role(made, "node"), Role(made, "web")]
    try:
        for role in roles:
            role.start()
        yield made
    finally:
        for role in roles:
            role.stop()


@pytest.mark.filterwarnings("ignore")
def test_every_file_that_others_test_with_comes_back_or_is_refused_for_its_reason(
    exchange: RunningExchange,
) -> None:
    kept: list[Sent] = []
    refused: dict[str, str] = {}
    for sent in map(read, corpus.files()):
        sop_class, instance = sent.uids[0] or CT, sent.uids[1] or INSTANCE
        with calling(exchange.dimse_port, (sop_class, (sent.transfer_syntax,))) as pacs:
            if sop_class not in pacs.contexts:
                assert sop_class not in STORAGE, sent.file.name
                refused[sent.file.name] = "not a storage SOP class"
                continue
            answer = pacs.store(sent.body, instance, sop_class)
        if answer.status == SUCCESS:
            kept.append(sent)
            continue
        assert answer.status == CANNOT_UNDERSTAND, sent.file.name
        assert sent.file.path.name in DAMAGED or not all(sent.uids), answer.error_comment
        refused[sent.file.name] = answer.error_comment

    assert len({sent.transfer_syntax for sent in kept}) > 10
    assert {sent.file.name.partition("/")[0] for sent in kept} == {"pydicom", "pynetdicom"}
    assert len(kept) > 3 * len(refused), refused

    # Some files share a SOP Instance UID: the first is served, the others wait for review.
    first = {sent.uids[1]: sent for sent in reversed(kept)}
    for sent in first.values():
        assert fetched(exchange, sent) == [sent.body], sent.file.name
        if sent.transfer_syntax not in REWRITTEN:
            assert retrieved(exchange, sent) == [sent.body], sent.file.name
    waiting = {sent.body for sent in kept} - {sent.body for sent in first.values()}
    assert in_conflict(exchange) == waiting
    exchange.run("check")


def in_conflict(exchange: RunningExchange) -> set[bytes]:
    """The data sets that wait for review."""
    with exchange.opened() as opened, opened.database.reading() as session:
        keys = session.scalars(select(Instance.key).join(Conflict)).all()
        return {data_set(b"".join(opened.objects.stream(key))) for key in keys}


def fetched(exchange: RunningExchange, sent: Sent) -> list[bytes]:
    """The data sets that a C-GET of the instance brings, in the transfer syntax of the file."""
    sop_class, instance, study, series = sent.uids
    asked = identifier(
        (0x0020000D, "UI", study),
        (0x0020000E, "UI", series),
        (0x00080018, "UI", instance),
        level="IMAGE",
    )
    address = Address(
        host="127.0.0.1", port=exchange.dimse_port, called="EXCHANGE", calling="BEICHENG"
    )
    proposals = [
        Proposal(STUDY_ROOT_GET, (EXPLICIT,)),
        Proposal(sop_class, (sent.transfer_syntax,)),
    ]
    role = RoleSelection(sop_class, scu=False, scp=True)
    came: list[bytes] = []
    with requestor.connect(address, proposals, roles=[role]) as association:
        context = association.context_for(STUDY_ROOT_GET)
        assert context is not None
        command = dimse.request(CommandField.C_GET_RQ, 1, STUDY_ROOT_GET, data_set_present=True)
        association.send(context.context_id, command, asked)
        while (message := association.next_message()) is not None:
            if message.command.command_field is not CommandField.C_STORE_RQ:
                if message.command.status == SUCCESS:
                    break
                continue
            assert message.data is not None
            came.append(message.data.read(16 << 20))
            association.send(message.context.context_id, dimse.stored(message.command))
    return came


def retrieved(exchange: RunningExchange, sent: Sent) -> list[bytes]:
    """The data sets that WADO-RS answers for the instance."""
    _, instance, study, series = sent.uids
    path = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}"
    with exchange.web("dr.beicheng") as client:
        answer = client.get(path, headers={"Accept": DICOM_AS_STORED})
    assert answer.status_code == 200, (sent.file.name, answer.text)
    return [data_set(one) for one in parts(answer.content, answer.headers["content-type"])]

"""What two hospitals say to each other before and after the images: PS3.8 section 9.3."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ

from exchange_dicom.pdu import (
    CONTEXTS,
    PDU_HEADER,
    Abort,
    AnsweredContext,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    MalformedPDU,
    PDUType,
    ProposedContext,
    RejectReason,
    RoleSelection,
    UserIdentity,
    UserIdentityType,
    UserInformation,
    p_data_header,
)

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

uids = st.lists(st.integers(1, 10**8), min_size=2, max_size=6).map(
    lambda numbers: ".".join(map(str, numbers))
)
titles = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789", min_size=1, max_size=16)
odd_ids = st.integers(0, CONTEXTS - 1).map(lambda n: 2 * n + 1)
identities = st.builds(
    UserIdentity, st.integers(1, 5), st.booleans(), st.binary(max_size=80), st.binary(max_size=9)
)
users = st.builds(
    UserInformation,
    maximum_length=st.one_of(st.just(0), st.integers(16, 2**32 - 1)),
    implementation_class_uid=uids,
    implementation_version=titles,
    asynchronous=st.none() | st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    roles=st.lists(st.builds(RoleSelection, uids, st.booleans(), st.booleans())).map(tuple),
    extended=st.dictionaries(uids, st.binary(max_size=12), max_size=4),
    identity=st.none() | identities,
    identity_response=st.none() | st.binary(max_size=40),
)
requests = st.builds(
    AssociateRequest,
    called_ae=titles,
    calling_ae=titles,
    contexts=st.lists(
        st.builds(ProposedContext, odd_ids, uids, st.lists(uids, max_size=5).map(tuple)),
        min_size=1,
        unique_by=lambda context: context.context_id,
    ).map(tuple),
    user=users,
)
accepts = st.builds(
    AssociateAccept,
    echoed=st.binary(min_size=64, max_size=64),
    contexts=st.lists(
        st.builds(AnsweredContext, odd_ids, st.sampled_from(ContextResult), uids)
    ).map(tuple),
    user=users,
)

CONTEXT = ProposedContext(1, VERIFICATION, (IMPLICIT,))
REQUEST = AssociateRequest(
    called_ae="EXCHANGE",
    calling_ae="HOSPITAL_A",
    contexts=(CONTEXT, ProposedContext(3, CT, (EXPLICIT, IMPLICIT))),
    user=UserInformation(
        maximum_length=65536,
        implementation_class_uid="1.2.3",
        implementation_version="PACS_9",
        asynchronous=(1, 1),
        roles=(RoleSelection(CT, scu=False, scp=True),),
        extended={STUDY_FIND: b"\1\0\1"},
        identity=UserIdentity(UserIdentityType.USERNAME_AND_PASSCODE, True, b"wang", b"geheim"),
    ),
)


def body(pdu: bytes) -> bytes:
    """The variable field, having checked the header before it."""
    _, length = PDU_HEADER.unpack_from(pdu)
    assert length == len(pdu) - PDU_HEADER.size
    return pdu[PDU_HEADER.size :]


def item(kind: int, value: bytes) -> bytes:
    return bytes((kind, 0)) + len(value).to_bytes(2, "big") + value


def request_with(*items: bytes) -> bytes:
    """The variable field of a request with these items after its fixed fields."""
    return body(REQUEST.encode())[:68] + b"".join(items)


PROPOSED = item(0x20, b"\1\0\0\0" + item(0x30, VERIFICATION.encode()))


@given(requests)
def test_a_request_is_read_as_it_was_written(request: AssociateRequest) -> None:
    assert AssociateRequest.decode(body(request.encode())) == request


@given(accepts)
def test_an_acceptance_is_read_as_it_was_written(accept: AssociateAccept) -> None:
    assert AssociateAccept.decode(body(accept.encode())) == accept


@pytest.mark.parametrize("transient", [False, True])
@pytest.mark.parametrize("reason", RejectReason)
def test_every_rejection_reads_the_same_at_a_foreign_peer(
    reason: RejectReason, transient: bool
) -> None:
    reject = AssociateReject(reason, transient)
    assert AssociateReject.decode(body(reject.encode())) == reject
    foreign = A_ASSOCIATE_RJ()
    foreign.decode(reject.encode())
    assert (foreign.source, foreign.reason_diagnostic) == reason.value
    assert foreign.result == (2 if transient else 1)


@given(st.integers(0, 255), st.integers(0, 255))
def test_an_abort_keeps_even_reserved_values(source: int, reason: int) -> None:
    assert Abort.decode(body(Abort(source, reason).encode())) == Abort(source, reason)


@given(requests)
def test_a_foreign_peer_reads_our_request(request: AssociateRequest) -> None:
    foreign = A_ASSOCIATE_RQ()
    foreign.decode(request.encode())
    assert foreign.called_ae_title == request.called_ae
    assert foreign.calling_ae_title == request.calling_ae
    assert [c.context_id for c in foreign.presentation_context] == [
        context.context_id for context in request.contexts
    ]


def test_a_foreign_peer_reads_our_acceptance() -> None:
    answers = (
        AnsweredContext(1, ContextResult.ACCEPTANCE, IMPLICIT),
        AnsweredContext(3, ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, EXPLICIT),
    )
    echoed = body(REQUEST.encode())[4:68]
    foreign = A_ASSOCIATE_AC()
    foreign.decode(AssociateAccept(echoed=echoed, contexts=answers, user=REQUEST.user).encode())
    assert [(c.context_id, c.result) for c in foreign.presentation_context] == [(1, 0), (3, 4)]


@given(requests, st.data())
def test_a_request_damaged_on_the_way_is_malformed_or_still_a_request(
    request: AssociateRequest, data: st.DataObject
) -> None:
    damaged = bytearray(body(request.encode()))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for broken in (bytes(damaged), bytes(damaged[:cut])):
        with contextlib.suppress(MalformedPDU):
            AssociateRequest.decode(broken)
        with contextlib.suppress(MalformedPDU):
            AssociateAccept.decode(broken)


@given(st.binary(max_size=300))
def test_noise_is_malformed_or_a_pdu(noise: bytes) -> None:
    for kind in (AssociateRequest, AssociateAccept, AssociateReject, Abort):
        with contextlib.suppress(MalformedPDU):
            kind.decode(noise)


MALFORMED = {
    "an even context id": request_with(item(0x20, b"\2\0\0\0" + item(0x30, b"1.2"))),
    "a context id used twice": request_with(PROPOSED, PROPOSED),
    "no context": request_with(item(0x50, b"")),
    "a context without abstract syntax": request_with(item(0x20, b"\1\0\0\0")),
    "a context of three bytes": request_with(item(0x20, b"\1\0\0")),
    "an item longer than the PDU": request_with(PROPOSED)[:-1],
    "a sub-item longer than its item": request_with(item(0x20, b"\1\0\0\0\x30\0\0\x09123")),
    "an item header cut short": request_with(PROPOSED, b"\x50\0\0"),
    "a maximum length of three bytes": request_with(PROPOSED, item(0x50, item(0x51, b"\0\1\0"))),
    "a maximum length for no data": request_with(PROPOSED, item(0x50, item(0x51, b"\0\0\0\7"))),
    "a role without roles": request_with(PROPOSED, item(0x50, item(0x54, b"\0\0031.2"))),
    "a role with a long UID": request_with(PROPOSED, item(0x50, item(0x54, b"\0\x091.2\0\1"))),
    "a password longer than its item": request_with(
        PROPOSED, item(0x50, item(0x58, b"\2\0\0\1a\0\x09b"))
    ),
    "a UID that is not ASCII": request_with(item(0x20, b"\1\0\0\0" + item(0x30, "１.２".encode()))),
    "a UID of 65 characters": request_with(item(0x20, b"\1\0\0\0" + item(0x30, b"1" * 65))),
    "an AE title in GBK": body(REQUEST.encode()).replace(b"HOSPITAL_A", "医院影像科".encode("gbk")),
    "an AE title with a line break": body(REQUEST.encode()).replace(b"HOSPITAL_A", b"HOSPITAL\nA"),
    "fixed fields cut short": body(REQUEST.encode())[:67],
    "nothing": b"",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_a_request_is_called_malformed(what: str) -> None:
    with pytest.raises(MalformedPDU):
        AssociateRequest.decode(MALFORMED[what])


def test_items_nobody_told_us_of_are_skipped() -> None:
    unknown = item(0x5A, b"tomorrow")
    common_extended = item(0x57, b"\0\3" + b"1.2" + b"\0\3" + b"1.3" + b"\0\0")
    user = item(0x50, unknown + common_extended + item(0x55, b"PACS_9"))
    decoded = AssociateRequest.decode(request_with(unknown, PROPOSED, user))
    assert decoded.user.implementation_version == "PACS_9"


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"A_LONG_VERSION_NAME_1.2", "A_LONG_VERSION_N"),
        ("影像\0\1 2.0".encode(), "???????? 2.0"),
    ],
)
def test_how_a_peer_calls_its_version_costs_it_no_association(sent: bytes, read: str) -> None:
    user = item(0x50, item(0x52, b"1." * 40) + item(0x55, sent))
    told = AssociateRequest.decode(request_with(PROPOSED, user)).user
    assert told.implementation_version == read
    assert len(told.implementation_class_uid) == 64


def test_a_rejection_for_a_reserved_reason_is_still_for_now_or_for_good() -> None:
    for result, transient in ((1, False), (2, True)):
        told = AssociateReject.decode(bytes((0, result, 3, 0)))
        assert told == AssociateReject(RejectReason.NO_REASON_GIVEN, transient=transient)
    assert AssociateReject.decode(bytes((0, 2, 3, 2))).reason is RejectReason.LOCAL_LIMIT_EXCEEDED


def test_padding_belongs_to_nobody() -> None:
    padded = item(0x20, b"\1\0\0\0" + item(0x30, VERIFICATION.encode() + b"\0"))
    fixed = body(replace(REQUEST, calling_ae=" PACS").encode())[:68]
    decoded = AssociateRequest.decode(fixed + padded)
    assert (decoded.called_ae, decoded.calling_ae) == ("EXCHANGE", "PACS")
    assert decoded.contexts[0].abstract_syntax == VERIFICATION


def test_a_peer_that_names_no_maximum_length_gets_modest_pdus() -> None:
    assert AssociateRequest.decode(request_with(PROPOSED)).user.maximum_length == 16384


def test_a_username_without_room_for_a_passcode_is_still_a_username() -> None:
    decoded = UserInformation.decode(item(0x58, b"\1\0\0\4wang"))
    assert decoded.identity == UserIdentity(UserIdentityType.USERNAME, False, b"wang")


def test_credentials_never_reach_a_log() -> None:
    shown = repr(AssociateRequest.decode(body(REQUEST.encode())))
    assert "geheim" not in shown
    assert "wang" not in shown


def test_a_fragment_has_twelve_bytes_before_it() -> None:
    header = p_data_header(5, 3, 100)
    assert header == b"\x04\0\0\0\0\x6a\0\0\0\x66\x05\x03"
    assert PDU_HEADER.unpack_from(header) == (PDUType.P_DATA_TF, 106)

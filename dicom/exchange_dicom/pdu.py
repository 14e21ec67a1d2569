"""Protocol data units of the DICOM upper layer, as PS3.8 section 9.3 and PS3.7 annex D.3 draw them.

Values are frozen; `encode` gives the whole PDU, `decode` takes its variable field (what follows the
six bytes of `PDU_HEADER`). Every length is checked against what contains it; what does not fit is a
`MalformedPDU`. Items that nobody has told us of are skipped, as section 9.3.1 asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from struct import Struct
from typing import Self

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""The DICOM application context name (PS3.7 annex A.2.1)."""

PROTOCOL_VERSION = 0x0001
"""Version 1 is bit 0; a receiver tests this bit only (PS3.8 Table 9-11)."""

ASSOCIATE_LENGTH = 256 * 1024
"""Bytes of the longest A-ASSOCIATE variable field taken: 128 contexts of 60 transfer syntaxes."""

CONTEXTS = 128
"""Presentation contexts one association can have: the odd ids from 1 to 255."""

SMALLEST_MAXIMUM_LENGTH = 16
"""Bytes: below this a P-DATA-TF would carry next to nothing but its own headers."""

ABSENT_MAXIMUM_LENGTH = 16384
"""Bytes we send at most to a peer that names no maximum length, although D.1 has it do so."""

COMMAND = 0x01
"""Message control header, bit 0: the fragment belongs to a command set (PS3.8 annex E.2)."""

LAST = 0x02
"""Message control header, bit 1: the fragment is the last of its command set or data set."""

PDU_HEADER = Struct(">BxL")
PDV_HEADER = Struct(">LBB")
P_DATA_HEADER = Struct(">BxLLBB")
"""Both: of a P-DATA-TF, and of the first presentation data value in it."""
PDV_OVERHEAD = PDV_HEADER.size
"""Bytes that one presentation data value adds to its fragment, counted in the maximum length."""

_ITEM = Struct(">BxH")
_ASSOCIATE = Struct(">H2x16s16s32s")
_ULONG = Struct(">L")
_USHORT = Struct(">H")
_TWO_USHORTS = Struct(">HH")


class UpperLayerError(Exception):
    """The root of what can go wrong between two upper layers."""


class MalformedPDU(UpperLayerError):
    """Bytes that are not the PDU they claim to be; says what does not fit, never the value."""


class PDUType(IntEnum):
    """PS3.8 section 9.3.1."""

    A_ASSOCIATE_RQ = 0x01
    A_ASSOCIATE_AC = 0x02
    A_ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    A_RELEASE_RQ = 0x05
    A_RELEASE_RP = 0x06
    A_ABORT = 0x07


class ItemType(IntEnum):
    """Items and sub-items of the A-ASSOCIATE PDUs: PS3.8 9.3.2 and 9.3.3, PS3.7 D.3.3."""

    APPLICATION_CONTEXT = 0x10
    PRESENTATION_CONTEXT_RQ = 0x20
    PRESENTATION_CONTEXT_AC = 0x21
    ABSTRACT_SYNTAX = 0x30
    TRANSFER_SYNTAX = 0x40
    USER_INFORMATION = 0x50
    MAXIMUM_LENGTH = 0x51
    IMPLEMENTATION_CLASS_UID = 0x52
    ASYNCHRONOUS_OPERATIONS_WINDOW = 0x53
    ROLE_SELECTION = 0x54
    IMPLEMENTATION_VERSION_NAME = 0x55
    SOP_CLASS_EXTENDED = 0x56
    SOP_CLASS_COMMON_EXTENDED = 0x57
    USER_IDENTITY_RQ = 0x58
    USER_IDENTITY_AC = 0x59


class ContextResult(IntEnum):
    """The answer to one proposed presentation context (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


class RejectReason(Enum):
    """Why an association is rejected: source and reason/diag. (PS3.8 Table 9-21)."""

    NO_REASON_GIVEN = (1, 1)
    APPLICATION_CONTEXT_NAME_NOT_SUPPORTED = (1, 2)
    CALLING_AE_TITLE_NOT_RECOGNIZED = (1, 3)
    CALLED_AE_TITLE_NOT_RECOGNIZED = (1, 7)
    ACSE_NO_REASON_GIVEN = (2, 1)
    PROTOCOL_VERSION_NOT_SUPPORTED = (2, 2)
    TEMPORARY_CONGESTION = (3, 1)
    LOCAL_LIMIT_EXCEEDED = (3, 2)


class AbortSource(IntEnum):
    """PS3.8 Table 9-26."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """Reasons a service provider gives (PS3.8 Table 9-26); a service user always sends 0."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PDU_PARAMETER = 4
    UNEXPECTED_PDU_PARAMETER = 5
    INVALID_PDU_PARAMETER_VALUE = 6


class UserIdentityType(IntEnum):
    """PS3.7 Table D.3-14."""

    USERNAME = 1
    USERNAME_AND_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """One presentation context as the requestor proposes it (PS3.8 9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnsweredContext:
    """The acceptor's answer to one context (9.3.3.2); its syntax counts only when accepted."""

    context_id: int
    result: ContextResult
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """Roles proposed or granted to the requestor for one SOP class (PS3.7 D.3.3.4)."""

    sop_class: str
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """Who the requestor says it acts for (PS3.7 D.3.3.7). The fields are secrets: never shown.

    `kind` is a `UserIdentityType`, or a number that the standard has not given out yet.
    """

    kind: int
    response_requested: bool
    primary: bytes = field(repr=False)
    secondary: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInformation:
    """The user information item of an A-ASSOCIATE-RQ or -AC (PS3.8 annex D.1, PS3.7 D.3.3).

    `maximum_length` is the longest P-DATA-TF variable field, in bytes, that its sender wants to
    receive; 0 is no limit. `asynchronous` is (operations invoked, performed), None if absent.
    `extended` is the service-class application information by SOP class UID. Common extended
    negotiation is parsed over.
    """

    maximum_length: int = ABSENT_MAXIMUM_LENGTH
    implementation_class_uid: str = ""
    implementation_version: str = ""
    asynchronous: tuple[int, int] | None = None
    roles: tuple[RoleSelection, ...] = ()
    extended: Mapping[str, bytes] = field(default_factory=dict)
    identity: UserIdentity | None = None
    identity_response: bytes | None = None

    def encode(self) -> bytes:
        """The item, in ascending order of its sub-items' types."""
        parts = [
            _item(ItemType.MAXIMUM_LENGTH, _ULONG.pack(self.maximum_length)),
            _item(ItemType.IMPLEMENTATION_CLASS_UID, self.implementation_class_uid.encode()),
        ]
        if self.asynchronous is not None:
            window = _TWO_USHORTS.pack(*self.asynchronous)
            parts.append(_item(ItemType.ASYNCHRONOUS_OPERATIONS_WINDOW, window))
        parts += [
            _item(ItemType.ROLE_SELECTION, _counted(r.sop_class.encode()) + bytes((r.scu, r.scp)))
            for r in self.roles
        ]
        if self.implementation_version:
            version = self.implementation_version.encode()
            parts.append(_item(ItemType.IMPLEMENTATION_VERSION_NAME, version))
        parts += [
            _item(ItemType.SOP_CLASS_EXTENDED, _counted(uid.encode()) + information)
            for uid, information in self.extended.items()
        ]
        if (who := self.identity) is not None:
            value = bytes((who.kind, who.response_requested))
            value += _counted(who.primary) + _counted(who.secondary)
            parts.append(_item(ItemType.USER_IDENTITY_RQ, value))
        if self.identity_response is not None:
            parts.append(_item(ItemType.USER_IDENTITY_AC, _counted(self.identity_response)))
        return _item(ItemType.USER_INFORMATION, b"".join(parts))

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Read the item's value. Raises MalformedPDU."""
        maximum_length = ABSENT_MAXIMUM_LENGTH
        class_uid = version = ""
        asynchronous: tuple[int, int] | None = None
        roles: list[RoleSelection] = []
        extended: dict[str, bytes] = {}
        identity: UserIdentity | None = None
        identity_response: bytes | None = None
        for kind, part in _items(value):
            match kind:
                case ItemType.MAXIMUM_LENGTH:
                    (maximum_length,) = _fixed(_ULONG, part, "maximum length")
                    if 0 < maximum_length < SMALLEST_MAXIMUM_LENGTH:
                        raise MalformedPDU("a maximum length too small for any data")
                case ItemType.IMPLEMENTATION_CLASS_UID:
                    class_uid = _remark(part, 64)
                case ItemType.IMPLEMENTATION_VERSION_NAME:
                    version = _remark(part, 16)
                case ItemType.ASYNCHRONOUS_OPERATIONS_WINDOW:
                    invoked, performed = _fixed(_TWO_USHORTS, part, "operations window")
                    asynchronous = (invoked, performed)
                case ItemType.ROLE_SELECTION:
                    uid, rest = _uncounted(part)
                    if len(rest) != 2:
                        raise MalformedPDU("a role selection that does not end with two roles")
                    roles.append(RoleSelection(_uid(uid), rest[0] == 1, rest[1] == 1))
                case ItemType.SOP_CLASS_EXTENDED:
                    uid, rest = _uncounted(part)
                    extended[_uid(uid)] = rest
                case ItemType.USER_IDENTITY_RQ:
                    if len(part) < 2:
                        raise MalformedPDU("a user identity cut short")
                    primary, rest = _uncounted(part[2:])
                    secondary = _uncounted(rest)[0] if rest else b""
                    identity = UserIdentity(part[0], part[1] == 1, primary, secondary)
                case ItemType.USER_IDENTITY_AC:
                    identity_response, _ = _uncounted(part)
        return cls(
            maximum_length=maximum_length,
            implementation_class_uid=class_uid,
            implementation_version=version,
            asynchronous=asynchronous,
            roles=tuple(roles),
            extended=extended,
            identity=identity,
            identity_response=identity_response,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRequest:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2). AE titles are without their padding.

    `echoed` holds the 64 bytes that an A-ASSOCIATE-AC returns as it received them.
    """

    called_ae: str
    calling_ae: str
    contexts: tuple[ProposedContext, ...]
    user: UserInformation
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = PROTOCOL_VERSION
    echoed: bytes = field(default=b"", repr=False, compare=False)

    def encode(self) -> bytes:
        """The whole PDU."""
        called, calling = (ae.ljust(16).encode() for ae in (self.called_ae, self.calling_ae))
        parts = [_item(ItemType.APPLICATION_CONTEXT, self.application_context.encode())]
        for context in self.contexts:
            value = bytes((context.context_id, 0, 0, 0))
            value += _item(ItemType.ABSTRACT_SYNTAX, context.abstract_syntax.encode())
            for uid in context.transfer_syntaxes:
                value += _item(ItemType.TRANSFER_SYNTAX, uid.encode())
            parts.append(_item(ItemType.PRESENTATION_CONTEXT_RQ, value))
        parts.append(self.user.encode())
        head = _ASSOCIATE.pack(self.protocol_version, called, calling, bytes(32))
        return _pdu(PDUType.A_ASSOCIATE_RQ, head + b"".join(parts))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read the variable field. Raises MalformedPDU.

        Whether the protocol version and the application context will do is for the acceptor to
        say, since a rejection answers for them and not an abort.
        """
        version, called, calling, _ = _fixed_head(body)
        application_context = ""
        contexts: dict[int, ProposedContext] = {}
        user = UserInformation()
        for kind, value in _items(body, _ASSOCIATE.size):
            match kind:
                case ItemType.APPLICATION_CONTEXT:
                    application_context = _uid(value)
                case ItemType.PRESENTATION_CONTEXT_RQ:
                    context = _proposed(value)
                    if context.context_id in contexts:
                        raise MalformedPDU("a presentation context id used twice")
                    contexts[context.context_id] = context
                case ItemType.USER_INFORMATION:
                    user = UserInformation.decode(value)
        if not contexts:
            raise MalformedPDU("no presentation context")
        return cls(
            called_ae=_text(called, 16, "called AE title"),
            calling_ae=_text(calling, 16, "calling AE title"),
            contexts=tuple(contexts.values()),
            user=user,
            application_context=application_context,
            protocol_version=version,
            echoed=body[4 : _ASSOCIATE.size],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateAccept:
    """A-ASSOCIATE-AC (PS3.8 9.3.3). `echoed` is the request's."""

    echoed: bytes = field(repr=False)
    contexts: tuple[AnsweredContext, ...]
    user: UserInformation

    def encode(self) -> bytes:
        """The whole PDU."""
        parts = [
            PROTOCOL_VERSION.to_bytes(2, "big") + bytes(2) + self.echoed,
            _item(ItemType.APPLICATION_CONTEXT, APPLICATION_CONTEXT.encode()),
        ]
        for context in self.contexts:
            value = bytes((context.context_id, 0, context.result, 0))
            value += _item(ItemType.TRANSFER_SYNTAX, context.transfer_syntax.encode())
            parts.append(_item(ItemType.PRESENTATION_CONTEXT_AC, value))
        parts.append(self.user.encode())
        return _pdu(PDUType.A_ASSOCIATE_AC, b"".join(parts))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read the variable field. Raises MalformedPDU."""
        _fixed_head(body)
        contexts: list[AnsweredContext] = []
        user = UserInformation()
        for kind, value in _items(body, _ASSOCIATE.size):
            match kind:
                case ItemType.PRESENTATION_CONTEXT_AC:
                    contexts.append(_answered(value))
                case ItemType.USER_INFORMATION:
                    user = UserInformation.decode(value)
        return cls(echoed=body[4 : _ASSOCIATE.size], contexts=tuple(contexts), user=user)


@dataclass(frozen=True, slots=True)
class AssociateReject:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4). A transient rejection invites the peer to try again later."""

    reason: RejectReason
    transient: bool = False

    def encode(self) -> bytes:
        """The whole PDU."""
        return _pdu(PDUType.A_ASSOCIATE_RJ, bytes((0, 1 + self.transient, *self.reason.value)))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read the variable field. Raises MalformedPDU."""
        if len(body) != 4 or body[1] not in (1, 2):
            raise MalformedPDU("an A-ASSOCIATE-RJ without a result")
        told = (body[2], body[3])
        # Some peers give a reserved reason, and say all the same whether to try again later.
        known = next((one for one in RejectReason if one.value == told), None)
        by_acse = told[0] == RejectReason.ACSE_NO_REASON_GIVEN.value[0]
        none = RejectReason.ACSE_NO_REASON_GIVEN if by_acse else RejectReason.NO_REASON_GIVEN
        return cls(known or none, body[1] == 2)


@dataclass(frozen=True, slots=True)
class Abort:
    """A-ABORT (PS3.8 9.3.8). Reserved values, which peers do send, are kept as numbers."""

    source: int
    reason: int = AbortReason.NOT_SPECIFIED

    def encode(self) -> bytes:
        """The whole PDU."""
        return _pdu(PDUType.A_ABORT, bytes((0, 0, self.source, self.reason)))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read the variable field. Raises MalformedPDU."""
        if len(body) != 4:
            raise MalformedPDU("an A-ABORT that is not four bytes long")
        return cls(body[2], body[3])


RELEASE_RQ = PDU_HEADER.pack(PDUType.A_RELEASE_RQ, 4) + bytes(4)
RELEASE_RP = PDU_HEADER.pack(PDUType.A_RELEASE_RP, 4) + bytes(4)


def p_data_header(context_id: int, control: int, length: int) -> bytes:
    """The twelve bytes before a fragment of `length` bytes sent as a P-DATA-TF of its own (9.3.5).

    `control` is the message control header: `COMMAND` and `LAST`, or neither.
    """
    return P_DATA_HEADER.pack(
        PDUType.P_DATA_TF, length + PDV_OVERHEAD, length + PDV_OVERHEAD - 4, context_id, control
    )


def _pdu(kind: PDUType, body: bytes) -> bytes:
    return PDU_HEADER.pack(kind, len(body)) + body


def _item(kind: ItemType, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _counted(value: bytes) -> bytes:
    return _USHORT.pack(len(value)) + value


def _items(body: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Types and values of the items that fill `body` from `start` to its last byte."""
    end = len(body)
    while start < end:
        if end - start < _ITEM.size:
            raise MalformedPDU("an item header cut short")
        kind, length = _ITEM.unpack_from(body, start)
        start += _ITEM.size
        if length > end - start:
            raise MalformedPDU(f"item {kind:02X}H longer than what contains it")
        yield kind, body[start : start + length]
        start += length


def _fixed_head(body: bytes) -> tuple[int, bytes, bytes, bytes]:
    if len(body) < _ASSOCIATE.size:
        raise MalformedPDU("an A-ASSOCIATE shorter than its fixed fields")
    version, called, calling, reserved = _ASSOCIATE.unpack_from(body)
    return version, called, calling, reserved


def _fixed(form: Struct, value: bytes, what: str) -> tuple[int, ...]:
    if len(value) != form.size:
        raise MalformedPDU(f"the {what} has the wrong length")
    return form.unpack(value)


def _uncounted(value: bytes) -> tuple[bytes, bytes]:
    """The field behind a two-byte count, and what follows it."""
    if len(value) < 2:
        raise MalformedPDU("a field without its length")
    end = 2 + int.from_bytes(value[:2], "big")
    if end > len(value):
        raise MalformedPDU("a field longer than its item")
    return value[2:end], value[end:]


def _text(value: bytes, longest: int, what: str) -> str:
    """Text without the NULs and spaces that pad it; printable ASCII, or it would reach a log."""
    try:
        text = value.decode("ascii").strip("\0 ")
    except UnicodeDecodeError:
        raise MalformedPDU(f"the {what} is not ASCII") from None
    if len(text) > longest or not text.isprintable():
        raise MalformedPDU(f"the {what} is too long or not printable")
    return text


def _remark(value: bytes, longest: int) -> str:
    """Text that only tells who made the peer (PS3.7 D.3.3.2): as much of it as is in order, for no
    association fails because of a longer one."""
    told = value.decode("ascii", "replace").strip("\0 ")
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in told)[:longest]


def _uid(value: bytes) -> str:
    return _text(value, 64, "UID")


def _context_id(value: bytes) -> int:
    if len(value) < 4 or not value[0] & 1:
        raise MalformedPDU("a presentation context without an odd id")
    return value[0]


def _proposed(value: bytes) -> ProposedContext:
    context_id = _context_id(value)
    abstract_syntaxes, transfer_syntaxes = _syntaxes(_items(value, 4))
    if len(abstract_syntaxes) != 1:
        raise MalformedPDU("a presentation context without exactly one abstract syntax")
    return ProposedContext(context_id, abstract_syntaxes[0], transfer_syntaxes)


def _answered(value: bytes) -> AnsweredContext:
    context_id = _context_id(value)
    try:
        result = ContextResult(value[2])
    except ValueError:
        raise MalformedPDU("a context result that Table 9-18 does not have") from None
    _, transfer_syntaxes = _syntaxes(_items(value, 4))
    return AnsweredContext(context_id, result, next(iter(transfer_syntaxes), ""))


def _syntaxes(items: Iterable[tuple[int, bytes]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    abstract: list[str] = []
    transfer: list[str] = []
    for kind, value in items:
        if kind == ItemType.ABSTRACT_SYNTAX:
            abstract.append(_uid(value))
        elif kind == ItemType.TRANSFER_SYNTAX:
            transfer.append(_uid(value))
    return tuple(abstract), tuple(transfer)

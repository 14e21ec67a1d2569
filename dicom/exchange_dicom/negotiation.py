"""What both ends of an association agree on, as PS3.8 section 7.1 and PS3.7 annex D define it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from exchange_dicom.pdu import (
    AnsweredContext,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    ProposedContext,
    RoleSelection,
)
from exchange_dicom.uids import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """How an acceptor behaves: lengths in bytes, times in seconds.

    `artim_timeout` bounds the TLS handshake, the wait for a whole A-ASSOCIATE-RQ, and the wait for
    the peer to close at the end. `network_timeout` bounds the silence between messages and the wait
    for a response. `pdu_timeout` bounds each fragment of a message, first byte to last, so that a
    peer that trickles cannot hold a thread; it also bounds how long a peer may refuse to read.
    `minimum_rate` is in bytes per minute, of a message that has begun: only what is spent waiting
    for the peer counts.
    """

    maximum_length: int = 131072
    artim_timeout: float = 30.0
    network_timeout: float = 120.0
    pdu_timeout: float = 60.0
    minimum_rate: int = 65536
    implementation_class_uid: str = IMPLEMENTATION_CLASS_UID
    implementation_version: str = IMPLEMENTATION_VERSION_NAME


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of the connection: its address (IPv4-mapped ones as IPv4), its port, and over
    TLS the certificate it presented, as DER."""

    address: IPv4Address | IPv6Address
    port: int
    certificate: bytes | None = None

    def __str__(self) -> str:
        bracketed = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{bracketed}:{self.port}"


@dataclass(frozen=True, slots=True)
class TransferSyntaxes:
    """Transfer syntaxes supported for one abstract syntax, in our order of preference.

    With `proposer_chooses` the peer's order counts instead: storage keeps what is sent, so the
    first syntax proposed that is known avoids a conversion at the sender. Of all contexts of the
    abstract syntax one at least takes one of `needed`, where it is proposed.
    """

    uids: tuple[str, ...]
    proposer_chooses: bool = False
    needed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The decision to accept an association: the answers to each proposed context, the roles and
    extended negotiation granted, and the server response if a user identity asked for one."""

    contexts: tuple[AnsweredContext, ...]
    roles: tuple[RoleSelection, ...] = ()
    extended: Mapping[str, bytes] = field(default_factory=dict)
    identity_response: bytes | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """A presentation context in use."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


Decide = Callable[[AssociateRequest, Peer], Accepted | AssociateReject]


def select_contexts(
    proposed: Iterable[ProposedContext], supported: Callable[[str], TransferSyntaxes | None]
) -> tuple[AnsweredContext, ...]:
    """Answer each proposed context (PS3.8 9.3.3.2), given what is supported by abstract syntax."""
    contexts = [(one, supported(one.abstract_syntax)) for one in proposed]
    answers = [_answer(context, known) for context, known in contexts]
    content = {
        context.abstract_syntax
        for (context, known), answer in zip(contexts, answers, strict=True)
        if known is None or not known.needed or answer.transfer_syntax in known.needed
    }
    # The last that can gives way: the others are taken as their proposer prefers.
    for at, (context, known) in reversed(list(enumerate(contexts))):
        if known is None or context.abstract_syntax in content:
            continue
        if (uid := _first(context.transfer_syntaxes, known.needed)) is not None:
            answers[at] = AnsweredContext(context.context_id, ContextResult.ACCEPTANCE, uid)
            content.add(context.abstract_syntax)
    return tuple(answers)


def _answer(context: ProposedContext, supported: TransferSyntaxes | None) -> AnsweredContext:
    proposed = context.transfer_syntaxes
    # A refused context carries a syntax too, which "shall not be tested" (9.3.3.2).
    refused = proposed[0] if proposed else IMPLICIT_VR_LITTLE_ENDIAN
    if supported is None:
        result = ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
        return AnsweredContext(context.context_id, result, refused)
    first, second = proposed, supported.uids
    if not supported.proposer_chooses:
        first, second = second, first
    if (uid := _first(first, second)) is not None:
        return AnsweredContext(context.context_id, ContextResult.ACCEPTANCE, uid)
    result = ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
    return AnsweredContext(context.context_id, result, refused)


def _first(uids: Iterable[str], among: Collection[str]) -> str | None:
    return next((uid for uid in uids if uid in among), None)

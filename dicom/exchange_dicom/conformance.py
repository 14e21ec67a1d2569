"""The DICOM conformance statement, in the form of PS3.2 annex A, printed from the tables.

    python -m exchange_dicom.conformance > dicom/CONFORMANCE.md

A test compares what is printed with what is kept, so that the statement cannot fall behind. What
each application entity does stands in `conformance_dimse` and `conformance_web`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from exchange import commitment, rejection
from exchange_dicom import character_sets, contexts, identifier, query, transport_security
from exchange_dicom.coercion import SYSTEM
from exchange_dicom.conformance_dimse import application_entity, used_and_provided
from exchange_dicom.conformance_web import origin_server
from exchange_dicom.conversation import Limits
from exchange_dicom.markdown import contents, heading, prose, table
from exchange_dicom.negotiation import Conduct


def statement() -> str:
    """The whole statement, in Markdown."""
    behind = [
        line
        for part in (
            _introduction,
            _networking,
            application_entity,
            origin_server,
            _network,
            _media,
            _character_sets,
            _security,
            _annexes,
        )
        for line in part()
    ]
    lines = [
        *_cover(),
        *_overview(),
        *heading("2", "Table of contents"),
        *contents(behind, depth=3),
        *behind,
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _cover() -> Iterator[str]:
    yield "# DICOM conformance statement"
    yield ""
    yield from prose(
        "Product: the imaging exchange, an archive of a region's hospitals. In the form of PS3.2 "
        "annex A; printed by `python -m exchange_dicom.conformance`, and compared with the tables "
        "of the program by a test. The release is that of the program with which it came."
    )


def _overview() -> Iterator[str]:
    yield from heading("1", "Conformance statement overview")
    yield from prose(
        "The exchange receives, keeps, finds and returns instances, each hospital under its own "
        "patient numbers. It serves DIMSE and DICOMweb; what one of them brought in, the other "
        "finds. It sends on by rule, fetches priors before a visit, answers for what it keeps, "
        "offers worklists and takes performed procedure steps. It writes no media."
    )
    yield "Table 1-1: network services"
    yield ""
    yield from table(
        ("SOP class", "UID", "User of service (SCU)", "Provider of service (SCP)"),
        used_and_provided(),
    )
    yield from prose(
        f"and {len(contexts.STORAGE)} storage SOP classes (section 4.2.1.4.3), both as SCU and as "
        "SCP. The commands `exchange echo`, `send`, `query`, `move`, `get` and `commit` are SCUs "
        "for operators; they offer the default transfer syntax with each class."
    )
    yield "Table 1-2: DICOMweb services"
    yield ""
    yield from table(
        ("Service", "User agent", "Origin server"),
        [
            ["Studies: Store (STOW-RS)", "Yes, by routes", "Yes"],
            ["Studies: Search (QIDO-RS)", "No", "Yes"],
            ["Studies: Retrieve (WADO-RS)", "No", "Yes"],
            ["URI service (WADO-URI)", "No", "Yes"],
            ["Storage Commitment", "No", "Yes"],
            ["Worklist (UPS-RS), Non-Patient Instance", "No", "No"],
        ],
    )
    yield "Table 1-3: media services"
    yield ""
    yield from table(("Media storage application profile", "Role"), [["none", "none"]])


def _introduction() -> Iterator[str]:
    yield from heading("3", "Introduction")
    yield from heading("3.1", "Audience")
    yield from prose(
        "Administrators of PACS and modalities who connect to an exchange, and the engineers of "
        "their vendors. They know the terms of the standard."
    )
    yield from heading("3.2", "Remarks")
    yield from prose(
        "That two statements agree does not ensure that the products work together: that is to be "
        "tested. What stands here as a number is the default; section 4.4 names what can be set."
    )
    yield from heading("3.3", "Definitions, terms and abbreviations")
    yield from prose(
        "Those of the standard. A hospital is an organization that is registered with the "
        "exchange; its application entities call from registered addresses or with registered "
        "certificates. Primary is the instance that is served under its SOP Instance UID; another "
        "one under the same UID is in conflict, kept, and waits for review. A study is quiet when "
        "nothing of it has come for a second."
    )
    yield from heading("3.4", "References")
    yield from prose(
        "DICOM PS3 (NEMA), its current edition; IHE Radiology Technical Framework: Scheduled "
        "Workflow, and Imaging Object Change Management (RAD-66)."
    )


_FLOW = """
    PACS, modality ── C-STORE, N-ACTION, MPPS ─▶ ┌──────────┐ ── C-STORE (C-MOVE, routes) ─▶ nodes
    workstation    ── C-ECHO, C-FIND, MWL ─────▶ │          │ ── C-STORE (priors) ─────────▶
                   ── C-MOVE, C-GET ───────────▶ │ EXCHANGE │ ── N-EVENT-REPORT ───────────▶
                   ◀─ answers, C-STORE of C-GET  │          │ ── N-CREATE (IAN) ───────────▶
    browser, EHR   ── STOW, QIDO, WADO ────────▶ └──────────┘ ── STOW-RS (routes) ────▶ DICOMweb
"""


def _networking() -> Iterator[str]:
    yield from heading("4", "Networking")
    yield from heading("4.1", "Implementation model")
    yield from heading("4.1.1", "Application data flow")
    yield from _FLOW.strip("\n").splitlines()
    yield ""
    yield from heading("4.1.2", "Functional definition of application entities")
    yield from table(
        ("Application entity", "Function"),
        [
            [
                "EXCHANGE",
                "One AE title for all services of DIMSE, in any number of processes; accepts "
                "associations of registered application entities, and initiates some to them",
            ],
            ["DICOMweb", "Origin server at `/dicom-web`, for users and systems with a token"],
        ],
    )
    yield from heading("4.1.3", "Sequencing of real-world activities")
    yield from table(
        ("When", "Then"),
        [
            ["an instance was received", "0000 once it is durable, indexed and audited"],
            ["a study is quiet", "it is sent on by the routes of its hospital; IAN is sent"],
            [
                "an order is placed, its patient becomes known, or another study comes",
                "the relevant priors of other hospitals are sent to the performing hospital",
            ],
            ["a worklist entry is performed", "MPPS moves it on; what was announced is expected"],
            ["a commitment is asked for", "every object is read back; then it is reported"],
            ["a rejection note comes", "see section 8.3; it is sent to where the images went"],
        ],
    )
    yield from heading("4.2", "Application entity specifications")


def _network() -> Iterator[str]:
    conduct, limits = Conduct(), Limits()
    yield from heading("4.3", "Network interfaces")
    yield from heading("4.3.1", "Physical network interface")
    yield from prose("TCP/IP over whatever the operating system offers (PS3.8).")
    yield from heading("4.3.2", "Additional protocols")
    yield from prose(
        "DNS, where application entities are registered by host name; NTP of the operating system; "
        "HTTP/1.1. No DICOM application configuration management (PS3.15 annex H)."
    )
    yield from heading("4.3.3", "IPv4 and IPv6 support")
    yield from prose("Both, for what is accepted and what is initiated.")
    yield from heading("4.4", "Configuration")
    yield from heading("4.4.1", "AE title/presentation address mapping")
    yield from prose(
        "The own AE title, its addresses and ports are settings. Remote application entities are "
        "registered for their hospital (`exchange organization add-ae`): AE title, address, "
        "network or host name, port where they listen, and SHA-256 of their certificate. Nobody "
        "else is heard. What a hospital's own systems call it as Issuer of Patient ID is "
        "registered with `exchange organization issuer-names`."
    )
    yield from heading("4.4.2", "Parameters")
    yield from table(
        ("Parameter", "Setting", "Default"),
        [
            ["AE title", "`EXCHANGE_AE_TITLE`", "EXCHANGE"],
            ["Port", "`EXCHANGE_DIMSE_PORT`", "11112"],
            ["Port of TLS beside it", "`EXCHANGE_DIMSE_TLS_PORT`", "none"],
            ["Certificate revocation lists of clients", "`EXCHANGE_DIMSE_TLS_CRL`", "none"],
            ["TLS without clients' certificates", "`EXCHANGE_DIMSE_TLS_ANONYMOUS`", "False"],
            [
                "Longest PDU received, bytes",
                "`EXCHANGE_DIMSE_MAXIMUM_LENGTH`",
                str(conduct.maximum_length),
            ],
            [
                "Associations at a time, one process",
                "`EXCHANGE_DIMSE_ASSOCIATIONS`",
                str(limits.associations),
            ],
            [
                "Associations and instances a second of one hospital",
                "`exchange organization limit`",
                "none",
            ],
            [
                "Associations of one C-MOVE with its destination",
                "`EXCHANGE_DIMSE_MOVE_ASSOCIATIONS`",
                str(limits.move_associations),
            ],
            [
                "Wait for a request (ARTIM), s",
                "`EXCHANGE_DIMSE_ARTIM_TIMEOUT`",
                f"{conduct.artim_timeout:.0f}",
            ],
            [
                "Silence between messages, s",
                "`EXCHANGE_DIMSE_NETWORK_TIMEOUT`",
                f"{conduct.network_timeout:.0f}",
            ],
            ["One PDU, s", "`EXCHANGE_DIMSE_PDU_TIMEOUT`", f"{conduct.pdu_timeout:.0f}"],
            [
                "Bytes of a message in a minute, at least",
                "`EXCHANGE_DIMSE_MINIMUM_RATE`",
                str(conduct.minimum_rate),
            ],
            ["Largest instance, bytes", "`EXCHANGE_INSTANCE_LIMIT`", str(limits.instance_bytes)],
            [
                "Matches of one question",
                "`EXCHANGE_DIMSE_MATCHES`",
                str(limits.matches),
            ],
            ["Values of one key", "none", str(query.MAX_VALUES)],
            ["Characters of one value", "none", str(query.MAX_LENGTH)],
            ["Bytes of an identifier", "none", str(identifier.IDENTIFIER_LENGTH)],
            ["Instances of one commitment", "none", str(commitment.REFERENCES)],
            ["Instances of one rejection note", "none", str(rejection.REFERENCES)],
        ],
    )


def _media() -> Iterator[str]:
    yield from heading("5", "Media interchange")
    yield from prose("None: no file-set is created, read or updated.")


def _character_sets() -> Iterator[str]:
    yield from heading("6", "Support of character sets")
    yield from prose(
        "Instances are kept as they were sent, in whatever character set. For the index, text is "
        "read in the sets of this table, with code extensions (PS3.5 section 6.1.2.5) where they "
        "are defined. Where the declaration is missing, misspelt or contradicted by the bytes, "
        "UTF-8, GB18030 and undeclared escape sequences are recognized, and the repair is noted. "
        "Answers to C-FIND are in the character set of the question where that has all their "
        "characters, else in GB18030 if it was a Chinese one and in ISO_IR 192 if not. DICOMweb "
        "answers in UTF-8."
    )
    rows = [[term, "", "none"] for term in character_sets.STAND_ALONE]
    escapes: dict[str, list[str]] = {}
    for bytes_, (element, number) in character_sets.ESCAPES.items():
        escapes.setdefault(number, []).append(f"ESC {bytes_.decode('ascii')} ({element})")
    for number in character_sets.RIGHT_HALVES:
        alone = f"ISO_IR {number}" if number not in _EXTENSIONS_ONLY else ""
        rows.append([alone, f"ISO 2022 IR {number}", ", ".join(escapes.get(number, ["none"]))])
    yield from table(("Without code extensions", "With", "Escape sequences"), rows)


_EXTENSIONS_ONLY = frozenset({"58", "87", "149", "159"})


def _security() -> Iterator[str]:
    yield from heading("7", "Security")
    yield from heading("7.1", "Security profiles")
    yield from table(
        ("Profile (PS3.15)", "Support"),
        [
            ["BCP 195 RFC 8996 TLS Secure Transport Connection (B.12)", "yes, where set"],
            ["Basic TLS, AES TLS, older BCP 195 profiles (B.1 to B.10)", "no"],
            ["Audit trail message format (A.5)", "no; see section 7.3"],
            ["Basic application level confidentiality (E.1)", "no"],
            ["Digital signatures (C)", "kept as they are; not made, not verified"],
        ],
    )
    yield from prose(
        "TLS 1.2 or 1.3, the suites of TLS 1.3 and those below, no renegotiation, no compression; "
        "with a client's certificate of the CA that is set, unless anonymous TLS is: then nobody "
        "is asked for one. Where certificate revocation lists (RFC 5280) are set, nobody is heard "
        "whose certificate is on one, or whose CA has none in force. The file is looked at for "
        "each connection, and what it says then is all that holds: lists that are in it no longer "
        "are forgotten, and while it is missing, unreadable or out of date (its next update has "
        "passed) nobody is heard over TLS; associations that are open go on. No TLS session is "
        "resumed. The node's own certificate and its key are read anew too, once they fit "
        "together. An application entity can be "
        "registered "
        "with the SHA-256 of its certificate: then it is known by that alone, called over TLS "
        "alone, and the certificate stands for no other hospital."
    )
    yield from table(("Cipher suite of TLS 1.2",), [[one] for one in transport_security.SUITES])
    yield from heading("7.2", "Association level security")
    yield from prose(
        "An association is accepted for a registered calling AE title from its registered address, "
        "network or host, or with its registered certificate; everything in it is asked on behalf "
        "of that hospital. What becomes of a user identity (PS3.7 D.3.3.7) is set "
        "for each hospital; DICOMweb takes bearer tokens of OAuth 2.0."
    )
    yield from table(
        ("Rule of the hospital", "What becomes of a user identity"),
        [
            ["off", "nobody looks at it; answered where that is asked"],
            [
                "log (default)",
                "the name, of type 1 and 2, is logged and recorded as what the system says; "
                "answered where that is asked; nobody is refused",
            ],
            [
                "require",
                "type 2 (username and passcode: a user of the exchange) and type 5 (JSON Web "
                "Token: an access token of the exchange) are verified, and the user must be one of "
                "the calling hospital's; anything else, and none, is rejected (permanent, 1, 1), "
                "after too many wrong passcodes also the right one for a while (transient, 1, 1); "
                "the record of each act names the user",
            ],
        ],
    )
    yield from heading("7.3", "Application level security")
    yield from prose(
        "Every answer is decided by policy (sharing agreement of both hospitals, consent of the "
        "patient, purpose of use) and has its record in an audit trail, which is chained and "
        "signed: that a record was altered, removed or added shows. What is withheld does not "
        "appear in answers or their counts. Refused associations and TLS handshakes are recorded. "
        "Logs hold no patient data."
    )


def _annexes() -> Iterator[str]:
    yield from heading("8", "Annexes")
    yield from heading("8.1", "IOD contents and coercion")
    yield from prose(
        "No instances are made, and none is coerced on the way in. On the way out to another "
        "hospital (C-MOVE, C-GET, routes, priors) these attributes are:"
    )
    yield from table(
        ("Attribute", "Tag", "What is done"),
        [
            ["Patient ID", "(0010,0020)", "the receiving hospital's number, where it has one"],
            ["Issuer of Patient ID", "(0010,0021)", "OID of who issued that number"],
            ["Issuer of Patient ID Qualifiers Sequence", "(0010,0024)", "removed"],
            ["Other Patient IDs Sequence", "(0010,1002)", "an item with the owner's number added"],
            [
                "Original Attributes Sequence",
                "(0400,0561)",
                f"an item with what was replaced; reason COERCE, system {SYSTEM}",
            ],
            [
                "Institution Name",
                "(0008,0080)",
                "the owner's name, where there is none and the character set can write it",
            ],
        ],
    )
    yield from heading("8.2", "Data dictionary of private attributes")
    yield from prose("None are made. Those of others are kept, sent and never matched.")
    yield from heading("8.3", "Coded terminology and templates")
    yield from prose(
        "Key Object Selection documents with one of these titles (PS3.16 CID 7011) are rejection "
        "notes. They concern instances of their own hospital, those to come too; they are hidden "
        "with them, and sent to where the instances went by a route or as priors. A note that "
        "gives one of them another SOP Class UID or Study Instance UID than it has is refused "
        "whole."
    )
    rows = [
        [
            code,
            words,
            "deleted, unless under a legal hold"
            if rejection.BEHAVIOURS[code].deletes
            else "hidden and kept; comes back with a reason"
            if rejection.BEHAVIOURS[code].explained
            else "hidden and kept; can come back",
            "taken as new" if rejection.BEHAVIOURS[code].again else "kept, hidden, for review",
        ]
        for code, words in rejection.CODES.items()
    ]
    yield from table(("Code (DCM)", "Meaning", "Instances", "The same UID afterwards"), rows)
    yield from prose(
        "An application entity that is registered so finds and gets, by C-FIND, C-MOVE and C-GET, "
        "what its hospital has rejected and keeps, and nothing else. There SOP Classes in Study "
        "and relational keys take no part, which FF01 announces. A user who is registered so does "
        "the same by DICOMweb."
    )
    yield from heading("8.4", "Grayscale image consistency")
    yield from prose("Does not apply: nothing is displayed by the node.")
    yield from heading("8.5", "Standard extended, specialized and private SOP classes")
    yield from prose("None are defined; those of others are stored as they come.")
    yield from heading("8.6", "Private transfer syntaxes")
    yield from prose("None.")


if __name__ == "__main__":
    sys.stdout.write(statement())

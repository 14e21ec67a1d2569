"""The FHIR conformance statement for people to read, printed from the CapabilityStatement.

    python -m exchange_fhir.conformance > fhir/CONFORMANCE.md

A test compares what is printed with what is kept, so that the statement cannot fall behind.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from exchange import notifying, order_codes, subscriptions, turns
from exchange.orders import Status
from exchange.subscriptions import Channel
from exchange_fhir import (
    batched,
    capability,
    coding_schemes,
    consenting,
    described,
    invariants,
    ordered,
    ordering,
    precedence,
    profiled,
    subscribing,
    subscription_sockets,
    topics,
    validation,
    writing,
)
from exchange_fhir.datatypes import Json
from exchange_fhir.serving import Conduct

BASE = "https://exchange.example/fhir"


def statement() -> str:
    """The whole statement, in Markdown."""
    told = capability.statement(BASE, f"{BASE.removesuffix('/fhir')}/oauth/token")
    (server,) = told["rest"]
    lines = [
        "# FHIR conformance statement",
        "",
        "Product: the imaging exchange, FHIR R4 (4.0.1). Printed by `python -m "
        "exchange_fhir.conformance`, and compared with the tables of the program by a test; the "
        "server itself tells the same at `/fhir/metadata`.",
        "",
        *_formats(told),
        *_interactions(server),
        *_conditions(),
        *_bundles(),
        *_validation(),
        *_operations(),
        *_bulk_data(),
        *_orders(),
        *_consents(),
        *_subscriptions(),
        *_searches(server),
        *_security(server),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _formats(told: Json) -> Iterator[str]:
    yield "## Formats"
    yield ""
    yield (
        f"Resources come and go as {', '.join(f'`{one}`' for one in told['format'])}, by `_format` "
        "before `Accept`, in UTF-8; `fhirVersion` 4.0. Patches are "
        f"{', '.join(f'`{one}`' for one in told['patchFormat'])}: JSON Patch (RFC 6902), JSON "
        "Merge Patch (RFC 7396; as `application/json` too), and FHIRPath Patch with paths of "
        "names, `[index]`, `first()`, `last()`, `tail()`, `skip(n)`, `take(n)`, `single()`, "
        "`ofType(T)`, `extension('url')` and `where(…)`: comparisons by `=` and `!=`, `exists()`, "
        "`empty()`, `and` and `or`. `_pretty`, "
        "`_summary` (true, text, data, count, false) and `_elements` are taken on every answer; "
        "what was left out is said by the tag SUBSETTED, and a resource so tagged is not taken "
        "back. Answers are compressed for `Accept-Encoding: gzip`, and bodies are taken with "
        "`Content-Encoding: gzip`. A decimal keeps the digits it came with. A Binary is read and "
        "written as FHIR, or in its own type with `X-Security-Context`: then of up to "
        f"{Conduct().binary_limit} bytes (a setting), and read whole or by a `Range`. What was so "
        f"written comes along as FHIR up to {Conduct().body_limit} bytes of content. A Binary is "
        "its `securityContext`'s; one without is seen by who sees what its own hospital attaches "
        "it to (`Attachment.url`), of several patients by who sees all of them."
    )
    yield ""


def _interactions(server: Json) -> Iterator[str]:
    yield "## Resources and interactions"
    yield ""
    codes = [*("read", "vread", "history-instance", "create", "update", "patch", "delete")]
    codes += ["history-type", "search-type"]
    yield from _table(
        ["resource", *codes],
        (
            [
                one["type"],
                *("yes" if {"code": code} in one["interaction"] else "–" for code in codes),
            ]
            for one in server["resource"]
        ),
    )
    yield (
        "Of the whole system: "
        + ", ".join(one["code"] for one in server["interaction"])
        + ". What is not written by clients comes about otherwise:"
    )
    yield ""
    for kind, told in writing.DERIVED.items():
        yield f"- {kind}: {told}."
    yield "- Organization and Endpoint of the registered hospitals: administrators register them."
    yield (
        "- Patient: a hospital's own record, by its own number (an identifier of the system "
        "`urn:oid:` and its issuer); its logical id is given by the server. `link` of type "
        "`seealso` to Patients, `managingOrganization` and identifiers that came with images are "
        "the server's."
    )
    yield (
        "- Entries of a batch or transaction are also searches of a type by POST (`_search`, with "
        "Parameters or with a form in a Binary), `Patient/[id]/$everything` with its first page, "
        f"and {', '.join(f'`{one}`' for one in sorted(batched.DONE))}. Other operations are "
        "refused by name."
    )
    yield (
        "- With a search of AuditEvents there comes along what their reader may search: of what "
        "they refer to, the directory. AuditEvents come along with the directory "
        "(`_revinclude=AuditEvent:entity`, `AuditEvent:agent`), the newest of those that their "
        "reader may read; for all others they do not exist."
    )
    yield (
        "- A Patient is found by the names that images carry under its number too, whatever its "
        "hospital has told since: `name`, `family`, `given` and chains that end there."
    )
    yield ""


def _conditions() -> Iterator[str]:
    yield "## Conditions of HTTP"
    yield ""
    yield from _table(
        ["header or address", "where", "answer where it does not hold"],
        iter(
            (
                (
                    "`If-None-Exist`, or `Type?condition`",
                    "create",
                    "200 with the one that is there; 412 for several",
                ),
                (
                    "`Type?condition`",
                    "update, patch, delete",
                    "created, 404, or 204 as nothing is there; 412 for several",
                ),
                ("`If-Match`: `*`, or versions", "update, patch, delete", "412"),
                ("`If-None-Match: *`", "update", "412"),
                ("`If-None-Match`, `If-Modified-Since`", "read", "304"),
            )
        ),
    )
    yield (
        "A condition that changes something is asked of what the asker's own hospital wrote. "
        "A delete of what is not there, or no longer, or may not be seen, is 204 (with "
        "`Prefer: return=OperationOutcome` 200); the attempt is recorded. "
        "`Prefer: return=` minimal, representation (the default) or OperationOutcome. History "
        "takes `_count`, `_since` and `_at`; pages do not shift. A Patient who came with images, "
        "and a registered hospital's Organization and Endpoint, have one version, of the "
        "exchange's own record, which changes with it, until somebody writes a Patient's first."
    )
    yield ""
    yield (
        "The ids of a type are one space for all hospitals, as an address leads to one resource. A "
        "PUT to an id that a resource has which the asker may not see is answered by 404, where "
        "a free id is created (201): so it tells that the id is taken, though not by whom, nor "
        "what it is; any other status would tell the same. It tells something only where ids are "
        "chosen so that they can be guessed, as by a patient's number. Where that matters, a "
        "setting (`EXCHANGE_FHIR_UPDATE_CREATES=false`) has a PUT create nothing: then both are "
        "404, and POST gives ids that nobody guesses."
    )
    yield ""


def _bundles() -> Iterator[str]:
    order = sorted(precedence.ORDER, key=lambda one: precedence.ORDER[one])
    done = ", ".join(f"`{one}`" for one in sorted(batched.DONE))
    yield "## Batch and transaction"
    yield ""
    yield (
        f"At most {Conduct().entries} entries and {Conduct().body_limit} bytes (a setting). A "
        f"transaction is done as one or not at all, in the order {', '.join(order)}; what "
        "only asks, operations and searches by POST among it, comes after its commit, and fails by "
        "itself; `$meta-add` and `$meta-delete` are done as a PATCH is. `fullUrl`s are replaced by "
        "what was made, where a reference, uri, "
        "url or the narrative names them; conditional references are looked up after what the "
        "transaction writes. What names by `urn:uuid:` or a condition is refused outside a "
        "transaction, and in one where no entry has that name, in `Attachment.url` too; a hash is "
        "the SHA-1 of the Binary that comes along. In a Provide Document Bundle (IHE MHD ITI-65: "
        "one with a submission set) a document that its hospital has provided before is not kept "
        "again, nor is its submission set: both, and the Binary, are answered as they are there "
        "(200). With other content under the same `masterIdentifier`, or other documents in the "
        "same submission set, it is refused as `duplicate` (409). The entry at fault is told as "
        "`Bundle.entry[n]`. What was written comes along where `Prefer: return=representation` "
        "asks for it. An entry is served by the "
        "route that serves the same request alone, and answers what that answers: searches, "
        "histories, `_summary` and `_elements`, and 405 for what is no interaction. What is not "
        f"done as an entry is refused by name; operations that are: {done}."
    )
    yield ""


def _validation() -> Iterator[str]:
    keys = dict.fromkeys(one.key for told in invariants.INVARIANTS.values() for one in told)
    yield "## Validation"
    yield ""
    yield (
        "Every resource that is written is held against the definitions of R4: elements, "
        "cardinality, datatypes, codes of required bindings that can be listed, the types of what "
        "references lead to, contained resources, and the narrative. All errors are told, up to "
        f"{validation.ISSUES}, each with its IssueType and FHIRPath: 400 where it is no resource, "
        "422 where it breaks a rule. Profiles are not validated, and kept as they are stated; but "
        "a List that states to be IHE MHD's comprehensive submission set has sourceId and "
        "designationType. `$validate` refuses a `profile` that is neither R4's own definition of "
        f"the type nor one of these: {', '.join(f'`{one}`' for one in profiled.KNOWN)}. "
        "Invariants are checked where they are errors, and told by their keys: "
        f"{', '.join(keys)}, and those of extensions, references, contained resources and "
        "narratives. Patients that are referred to must be the hospital's own; other references to "
        "what is not here are taken, or refused by a setting."
    )
    yield ""


def _operations() -> Iterator[str]:
    yield "## Operations"
    yield ""
    yield from _table(
        ["operation", "on", "definition"],
        (
            [
                f"`${one.code}`",
                " and ".join(
                    word
                    for word, on in (
                        ("the system", one.on_system),
                        ("types", one.on_type),
                        ("instances", one.on_instance),
                    )
                    if on
                )
                + ("" if one.kinds in {(), ("Resource",)} else f" of {', '.join(one.kinds)}"),
                one.canonical("[base]"),
            ]
            for one in described.OPERATIONS
        ),
    )


def _bulk_data() -> Iterator[str]:
    yield "## Bulk data"
    yield ""
    yield (
        "FHIR Bulk Data Access 2.0: `$export` of the system, of patients or of a group, with "
        "`Prefer: respond-async`; files are NDJSON, and are the asker's alone for a day. A "
        "hospital's system exports the hospital's own records, and others' for the purpose "
        "PUBHLTH where both are in the agreement on that; a clinician exports groups, of which "
        "those whom the hospital has a record of. Once a consent or an agreement ends that an "
        "export depends on, "
        "it is answered by 410. Every "
        "resource is decided for the asker when it is written; what was changed after the moment "
        "of the request is not in it. With `_since` the manifest's `deleted` tells, as Bundles of "
        "`DELETE`, what would have been in it had it not been deleted since, whatever a "
        "`_typeFilter` asks; a document whose content is lost is told in `error`. `DELETE` of the "
        "status address cancels. A `_typeFilter` asks by any search parameter of its type, but "
        "orders nothing and brings nothing along. Other parameters, as "
        "`includeAssociatedData`, are refused, or with `Prefer: handling=lenient` ignored, which "
        "a warning in `error` tells."
    )
    yield ""
    yield (
        f"`POST [base]/$import` takes `application/fhir+ndjson` of at most {Conduct().body_limit} "
        "bytes (a setting) in the same way, one resource a line. What is wrong is told by the "
        "number of the line in the error file; all other lines are taken. A Patient is known by "
        "the hospital's own number; conditional references lead to it."
    )
    yield ""


def _orders() -> Iterator[str]:
    yield "## Orders for images"
    yield ""
    yield (
        "A ServiceRequest that a hospital writes of its own patient is an entry of its modality "
        "worklist if its intent is an order's, it is for images (a DICOM code of a modality in "
        "`orderDetail`, `code` or `category`, or a category of imaging: "
        + ", ".join(f"`{system}|{value}`" for system, value in sorted(ordering.IMAGING))
        + "), has an accession number (an identifier of type ACSN), and names no other hospital "
        "as its performer: by its Organization, a department's (an Organization that it keeps) or "
        "its credit code. It is on the worklist while it is active and says when "
        "(`occurrence`), or an Appointment based on it does, which comes before it; a modality is "
        f"named by a reference with an identifier of the system `{ordering.AE_TITLE}`. What was "
        "begun is not changed any more. Requests with one accession number are steps of one study."
    )
    yield ""
    yield (
        "The codes of `code` are those of its procedure there (the one chosen by `userSelected`, "
        "or the first, with the others as equivalents), those of `orderDetail` its protocols; "
        "without `orderDetail` the protocol is the procedure's. Of up to "
        f"{order_codes.CONCEPTS} concepts up to {order_codes.EQUIVALENTS} codes are kept. Systems: "
        + ", ".join(f"`{system}` is {name}" for name, system in coding_schemes.SYSTEMS.items())
        + f", each by its OID too; any other is {order_codes.LOCAL}, but for a designator that "
        "begins with 99. `locationReference` or `locationCode` (or the Appointment's Location) is "
        "the room: its `display`, else the `name` of the Location, contained or kept here, as it "
        "is called when the request is written. The identifier in `encounter` is the admission."
    )
    yield ""
    yield (
        "Where an order stands is told by a Task (`focus`, `based-on`: the ServiceRequest), by "
        "what modalities tell (MPPS); the hospital's ServiceRequest stays as it wrote it. An order "
        "that came otherwise is a ServiceRequest that nobody else writes. An ImagingStudy is "
        "`basedOn` the ServiceRequest by whose Study Instance UID or accession number it came."
    )
    yield ""
    yield from _table(
        ["order", "ServiceRequest that is derived", "Task"],
        ([one.value, ordered.REQUESTS[one], ordered.TASKS[one]] for one in Status),
    )


def _consents() -> Iterator[str]:
    yield "## Consents"
    yield ""
    yield (
        f"A Consent of the scope `{consenting.SCOPE}` that a hospital writes of its own patient "
        "decides from its commit on whether other hospitals see the person's records, whichever "
        "hospital made them: by reads, searches and all that comes along with them, histories, "
        "operations, exports, notifications, DICOMweb and DIMSE alike. Each hospital goes on "
        "seeing its own. Such a Consent refers to a Patient of this server; by a number alone, or "
        "for nobody, it is refused (422). Others are kept, and decide nothing."
    )
    yield ""
    rules = {
        sign: ", ".join(f"`{one}`" for one in sorted(codes))
        for sign, codes in (("out", consenting.OPT_OUT), ("in", consenting.OPT_IN))
    }
    yield from _table(
        ["what a Consent with the status `active` says", "what it does"],
        iter(
            [
                [
                    "`provision.type` is deny, or that of a provision within; or the policyRule is "
                    f"{rules['out']}",
                    "denies all, whichever actors, purposes, classes or data it names: the "
                    "exchange shares all of a person's records or none",
                ],
                [
                    "`provision.type` is permit, and nothing beside it but a period; or the "
                    f"policyRule is {rules['in']}, without a provision",
                    "while it is in force, what was denied before of the same Patient does not "
                    "hold; what another hospital's Consent denies does",
                ],
                ["anything else, as a permit for some purpose", "nothing"],
            ]
        ),
    )
    yield (
        "A denial or permit is in force in the period of its provision, or else of the one around "
        "it; dates without a time are the hospitals', and the last day belongs to it. Where both "
        "are in force, what was written last decides; when a permit has ended, is not `active` any "
        "more or was deleted, what was denied before holds again. `exchange consent deny` and "
        "`permit` decide for the person at every hospital, and end all that was said before. Every "
        "refusal is recorded with its reason. There is no emergency access (break-glass)."
    )
    yield ""


def _subscriptions() -> Iterator[str]:
    yield "## Subscriptions"
    yield ""
    yield (
        "Topic-based, as the Subscriptions Backport (hl7.fhir.uv.subscriptions-backport 1.1.0) has "
        "them for R4: `criteria` names a topic, `[base]/SubscriptionTopic/` and its name, and "
        "backport-filter-criteria narrows it (`Type?parameter=value,value`; all are to be met). "
        "R4 has no SubscriptionTopic resource; the CapabilityStatement lists the topics."
    )
    yield ""
    yield from _table(
        ["topic", "is told when", "filters"],
        (
            [
                f"`{one.name}`",
                one.told,
                "; ".join(
                    f"`{kind}?` {', '.join(f'`{name}`' for name in names)}"
                    for kind, names in one.filters.items()
                ),
            ]
            for one in topics.TOPICS.values()
        ),
    )
    own = ", ".join(f"`{one}`" for one in topics.TOPICS if one in topics.OWN_PATIENTS)
    yield (
        "The filter `patient` means the person: records of theirs at other hospitals too, as far "
        f"as they are shared. Without it {own} tell of patients of the subscriber's own hospital. "
        f"Filters are tokens and references, at most {subscribing.FILTERS} with "
        f"{subscribing.VALUES} values each."
    )
    yield ""
    yield (
        "A Subscription that could not be delivered is refused (422): another topic, filter, "
        f"channel ({', '.join(f'`{one}`' for one in Channel)} are there), payload "
        f"({', '.join(f'`{one}`' for one in subscribing.PAYLOADS)}) or content "
        f"({', '.join(f'`{one}`' for one in subscribing.CONTENTS)}), an end that has passed; 400 "
        "for a patient who is not known to the subscriber; 403 for a host that is not registered "
        f"for the hospital. A hospital has at most {subscriptions.MOST}. Sent with the status "
        "`off` it is kept and told nothing; any other status that is sent becomes `requested`, or "
        "`active` for a websocket."
    )
    yield ""
    yield (
        "A rest-hook is `active` once its endpoint has answered the handshake; where it does not, "
        "or does not answer 2xx for "
        f"{notifying.GIVES_UP.total_seconds() / 3600:.0f} hours of tries, or its owner leaves, it "
        "is in `error`, which says why. Notifications come in the order of the events, which are "
        "numbered without gaps from when it was accepted; one may come twice, none is left out, "
        "but in `error` and `off` nothing new is numbered. "
        f"The heartbeat is {subscribing.HEARTBEAT} s or more, the time-out {subscribing.TIMEOUT} s "
        f"(at most {subscribing.TIMEOUT_MOST}), the count {subscribing.EVENTS_MOST} events or "
        "fewer. A write that changes a Subscription begins with a handshake anew and goes on with "
        "the numbers; what its endpoint has not taken yet comes then, where topic and filters are "
        "what they were, and it was not `off`."
    )
    yield ""
    yield (
        "`$get-ws-binding-token` gives a token that is good for "
        f"{subscription_sockets.GOOD_FOR.total_seconds():.0f} s and binds the asker's own "
        f"subscriptions, at most {subscription_sockets.BOUND}, to a connection to "
        f"`[base]{subscription_sockets.PATH}` (ws or wss) by the message `bind-with-token: TOKEN` "
        "(or as JSON, with `type` and `payload.token`). Each binding is answered by a handshake; "
        "what happens from then on is sent. What was missed in between is told by `$events`, "
        f"{subscribing.EVENTS_MOST} events at a time: the rest is asked for by "
        "`eventsSinceNumber`, from the number behind the last."
    )
    yield ""
    yield (
        "Endpoints are called over https (http by a setting), with a certificate of a CA that the "
        "system trusts, or a setting names, at hosts that an administrator has "
        f"registered for the hospital, {turns.AT_A_TIME} of a hospital at a time, and only at "
        "addresses of the open network or of networks that a setting names; a host is resolved "
        "once for each notification, no redirect is followed, and nothing of an answer is read "
        "but its status. The values of "
        f"`channel.header` are kept apart and read as `{subscriptions.HIDDEN}`; sent back so, they "
        "stay as they are, for the same endpoint."
    )
    yield ""
    yield (
        "Each event is decided for the owner when it arises, when it is told, and when `$events` "
        f"asks for it, within {notifying.KEPT.days} days: of what the owner may not see (any more) "
        "nothing is told but, where it had one, its number. `full-resource` is the resource as a "
        "read by the owner answers it at that moment; `additional-context` is the patient, as "
        "their own hospital's record where there is one."
    )
    yield ""


def _searches(server: Json) -> Iterator[str]:
    yield "## Searches"
    yield ""
    yield server["documentation"]
    yield ""
    for one in server["resource"]:
        if "searchParam" not in one:
            continue
        yield f"### {one['type']}"
        yield ""
        listed = ", ".join(f"`{told['name']}` ({told['type']})" for told in one["searchParam"])
        yield listed
        for name, word in (("searchInclude", "_include"), ("searchRevInclude", "_revinclude")):
            if name in one:
                yield ""
                yield f"`{word}`: " + ", ".join(f"`{told}`" for told in one[name])
        yield ""


def _security(server: Json) -> Iterator[str]:
    yield "## Security"
    yield ""
    yield server["security"]["description"]
    yield ""


if __name__ == "__main__":
    sys.stdout.write(statement())

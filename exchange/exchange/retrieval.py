"""Retrieval: the objects of a study, series or instance, decided once and read through the gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Select, func, select

from exchange.access import Access, translated
from exchange.errors import NotFound
from exchange.policy import Action
from exchange.query import facts
from exchange_storage.objects import ObjectStore
from exchange_storage.records import Instance, Organization, Patient, Series, Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An instance that the asker may have. Its bytes can be read after the gate has closed."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    key: str
    size: int
    """Bytes of the object: Part 10 header and data set."""
    digest: str
    character_set: str
    """Specific Character Set as the data set declares it."""
    character_set_repair: Mapping[str, str] | None
    """What the index read instead, and why, where the declaration was missing or wrong."""
    objects: ObjectStore

    def stream(self, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Bytes of the object from `start`, in pieces. Raises Unavailable, also at a piece."""
        with translated():
            pieces = self.objects.stream(self.key, start, length)
        return _in_our_words(pieces)

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """The same bytes in one piece."""
        with translated():
            return self.objects.get(self.key, start, length)


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was asked for: the instances in order of series and instance number."""

    owner: Organization
    patient: Patient
    study: Study
    instances: tuple[Held, ...]


def instances(
    access: Access,
    study_instance_uid: str,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    *,
    purpose: str = "images",
) -> Retrieved:
    """The primary instances of a study, of one of its series, or one of them.

    `purpose` says in the audit trail what is read of them: ``images``, ``metadata``. Raises
    NotFound when the study is unknown or nothing of it matches, Refused with the policy's reason.
    """
    access.require(Action.RETRIEVE, study=study_instance_uid)
    about = select(Patient, Organization, Study)
    row = access.session.execute(
        about.join(Organization, Organization.id == Patient.organization_id)
        .join(Study, Study.patient_id == Patient.id)
        .where(Study.study_instance_uid == study_instance_uid)
    ).one_or_none()
    if row is None:
        raise NotFound("no such study")
    subject = {"patient": row.Patient.id, "study": study_instance_uid}
    access.require(Action.RETRIEVE, facts(access, row.Patient), **subject)
    wanted = _primary(row.Study.id, series_instance_uid, sop_instance_uid)
    found = tuple(
        Held(
            study_instance_uid=study_instance_uid,
            series_instance_uid=series,
            sop_instance_uid=instance.sop_instance_uid,
            sop_class_uid=instance.sop_class_uid,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            key=instance.key,
            size=instance.size,
            digest=instance.digest,
            character_set=instance.character_set,
            character_set_repair=instance.character_set_repair,
            objects=access.objects,
        )
        for instance, series in access.session.execute(wanted)
    )
    if not found:
        raise NotFound("no such instance in the study" if sop_instance_uid else "no such series")
    access.note(
        Action.RETRIEVE,
        detail={
            "what": purpose,
            "series": series_instance_uid,
            "instance": sop_instance_uid,
            "instances": len(found),
            "bytes": sum(held.size for held in found),
        },
        **subject,
    )
    return Retrieved(row.Organization, row.Patient, row.Study, found)


def _in_our_words(pieces: Iterator[bytes]) -> Iterator[bytes]:
    with translated():
        yield from pieces


def _primary(
    study: int, series_instance_uid: str | None, sop_instance_uid: str | None
) -> Select[Instance, str]:
    wanted = (
        select(Instance, Series.series_instance_uid)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study, Instance.is_primary)
    )
    if series_instance_uid is not None:
        wanted = wanted.where(Series.series_instance_uid == series_instance_uid)
    if sop_instance_uid is not None:
        wanted = wanted.where(Instance.sop_instance_uid == sop_instance_uid)
    # Numbers are text (IS): the shorter of two without leading zeros is the smaller.
    return wanted.order_by(
        func.length(Series.series_number),
        Series.series_number,
        Series.id,
        func.length(Instance.instance_number),
        Instance.instance_number,
        Instance.id,
    )

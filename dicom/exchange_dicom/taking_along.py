"""A study to take along: a ZIP archive of a File-set with its DICOMDIR, made while it is sent.

Files are in the transfer syntax in which they are kept, under the asker's own number for the
patient; or, where they go out without names, without it. What cannot be written so is left out,
and told of in a file beside the DICOMDIR, which is the last for that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby

from exchange.errors import Damaged, Unavailable
from exchange.query import Contents as Listed
from exchange.retrieval import Held, Selected
from exchange_dicom import file_set, nameless, series_metadata, transcoding
from exchange_dicom.archive import archive
from exchange_dicom.coercion import Coercion, needed
from exchange_dicom.file_set import Contents, Group, Member
from exchange_dicom.header import DEFLATED, EXPLICIT_VR_BIG_ENDIAN, DataSetError
from exchange_dicom.part10 import file_meta
from exchange_dicom.resources import Root
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

READ_ME = "README.TXT"

Pieces = Iterator[bytes | memoryview]


@dataclass(slots=True)
class Progress:
    """How many of the instances have gone out, and how many could not."""

    instances: int
    sent: int = 0
    left_out: int = 0
    damaged: int = 0
    """Of those left out, what a scrub has found so."""


def archived(
    selected: Selected,
    receiver: str,
    listed: tuple[Listed, ...],
    *,
    without_names: bool,
    advanced: Callable[[Progress], object],
) -> Iterator[bytes]:
    """The archive in pieces, for the hospital with the issuer OID `receiver`, "" for none.

    `listed` are the series of the study; `advanced` is told each time that an instance has gone
    out. Raises Unavailable.
    """
    coercion = None if without_names else needed(selected, receiver, datetime.now(UTC))
    progress = Progress(len(selected.instances))
    numbers = {
        one.sop_instance_uid: one.instance_number for series in listed for one in series.instances
    }
    about = {series.series.series_instance_uid: series.series for series in listed}

    def files() -> Iterator[tuple[str, Pieces]]:
        groups: list[Group] = []
        for uid, of_series in groupby(selected.instances, lambda one: one.series_instance_uid):
            members: list[Member] = []
            for held in of_series:
                syntax = _syntax(held)
                try:
                    pieces = _begun(_pieces(held, syntax, coercion, without_names))
                except (CannotTranscode, DataSetError, Damaged) as error:
                    progress.left_out += 1
                    progress.damaged += isinstance(error, Damaged)
                    continue
                members.append(_member(held, syntax, numbers, without_names))
                name = "/".join(file_set.file_id(len(groups) + 1, len(members)))
                yield name, pieces
                progress.sent += 1
                advanced(replace(progress))
            if members:
                series = about.get(uid)
                groups.append(
                    Group(
                        series_instance_uid=uid,
                        modality=series.modality if series else "",
                        series_number=series.series_number if series else "",
                        members=tuple(members),
                    )
                )
        if progress.left_out:
            yield READ_ME, iter([_left_out(progress, without_names).encode()])
        yield file_set.NAME, iter([file_set.directory(_contents(selected, groups, without_names))])

    return archive(files())


def _syntax(held: Held) -> str:
    """That of the file: media are little endian, and not all their readers inflate."""
    kept = held.transfer_syntax_uid
    if kept in DEFLATED or kept == EXPLICIT_VR_BIG_ENDIAN:
        return EXPLICIT_VR_LITTLE_ENDIAN
    return kept


def _pieces(held: Held, syntax: str, coercion: Coercion | None, without_names: bool) -> Pieces:
    if without_names and not nameless.can_be(held.sop_class_uid):
        raise CannotTranscode("a document is not made nameless")
    data_set: Pieces = iter(transcoding.data_set_of(held, syntax, coercion))
    if without_names:
        data_set = nameless.nameless(data_set, syntax)
    first = next(data_set, b"")
    yield file_meta(held.sop_class_uid, held.sop_instance_uid, syntax)
    yield first
    yield from data_set


def _begun(pieces: Pieces) -> Pieces:
    """The same, of which the first piece is at hand: what cannot be written shows there."""
    first = next(pieces)

    def whole() -> Pieces:
        yield first
        try:
            yield from pieces
        except (CannotTranscode, DataSetError) as error:
            raise Unavailable("an instance could not be written to its end") from error

    return whole()


def _member(held: Held, syntax: str, numbers: Mapping[str, str], without_names: bool) -> Member:
    described = file_set.described(held.sop_class_uid) and not without_names
    return Member(
        sop_class_uid=held.sop_class_uid,
        sop_instance_uid=held.sop_instance_uid,
        transfer_syntax_uid=syntax,
        instance_number=numbers.get(held.sop_instance_uid, ""),
        model=series_metadata.describe(held, Root("")) if described else {},
    )


def _contents(selected: Selected, groups: list[Group], without_names: bool) -> Contents:
    study = selected.study
    return Contents(
        patient_id=nameless.NUMBER if without_names else selected.number.value,
        patient_name=nameless.NAME if without_names else selected.patient.name,
        study_instance_uid=study.study_instance_uid,
        study_date=study.study_date,
        study_time=study.study_time,
        study_id="" if without_names else study.study_id,
        study_description=study.study_description,
        accession_number="" if without_names else study.accession_number,
        series=tuple(groups),
    )


def _left_out(progress: Progress, without_names: bool) -> str:
    broken = ("数据损坏，无法写出", "damaged, they could not be written")
    named = ("文档和可能带有姓名的图像不能去除姓名", "documents, and images that may show a name")
    counted = [(progress.left_out, broken)]
    if without_names:
        counted = [(progress.damaged, broken), (progress.left_out - progress.damaged, named)]
    return "".join(
        f"{count} 个实例未包含：{why[0]}。\r\n{count} instances are not here: {why[1]}.\r\n"
        for count, why in counted
        if count
    )

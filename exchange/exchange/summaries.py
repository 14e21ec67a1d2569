"""What the primary instances below a patient, study or series add up to: counts, modalities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import bindparam, func, select, true

from exchange import sop_classes
from exchange.access import Access
from exchange.decided import shown
from exchange_storage.prepared import Prepared
from exchange_storage.records import Instance, Series, Study
from exchange_storage.rows import one_of
from exchange_storage.search import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is derived from the primary instances below a patient, study or series."""

    modalities: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    studies: int = 0
    series: int = 0
    instances: int = 0
    """Of all kinds, as the standards count them."""
    image_series: int = 0
    """Series that hold an image."""
    images: int = 0
    reports: int = 0
    """Structured reports and encapsulated documents."""

    def __add__(self, other: Summary) -> Summary:
        """Of both together."""
        return Summary(
            modalities=tuple(sorted({*self.modalities, *other.modalities})),
            sop_classes=tuple(sorted({*self.sop_classes, *other.sop_classes})),
            studies=self.studies + other.studies,
            series=self.series + other.series,
            instances=self.instances + other.instances,
            image_series=self.image_series + other.image_series,
            images=self.images + other.images,
            reports=self.reports + other.reports,
        )


_OF: Mapping[Level, Any] = {
    Level.PATIENT: Study.patient_id,
    Level.STUDY: Series.study_id,
    Level.SERIES: Series.id,
}
NOTHING = Summary()


@cache
def _counted(level: Level, *, rejected: bool, narrowed: bool) -> Prepared:
    group = _OF[level]
    one = Series.series_instance_uid == bindparam("series") if narrowed else true()
    return Prepared(
        lambda dialect: (
            select(
                group,
                Series.modality,
                Instance.sop_class_uid,
                Study.id,
                Series.id.label("series"),
                func.count(Instance.id),
            )
            .select_from(Study)
            .join(Series, Series.study_id == Study.id)
            .join(Instance, Instance.series_id == Series.id)
            .where(one_of(group, "wanted", dialect), shown(rejected=rejected), one)
            .group_by(group, Series.modality, Instance.sop_class_uid, Study.id, Series.id)
        )
    )


def summaries(access: Access, level: Level, wanted: set[int]) -> dict[int, Summary]:
    """Counts and modalities of the patients, studies or series `wanted`, by row; one query."""
    if not wanted or level is Level.IMAGE:
        return {}
    rejected = access.requester.rejected
    asked: dict[str, Any] = {"wanted": f"[{','.join(map(str, sorted(wanted)))}]"}
    if rejected:
        asked["asker"] = access.organization
    if only := access.requester.narrowed(None):
        asked["series"] = only
    statement = _counted(level, rejected=rejected, narrowed=only is not None)
    counted = statement.all(access.session.connection(), asked)
    seen: dict[int, list[Any]] = defaultdict(list)
    for row in counted:
        seen[row[0]].append(row)
    return dict.fromkeys(wanted, NOTHING) | {
        key: Summary(
            modalities=tuple(sorted({row[1] for row in rows} - {""})),
            sop_classes=tuple(sorted({row[2] for row in rows})),
            studies=len({row[3] for row in rows}),
            series=len({row[4] for row in rows}),
            instances=sum(row[5] for row in rows),
            image_series=len({row[4] for row in rows if sop_classes.is_image(row[2])}),
            images=sum(row[5] for row in rows if sop_classes.is_image(row[2])),
            reports=sum(row[5] for row in rows if sop_classes.is_report(row[2])),
        )
        for key, rows in seen.items()
    }

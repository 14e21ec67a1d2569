"""Under which keys objects lie: names that let an operator find a study with any S3 client."""

from __future__ import annotations


def segment(uid: str) -> str:
    """A UID as a part of a path, which must not begin with a dot as a UID may."""
    return uid if uid[0] != "." else f"_{uid}"


def of_instance(study: str, series: str, instance: str, digest: str) -> str:
    """Where an instance lies, by its UIDs and the digest of its bytes."""
    return f"studies/{segment(study)}/{segment(series)}/{segment(instance)}.{digest}.dcm"

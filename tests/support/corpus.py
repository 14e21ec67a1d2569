"""The DICOM files inside pydicom's and pynetdicom's wheels, found where those are installed."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import pydicom.data
import pynetdicom

PYDICOM = Path(str(pydicom.data.__file__)).parent
PYNETDICOM = Path(pynetdicom.__file__).parent / "tests"

_NOT_DICOM = frozenset(
    {".crt", ".dump", ".icc", ".ini", ".json", ".key", ".md", ".py", ".pyc", ".txt", ".typed"}
)


@dataclass(frozen=True, slots=True)
class File:
    """A file of the corpus; `name` says from which package, and where it lies there."""

    name: str
    path: Path

    def content(self) -> bytes:
        """Its bytes, decompressed where it was only packed."""
        packed = self.path.read_bytes()
        return gzip.decompress(packed) if self.path.suffix == ".gz" else packed


def files() -> list[File]:
    """Every bundled file but certificates, texts and the like."""
    return [
        File(f"{root.parent.name}/{path.relative_to(root)}", path)
        for root in (PYDICOM, PYNETDICOM)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix.lower() not in _NOT_DICOM and path.name != "README"
    ]

"""Grey values on their way to the eye: windows and lookup tables (PS3.3 C.11), as senders write."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.filewriter import correct_ambiguous_vr

from exchange.errors import TooLarge
from exchange.retrieval import Held
from exchange_dicom import data_set, kept
from exchange_dicom.pixel_data import INFLATED_LIMIT

Grey = NDArray[Any]


class CannotRender(Exception):
    """No picture can be made of it."""


class Function(StrEnum):
    """How a window maps values to grey (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

    LINEAR = "linear"
    LINEAR_EXACT = "linear-exact"
    SIGMOID = "sigmoid"


FUNCTIONS = {one.value: one for one in Function}


@dataclass(frozen=True, slots=True)
class Window:
    """Centre and width of the values that are told apart, after the modality LUT."""

    center: float
    width: float
    function: Function = Function.LINEAR

    def grey(self, values: Grey) -> Grey:
        """Black is 0 and white 1; values outside the window are beyond them."""
        match self.function:
            case Function.LINEAR if self.width <= 1:  # a threshold
                return np.asarray(values > self.center - 0.5, np.float32)
            case Function.LINEAR:
                return (values - (self.center - 0.5)) / (self.width - 1) + 0.5
            case Function.LINEAR_EXACT:
                return (values - self.center) / self.width + 0.5
            case Function.SIGMOID:
                scaled = np.clip(-4 * (values - self.center) / self.width, -80, 80)
                return 1 / (1 + np.exp(scaled))


def own_window(voi: Dataset) -> Window | None:
    """The first of the data set's own windows."""
    center, width = _first(voi.get("WindowCenter")), _first(voi.get("WindowWidth"))
    if center is None or width is None or width <= 0:
        return None
    named = str(voi.get("VOILUTFunction") or "LINEAR").lower().replace("_", "-")
    return Window(center, width, FUNCTIONS.get(named, Function.LINEAR))


def _first(value: Any) -> float | None:
    if value is None or isinstance(value, str):
        return None
    values = value if hasattr(value, "__len__") else [value]
    return float(values[0]) if len(values) else None


def looked_up(values: Grey, table: Dataset, order: str) -> tuple[NDArray[np.uint16], int]:
    """Values through a lookup table, and the bits of its entries (PS3.3 C.11.1.1)."""
    count, first, bits = (int(one) for one in table.LUTDescriptor)
    count = count or 1 << 16
    data = table.LUTData
    if isinstance(data, bytes):
        packed = len(data) < 2 * count  # entries of 8 bits, two in a word
        data = np.frombuffer(data, "u1" if packed else order + "u2")
    entries = np.atleast_1d(np.asarray(data))[:count].astype(np.uint16)
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, len(entries) - 1)
    return entries[places], bits


@contextmanager
def as_senders_write() -> Iterator[None]:
    """Where values are read that may not be what the standard wants of them."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (CannotRender, TooLarge):
        raise
    except Exception as error:
        raise CannotRender(f"no picture can be made of it: {type(error).__name__}") from error


def read_data_set(held: Held, length: int) -> Dataset:
    """So many bytes of the data set at its beginning. Raises CannotRender, Unavailable."""
    head = kept.reading(held, INFLATED_LIMIT)(0, length)
    implicit, little = data_set.is_implicit(head), kept.little_endian(held)
    with as_senders_write():
        found = read_dataset(io.BytesIO(head), implicit, little)
        return correct_ambiguous_vr(found, little) if implicit else found

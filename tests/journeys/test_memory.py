"""A node's memory stays flat, whatever it receives: a share of `tests/benchmarks/memory.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory import ALLOWED, loads, receiving


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_large_object_many_associations_and_many_instances_leave_memory_flat(
    tmp_path: Path, database: str
) -> None:
    instances = 3000 if database == "sqlite" else 500
    with receiving(tmp_path, database) as received:
        warm_up, *others = loads(
            received, bytes_of_pixels=64 << 20, associations=50, instances=instances
        )
    assert len(others) == 12, warm_up
    assert [str(load) for load in others if load.grown > ALLOWED] == []

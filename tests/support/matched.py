"""What C-FIND is asked of: studies of three hospitals, and what each is called."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asking import ask
from region import ID_CARD
from serving import Served, serving

SUCCESS, PENDING, PENDING_UNSUPPORTED, MISMATCH = 0x0000, 0xFF00, 0xFF01, 0xA900
RELATIONAL, COMBINED, FUZZY = b"\1\0\0", b"\0\1\0", b"\0\0\1"
SR = "1.2.840.10008.5.1.4.1.1.88.11"
CT = "1.2.840.10008.5.1.4.1.1.2"


def studies(served: Served, extended: bytes = b"", **keys: Any) -> list[str]:
    """The studies that a Study Root question finds."""
    answers = ask(served.port, "STUDY", {"StudyInstanceUID": ""} | keys, extended=extended)
    assert answers.final == SUCCESS, answers.comment
    return answers.studies


CHEST, YAMADA, LI, MUELLER, OURS, ZHANG = "1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.3.1", "1.3.2"
ALL = [CHEST, YAMADA, LI, MUELLER, OURS, ZHANG]


@contextmanager
def hospitals(place: Path, database_url: str) -> Iterator[Served]:
    """Studies of three hospitals, four of them BEICHENG's; nobody changes them."""
    with serving(place, database_url=database_url) as made:
        send = made.city.send
        chest: dict[str, Any] = {
            "AccessionNumber": "A1", "StudyDescription": "胸部平扫 Chest", "StudyID": "S-1",
            "ReferringPhysicianName": "Zhao^Min=赵^敏", "PatientTelephoneNumbers": "0755-1",
        }  # fmt: skip
        send("beicheng", study="1.2.1", instance="1.4.1", SeriesNumber="1",
             SeriesDescription="肺窗", BodyPartExamined="CHEST", InstanceNumber="1", Rows="512",
             PerformingPhysicianName="王^芳", OperatorsName="孙^丽\\Qian^Wei=钱^伟",
             card=ID_CARD, requests=(("R1", "S1"), ("R2", "S2")), **chest)  # fmt: skip
        send("beicheng", study="1.2.1", instance="1.4.2", SeriesNumber="1", InstanceNumber="12",
             BodyPartExamined="CHEST", Rows="512", card=ID_CARD, **chest)  # fmt: skip
        send("beicheng", study="1.2.1", series="1.2.1.2", instance="1.4.3", SeriesNumber="2",
             Modality="SR", SOPClassUID=SR, card=ID_CARD, **chest)  # fmt: skip
        send("beicheng", patient="P2", study="1.2.2", instance="1.4.4", StudyDate="20261102",
             StudyTime="070000.000", PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
             AccessionNumber="a2", StudyDescription="chest 100%", Modality="MR",
             PatientBirthDate="19800101", PatientSex="M",
             PatientTelephoneNumbers="0755-21\\0755-22\\0755-23")  # fmt: skip
        send("beicheng", patient="P3", study="1.2.3", instance="1.4.5", StudyDate="20261103",
             StudyTime="1630", PatientName="=李^娜", AccessionNumber="A3", Modality="DX",
             PatientBirthDate="")  # fmt: skip
        send("beicheng", patient="P4", study="1.2.4", instance="1.4.6", StudyDate="20261104",
             StudyTime="", PatientName="Müller^Jürgen", AccessionNumber="",
             Modality="US")  # fmt: skip
        send("nanhu", patient="N7", study="1.3.1", instance="1.5.1", StudyDate="20251231",
             StudyTime="235959", Modality="PT", card=ID_CARD)  # fmt: skip
        send("dongshan", patient="D9", study="1.3.2", instance="1.5.2", StudyDate="20240101",
             StudyTime="000000", PatientName="Zhang^Wei=张^伟", Modality="CR")  # fmt: skip
        made.city.identify()
        yield made


def findscu(served: Served, *arguments: str, query: str = "") -> str:
    """What DCMTK says of what it asks, and of the answers."""
    done = subprocess.run(
        ["findscu", "-v", "-aet", "BEICHENG", "-aec", "EXCHANGE", *arguments,
         "127.0.0.1", str(served.port), *([query] if query else [])],
        check=False, capture_output=True, timeout=180, env=os.environ | {"TCP_NODELAY": "1"},
    )  # fmt: skip
    return (done.stdout + done.stderr).decode("utf-8", "replace")

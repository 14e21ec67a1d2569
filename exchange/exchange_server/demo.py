"""The demo: three hospitals send, one clinician finds and opens; told on the terminal, and checked.

Everything is done from outside, as its users would: the exchange runs in processes of its own, the
hospitals send by C-STORE, the clinician signs in and asks by HTTP. Each claim of the story is
compared with what was generated; one that does not come true fails the demo.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import urllib3
from rich.console import Console

from exchange import audit, consent, jobs, organizations, trail, users
from exchange.access import Exchange
from exchange.audit import Outcome
from exchange.errors import Invalid, Unavailable
from exchange.identity import RESIDENT_ID
from exchange.organizations import Entity
from exchange.policy import Action, Requester, Role
from exchange_dicom import scu
from exchange_server import composition, settings
from exchange_server.demo_asking import (
    Clinician,
    bundle,
    patient_id,
    registered_code,
    studies_by_fhir,
    value,
)
from exchange_server.demo_told import Story, addresses, bar, progress_of
from exchange_server.portal.audit import ACTIONS
from exchange_server.portal.naming import OUTCOMES
from exchange_server.settings import Settings
from exchange_server.words import say
from exchange_server.words import told as in_words
from exchange_storage.search import Level

if TYPE_CHECKING:
    from sample_city import City, Hospital, Record

PATIENCE = 120.0
"""Seconds that the exchange may take to be ready, and its worker to be done."""

_OPERATOR = Requester(
    name="demo", role=Role.ADMINISTRATOR, organization=None, purpose=None, door="cli"
)


def run(*, size: str, once: bool, data: Path | None, language_hint: bool = True) -> int:
    """Tell the whole story; returns the exit status, 0 when all of it came true.

    With `data` everything is made in that directory, which must be empty, and stays there; without
    it in a temporary one, which goes. Raises Invalid, Unavailable.
    """
    try:
        import sample_city
    except ImportError as error:
        raise Invalid("the sample city is not installed; start the demo by deploy/demo") from error
    console = Console(highlight=False)
    story = Story(console)
    with ExitStack() as stack:
        if data is None:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="exchange-demo-")))
        else:
            home = data.resolve()
            home.mkdir(parents=True, exist_ok=True)
            if any(home.iterdir()):
                raise Invalid(f"{home} is not empty")
        if language_hint:
            console.print("English: EXCHANGE_LANGUAGE=en", style="dim")
        story.chapter("一座虚构的城市", "A fictional city")
        with bar(console, say("生成影像", "Making images")) as advance:
            city = sample_city.generate(home / "city", size, advance)
        console.print(
            say(
                f"  {len(city.hospitals)} 家医院，{len(city.people)} 人，"
                f"{len(city.studies)} 个检查，{city.number_of_instances} 个实例",
                f"  {len(city.hospitals)} hospitals, {len(city.people)} people, "
                f"{len(city.studies)} studies, {city.number_of_instances} instances",
            )
        )
        given = _settings(home / "exchange")
        exchange = composition.initialise(given)
        stack.callback(exchange.close)
        clinicians = _register(exchange, given, city)
        accounts = [
            *((say("医生", "Clinician"), one.name, one.password) for one in clinicians.values()),
            *_others(exchange, registered_code(city.hospitals[0].code)),
        ]
        stack.enter_context(_serving(home))
        _tell(story, exchange, given, city, clinicians, home)
        addresses(console, given, [one.ae_title for one in city.hospitals], accounts)
        if story.failed:
            claims = "; ".join(story.failed)
            console.print(say(f"未通过：{claims}", f"Not true: {claims}"), markup=False)
        if not once:
            console.print(say("Ctrl-C 结束", "Ctrl-C ends it"))
            _wait_for_signal()
    return 1 if story.failed else 0


def _tell(
    story: Story,
    exchange: Exchange,
    given: Settings,
    city: City,
    clinicians: dict[str, Clinician],
    home: Path,
) -> None:
    story.chapter("三家医院同时发送（C-STORE）", "Three hospitals send at once (C-STORE)")
    stored, seconds = _send(story.console, given, city, home)
    count = city.number_of_instances
    story.claim(
        stored == count,
        f"{stored}/{count} 个实例已确认持久保存，{count / seconds:.0f} 个/秒",
        f"{stored} of {count} instances acknowledged as durable, {count / seconds:.0f}/s",
    )
    began = time.monotonic()
    asker, person = _someone(city)
    mine = next(one for one in city.records_of(person) if one.hospital == asker.code)
    clinician = clinicians[asker.code]
    token = clinician.token()
    wanted = {one.study_instance_uid for one in city.studies if one.person == person}
    by_fhir = _until(lambda: studies_by_fhir(clinician, token, mine), lambda got: got >= wanted)
    # The time is told and not judged: it is as much the machine's as the exchange's.
    story.claim(
        by_fhir >= wanted,
        f"发送结束后 {time.monotonic() - began:.1f} 秒可查",
        f"found {time.monotonic() - began:.1f} s after the last one was sent",
    )
    _wait_for_worker(exchange)

    story.chapter(
        f"{asker.name}的医生 {clinician.name} 用身份证号查人",
        f"{clinician.name} of {asker.english_name} finds a person by ID card",
    )
    _timeline(story, clinician, token, city, person, mine)
    by_qido = {
        value(study, "0020000D")
        for study in clinician.get(
            "/dicom-web/studies", token, "application/dicom+json", PatientID=mine.patient_id
        ).json()
    }
    target = scu.Node(
        host=given.dimse_addresses[0],
        port=given.dimse_port,
        called=given.ae_title,
        calling=asker.ae_title,
    )
    matches = list(scu.find(target, Level.STUDY, [("PatientID", mine.patient_id)]))
    by_find = {str(match.StudyInstanceUID) for match in matches}
    for door, found in (("FHIR", by_fhir), ("QIDO-RS", by_qido), ("C-FIND", by_find)):
        story.claim(
            found == wanted,
            f"{door}：{len(found)} 个检查，来自 {_hospitals(city, found)}",
            f"{door}: {len(found)} studies, of {_hospitals(city, found)}",
        )
    story.claim(
        {str(match.PatientID) for match in matches} == {mine.patient_id},
        f"C-FIND 的每个检查都用本院患者号 {mine.patient_id}",
        f"C-FIND answers each of them under the asker's own number {mine.patient_id}",
    )
    elsewhere = next(
        one for one in city.studies if one.person == person and one.hospital != asker.code
    )
    _open(story, clinician, token, city, elsewhere.study_instance_uid)
    _withdraw(story, exchange, clinician, token, target, mine, elsewhere.study_instance_uid)
    _who_looked(story, exchange, mine, asker)


def _timeline(
    story: Story, clinician: Clinician, token: str, city: City, person: str, mine: Record
) -> None:
    card = city.person(person).resident_id
    found = bundle(clinician, token, "/fhir/Patient", identifier=f"urn:oid:{RESIDENT_ID}|{card}")
    known_at = {one.hospital for one in city.records_of(person) if one.resident_id is not None}
    story.claim(
        len(found)
        >= len(known_at & {one.hospital for one in city.studies if one.person == person}),
        f"身份证 {card[:6]}********{card[-4:]}：{len(found)} 份病案",
        f"ID card {card[:6]}********{card[-4:]}: {len(found)} patient records",
    )
    studies = bundle(
        clinician,
        token,
        "/fhir/ImagingStudy",
        patient=patient_id(clinician, token, mine),
        _include="ImagingStudy:endpoint",
    )
    timeline = [one for one in studies if one["resourceType"] == "ImagingStudy"]
    by_uid = {one.study_instance_uid: one for one in city.studies}
    story.table(
        [
            say("日期", "Date"),
            say("医院", "Hospital"),
            say("类型", "Modality"),
            say("检查", "Study"),
            say("实例", "Instances"),
        ],
        [
            [
                str(one.get("started", ""))[:10],
                city.hospital(by_uid[one["id"]].hospital).name,
                " ".join(sorted(coding["code"] for coding in one.get("modality", ()))),
                str(one.get("description", "")),
                str(one["numberOfInstances"]),
            ]
            for one in sorted(timeline, key=lambda one: str(one.get("started", "")))
        ],
    )


def _open(story: Story, clinician: Clinician, token: str, city: City, study: str) -> None:
    known = next(one for one in city.studies if one.study_instance_uid == study)
    answer = clinician.get(
        f"/dicom-web/studies/{study}",
        token,
        'multipart/related; type="application/dicom"; transfer-syntax=*',
    )
    parts = answer.data.count(b"\x00DICM\x02\x00")
    story.claim(
        answer.status == 200 and parts == known.number_of_instances,
        f"WADO-RS：打开{city.hospital(known.hospital).name}的检查，"
        f"{parts} 个实例，{len(answer.data) / 1e6:.1f} MB",
        f"WADO-RS: opened a study of {city.hospital(known.hospital).english_name}, "
        f"{parts} instances, {len(answer.data) / 1e6:.1f} MB",
    )


def _withdraw(
    story: Story,
    exchange: Exchange,
    clinician: Clinician,
    token: str,
    target: scu.Node,
    mine: Record,
    study: str,
) -> None:
    story.chapter("患者撤回共享同意", "The patient withdraws consent to sharing")
    with exchange.on_behalf_of(_OPERATOR) as access:
        consent.opt_out(access, registered_code(mine.hospital), mine.patient_id)
    dicom = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    refused = clinician.get(f"/dicom-web/studies/{study}", token, dicom)
    read = clinician.get(f"/fhir/ImagingStudy/{study}", token, "application/fhir+json")
    asked = {"StudyInstanceUID": study}
    qido = clinician.get("/dicom-web/studies", token, "application/dicom+json", **asked)
    nothing = not (qido.json() if qido.data else [])
    find = list(scu.find(target, Level.STUDY, [("StudyInstanceUID", study)]))
    story.claim(refused.status == 403, "WADO-RS：拒绝（403）", "WADO-RS: refused (403)")
    reason = read.json()["issue"][0].get("diagnostics", "") if read.status == 403 else ""
    story.claim(read.status == 403, f"FHIR：拒绝，“{reason}”", f"FHIR: refused, “{reason}”")
    story.claim(nothing, "QIDO-RS：没有结果", "QIDO-RS: nothing")
    story.claim(not find, "C-FIND：没有结果", "C-FIND: nothing")
    with exchange.on_behalf_of(_OPERATOR) as access:
        consent.opt_in(access, registered_code(mine.hospital), mine.patient_id)
    again = clinician.get(f"/fhir/ImagingStudy/{study}", token, "application/fhir+json")
    story.claim(again.status == 200, "再次同意后可见", "Visible again after consenting again")


def _who_looked(story: Story, exchange: Exchange, mine: Record, asker: Hospital) -> None:
    story.chapter("谁看过这位患者", "Who looked at this patient")
    zone = ZoneInfo("Asia/Shanghai")
    with exchange.on_behalf_of(_OPERATOR) as access:
        of = (registered_code(asker.code), mine.patient_id)
        looked = [
            one
            for one in trail.records(access, limit=100, patient=of)
            if one["action"] in {Action.SEARCH, Action.RETRIEVE} and one["door"] != "worker"
        ]
        findings = [
            one
            for one in audit.verify(access.session, exchange.signing_key, exchange.objects)
            if not isinstance(one, int)
        ]
    rows = [_audit_row(one, zone) for one in reversed(looked[:10])]
    story.table(
        [
            say("序号", "No."),
            say("时间", "Time"),
            say("谁", "Who"),
            say("途径", "Door"),
            say("行为", "Action"),
            say("结果", "Outcome"),
            say("原因", "Reason"),
        ],
        rows,
    )
    story.claim(bool(rows), "每次查看都已记录", "Every look is recorded")
    story.claim(
        not findings,
        "审计链完整：无人改动、删除或调换过任何一条",
        "The audit chain is whole: nothing altered, removed or reordered",
    )


def _audit_row(told: dict[str, Any], zone: ZoneInfo) -> list[str]:
    at = datetime.fromisoformat(told["recorded"]).astimezone(zone)
    return [
        str(told["sequence"]),
        f"{at:%H:%M:%S}",
        str(told["requester"]),
        str(told["door"]),
        say(*ACTIONS.get(told["action"], (told["action"], told["action"]))),
        say(*OUTCOMES[Outcome(told["outcome"])]),
        in_words(str(told["reason"])),
    ]


def _register(exchange: Exchange, given: Settings, city: City) -> dict[str, Clinician]:
    """Register the hospitals with their application entities, and a clinician at each."""
    http = urllib3.PoolManager(timeout=urllib3.Timeout(connect=5, read=60), retries=False)
    clinicians = {}
    for hospital in city.hospitals:
        code = registered_code(hospital.code)
        name, password = f"dr.{code}", users.generated_password()
        with exchange.on_behalf_of(_OPERATOR) as access:
            organizations.register(
                access,
                code=code,
                name=hospital.name,
                credit_code=hospital.unified_social_credit_code,
                issuer=hospital.issuer_oid,
                entities=[Entity(title=hospital.ae_title, address="127.0.0.1")],
            )
        with exchange.on_behalf_of(_OPERATOR) as access:
            users.add(
                access,
                name=name,
                display_name=name,
                role=Role.CLINICIAN,
                organization=code,
                password=password,
            )
        clinicians[hospital.code] = Clinician(http, given.http_url, name, password)
    return clinicians


def _others(exchange: Exchange, code: str) -> Iterator[tuple[str, str, str]]:
    """The others who sign in, of one hospital and of the region: what they are, name, password."""
    for what, name, role, organization in (
        (say("医院系统", "Hospital's system"), f"ris.{code}", Role.SYSTEM, code),
        (say("医院管理员", "Its administrator"), f"admin.{code}", Role.ADMINISTRATOR, code),
        (say("平台管理员", "Operator"), "operator", Role.ADMINISTRATOR, None),
    ):
        password = users.generated_password()
        with exchange.on_behalf_of(_OPERATOR) as access:
            users.add(
                access,
                name=name,
                display_name=name,
                role=role,
                organization=organization,
                password=password,
            )
        yield what, name, password


def _send(console: Console, given: Settings, city: City, home: Path) -> tuple[int, float]:
    """All hospitals send all they have, each in an association of its own; stored, seconds."""
    files: dict[str, list[scu.File]] = {
        hospital.code: [
            one for one in scu.files([home / "city" / hospital.code]) if isinstance(one, scu.File)
        ]
        for hospital in city.hospitals
    }
    began = time.monotonic()
    with progress_of(console) as progress:
        bars = {
            hospital.code: progress.add_task(
                say(hospital.name, hospital.english_name), total=len(files[hospital.code])
            )
            for hospital in city.hospitals
        }

        def send(hospital: Hospital) -> int:
            target = scu.Node(
                host=given.dimse_addresses[0],
                port=given.dimse_port,
                called=given.ae_title,
                calling=hospital.ae_title,
            )
            stored = 0
            for sent in scu.send(target, files[hospital.code]):
                stored += sent.stored
                progress.advance(bars[hospital.code])
                if not sent.stored:
                    progress.console.print(f"  {sent.file.path.name}: {sent.answer}", markup=False)
            return stored

        with ThreadPoolExecutor(len(city.hospitals)) as pool:
            stored = sum(pool.map(send, city.hospitals))
    return stored, time.monotonic() - began


def _settings(data: Path) -> Settings:
    """Settings of an exchange on loopback, at the usual ports where they are free."""
    http, dimse = _port(8080), _port(11112)
    os.environ.update(
        {
            "EXCHANGE_DATA": str(data),
            "EXCHANGE_HTTP_ADDRESSES": "127.0.0.1",
            "EXCHANGE_HTTP_PORT": str(http),
            "EXCHANGE_DIMSE_ADDRESSES": "127.0.0.1",
            "EXCHANGE_DIMSE_PORT": str(dimse),
            "EXCHANGE_LOG_LEVEL": "warning",
        }
    )
    return settings.load()


def _port(usual: int) -> int:
    for port in (usual, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unavailable("there is no free port on loopback")


@contextmanager
def _serving(home: Path) -> Iterator[None]:
    """`exchange serve`, in a process of its own, until the end of the block."""
    ready = home / "ready.json"
    command = [sys.executable, "-m", "exchange_server", "serve", "--ready-file", str(ready)]
    with (home / "exchange.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    shown = (home / "exchange.log").read_text(errors="replace")[-2000:]
                    raise Unavailable(f"the exchange did not start:\n{shown}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _someone(city: City) -> tuple[Hospital, str]:
    """A hospital, and a person known there by ID card whose studies lie at most hospitals."""
    best: tuple[int, int, Hospital, str] | None = None
    for person in city.people:
        at = {one.hospital for one in city.studies if one.person == person.id}
        records = city.records_of(person.id)
        plain = all(one.resident_id == person.resident_id for one in records)
        for hospital in city.hospitals:
            own = any(one.hospital == hospital.code and one.hospital in at for one in records)
            others = len(at - {hospital.code})
            count = sum(one.person == person.id for one in city.studies)
            if own and others and plain and (best is None or (others, count) > best[:2]):
                best = (others, count, hospital, person.id)
    if best is None:
        raise Invalid("this size of the city has nobody who is known at two hospitals")
    return best[2], best[3]


def _hospitals(city: City, studies: set[str]) -> str:
    at = {one.hospital for one in city.studies if one.study_instance_uid in studies}
    known = [one for one in city.hospitals if one.code in at]
    return say("、".join(one.name for one in known), ", ".join(one.english_name for one in known))


def _until(ask: Callable[[], set[str]], enough: Callable[[set[str]], bool]) -> set[str]:
    """Ask again until it is enough, or `PATIENCE` is over."""
    deadline = time.monotonic() + PATIENCE
    while not enough(found := ask()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _wait_for_worker(exchange: Exchange) -> None:
    """Until it has derived what there is to derive of the images; its rounds never end."""

    def waiting() -> set[str]:
        with exchange.database.reading() as session:
            left = {kind for kind, dead in jobs.backlog(session) if not dead}
            return left & {jobs.IDENTIFY, jobs.REFRESH}

    _until(waiting, lambda kinds: not kinds)


def _wait_for_signal() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    signal.sigwait({signal.SIGINT, signal.SIGTERM})

"""Cross-hospital query: with the asker's own numbers, and only what the asker may see."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from region import ADMINISTRATOR, ID_CARD, Region, region
from sqlalchemy import Connection, event, insert, select

from exchange import beside, consent, query
from exchange.errors import Invalid, NotFound, Refused, TooBroad
from exchange.own_numbers import Number
from exchange.query import Answer
from exchange.summaries import Summary
from exchange_storage import search
from exchange_storage.records import AuditRecord, Patient
from exchange_storage.search import (
    AnyOf,
    Criterion,
    Identifier,
    Level,
    Match,
    ModalitiesInStudy,
    NamePart,
    Pattern,
    Prefix,
    Range,
    SamePerson,
    Values,
)

OTHER_CARD = "110105194912310046"


def fill(city: Region) -> Region:
    """Wang XiaoDong at Beicheng (A1) and Nanhu (B7); Li Na at Beicheng (A2); one without number.

    Of Wang, Beicheng has a CT with an SR and an older MR, Nanhu a CT; of Li, Beicheng an MR.
    """

    def wang(study: int, instance: int, code: str = "beicheng", **told: str) -> None:
        number = {"beicheng": "A1", "nanhu": "B7"}[code]
        city.send(
            code,
            patient=number,
            study=f"1.2.{study}",
            series=told.pop("series", None),
            instance=f"1.4.{instance}",
            card=ID_CARD,
            **told,  # type: ignore[arg-type]
        )

    wang(1, 1)
    wang(1, 2)
    wang(1, 3, series="1.3.1", Modality="SR")
    wang(2, 4, Modality="MR", StudyDate="20260101", StudyTime="080000")
    wang(3, 5, code="nanhu", StudyDate="20261102")
    city.send(
        "beicheng", patient="A2", study="1.2.4", instance="1.4.6", Modality="MR", card=OTHER_CARD,
        PatientName="Li^Na=李^娜", AccessionNumber="ACC_1", StudyDate="20261103",
    )  # fmt: skip
    city.send("dongshan", patient="", study="1.2.5", instance="1.4.7", StudyDate="")
    city.identify()
    return city


@pytest.fixture(scope="module")
def filled(lasting_database_url: str) -> Iterator[Region]:
    """The filled region on each kind of database, for tests that only ask."""
    with region(lasting_database_url) as made:
        yield fill(made)


@pytest.fixture
def changing(city: Region) -> Region:
    """The same region, for tests that change something."""
    return fill(city)


def ask(
    city: Region,
    code: str,
    *criteria: Criterion,
    level: Level = Level.STUDY,
    limit: int = 100,
    offset: int = 0,
    order: str = "",
    too_broad: str | None = None,
) -> Answer:
    with city.exchange.on_behalf_of(city.clinician(code)) as access:
        return query.find(
            access, level, criteria, limit=limit, offset=offset, total=True, order=order,
            too_broad=too_broad, asked="as it came",
        )  # fmt: skip


def studies(answer: Answer) -> list[str]:
    """The last number of each study found, in order."""
    return [one.study.study_instance_uid.rpartition(".")[2] for one in answer.found if one.study]


def own(city: Region, code: str, *values: str) -> search.Number:
    return search.Number(city.ids[code], Values(values))


def test_a_hospital_asks_with_its_own_number_and_is_answered_under_it(filled: Region) -> None:
    answer = ask(filled, "nanhu", own(filled, "nanhu", "B7"))

    assert studies(answer) == ["3", "1", "2"]
    assert {one.number for one in answer.found} == {Number("B7", "2.25.102")}
    assert [one.owner.code for one in answer.found] == ["nanhu", "beicheng", "beicheng"]


def test_the_same_number_at_another_hospital_is_nobody(filled: Region) -> None:
    assert studies(ask(filled, "nanhu", own(filled, "nanhu", "A1"))) == []
    assert studies(ask(filled, "dongshan", own(filled, "dongshan", "B7"))) == []


def test_a_number_with_its_issuer_is_found_by_everybody(filled: Region) -> None:
    answer = ask(filled, "dongshan", own(filled, "beicheng", "A1"))

    assert studies(answer) == ["3", "1", "2"]
    assert [one.number for one in answer.found] == [
        Number("B7", "2.25.102"),  # dongshan has no number of its own for the person
        Number("A1", "2.25.101"),
        Number("A1", "2.25.101"),
    ]


def test_an_unknown_issuer_finds_nothing(filled: Region) -> None:
    assert ask(filled, "nanhu", AnyOf(())) == Answer((), more=False, total=0)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("A*", ["4", "3", "1", "2"]), ("A?", ["4", "3", "1", "2"]), ("?2", ["4"]), ("a*", [])],
)
def test_a_number_may_have_wildcards(filled: Region, pattern: str, found: list[str]) -> None:
    number = search.Number(filled.ids["beicheng"], Pattern(pattern))

    assert studies(ask(filled, "beicheng", number)) == found


def test_a_record_without_a_number_is_found_by_no_number(filled: Region) -> None:
    number = search.Number(filled.ids["dongshan"], Pattern("?*"))

    assert studies(ask(filled, "nanhu", number)) == []


@pytest.mark.parametrize(
    "name",
    ["Wang^XiaoDong", "WANG XIAODONG", "王小东", "王^小东", "Ｗａｎｇ^Xiǎodōng", "xiaodong wang"],
)
def test_a_name_is_found_in_every_spelling(filled: Region, name: str) -> None:
    answer = ask(filled, "dongshan", Match("PatientName", Values((name,))))

    assert studies(answer) == ["3", "1", "2", "5"]


@pytest.mark.parametrize(
    ("criterion", "found"),
    [
        (Match("PatientName", Pattern("Li*")), "4"),
        (Match("PatientName", Pattern("*娜")), "4"),
        (NamePart(None, Prefix("li")), "4"),
        (Match("StudyDate", Range("20261102", "20261103")), "43"),
        (Match("StudyDate", Range("20261102", None)), "43"),
        (Match("StudyDate", Range(None, "20260630")), "2"),
        (Match("StudyDate", Values(("20261101",))), "1"),
        (Match("StudyTime", Range("08", "08")), "2"),
        (ModalitiesInStudy(Values(("SR",))), "1"),
        (ModalitiesInStudy(Values(("MR", "SR"))), "412"),
        (ModalitiesInStudy(Pattern("M?")), "42"),
        (ModalitiesInStudy(Values(("ct",))), ""),
        (Match("StudyInstanceUID", Values(("1.2.3", "1.2.2", "1.2.404"))), "32"),
        (Match("StudyInstanceUID", Values(tuple(f"1.2.{n}" for n in range(1024)))), "43125"),
        (Match("AccessionNumber", Values(("ACC_1",))), "4"),
        (Match("AccessionNumber", Pattern("ACC?1")), "4"),
        (Match("AccessionNumber", Pattern("A__*")), ""),
        (Match("AccessionNumber", Values(("' OR 1=1 --",))), ""),
        (Match("PatientBirthDate", Values(("19491231",))), "43125"),
        (Identifier(ID_CARD), "312"),
        (Identifier(ID_CARD, "1.2.3"), ""),
        (SamePerson(1), "312"),
    ],
)
def test_studies_are_found_newest_first(filled: Region, criterion: Criterion, found: str) -> None:
    assert studies(ask(filled, "nanhu", criterion)) == list(found)


def test_series_and_instances_are_found_below_their_study(filled: Region) -> None:
    study = Match("StudyInstanceUID", Values(("1.2.1",)))
    series = ask(filled, "nanhu", study, level=Level.SERIES)
    instances = ask(filled, "nanhu", study, Match("Modality", Values(("CT",))), level=Level.IMAGE)

    assert [one.series.modality for one in series.found if one.series] == ["CT", "SR"]
    assert [one.summary.instances for one in series.found] == [2, 1]
    assert [one.instance.sop_instance_uid for one in instances.found if one.instance] == [
        "1.4.1",
        "1.4.2",
    ]
    assert (series.total, instances.total) == (2, 2)


def test_a_summary_counts_primary_instances_only(changing: Region) -> None:
    changing.send("beicheng", patient="A1", study="1.2.1", instance="1.4.1", body=b"others")

    (answer,) = ask(changing, "nanhu", Match("StudyInstanceUID", Values(("1.2.1",)))).found
    assert answer.summary == Summary(
        modalities=("CT", "SR"),
        sop_classes=("1.2.840.10008.5.1.4.1.1.2",),
        studies=1,
        series=2,
        instances=3,
        image_series=2,
        images=3,
    )
    images = ask(changing, "nanhu", level=Level.IMAGE)
    assert images.total == len(images.found) == 7

    patients = ask(changing, "nanhu", level=Level.PATIENT)
    assert [one.summary.studies for one in patients.found] == [2, 1, 1, 1]
    with changing.exchange.on_behalf_of(changing.clinician("nanhu")) as access:
        described = query.study(access, "1.2.1")
        (contents,) = query.contents(access, [described]).values()
    assert described.summary == answer.summary
    assert [len(one.instances) for one in contents] == [2, 1]


def test_what_is_withheld_is_counted_in_the_trail_and_not_told(changing: Region) -> None:
    with changing.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "A1")

    answer = ask(changing, "dongshan", Match("PatientSex", Values(("F",))))

    assert studies(answer) == ["4", "5"]
    assert answer.total == 2
    assert not answer.more
    with changing.exchange.database.reading() as session:
        last = session.scalars(select(AuditRecord).order_by(AuditRecord.sequence.desc())).first()
    assert last is not None
    detail = json.loads(last.content)["detail"]
    assert (detail["answered"], detail["withheld"]) == (2, 3)
    assert b64decode(detail["asked"]) == b"as it came"
    assert "Wang" not in last.content


def test_a_question_with_too_many_answers_is_refused_and_audited(filled: Region) -> None:
    with pytest.raises(TooBroad, match="ask for less"):
        ask(filled, "nanhu", limit=4, too_broad="ask for less")
    assert len(ask(filled, "nanhu", limit=5, too_broad="ask for less").found) == 5

    with filled.exchange.database.reading() as session:
        newest = select(AuditRecord).order_by(AuditRecord.sequence.desc()).offset(1)
        failed = session.scalars(newest).first()
    assert failed is not None
    assert failed.outcome == "failed"
    assert '"reason":"ask for less"' in failed.content
    assert b64decode(json.loads(failed.content)["detail"]["asked"]) == b"as it came"


@pytest.mark.parametrize(
    ("order", "first"), [("changed", "1"), ("-changed", "5"), ("started", "5"), ("-started", "4")]
)
def test_an_order_can_be_asked_for(filled: Region, order: str, first: str) -> None:
    assert studies(ask(filled, "nanhu", order=order))[0] == first


@pytest.mark.parametrize("order", ["name", "id; DROP TABLE study", "--changed"])
def test_an_order_that_there_is_not_is_invalid(filled: Region, order: str) -> None:
    with pytest.raises(Invalid):
        ask(filled, "nanhu", order=order)


def test_an_administrator_administers_and_does_not_search(filled: Region) -> None:
    with (
        pytest.raises(Refused, match="administrator may not search"),
        filled.exchange.on_behalf_of(ADMINISTRATOR) as access,
    ):
        query.find(access, Level.STUDY, [], limit=10)


def test_a_record_and_its_links_are_described_to_whom_they_may_be(changing: Region) -> None:
    with changing.exchange.on_behalf_of(changing.clinician("dongshan")) as access:
        wang = query.patient(access, 1)
        (other,) = beside.links(access, [wang.patient])[1]
        assert query.patient(access, other).patient.patient_id == "B7"
        assert query.seen(access, [1, 2, 404]) == {1, 2}
        assert [one.value for one in beside.identifiers(access, [1])[1]] == [ID_CARD]
    with changing.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "B7")

    with changing.exchange.on_behalf_of(changing.clinician("dongshan")) as access:
        assert query.seen(access, [1, 2, 404]).isdisjoint({1})
        assert beside.identifiers(access, [1]) == {}
        assert beside.links(access, [wang.patient]) == {1: ()}
    for unknown in (1, 404, 2**40):
        with (
            pytest.raises(NotFound),
            changing.exchange.on_behalf_of(changing.clinician("dongshan")) as access,
        ):
            query.patient(access, unknown)


@pytest.mark.parametrize(
    "odd",
    [
        Match("PatientName", Values(("Wang\0",))),
        Match("PatientID", Pattern("\0*")),
        Match("AccessionNumber", Values(("\ud800",))),
        Match("Rows", Values(("9" * 30, "--1", "²"))),
        Match("StudyDescription", Pattern("*" * 60_000 + "x" * 60_000)),
        Identifier("\0"),
        NamePart(None, Prefix("\0")),
    ],
)
def test_no_question_is_odd_enough_to_break_anything(filled: Region, odd: Criterion) -> None:
    try:
        answer = ask(filled, "nanhu", odd, level=Level.IMAGE)
    except Invalid:
        return
    assert answer.found == ()


@pytest.fixture
def many(city: Region) -> Region:
    """Twelve patients with a study each, of two hospitals, half of them of the same day."""
    for number in range(12):
        city.send(
            ("beicheng", "nanhu")[number % 2],
            patient=f"P{number}",
            study=f"1.2.{number}",
            instance=f"1.4.{number}",
            StudyDate=f"202611{1 + number // 2 * (number % 2):02}",
        )
    return city


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(withdrawn=st.sets(st.integers(0, 11), max_size=8), size=st.integers(1, 7))
def test_pages_put_together_are_the_whole_answer_whoever_has_opted_out(
    many: Region, withdrawn: set[int], size: int
) -> None:
    def state(wanted: set[int]) -> None:
        with many.exchange.on_behalf_of(ADMINISTRATOR) as access:
            for number in range(12):
                say = consent.opt_out if number in wanted else consent.opt_in
                say(access, ("beicheng", "nanhu")[number % 2], f"P{number}")

    def pages() -> list[Answer]:
        answers: list[Answer] = []
        while not answers or answers[-1].more:
            answers.append(ask(many, "dongshan", limit=size, offset=size * len(answers)))
        return answers

    state(withdrawn)
    answers = pages()
    whole: Sequence[str] = [uid for answer in answers for uid in studies(answer)]

    assert {answer.total for answer in answers} == {12 - len(withdrawn)}
    assert sorted(whole, key=int) == [str(n) for n in range(12) if n not in withdrawn]
    assert whole == studies(ask(many, "dongshan"))
    assert all(len(answer.found) == size for answer in answers[:-1])


def steps(city: Region, question: Sequence[Criterion]) -> int:
    """What a question costs SQLite, in hundreds of its machine's instructions."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        driver = access.session.connection().connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(count, 100)
        try:
            assert query.find(access, Level.STUDY, question, limit=10).found
        finally:
            driver.set_progress_handler(None, 0)
    return counted


@pytest.mark.parametrize(("counts", "begun"), [(False, 0), (True, 1)])
def test_a_question_that_one_statement_answers_is_asked_without_a_transaction(
    filled: Region, counts: bool, begun: int
) -> None:
    begins: list[bool] = []

    def note(connection: Connection) -> None:
        begins.append(not connection.get_execution_options().get("exchange_writes"))

    event.listen(filled.exchange.database.engine, "begin", note)
    try:
        with filled.exchange.on_behalf_of(filled.clinician("beicheng")) as access:
            mine = own(filled, "beicheng", "A1")
            answer = query.find(access, Level.STUDY, [mine], limit=9, summarize=counts)
    finally:
        event.remove(filled.exchange.database.engine, "begin", note)

    assert len(answer.found) == 3
    assert sum(begins) == begun


def test_a_question_costs_no_more_at_a_hospital_of_many_patients(tmp_path: Path) -> None:
    with region(f"sqlite:///{tmp_path / 'index.sqlite'}") as city:
        city.send("beicheng", patient="P1", study="1.2.1", instance="1.4.1")  # of no person
        city.send("beicheng", patient="P2", study="1.2.2", instance="1.4.2", card=ID_CARD)
        city.send("nanhu", patient="N7", study="1.2.3", instance="1.4.3", card=ID_CARD)
        city.identify()
        questions: list[list[Criterion]] = [
            [Match("StudyDate", Values(("20261101",)))],
            [search.Number(city.ids["beicheng"], Values(("P1",)))],
            [search.Number(city.ids["beicheng"], Values(("P2",)))],
        ]
        before = [steps(city, question) for question in questions]
        with city.exchange.database.writing() as session:
            row = dict(session.execute(select(Patient.__table__).limit(1)).mappings().one())
            crowd = [row | {"id": 1000 + n, "patient_id": f"A{n}"} for n in range(5000)]
            session.execute(insert(Patient), crowd)
            session.commit()
        after = [steps(city, question) for question in questions]
        assert all(many <= few + 2 for few, many in zip(before, after, strict=True))

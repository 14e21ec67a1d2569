"""Criteria on clinical resources to SELECT, for both databases (see `resource_criteria`).

Each condition can be put in two ways: as a list of the rows that fulfil it, looked up by an index,
or as a look into one row. Of a question's conditions one, the most selective, gives the list, and
the others look into its rows: neither database has to be clever to be quick. Those that need
nothing but index rows do so where the list is made, before a resource itself is looked up.

Where all conditions have many rows, one is walked in the order of its index until a page is full
(`Conditions.walked`): what a page costs does not grow with how much is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    and_,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.orm import aliased

from exchange_storage import search
from exchange_storage.constructs import listed, looked_up, row_number, unindexed
from exchange_storage.criteria import Level
from exchange_storage.forms import looked_into
from exchange_storage.records import Patient, Resource, SearchReference, SearchUri, Study
from exchange_storage.resource_criteria import NATIVE
from exchange_storage.resource_leaders import LISTS_ROWS, first, is_of_index_rows, is_walkable
from exchange_storage.resource_lookups import (
    KEYS,
    Row,
    key_and_target,
    listed_apart,
    looked_up_by,
    of_kind,
    table_of,
    whose_it_is,
    within_a_resource,
)
from exchange_storage.resource_values import (
    TABLES,
    among_words,
    of_parameters,
    one_of_binds,
    passes,
    word,
)
from exchange_storage.rows import there_is
from exchange_storage.search import Binds


class Decided(Protocol):
    """What the policy makes of each level of a question: nothing withheld is found through it."""

    def resource(self, resource: type[Resource]) -> ColumnElement[bool]:
        """Whether the asker may see the resource (an alias)."""

    def native(self, level: Level, column: Any, condition: ColumnElement[bool]) -> Select[Any]:
        """`column` of the records of a level that are served, and that the asker may see."""


class Conditions:
    """Makes conditions of forms, each level of them decided.

    Along the first links, `one_by_one` of them, what a reference leads to is looked at for each row
    by itself, for questions that look at few rows; else all that it may lead to is listed once.
    """

    def __init__(self, decided: Decided, *, one_by_one: int = 0) -> None:
        self._decided = decided
        self._one_by_one = one_by_one
        self._further = Conditions(decided, one_by_one=one_by_one - 1) if one_by_one else self

    def held(
        self, form: Any, resource: type[Resource], binds: Binds, leader: int | None = None
    ) -> ColumnElement[bool]:
        """The condition of a form on `resource`.

        Of the parts of ``every`` the one at `leader` is looked up first, -1 for none of them;
        None leaves it to what they look like.
        """
        match form:
            case ("every", parts):
                if leader is None:
                    leader = first(parts)
                if leader >= 0 and parts[leader][0] in LISTS_ROWS:
                    return self._narrowed(parts, leader, resource, binds)
                return and_(
                    true(),
                    *[
                        self._listed(part, resource, binds)
                        if number == leader
                        else self._looked_at(part, Row.of(resource), binds)
                        for number, part in enumerate(parts)
                    ],
                )
            case _:
                return self._listed(form, resource, binds)

    def walked(
        self, form: Any, leader: int, binds: Binds, dialect: str, after: Any = None
    ) -> tuple[Any, type[Resource], ColumnElement[bool]]:
        """Index rows that a part of ``every`` lists, their resources, and the condition on them.

        The first two are aliases, to be joined by the row number, in whose order its index has
        them; of each resource one fulfils the condition. The part is `walkable`; with `after` only
        the rows behind that one are meant.
        """
        used: list[Any] = []
        part = form[1][leader]
        value = aliased(table_of(part))
        resource = looked_up_by(value.resource_id, dialect)
        rows, beside = self._parted(form[1], leader, value, resource, binds, used, in_order=True)
        before = aliased(table_of(part))
        # It speaks of the resource, so that it is looked at last.
        same = self._rows(part, before, iter(used)).where(
            before.resource_id == resource.id,
            tuple_(*within_a_resource(before)) < tuple_(*within_a_resource(value)),
        )
        behind = true() if after is None else value.resource_id > after
        repeated = there_is(same.correlate(value, resource))
        return value, resource, and_(behind, _all(rows), *beside, ~repeated)

    def few(self, part: Any, binds: Binds) -> Select[Any] | CompoundSelect[Any] | None:
        """The index rows that a condition looks up, to see whether they are few.

        Of each of its tests by themselves: SQLite would first find all that pass one of several.
        """
        match part:
            case ("indexed", table, parameters, tests):
                value = aliased(TABLES[table])
                one, *others = (
                    select(value.resource_id).where(
                        of_parameters(value, parameters), passes(value, (test,), binds)
                    )
                    for test in tests
                )
                if others:
                    return one.union_all(*others)
                return one.order_by(value.resource_id) if is_walkable(part) else one
            case ("referred", _, _, ("selected", _, criterion), ""):
                parts = criterion[1] if criterion[0] == "every" else (criterion,)
                return self.few(parts[0], binds) if len(parts) == 1 else None
        return None

    def led_to(self, inner: Any, binds: Binds, names: str = "") -> Select[Any]:
        """The logical ids of what a chain leads through, as far as it may be seen; or its names."""
        return self._names(inner, names, binds) if names else self._selected(inner, binds)[1]

    def links(self, level: Level, form: Any, binds: Binds) -> ColumnElement[bool]:
        """The condition of a link on the patient record or study, see `search.Links`."""
        match form:
            case ("written", criterion, True):
                one = aliased(Resource)
                of_record: Select[Any] = select(literal_column("1")).where(
                    one.kind == word("Patient"),
                    one.logical_id == KEYS[Level.PATIENT],
                    ~one.deleted,
                    self._looked_at(criterion, Row.of(one), binds),
                )
                return there_is(of_record.correlate(Patient))
            case ("written", criterion, False):
                one = aliased(Resource)
                rows = (
                    select(row_number(one.logical_id))
                    .where(
                        of_kind(one, "Patient", criterion),
                        ~one.deleted,
                        self.held(criterion, one, binds),
                    )
                    .correlate(None)
                )
                return listed_apart(Patient.id, rows, leads=True)
            case ("pointed", kind, parameters, inner, _):
                reference = aliased(SearchReference)
                column, target = key_and_target(level, reference)
                rows = self._referring(reference, target, kind, parameters, inner, binds)
                return listed_apart(column, rows, leads=True)
            case ("of studies", criteria):
                condition = search.condition(criteria, self.links, binds)
                studies = self._decided.native(Level.STUDY, Study.patient_id, condition)
                return listed_apart(Patient.id, studies, leads=True)
            case ("of person", few, criteria):
                of_one = and_(
                    search.condition(criteria, self.links, binds), Patient.person_id.is_not(None)
                )
                persons = self._decided.native(Level.PATIENT, Patient.person_id, of_one)
                if few:
                    return and_(listed(Patient.person_id, persons.scalar_subquery()))
                return listed_apart(Patient.person_id, persons)
            case ("of several",):
                known = Patient.person_id.is_not(None)
                persons = self._decided.native(Level.PATIENT, Patient.person_id, known)
                several = persons.group_by(Patient.person_id).having(func.count() > 1)
                return and_(known, listed_apart(Patient.person_id, several))
            case ("person", size):
                return one_of_binds(Patient.person_id, size, binds)
        raise TypeError("not a form of a link")

    def links_of_several(self) -> search.Links:
        """What makes `links`, where a record has to fulfil several conditions.

        The records that are referred to are listed by index rows alone; whether one is by what the
        asker may see is looked at once all the rest is fulfilled. Patients of the first list are
        looked up in their order, until they are enough.
        """
        lists = 0

        def links(level: Level, form: Any, binds: Binds) -> ColumnElement[bool]:
            nonlocal lists
            match form:
                case ("pointed", _, _, ("selected", _, (table, *_)), _) if table in LISTS_ROWS:
                    lists += 1
                    used: list[Any] = []
                    column, rows = self._by_index_rows(level, form, _noting(binds, used))
                    leads = lists == 1 and level is Level.PATIENT
                    pointed = (
                        looked_up(column, rows.scalar_subquery()) if leads else column.in_(rows)
                    )
                    return and_(pointed, self.pointed_at(level, form, iter(used)))
            return self.links(level, form, binds)

        return links

    def _by_index_rows(self, level: Level, form: Any, binds: Binds) -> tuple[Any, Any]:
        """A column of the records to which resources point, and its values that index rows tell of.

        Where those say whose a resource is, only of what is about several are references read.
        """
        _, kind, parameters, (_, _, criterion), in_compartment = form
        value, reference = aliased(table_of(criterion)), aliased(SearchReference)
        rows = self._rows(criterion, value, binds)
        said = whose_it_is(value) if in_compartment else None
        several = rows if said is None else rows.where(said[1])
        column, target = key_and_target(level, reference)
        pointed: Any = select(target).where(
            of_parameters(reference, parameters),
            reference.target_kind == word(kind),
            reference.resource_id.in_(several),
        )
        if said is not None:
            whose, is_unsaid = said
            pointed = rows.with_only_columns(whose).where(~is_unsaid).union_all(pointed)
        return column, pointed

    def pointed_at(self, level: Level, form: Any, binds: Binds) -> ColumnElement[bool]:
        """As `links` for a link by which resources point to a record, which is looked at itself."""
        _, kind, parameters, inner, _ = form
        rows = self._pointing(kind, parameters, inner, KEYS[level], binds)
        return there_is(rows.correlate(Patient if level is Level.PATIENT else Study))

    def _pointing(
        self, kind: str, parameters: Sequence[str], inner: Any, key: Any, binds: Binds
    ) -> Select[Any]:
        """The references to a row of `kind`, each from a resource that is looked at itself."""
        _, source, criterion = inner
        reference, one = aliased(SearchReference), aliased(Resource)
        by_index = is_of_index_rows(criterion)
        row = Row(reference, reference.resource_id) if by_index else Row.of(one)
        rows: Select[Any] = (
            select(literal_column("1"))
            .select_from(reference)
            .join(one, one.id == reference.resource_id)
            .where(
                of_parameters(reference, parameters),
                reference.target_kind == word(kind),
                reference.target == key,
                self._further._looked_at(criterion, row, binds),
                unindexed(one.kind) == word(source),
                ~one.deleted,
                self._decided.resource(one),
            )
        )
        return rows

    # A condition as a list of rows.

    def _narrowed(
        self, parts: Sequence[Any], leader: int, resource: type[Resource], binds: Binds
    ) -> ColumnElement[bool]:
        """The rows that one part lists, and that fulfil the others."""
        value = aliased(table_of(parts[leader]))
        rows, beside = self._parted(parts, leader, value, resource, binds)
        return and_(resource.id.in_(rows), *beside)

    def _parted(
        self,
        parts: Sequence[Any],
        leader: int,
        value: Any,
        resource: type[Resource],
        binds: Binds,
        used: list[Any] | None = None,
        *,
        in_order: bool = False,
    ) -> tuple[Select[Any], list[ColumnElement[bool]]]:
        """The index rows that one part lists, of `value`, and that fulfil all that can be seen of
        them there; and what is to be looked at in the resource. The part's binds are noted as
        `used`; `in_order` as in `Row`."""
        here, there = Row(value, value.resource_id, in_order), Row.of(resource)
        within: list[ColumnElement[bool]] = []
        beside: list[ColumnElement[bool]] = []
        for number, part in enumerate(parts):  # the binds are in this order
            if number == leader:
                rows = self._rows(part, value, binds if used is None else _noting(binds, used))
            elif is_of_index_rows(part):
                within.append(self._looked_at(part, here, binds))
            else:
                beside.append(self._looked_at(part, there, binds))
        return rows.where(*within), beside

    def _rows(self, form: Any, value: Any, binds: Binds, *, leads: bool = True) -> Select[Any]:
        """The row numbers that a condition lists, of `value` (an alias of its `table_of`)."""
        match form:
            case ("indexed", _, parameters, tests):
                return select(value.resource_id).where(
                    of_parameters(value, parameters), passes(value, tests, binds)
                )
            case ("together", components):
                return self._together(components, value, binds)
            case ("leads", parameters, inner, names, _):
                led = self._led(value, parameters, inner, names, binds, leads=leads)
                return select(value.resource_id).where(led)
        raise TypeError("not a form of a criterion that lists rows")

    def _listed(self, form: Any, resource: type[Resource], binds: Binds) -> ColumnElement[bool]:
        match form:
            case (kind, *_) if kind in LISTS_ROWS:
                return resource.id.in_(self._rows(form, aliased(table_of(form)), binds))
            case ("referred", kind, parameters, inner, names):
                reference, uri = aliased(SearchReference), aliased(SearchUri)
                used: list[Any] = []
                noted = _noting(binds, used)
                found = self._referring(reference, reference.target, kind, parameters, inner, noted)
                by_id = listed_apart(resource.logical_id, found)
                if not names:
                    return by_id
                naming = self._naming(uri, uri.resource_id, form, iter(used))
                return or_(by_id, listed_apart(resource.id, naming))
            case ("some", parts):
                return or_(false(), *[self._listed(part, resource, binds) for part in parts])
        return self._looked_at(form, Row.of(resource), binds)

    # A condition as a look into one row.

    def _looked_at(self, form: Any, row: Row, binds: Binds) -> ColumnElement[bool]:
        resource: type[Resource] = row.holder
        match form:
            case ("every", parts):
                return and_(true(), *[self._looked_at(part, row, binds) for part in parts])
            case ("some", parts):
                return or_(false(), *[self._looked_at(part, row, binds) for part in parts])
            case ("without", part):
                return not_(self._looked_at(part, row, binds))
            case ("leads", parameters, inner, names, named) if self._one_by_one:
                return self._leading(row, parameters, inner, names, binds, named=named)
            case (kind, *_) if kind in LISTS_ROWS:
                value = aliased(table_of(form))
                same = value.resource_id == row.number
                if row.in_order and is_walkable(form):
                    # A span is looked up under the value, where the rows are in this order too: one
                    # lies beside the other, unlike what is found under the numbers of resources.
                    same = value.resource_id.between(row.number, row.number)
                rows = self._rows(form, value, binds, leads=False).where(same)
                one: Select[Any] = rows.with_only_columns(
                    literal_column("1"), maintain_column_froms=True
                )
                return there_is(one.correlate(row.holder))
            case ("referred", kind, parameters, inner, names):
                reference, uri = aliased(SearchReference), aliased(SearchUri)
                it: Any = literal_column("1")
                used: list[Any] = []
                noted = _noting(binds, used)
                if self._one_by_one:
                    rows = self._pointing(kind, parameters, inner, resource.logical_id, noted)
                else:
                    rows = self._referring(reference, it, kind, parameters, inner, noted)
                    rows = rows.where(reference.target == resource.logical_id)
                by_id = there_is(rows.correlate(resource))
                if not names:
                    return by_id
                naming = self._naming(uri, it, form, iter(used))
                named = naming.where(uri.resource_id == resource.id)
                return or_(by_id, there_is(named.correlate(resource)))
            case ("ids", size):
                return one_of_binds(resource.logical_id, size, binds)
            case ("changed", since, before):
                return and_(
                    resource.changed >= next(binds) if since else true(),
                    resource.changed < next(binds) if before else true(),
                )
            case ("natively", ("native", level, criteria)):
                condition = search.condition(criteria, self.links, binds)
                rows = self._decided.native(level, KEYS[level], condition)
                return listed_apart(resource.logical_id, rows)
        raise TypeError("not a form of a criterion")

    def _together(self, components: Sequence[Any], first: Any, binds: Binds) -> Select[Any]:
        """The rows that have values which belong together and all pass."""
        found: Any = None
        for _, table, parameters, tests in components:
            value = first if found is None else aliased(TABLES[table])
            fits = and_(of_parameters(value, parameters), passes(value, tests, binds))
            if found is None:
                found = select(value.resource_id).where(fits)
            else:
                found = found.join(
                    value,
                    and_(
                        value.resource_id == first.resource_id,
                        value.position == first.position,
                        fits,
                    ),
                )
        rows: Select[Any] = found
        return rows

    def _led(
        self,
        reference: Any,
        parameters: Sequence[str],
        inner: Any,
        names: str,
        binds: Binds,
        *,
        leads: bool,
    ) -> ColumnElement[bool]:
        used: list[Any] = []
        kind, keys = self._selected(inner, _noting(binds, used))
        by_id = listed_apart(reference.target, keys, leads=leads)
        led = and_(reference.target_kind == word(kind), by_id)
        if names:
            told = self._names(inner, names, iter(used))
            by_name = listed_apart(reference.target, told, leads=leads)
            led = or_(led, and_(reference.target_kind == word(""), by_name))
        return and_(of_parameters(reference, parameters), led)

    def _leading(
        self,
        row: Row,
        parameters: Sequence[str],
        inner: Any,
        names: str,
        binds: Binds,
        *,
        named: bool,
    ) -> ColumnElement[bool]:
        """Whether a reference of the row leads to something selected, which is looked at itself.

        First the references of the row are looked up, then what they lead to: in no other order,
        and by no other index, whatever the database takes to be few. With `named` only where the
        row does not say whose it is, or it is somebody's who has the name: they are listed once.
        """
        reference = aliased(SearchReference)
        one: Any = literal_column("1")
        has_name: Sequence[ColumnElement[bool]] = ()
        first: Sequence[ColumnElement[bool]] = ()
        used: list[Any] = []
        match inner:
            case ("selected", kind, criterion):
                target = aliased(Resource)
                by_id = target.logical_id == reference.target
                noted = _noting(binds, used)
                led = select(one).where(by_id, self._further._shown(target, kind, criterion, noted))
            case ("native", level, criteria):
                kind = NATIVE[level]
                column, pointed = key_and_target(level, reference)
                condition = search.condition(
                    looked_into(criteria), self._further.links, _noting(binds, used)
                )
                led = self._decided.native(level, one, condition).where(column == pointed)
                # A name is seen without the record, which is looked at if it fits.
                if (rows := search.named(level, criteria, iter(used))) is not None:
                    has_name = [search.has_name(rows, pointed)]
                    if named and (said := whose_it_is(row.holder)) is not None:
                        whose, is_unsaid = said
                        first = [or_(is_unsaid, whose.in_(rows.correlate(None)))]
            case _:
                raise TypeError("not a form of a selection")
        its_kind: Any = unindexed(reference.target_kind)
        leads = and_(its_kind == word(kind), *has_name, there_is(led.correlate(reference)))
        if names:
            target, uri = aliased(Resource), aliased(SearchUri)
            by_name = select(one).where(
                uri.parameter == word(names),
                uri.value == reference.target,
                target.id == uri.resource_id,
                self._further._shown(target, kind, inner[2], iter(used)),
            )
            by_name = by_name.correlate(reference)
            leads = or_(leads, and_(its_kind == word(""), there_is(by_name)))
        references = select(one).where(
            reference.resource_id == row.number,
            among_words(unindexed(reference.parameter), parameters),
            leads,
        )
        return and_(*first, there_is(references.correlate(row.holder)))

    def _shown(
        self, target: type[Resource], kind: str, criterion: Any, binds: Binds
    ) -> ColumnElement[bool]:
        """Whether a resource that was come by is selected, and may be seen."""
        return and_(
            target.kind == word(kind),
            ~target.deleted,
            self._looked_at(criterion, Row.of(target), binds),
            self._decided.resource(target),
        )

    def _referring(
        self,
        reference: Any,
        column: Any,
        kind: str,
        parameters: Sequence[str],
        inner: Any,
        binds: Binds,
    ) -> Select[Any]:
        """`column` of the references from selected resources to some of `kind`."""
        _, inner_kind, criterion = inner
        one = aliased(Resource)
        return (
            select(column)
            .select_from(reference)
            .join(one, one.id == reference.resource_id)
            .where(
                of_parameters(reference, parameters),
                reference.target_kind == word(kind),
                self._seen(one, inner_kind, criterion, binds),
            )
        )

    def _naming(self, uri: Any, column: Any, form: Any, binds: Binds) -> Select[Any]:
        """`column` of the names by which selected resources refer to others."""
        _, _, parameters, inner, names = form
        reference = aliased(SearchReference)
        rows = self._referring(reference, column, "", parameters, inner, binds)
        return rows.join(uri, uri.value == reference.target).where(uri.parameter == word(names))

    def _names(self, inner: Any, names: str, binds: Binds) -> Select[Any]:
        """The names of what is selected, as far as it may be seen."""
        _, kind, criterion = inner
        uri, one = aliased(SearchUri), aliased(Resource)
        return (
            select(uri.value)
            .join(one, one.id == uri.resource_id)
            .where(uri.parameter == word(names), self._seen(one, kind, criterion, binds))
        )

    def _selected(self, inner: Any, binds: Binds) -> tuple[str, Select[Any]]:
        """The type and the logical ids of what is selected, as far as it may be seen."""
        match inner:
            case ("selected", kind, criterion):
                one = aliased(Resource)
                found = select(one.logical_id).where(self._seen(one, kind, criterion, binds))
                return kind, found
            case ("native", level, criteria):
                condition = search.condition(criteria, self.links, binds)
                found = self._decided.native(level, KEYS[level], condition)
                return NATIVE[level], found
        raise TypeError("not a form of a selection")

    def _seen(
        self, one: type[Resource], kind: str, criterion: Any, binds: Binds
    ) -> ColumnElement[bool]:
        return and_(
            of_kind(one, kind, criterion),
            ~one.deleted,
            self.held(criterion, one, binds),
            self._decided.resource(one),
        )


def _all(rows: Select[Any]) -> ColumnElement[bool]:
    """What is asked of the rows of a SELECT."""
    condition = rows.whereclause
    return true() if condition is None else condition


def _noting(binds: Binds, used: list[Any]) -> Binds:
    """The binds, as they are taken, and noted so that the same can be taken again."""
    for one in binds:
        used.append(one)
        yield one

"""Revisions of a run's configuration: what was set when, by which attempt, and what is in force at a step.

The configuration is what ``param``, ``lezea_config`` and ``constraints`` say, by dotted name. A value holds until it is
set anew, also in the attempts after it. What an attempt sets before its first training step makes one revision; after
that each record that changes a value makes one. Setting a value to what it is already makes none, so that an attempt
that changes nothing has no revision of its own. ``1``, ``1.0`` and ``true`` are three values.

Only records of one writer belong here: each writer has its own configuration.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lezea_mlops._bounded import MAX_KEYS, BoundedTable
from lezea_mlops.events import Envelope, as_number
from lezea_mlops.insight.points import MAX_DEPTH, leaves, text_of, whole_step
from lezea_mlops.insight.series import metric_name

CONFIGURATION = ("param", "lezea_config", "constraints")
TRAINING = ("training_step", "metric")
TOO_DEEP = "nested too deeply to be shown here; the journal holds it"


class Absent(enum.Enum):
    """What stands where there was no value; None is a value."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT

Changes = Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Revision:
    """One state of the configuration, and how it differs from the one before.

    Attributes:
        number: from 1.
        attempt: the attempt that made it.
        step: the last training step that the attempt had logged by then; None before its first.
        ts: when its last value was set, UTC microseconds.
        changed: (before, after) by dotted name; before is ``ABSENT`` where there was no value.
        partial: the run has more names than are kept at once, so that a before may be ``ABSENT`` though there was one.
    """

    number: int
    attempt: int
    step: int | None
    ts: int
    changed: Changes
    partial: bool = False
    # Shared by all revisions of a run: each holds its own changes alone, and finds those before it here.
    _all_changes: Sequence[Changes] = field(default=(), repr=False, compare=False)

    @property
    def config(self) -> dict[str, Any]:
        """All values in force, by dotted name."""
        return {
            name: after
            for changed in self._all_changes[: self.number]
            for name, (_, after) in changed.items()
        }


class RevisionHistory:
    """The revisions of one writer, and which steps each of its attempts trained.

    Args:
        records: those of the writer, in their order.
        limit: how many names are kept to compare with; those that were not set for longest leave first.

    Attributes:
        revisions: in the order they were made.
        attempts: every attempt with its least and greatest training step; None where it logged none.
    """

    def __init__(self, records: Iterable[Envelope], limit: int = MAX_KEYS) -> None:
        self.revisions: list[Revision] = []
        self.attempts: dict[int, tuple[int, int] | None] = {}
        self._all_changes: list[Changes] = []
        self._in_force: BoundedTable[str, Any] = BoundedTable(lambda: ABSENT, limit)
        self._attempt = 0
        self._step: int | None = None
        self._trained = False
        self._open: dict[str, tuple[Any, Any]] = {}
        self._open_ts = 0
        for record in records:
            self._observe(record)
        self._close()

    def config(self, at_step: int | None = None, attempt: int | None = None) -> dict[str, Any]:
        """Return the values in force.

        Args:
            at_step: at this training step, of the newest attempt that covers it; where none does, of the newest that
                began before it, else of the first. None: at the end.
            attempt: of this attempt and those before it; None: of that which ``at_step`` leads to, or of all.

        Raises:
            ValueError: there is no such attempt.
        """
        if attempt is not None and attempt not in self.attempts:
            known = ", ".join(map(str, sorted(self.attempts))) or "none"
            raise ValueError(f"attempt is {attempt}, and the run has these attempts: {known}")
        if attempt is None and at_step is not None:
            attempt = self._attempt_at(at_step)
        config: dict[str, Any] = {}
        for revision in self.revisions:
            if _holds(revision, at_step, attempt):
                config |= {name: after for name, (_, after) in revision.changed.items()}
        return config

    def _attempt_at(self, step: int) -> int | None:
        """Return the attempt whose values hold at *step*; None if there is no attempt at all."""
        spans = [(att, *span) for att, span in self.attempts.items() if span is not None]
        for candidates in (
            [att for att, first, last in spans if first <= step <= last],
            [att for att, first, _ in spans if first <= step],
        ):
            if candidates:
                return max(candidates)
        return min((att for att, *_ in spans), default=max(self.attempts, default=None))

    def _observe(self, record: Envelope) -> None:
        if record.att != self._attempt:
            self._close()
            self._attempt, self._step, self._trained = record.att, None, False
        self.attempts.setdefault(record.att, None)
        if record.type in TRAINING:
            if not self._trained:
                self._close()
                self._trained = True
            self._train(record)
            return
        values = _values_of(record)
        if values:
            self._set(values, record.ts)
            if self._trained:
                self._close()

    def _train(self, record: Envelope) -> None:
        step = record.payload.get("step")
        at = whole_step(record.payload.get("epoch") if step is None else step)
        if at is None:
            return
        self._step = at
        first, last = self.attempts[record.att] or (at, at)
        self.attempts[record.att] = (min(first, at), max(last, at))

    def _set(self, values: Mapping[str, Any], ts: int) -> None:
        for name, value in values.items():
            before = self._in_force[name]
            if _same(before, value):
                continue
            self._in_force[name] = value
            first = self._open[name][0] if name in self._open else before
            self._open[name] = (first, value)
            self._open_ts = ts

    def _close(self) -> None:
        """Make a revision of what was changed since the last one; a value that came back is no change."""
        changed = {name: change for name, change in self._open.items() if not _same(*change)}
        self._open = {}
        if not changed:
            return
        self._all_changes.append(changed)
        self.revisions.append(
            Revision(
                len(self._all_changes), self._attempt, self._step, self._open_ts, changed,
                self._in_force.evicted > 0, self._all_changes,
            )
        )  # fmt: skip


def _holds(revision: Revision, at_step: int | None, attempt: int | None) -> bool:
    if attempt is None or revision.attempt < attempt:
        return True
    if revision.attempt > attempt:
        return False
    # What was set after step 57 was logged holds from step 58 on.
    return at_step is None or revision.step is None or revision.step < at_step


def _same(value: Any, other: Any) -> bool:
    """Tell whether two values are equal and of one type, at every depth; NaN is equal to itself."""
    return type(value) is type(other) and repr(value) == repr(other)


# ---------------------------------------------------------------------- values


def _values_of(record: Envelope) -> dict[str, Any]:
    """Return what a record sets, by dotted name behind its scopes."""
    payload = record.payload
    if record.type == "param":
        found = list(leaves(payload.get("params")))
        if "key" in payload:
            nested = payload.get("nested_key")
            path = (text_of(payload["key"]), *map(text_of, nested if isinstance(nested, list) else ()))
            found.append((path, payload.get("value")))
    elif record.type in CONFIGURATION:
        found = [(path, value) for path, value in leaves(payload) if path[0] not in ("run_id", "scope")]
    else:
        return {}
    named = {metric_name(record.scope, None, name): value for name, value in _dotted(found)}
    return {name: _typed(value) for name, value in named.items()}


def _dotted(found: Sequence[tuple[tuple[str, ...], Any]]) -> Iterator[tuple[str, Any]]:
    """Yield values by dotted name; where ``a.b`` and ``a: {b: …}`` meet, the dots of the flatter are escaped."""
    deepest: dict[str, int] = {}
    for path, _ in found:
        name = ".".join(path)
        deepest[name] = max(len(path), deepest.get(name, 0))
    for path, value in found:
        name = ".".join(path)
        if len(path) < deepest[name]:
            name = ".".join(part.replace(".", "\\.") for part in path)
        yield name, value


def _typed(value: Any, depth: int = 0) -> Any:
    """Return a value of a payload as Python holds it: numbers that are not finite are numbers again."""
    if depth > MAX_DEPTH:
        return TOO_DEEP
    if isinstance(value, Mapping):
        if value.keys() == {"$num"} and isinstance(number := as_number(value["$num"]), float):
            return number
        return {name: _typed(item, depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_typed(item, depth + 1) for item in value]
    return value

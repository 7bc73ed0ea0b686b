"""Metrics: every point of the journal is in MLflow, and MLflow has no other under the same names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.base import AuditCounts, Finding
from lezea_mlops.sinks.mlflow.audit_survey import Share, Stamp, Stored, stamp
from lezea_mlops.sinks.mlflow.names import fit
from lezea_mlops.sinks.mlflow.pieces import Translation, time_ms

# Writer and number of the record that brought a point.
Origin = tuple[str, int]


class Points:
    """Compares some of the metrics; what MLflow has of them is held, and each point is ticked off."""

    def __init__(self, stored: Stored, share: Share, counts: AuditCounts) -> None:
        self._stored = stored
        self._share = share
        self._counts = counts
        self._ticked = {
            key: {point: False for point in stored.points(key) if self._is_ours(point[0])}
            for key in share.keys
        }
        self._missing: dict[str, dict[Stamp, Origin]] = {}

    def take(self, record: Envelope, owed: bool, brought: Translation) -> None:
        """Tick off the points of one record."""
        origin = (record.wid, record.seq)
        for point in brought.points:
            key = fit(point.key)
            ticked = self._ticked.get(key)
            if ticked is None or not self._is_ours(point.step):
                continue
            at = stamp(point.step, time_ms(record), point.value)
            shown = owed and self._stored.shows(point, key)
            self._counts.checked += shown
            if at in ticked:
                self._counts.merged += shown and ticked[at]
                ticked[at] = True
            elif shown:
                missing = self._missing.setdefault(key, {})
                self._counts.merged += at in missing
                missing.setdefault(at, origin)

    def findings(self) -> Iterator[Finding]:
        """Yield what is missing, and what no record brought."""
        for key in sorted(self._ticked):
            ticked = self._ticked[key]
            missing = self._missing.get(key, {})
            strangers = [point for point, known in ticked.items() if not known]
            if strangers:
                known = {(step, value) for (step, _, value), ours in ticked.items() if ours}
                yield from explained(key, strangers, missing, known)
            for at, (wid, seq) in missing.items():
                yield Finding("missing", _what(key, at), wid, seq, _words(at), mendable=True)

    def _is_ours(self, step: int) -> bool:
        return step % self._share.parts == self._share.part


def explained(
    key: str, strangers: Iterable[Stamp], missing: dict[Stamp, Origin], known: set[tuple[int, float | None]]
) -> Iterator[Finding]:
    """Say of points that no record brought what they may have been; their originals leave *missing*."""
    at_step: dict[int, list[Stamp]] = {}
    for at in missing:
        at_step.setdefault(at[0], []).append(at)
    for stranger in sorted(strangers, key=lambda at: at[:2]):
        original = _original(stranger, at_step.get(stranger[0], []))
        what, found = _what(key, stranger), _words(stranger)
        if original is not None:
            at_step[stranger[0]].remove(original)
            wid, seq = missing.pop(original)
            yield Finding("altered", what, wid, seq, _words(original), found, mendable=True)
        elif (stranger[0], stranger[2]) in known:
            yield Finding("doubled", what, None, None, "once", f"also {found}")
        else:
            yield Finding("altered", what, None, None, None, found)


def _original(stranger: Stamp, missing: list[Stamp]) -> Stamp | None:
    """Return the missing point that was made into *stranger*: same time with another value, or the other way round."""
    same_time = (at for at in missing if at[1] == stranger[1])
    same_value = (at for at in missing if at[2] == stranger[2])
    return next(same_time, None) or next(same_value, None)


def _what(key: str, at: Stamp) -> str:
    return f"metric {key} step {at[0]}"


def _words(at: Stamp) -> str:
    moment = datetime.fromtimestamp(at[1] / 1000, timezone.utc).isoformat(timespec="milliseconds")
    return f"{'NaN' if at[2] is None else repr(at[2])} at {moment}"

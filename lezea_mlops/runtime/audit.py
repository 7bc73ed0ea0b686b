"""An audit: what the journal of a run holds, compared with what each destination holds, and mended on request."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from lezea_mlops.config import Settings
from lezea_mlops.delivery import surprises_end_here
from lezea_mlops.errors import JournalError
from lezea_mlops.events import Envelope, Gap, as_number
from lezea_mlops.journal import (
    Cursor,
    CursorState,
    Position,
    RunFolder,
    read_chunk,
    recorded_run_id,
    stands_behind,
)
from lezea_mlops.runtime.assembly import build_sinks
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.runtime.replay import ELSEWHERE, Order, Wait, deliver_run
from lezea_mlops.runtime.retrying import files_to_retry, refused_in
from lezea_mlops.runtime.rewind import rewind
from lezea_mlops.sinks.base import AuditCounts, Auditor, Finding, Run, Sink, Unavailable, destination_id

# Beyond so many findings they are counted and not kept: a destination that lost everything would fill the memory.
MAX_FINDINGS = 100_000


@dataclass
class AuditReport:
    """What an audit of one run found at one destination.

    Attributes:
        run_id: the experiment id.
        sink: the destination's kind, such as ``mlflow``.
        destination: the name of its cursor.
        audited: whether it was compared; some destinations cannot be asked what they hold.
        error: why it could not be compared; None if it was.
        reason: one word for the error.
        checked: points of metrics, params, tags, files and so on that were compared.
        merged: those that the destination cannot hold twice, for all of them is equal to another one.
        withheld: values of individuals beyond the number of names that are shown.
        waiting: records that are not delivered yet.
        rejected: records that were set aside, since the destination can never take them.
        damaged: places of the journal that hold no record.
        never_written: records that the journal itself lacks and says so, for instance of a full disk.
        missing: how many things the destination lacks.
        doubled: how many it holds once more.
        altered: how many have another value, or were brought by no record.
        findings: the first of these, in words.
        unlisted: how many findings there are beside them.
        delivered: records that a repair delivered.
        repair_error: why a repair is not complete; None if it is, or if none was asked for.
    """

    run_id: str
    sink: str
    destination: str
    audited: bool = False
    error: str | None = None
    reason: str | None = None
    checked: int = 0
    merged: int = 0
    withheld: int = 0
    waiting: int = 0
    rejected: int = 0
    damaged: int = 0
    never_written: int = 0
    missing: int = 0
    doubled: int = 0
    altered: int = 0
    findings: list[Finding] = field(default_factory=list)
    unlisted: int = 0
    delivered: int = 0
    repair_error: str | None = None

    @property
    def is_right(self) -> bool:
        """Whether all that the journal holds is there, once and unaltered, as far as it can be known."""
        return not (self.error or self.missing or self.doubled or self.altered or self.waiting)


def audit_run(
    folder: RunFolder,
    settings: Settings,
    *,
    sinks: Collection[str] | None = None,
    repair: bool = False,
    wait: Wait = time.sleep,
) -> list[AuditReport]:
    """Compare what one run's journal holds with what each destination holds.

    Of a run that is written and delivered meanwhile, what was delivered at the start is compared.

    Args:
        folder: the run.
        settings: which destinations there are.
        sinks: names of those to compare; None for all.
        repair: deliver again what is missing or altered, where that helps, and what waits; then compare once more.
        wait: lets the seconds of a repair's pauses pass.
    """
    chosen = [sink for sink in build_sinks(settings) if sinks is None or sink.name in sinks]
    audits = [_Audit(folder, sink) for sink in chosen]
    reports = [audit.report for audit in audits]
    if not repair or all(report.error or report.is_right for report in reports):
        return reports
    order = Order(sinks=[sink.name for sink in chosen], wait=wait)
    delivered, repair_error = _repair(folder, settings, audits, order)
    reports = [_Audit(folder, sink).report for sink in chosen]
    for report in reports:
        report.delivered, report.repair_error = delivered[report.sink], repair_error
    return reports


class _Audit:
    """One audit of one destination, and what came of it.

    Attributes:
        report: for whoever asked.
        again: by writer, the first record that must be delivered again.
    """

    def __init__(self, folder: RunFolder, sink: Sink) -> None:
        self.destination = destination_id(sink)
        self.report = AuditReport(folder.run_id, sink.name, self.destination)
        self.again: dict[str, int] = {}
        try:
            with surprises_end_here(f"the sink {sink.name}", declared=(JournalError, OSError)):
                self._run(folder, sink)
        except Unavailable as error:
            self.report.error, self.report.reason = str(error), error.reason
        except (JournalError, OSError) as error:
            self.report.error, self.report.reason = str(error), "journal"

    def _run(self, folder: RunFolder, sink: Sink) -> None:
        state = Cursor(folder.cursor(self.destination)).state
        journal = _Journal(folder, self.destination, state)
        counts = AuditCounts()
        if isinstance(sink, Auditor):
            run = Run(recorded_run_id(folder) or folder.run_id, folder.path)
            for finding in sink.audit(run, state.sink, journal, counts):
                self._take(finding)
            self.report.audited = True
        journal.count()
        self.report.checked, self.report.merged = counts.checked, counts.merged
        self.report.withheld = counts.withheld
        self.report.waiting, self.report.rejected = journal.counts["waiting"], journal.counts["rejected"]
        self.report.damaged = journal.counts["damaged"]
        self.report.never_written = journal.counts["never_written"]

    def _take(self, finding: Finding) -> None:
        report = self.report
        setattr(report, finding.kind, getattr(report, finding.kind) + 1)
        if finding.mendable and finding.wid is not None and finding.seq is not None:
            self.again[finding.wid] = min(finding.seq, self.again.get(finding.wid, finding.seq))
        if len(report.findings) < MAX_FINDINGS:
            report.findings.append(finding)
        else:
            report.unlisted += 1


class _Journal:
    """The records of a run, from the beginning at each call; each with whether a destination owes it.

    Attributes:
        counts: ``waiting``, ``rejected``, ``damaged`` and ``never_written``, as the last whole reading found them.
    """

    def __init__(self, folder: RunFolder, destination: str, state: CursorState) -> None:
        self._folder = folder
        self.counts: Counter[str] = Counter()
        self._read_once = False
        self._offsets = {wid: _trusted(folder, wid, at) for wid, at in state.positions.items()}
        files = [folder.rejected(destination), *files_to_retry(folder, destination)]
        self._rejected = {record for path in files for record in refused_in(path)}

    def __call__(self) -> Iterator[tuple[Envelope, bool]]:
        counts: Counter[str] = Counter()
        for wid, path in self._folder.journals().items():
            offset, delivered = 0, self._offsets.get(wid, 0)
            while (chunk := read_chunk(path, offset)).after != offset:
                counts["damaged"] += len(chunk.damage)
                for record, end in zip(chunk.records, chunk.ends, strict=True):
                    rejected = (record.wid, record.seq) in self._rejected
                    counts["waiting"] += end > delivered
                    if record.type == Gap.type:
                        counts["never_written"] += int(as_number(record.payload.get("count")) or 0)
                    counts["rejected"] += rejected and end <= delivered
                    yield record, end <= delivered and not rejected
                offset = chunk.after
        self.counts, self._read_once = counts, True

    def count(self) -> None:
        """Read it through, unless that was done."""
        if not self._read_once:
            for _ in self():
                pass


def _trusted(folder: RunFolder, wid: str, at: Position) -> int:
    """Return the offset of a position; 0 if the file is not the one that the cursor speaks of, as for the shipper."""
    path = folder.journal(wid)
    return at.offset if path.exists() and stands_behind(path, at) else 0


def _repair(
    folder: RunFolder, settings: Settings, audits: list[_Audit], order: Order
) -> tuple[Counter[str], str | None]:
    """Deliver again; return how many records came, by sink, and why it is not all that should."""
    try:
        lock = take_delivery_lock(folder)
        if lock is None:
            return Counter(), f"{ELSEWHERE}; ask again when it has ended"
        try:
            for audit in audits:
                rewind(folder, audit.destination, audit.again)
        finally:
            lock.release()
        # Whoever takes the lock now delivers what was set back: this process, or one that was quicker.
        outcomes = deliver_run(folder, settings, order)
    except (JournalError, OSError) as error:
        return Counter(), str(error)
    errors = [f"{outcome.sink}: {outcome.error}" for outcome in outcomes if outcome.error]
    return Counter({outcome.sink: outcome.records for outcome in outcomes}), "; ".join(errors) or None

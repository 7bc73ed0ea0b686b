"""What MLflow holds of a run, compared with what its journal holds; nothing is changed.

MLflow is asked before the journal is read: what is delivered meanwhile is in the journal by then, and no stranger.
Memory stays bounded because the journal is read several times, each time for some of the metrics and files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.base import AuditCounts, AuditedJournal, Finding, Run
from lezea_mlops.sinks.mlflow.audit_facts import Facts
from lezea_mlops.sinks.mlflow.audit_files import Files, WantedFiles
from lezea_mlops.sinks.mlflow.audit_points import Points
from lezea_mlops.sinks.mlflow.audit_survey import Stored, Survey
from lezea_mlops.sinks.mlflow.pieces import Translation
from lezea_mlops.sinks.mlflow.translation import translate

# So much is held at once, about: some hundred bytes each.
MAX_POINTS = 500_000
MAX_FILES = 100_000


class Reader(Protocol):
    """Looks at every record of the journal."""

    def take(self, record: Envelope, owed: bool, brought: Translation) -> None:
        """Look at one record, and at what it brings to MLflow."""


def audited(
    uri: str, run: Run, state: Mapping[str, Any], journal: AuditedJournal, counts: AuditCounts
) -> Iterator[Finding]:
    """Yield the differences between MLflow at *uri* and the journal of *run*.

    Raises:
        Unavailable: MLflow cannot be asked, or a person deleted the run.
    """
    stored = Stored(uri, run, state)
    if stored.run is None:
        yield from _no_run(run, journal)
        return
    for other in stored.other_runs:
        found = f"run {other} beside run {stored.run_id}"
        yield Finding("doubled", f"run with the experiment id {run.run_id}", None, None, "one", found)
    survey = Survey(stored)
    _read(journal, [survey])
    counts.withheld = survey.withheld
    yield from _compared(stored, survey, journal, counts)


def _compared(
    stored: Stored, survey: Survey, journal: AuditedJournal, counts: AuditCounts
) -> Iterator[Finding]:
    """Compare all: facts at the first further reading of the journal, some of the metrics and files at each."""
    named = WantedFiles(stored, survey, counts)
    facts = Facts(stored, survey, named, counts)
    yield from facts.altered_params()
    shares = survey.metric_shares(MAX_POINTS)
    parts = -(-survey.files // MAX_FILES)
    for turn in range(max(1, len(shares), parts)):
        points = [Points(stored, share, counts) for share in shares[turn : turn + 1]]
        files = [Files(stored, survey, counts, turn, parts)] if turn < parts else []
        _read(journal, [*points, *files, *([facts] if turn == 0 else [])])
        if turn == 0:
            yield from facts.findings()
            yield from named.findings(journal)
        for metrics in points:
            yield from metrics.findings()
        for some in files:
            yield from some.wanted.findings(journal)


def _read(journal: AuditedJournal, readers: Iterable[Reader]) -> None:
    for record, owed in journal():
        brought = translate(record)
        for reader in readers:
            reader.take(record, owed, brought)


def _no_run(run: Run, journal: AuditedJournal) -> Iterator[Finding]:
    first = next((record for record, owed in journal() if owed), None)
    if first is not None:
        what = f"run with the experiment id {run.run_id}, and all that is in it"
        yield Finding("missing", what, first.wid, first.seq, "one", mendable=True)
